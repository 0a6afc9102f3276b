// Whether a scan has the contrast of a T1w. Mirrors deepmrseg_bids/tasks/contrast.py.

import { finding } from "./findings";
import type { Finding, Severity } from "./findings";
import { cut } from "./grid";
import type { Box, Grid } from "./grid";
import { roundHalfEven } from "./linear";
import type { Vec3 } from "./linear";
import { distance, erode, gaussianFilter, gaussianGradientMagnitude, median, percentiles, where } from "./ndimage";
import { boxAbove } from "./results";

const RIM_MM = 4;
const CORE_MM = 14;
const KNOWN_MM = 2;
const SMOOTHED_MM = 1.4;
const EVENED_MM = 12;
const TISSUE = 0.65;
const LEFT_OUT_MM = 2;
const DEEP_MM = 10;
const EVEN_PERCENT = 30;
const COIL_MM = 15;
const WHITE = 0.25;
const LEAST_START = 0.3;
const BRIGHTER = 1.06;
const DARKER = 0.9;
const BINS = 60;
const LEAST_BRIGHT = 0.09;
const MOST_BRIGHT = 0.14;

/** Whether the tissues of a brain have the order of a T1w; image has air at 0. */
export function checkContrast(mask: Uint8Array, image: Float32Array, grid: Grid): Finding[] {
  const severity = brighterThanWhite(mask, image, grid);
  if (severity) {
    const text = "contrast is not T1-like (grey matter or fluid is brighter than white matter, as in a FLAIR, T2w or PD image)";
    return [finding("contrast-doubtful", severity, severity === "error" ? `${text}: do not use the results of tasks that require a T1w` : text)];
  }
  const shrunk = (mm: number) => erode(mask, grid.shape, roundHalfEven(mm / grid.spacing[0]));
  const inner = shrunk(RIM_MM);
  const core = where(image, shrunk(CORE_MM));
  if (!core.length || mean(core) > mean(where(image, mask.map((one, n) => one & +!inner[n])))) return [];
  return [finding("contrast-doubtful", "warning", "contrast is not T1-like (the centre of the brain is darker than its surface)")];
}

function mean(values: Float32Array): number {
  return values.reduce((total, x) => total + x, 0) / values.length;
}

/** Whether much of a brain is brighter than its white matter; an error where that is certain. */
export function brighterThanWhite(whole: Uint8Array, picture: Float32Array, grid: Grid): Severity | null {
  const mm = grid.spacing[0];
  const around = boxAbove(whole, grid.shape, 0);
  if (grid.spacing.some((edge) => Math.abs(edge - KNOWN_MM) > 0.1) || around === null) return null;
  const box: Box = {
    start: around.start.map((x) => Math.max(0, x - 2)) as Vec3,
    stop: around.stop.map((x, k) => Math.min(grid.shape[k], x + 2)) as Vec3,
  };
  const shape = box.stop.map((end, k) => end - box.start[k]) as Vec3;
  const mask = cut(whole, grid.shape, box);
  const depth = distance(mask, shape).map((d) => d * mm);
  if (!depth.some((d) => d >= DEEP_MM)) return null;
  const inner = Uint8Array.from(depth, (d) => +(d >= LEFT_OUT_MM));
  const smooth = gaussianFilter(cut(picture, grid.shape, box), shape, SMOOTHED_MM / mm);
  const limit = TISSUE * median(where(smooth, inner));
  const tissue = inner.map((one, n) => one & +(smooth[n] > limit));
  const local = localMean(smooth, tissue, shape, EVENED_MM / mm);
  const flat = smooth.map((x, n) => x / Math.max(local[n], 1e-6));
  const steps = gaussianGradientMagnitude(flat, shape, 1);
  const deep = Uint8Array.from(depth, (d) => +(d >= DEEP_MM));
  const [most] = percentiles(where(steps, deep), [EVEN_PERCENT]);
  const even = deep.map((one, n) => one & +(steps[n] <= most));
  if (![smooth, flat].every((part) => mostlyBrighter(where(part, inner), mode(where(part, even))))) return null;
  const factor = towardsSurface(smooth, depth, even);
  const level = smooth.map((x, n) => x / factor[n]);
  return mostlyBrighter(where(level, inner), mode(where(level, even))) ? "error" : "warning";
}

/** How much brighter coils make each voxel, by the white matter of all depths. */
function towardsSurface(image: Float32Array, depth: Float32Array, even: Uint8Array): Float32Array {
  const level = mode(where(image, even));
  const white = even.map((one, n) => one & +(Math.abs(image[n] / level - 1) < WHITE));
  const x = where(depth.map((d) => Math.exp(-d / COIL_MM)), white);
  const y = where(image, white).map((v) => v / level);
  const [mx, my] = [mean(x), mean(y)];
  const slope = x.reduce((total, v, n) => total + (v - mx) * (y[n] - my), 0) / x.reduce((total, v) => total + (v - mx) ** 2, 0);
  const rise = Math.max(0, slope / Math.max(my - slope * mx, LEAST_START));
  return depth.map((d) => 1 + rise * Math.exp(-d / COIL_MM));
}

/** The mean of the voxels inside, near each voxel. */
function localMean(image: Float32Array, inside: Uint8Array, shape: Vec3, sigma: number): Float32Array {
  const weight = gaussianFilter(Float32Array.from(inside), shape, sigma);
  const total = gaussianFilter(image.map((x, n) => (inside[n] ? x : 0)), shape, sigma);
  return total.map((x, n) => x / Math.max(weight[n], 1e-3));
}

/** The most frequent level. */
function mode(values: Float32Array): number {
  const [low, high] = percentiles(values, [1, 99]);
  const counts = new Float32Array(BINS);
  for (const x of values) if (x >= low && x <= high) counts[Math.min(BINS - 1, Math.floor(((x - low) / (high - low)) * BINS))]++;
  const smooth = gaussianFilter(counts, [1, 1, BINS], [0, 0, 2]);
  const best = smooth.indexOf(smooth.reduce((a, b) => Math.max(a, b)));
  return low + ((best + 0.5) * (high - low)) / BINS;
}

function mostlyBrighter(brain: Float32Array, white: number): boolean {
  const bright = brain.reduce((count, x) => count + +(x > BRIGHTER * white), 0) / brain.length;
  const dark = brain.reduce((count, x) => count + +(x < DARKER * white), 0) / brain.length;
  return bright > LEAST_BRIGHT && bright > MOST_BRIGHT * (bright + dark);
}
