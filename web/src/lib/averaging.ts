// Structures that two networks know: the mean of what both say. Mirrors deepmrseg_bids/tasks/averaging.py.

import { forBox, overlap, resample } from "./grid";
import type { Grid } from "./grid";
import type { Posteriors } from "./results";

const MISSED = 0.5;
const NOTHING = 1e-3;

/** How many classes of a voxel are kept. */
export const KEPT = 4;
/** Certainty, as a whole number. */
export const FULL = 65535;

/** The most likely classes of each voxel, in falling order, and their probability in 65535ths. */
export interface Likeliest {
  grid: Grid;
  classes: Uint8Array;
  shares: Uint16Array;
}

/**
 * Let another network take part in what is said of some structures; same tells the class of found
 * for each label of the other that stands for the same.
 */
export function averageIn(found: Likeliest, other: Posteriors, same: Map<number, number>): void {
  const part = overlap(other.grid, found.grid);
  if (part === null) return;
  const box = found.grid.crop(part.start, part.stop);
  const means = new Map<number, Float32Array>();
  for (const known of new Set(same.values())) {
    const seen = new Float32Array(box.size);
    for (const [label, c] of same) {
      const number = c === known ? other.indices.indexOf(label, 1) : -1;
      if (number > 0) resample(other.data[number], other.grid, box).forEach((share, n) => (seen[n] += share));
    }
    let own = 0;
    forBox(found.grid.shape, part, (whole) => (own += shareOf(found, whole, known)));
    if (seen.reduce((a, b) => a + b, 0) >= MISSED * own) means.set(known, seen);
  }
  forBox(found.grid.shape, part, (whole, n) => mix(found, whole, means, n));
}

/** The probability of a class in a voxel. */
function shareOf({ classes, shares }: Likeliest, voxel: number, c: number): number {
  for (let t = voxel * KEPT; t < (voxel + 1) * KEPT && shares[t]; t++) if (classes[t] === c) return shares[t] / FULL;
  return 0;
}

/** The means in one voxel; the other classes share what is left as they did before. */
function mix(found: Likeliest, voxel: number, means: Map<number, Float32Array>, n: number): void {
  const at = voxel * KEPT;
  const mixed: [number, number][] = [];
  let [before, after] = [0, 0];
  for (const [c, seen] of means) {
    const own = shareOf(found, voxel, c);
    const mean = (own + seen[n]) / 2;
    if (!mean) continue;
    before += own;
    after += mean;
    mixed.push([c, mean]);
  }
  if (!after) return;
  const rest = Math.max(1 - after, 0);
  const left = 1 - before;
  if (left <= NOTHING) mixed.push([0, rest]);
  else
    for (let t = at; t < at + KEPT && found.shares[t]; t++)
      if (!means.has(found.classes[t])) mixed.push([found.classes[t], (found.shares[t] / FULL) * (rest / left)]);
  mixed.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
  for (let t = 0; t < KEPT; t++) {
    const [c, share] = mixed[t] ?? [0, 0];
    found.classes[at + t] = c;
    found.shares[at + t] = Math.round(Math.min(share, 1) * FULL);
  }
}
