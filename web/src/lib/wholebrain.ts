// Every structure of the brain at 1 mm. Mirrors deepmrseg_bids/tasks/wholebrain.py and soft_counts.py.
//
// Its network answers for 72 classes. All of them in every voxel would take a gigabyte, so the last
// layer is applied slab by slab, and of each voxel only the most likely classes are kept.

import { averageIn, FULL, KEPT } from "./averaging";
import type { Likeliest } from "./averaging";
import type { Label } from "./bundle";
import { maskOf, outlinedOn } from "./brain";
import type { Brain, MaskOn } from "./brain";
import { aroundBrain, look, shown } from "./crops";
import { finding } from "./findings";
import type { Finding } from "./findings";
import { axesOf, centredGrid, forBox, Grid, overlap, resample } from "./grid";
import type { Box } from "./grid";
import type { Vec3 } from "./linear";
import type { Labels, Volume } from "./nifti";
import type { Predictor, Predictors } from "./predictor";
import { checkVolumes } from "./qc";
import { chooseLabels, leastToWin, measure, roomAround, segmentation, widened } from "./results";
import type { Measure, Segmentation, Share } from "./results";
import { measureRegions } from "./regions";
import { SoftCounts } from "./soft_counts";

const ROOM_MM = 3;
const FEW_LOST = 0.05;
const RIGHT = 1;
const LEFT = 2;
const UNDECIDED = 1e-4;
const SLAB = 4; // planes of the features at a time

/** All structures of a brain; deep is the result of deepbrain, where it found something. */
export async function segmentWholebrain(
  volume: Volume,
  brain: Brain,
  predictors: Predictors,
  deep: Segmentation | null,
): Promise<Segmentation> {
  const structures = await predictors("wholebrain");
  const { preparation, facts } = structures.bundle;
  const box = aroundBrain(brain.probability, brain.grid, preparation.spacing, ROOM_MM);
  const maskOn = maskOf(brain);
  const mask = maskOn(box);
  const right = await rightOf(volume, box, maskOn, await predictors("sides"));
  const image = shown(resample(volume.data, volume.grid, box), mask, box.shape, preparation);
  const found = await likeliest(structures, image, mask, box);
  const indices = [0, ...structures.bundle.labels.map((label) => label.index)];
  const table = structures.bundle.table ?? structures.bundle.labels;
  const leftOf = leftLabels(table);
  if (deep) {
    averageIn(found, deep.posteriors[0], sameClasses(deep.table, table, indices, leftOf));
    empty(found, mask);
  }
  const within = outlinedOn(brain, volume.grid); // no label leaves the mask that is written
  const labels = chosenLabels(found, indices, right, leftOf, volume.grid).map((one, n) => one * within[n]) as Labels;
  const sure = counted(found, indices, right, leftOf);
  const measures = measure(labels, volume.grid, table, sure.confidences(), facts);
  const regions = measureRegions(labels, volume.grid, structures.bundle.regions ?? [], sure, facts);
  return { ...segmentation("wholebrain", labels, table, measures), regions, findings: [...lost(measures), ...checkVolumes(measures)] };
}

/** The structures that were not found; one small region of the cortex is no disaster. */
function lost(rows: Measure[]): Finding[] {
  const names = rows.filter((row) => row.volume === 0).map((row) => row.name);
  if (!names.length) return [];
  return [finding("structure-missing", names.length > FEW_LOST * rows.length ? "error" : "warning", `not found: ${names.join(", ")}`)];
}

/** The label on the left for each on the right. */
function leftLabels(table: Label[]): Map<number, number> {
  const place = new Map(table.map((one) => [one.name, one.index]));
  return new Map(
    table.filter((one) => one.name.startsWith("Right-")).map((one) => [one.index, place.get(one.name.replace("Right-", "Left-")) ?? one.index]),
  );
}

/** The class in which the structures' network has each deep structure. */
function sameClasses(deep: Label[], table: Label[], indices: number[], leftOf: Map<number, number>): Map<number, number> {
  const known = new Map(table.map((one) => [one.name, one.index]));
  const rightOf = new Map([...leftOf].map(([right, left]) => [left, right]));
  const same = deep.map(({ index, name }): [number, number] => {
    const label = known.get(name) ?? 0;
    return [index, indices.indexOf(rightOf.get(label) ?? label, 1)];
  });
  return new Map(same.filter(([, c]) => c > 0));
}

/** Outside the mask is background. */
function empty({ classes, shares, grid }: Likeliest, mask: Uint8Array): void {
  for (let n = 0; n < grid.size; n++) {
    if (mask[n]) continue;
    classes.fill(0, n * KEPT, (n + 1) * KEPT);
    shares.fill(0, n * KEPT, (n + 1) * KEPT);
    shares[n * KEPT] = FULL;
  }
}

/** How likely each voxel of the box lies on the right. */
async function rightOf(volume: Volume, box: Grid, maskOn: MaskOn, sides: Predictor): Promise<Float32Array> {
  const { shape, spacing } = sides.bundle.preparation;
  const middle = box.toWorld(box.shape.map((edge) => (edge - 1) / 2));
  const grid = centredGrid(middle, shape, spacing, axesOf(box));
  const { data } = await look(volume, grid, maskOn, sides);
  const plane = shape[1] * shape[2];
  const share = data[RIGHT].map((right, n) => {
    const beside = Math.floor(n / plane) > (shape[0] - 1) / 2 ? UNDECIDED : 0; // where neither side is likely
    return (right + beside) / (right + data[LEFT][n] + UNDECIDED);
  });
  return resample(share, grid, box);
}

