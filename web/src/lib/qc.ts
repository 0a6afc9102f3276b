// What is odd about a scan before, and about a segmentation after. Mirrors deepmrseg_bids/tasks/qc.py.

import { checkContrast } from "./contrast";
import { finding } from "./findings";
import type { Finding } from "./findings";
import { covered } from "./grid";
import type { Grid } from "./grid";
import { roundHalfEven } from "./linear";
import type { Vec3 } from "./linear";
import { dilate, erode, gaussianFilter, laplace, median, opening, percentiles, profile, profilePercentiles, sum, where } from "./ndimage";
import type { Volume } from "./nifti";
import { classes } from "./results";
import type { Measure, Segmentation } from "./results";

const OBLIQUE_DEG = 1;
const THICK_MM = 2.55;
const COARSE_MM = 5;
const UNEVEN = 2.5;
const HEAD_MM: [string, number][] = [["left to right", 120], ["back to front", 150], ["bottom to top", 110]];
const SLAB = 0.6;
const FEW = 24;
const LABELS = 512;
const MOST_EQUAL = 0.4;
const SAMPLED = 500_000;
const GRIDS: [Vec3, number, string][] = [
  [[256, 256, 256], 1, "FreeSurfer's conformed grid"],
  [[182, 218, 182], 1, "the grid of MNI152 (FSL)"],
  [[91, 109, 91], 2, "the grid of MNI152 (FSL)"],
  [[193, 229, 193], 1, "the grid of MNI152NLin2009cAsym"],
  [[97, 115, 97], 2, "the grid of MNI152NLin2009cAsym"],
  [[197, 233, 189], 1, "the grid of MNI152 (2009)"],
];
const BRAIN_ML = [850, 2200];
const BRAIN_UNSURE = 0.9;
const CUT_BOTTOM_MM2 = 1500;
const CUT_ANYWHERE_MM2 = 400;
const BLANK_MM2 = 1200;
const EMPTY = 1e-4;
const FLAT_MM2 = 2500;
const AIR = 0.05;
const MOST_AIR = 0.05;
const DETAIL_MM = 2;
const BLURRED = 2.2;
const NOISY = 7.5;
const LEAST_SPREAD = 0.25;
const SIDES = ["left", "right", "back", "front", "bottom", "top"];
const LONGER = 1.02;
const SLENDER = 0.6;
const STRIPPED = 0.02;
const AWAY_MM = 10;
const NO_NOISE = 0.25;
const ONLY_NOISE = 0.005;
const UNSURE = 0.7;
const INSIDE = 0.95;
const HIPPOCAMPUS = 0.6;
const RANGE_MM3: Record<string, [number, number]> = {
  "Accumbens-Area": [75, 1200],
  Amygdala: [300, 2000],
  Caudate: [1100, 7000],
  Hippocampus: [1400, 7400],
  "Hippocampus-Anterior": [500, 4100],
  "Hippocampus-Posterior": [490, 3500],
  Pallidum: [320, 3500],
  Putamen: [1600, 9200],
  "Thalamus-Proper": [2900, 15400],
};
const ASYMMETRY: Record<string, number> = { "Accumbens-Area": 100, Pallidum: 75, Amygdala: 60 };
const ASYMMETRY_OTHERS = 40;

/** Look at a scan before any network does: its voxels, its field of view, its values. */
export function checkImage(volume: Volume): Finding[] {
  return [...position(volume.grid), ...view(volume.grid), ...values(volume)];
}

function position(grid: Grid): Finding[] {
  const found: Finding[] = [];
  if (grid.obliquity > OBLIQUE_DEG) found.push(finding("oblique", "info", `oblique slices by ${grid.obliquity.toFixed(0)} degrees`));
  const sorted = [...grid.spacing].sort((a, b) => a - b);
  const [thin, middle, thick] = sorted;
  const voxels = `voxels of ${grid.spacing.map((edge) => edge.toFixed(2)).join(" x ")} mm`;
  if (thick > THICK_MM) found.push(finding("thick-slices", middle > COARSE_MM ? "error" : "warning", `${voxels}: volumes of small structures are unreliable`));
  else if (thick > UNEVEN * thin) found.push(finding("uneven-voxels", "info", `${voxels}, ${(thick / thin).toFixed(1)} times longer than wide`));
  const shape = [...grid.shape].sort((a, b) => a - b).join();
  for (const [edges, spacing, name] of GRIDS)
    if (shape === [...edges].sort((a, b) => a - b).join() && grid.spacing.every((edge) => Math.abs(edge - spacing) < 0.01))
      found.push(finding("not-scanner-space", "info", `the image is on ${name}: it was resampled before`));
  return found;
}

