// Arrays of voxels in C order: neighbours, parts, distances, smoothing. The names are SciPy's.

import type { Vec3 } from "./linear";

export interface Pieces {
  /** For each voxel the number of its piece, from 1; 0 is the background. */
  labels: Int32Array;
  /** Voxels of each piece; of the background 0. */
  sizes: number[];
}

/** Connected pieces of a mask, by faces or by faces, edges and corners, in raster order. */
export function label(mask: ArrayLike<number>, shape: Vec3, corners = false): Pieces {
  const [p, q, r] = shape;
  const labels = new Int32Array(mask.length);
  const sizes = [0];
  const steps: Vec3[] = [];
  for (let a = -1; a <= 1; a++)
    for (let b = -1; b <= 1; b++)
      for (let c = -1; c <= 1; c++) {
        const moved = Math.abs(a) + Math.abs(b) + Math.abs(c);
        if (moved === 1 || (corners && moved > 1)) steps.push([a, b, c]);
      }
  const stack: number[] = [];
  for (let seed = 0; seed < mask.length; seed++) {
    if (!mask[seed] || labels[seed]) continue;
    const own = sizes.length;
    let size = 0;
    labels[seed] = own;
    stack.push(seed);
    while (stack.length) {
      const at = stack.pop() as number;
      size++;
      const k = at % r;
      const j = ((at - k) / r) % q;
      const i = (at - k - j * r) / (q * r);
      for (const [a, b, c] of steps) {
        if (i + a < 0 || i + a >= p || j + b < 0 || j + b >= q || k + c < 0 || k + c >= r) continue;
        const next = at + (a * q + b) * r + c;
        if (mask[next] && !labels[next]) {
          labels[next] = own;
          stack.push(next);
        }
      }
    }
    sizes.push(size);
  }
  return { labels, sizes };
}

/** The largest connected part of a mask. */
export function largest(mask: Uint8Array, shape: Vec3): Uint8Array {
  const { labels, sizes } = label(mask, shape);
  if (sizes.length === 1) return mask;
  const best = sizes.indexOf(Math.max(...sizes));
  return Uint8Array.from(labels, (one) => +(one === best));
}

/** One step of growing (or, of the complement, shrinking) by the six neighbours. */
function spread(mask: Uint8Array, shape: Vec3, grow: boolean): Uint8Array {
  const [p, q, r] = shape;
  const out = mask.slice();
  const target = +grow;
  let n = 0;
  for (let i = 0; i < p; i++)
    for (let j = 0; j < q; j++)
      for (let k = 0; k < r; k++, n++) {
        if (mask[n] === target) continue;
        // beyond the edge there is nothing: a mask shrinks there, and does not grow
        const met = grow
          ? (i > 0 && mask[n - q * r]) || (i < p - 1 && mask[n + q * r]) || (j > 0 && mask[n - r]) ||
            (j < q - 1 && mask[n + r]) || (k > 0 && mask[n - 1]) || (k < r - 1 && mask[n + 1])
          : i === 0 || !mask[n - q * r] || i === p - 1 || !mask[n + q * r] || j === 0 || !mask[n - r] ||
            j === q - 1 || !mask[n + r] || k === 0 || !mask[n - 1] || k === r - 1 || !mask[n + 1];
        if (met) out[n] = target;
      }
  return out;
}

export function dilate(mask: Uint8Array, shape: Vec3, times = 1): Uint8Array {
  for (let n = 0; n < times; n++) mask = spread(mask, shape, true);
  return mask;
}

export function erode(mask: Uint8Array, shape: Vec3, times = 1): Uint8Array {
  for (let n = 0; n < times; n++) mask = spread(mask, shape, false);
  return mask;
}

export function opening(mask: Uint8Array, shape: Vec3): Uint8Array {
  return dilate(erode(mask, shape), shape);
}

/** Closing by a box that reaches so many voxels to either side, in a room that is large enough. */
export function closedByBox(mask: Uint8Array, shape: Vec3, reach: Vec3): Uint8Array {
  const room = shape.map((edge, k) => edge + 2 * reach[k]) as Vec3;
  let wide = new Uint8Array(room[0] * room[1] * room[2]);
  const at = (i: number, j: number, k: number) => ((i + reach[0]) * room[1] + j + reach[1]) * room[2] + k + reach[2];
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++) for (let k = 0; k < shape[2]; k++, n++) wide[at(i, j, k)] = mask[n];
  for (const grow of [true, false]) for (let axis = 0; axis < 3; axis++) wide = slide(wide, room, axis, reach[axis], grow);
  const out = new Uint8Array(mask.length);
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++) for (let k = 0; k < shape[2]; k++, n++) out[n] = wide[at(i, j, k)];
  return out;
}

