// The anterior and the posterior part of the hippocampus on both sides.
// Mirrors deepmrseg_bids/tasks/hippocampus.py and hippocampus_search.py.

import type { Preparation } from "./bundle";
import { finding, ScanError } from "./findings";
import type { Finding } from "./findings";
import { axesOf, canonicalGrid, forBox, Grid, resample } from "./grid";
import type { Box } from "./grid";
import { clippedMoments, normalise } from "./intensity";
import { roundHalfEven } from "./linear";
import type { Vec3 } from "./linear";
import { gaussianFilter, largest, percentiles } from "./ndimage";
import type { Volume } from "./nifti";
import { predict } from "./predictor";
import type { Predictor } from "./predictor";
import { checkHippocampus } from "./qc";
import { classes, confidences, labelMap, largestParts, measure, posteriorsOf, segmentation } from "./results";
import type { Posteriors, Segmentation, Sureness } from "./results";

const TABLE = [
  { index: 1, name: "Left-Hippocampus-Anterior", abbreviation: "L-HA", color: "#f58231" },
  { index: 2, name: "Left-Hippocampus-Posterior", abbreviation: "L-HP", color: "#42d4f4" },
  { index: 3, name: "Right-Hippocampus-Anterior", abbreviation: "R-HA", color: "#e6194b" },
  { index: 4, name: "Right-Hippocampus-Posterior", abbreviation: "R-HP", color: "#4363d8" },
];
type Side = "left" | "right";
const WHOLE: Record<Side, string> = { left: "Left-Hippocampus", right: "Right-Hippocampus" };
const CLASSES: Record<Side, [number, number]> = { left: [1, 2], right: [3, 4] };
const SMALLEST = 50;
const PASSES = 6;
const LOSS = 0.7;
const NOT_CONVERGED = 2;
const DRIFT_MM = 12;
const BLUR_MM = 2;
const REACH_MM = 6;
const SPREAD = 1.25;
const ROOM = 16;
const PASSED_ON = ["structure-missing", "structure-unsure", "structure-volume", "structures-outside", "sides-crossed"];

/** Both hippocampi of a raw head, found through its deep structures. */
export async function segmentHippocampus(volume: Volume, deepbrain: Segmentation, predictor: Predictor): Promise<Segmentation> {
  const deep = deepbrain.posteriors[0];
  const likely = classes(deep);
  const labels = new Uint8Array(volume.grid.size);
  const sureness: Sureness = new Map();
  const findings: Finding[] = [];
  for (const side of ["left", "right"] as Side[]) {
    const number = deepbrain.table.findIndex((one) => one.name === WHOLE[side]) + 1;
    if (!number) throw new ScanError(`the deepbrain model has no label ${WHOLE[side]}`);
    const seen = likely.map((one) => +(one === number));
    if (seen.reduce((a, b) => a + b, 0) < SMALLEST) {
      findings.push(finding("structure-missing", "error", `${WHOLE[side]} was not found, so its parts are missing`));
      continue;
    }
    const search = new Search(volume, seen, deep.grid, side, predictor.bundle.preparation);
    const found = await search.run(predictor);
    const bordered = largestParts(withCoronalBorder(found));
    labelMap(bordered, volume.grid).forEach((label, n) => {
      if (label) labels[n] = label;
    });
    // by what the network said, which knows doubt about the border
    confidences(found, classes(bordered)).forEach((sure, index) => sureness.set(index, sure));
    findings.push(...search.findings());
  }
  const own = predictor.bundle.labels.map((one) => one.name);
  const knownAs = new Map(Object.values(CLASSES).flatMap((pair) => pair.map((index, k): [number, string] => [index, own[k]])));
  const measures = measure(labels, volume.grid, TABLE, sureness, predictor.bundle.facts, knownAs);
  for (const row of measures) if (sureness.has(row.index) && !row.volume) findings.push(finding("structure-missing", "error", `${row.name} was not found`));
  const result = { ...segmentation("hippocampus", labels, TABLE, measures), findings };
  findings.push(...checkHippocampus(result, deepbrain));
  findings.unshift(...deepbrain.findings.filter((one) => PASSED_ON.includes(one.code)).map((one) => ({ ...one, message: `deepbrain: ${one.message}` })));
  return result;
}

/** Posteriors of which the border between anterior and posterior part is a coronal plane. */
export function withCoronalBorder(found: Posteriors): Posteriors {
  const [background, anterior, posterior] = found.data;
  const [, q, r] = found.grid.shape;
  const lead = new Float64Array(q);
  for (let n = 0; n < anterior.length; n++) lead[Math.floor(n / r) % q] += anterior[n] - posterior[n];
  let first = 0; // slice of the anterior part
  let least = 0;
  lead.reduce((total, x, j) => {
    const next = total + x;
    if (next < least) [least, first] = [next, j + 1];
    return next;
  }, 0);
  const part = (ahead: boolean) => anterior.map((p, n) => (Math.floor(n / r) % q >= first === ahead ? p + posterior[n] : 0));
  return { ...found, data: [background, part(true), part(false)] };
}

