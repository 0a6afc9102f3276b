// What lies outside a head: the level of air, and voxels that were never scanned.
// Mirrors deepmrseg_bids/imaging/air.py and hounsfield.py.

import { finding, general } from "./findings";
import type { Finding } from "./findings";
import { roundHalfEven } from "./linear";
import type { Vec3 } from "./linear";
import { dilate, label, median, percentiles, where } from "./ndimage";

const SAMPLED = 2_000_000;
const FACES = 0.2;
const NEAR = 0.02;
const DARK = 0.1;
const BRIGHT = 0.8;
const GAP = 0.5;
const BELOW = 0.15;
const FLAT = 0.05;
const SIDES = 4;
const PADDINGS = 4;
const QUARTILES = [25, 50, 75];
const ZEROS = [0, 1024, 1000]; // Hounsfield: what files without negative numbers add

export interface Air {
  level: number;
  outside: number[];
  negated: boolean;
}

/** A part of an array: its voxels are those between low and high. */
interface Part {
  data: Float32Array;
  shape: Vec3;
}

const none: Air = { level: 0, outside: [], negated: false };

export function airFindings(air: Air, data: Float32Array, shape: Vec3): Finding[] {
  const found: Finding[] = [];
  let least = 0;
  let negative = 0;
  for (let n = 0; n < data.length; n++)
    if (data[n] < 0) {
      negative++;
      if (data[n] < least) least = data[n];
    }
  if (negative) found.push(finding("negative-values", "info", `${general((100 * negative) / data.length, 2)} % of the voxels are negative, the minimum is ${general(least)}`));
  const zero = air.negated ? undefined : zeroOfHounsfield(thinned(data, shape).data);
  if (zero !== undefined)
    found.push(finding("computed-tomography", "error", `intensities are those of a CT (air near ${zero - 1000}, soft tissue near ${zero}), not of an MRI`));
  if (air.negated)
    found.push(finding("intensities-negated", "warning", "air is brighter than the head: the intensities are negated. They were reversed for the segmentation; inspect the file"));
  else if (air.outside.length) {
    const values = air.outside.map((value) => general(value)).join(", ");
    found.push(finding("scan-padded", "info", `voxels outside the scan have the ${air.outside.length > 1 ? "values" : "value"} ${values}: taken as air`));
  }
  return found;
}

function zeroOfHounsfield(data: Float32Array): number | undefined {
  return ZEROS.find((zero) => {
    const dark = data.reduce((count, x) => count + +(x < zero - 850), 0) / data.length;
    if (dark < 0.02) return false;
    const head = data.filter((x) => x > zero - 500).map((x) => x - zero);
    const soft = head.filter((x) => Math.abs(x) <= 150);
    if (!soft.length) return false;
    const middle = median(soft);
    const near = head.reduce((count, x) => count + +(Math.abs(x - middle) <= 30), 0) / head.length;
    return middle >= -20 && middle <= 80 && near > 0.3;
  });
}

/** The air of a scan of finite intensities, by its outer faces. */
export function findAir(data: Float32Array, shape: Vec3): Air {
  const thin = thinned(data, shape);
  const { inner, values } = peeled(thin);
  if (values.length < 2) return airOf(thin);
  const air = airOf(inner);
  const beyond = values.filter((value) => value !== air.level && !air.outside.includes(value));
  return { ...air, outside: [...beyond, ...air.outside] };
}

export function withAirAtZero(data: Float32Array, shape: Vec3, air: Air): Float32Array {
  if (air.level === 0 && !air.outside.length && !air.negated) return data;
  const out = data.map((x) => (air.negated ? air.level - x : x - air.level));
  if (!air.outside.length) return out;
  const values = air.outside.map(Math.fround);
  const equal = Uint8Array.from(data, (x) => +values.includes(x));
  const { labels, sizes } = label(equal, shape);
  const reached = new Set(faces({ data: Float32Array.from(labels), shape }).flatMap((face) => [...new Set(face)]));
  for (let n = 0; n < out.length; n++) if (labels[n] && (sizes.length < 3 || reached.has(labels[n]))) out[n] = 0;
  return out;
}

function thinned(data: Float32Array, shape: Vec3): Part {
  const step = Math.max(1, roundHalfEven((data.length / SAMPLED) ** (1 / 3)));
  const edges = shape.map((edge) => Math.ceil(edge / step)) as Vec3;
  const out = new Float32Array(edges[0] * edges[1] * edges[2]);
  let n = 0;
  for (let i = 0; i < shape[0]; i += step)
    for (let j = 0; j < shape[1]; j += step) for (let k = 0; k < shape[2]; k += step) out[n++] = data[(i * shape[1] + j) * shape[2] + k];
  return { data: out, shape: edges };
}

