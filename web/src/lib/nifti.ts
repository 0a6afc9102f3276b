// NIfTI files in memory. Mirrors deepmrseg_bids/imaging/nifti.py and placement.py.

import { AGAIN as COPY, peek, pieces, whatItIs } from "./file_kinds";
import { finding, general, ScanError, times } from "./findings";
import type { Finding } from "./findings";
import { findAir, airFindings, withAirAtZero } from "./air";
import { Grid } from "./grid";
import { column, det3, length3, nearestRotation, upper3 } from "./linear";
import type { Matrix, Vec3 } from "./linear";
import { logarithms, oddScaling, rescaled } from "./scaling";

/** A scan: intensities in C order, air near 0, and where they lie. */
export interface Volume {
  data: Float32Array;
  grid: Grid;
  forms: Forms;
  findings: Finding[];
  name: string;
}

/** How a header says where voxels lie, for label maps on the same grid. */
export interface Forms {
  sform: Matrix;
  sformCode: number;
  qform: Matrix;
  qformCode: number;
}

export type Labels = Uint8Array | Uint16Array;

interface Header {
  little: boolean;
  dims: number[];
  datatype: number;
  pixdim: number[];
  start: number;
  slope: number;
  intercept: number;
  units: number;
  qformCode: number;
  sformCode: number;
  quaternion: number[];
  offset: number[];
  sform: Matrix;
}

/** Voxels that one page has memory for: 0.6 mm over a whole head. */
export const MOST_VOXELS = 2 ** 26;
const MOST_BYTES = 16 * MOST_VOXELS; // no header and its extensions are longer than the voxels
const EDGE_MM = [0.05, 20];
const LARGEST_MM = 600;
const SMALLEST_MM = 60;
const MANY = 96;
const FINE_MM = 0.25;
const FAR_MM = 2000;
const FARTHEST_MM = 1e5;
const ABSURD = 1e9;
const ROUNDED = 3.5e-7;
const SHEAR_DEG = 0.1;
const MOST_SHEAR_DEG = 45;
const SAME_WAY = 0.7;
const SAME_SIZE = 0.01;
const WRONG_VOLUME = 0.05;
const AGAIN = "convert the scan again, or correct its header";
const SPACES: Record<number, string> = { 3: "Talairach space", 4: "MNI space", 5: "a template" };
const UNITS: Record<number, [string, number]> = { 1: ["metres", 1000], 2: ["millimetres", 1], 3: ["micrometres", 0.001] };
const NO_NUMBERS = [32, 128, 1792, 2048, 2304]; // data types of colour and complex images

/** Read a scan, correct what can be corrected, and refuse the rest with a ScanError. */
export async function readVolume(file: Blob, name: string): Promise<Volume> {
  if (!file.size) throw new ScanError(`${name}: the file is empty; ${COPY}`);
  const header = parse(await peek(file, name), name); // a file of gigabytes is refused by its first bytes
  const shape = volumeShape(header, name);
  const { grid, forms, findings } = place(header, shape, name);
  checkCount(shape, name);
  findings.push(...oddScaling(header));
  const data = await voxels(file, header, shape, name, findings);
  if (header.dims.length > 3) findings.push(finding("single-volume-4d", "warning", `${header.dims.length}D image with one volume: processed as 3D`));
  clean(data, name, findings);
  findings.push(...logarithms(data));
  const air = findAir(data, shape);
  findings.push(...airFindings(air, data, shape));
  return { data: withAirAtZero(data, shape, air), grid, forms, findings, name };
}

