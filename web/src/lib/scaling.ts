// Numbers that a file stores in another way than as float32: slopes, and sizes beyond it.
// Mirrors deepmrseg_bids/imaging/scaling.py.

import { finding, general } from "./findings";
import type { Finding } from "./findings";
import { percentiles } from "./ndimage";

const LOW = 1e-4; // intensities whose squares and steps are numbers in float32
const HIGH = 1e12;
const BRIGHT = 1000;
const SAMPLED = 200_000;
const BASES = [Math.E, 2, 10];
const MOST_EXPONENT = 24;
const LEAST_LEVELS = 20;
const WHOLE = 0.02;
const ALMOST_ALL = 0.98;

/** What is odd about the slope and the offset in a header. */
export function oddScaling({ slope, intercept }: { slope: number; intercept: number }): Finding[] {
  if (Number.isFinite(slope) && slope < 0) return [finding("header-values", "warning", `the scaling slope in the header is negative (${general(slope)}): is the image inverted?`)];
  if (Number.isFinite(slope) || (Number.isNaN(slope) && (Number.isNaN(intercept) || intercept === 0))) return [];
  return [finding("header-values", "warning", `the scaling in the header (slope ${general(slope)}, intercept ${general(intercept)}) was ignored`)];
}

/** Numbers that are too large or too small for float32 are divided by one number. */
export function rescaled(exact: Float64Array | Float32Array, findings: Finding[]): Float32Array {
  const level = levelOf(exact);
  if (!level || (level > LOW && level < HIGH)) return exact instanceof Float32Array ? exact : Float32Array.from(exact);
  const factor = level / BRIGHT;
  findings.push(finding("rescaled-values", "info", `intensities around ${general(level, 3)} were divided by ${general(factor, 3)}`));
  return Float32Array.from(exact, (x) => x / factor);
}

/** Whether finite intensities are logarithms of whole numbers, of which scanners make images. */
export function logarithms(data: Float32Array): Finding[] {
  const step = Math.max(1, Math.floor(data.length / SAMPLED));
  const seen = new Set<number>();
  for (let n = 0; n < data.length; n += step) seen.add(data[n]);
  const levels = Float64Array.from(seen).sort();
  if (levels.length < LEAST_LEVELS || mostlyWhole(levels) || levels[0] < 0) return [];
  const top = levels[levels.length - 1];
  if (!BASES.some((base) => top * Math.log(base) < MOST_EXPONENT && mostlyWhole(levels.map((x) => base ** x)))) return [];
  return [finding("log-transformed", "warning", "intensities are logarithms of whole numbers: the image was log-transformed, and volumes may be wrong; use the original image")];
}

function mostlyWhole(values: Float64Array): boolean {
  const near = values.reduce((count, x) => count + +(Math.abs(x - Math.round(x)) < WHOLE), 0);
  return near / values.length >= ALMOST_ALL;
}

/** How bright the bright voxels of an image are, whatever a few of them say. */
function levelOf(data: Float64Array | Float32Array): number {
  const step = Math.max(1, Math.floor(data.length / SAMPLED));
  const sample: number[] = [];
  for (let n = 0; n < data.length; n += step) if (Number.isFinite(data[n])) sample.push(Math.abs(data[n]));
  const high = sample.length ? percentiles(sample, [99.5])[0] : 0;
  if (high) return high;
  let most = 0;
  for (let n = 0; n < data.length; n++) if (Number.isFinite(data[n])) most = Math.max(most, Math.abs(data[n]));
  return most;
}
