// White-matter lesions in a FLAIR, with a T1w in the same space.
// Mirrors deepmrseg_bids/tasks/wml.py, flair_slices.py and flair_contrast.py, without registration.

import { brainVolume, findBrain, icvVolume, maskOf } from "./brain";
import type { Brain, MaskOn } from "./brain";
import { thresholdOf } from "./bundle";
import { brighterThanWhite } from "./contrast";
import { finding, ScanError } from "./findings";
import type { Finding } from "./findings";
import { bounds, covered, cut, Grid, resample } from "./grid";
import type { Box } from "./grid";
import { normalise, OUTSIDE } from "./intensity";
import type { Vec3 } from "./linear";
import { distance, fillHoles, label, median, where } from "./ndimage";
import type { Labels, Volume } from "./nifti";
import type { Predictor } from "./predictor";
import { checkImage } from "./qc";
import { boxAbove, classes, confidences, labelMap, measure, posteriorsOf, segmentation } from "./results";
import type { Measure, Segmentation } from "./results";
import type { Session } from "./session";

const MARGIN_MM = 8;
const MULTIPLE = 16;
const SAME_SPACING = 1.05;
const SMALLEST_MM3 = 5;
const LARGE_MM3 = 5000;
const THICK_MM = 8;
const AT_ONCE = 4; // slices
const T1W_ONLY = ["contrast-doubtful"];
const LEAST_OVERLAP = 0.85;
const MOST_STEP = 1.057;
const DARK = 0.6;
const BRIGHT = 1.5;
const LEAST_DARK = 0.015;
const MOST_BRIGHT = 0.05;
const CORTEX_MM = [2.5, 4.5];
const BEHIND_MM = [4.5, 6.5];
const FEWEST = 50;
const KNOWN_MM = 2;

/** The lesions of a session, on the grid of its FLAIR, which lies on the T1w. */
export async function segmentLesions(session: Session, brain: Brain | null): Promise<Segmentation> {
  const { flair, t1w } = session;
  if (!flair) throw new ScanError("white-matter lesions require a FLAIR");
  const own = await findBrain(flair, await session.predictors("brain"));
  session.stage("Segmenting white-matter lesions");
  const predictor = await session.predictors("wml");
  const { labels, measures, lesionCount } = await lesionsIn(flair, t1w, maskOf(own), predictor);
  const seen = [...flair.findings, ...checkImage(flair), ...own.findings].filter((one) => !T1W_ONLY.includes(one.code));
  const findings = [
    ...seen.map((one) => ({ ...one, message: `FLAIR: ${one.message}` })),
    ...looks(flair, own, t1w, brain),
    ...together(own, brain),
    ...checkLesions(labels, flair.grid),
    ...measures.filter((row) => row.floor !== null && row.volume < row.floor).map(belowFloor),
  ];
  const whole = brain ?? own;
  return { ...segmentation("wml", labels, predictor.bundle.labels, measures), findings, brainMm3: brainVolume(whole), icvMm3: icvVolume(whole), lesionCount, onFlair: true };
}

interface Lesions {
  labels: Labels;
  measures: Measure[];
  lesionCount: number;
}

/** The lesions of a FLAIR whose brain is known, on its own grid. */
export async function lesionsIn(flair: Volume, t1w: Volume | null, maskOn: MaskOn, predictor: Predictor): Promise<Lesions> {
  const { bundle } = predictor;
  const grid = sliceGrid(flair.grid, maskOn(flair.grid), bundle.preparation.spacing);
  const mask = maskOn(grid);
  const answer = await slices(predictor, [channel(flair, mask, grid), channel(t1w, mask, grid)], grid);
  weigh(answer, mask, grid, predictor);
  const posteriors = posteriorsOf(answer, grid, [0, ...bundle.labels.map((one) => one.index)]);
  const lesions = withoutSmall(classes(posteriors).map((c, n) => +(c > 0 && mask[n] > 0)), grid);
  const lost = classes(posteriors).map((c, n) => +(!mask[n] || (c > 0 && !lesions[n])));
  posteriors.data.forEach((share, c) => lost.forEach((one, n) => {
    if (one) share[n] = c ? 0 : 1;
  }));
  const labels = labelMap(posteriors, flair.grid);
  const measures = measure(labels, flair.grid, bundle.labels, confidences(posteriors), bundle.facts);
  const { sizes } = label(labels, flair.grid.shape, true);
  return { labels, measures, lesionCount: sizes.length - 1 };
}

