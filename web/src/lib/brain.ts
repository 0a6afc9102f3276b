// From a raw head to the brain mask, and to where the deep structures are.
// Mirrors deepmrseg_bids/tasks/brain.py and intracranial.py.

import { brightnessGradient } from "./brightness";
import type { Gradient } from "./brightness";
import type { Preparation } from "./bundle";
import { finding, ScanError } from "./findings";
import type { Finding } from "./findings";
import { axesOf, canonicalGrid, covered, forBox, Grid, overlap, resample, turned } from "./grid";
import { normalise } from "./intensity";
import { roundHalfEven, transpose } from "./linear";
import type { Vec3 } from "./linear";
import { closedByBox, dilate, distance, fillHoles, gaussianFilter, label, largest, median, profile, sum, weighted, where } from "./ndimage";
import type { Volume } from "./nifti";
import { predict } from "./predictor";
import type { Predictor } from "./predictor";
import { checkBrain, checkGivenMask } from "./qc";
import { boxAbove, expectedDice, measure, segmentation, takeBox, widened } from "./results";
import type { Measure, Segmentation } from "./results";

const TABLE = [{ index: 1, name: "Brain", abbreviation: "BR", color: "#3cb44b" }];
const ICV_INDEX = 2;
const SMALLEST_ML = 300;
const LARGEST_ML = 2800;
const SMOOTHED_MM = 1.2;
const BOX_MM = 212;
const LOOKS = 4;
const STEP_MM = 8;
const GLANCE = 0.1; // overlap of windows that only tell where the brain is
const APART_MM = 60; // the middles of two heads are further from each other
const CORE = 0.7;
const REACH_MM = 115;
const UPPER_MM = 100;
const BELOW_TOP_MM = 58;
const EMPTY = 0.02;
const CLOSED_MM = 2;
const LEAST_COMMON = 0.9;
const MOST_MORE = 1.5;
const LARGEST_GIVEN_ML = 2300;
const OF_THE_NETWORK = ["brain-unsure", "brain-volume"];
const UNEVEN = 1.75;
const UNEVEN_USUAL = 1.6;
const SURE = 0.9;
const SURER = 0.02;
const DEEP = 0.2;
const ODD = ["brain-cut", "brain-shape", "brain-volume"];
const TURNED = 0.7;
const TURNED_MORE = 0.05;
const UPRIGHT = 0.76;
const SMALLEST_DEEP_ML = 5;
const FLIPS = [[], [2], [1], [1, 2]];
const ORDERS: Vec3[] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const AXES = ["left-right", "back-front", "bottom-top"];

/** The inside of a skull, at the resolution of its network. */
export interface Intracranial {
  probability: Float32Array;
  grid: Grid;
  confidence: number | null;
}

/** The brain at the resolution of the network that draws its outline along the sulci. */
export interface Outline {
  probability: Float32Array;
  grid: Grid;
  confidence: number | null;
}

/** The brain of a head, at the resolution of its network. */
export interface Brain {
  probability: Float32Array;
  grid: Grid;
  centre: Vec3 | null;
  confidence: number | null;
  findings: Finding[];
  given: { mask: Uint8Array; grid: Grid } | null;
  inside: Intracranial | null;
  outline: Outline | null;
  uneven: Gradient | null;
  deepConfidence: number;
}

/** The brain mask on any grid. */
export type MaskOn = (grid: Grid) => Uint8Array;

interface Look {
  grid: Grid;
  image: Float32Array;
  posteriors: Float32Array[];
  inside: Uint8Array;
  millilitres: number;
  second: Uint8Array;
  confidence: number;
}

export function brainVolume(brain: Brain): number {
  return volumeAbove(brain.outline ?? brain);
}

function volumeAbove({ probability, grid }: { probability: Float32Array; grid: Grid }): number {
  return probability.reduce((count, p) => count + +(p > 0.5), 0) * grid.voxelVolume;
}

