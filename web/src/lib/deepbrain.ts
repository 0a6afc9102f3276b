// 14 deep structures, in a crop around them at 1 mm. Mirrors deepmrseg_bids/tasks/deepbrain.py and pose.py.

import { maskOf } from "./brain";
import type { Brain } from "./brain";
import type { Label } from "./bundle";
import { settle } from "./crops";
import { ScanError } from "./findings";
import { axesOf } from "./grid";
import { det3, nearestRotation, rounded, transpose } from "./linear";
import type { Matrix, Vec3 } from "./linear";
import type { Volume } from "./nifti";
import type { Predictor } from "./predictor";
import { checkStructures } from "./qc";
import { classes, confidences, largestParts, segmented } from "./results";
import type { Posteriors, Segmentation } from "./results";

const WHAT = "deep structure";
const TILTED_DEG = 10;
const FEWEST = 8;
const DECIMALS = 6;
// centres on the right, millimetres to the right, front and top of the middle of all
const CENTRES: Record<string, Vec3> = {
  "Accumbens-Area": [8.7, 15.6, -2.0],
  Amygdala: [20.2, -0.4, -14.1],
  Caudate: [12.3, 11.7, 13.0],
  Hippocampus: [23.5, -16.7, -10.2],
  Pallidum: [18.2, 0.0, 2.0],
  Putamen: [23.1, 4.6, 4.0],
  "Thalamus-Proper": [10.8, -14.8, 7.4],
};

/** The deep structures of a raw head whose brain was found. */
export async function segmentDeepbrain(volume: Volume, brain: Brain, predictor: Predictor): Promise<Segmentation> {
  if (!brain.centre) throw new ScanError(`${volume.name}: no deep structures were found in the brain`);
  const first = await settle(volume, brain.centre, maskOf(brain), predictor, WHAT, axesOf(brain.grid));
  const posteriors = await upright(volume, brain, first, predictor);
  const result = segmented("deepbrain", volume.grid, largestParts(posteriors), predictor.bundle);
  const doubts = checkStructures(result, maskOf(brain)(result.posteriors[0].grid));
  return { ...result, findings: [...result.findings, ...doubts] };
}

/** The same in a crop that is turned with the head, where that is much tilted and helps. */
async function upright(volume: Volume, brain: Brain, first: Posteriors, predictor: Predictor): Promise<Posteriors> {
  const axes = uprightAxes(first, predictor.bundle.labels);
  if (axes === null || tilt(axes, axesOf(brain.grid)) <= TILTED_DEG) return first;
  const middle = first.grid.toWorld(first.grid.shape.map((edge) => (edge - 1) / 2));
  try {
    const again = await settle(volume, middle, maskOf(brain), predictor, WHAT, axes);
    return meanSureness(again) > meanSureness(first) ? again : first;
  } catch (error) {
    if (error instanceof ScanError) return first;
    throw error;
  }
}

function meanSureness(posteriors: Posteriors): number {
  const sure = [...confidences(posteriors).values()];
  return sure.reduce((total: number, value) => total + (value ?? 0), 0) / sure.length;
}

/** (3, 3) unit vectors towards right, front and top of the head; null where too little was found. */
export function uprightAxes(found: Posteriors, table: Label[]): Matrix | null {
  const labels = classes(found);
  const { shape } = found.grid;
  const sums = table.map(() => [0, 0, 0, 0]);
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++) {
        if (!labels[n]) continue;
        const total = sums[labels[n] - 1];
        [i, j, k, 1].forEach((x, axis) => (total[axis] += x));
      }
  const seen: Vec3[] = [];
  const usual: Vec3[] = [];
  table.forEach(({ name }, c) => {
    const place = placeOf(name);
    const [x, y, z, size] = sums[c];
    if (!place || !size) return;
    seen.push(found.grid.toWorld([x / size, y / size, z / size]));
    usual.push(place);
  });
  if (seen.length < FEWEST) return null;
  const [a, b] = [centred(seen), centred(usual)];
  const common = [0, 1, 2].map((i) => [0, 1, 2].map((j) => a.reduce((total, p, n) => total + p[i] * b[n][j], 0)));
  // structures that look mirrored say nothing of how a head is turned
  if (det3(common) <= 0) return null;
  return nearestRotation(common).map((row) => row.map((x) => rounded(x, DECIMALS)));
}

function centred(points: Vec3[]): Vec3[] {
  const middle = [0, 1, 2].map((k) => points.reduce((total, p) => total + p[k], 0) / points.length);
  return points.map((p) => p.map((x, k) => x - middle[k]) as Vec3);
}

function placeOf(name: string): Vec3 | null {
  const [, side, structure] = /^(Left|Right)-(.*)$/.exec(name) ?? [];
  const centre = CENTRES[structure];
  return centre ? [side === "Right" ? centre[0] : -centre[0], centre[1], centre[2]] : null;
}

/** The angle between two sets of axes, degrees. */
export function tilt(axes: Matrix, other: Matrix): number {
  const both = transpose(axes);
  const trace = [0, 1, 2].reduce((total, i) => total + [0, 1, 2].reduce((t, k) => t + both[i][k] * other[k][i], 0), 0);
  return (Math.acos(Math.min(Math.max((trace - 1) / 2, -1), 1)) * 180) / Math.PI;
}