export interface Seen {
  mass: number;
  found: Posteriors;
}

/** The way to one hippocampus: crops that follow what the network finds. */
export class Search {
  private readonly lattice: Grid;
  private readonly first: Vec3;
  private readonly rim: Vec3;
  private readonly outline: Float32Array;
  private readonly box: Box;
  private readonly around: Float32Array;
  private readonly looks = new Map<string, Seen>();
  private place: Vec3;
  /** Where most was found. */
  foundAt: Vec3;
  private scale: { mean: number; deviation: number } | null;
  converged = false;
  private off = 0;

  constructor(volume: Volume, seen: Uint8Array, grid: Grid, private readonly side: Side, private readonly preparation: Preparation) {
    const { shape, spacing, window, margin } = preparation;
    const whole = canonicalGrid(volume.grid, spacing, axesOf(grid));
    this.lattice = side === "right" ? mirrored(whole) : whole;
    const points: Vec3[] = [];
    forBox(grid.shape, { start: [0, 0, 0], stop: grid.shape }, (n) => {
      if (!seen[n]) return;
      const [, q, r] = grid.shape;
      points.push(this.lattice.toVoxel(grid.toWorld([Math.floor(n / (q * r)), Math.floor(n / r) % q, n % r])));
    });
    const ends = [0, 1, 2].map((k) => percentiles(points.map((p) => p[k]), [0.5, 99.5]));
    const corner = ends.map(([low, high], k) => (low + high) / 2 - (shape[k] - 1) / 2) as Vec3;
    this.place = this.first = this.foundAt = corner.map(roundHalfEven) as Vec3;
    this.rim = shape.map((edge, k) => Math.floor((edge - (window[k] > 0 ? Math.min(window[k], edge) : edge)) / 2)) as Vec3;
    const inner = this.gridAt(corner, this.rim.map((x) => -x) as Vec3);
    this.outline = gaussianFilter(resample(seen, grid, inner), inner.shape, BLUR_MM / spacing);
    const edges = ends.map(([low, high]) => Math.ceil(Math.round((high - low) * 1000) / 1000) + 2 * margin);
    const room = shape.map((edge, k) => Math.max(Math.floor((edge - edges[k]) / 2), 0)) as Vec3;
    this.box = { start: room, stop: shape.map((edge, k) => edge - room[k]) as Vec3 };
    this.around = resample(volume.data, volume.grid, this.gridAt(this.place, [ROOM, ROOM, ROOM]));
    this.scale = this.borrowed();
  }

  /** Look until the crop stays where it is, and then at the whole of it. */
  async run(predictor: Predictor): Promise<Posteriors> {
    const inner = this.innerShape();
    for (let pass = 0; pass < PASSES && !this.converged; pass++) {
      const seen = taken(this.crop(this.place), this.preparation.shape, { start: this.rim, stop: this.rim.map((x, k) => x + inner[k]) as Vec3 });
      this.take(await predict(predictor, seen, inner));
    }
    if (!this.rim.some((x) => x > 0)) return this.best.found;
    const answer = await predict(predictor, this.crop(this.foundAt), this.preparation.shape);
    return this.parts(answer, this.foundAt, [0, 0, 0]);
  }

  /** What is odd about how it was found. */
  findings(): Finding[] {
    const found: Finding[] = [];
    const drift = Math.hypot(...this.foundAt.map((x, k) => x - this.first[k])) * this.preparation.spacing;
    if (drift > DRIFT_MM) found.push(finding("hippocampus-far", "warning", `${WHOLE[this.side]} was found ${drift.toFixed(0)} mm from its location in deepbrain`));
    if (this.off > NOT_CONVERGED) found.push(finding("hippocampus-restless", "warning", `the search for ${WHOLE[this.side]} did not converge`));
    return found;
  }

  /** What was found there, in a look. */
  get best(): Seen {
    return this.looks.get(String(this.foundAt)) as Seen;
  }

  private innerShape(): Vec3 {
    return this.preparation.shape.map((edge, k) => edge - 2 * this.rim[k]) as Vec3;
  }

  /** The crop that begins at a place, with some room around it. */
  private gridAt(start: Vec3, room: Vec3): Grid {
    const origin = this.lattice.toWorld(start.map((x, k) => x - room[k])); // a place may be between voxels
    const affine = this.lattice.affine.map((row, i) => (i < 3 ? [row[0], row[1], row[2], origin[i]] : row));
    return new Grid(this.preparation.shape.map((edge, k) => edge + 2 * room[k]) as Vec3, affine);
  }

  private image(start: Vec3): Float32Array {
    const { shape } = this.preparation;
    const offset = start.map((x, k) => x - this.first[k] + ROOM) as Vec3;
    return taken(this.around, shape.map((edge) => edge + 2 * ROOM) as Vec3, { start: offset, stop: offset.map((x, k) => x + shape[k]) as Vec3 });
  }

  /** The place some voxels away, if there is room for it. */
  private moved(step: Vec3): Vec3 {
    return this.first.map((x, k) => x + Math.min(Math.max(this.place[k] - x + step[k], -ROOM), ROOM)) as Vec3;
  }