/** The brain mask as it is published, on any grid. */
export function outlinedOn(brain: Brain, grid: Grid): Uint8Array {
  return brain.outline ? carried(brain.outline.probability, brain.outline.grid, grid) : maskOf(brain)(grid);
}

export function icvVolume({ inside }: Brain): number | null {
  return inside && inside.probability.reduce((count, p) => count + +(p > 0.5), 0) * inside.grid.voxelVolume;
}

export function maskOf(brain: Brain): MaskOn {
  const { given } = brain;
  return (grid) => {
    if (!given) return carried(brain.probability, brain.grid, grid);
    return grid.equals(given.grid) ? given.mask : carried(Float32Array.from(given.mask), given.grid, grid);
  };
}

/** Where a share of the brain is more than half, on another grid. */
function carried(share: Float32Array, source: Grid, grid: Grid): Uint8Array {
  const out = new Uint8Array(grid.size);
  const box = boxAbove(share, source.shape, 0);
  if (box === null) return out;
  const wide = widened(box, source.shape, 1);
  const part = source.crop(wide.start, wide.stop);
  const here = overlap(part, grid);
  if (here === null) return out;
  const values = resample(takeBox(share, source.shape, wide), part, grid.crop(here.start, here.stop));
  forBox(grid.shape, here, (whole, n) => (out[whole] = +(values[n] > 0.5)));
  return out;
}

/** Find the brain in a raw head: once in the whole field of view, then in a cube around it. */
export async function findBrain(volume: Volume, predictor: Predictor): Promise<Brain> {
  const whole = await takeLook(volume, roomy(volume.grid, predictor.bundle.preparation), predictor, false, GLANCE);
  let look = await settled(volume, whole, predictor, false);
  let smoothed = false;
  if (look.confidence < SURE) {
    let again = await takeLook(volume, whole.grid, predictor, true, GLANCE); // strong noise hides a brain
    again = await settled(volume, again, predictor, true);
    smoothed = again.confidence > look.confidence + SURER;
    if (smoothed) look = again;
  }
  if (!plausible(look)) throw noBrain(volume, whole.millilitres);
  const brain = brainIn(volume, look, smoothed);
  const stripped = brain.findings.some((one) => one.code === "skull-stripped");
  const found = stripped ? withGivenMask(volume, brain) : brain;
  const secondMl = await secondBrainMl(volume, whole, look, predictor);
  if (secondMl >= SMALLEST_ML)
    found.findings.push(finding("several-heads", "error", `the image contains a second brain (${secondMl.toFixed(0)} ml): several heads in one image? One of them was segmented`));
  if (smoothed) found.findings.push(finding("brain-noisy", "warning", "the brain was found only after smoothing: is the image noisy?"));
  return found;
}

/** The size of another brain than the one that was found, looked at as that was; 0 if there is none. */
async function secondBrainMl(volume: Volume, whole: Look, found: Look, predictor: Predictor): Promise<number> {
  const apart = { ...whole, inside: whole.second, millilitres: millilitresOf(whole.second, whole.grid) };
  if (apart.millilitres < SMALLEST_ML) return 0;
  const other = await settled(volume, apart, predictor, false);
  if (!plausible(other)) return 0;
  const here = middleOf(found);
  return Math.hypot(...middleOf(other).map((x, k) => x - here[k])) < APART_MM ? 0 : other.millilitres;
}

function millilitresOf(mask: Uint8Array, grid: Grid): number {
  return (sum(mask) * grid.voxelVolume) / 1000;
}