/** Change the odds of lesions so that the threshold of this load becomes one half. */
function weigh(answer: Float32Array, mask: Uint8Array, grid: Grid, { bundle }: Predictor): void {
  if (bundle.labels.length > 1) return;
  const load = mask.reduce((count, one, n) => count + (one && answer[n] < 0.5 ? 1 : 0), 0) * grid.voxelVolume;
  const threshold = thresholdOf(bundle.facts, bundle.labels[0].name, load);
  if (threshold === 0.5) return;
  for (let n = 0; n < grid.size; n++) {
    const [background, lesion] = [answer[n] * threshold, answer[n + grid.size] * (1 - threshold)];
    answer[n] = background / (background + lesion);
    answer[n + grid.size] = lesion / (background + lesion);
  }
}

/** Where the network looks: slices, then the two axes within them, all towards right, front and top. */
export function sliceGrid(flair: Grid, mask: Uint8Array, spacing: number): Grid {
  const box = boxAbove(mask, flair.shape, 0);
  if (box === null) throw new ScanError("the slices of the FLAIR contain no brain");
  const order = axisOrder(flair);
  const steps = order.map((axis) => flair.spacing[axis]);
  const signs = order.map((axis) => Math.sign(longest([0, 1, 2].map((i) => flair.affine[i][axis]))));
  const fresh = [steps[0], spacing, spacing];
  const whole = order.map((axis, k) => Math.max(Math.round((flair.shape[axis] * steps[k]) / fresh[k] - 1e-6), 1)) as Vec3;
  const linear = [0, 1, 2].map((i) => order.map((axis, k) => (flair.affine[i][axis] / steps[k]) * signs[k] * fresh[k]));
  const corners = flair.corners();
  const origin = [0, 1, 2].map((i) => {
    const middle = corners.reduce((total, p) => total + p[i], 0) / corners.length;
    return middle - linear[i].reduce((total, x, k) => total + (x * (whole[k] - 1)) / 2, 0);
  });
  const full = new Grid(whole, [...linear.map((row, i) => [...row, origin[i]]), [0, 0, 0, 1]]);
  const last = box.stop.map((x) => x - 1);
  const [low, high] = bounds([box.start, last].map((v) => full.toVoxel(flair.toWorld(v))));
  const start = low.map((x, k) => Math.floor(x - MARGIN_MM / fresh[k] + 0.5 + 1e-6)) as Vec3;
  const stop = high.map((x, k) => Math.floor(x + MARGIN_MM / fresh[k] + 0.5 + 1e-6) + 1) as Vec3;
  start[0] = Math.max(start[0], 0);
  stop[0] = Math.min(stop[0], full.shape[0]);
  for (const axis of [1, 2]) {
    const more = (MULTIPLE - ((stop[axis] - start[axis]) % MULTIPLE)) % MULTIPLE;
    start[axis] -= Math.floor(more / 2);
    stop[axis] += more - Math.floor(more / 2);
  }
  return full.crop(start, stop);
}

function longest(column: number[]): number {
  return column.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
}

