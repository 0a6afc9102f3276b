// The outline of a brain at 1 mm, along its sulci. Mirrors deepmrseg_bids/tasks/outline.py.

import { maskOf } from "./brain";
import type { Brain, Outline } from "./brain";
import { aroundBrain, look } from "./crops";
import type { Grid } from "./grid";
import { roundHalfEven } from "./linear";
import { dilate, dilateByBox, fillHoles, largest, sum } from "./ndimage";
import type { Volume } from "./nifti";
import type { Predictor } from "./predictor";
import { expectedDice } from "./results";

const COARSEST_MM = 1.5;
const SHOWN_MM = 3;
const LEAST = 0.8;
const MOST = 1.1;

/** Whether the voxels of a scan are small enough for an outline of its own. */
export function isFine(grid: Grid): boolean {
  return Math.max(...grid.spacing) <= COARSEST_MM;
}

/** The outline of a brain whose mask is known roughly; null where the network fails. */
export async function findOutline(volume: Volume, brain: Brain, predictor: Predictor): Promise<Outline | null> {
  const { spacing } = predictor.bundle.preparation;
  const steps = roundHalfEven(SHOWN_MM / spacing);
  const box = aroundBrain(brain.probability, brain.grid, spacing, SHOWN_MM + spacing);
  const shownOn = (grid: Grid) => dilateByBox(maskOf(brain)(grid), grid.shape, steps);
  const likely = (await look(volume, box, shownOn, predictor)).data[1];
  const inside = largest(Uint8Array.from(likely, (p) => +(p > 0.5)), box.shape);
  const filled = fillHoles(inside, box.shape);
  const before = brain.probability.reduce((count, p) => count + +(p > 0.5), 0) * brain.grid.voxelVolume;
  const share = (sum(filled) * box.voxelVolume) / Math.max(before, 1);
  if (!(share >= LEAST && share <= MOST)) return null;
  const confidence = expectedDice(likely, (n) => filled[n]);
  const near = dilate(filled, box.shape);
  const probability = likely.map((p, n) => {
    if (filled[n]) return inside[n] ? p : 1;
    return near[n] ? Math.min(p, 0.499) : 0;
  });
  return { probability, grid: box, confidence };
}