/** The brain that a look shows, with what is odd about it. */
function brainIn(volume: Volume, look: Look, smoothed: boolean): Brain {
  const { inside, grid } = look;
  const image = smoothed ? resample(volume.data, volume.grid, grid) : look.image;
  const filled = fillHoles(inside, grid.shape);
  const near = dilate(inside, grid.shape);
  const probability = look.posteriors[0].map((p, n) => (filled[n] && !inside[n] ? 1 : near[n] ? 1 - p : 0));
  const centre = deepCentre(look.posteriors[2], inside, grid);
  const confidence = expectedDice(probability, (n) => filled[n]);
  const findings = checkBrain(filled, image, grid, volume.grid, confidence);
  if (!centre) findings.unshift(finding("no-deep-structures", "error", "the deep structures were not found"));
  const gradient = brightnessGradient(image, filled, grid);
  const uneven = gradient && gradient.ratio > UNEVEN ? gradient : null;
  if (uneven)
    findings.push(
      finding("brightness-uneven", "warning", `brightness changes by a factor of ${uneven.ratio.toFixed(1)} across the brain (usual: 1.0 to ${UNEVEN_USUAL}), for example because of a surface coil: it was evened out before the structures were segmented; check them`),
    );
  return { probability, grid, centre, confidence, findings, given: null, inside: null, outline: null, uneven, deepConfidence: deepConfidence(look.posteriors) };
}

/** The brain of a skull-stripped scan: what is left in it, if that can be a brain. */
function withGivenMask(volume: Volume, brain: Brain): Brain {
  const { shape, spacing, voxelVolume } = volume.grid;
  const found = maskOf(brain)(volume.grid);
  const seen = where(volume.data, found);
  const limit = EMPTY * Math.abs(seen.length ? median(seen) : 0);
  const left = largest(Uint8Array.from(volume.data, (x) => +(Math.abs(x) > limit)), shape);
  const reach = spacing.map((edge) => Math.max(1, roundHalfEven(CLOSED_MM / edge))) as Vec3;
  const given = fillHoles(closedByBox(left, shape, reach), shape);
  const size = sum(given);
  const millilitres = (size * voxelVolume) / 1000;
  const common = where(given, found);
  const share = common.length ? sum(common) / common.length : 0;
  if (share < LEAST_COMMON || size / Math.max(common.length, 1) > MOST_MORE || millilitres > LARGEST_GIVEN_ML) {
    const text = `the mask of the skull-stripped image (${millilitres.toFixed(0)} ml) does not agree with the brain that was found: it was not used, and the brain mask may be too small`;
    return { ...brain, findings: [...brain.findings, finding("mask-doubtful", "warning", text)] };
  }
  const probability = resample(given, volume.grid, brain.grid);
  const text = `the image appears skull-stripped: its own mask was used as the brain mask (${millilitres.toFixed(0)} ml; the network finds ${(brainVolume(brain) / 1000).toFixed(0)} ml in it)`;
  const kept = brain.findings.filter((one) => !OF_THE_NETWORK.includes(one.code)).map((one) => (one.code === "skull-stripped" ? { ...one, message: text } : one));
  const findings = [...kept, ...checkGivenMask(given, volume.grid)];
  const confidence = expectedDice(brain.probability, (n) => probability[n] > 0.5);
  return { ...brain, probability, confidence, findings, given: { mask: given, grid: volume.grid } };
}

function plausible(look: Look): boolean {
  return look.millilitres >= SMALLEST_ML && look.millilitres <= LARGEST_ML;
}

/** The look in a cube around the brain, once its middle stays where it is. */
async function settled(volume: Volume, look: Look, predictor: Predictor, smoothed: boolean): Promise<Look> {
  if (look.millilitres < SMALLEST_ML) return look;
  const { spacing, window } = predictor.bundle.preparation;
  const edge = 2 * roundHalfEven(BOX_MM / spacing / 2);
  const shape = window.map((w) => Math.max(edge, w)) as Vec3;
  const whole = canonicalGrid(volume.grid, spacing, axesOf(volume.grid));
  let cube = cubeAround(middleOf(look), whole, shape);
  for (let n = 0; n < LOOKS; n++) {
    look = await takeLook(volume, cube, predictor, smoothed);
    if (!plausible(look)) break;
    const next = cubeAround(middleOf(look), whole, shape);
    if (next.equals(cube)) break;
    cube = next;
  }
  return look;
}

