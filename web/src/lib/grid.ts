// Where voxels lie: a Grid, and one resample that takes an array from grid to grid.
//
// World coordinates are RAS+ millimetres; voxel coordinates count from the centre of the first
// voxel. Arrays are in C order: the last axis runs fastest. Mirrors deepmrseg_bids/imaging/grid.py.

import { column, det3, identity, inverse, length3, multiply, nearestRotation, rounded, roundHalfEven, upper3 } from "./linear";
import type { Matrix, Vec3 } from "./linear";
import { gaussianFilter } from "./ndimage";

export type Numbers = Float32Array | Uint8Array | Uint16Array | Uint32Array;
/** The first voxel and the one after the last, axis by axis. */
export interface Box {
  start: Vec3;
  stop: Vec3;
}

const SHEAR_TOLERANCE = 0.02; // voxels of drift over the whole image that count as axis-aligned
const STRAIGHT = 2e-4; // of a unit vector
const COARSER = 1.5; // source voxels in a target voxel from which on the source is thinned first
const SIGMA_PER_RATIO = 0.4247;
const PERMUTATIONS: Vec3[] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

export class Grid {
  readonly spacing: Vec3;

  constructor(readonly shape: Vec3, readonly affine: Matrix) {
    if (Math.min(...shape) < 1 || !shape.every(Number.isInteger)) throw new Error(`a grid has three positive whole edges, got ${shape}`);
    const linear = upper3(affine);
    this.spacing = [0, 1, 2].map((j) => length3(column(linear, j))) as Vec3;
  }

  get size(): number {
    return this.shape[0] * this.shape[1] * this.shape[2];
  }

  get voxelVolume(): number {
    return Math.abs(det3(upper3(this.affine)));
  }

  /** The largest angle between an axis of the grid and its nearest world axis, degrees. */
  get obliquity(): number {
    const angles = [0, 1, 2].map((j) => {
      const cosine = Math.max(...column(this.affine, j).map((x) => Math.abs(x))) / this.spacing[j];
      return Math.acos(Math.min(1, cosine));
    });
    return (Math.max(...angles) * 180) / Math.PI;
  }

  /** The largest angle by which two axes miss being perpendicular, degrees. */
  get shear(): number {
    const unit = this.units();
    const cosines = [[0, 1], [0, 2], [1, 2]].map(([a, b]) =>
      Math.abs(unit[0][a] * unit[0][b] + unit[1][a] * unit[1][b] + unit[2][a] * unit[2][b]),
    );
    return (Math.asin(Math.min(1, Math.max(...cosines))) * 180) / Math.PI;
  }

  /** Towards which side each index grows, such as LPS. */
  get orientation(): string {
    return [0, 1, 2]
      .map((axis) => {
        const direction = column(this.affine, axis);
        const world = [0, 1, 2].reduce((a, b) => (Math.abs(direction[b]) > Math.abs(direction[a]) ? b : a));
        return ["LR", "PA", "IS"][world][+(direction[world] > 0)];
      })
      .join("");
  }

  /** (3, 3) unit vectors along the axes, as columns. */
  units(): Matrix {
    return upper3(this.affine).map((row) => row.map((x, j) => x / this.spacing[j]));
  }

  toWorld(v: ArrayLike<number>): Vec3 {
    return [0, 1, 2].map((i) => {
      const row = this.affine[i];
      return row[0] * v[0] + row[1] * v[1] + row[2] * v[2] + row[3];
    }) as Vec3;
  }

  toVoxel(p: ArrayLike<number>): Vec3 {
    const back = inverse(this.affine);
    return [0, 1, 2].map((i) => back[i][0] * p[0] + back[i][1] * p[1] + back[i][2] * p[2] + back[i][3]) as Vec3;
  }

  corners(): Vec3[] {
    const [a, b, c] = this.shape.map((edge) => [-0.5, edge - 0.5]);
    return a.flatMap((x) => b.flatMap((y) => c.map((z) => this.toWorld([x, y, z]))));
  }