function parse(content: Uint8Array, name: string): Header {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const length = content.length >= 4 ? [view.getInt32(0, true), view.getInt32(0, false)] : [0, 0];
  const little = length[0] === 348 || length[0] === 540;
  const size = little ? length[0] : length[1];
  const mark = (at: number) => String.fromCharCode(...content.subarray(at, at + 3));
  const fits = content.length >= size && ((size === 348 && mark(344) === "n+1") || (size === 540 && mark(4) === "n+2"));
  if (!fits) throw new ScanError(`${name}: not a readable NIfTI image: it is ${whatItIs(name, content)}`);
  const f32 = (at: number) => view.getFloat32(at, little);
  const f64 = (at: number) => view.getFloat64(at, little);
  const i16 = (at: number) => view.getInt16(at, little);
  const i32 = (at: number) => view.getInt32(at, little);
  const big = (at: number) => Number(view.getBigInt64(at, little));
  const many = (read: (at: number) => number, at: number, step: number, count: number) => Array.from({ length: count }, (_, n) => read(at + n * step));
  const one = size === 348;
  const dims = one ? many(i16, 40, 2, 8) : many(big, 16, 8, 8);
  if (!(dims[0] >= 1 && dims[0] <= 7)) throw damaged(name, `${dims[0]} dimensions`);
  const edges = dims.slice(1, 1 + dims[0]);
  const rows = (read: (at: number) => number, at: number, step: number): Matrix => [
    ...[0, 1, 2].map((row) => many(read, at + 4 * step * row, step, 4)),
    [0, 0, 0, 1],
  ];
  const header = {
    little,
    dims: edges,
    datatype: one ? i16(70) : i16(12),
    pixdim: one ? many(f32, 76, 4, 8) : many(f64, 104, 8, 8),
    start: one ? f32(108) : big(168),
    slope: one ? f32(112) : f64(176),
    intercept: one ? f32(116) : f64(184),
    units: one ? content[123] : i32(500),
    qformCode: one ? i16(252) : i32(344),
    sformCode: one ? i16(254) : i32(348),
    quaternion: one ? many(f32, 256, 4, 3) : many(f64, 352, 8, 3),
    offset: one ? many(f32, 268, 4, 3) : many(f64, 376, 8, 3),
    sform: one ? rows(f32, 280, 4) : rows(f64, 400, 8),
  };
  checkNumbers(header, name, one ? 352 : 544);
  return header;
}

/** See that the numbers without which nothing can be read are numbers. */
function checkNumbers({ start, slope, intercept }: Header, name: string, first: number): void {
  if (!Number.isFinite(start) || start < 0) throw damaged(name, `voxels from byte ${general(start)} on`);
  if (slope && Number.isFinite(slope) && !Number.isFinite(intercept)) throw damaged(name, `an intercept of ${general(intercept)}`);
  if (start && start < first) throw new ScanError(`${name}: not a readable NIfTI image (vox offset ${start} too low for single file nifti${first === 352 ? 1 : 2})`);
}

function damaged(name: string, what: string): ScanError {
  return new ScanError(`${name}: the header announces ${what}; it is damaged: copy or download the file again`);
}

function volumeShape(header: Header, name: string): Vec3 {
  const edges = [...header.dims];
  while (edges.length > 3 && edges[edges.length - 1] === 1) edges.pop();
  const listed = edges.join(" x ");
  if (edges.length !== 3 || Math.min(...edges) < 2) {
    const advice = edges.length > 3 ? "; extract one volume first" : "";
    throw new ScanError(`${name}: one 3D volume was expected, found ${listed}${advice}`);
  }
  return edges as Vec3;
}

/** See that this page has the memory for an image. */
function checkCount(shape: Vec3, name: string): void {
  const count = shape[0] * shape[1] * shape[2];
  if (count > MOST_VOXELS)
    throw new ScanError(
      `${name}: the image has ${shape.join(" x ")} voxels (${(count / 1e6).toFixed(0)} million); this page processes up to ${Math.floor(MOST_VOXELS / 1e6)} million: ` +
        "resample the image to 1 mm, or use the deepmrseg-bids app",
    );
}

const READERS: Record<number, [number, (view: DataView, at: number, little: boolean) => number]> = {
  2: [1, (v, at) => v.getUint8(at)],
  4: [2, (v, at, l) => v.getInt16(at, l)],
  8: [4, (v, at, l) => v.getInt32(at, l)],
  16: [4, (v, at, l) => v.getFloat32(at, l)],
  64: [8, (v, at, l) => v.getFloat64(at, l)],
  256: [1, (v, at) => v.getInt8(at)],
  512: [2, (v, at, l) => v.getUint16(at, l)],
  768: [4, (v, at, l) => v.getUint32(at, l)],
  1024: [8, (v, at, l) => Number(v.getBigInt64(at, l))],
  1280: [8, (v, at, l) => Number(v.getBigUint64(at, l))],
};