/** A cube of voxels of whole, near a point; it begins at one of few places. */
function cubeAround(point: Vec3, whole: Grid, shape: Vec3): Grid {
  const axes = whole.units();
  const along = turned(transpose(axes), point).map((x) => roundHalfEven(x / STEP_MM) * STEP_MM);
  const start = whole.toVoxel(turned(axes, along)).map((x, k) => roundHalfEven(x - (shape[k] - 1) / 2)) as Vec3;
  return whole.crop(start, start.map((x, k) => x + shape[k]));
}

/** The middle of the brain in millimetres, by its top and its sides, not by its lower end. */
function middleOf({ inside, grid }: Look): Vec3 {
  const { shape, spacing } = grid;
  const box = boxAbove(inside, shape, 0.5);
  if (!box) return grid.toWorld([0, 0, 0]);
  const half = box.start.map((start, k) => Math.ceil((box.stop[k] - start) / 2)) as Vec3; // every second voxel
  const coarse = new Uint8Array(half[0] * half[1] * half[2]);
  for (let i = 0, n = 0; i < half[0]; i++)
    for (let j = 0; j < half[1]; j++)
      for (let k = 0; k < half[2]; k++, n++)
        coarse[n] = inside[((box.start[0] + 2 * i) * shape[1] + box.start[1] + 2 * j) * shape[2] + box.start[2] + 2 * k];
  const depth = distance(coarse, half);
  const limit = CORE * depth.reduce((a, b) => Math.max(a, b), 0);
  const core = meanPlace(depth.map((d) => +(d > limit)), half).map((x, axis) => 2 * x + box.start[axis]);
  const reach = REACH_MM / spacing[0];
  const near = picked(inside, shape, (i, j, k) => [i, j, k].every((x, axis) => Math.abs(x - core[axis]) <= reach));
  const [top] = weighted(profile(near, shape, 2), [99.5]);
  const upper = picked(near, shape, (_i, _j, k) => k > top - UPPER_MM / spacing[0]);
  const [x, y] = [0, 1].map((axis) => {
    const [low, high] = weighted(profile(upper, shape, axis), [0.5, 99.5]);
    return (low + high) / 2;
  });
  return grid.toWorld([x, y, top - BELOW_TOP_MM / spacing[0]]);
}

function picked(mask: Uint8Array, shape: Vec3, wanted: (i: number, j: number, k: number) => boolean): Uint8Array {
  const out = new Uint8Array(mask.length);
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++) for (let k = 0; k < shape[2]; k++, n++) if (mask[n] && wanted(i, j, k)) out[n] = 1;
  return out;
}

function meanPlace(mask: ArrayLike<number>, shape: Vec3): Vec3 {
  return [0, 1, 2].map((axis) => {
    const line = profile(mask, shape, axis);
    return line.reduce((total, count, x) => total + count * x, 0) / sum(line);
  }) as Vec3;
}

/** What the network says of one part of a scan. */
async function takeLook(volume: Volume, grid: Grid, predictor: Predictor, smoothed: boolean, overlap = 0.5): Promise<Look> {
  const { shape, size } = grid;
  let image = resample(volume.data, volume.grid, grid);
  if (smoothed) image = gaussianFilter(image, shape, SMOOTHED_MM / grid.spacing[0]);
  const scanned = covered(volume.grid, grid);
  if (!scanned.includes(1)) {
    const posteriors = [0, 1, 2].map(() => new Float32Array(size));
    return { grid, image, posteriors, inside: scanned, millilitres: 0, second: scanned, confidence: 0 };
  }
  const answer = await predict(predictor, normalise(image, "head", scanned), shape, overlap);
  const posteriors = [0, 1, 2].map((c) => answer.subarray(c * size, (c + 1) * size));
  const nearScan = dilate(scanned, shape); // the last voxels of a scan count whole
  const parts = nearScan.map((near, n) => near & +(posteriors[0][n] < 0.5));
  const inside = largest(parts, shape);
  const rest = parts.map((one, n) => one & +!inside[n]);
  const look = { grid, image, posteriors, inside, millilitres: millilitresOf(inside, grid), second: largest(rest, shape), confidence: 0 };
  if (plausible(look)) look.confidence = expectedDice(posteriors[0].map((p) => 1 - p), (n) => inside[n]) ?? 0;
  return look;
}

