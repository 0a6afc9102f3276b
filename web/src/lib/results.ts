// The way from posteriors to labels on the scan's own grid, and to volumes.
// Mirrors deepmrseg_bids/tasks/results.py.

import { confidence, floorOf, interval } from "./bundle";
import type { Bundle, Facts, Label } from "./bundle";
import { finding } from "./findings";
import type { Finding } from "./findings";
import { Grid, forBox, overlap, resample } from "./grid";
import type { Box } from "./grid";
import type { Vec3 } from "./linear";
import { label } from "./ndimage";
import type { Labels } from "./nifti";

const ROUNDING = 1e-3;
const LEAST = 0.1;

/** What a network answered: one array a class, background first, each on the grid. */
export interface Posteriors {
  data: Float32Array[];
  grid: Grid;
  /** The label index of each class, 0 for the background. */
  indices: number[];
}

export interface Measure {
  index: number;
  name: string;
  volume: number;
  low: number | null;
  high: number | null;
  confidence: number | null;
  floor: number | null;
}

export interface Segmentation {
  task: string;
  labels: Labels;
  table: Label[];
  measures: Measure[];
  /** Composite regions, where the task has them. */
  regions: Measure[];
  findings: Finding[];
  posteriors: Posteriors[];
  brainMm3: number | null;
  icvMm3: number | null;
  lesionCount: number | null;
  /** The labels are on the grid of the FLAIR. */
  onFlair: boolean;
}

/** The probability of a class, in a box of the grid of the posteriors; it is 0 elsewhere. */
export interface Share {
  box: Box;
  values: Float32Array;
}

export function posteriorsOf(answer: Float32Array, grid: Grid, indices: number[]): Posteriors {
  return { data: indices.map((_, c) => answer.subarray(c * grid.size, (c + 1) * grid.size)), grid, indices };
}

/** The most likely class in each voxel. */
export function classes({ data, grid }: Posteriors): Uint8Array {
  const best = data[0].slice();
  const likely = new Uint8Array(grid.size);
  for (let c = 1; c < data.length; c++) {
    const share = data[c];
    for (let n = 0; n < best.length; n++)
      if (share[n] > best[n]) {
        best[n] = share[n];
        likely[n] = c;
      }
  }
  return likely;
}

/** The box that holds every voxel above a value; null if there is none. */
export function boxAbove(data: ArrayLike<number>, shape: Vec3, least: number): Box | null {
  const start: Vec3 = [...shape];
  const stop: Vec3 = [0, 0, 0];
  let n = 0;
  for (let i = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++)
        if (data[n] > least) {
          if (i < start[0]) start[0] = i;
          if (j < start[1]) start[1] = j;
          if (k < start[2]) start[2] = k;
          if (i >= stop[0]) stop[0] = i + 1;
          if (j >= stop[1]) stop[1] = j + 1;
          if (k >= stop[2]) stop[2] = k + 1;
        }
  return stop[0] ? { start, stop } : null;
}

/** A box with some voxels around it, as far as the grid has them. */
export function widened(box: Box, shape: Vec3, room: number): Box {
  return {
    start: box.start.map((x) => Math.max(0, x - room)) as Vec3,
    stop: box.stop.map((x, k) => Math.min(shape[k], x + room)) as Vec3,
  };
}

export function takeBox(data: Float32Array, shape: Vec3, box: Box): Float32Array {
  const out = new Float32Array((box.stop[0] - box.start[0]) * (box.stop[1] - box.start[1]) * (box.stop[2] - box.start[2]));
  forBox(shape, box, (whole, part) => (out[part] = data[whole]));
  return out;
}

/** The least with which one of so many classes may win. */
export function leastToWin(classes: number): number {
  return (1 - ROUNDING) * Math.max(1 / classes, LEAST);
}

/** Voxels around a class that interpolation, and averaging on a coarser grid, reach. */
export function roomAround(source: Grid, target: Grid): number {
  return 2 + 2 * Math.ceil(Math.max(...target.spacing) / Math.min(...source.spacing));
}

/** Bring posteriors to the scan's own grid and only then choose a label in each voxel. */
export function labelMap(posteriors: Posteriors, grid: Grid): Labels {
  const { data, indices } = posteriors;
  const { shape } = posteriors.grid;
  const least = leastToWin(data.length);
  const room = roomAround(posteriors.grid, grid);
  const shareOf = (c: number): Share | null => {
    const core = boxAbove(data[c], shape, least);
    if (core === null) return null;
    const box = widened(core, shape, room);
    return { box, values: takeBox(data[c], shape, box) };
  };
  return chooseLabels({ background: data[0], source: posteriors.grid, indices, shareOf }, grid);
}

export interface Shares {
  background: Float32Array;
  source: Grid;
  indices: number[];
  shareOf: (c: number) => Share | null;
}