  /** The part from voxel start up to, not including, stop; may reach outside. */
  crop(start: ArrayLike<number>, stop: ArrayLike<number>): Grid {
    const origin = this.toWorld(start);
    const affine = this.affine.map((row, i) => (i < 3 ? [row[0], row[1], row[2], origin[i]] : [...row]));
    return new Grid([stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]], affine);
  }

  equals(other: Grid): boolean {
    return (
      this.shape.every((edge, k) => edge === other.shape[k]) &&
      this.affine.every((row, i) => row.every((x, j) => x === other.affine[i][j]))
    );
  }
}

/** (3, 3) unit vectors towards right, front and top as columns, along the scan's own axes. */
export function axesOf(grid: Grid): Matrix {
  const nearest = nearestRotation(grid.units());
  const fit = (order: Vec3) => order.reduce((product, j, i) => product * Math.abs(nearest[i][j]), 1);
  const order = PERMUTATIONS.reduce((a, b) => (fit(b) > fit(a) ? b : a));
  const signs = order.map((j, i) => Math.sign(nearest[i][j]));
  const axes = nearest.map((row) => order.map((j, k) => row[j] * signs[k]));
  const off = Math.max(...axes.flatMap((row, i) => row.map((x, j) => Math.abs(x - +(i === j)))));
  return off < STRAIGHT ? identity(3) : axes.map((row) => row.map((x) => rounded(x, 9)));
}

function isIdentity(axes: Matrix): boolean {
  return axes.every((row, i) => row.every((x, j) => x === +(i === j)));
}

/** Coordinates of points along axes, and back: p @ axes, axes @ p. */
function along(p: Vec3, axes: Matrix): Vec3 {
  return [0, 1, 2].map((j) => p[0] * axes[0][j] + p[1] * axes[1][j] + p[2] * axes[2][j]) as Vec3;
}

export function turned(axes: Matrix, p: ArrayLike<number>): Vec3 {
  return [0, 1, 2].map((i) => axes[i][0] * p[0] + axes[i][1] * p[1] + axes[i][2] * p[2]) as Vec3;
}

/** The lowest and the highest coordinate of points, axis by axis. */
export function bounds(points: Vec3[]): [Vec3, Vec3] {
  const low: Vec3 = [Infinity, Infinity, Infinity];
  const high: Vec3 = [-Infinity, -Infinity, -Infinity];
  for (const point of points)
    for (let k = 0; k < 3; k++) {
      low[k] = Math.min(low[k], point[k]);
      high[k] = Math.max(high[k], point[k]);
    }
  return [low, high];
}

/** The grid towards right, front and top that holds the whole of source. */
export function canonicalGrid(source: Grid, spacing: number, axes: Matrix = identity(3)): Grid {
  const straight = isIdentity(axes);
  const corners = source.corners().map((p) => (straight ? p : along(p, axes)));
  const [low, high] = bounds(corners);
  const shape = [0, 1, 2].map((k) => Math.max(roundHalfEven((high[k] - low[k]) / spacing - 1e-6), 1)) as Vec3;
  const start = [0, 1, 2].map((k) => (low[k] + high[k]) / 2 - ((shape[k] - 1) * spacing) / 2);
  const affine = [0, 1, 2].map((i) => [0, 1, 2, 3].map((j) => (j === 3 ? start[i] : +(i === j) * spacing)));
  affine.push([0, 0, 0, 1]);
  if (straight) return new Grid(shape, affine);
  const turn = [...axes.map((row) => [...row, 0]), [0, 0, 0, 1]];
  return new Grid(shape, multiply(turn, affine));
}