/** The network's grid over a field of view, with air around one smaller than its window. */
function roomy(view: Grid, { spacing, window }: Preparation): Grid {
  const grid = canonicalGrid(view, spacing, axesOf(view));
  const short = window.map((w, k) => Math.max(w - grid.shape[k], 0));
  const before = short.map((x) => Math.floor(x / 2));
  return grid.crop(before.map((x) => -x), grid.shape.map((edge, k) => edge + short[k] - before[k]));
}

function noBrain(volume: Volume, millilitres: number): ScanError {
  return new ScanError(`${volume.name}: ${millilitres.toFixed(0)} ml found, but a brain has ${SMALLEST_ML} to ${LARGEST_ML} ml: not a whole head, or not an MRI of a head; inspect the image`);
}

/** The middle of the box around the deep structures. */
function deepCentre(probability: Float32Array, inside: Uint8Array, grid: Grid): Vec3 | null {
  const deep = largest(inside.map((one, n) => one & +(probability[n] > DEEP)), grid.shape);
  if ((sum(deep) * grid.voxelVolume) / 1000 < SMALLEST_DEEP_ML) return null;
  const middle = [0, 1, 2].map((axis) => {
    const line = profile(deep, grid.shape, axis);
    const total = sum(line);
    // the place below which a share of the mask lies, to parts of a voxel
    const at = (share: number) => {
      let below = 0;
      for (let x = 0; x < line.length; x++) {
        const next = below + line[x] / total;
        if (next >= share && next > below) return x - 0.5 + (share - below) / (next - below);
        below = next;
      }
      return line.length - 0.5;
    };
    return (at(0.005) + at(0.995)) / 2;
  });
  return grid.toWorld(middle);
}

function deepConfidence(posteriors: Float32Array[]): number {
  return expectedDice(posteriors[2], (n) => posteriors[2][n] > Math.max(posteriors[0][n], posteriors[1][n])) ?? 0;
}

/** Whether a brain is odd in a way in which one that lies wrong is. */
export function mayBeTurned(brain: Brain): boolean {
  return !brain.centre || brain.deepConfidence < UPRIGHT || brain.findings.some((one) => ODD.includes(one.code));
}

/** Whether the deep structures are easier to find in a scan that is turned over or on its side. */
export async function checkOrientation(volume: Volume, predictor: Predictor): Promise<Finding[]> {
  const grid = roomy(volume.grid, predictor.bundle.preparation);
  const image = normalise(resample(volume.data, volume.grid, grid), "head", new Uint8Array(grid.size).fill(1));
  let first = NaN;
  let best = { sure: -1, order: ORDERS[0], flips: FLIPS[0] };
  search: for (const order of ORDERS)
    for (const flips of FLIPS) {
      const { data, shape } = rearranged(image, grid.shape, order, flips);
      const answer = await predict(predictor, data, shape);
      const sure = deepConfidence([0, 1, 2].map((c) => answer.subarray(c * data.length, (c + 1) * data.length)));
      if (Number.isNaN(first)) first = sure;
      if (sure > best.sure) best = { sure, order, flips };
      if (sure >= UPRIGHT) break search;
    }
  if (best.sure < Math.max(TURNED, first + TURNED_MORE)) return [];
  const text = `confidence of the deep structures is higher with the image turned ${described(best.order, best.flips)} (${best.sure.toFixed(2)} compared with ${first.toFixed(2)}): the orientation in the header is wrong; convert the scan again, or correct its header`;
  return [finding("orientation-doubtful", "error", text)];
}