/** What the network says of each voxel of the mask, by its two parts. */
async function likeliest(predictor: Predictor, image: Float32Array, mask: Uint8Array, grid: Grid): Promise<Likeliest> {
  const { shape } = grid;
  const { classes: count, patch, depth, width } = predictor.bundle.network;
  const multiple = patch * 2 ** depth;
  const edges = shape.map((edge) => (Math.ceil(edge / multiple) * multiple) / patch) as Vec3;
  const channels = 2 * width;
  const features = await predictor.network(image, [1, image.length / grid.size, ...shape]);
  const head = await predictor.head();
  const found = { grid, classes: new Uint8Array(grid.size * KEPT), shares: new Uint16Array(grid.size * KEPT) };
  const plane = edges[1] * edges[2];
  for (let first = 0; first * patch < shape[0]; first += SLAB) {
    const planes = Math.min(SLAB, edges[0] - first);
    const slab = new Float32Array(channels * planes * plane);
    for (let c = 0; c < channels; c++) {
      const from = (c * edges[0] + first) * plane;
      slab.set(features.subarray(from, from + planes * plane), c * planes * plane);
    }
    const answer = await head(slab, [1, channels, planes, edges[1], edges[2]]);
    const inner = [planes, edges[1], edges[2]].map((edge) => edge * patch) as Vec3;
    keep(found, answer, { count, inner, first: first * patch }, mask);
  }
  return found;
}

/** Keep the most likely classes of the voxels of a slab; outside the mask it is background. */
function keep(found: Likeliest, answer: Float32Array, slab: { count: number; inner: Vec3; first: number }, mask: Uint8Array): void {
  const { shape } = found.grid;
  const { count, inner, first } = slab;
  const size = inner[0] * inner[1] * inner[2];
  for (let i = 0; i < inner[0] && first + i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++) {
        const n = ((first + i) * shape[1] + j) * shape[2] + k;
        const at = n * KEPT;
        if (!mask[n]) {
          found.shares[at] = FULL;
          continue;
        }
        for (let c = 0, from = (i * inner[1] + j) * inner[2] + k; c < count; c++, from += size) {
          const share = Math.round(answer[from] * FULL);
          let place = KEPT;
          while (place > 0 && share > found.shares[at + place - 1]) place--;
          if (place === KEPT) continue;
          for (let t = KEPT - 1; t > place; t--) {
            found.shares[at + t] = found.shares[at + t - 1];
            found.classes[at + t] = found.classes[at + t - 1];
          }
          found.shares[at + place] = share;
          found.classes[at + place] = c;
        }
      }
}

/** The labels on the grid of the scan, the sides told apart. */
function chosenLabels(found: Likeliest, indices: number[], right: Float32Array, leftOf: Map<number, number>, grid: Grid): Labels {
  const source = found.grid;
  const boxes = classBoxes(found, indices.length, leastToWin(indices.length) * FULL);
  const room = roomAround(source, grid);
  const share = (c: number, box: Box): Share => {
    const values = new Float32Array((box.stop[0] - box.start[0]) * (box.stop[1] - box.start[1]) * (box.stop[2] - box.start[2]));
    forBox(source.shape, box, (whole, n) => {
      for (let t = whole * KEPT; t < (whole + 1) * KEPT; t++) if (found.classes[t] === c && found.shares[t]) values[n] = found.shares[t] / FULL;
    });
    return { box, values };
  };
  const background = share(0, { start: [0, 0, 0], stop: source.shape }).values;
  const shareOf = (c: number) => boxes[c] && share(c, widened(boxes[c], source.shape, room));
  const labels = chooseLabels({ background, source, indices, shareOf }, grid);
  const part = overlap(source, grid);
  if (part === null) return labels;
  const across = resample(right, source, grid.crop(part.start, part.stop));
  forBox(grid.shape, part, (whole, n) => {
    if (across[n] < 0.5) labels[whole] = leftOf.get(labels[whole]) ?? labels[whole];
  });
  return labels;
}

/** The box of each class in which it has more than a share; null where it has nowhere. */
function classBoxes({ grid, classes, shares }: Likeliest, count: number, least: number): (Box | null)[] {
  const boxes: (Box | null)[] = Array.from({ length: count }, () => null);
  const { shape } = grid;
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++)
        for (let t = n * KEPT; t < (n + 1) * KEPT && shares[t] > least; t++) {
          const box = (boxes[classes[t]] ??= { start: [i, j, k], stop: [i + 1, j + 1, k + 1] });
          [i, j, k].forEach((x, axis) => {
            if (x < box.start[axis]) box.start[axis] = x;
            if (x >= box.stop[axis]) box.stop[axis] = x + 1;
          });
        }
  return boxes;
}

/** What every confidence is made of. */
function counted({ classes, shares, grid }: Likeliest, indices: number[], right: Float32Array, leftOf: Map<number, number>): SoftCounts {
  const sure = new SoftCounts([...new Set([...indices.slice(1), ...leftOf.values()])].sort((a, b) => a - b));
  for (let n = 0; n < grid.size; n++) {
    const first = indices[classes[n * KEPT]];
    const chosen = first && right[n] < 0.5 ? leftOf.get(first) ?? first : first;
    if (chosen) sure.choose(chosen);
    for (let t = n * KEPT; t < (n + 1) * KEPT && shares[t]; t++) {
      const index = indices[classes[t]];
      if (!index) continue;
      const left = leftOf.get(index);
      const share = shares[t] / FULL;
      if (left === undefined) sure.add(chosen, index, share);
      else {
        sure.add(chosen, index, share * right[n]);
        sure.add(chosen, left, share * (1 - right[n]));
      }
    }
  }
  return sure;
}