/** Whether the field of view can hold a head. */
function view(grid: Grid): Finding[] {
  const held = [0, 1, 2].map((i) => Math.max(...[0, 1, 2].map((j) => Math.abs(grid.affine[i][j]) * grid.shape[j])));
  const short = HEAD_MM.map(([way, need], k) => ({ way, need, mm: held[k] })).filter(({ mm, need }) => mm < need);
  if (!short.length) return [];
  const listed = short.map(({ way, mm }) => `${mm.toFixed(0)} mm from ${way}`).join(", ");
  const slab = short.some(({ mm, need }) => mm < SLAB * need);
  return [finding("small-view", slab ? "error" : "warning", `not a whole head: the image covers ${listed}`)];
}

function values({ data, grid }: Volume): Finding[] {
  const step = Math.max(1, Math.floor(data.length / SAMPLED));
  const seen = new Set<number>();
  for (let n = 0; n < data.length; n += step) seen.add(data[n]);
  const share = plateaus(data, grid.shape);
  const labels = share > MOST_EQUAL && seen.size < LABELS && [...seen].every(Number.isInteger);
  const found: Finding[] = [];
  if (seen.size < FEW || labels) found.push(finding("few-intensities", "warning", `only ${seen.size} different intensities: is this a label map?`));
  if (share > MOST_EQUAL)
    found.push(finding("flat-regions", "error", `${(100 * share).toFixed(0)} % of the voxels have exactly the value of their neighbours: a label map, a mask or a phantom, not an MRI?`));
  return found;
}

/** Of the voxels that hold something, the share equal to the next one along every axis. */
function plateaus(data: Float32Array, shape: Vec3): number {
  const [p, q, r] = shape;
  const ends = shape.map((n) => [Math.floor(n / 4), Math.max(Math.floor(n / 4) + 2, Math.floor((3 * n) / 4)) - 1]);
  let something = 0;
  let equal = 0;
  for (let i = ends[0][0]; i < Math.min(ends[0][1], p - 1); i++)
    for (let j = ends[1][0]; j < Math.min(ends[1][1], q - 1); j++)
      for (let k = ends[2][0]; k < Math.min(ends[2][1], r - 1); k++) {
        const n = (i * q + j) * r + k;
        if (data[n] === 0) continue;
        something++;
        if (data[n] === data[n + q * r] && data[n] === data[n + r] && data[n] === data[n + 1]) equal++;
      }
  return something ? equal / something : 0;
}

/** Look at the brain that was found in a head, on an upright grid of cubic voxels. */
export function checkBrain(mask: Uint8Array, image: Float32Array, grid: Grid, view: Grid, confidence: number | null): Finding[] {
  const found = [...contents(mask, image, grid.shape), ...volumeOf(mask, grid)];
  if (confidence !== null && confidence < BRAIN_UNSURE)
    found.push(finding("brain-unsure", "warning", `low confidence: brain mask (${shortOf(confidence)} < ${BRAIN_UNSURE.toFixed(2)})`));
  const faces = cutFaces(mask, grid, view);
  if (faces.length) {
    const listed = faces.map(([side, mm2]) => `${side} (${(mm2 / 100).toFixed(0)} cm²)`).join(", ");
    found.push(finding("brain-cut", "warning", `the brain touches the edge of the image: ${listed}; part of it may be missing`));
  } else found.push(...shapeOf(mask, grid));
  const bare = stripped(mask, image, grid);
  const blank = bare.length || faces.length ? [] : blanked(mask, image, grid, view);
  return [...found, ...blank, ...checkContrast(mask, image, grid), ...detail(mask, image, grid), ...bare];
}