/** Growing by a box that reaches so many voxels to either side. */
export function dilateByBox(mask: Uint8Array, shape: Vec3, reach: number): Uint8Array {
  return [0, 1, 2].reduce((grown, axis) => slide(grown, shape, axis, reach, true), mask);
}

/** The largest (or the smallest) of the neighbours along an axis; beyond the edge there is 0. */
function slide(mask: Uint8Array, shape: Vec3, axis: number, reach: number, grow: boolean): Uint8Array<ArrayBuffer> {
  const strides = [shape[1] * shape[2], shape[2], 1];
  const out = new Uint8Array(mask.length);
  const edge = shape[axis];
  const stride = strides[axis];
  for (let n = 0; n < mask.length; n++) {
    const place = Math.floor(n / stride) % edge;
    let value = +!grow;
    for (let t = -reach; t <= reach; t++) {
      const there = place + t >= 0 && place + t < edge ? mask[n + t * stride] : 0;
      if (there === +grow) value = +grow;
    }
    out[n] = value;
  }
  return out;
}

export function fillHoles(mask: Uint8Array, shape: Vec3): Uint8Array {
  const [p, q, r] = shape;
  const outside = new Uint8Array(mask.length);
  const stack: number[] = [];
  const reach = (at: number) => {
    if (!mask[at] && !outside[at]) {
      outside[at] = 1;
      stack.push(at);
    }
  };
  for (let i = 0, n = 0; i < p; i++)
    for (let j = 0; j < q; j++)
      for (let k = 0; k < r; k++, n++)
        if (i === 0 || j === 0 || k === 0 || i === p - 1 || j === q - 1 || k === r - 1) reach(n);
  while (stack.length) {
    const at = stack.pop() as number;
    const k = at % r;
    const j = ((at - k) / r) % q;
    const i = (at - k - j * r) / (q * r);
    if (i > 0) reach(at - q * r);
    if (i < p - 1) reach(at + q * r);
    if (j > 0) reach(at - r);
    if (j < q - 1) reach(at + r);
    if (k > 0) reach(at - 1);
    if (k < r - 1) reach(at + 1);
  }
  return outside.map((one) => +!one);
}

const FAR = 1e12; // squared

/**
 * The distance of each voxel of a mask to the nearest voxel outside, in voxels of the given edges;
 * beyond the edge is outside, if it is not open.
 */
export function distance(mask: Uint8Array, shape: Vec3, { sampling = [1, 1, 1], open = false }: { sampling?: Vec3; open?: boolean } = {}): Float32Array {
  const out = Float32Array.from(mask, (one) => (one ? FAR : 0));
  const strides = [shape[1] * shape[2], shape[2], 1];
  for (let axis = 0; axis < 3; axis++) {
    const edge = shape[axis];
    const stride = strides[axis];
    const square = sampling[axis] ** 2;
    const line = new Float64Array(edge + 2).fill(open ? FAR : 0); // one voxel more at either end, in voxels
    const starts = new Float64Array(edge + 3);
    const roots = new Int32Array(edge + 2);
    for (let n = 0; n < out.length; n++) {
      if (Math.floor(n / stride) % edge) continue;
      for (let t = 0; t < edge; t++) line[t + 1] = out[n + t * stride] / square;
      // the lower envelope of parabolas (Felzenszwalb & Huttenlocher 2012)
      let top = 0;
      roots[0] = 0;
      starts[0] = -Infinity;
      starts[1] = Infinity;
      for (let x = 1; x < edge + 2; x++) {
        let meet = 0;
        for (;;) {
          const v = roots[top];
          meet = (line[x] + x * x - line[v] - v * v) / (2 * (x - v));
          if (meet > starts[top]) break;
          top--;
        }
        roots[++top] = x;
        starts[top] = meet;
        starts[top + 1] = Infinity;
      }
      for (let x = 1, piece = 0; x <= edge; x++) {
        while (starts[piece + 1] < x) piece++;
        const v = roots[piece];
        out[n + (x - 1) * stride] = ((x - v) ** 2 + line[v]) * square;
      }
    }
  }
  return out.map(Math.sqrt);
}

export type Edge = "reflect" | "nearest";

/** Correlate one axis with a kernel of odd length. */
function correlate(data: Float32Array, shape: Vec3, axis: number, kernel: Float64Array, edge: Edge): Float32Array {
  const reach = (kernel.length - 1) / 2;
  const n = shape[axis];
  const strides = [shape[1] * shape[2], shape[2], 1];
  const stride = strides[axis];
  const out = new Float32Array(data.length);
  const line = new Float64Array(n + 2 * reach);
  const source = Int32Array.from(line, (_, x) => {
    const at = x - reach;
    if (edge === "nearest") return Math.min(Math.max(at, 0), n - 1);
    const period = ((at % (2 * n)) + 2 * n) % (2 * n);
    return period < n ? period : 2 * n - 1 - period;
  });
  for (let first = 0; first < data.length; first++) {
    if (Math.floor(first / stride) % n) continue;
    for (let x = 0; x < line.length; x++) line[x] = data[first + source[x] * stride];
    for (let x = 0; x < n; x++) {
      let sum = 0;
      for (let t = 0; t < kernel.length; t++) sum += kernel[t] * line[x + t];
      out[first + x * stride] = sum;
    }
  }
  return out;
}