/** The scan's axes: slices (the coarsest, or the most upright), then the others by their world axis. */
function axisOrder(flair: Grid): Vec3 {
  const coarsest = Math.max(...flair.spacing);
  const fit = [0, 1, 2].map((axis) => (flair.spacing[axis] * SAME_SPACING >= coarsest ? Math.abs(flair.affine[2][axis]) / flair.spacing[axis] : -1));
  const first = fit.indexOf(Math.max(...fit));
  const world = [0, 1, 2].map((axis) => {
    const column = [0, 1, 2].map((i) => Math.abs(flair.affine[i][axis]));
    return column.indexOf(Math.max(...column));
  });
  const rest = [0, 1, 2].filter((axis) => axis !== first).sort((a, b) => world[a] - world[b]);
  return [first, rest[0], rest[1]];
}

function channel(volume: Volume | null, mask: Uint8Array, grid: Grid): Float32Array {
  if (!volume) return new Float32Array(grid.size).fill(OUTSIDE);
  const seen = covered(volume.grid, grid);
  return normalise(resample(volume.data, volume.grid, grid), "brain", mask.map((one, n) => one & seen[n]));
}

/** Posteriors (classes, slices, H, W) of a network in 2D. */
async function slices(predictor: Predictor, channels: Float32Array[], grid: Grid): Promise<Float32Array> {
  const [count, h, w] = grid.shape;
  const { classes: kinds } = predictor.bundle.network;
  const out = new Float32Array(kinds * grid.size);
  for (let first = 0; first < count; first += AT_ONCE) {
    const several = Math.min(AT_ONCE, count - first);
    const image = new Float32Array(several * channels.length * h * w);
    for (let s = 0; s < several; s++)
      channels.forEach((data, c) => image.set(data.subarray((first + s) * h * w, (first + s + 1) * h * w), (s * channels.length + c) * h * w));
    const answer = await predictor.network(image, [several, channels.length, h, w]);
    for (let s = 0; s < several; s++)
      for (let c = 0; c < kinds; c++) out.set(answer.subarray((s * kinds + c) * h * w, (s * kinds + c + 1) * h * w), c * grid.size + (first + s) * h * w);
  }
  return out;
}

/** A lesion map without the pieces that are smaller than a volume. */
function withoutSmall(chosen: Uint8Array, grid: Grid): Uint8Array {
  const { labels, sizes } = label(chosen, grid.shape, true);
  return Uint8Array.from(labels, (piece) => +(piece > 0 && sizes[piece] * grid.voxelVolume >= SMALLEST_MM3 - 1e-6));
}

/** Whether a FLAIR looks like one, and not more like a T1w than the T1w does. */
function looks(flair: Volume, own: Brain, t1w: Volume, brain: Brain | null): Finding[] {
  const image = resample(flair.data, flair.grid, own.grid);
  const inside = Uint8Array.from(own.probability, (p) => +(p > 0.5));
  const found = checkFlair(image, inside, own.grid);
  if (t1w.data.length === flair.data.length && t1w.data.every((x, n) => x === flair.data[n]))
    return [...found, finding("scans-identical", "error", "T1w and FLAIR contain the same image: one of the two files is wrong")];
  if (!brain) return found;
  const step = tissueStep(image, inside, own.grid);
  const other = tissueStep(resample(t1w.data, t1w.grid, brain.grid), Uint8Array.from(brain.probability, (p) => +(p > 0.5)), brain.grid);
  if (other >= step) return found;
  const text = `white matter is brighter than the cortex in the FLAIR (${step.toFixed(2)}) more than in the T1w (${other.toFixed(2)}): are the two files exchanged?`;
  return [...found, finding("scans-swapped", "error", text)];
}