/** Whether what was found has the intensities of a brain: several tissues, and no air. */
function contents(mask: Uint8Array, image: Float32Array, shape: Vec3): Finding[] {
  const inner = where(image, erode(mask, shape, 2));
  if (!inner.length) return [];
  const [low, middle, high] = percentiles(inner, [5, 50, 95]);
  const found: Finding[] = [];
  const air = inner.reduce((count, x) => count + +(x < AIR * middle), 0) / inner.length;
  if (air > MOST_AIR) found.push(finding("brain-air", "error", `${(100 * air).toFixed(0)} % of the brain mask is air or empty: it is not a whole brain`));
  const spread = (high - low) / Math.max(Math.abs(middle), 1e-12);
  if (spread < LEAST_SPREAD)
    found.push(
      finding("no-tissue-contrast", "error", `fluid, grey and white matter have nearly the same intensity (they differ by ${(100 * spread).toFixed(0)} % of the median): a CT, a phantom or a mask, not an MRI?`),
    );
  return found;
}

function volumeOf(mask: Uint8Array, grid: Grid): Finding[] {
  const millilitres = (sum(mask) * grid.voxelVolume) / 1000;
  const [low, high] = BRAIN_ML;
  if (millilitres >= low && millilitres <= high) return [];
  return [finding("brain-volume", "warning", `brain volume ${millilitres.toFixed(0)} ml, expected ${low} to ${high} ml`)];
}

/** How much of each face of the field of view is brain, in mm2, where it is too much. */
function cutFaces(mask: Uint8Array, grid: Grid, image: Grid): [string, number][] {
  const seen = covered(image, grid);
  const strides = [grid.shape[1] * grid.shape[2], grid.shape[2], 1];
  const faces: [string, number][] = [];
  for (let axis = 0; axis < 3; axis++)
    for (const end of [0, 1]) {
      let rim = 0;
      for (let n = 0; n < mask.length; n++) {
        if (!mask[n] || !seen[n]) continue;
        const place = Math.floor(n / strides[axis]) % grid.shape[axis];
        const edge = end ? place === grid.shape[axis] - 1 : place === 0;
        if (edge || !seen[n + (end ? strides[axis] : -strides[axis])]) rim++;
      }
      const side = SIDES[2 * axis + end];
      const mm2 = rim * grid.spacing[0] ** 2;
      if (mm2 > (side === "bottom" ? CUT_BOTTOM_MM2 : CUT_ANYWHERE_MM2)) faces.push([side, mm2]);
    }
  return faces;
}

/** Whether the brain is longest from back to front, as upright brains are, and not flat. */
function shapeOf(mask: Uint8Array, grid: Grid): Finding[] {
  if (!mask.includes(1)) return [];
  const [low, high] = profilePercentiles(mask, grid.shape, [0.5, 99.5]);
  const [wide, long, tall] = high.map((x, k) => (x - low[k]) * grid.spacing[k]);
  let odd = "";
  if (long < LONGER * Math.max(wide, tall)) odd = "but brains are longest from back to front: is the orientation in the header correct?";
  else if (Math.min(wide, tall) < SLENDER * long) odd = "too narrow or too low for its length: is the voxel size in the header correct?";
  if (!odd) return [];
  return [finding("brain-shape", "warning", `the brain is ${wide.toFixed(0)} mm wide, ${long.toFixed(0)} mm long and ${tall.toFixed(0)} mm high, ${odd}`)];
}

/** Whether there is anything but the brain. */
function stripped(mask: Uint8Array, image: Float32Array, grid: Grid): Finding[] {
  const near = dilate(mask, grid.shape, Math.max(1, roundHalfEven(AWAY_MM / grid.spacing[0])));
  const away = near.map((one) => +!one);
  const outer = where(image, away);
  if (!outer.length) return [];
  const inner = where(image, mask);
  const [low] = percentiles(image, [1]);
  const [least, most] = inner.reduce(([a, b], x) => [Math.min(a, x), Math.max(b, x)], [Infinity, -Infinity]);
  const something = outer.reduce((count, x) => count + +(Math.abs(x - low) > 0.02 * (most - least)), 0) / outer.length;
  if (something <= STRIPPED) return [finding("skull-stripped", "info", "the image appears skull-stripped")];
  const limit = NO_NOISE * median(inner);
  const bright = outer.reduce((count, x) => count + +(x > limit), 0) / outer.length;
  if (bright > ONLY_NOISE) return [];
  return [
    finding("mask-doubtful", "warning", "the image appears skull-stripped, with noise around the brain: its own mask cannot be used, and the brain mask may be up to 10 % too small; set what is outside to 0"),
  ];
}