/** The plane of an array at a place of an axis. */
function plane({ data, shape }: Part, axis: number, at: number): Float32Array {
  const [p, q, r] = shape;
  const out = new Float32Array((p * q * r) / shape[axis]);
  let n = 0;
  for (let i = axis === 0 ? at : 0; i < (axis === 0 ? at + 1 : p); i++)
    for (let j = axis === 1 ? at : 0; j < (axis === 1 ? at + 1 : q); j++)
      for (let k = axis === 2 ? at : 0; k < (axis === 2 ? at + 1 : r); k++) out[n++] = data[(i * q + j) * r + k];
  return out;
}

function faces(part: Part): Float32Array[] {
  return [0, 1, 2].flatMap((axis) => [plane(part, axis, 0), plane(part, axis, part.shape[axis] - 1)]);
}

/** What is left of a scan without its outer layers of one value each, and these values. */
function peeled(thin: Part): { inner: Part; values: number[] } {
  const values: number[] = [];
  let inner = thin;
  for (let round = 0; round < PADDINGS; round++)
    for (let axis = 0; axis < 3; axis++)
      for (const end of [false, true]) {
        const edge = inner.shape[axis];
        const face = (t: number) => plane(inner, axis, end ? edge - 1 - t : t);
        const value = face(0)[0];
        let layers = 0;
        while (layers < edge && face(layers).every((x) => x === value)) layers++;
        if (!layers) continue;
        if (layers === edge) return { inner, values };
        if (!values.includes(value)) values.push(value);
        inner = without(inner, axis, end, layers);
      }
  return { inner, values };
}

function without(part: Part, axis: number, end: boolean, layers: number): Part {
  const shape = part.shape.map((edge, k) => (k === axis ? edge - layers : edge)) as Vec3;
  const offset = [0, 1, 2].map((k) => (k === axis && !end ? layers : 0));
  const data = new Float32Array(shape[0] * shape[1] * shape[2]);
  let n = 0;
  for (let i = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++) data[n++] = part.data[((i + offset[0]) * part.shape[1] + j + offset[1]) * part.shape[2] + k + offset[2]];
  return { data, shape };
}

/** The air of a scan around which there is at most one value that was not measured. */
function airOf(thin: Part): Air {
  const { data, shape } = thin;
  const [common, share] = mostCommon(faces(thin));
  if (share < FACES) return withoutPadding(thin);
  const scanned = Uint8Array.from(data, (x) => +(x !== common));
  const values = where(data, scanned);
  if (!values.length) return none;
  const [low, high] = percentiles(values, [1, 99.5]);
  const span = high - low;
  const near = dilate(scanned.map((one) => +!one), shape);
  const beside = where(data, near.map((one, n) => one & scanned[n]));
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  const standard = common >= Math.min(0, least) ? usual(common, span) : { ...none, level: common };
  if (span === 0 || !beside.length || Math.abs(common - low) <= NEAR * span) return standard;
  const [bottom, rim, top] = percentiles(beside, QUARTILES).map((level) => (level - low) / span);
  if (rim > BRIGHT && top - bottom < FLAT && !(common - high >= 0 && common - high <= DARK * span)) return { level: high, outside: [common], negated: true };
  if (common >= high && (rim > BRIGHT || rim * span + low > median(values))) return { level: common, outside: [], negated: true };
  if (rim < DARK) return { ...usual(low, span), outside: [common] };
  if (common > low || low - common > GAP * span) return { level: low - BELOW * span, outside: [common], negated: false };
  return standard;
}

function usual(level: number, span: number): Air {
  return Math.abs(level) <= NEAR * span ? none : { ...none, level };
}

/** The air of a scan whose faces hold no value more often than chance would. */
function withoutPadding(thin: Part): Air {
  const [low, high] = percentiles(thin.data, [1, 99.5]);
  const span = high - low;
  const quartiles = faces(thin).map((face) => percentiles(face, QUARTILES).map((level) => (level - low) / span));
  const dark = quartiles.some(([, middle]) => middle < DARK);
  const bright = quartiles.filter(([bottom, middle, top]) => middle > 1 - DARK && top - bottom < FLAT).length;
  if (bright >= SIDES) return { level: percentiles(thin.data, [99])[0], outside: [], negated: true };
  return dark ? usual(low, span) : none;
}

/** The value that is found most often, and its share. */
function mostCommon(parts: Float32Array[]): [number, number] {
  const counts = new Map<number, number>();
  let total = 0;
  for (const part of parts)
    for (const value of part) {
      counts.set(value, (counts.get(value) ?? 0) + 1);
      total++;
    }
  let best: [number, number] = [0, 0];
  for (const [value, count] of counts) if (count > best[1] || (count === best[1] && value < best[0])) best = [value, count];
  return [best[0], best[1] / total];
}