function bell(sigma: number, slope: boolean): Float64Array {
  const reach = Math.trunc(4 * sigma + 0.5);
  const kernel = Float64Array.from({ length: 2 * reach + 1 }, (_, x) => Math.exp((-0.5 * (x - reach) ** 2) / sigma ** 2));
  const sum = kernel.reduce((a, b) => a + b);
  return kernel.map((value, x) => (value / sum) * (slope ? (x - reach) / sigma ** 2 : 1));
}

export function gaussianFilter(data: Float32Array, shape: Vec3, sigma: Vec3 | number, edge: Edge = "reflect"): Float32Array {
  const sigmas = typeof sigma === "number" ? [sigma, sigma, sigma] : sigma;
  return sigmas.reduce(
    (out, one, axis) => (one > 1e-15 ? correlate(out, shape, axis, bell(one, false), edge) : out),
    data,
  );
}

export function gaussianGradientMagnitude(data: Float32Array, shape: Vec3, sigma: number): Float32Array {
  const total = new Float32Array(data.length);
  for (let along = 0; along < 3; along++) {
    let part = data;
    for (let axis = 0; axis < 3; axis++) part = correlate(part, shape, axis, bell(sigma, axis === along), "reflect");
    for (let n = 0; n < total.length; n++) total[n] += part[n] ** 2;
  }
  return total.map(Math.sqrt);
}

/** The sum of the second differences along the axes. */
export function laplace(data: Float32Array, shape: Vec3): Float32Array {
  const kernel = Float64Array.from([1, -2, 1]);
  const total = new Float32Array(data.length);
  for (let axis = 0; axis < 3; axis++) {
    const part = correlate(data, shape, axis, kernel, "reflect");
    for (let n = 0; n < total.length; n++) total[n] += part[n];
  }
  return total;
}

/** Percentiles with linear interpolation, as NumPy's. */
export function percentiles(values: ArrayLike<number>, wanted: number[]): number[] {
  const sorted = Float64Array.from(values).sort();
  return wanted.map((percent) => {
    const place = (percent / 100) * (sorted.length - 1);
    const low = Math.floor(place);
    const high = Math.min(low + 1, sorted.length - 1);
    return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
  });
}

export function median(values: ArrayLike<number>): number {
  return percentiles(values, [50])[0];
}

/** The values where a mask is set, in order. */
export function where(data: ArrayLike<number>, mask: ArrayLike<number>): Float32Array {
  let count = 0;
  for (let n = 0; n < mask.length; n++) if (mask[n]) count++;
  const out = new Float32Array(count);
  for (let n = 0, at = 0; n < mask.length; n++) if (mask[n]) out[at++] = data[n];
  return out;
}

export function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let n = 0; n < values.length; n++) total += values[n];
  return total;
}

/** How many voxels of a mask lie in each plane across an axis. */
export function profile(mask: ArrayLike<number>, shape: Vec3, axis: number): Float64Array {
  const out = new Float64Array(shape[axis]);
  const stride = [shape[1] * shape[2], shape[2], 1][axis];
  for (let n = 0; n < mask.length; n++) if (mask[n]) out[Math.floor(n / stride) % shape[axis]]++;
  return out;
}

/** The places of the voxels of a mask that a percentile of them lies below, axis by axis. */
export function profilePercentiles(mask: ArrayLike<number>, shape: Vec3, wanted: number[]): Vec3[] {
  const perAxis = [0, 1, 2].map((axis) => weighted(profile(mask, shape, axis), wanted));
  return wanted.map((_, w) => [perAxis[0][w], perAxis[1][w], perAxis[2][w]]);
}

/** Percentiles of whole numbers that occur so often each. */
export function weighted(counts: ArrayLike<number>, wanted: number[]): number[] {
  const total = sum(counts);
  const at = (rank: number) => {
    let below = 0;
    for (let x = 0; x < counts.length; x++) {
      below += counts[x];
      if (rank < below) return x;
    }
    return counts.length - 1;
  };
  return wanted.map((percent) => {
    const place = (percent / 100) * (total - 1);
    const low = at(Math.floor(place));
    return low + (at(Math.min(Math.floor(place) + 1, total - 1)) - low) * (place - Math.floor(place));
  });
}