/** The grid of the given shape whose middle is a point in millimetres. */
export function centredGrid(centre: ArrayLike<number>, shape: Vec3, spacing: number, axes: Matrix = identity(3)): Grid {
  const half = shape.map((edge) => (edge - 1) / 2) as Vec3;
  const reach = turned(axes.map((row) => row.map((x) => x * spacing)), half);
  const affine = axes.map((row, i) => [...row.map((x) => x * spacing), centre[i] - reach[i]]);
  return new Grid(shape, [...affine, [0, 0, 0, 1]]);
}

/** The voxels of whole whose centres can lie inside part; null if there are none. */
export function overlap(part: Grid, whole: Grid): Box | null {
  const [low, high] = bounds(part.corners().map((p) => whole.toVoxel(p)));
  const start = low.map((x) => Math.max(Math.ceil(x - 1e-6), 0)) as Vec3;
  const stop = high.map((x, k) => Math.min(Math.floor(x + 1e-6) + 1, whole.shape[k])) as Vec3;
  return stop.some((end, k) => end <= start[k]) ? null : { start, stop };
}

/** Which voxels of target have their centre in the field of view of source. */
export function covered(source: Grid, target: Grid): Uint8Array {
  return inside(multiply(inverse(source.affine), target.affine), source.shape, target.shape);
}

function inside(step: Matrix, edges: Vec3, shape: Vec3): Uint8Array {
  const out = new Uint8Array(shape[0] * shape[1] * shape[2]).fill(1);
  for (let axis = 0; axis < 3; axis++) {
    const [a, b, c, offset] = step[axis];
    const high = edges[axis] - 0.5 + 1e-6;
    let n = 0;
    for (let i = 0; i < shape[0]; i++)
      for (let j = 0; j < shape[1]; j++) {
        const base = a * i + b * j + offset;
        for (let k = 0; k < shape[2]; k++, n++) {
          const place = base + c * k;
          if (!(place > -0.5 - 1e-6 && place < high)) out[n] = 0;
        }
      }
  }
  return out;
}

/**
 * Carry an array from one grid to another, by linear interpolation, averaging where the target is
 * coarser; outside the source's field of view stands fill.
 */
export function resample(data: Numbers, source: Grid, target: Grid, fill = 0): Float32Array {
  if (data.length !== source.size) throw new Error(`an array of ${data.length} voxels is not on a grid of ${source.shape}`);
  if (source.equals(target)) return Float32Array.from(data);
  const step = multiply(inverse(source.affine), target.affine);
  const axes = alignedAxes(step, target.shape);
  if (axes !== null) return resampleAligned(data, source.shape, step, axes, target.shape, fill);
  const thin = thinned(source, step);
  if (thin === null) return resampleOblique(Float32Array.from(data), source.shape, step, target.shape, fill);
  const less = resample(data, source, thin);
  return resampleOblique(less, thin.shape, multiply(inverse(thin.affine), target.affine), target.shape, fill);
}

/** Which source axis each target axis runs along, or null where they are not parallel. */
function alignedAxes(step: Matrix, shape: Vec3): Vec3 | null {
  const axes = [0, 1, 2].map((j) => [0, 1, 2].reduce((a, b) => (Math.abs(step[b][j]) > Math.abs(step[a][j]) ? b : a))) as Vec3;
  if (new Set(axes).size < 3) return null;
  for (let i = 0; i < 3; i++)
    for (let j = 0; j < 3; j++)
      if (axes[j] !== i && Math.abs(step[i][j]) * shape[j] > SHEAR_TOLERANCE) return null;
  return axes;
}

/** Voxels of one axis that each place on another axis is a mean of. */
interface Taps {
  first: Int32Array;
  count: Int32Array;
  weights: Float32Array; // (places, most)
  most: number;
}

