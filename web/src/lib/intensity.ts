// Normalisation. Mirrors deepmrseg_bids/imaging/intensity.py.

import { ScanError } from "./findings";
import type { Vec3 } from "./linear";
import { percentiles, where } from "./ndimage";

export type IntensityMode = "head" | "brain" | "crop";

export const AIR = -2.5;
export const OUTSIDE = -3;
const CLIP = 5;
const FAR_MM = 60;
const SAMPLED = 100_000;
const FOREGROUND = 0.1;

/**
 * Scale intensities by the voxels that count: in a head those that are not air, among the scanned
 * ones; in a brain or a crop those of the mask.
 */
export function normalise(data: Float32Array, mode: IntensityMode, mask: Uint8Array): Float32Array {
  const own = where(data, mask);
  const counted = mode === "head" ? foreground(own) : own;
  if (!counted.length) throw new ScanError(`no voxel to scale the intensities by (mode '${mode}')`);
  const [low, high] = percentiles(thin(counted), [0.5, 99.5]);
  const { mean, deviation } = clippedMoments(counted, low, high);
  if (deviation <= 1e-6 * Math.max(Math.abs(mean), 1e-12)) throw new ScanError("the image has constant intensity");
  const unit = mode === "head" ? (mean - darkest(own)) / -AIR : deviation;
  const beyond = { head: AIR, brain: OUTSIDE, crop: 0 }[mode];
  return data.map((x, n) => (mask[n] ? Math.min(Math.max((x - mean) / unit, -CLIP), CLIP) : beyond));
}

/** Mean and standard deviation of values that are limited to a range. */
export function clippedMoments(values: Float32Array, low: number, high: number): { mean: number; deviation: number } {
  const clip = (x: number) => Math.min(Math.max(x, low), high);
  let total = 0;
  for (const x of values) total += clip(x);
  const mean = total / values.length;
  let squares = 0;
  for (const x of values) squares += (clip(x) - mean) ** 2;
  return { mean, deviation: Math.sqrt(squares / values.length) };
}

function foreground(own: Float32Array): Float32Array {
  const low = darkest(own);
  const [high] = percentiles(thin(own), [99.5]);
  return own.filter((x) => x > low + FOREGROUND * (high - low));
}

/** The intensity of air: the first percentile of a whole head. */
function darkest(own: Float32Array): number {
  return own.length ? percentiles(thin(own), [1])[0] : 0;
}

/** Every n-th value, so that a percentile of a large image costs nothing. */
function thin(values: Float32Array): Float32Array {
  const step = Math.max(1, Math.floor(values.length / SAMPLED));
  return step === 1 ? values : Float32Array.from({ length: Math.ceil(values.length / step) }, (_, n) => values[n * step]);
}

/** How far each voxel lies from the middle of the brain, in units of 60 mm: three channels. */
export function brainCoordinates(shape: Vec3, centre: Vec3, spacing: number): Float32Array {
  const size = shape[0] * shape[1] * shape[2];
  const out = new Float32Array(3 * size);
  let n = 0;
  for (let i = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++) {
        out[n] = Math.abs(((i - centre[0]) * spacing) / FAR_MM);
        out[n + size] = ((j - centre[1]) * spacing) / FAR_MM;
        out[n + 2 * size] = ((k - centre[2]) * spacing) / FAR_MM;
      }
  return out;
}