/** Whether the brain borders on voxels of the scan that were emptied. */
function blanked(mask: Uint8Array, image: Float32Array, grid: Grid, view: Grid): Finding[] {
  const limit = EMPTY * image.reduce((a, b) => Math.max(a, b), -Infinity);
  const empty = opening(Uint8Array.from(image, (x) => +(Math.abs(x) < limit)), grid.shape);
  const seen = covered(view, grid);
  const near = dilate(mask, grid.shape, 2);
  let beside = 0;
  for (let n = 0; n < mask.length; n++) if (near[n] && !mask[n] && empty[n] && seen[n]) beside++;
  const mm2 = beside * grid.spacing[0] ** 2;
  if (mm2 <= BLANK_MM2) return [];
  return [finding("brain-cut", "warning", `the brain borders on empty voxels (${(mm2 / 100).toFixed(0)} cm²): part of it was removed, by defacing or by slices without signal; volumes are too small`)];
}

/** Whether fine detail is missing, or noise. */
function detail(mask: Uint8Array, image: Float32Array, grid: Grid): Finding[] {
  if (grid.spacing.some((edge) => Math.abs(edge - DETAIL_MM) > 0.1)) return [];
  const core = erode(mask, grid.shape, 2);
  if (!core.includes(1)) return [];
  const mean = (data: Float32Array) => where(data, core).reduce((total, x) => total + Math.abs(x), 0);
  const fine = mean(laplace(image, grid.shape));
  const coarse = mean(laplace(gaussianFilter(image, grid.shape, 1), grid.shape));
  if (coarse <= 0) return [];
  if (fine / coarse < BLURRED) return [finding("image-blurred", "warning", "fine detail is missing (blurred, smoothed, or of low resolution): small structures are not reliable")];
  if (fine / coarse > NOISY) return [finding("image-noisy", "warning", "the image is very noisy: small structures are not reliable")];
  return [];
}

/** Look at the brain mask that a skull-stripped scan brings along. */
export function checkGivenMask(mask: Uint8Array, grid: Grid): Finding[] {
  const found = volumeOf(mask, grid);
  for (let axis = 0; axis < 3; axis++) {
    const slices = profile(mask, grid.shape, axis);
    const first = slices.findIndex((count) => count > 0);
    const last = slices.length - 1 - [...slices].reverse().findIndex((count) => count > 0);
    const face = grid.voxelVolume / grid.spacing[axis];
    const flat = slices[first] * face > FLAT_MM2 || slices[last] * face > FLAT_MM2;
    if (flat || slices.subarray(first, last).includes(0))
      return [...found, finding("brain-cut", "warning", "the skull-stripped brain ends in a plane, or lacks slices: part of it is missing")];
  }
  return found;
}

/** Look at the deep structures; mask is the brain on the grid of their posteriors. */
export function checkStructures(result: Segmentation, mask: Uint8Array): Finding[] {
  const posteriors = result.posteriors[0];
  const labels = classes(posteriors);
  const there = result.measures.filter((row) => row.volume > 0);
  const found = [...unsure(there, result.measures.length), ...implausible(there), ...asymmetric(there)];
  const size = result.table.map(() => 0);
  const within = result.table.map(() => 0);
  const across = result.table.map(() => 0);
  const { shape } = posteriors.grid;
  for (let n = 0; n < labels.length; n++) {
    if (!labels[n]) continue;
    const c = labels[n] - 1;
    size[c]++;
    within[c] += mask[n];
    const k = n % shape[2];
    const j = Math.floor(n / shape[2]) % shape[1];
    across[c] += posteriors.grid.toWorld([Math.floor(n / (shape[1] * shape[2])), j, k])[0];
  }
  const loose = result.table.filter((_, c) => size[c] && within[c] < INSIDE * size[c]).map((one) => one.name);
  if (loose.length) found.push(finding("structures-outside", "warning", `more than ${(100 * (1 - INSIDE)).toFixed(0)} % outside the brain: ${loose.join(", ")}`));
  const x = new Map(result.table.flatMap((one, c) => (size[c] ? [[one.name, across[c] / size[c]] as [string, number]] : [])));
  const crossed = [...x].filter(([name, at]) => name.startsWith("Left-") && at > (x.get(`Right-${structure(name)}`) ?? Infinity)).map(([name]) => structure(name));
  if (crossed.length) found.push(finding("sides-crossed", "error", `left structure to the right of its counterpart: ${crossed.join(", ")}`));
  return found;
}