function resampleAligned(data: Numbers, edges: Vec3, step: Matrix, axes: Vec3, shape: Vec3, fill: number): Float32Array {
  const own = [edges[1] * edges[2], edges[2], 1];
  let strides = axes.map((axis) => own[axis]) as Vec3;
  let from = axes.map((axis) => edges[axis]) as Vec3;
  let values: Numbers = fill ? Float32Array.from(data, (x) => x - fill) : data;
  // the axis that shrinks the most goes first
  const order = [0, 1, 2].sort((a, b) => shape[a] / from[a] - shape[b] / from[b] || a - b);
  for (const axis of order) {
    const scale = step[axes[axis]][axis];
    const places = Float64Array.from({ length: shape[axis] }, (_, n) => scale * n + step[axes[axis]][3]);
    const to = from.map((edge, k) => (k === axis ? shape[k] : edge)) as Vec3;
    values = mixed(values, strides, to, axis, taps(places, from[axis], scale));
    from = to;
    strides = [to[1] * to[2], to[2], 1];
  }
  const out = values as Float32Array;
  if (fill) for (let n = 0; n < out.length; n++) out[n] += fill;
  return out;
}

/** Triangles one target voxel wide, or one source voxel if that is finer; none outside the view. */
function taps(places: Float64Array, edge: number, scale: number): Taps {
  const width = Math.max(Math.abs(scale), 1);
  const shift = 0.5 - (scale < 0 ? -1e-6 : 1e-6);
  const exact = Math.abs(Math.abs(scale) - 1) < 1e-4 && places.every((x) => Math.abs(x - Math.floor(x + shift)) < 1e-4);
  const most = exact ? 1 : Math.ceil(2 * width) + 1;
  const first = new Int32Array(places.length);
  const count = new Int32Array(places.length);
  const weights = new Float32Array(places.length * most);
  places.forEach((place, n) => {
    if (!(place > -0.5 - 1e-6 && place < edge - 0.5 + 1e-6)) return;
    if (exact) {
      first[n] = Math.min(Math.max(Math.floor(place + shift), 0), edge - 1);
      count[n] = weights[n] = 1;
      return;
    }
    const at = Math.min(Math.max(place, 0), edge - 1);
    first[n] = Math.max(Math.ceil(at - width), 0);
    if (at - first[n] >= width) first[n]++;
    let sum = 0;
    const raw: number[] = [];
    for (let v = first[n]; v < edge && v - at < width; v++) {
      raw.push(1 - Math.abs(v - at) / width);
      sum += raw[raw.length - 1];
    }
    count[n] = raw.length;
    raw.forEach((w, t) => (weights[n * most + t] = w / sum));
  });
  return { first, count, weights, most };
}

/** Mix the neighbours along one axis of an array with strides; the result is in C order. */
function mixed(data: Numbers, strides: Vec3, to: Vec3, axis: number, taps: Taps): Float32Array {
  const [p, q, r] = to;
  const out = new Float32Array(p * q * r);
  const [si, sj, sk] = strides.map((stride, k) => (k === axis ? 0 : stride));
  const along = strides[axis];
  for (let i = 0; i < p; i++)
    for (let j = 0; j < q; j++) {
      const base = i * si + j * sj;
      const row = (i * q + j) * r;
      if (axis === 2) {
        for (let k = 0; k < r; k++) {
          let sum = 0;
          let at = base + taps.first[k] * along;
          for (let t = 0, w = k * taps.most; t < taps.count[k]; t++, w++, at += along) sum += data[at] * taps.weights[w];
          out[row + k] = sum;
        }
        continue;
      }
      const n = axis === 0 ? i : j;
      let at = base + taps.first[n] * along;
      for (let t = 0; t < taps.count[n]; t++, at += along) {
        const weight = taps.weights[n * taps.most + t];
        for (let k = 0, from = at; k < r; k++, from += sk) out[row + k] += data[from] * weight;
      }
    }
  return out;
}