/** The most likely label of each voxel of a grid, class after class: each only where it can win. */
export function chooseLabels({ background, source, indices, shareOf }: Shares, grid: Grid): Labels {
  const out = Math.max(...indices) > 255 ? new Uint16Array(grid.size) : new Uint8Array(grid.size);
  const part = overlap(source, grid);
  if (part === null) return out;
  const box = grid.crop(part.start, part.stop);
  const best = resample(background, source, box, 1);
  const chosen = new Uint16Array(box.size);
  for (let c = 1; c < indices.length; c++) {
    const share = shareOf(c);
    if (share === null) continue;
    const own = source.crop(share.box.start, share.box.stop);
    const here = overlap(own, box);
    if (here === null) continue;
    const values = resample(share.values, own, box.crop(here.start, here.stop));
    forBox(box.shape, here, (whole, n) => {
      if (values[n] > best[whole]) {
        best[whole] = values[n];
        chosen[whole] = indices[c];
      }
    });
  }
  forBox(grid.shape, part, (whole, n) => (out[whole] = chosen[n]));
  return out;
}

/** Give the scattered pieces of each class back to the background. */
export function largestParts(posteriors: Posteriors, smallestShare = 0.2): Posteriors {
  const labels = classes(posteriors);
  const shape = posteriors.grid.shape;
  const data = [...posteriors.data];
  let background: Float32Array | null = null;
  for (let c = 1; c < data.length; c++) {
    const box = boxAbove(Uint8Array.from(labels, (one) => +(one === c)), shape, 0);
    if (box === null) continue;
    const edges = box.stop.map((end, k) => end - box.start[k]) as Vec3;
    const mask = new Uint8Array(edges[0] * edges[1] * edges[2]);
    forBox(shape, box, (whole, n) => (mask[n] = +(labels[whole] === c)));
    const { labels: pieces, sizes } = label(mask, edges, true);
    if (sizes.length < 3) continue;
    const limit = smallestShare * Math.max(...sizes);
    const small = sizes.map((size, piece) => piece > 0 && size < limit);
    if (!small.some(Boolean)) continue;
    background ??= data[0] = data[0].slice();
    const kept = (data[c] = data[c].slice());
    const zero = background;
    forBox(shape, box, (whole, n) => {
      if (!small[pieces[n]]) return;
      zero[whole] += kept[whole];
      kept[whole] = 0;
    });
  }
  return { ...posteriors, data };
}

/** The Dice of the chosen voxels against a truth drawn from the posterior; null if none was chosen. */
export function expectedDice(posterior: ArrayLike<number>, chosen: (n: number) => boolean | number): number | null {
  let size = 0;
  let total = 0;
  let inside = 0;
  for (let n = 0; n < posterior.length; n++) {
    total += posterior[n];
    if (chosen(n)) {
      size++;
      inside += posterior[n];
    }
  }
  return size ? (2 * inside) / (size + total) : null;
}

export type Sureness = Map<number, number | null>;

/** The confidence of each label that the posteriors know, by label index. */
export function confidences(posteriors: Posteriors, chosen = classes(posteriors)): Sureness {
  const out: Sureness = new Map();
  posteriors.indices.forEach((index, c) => {
    if (index) out.set(index, expectedDice(posteriors.data[c], (n) => chosen[n] === c));
  });
  return out;
}

/** Voxels of each label. */
export function counts(labels: Labels, largest: number): Float64Array {
  const out = new Float64Array(Math.max(largest + 1, 256 ** labels.BYTES_PER_ELEMENT));
  for (let n = 0; n < labels.length; n++) out[labels[n]]++;
  return out;
}

/** Volumes, intervals and confidence of every structure of a table. */
export function measure(labels: Labels, grid: Grid, table: Label[], sureness: Sureness, facts: Facts, knownAs: Map<number, string> = new Map()): Measure[] {
  const voxels = counts(labels, Math.max(...table.map((one) => one.index)));
  return table.map(({ index, name }) => {
    const volume = voxels[index] * grid.voxelVolume;
    const known = knownAs.get(index) ?? name;
    const [low, high] = interval(facts, known, volume);
    const sure = confidence(facts, known, sureness.get(index) ?? null, volume);
    return { index, name, volume, low, high, confidence: sure, floor: floorOf(facts, known) || null };
  });
}

export function segmentation(task: string, labels: Labels, table: Label[], measures: Measure[]): Segmentation {
  return { task, labels, table, measures, regions: [], findings: [], posteriors: [], brainMm3: null, icvMm3: null, lesionCount: null, onFlair: false };
}

/** Labels on the grid of a scan and their measures, by the table of a bundle. */
export function segmented(task: string, grid: Grid, posteriors: Posteriors, bundle: Bundle): Segmentation {
  const labels = labelMap(posteriors, grid);
  const measures = measure(labels, grid, bundle.labels, confidences(posteriors), bundle.facts);
  const lost = measures.filter((row) => row.volume === 0).map((row) => finding("structure-missing", "error", `${row.name} was not found`));
  return { ...segmentation(task, labels, bundle.labels, measures), findings: lost, posteriors: [posteriors] };
}