/** Look at the volumes of structures of which it is known what people have. */
export function checkVolumes(rows: Measure[]): Finding[] {
  const there = rows.filter((row) => row.volume > 0 && structure(row.name) in RANGE_MM3);
  return [...implausible(there), ...asymmetric(there)];
}

/** Look at the parts of the hippocampus, beside what deepbrain found. */
export function checkHippocampus(result: Segmentation, deepbrain: Segmentation): Finding[] {
  const there = result.measures.filter((row) => row.volume > 0);
  const found = unsure(there, result.measures.length);
  const less: string[] = [];
  for (const side of ["Left", "Right"]) {
    const parts = sum(there.filter((row) => row.name.startsWith(side)).map((row) => row.volume));
    const whole = deepbrain.measures.find((row) => row.name === `${side}-Hippocampus`)?.volume || Infinity;
    const share = parts / whole;
    if (share > 0 && share < HIPPOCAMPUS) less.push(`${side.toLowerCase()} ${(100 * share).toFixed(0)} %`);
  }
  if (less.length) found.push(finding("hippocampus-small", "warning", `hippocampus smaller than in deepbrain: ${less.join(", ")}; the volumes of its parts are too small`));
  return [...found, ...implausible(there), ...asymmetric(there)];
}

/** Structures of a volume that nobody has. */
function implausible(there: Measure[]): Finding[] {
  const odd = there.flatMap((row) => {
    const [low, high] = RANGE_MM3[structure(row.name)] ?? [0, Infinity];
    return row.volume >= low && row.volume <= high ? [] : [`${row.name} (${row.volume.toFixed(0)} mm³, expected ${low} to ${high} mm³)`];
  });
  return odd.length ? [finding("structure-volume", "warning", `implausible volume: ${odd.join(", ")}`)] : [];
}

/** The name without its side. */
function structure(name: string): string {
  return name.replace(/^(Left|Right)-/, "");
}

/** Two decimals of a value below a limit: cut off, so that it never looks like the limit. */
function shortOf(value: number): string {
  return (Math.floor(100 * value) / 100).toFixed(2);
}

/** Structures of low confidence; an error if most structures are, or are missing. */
function unsure(there: Measure[], expected: number): Finding[] {
  const low = there.filter((row) => row.confidence !== null && row.confidence < UNSURE);
  if (!low.length) return [];
  const lost = expected - there.length + low.length;
  const listed = low.map((row) => `${row.name} (${shortOf(row.confidence as number)} < ${UNSURE.toFixed(2)})`).join(", ");
  return [finding("structure-unsure", lost > expected / 2 ? "error" : "warning", `low confidence: ${listed}`)];
}

function asymmetric(there: Measure[]): Finding[] {
  const odd = there.flatMap((left) => {
    const right = there.find((row) => left.name.startsWith("Left-") && row.name === `Right-${structure(left.name)}`);
    if (!right) return [];
    const percent = (200 * (left.volume - right.volume)) / (left.volume + right.volume);
    const name = structure(left.name);
    if (Math.abs(percent) <= (ASYMMETRY[name] ?? ASYMMETRY_OTHERS)) return [];
    return [`${name} (${percent < 0 ? "" : "+"}${percent.toFixed(0)} %)`];
  });
  return odd.length ? [finding("structures-asymmetric", "warning", `large left/right asymmetry, in percent of the mean: ${odd.join(", ")}`)] : [];
}