/** The same field of view with the voxels that a much coarser target can tell apart. */
function thinned(source: Grid, step: Matrix): Grid | null {
  const ratio = [0, 1, 2].map((i) => Math.max(...step[i].slice(0, 3).map((x) => Math.abs(x))));
  const fewer = source.shape.map((edge, k) => (ratio[k] >= COARSER ? Math.ceil(edge / ratio[k]) : edge)) as Vec3;
  if (fewer.every((edge, k) => edge === source.shape[k])) return null;
  const factor = source.shape.map((edge, k) => edge / fewer[k]);
  const origin = source.toWorld(factor.map((f) => (f - 1) / 2));
  const affine = [0, 1, 2].map((i) => [...[0, 1, 2].map((j) => source.affine[i][j] * factor[j]), origin[i]]);
  return new Grid(fewer, [...affine, [0, 0, 0, 1]]);
}

/** Axes at an angle: smooth where the target is coarser, then interpolate in 3D. */
function resampleOblique(data: Float32Array, edges: Vec3, step: Matrix, shape: Vec3, fill: number): Float32Array {
  const ratio = [0, 1, 2].map((i) => Math.max(...step[i].slice(0, 3).map((x) => Math.abs(x))));
  const sigma = ratio.map((r) => (r > 1.05 ? SIGMA_PER_RATIO * Math.sqrt(Math.max(r * r - 1, 0)) : 0)) as Vec3;
  const smooth = sigma.some((s) => s > 0) ? gaussianFilter(data, edges, sigma, "nearest") : data;
  const out = new Float32Array(shape[0] * shape[1] * shape[2]).fill(fill);
  const [A, B, C] = edges;
  const stride = [B * C, C, 1];
  const low: Vec3 = [0, 0, 0];
  const part: Vec3 = [0, 0, 0];
  let n = 0;
  for (let i = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++) {
        let seen = true;
        for (let axis = 0; axis < 3; axis++) {
          const row = step[axis];
          const place = row[0] * i + row[1] * j + row[2] * k + row[3];
          if (!(place > -0.5 - 1e-6 && place < edges[axis] - 0.5 + 1e-6)) seen = false;
          const at = Math.min(Math.max(place, 0), edges[axis] - 1);
          low[axis] = Math.min(Math.floor(at), Math.max(edges[axis] - 2, 0));
          part[axis] = at - low[axis];
        }
        if (!seen) continue;
        const base = low[0] * stride[0] + low[1] * stride[1] + low[2];
        const up = [A > 1 ? stride[0] : 0, B > 1 ? stride[1] : 0, C > 1 ? 1 : 0];
        const [x, y, z] = part;
        const line = (at: number) => smooth[at] * (1 - z) + smooth[at + up[2]] * z;
        const plane = (at: number) => line(at) * (1 - y) + line(at + up[1]) * y;
        out[n] = plane(base) * (1 - x) + plane(base + up[0]) * x;
      }
  return out;
}

/** A copy of a box of an array; what lies outside the array is repeated from its edge. */
export function cut<T extends Numbers>(data: T, shape: Vec3, box: Box): T {
  const [p, q, r] = [0, 1, 2].map((k) => box.stop[k] - box.start[k]);
  const out = new (data.constructor as new (n: number) => T)(p * q * r);
  const clamp = (x: number, edge: number) => Math.min(Math.max(x, 0), edge - 1);
  let n = 0;
  for (let i = 0; i < p; i++)
    for (let j = 0; j < q; j++) {
      const row = (clamp(box.start[0] + i, shape[0]) * shape[1] + clamp(box.start[1] + j, shape[1])) * shape[2];
      for (let k = 0; k < r; k++, n++) out[n] = data[row + clamp(box.start[2] + k, shape[2])];
    }
  return out;
}

/** Calls back with the place in the whole array and in the box, for each voxel of a box. */
export function forBox(shape: Vec3, box: Box, visit: (whole: number, part: number) => void): void {
  let n = 0;
  for (let i = box.start[0]; i < box.stop[0]; i++)
    for (let j = box.start[1]; j < box.stop[1]; j++) {
      const row = (i * shape[1] + j) * shape[2];
      for (let k = box.start[2]; k < box.stop[2]; k++, n++) visit(row + k, n);
    }
}