/** The intensities as float32 in C order, slope and intercept applied. */
async function voxels(file: Blob, header: Header, shape: Vec3, name: string, findings: Finding[]): Promise<Float32Array> {
  const reader = READERS[header.datatype];
  if (!reader && NO_NUMBERS.includes(header.datatype))
    throw new ScanError(`${name}: one number per voxel was expected, found the NIfTI data type ${header.datatype} (a colour or complex image); convert it to a magnitude image`);
  if (!reader) throw new ScanError(`${name}: not a readable NIfTI image (the data type ${header.datatype} is not supported); convert it to float32`);
  const [bytes, read] = reader;
  const [p, q, r] = shape;
  const start = Math.floor(header.start);
  const content = await contentOf(file, start + p * q * r * bytes, name);
  const surplus = Math.floor(content.surplus / (p * q * bytes));
  if (surplus) findings.push(finding("surplus-data", "warning", `the file contains ${surplus} slice${surplus === 1 ? "" : "s"} in addition to the ${r} that its header announces: part of the scan may be missing`));
  const scaled = Number.isFinite(header.slope) && header.slope !== 0;
  const slope = scaled ? header.slope : 1;
  const intercept = scaled ? header.intercept : 0;
  const view = new DataView(content.bytes.buffer);
  const exact = header.datatype === 64 ? new Float64Array(p * q * r) : new Float32Array(p * q * r);
  let at = start;
  for (let k = 0; k < r; k++)
    for (let j = 0; j < q; j++)
      for (let i = 0; i < p; i++, at += bytes) exact[(i * q + j) * r + k] = read(view, at, header.little) * slope + intercept;
  return rescaled(exact, findings);
}

/** So many bytes of a file, decompressed, and how many more it has. */
async function contentOf(file: Blob, needed: number, name: string): Promise<{ bytes: Uint8Array<ArrayBuffer>; surplus: number }> {
  const truncated = (length: number) => new ScanError(`${name}: the file is truncated: its header announces ${needed} bytes, it has ${length}; ${COPY}`);
  if (needed > MOST_BYTES) throw truncated(file.size);
  const bytes = new Uint8Array(needed);
  let length = 0;
  for await (const piece of pieces(file, name)) {
    if (length < needed) bytes.set(piece.subarray(0, needed - length), length);
    length += piece.length;
  }
  if (length < needed) throw truncated(length);
  return { bytes, surplus: length - needed };
}

function clean(data: Float32Array, name: string, findings: Finding[]): void {
  let bad = 0;
  let low = Infinity;
  let high = -Infinity;
  for (let n = 0; n < data.length; n++) {
    if (!Number.isFinite(data[n])) {
      data[n] = 0;
      bad++;
    }
    if (data[n] < low) low = data[n];
    if (data[n] > high) high = data[n];
  }
  if (bad) findings.push(finding("nan-voxels", "warning", `${bad} NaN or infinite voxels were set to 0`));
  if (low === high) throw new ScanError(`${name}: no signal, every voxel is ${general(low)}`);
}