function checkFlair(image: Float32Array, inside: Uint8Array, grid: Grid): Finding[] {
  const level = where(image, inside);
  if (!level.length) return [];
  const middle = Math.max(median(level), 1e-6);
  const share = (fits: (x: number) => boolean) => level.reduce((count, x) => count + +fits(x / middle), 0) / level.length;
  const dark = share((x) => x < DARK);
  const bright = share((x) => x > BRIGHT);
  const say = (text: string) => [finding("flair-contrast", "error", `FLAIR: ${text}`)];
  if (dark < LEAST_DARK) return say(`only ${(100 * dark).toFixed(1)} % of the brain is dark fluid: is it a T2w or PD image?`);
  if (bright > Math.max(MOST_BRIGHT, 2 * dark))
    return say(`${(100 * bright).toFixed(0)} % of the brain is very bright and ${(100 * dark).toFixed(0)} % is dark: is fluid bright, as in a T2w?`);
  const step = tissueStep(image, inside, grid);
  if (step <= MOST_STEP || Math.abs(grid.spacing[0] - KNOWN_MM) > 0.1 || brighterThanWhite(inside, image, grid)) return [];
  return say(`white matter is brighter than the cortex (${step.toFixed(2)}): is it a T1w?`);
}

/** Brightness behind the cortex over that of the cortex; 1 where they cannot be told apart. */
function tissueStep(whole: Float32Array, mask: Uint8Array, grid: Grid): number {
  const around = boxAbove(mask, grid.shape, 0);
  if (around === null) return 1;
  const box: Box = {
    start: around.start.map((x) => Math.max(0, x - 1)) as Vec3,
    stop: around.stop.map((x, k) => Math.min(grid.shape[k], x + 1)) as Vec3,
  };
  const shape = box.stop.map((end, k) => end - box.start[k]) as Vec3;
  const image = cut(whole, grid.shape, box);
  const inside = cut(mask, grid.shape, box);
  const limit = DARK * median(where(image, inside));
  const solid = inside.map((one, n) => one & +(image[n] >= limit));
  const away = distance(solid, shape, { sampling: grid.spacing });
  const levels = [CORTEX_MM, BEHIND_MM].map(([low, high]) => image.filter((_, n) => away[n] >= low && away[n] < high));
  if (levels.some((part) => part.length < FEWEST)) return 1;
  const step = median(levels[1]) / median(levels[0]);
  return Number.isFinite(step) ? step : 1;
}

/** Whether the brains of both scans are in one place: this page does not register them. */
function together(own: Brain, brain: Brain | null): Finding[] {
  if (!brain) return [];
  const theirs = maskOf(brain)(own.grid);
  let both = 0;
  let sizes = 0;
  own.probability.forEach((p, n) => {
    const ours = +(p > 0.5);
    both += ours & theirs[n];
    sizes += ours + theirs[n];
  });
  const overlap = (2 * both) / Math.max(sizes, 1);
  if (overlap >= LEAST_OVERLAP) return [];
  const text = `the brain masks of FLAIR and T1w have an overlap (Dice) of ${overlap.toFixed(2)}, expected at least ${LEAST_OVERLAP.toFixed(2)}: the images are not aligned; align them first, or use the deepmrseg-bids app`;
  return [finding("brains-differ", "error", text)];
}

/** Whether a lesion is too thick to be one of the white matter, which are flat and ragged. */
function checkLesions(labels: Labels, grid: Grid): Finding[] {
  const { labels: pieces, sizes } = label(labels, grid.shape, true);
  const odd = sizes.flatMap((size, piece) => {
    if (!piece || size * grid.voxelVolume < LARGE_MM3) return [];
    const own = fillHoles(Uint8Array.from(pieces, (one) => +(one === piece)), grid.shape);
    const radius = distance(own, grid.shape, { sampling: grid.spacing }).reduce((a, b) => Math.max(a, b), 0);
    return radius >= THICK_MM ? [`${((size * grid.voxelVolume) / 1000).toFixed(0)} ml, ${(2 * radius).toFixed(0)} mm thick`] : [];
  });
  if (!odd.length) return [];
  return [finding("lesion-untypical", "error", `not typical of white-matter lesions: ${odd.join("; ")}: a tumour, an infarct, oedema or a cavity? Do not use the volume before you have inspected it`)];
}

function belowFloor(row: Measure): Finding {
  return finding("lesions-below-floor", "info", `lesion volume ${(row.volume / 1000).toFixed(2)} ml: below ${(row.floor as number) / 1000} ml, not distinguishable from none`);
}