function rearranged(image: Float32Array, edges: Vec3, order: Vec3, flips: number[]): { data: Float32Array; shape: Vec3 } {
  const shape = order.map((axis) => edges[axis]) as Vec3;
  const own = [edges[1] * edges[2], edges[2], 1];
  const data = new Float32Array(image.length);
  const turn = (x: number, k: number) => (flips.includes(k) ? shape[k] - 1 - x : x);
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++) data[n] = image[turn(i, 0) * own[order[0]] + turn(j, 1) * own[order[1]] + turn(k, 2) * own[order[2]]];
  return { data, shape };
}

function described(order: Vec3, flips: number[]): string {
  const over = [...flips].reverse().map((axis) => ["back to front", "upside down"][axis - 1]).join(" and ");
  const swapped = order.flatMap((axis, at) => (axis === at ? [] : [`${AXES[at]} in the header is ${AXES[axis]} of the head`])).join(", ");
  return [swapped && `by 90 degrees: ${swapped}`, over].filter(Boolean).join("; ");
}

/** The inside of the skull of a raw head whose brain was found. */
export async function findInside(volume: Volume, brain: Brain, predictor: Predictor): Promise<Intracranial> {
  const { grid } = brain;
  const scanned = covered(volume.grid, grid);
  const answer = await predict(predictor, normalise(resample(volume.data, volume.grid, grid), "head", scanned), grid.shape);
  const likely = answer.subarray(grid.size);
  const { labels, sizes } = label(scanned.map((one, n) => one & +(likely[n] > 0.5)), grid.shape);
  const common = sizes.map(() => 0);
  for (let n = 0; n < labels.length; n++) if (labels[n] && brain.probability[n] > 0.5) common[labels[n]]++;
  const best = common.indexOf(Math.max(...common));
  const kept = Uint8Array.from(labels, (piece, n) => +(brain.probability[n] > 0.5 || (piece === best && common[best] > 0)));
  const inside = fillHoles(kept, grid.shape);
  const near = dilate(inside, grid.shape);
  // never less than the brain, so that its mask lies inside on every grid
  const probability = likely.map((p, n) => {
    const share = near[n] ? Math.max(p, brain.probability[n]) : 0;
    if (!inside[n]) return Math.min(share, 0.499);
    return share <= 0.5 ? 1 : share;
  });
  return { probability, grid, confidence: expectedDice(likely.map((p, n) => p * near[n]), (n) => inside[n]) };
}

/** The brain mask on the scan's own grid, and the row of the intracranial volume. */
export function segmentBrain(volume: Volume, brain: Brain, predictor: Predictor): Segmentation {
  const labels = outlinedOn(brain, volume.grid);
  let measures = measure(labels, volume.grid, TABLE, new Map([[1, (brain.outline ?? brain).confidence]]), predictor.bundle.facts);
  if (brain.given) measures = measures.map((row) => ({ ...row, low: null, high: null }));
  const millilitres = measures[0].volume / 1000;
  if (!(millilitres >= SMALLEST_ML && millilitres <= LARGEST_ML)) throw noBrain(volume, millilitres);
  const row = brain.inside && icvRow(brain.inside, volume.grid, labels);
  return { ...segmentation("brain", labels, TABLE, row ? [...measures, row] : measures), brainMm3: measures[0].volume, icvMm3: row && row.volume };
}

function icvRow(inside: Intracranial, grid: Grid, brain: Uint8Array): Measure {
  const likely = resample(inside.probability, inside.grid, grid);
  const volume = likely.reduce((count, p, n) => count + +(p > 0.5 || brain[n] > 0), 0) * grid.voxelVolume;
  return { index: ICV_INDEX, name: "Intracranial", volume, low: null, high: null, confidence: inside.confidence, floor: null };
}