/** The grid of a scan, the forms of its header, and what is odd about them. */
function place(header: Header, shape: Vec3, name: string): { grid: Grid; forms: Forms; findings: Finding[] } {
  const findings: Finding[] = [];
  let sform = form(header, "sform", name, findings);
  let qform = form(header, "qform", name, findings);
  let affine = sform ?? qform;
  if (!affine)
    throw new ScanError(`${name}: neither sform nor qform is set, so left and right cannot be determined; convert the scan again with its geometry`);
  const largest = Math.max(...affine.flat().map(Math.abs));
  if (!affine.flat().every(Number.isFinite)) throw new ScanError(`${name}: the affine contains NaN or infinite values; ${AGAIN}`);
  if (largest > ABSURD) throw new ScanError(`${name}: the affine contains impossible values (${general(largest, 3)} mm); ${AGAIN}`);
  const scale = unit(header, shape, affine, findings);
  const scaled = (m: Matrix | null) => m && m.map((row, i) => (i < 3 ? row.map((x) => x * scale) : row));
  [affine, sform, qform] = [scaled(affine) as Matrix, scaled(sform), scaled(qform)];
  const edges = edgesOf(affine);
  if (Math.min(...edges) < EDGE_MM[0] || Math.max(...edges) > EDGE_MM[1] || Math.abs(det3(upper3(affine))) < 0.5 * edges[0] * edges[1] * edges[2])
    throw new ScanError(`${name}: the affine is singular or its voxels are impossible (${edges.map((x) => general(x, 3)).join(", ")} mm)`);
  const grid = new Grid(shape, affine);
  checkExtent(grid, name);
  checkDistance(grid, name, findings);
  checkShear(grid, name, findings);
  if (sform) disagreement(header, sform, qform, scale, findings);
  else checkUsedSizes(header, name, findings);
  const space = SPACES[header.sformCode || header.qformCode];
  if (space) findings.push(finding("not-scanner-space", "info", `according to the header, the image was aligned to ${space}: it is not in scanner space`));
  const codes = [sform ? header.sformCode : 0, qform ? header.qformCode : 0];
  const forms = { sform: sform ?? affine, sformCode: codes[0] || codes[1], qform: qform ?? affine, qformCode: codes[1] || codes[0] };
  return { grid, forms, findings };
}

function edgesOf(m: Matrix): number[] {
  return [0, 1, 2].map((j) => length3(column(m, j)));
}

/** One of the two forms; null where it is not set, or cannot be understood. */
function form(header: Header, which: "sform" | "qform", name: string, findings: Finding[]): Matrix | null {
  const code = which === "sform" ? header.sformCode : header.qformCode;
  if (code < 0 || code > 5) {
    findings.push(finding("header-values", "warning", `${which}_code is ${code}, which has no meaning in NIfTI: the ${which} is not used`));
    return null;
  }
  if (!code) return null;
  if (which === "sform") return header.sform;
  const used = !header.sformCode;
  const [b, c, d] = header.quaternion;
  const square = b * b + c * c + d * d;
  if (used && !(square <= 1 + ROUNDED))
    throw new ScanError(`${name}: the qform is no rotation (quaternion ${[b, c, d].map((x) => general(x, 4)).join(", ")}), and there is no sform; ${AGAIN}`);
  const qfac = header.pixdim[0];
  if (used && ![-1, 0, 1].includes(qfac))
    findings.push(finding("header-values", "warning", `the direction of the third axis in the header (pixdim[0]) is ${general(qfac)}: taken as 1; the image may be mirrored`));
  const made = qformOf(header);
  const turns = square <= 1 + ROUNDED;
  if (used || (turns && made.flat().every(Number.isFinite) && Math.max(...made.flat().map(Math.abs)) <= FARTHEST_MM)) return made;
  findings.push(finding("header-values", "warning", "the qform contains impossible numbers: it is not used"));
  return null;
}

