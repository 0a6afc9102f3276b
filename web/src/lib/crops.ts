// What a network in 3D is shown of a scan, and a second look. Mirrors deepmrseg_bids/tasks/crops.py.

import type { Preparation } from "./bundle";
import type { MaskOn } from "./brain";
import { ScanError } from "./findings";
import { axesOf, bounds, centredGrid, covered, Grid, resample } from "./grid";
import { brainCoordinates, normalise } from "./intensity";
import { identity, rounded } from "./linear";
import type { Matrix, Vec3 } from "./linear";
import { profile, profilePercentiles, sum } from "./ndimage";
import type { Volume } from "./nifti";
import { predict } from "./predictor";
import type { Predictor } from "./predictor";
import { boxAbove, classes, posteriorsOf } from "./results";
import type { Posteriors } from "./results";

const RECENTRE_MM = 4;
const LOOKS = 3;
const DECIMALS = 3;

/** What a network says of one part of a scan. */
export async function look(volume: Volume, grid: Grid, maskOn: MaskOn, predictor: Predictor): Promise<Posteriors> {
  const { bundle } = predictor;
  const image = resample(volume.data, volume.grid, grid);
  const mask = bundle.preparation.intensity === "brain" ? maskOn(grid) : covered(volume.grid, grid);
  const answer = await predict(predictor, shown(image, mask, grid.shape, bundle.preparation), grid.shape);
  return posteriorsOf(answer, grid, [0, ...bundle.labels.map((label) => label.index)]);
}

/** The channels of an image as a network is shown them; the model file adds the position itself. */
export function shown(image: Float32Array, mask: Uint8Array, shape: Vec3, preparation: Preparation): Float32Array {
  const scaled = normalise(image, preparation.intensity, mask);
  if (!preparation.coordinates) return scaled;
  const centre = [0, 1, 2].map((axis) => {
    const line = profile(mask, shape, axis);
    return line.reduce((total, count, x) => total + count * x, 0) / sum(line);
  }) as Vec3;
  const out = new Float32Array(4 * scaled.length);
  out.set(scaled);
  out.set(brainCoordinates(shape, centre, preparation.spacing), scaled.length);
  return out;
}

/** The box around a brain, with some room. */
export function aroundBrain(probability: Float32Array, grid: Grid, spacing: number, roomMm: number): Grid {
  const box = boxAbove(probability, grid.shape, 0.5);
  if (box === null) throw new ScanError("no brain was found");
  const axes = axesOf(grid);
  const along = (p: Vec3) => [0, 1, 2].map((j) => p[0] * axes[0][j] + p[1] * axes[1][j] + p[2] * axes[2][j]) as Vec3;
  const last = box.stop.map((x) => x - 1) as Vec3;
  const [low, high] = bounds([along(grid.toWorld(box.start)), along(grid.toWorld(last))]);
  const shape = [0, 1, 2].map((k) => Math.ceil((high[k] - low[k] + 2 * roomMm) / spacing)) as Vec3;
  const middle = [0, 1, 2].map((k) => (low[k] + high[k]) / 2);
  return centredGrid(axes.map((row) => row.reduce((total, x, k) => total + x * middle[k], 0)), shape, spacing, axes);
}

/** What a network says of a crop around its structures, cut again where it was off. */
export async function settle(volume: Volume, centre: Vec3, maskOn: MaskOn, predictor: Predictor, what: string, axes: Matrix = identity(3)): Promise<Posteriors> {
  const { shape, spacing } = predictor.bundle.preparation;
  for (let n = 1; ; n++) {
    const grid = centredGrid(centre, shape, spacing, axes);
    const posteriors = await look(volume, grid, maskOn, predictor);
    const labels = classes(posteriors);
    if (!labels.some((one) => one > 0)) throw new ScanError(`${volume.name}: no ${what} was segmented`);
    const [low, high] = profilePercentiles(labels, shape, [0.5, 99.5]);
    const found = grid.toWorld(low.map((x, k) => (x + high[k]) / 2)).map((x) => rounded(x, DECIMALS)) as Vec3;
    if (n === LOOKS || found.every((x, k) => Math.abs(x - centre[k]) <= RECENTRE_MM)) return posteriors;
    centre = found;
  }
}