  /** The intensities by which to see the first crop, if its own will not do: a box of brain alone. */
  private borrowed(): { mean: number; deviation: number } | null {
    const reach = Math.round(REACH_MM / this.preparation.spacing);
    const steps: Vec3[] = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]];
    const figures = steps.map((step) => {
      const values = taken(this.image(this.moved(step.map((x) => x * reach) as Vec3)), this.preparation.shape, this.box);
      const [low, high] = percentiles(values, [0.5, 99.5]);
      return clippedMoments(values, low, high);
    });
    const own = figures[0].deviation;
    const least = figures.filter((one) => one.deviation >= own / 2).reduce((a, b) => (b.deviation < a.deviation ? b : a));
    return least.deviation * SPREAD < own ? least : null;
  }

  /** What the network is to see: one hippocampus, cut as the training crops were. */
  private crop(start: Vec3): Float32Array {
    const { shape } = this.preparation;
    const image = this.image(start);
    const inside = new Uint8Array(image.length);
    forBox(shape, this.box, (n) => (inside[n] = 1));
    if (!this.scale) return normalise(image, "crop", inside);
    const { mean, deviation } = this.scale;
    return image.map((x, n) => (inside[n] ? Math.min(Math.max((x - mean) / deviation, -5), 5) : 0));
  }

  /** An answer of the network about the crop at a place, cleaned. */
  private parts(answer: Float32Array, start: Vec3, rim: Vec3): Posteriors {
    return largestParts(posteriorsOf(answer, this.gridAt(start, rim.map((x) => -x) as Vec3), [0, ...CLASSES[this.side]]));
  }

  /** Learn from what was found at a place where to look next. */
  private take(answer: Float32Array): void {
    const shape = this.innerShape();
    const found = this.parts(answer, this.place, this.rim);
    const share = found.data[0].map((p) => Math.min(Math.max(1 - 2 * p, 0), 1));
    const kept = largest(Uint8Array.from(share, (p) => +(p > 0)), shape);
    const sure = share.map((p, n) => (kept[n] ? p : 0));
    const size = sure.reduce((count, p) => count + +(p > 0), 0);
    if (this.scale !== null && size >= SMALLEST) {
      // what was seen by borrowed intensities says where it is, not what it is
      this.scale = null;
      this.place = this.moved(bestFit(this.outline, sure, shape));
      return;
    }
    const mass = sure.reduce((total, p) => total + p, 0);
    this.looks.set(String(this.place), { mass, found });
    const places = [...this.looks.keys()];
    this.foundAt = this.fullest(places);
    if (size < SMALLEST || mass < LOSS * this.best.mass) {
      this.converged = true; // nothing to go by, or a way that leads off
      return;
    }
    const step = bestFit(this.outline, sure, shape);
    this.off = Math.max(...step.map(Math.abs));
    this.place = this.moved(step);
    const before = places.indexOf(String(this.place));
    if (before >= 0) {
      this.foundAt = this.fullest(places.slice(before)); // on the spot, or round and round the same few
      this.converged = true;
    }
  }

  private fullest(places: string[]): Vec3 {
    const mass = (place: string) => (this.looks.get(place) as Seen).mass;
    return places.reduce((a, b) => (mass(b) > mass(a) ? b : a)).split(",").map(Number) as Vec3;
  }
}

function taken(data: Float32Array, shape: Vec3, box: Box): Float32Array {
  const out = new Float32Array((box.stop[0] - box.start[0]) * (box.stop[1] - box.start[1]) * (box.stop[2] - box.start[2]));
  forBox(shape, box, (whole, n) => (out[n] = data[whole]));
  return out;
}

/** By how many voxels to move an outline so that it covers most of what was found. */
export function bestFit(outline: Float32Array, found: Float32Array, shape: Vec3): Vec3 {
  const half = shape.map((edge) => Math.floor(edge / 2));
  const [p, q, r] = shape;
  const total = new Float64Array(p * q * r);
  const places = (data: Float32Array) =>
    Array.from(data.keys()).filter((n) => data[n] > 1e-6).map((n) => [Math.floor(n / (q * r)), Math.floor(n / r) % q, n % r, data[n]]);
  const shape0 = places(outline);
  for (const [i, j, k, share] of places(found))
    for (const [a, b, c, weight] of shape0) {
      const [x, y, z] = [i - a + half[0], j - b + half[1], k - c + half[2]];
      if (x >= 0 && y >= 0 && z >= 0 && x < p && y < q && z < r) total[(x * q + y) * r + z] += share * weight;
    }
  const best = total.indexOf(total.reduce((a, b) => Math.max(a, b)));
  return [Math.floor(best / (q * r)) - half[0], (Math.floor(best / r) % q) - half[1], (best % r) - half[2]];
}

/** The same voxels, the first axis running the other way. */
function mirrored(grid: Grid): Grid {
  const origin = grid.toWorld([grid.shape[0] - 1, 0, 0]);
  return new Grid(grid.shape, grid.affine.map((row, i) => (i < 3 ? [-row[0], row[1], row[2], origin[i]] : row)));
}