function qformOf(header: Header): Matrix {
  const [b, c, d] = header.quaternion;
  const a = Math.sqrt(Math.max(0, 1 - (b * b + c * c + d * d)));
  const qfac = header.pixdim[0] === -1 ? -1 : 1;
  const size = header.pixdim.slice(1, 4).map((x) => (x === 0 ? 1 : Math.abs(x))); // as nibabel reads a size of 0
  const turn = [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
  return [...turn.map((row, i) => [row[0] * size[0], row[1] * size[1], row[2] * size[2] * qfac, header.offset[i]]), [0, 0, 0, 1]];
}

/** Millimetres in a unit of the header's numbers, as far as a head has such a size. */
function unit(header: Header, shape: Vec3, affine: Matrix, findings: Finding[]): number {
  const code = header.units & 7;
  if (!(code in UNITS)) {
    if (code) findings.push(finding("units-doubtful", "info", `the unit of length has the code ${code}, which has no meaning: taken as mm`));
    return 1;
  }
  const [name, scale] = UNITS[code];
  if (scale === 1) return 1;
  const fits = (factor: number) => {
    const edges = edgesOf(affine).map((edge) => edge * factor);
    return Math.min(...edges) >= EDGE_MM[0] && Math.max(...edges) <= EDGE_MM[1] && Math.max(...edges.map((edge, k) => edge * shape[k])) <= LARGEST_MM;
  };
  if (fits(scale)) {
    findings.push(finding("units-doubtful", "info", `the header's unit is ${name}: its numbers were converted to millimetres`));
    return scale;
  }
  if (fits(1)) findings.push(finding("units-doubtful", "warning", `the header's unit is ${name}, but its numbers are those of millimetres: they were taken as millimetres`));
  return 1;
}

function checkExtent(grid: Grid, name: string): void {
  const extent = grid.shape.map((edge, k) => edge * grid.spacing[k]);
  const advice = "check the voxel size in the header";
  if (Math.max(...extent) > LARGEST_MM) throw new ScanError(`${name}: according to the header, the image covers ${times(extent)} mm, more than any scan of a head (at most ${LARGEST_MM} mm); ${advice}`);
  const fine = Math.min(...grid.shape) >= MANY || Math.max(...grid.spacing) < FINE_MM;
  if (Math.max(...extent) < SMALLEST_MM && fine)
    throw new ScanError(`${name}: according to the header, the image of ${times(grid.shape)} voxels covers only ${times(extent)} mm: not a human head? ${advice}`);
}

function checkDistance(grid: Grid, name: string, findings: Finding[]): void {
  const away = length3(grid.toWorld(grid.shape.map((edge) => (edge - 1) / 2)));
  const place = `the header places the image ${general(away / 1000, 3)} m from the centre of the scanner`;
  if (away > FARTHEST_MM) throw new ScanError(`${name}: ${place}: impossible; ${AGAIN}`);
  if (away > FAR_MM) findings.push(finding("header-values", "warning", `${place}: other programs may not show it; check the origin in the header`));
}

function checkShear(grid: Grid, name: string, findings: Finding[]): void {
  const angle = grid.shear;
  if (angle > MOST_SHEAR_DEG) throw new ScanError(`${name}: the axes of the voxels are sheared by ${angle.toFixed(0)} degrees; resample the image to perpendicular axes`);
  if (angle > SHEAR_DEG)
    findings.push(finding("sheared", "warning", `the axes of the voxels are sheared by ${angle.toFixed(1)} degrees (gantry tilt, or an affine registration): other programs may place the image differently`));
}

/** See that the sizes in pixdim, which a qform needs, are sizes. */
function checkUsedSizes(header: Header, name: string, findings: Finding[]): void {
  const sizes = header.pixdim.slice(1, 4);
  if (sizes.includes(0)) throw new ScanError(`${name}: the header gives voxel sizes of ${times(sizes)} mm (pixdim); convert the scan again`);
  if (sizes.some((x) => x < 0)) findings.push(finding("header-values", "warning", `negative voxel sizes in the header (${times(sizes)} mm) were taken as positive`));
}

/** What the other numbers of a header disagree about with its sform, which is used. */
function disagreement(header: Header, sform: Matrix, qform: Matrix | null, scale: number, findings: Finding[]): void {
  const edges = edgesOf(sform);
  const sizes = header.pixdim.slice(1, 4).map((x) => x * scale);
  if (sizes.some((x, k) => !(Math.abs(x - edges[k]) <= SAME_SIZE * Math.abs(edges[k])))) {
    const stated = `the header gives two voxel sizes, ${times(sizes)} mm (pixdim) and ${times(edges)} mm`;
    const ratio = Math.abs((sizes[0] * sizes[1] * sizes[2]) / det3(upper3(sform)));
    if (Number.isFinite(ratio) && Math.abs(ratio - 1) <= WRONG_VOLUME) findings.push(finding("voxel-size-differs", "warning", `${stated} (sform): the sform is used`));
    else findings.push(finding("voxel-size-differs", "error", `${stated} (sform): the sform is used; volumes are wrong if it is not the correct one`));
  }
  if (!qform) return;
  const other = edgesOf(qform);
  const cosines = [0, 1, 2].map((j) => column(sform, j).reduce((sum, x, i) => sum + x * qform[i][j], 0) / Math.max(edges[j] * other[j], 1e-9));
  const close = sform.every((row, i) => row.every((x, j) => Math.abs(x - qform[i][j]) <= 0.05 * Math.min(...edges) + 1e-5 * Math.abs(qform[i][j])));
  if (Math.min(...cosines) < SAME_WAY)
    findings.push(finding("orientation-differs", "error", "sform and qform have different orientations: the sform is used; determine which one is correct before using the results"));
  else if (!close) findings.push(finding("sform-qform-differ", "warning", "sform and qform differ: the sform is used"));
}

/** A label map as an uncompressed NIfTI file, in the smallest unsigned type. */
export function niftiBytes(labels: Labels, grid: Grid, forms: Forms): Uint8Array<ArrayBuffer> {
  let most = 0;
  for (let n = 0; n < labels.length; n++) if (labels[n] > most) most = labels[n];
  const bytes = most > 255 ? 2 : 1;
  const out = new Uint8Array(352 + labels.length * bytes);
  const view = new DataView(out.buffer);
  const f32 = (at: number, values: number[]) => values.forEach((value, n) => view.setFloat32(at + 4 * n, value, true));
  const i16 = (at: number, values: number[]) => values.forEach((value, n) => view.setInt16(at + 2 * n, value, true));
  const { b, c, d, qfac, fits } = quaternionOf(forms.qform);
  view.setInt32(0, 348, true);
  i16(40, [3, ...grid.shape, 1, 1, 1, 1]);
  i16(68, [1002, bytes === 2 ? 512 : 2, 8 * bytes]); // the intent of labels
  f32(76, [qfac, ...edgesOf(fits ? forms.qform : forms.sform), 1, 1, 1, 1]);
  f32(108, [352, 1, 0]);
  out[123] = 2 | 8; // millimetres and seconds
  i16(252, [fits ? forms.qformCode : 0, forms.sformCode]);
  f32(256, [b, c, d, ...column(forms.qform, 3)]);
  forms.sform.slice(0, 3).forEach((row, i) => f32(280 + 16 * i, row));
  out.set([0x6e, 0x2b, 0x31], 344); // n+1
  const [p, q, r] = grid.shape;
  let at = 352;
  for (let k = 0; k < r; k++)
    for (let j = 0; j < q; j++)
      for (let i = 0; i < p; i++, at += bytes) {
        const value = labels[(i * q + j) * r + k];
        if (bytes === 1) out[at] = value;
        else view.setUint16(at, value, true);
      }
  return out;
}

/** The quaternion of a form, and whether it holds the form: it cannot hold shears. */
function quaternionOf(m: Matrix): { b: number; c: number; d: number; qfac: number; fits: boolean } {
  const edges = edgesOf(m);
  let turn = nearestRotation(upper3(m).map((row) => row.map((x, j) => x / edges[j])));
  const qfac = det3(turn) > 0 ? 1 : -1;
  const sheared = turn.some((row, i) => row.some((x, j) => Math.abs(x * edges[j] - m[i][j]) > 1e-3));
  turn = turn.map((row) => [row[0], row[1], row[2] * qfac]);
  const [[xx, xy, xz], [yx, yy, yz], [zx, zy, zz]] = turn;
  const four = [xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy].map((x) => Math.sqrt(Math.max(0, 1 + x)) / 2);
  let [a, b, c, d] = four;
  const best = four.indexOf(Math.max(...four));
  const by = 4 * four[best];
  if (best === 0) [b, c, d] = [(zy - yz) / by, (xz - zx) / by, (yx - xy) / by];
  if (best === 1) [a, c, d] = [(zy - yz) / by, (xy + yx) / by, (xz + zx) / by];
  if (best === 2) [a, b, d] = [(xz - zx) / by, (xy + yx) / by, (yz + zy) / by];
  if (best === 3) [a, b, c] = [(yx - xy) / by, (xz + zx) / by, (yz + zy) / by];
  const sign = a < 0 ? -1 : 1;
  return { b: b * sign, c: c * sign, d: d * sign, qfac, fits: !sheared };
}

/** The same bytes, compressed with gzip. */
export async function gzipped(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
