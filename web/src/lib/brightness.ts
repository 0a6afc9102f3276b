// How unevenly a scan is lit. Mirrors deepmrseg_bids/imaging/brightness.py.

import type { Grid } from "./grid";
import { roundHalfEven, solve } from "./linear";
import type { Vec3 } from "./linear";
import { erode, median, percentiles } from "./ndimage";

const BLOCK_MM = 16;
const RIM_MM = 4;
const WHITE = 85;
const FILLED = 0.5;
const BLOCKS = 12;
const ROUNDS = 5;
const UNIT_MM = 100;

export interface Gradient {
  slope: Vec3; // logarithm of the brightness in 100 mm, along the axes of the world
  middle: Vec3;
  ratio: number;
}

/** The same scan with the gradient taken out. */
export function evened({ slope, middle }: Gradient, data: Float32Array, grid: Grid): Float32Array {
  const step = [0, 1, 2].map((j) => slope.reduce((sum, s, i) => sum + s * grid.affine[i][j], 0) / UNIT_MM);
  const start = slope.reduce((sum, s, i) => sum + s * (grid.affine[i][3] - middle[i]), 0) / UNIT_MM;
  const lines = grid.shape.map((edge, k) => Float64Array.from({ length: edge }, (_, n) => Math.exp(-step[k] * n)));
  const out = new Float32Array(data.length);
  let n = 0;
  for (let i = 0; i < grid.shape[0]; i++)
    for (let j = 0; j < grid.shape[1]; j++) {
      const factor = Math.exp(-start) * lines[0][i] * lines[1][j];
      for (let k = 0; k < grid.shape[2]; k++, n++) out[n] = data[n] * factor * lines[2][k];
    }
  return out;
}

/** The gradient over a brain, from the bright tissue of blocks; null if there is too little brain. */
export function brightnessGradient(image: Float32Array, inside: Uint8Array, grid: Grid): Gradient | null {
  const { places, levels } = blocks(image, erode(inside, grid.shape, Math.max(1, roundHalfEven(RIM_MM / Math.min(...grid.spacing)))), grid);
  if (levels.length < BLOCKS) return null;
  const middle = [0, 1, 2].map((k) => places.reduce((sum, p) => sum + p[k], 0) / places.length) as Vec3;
  const known = places.map((p) => [1, ...p.map((x, k) => (x - middle[k]) / UNIT_MM)]);
  let weights = levels.map(() => 1);
  let found = [0, 0, 0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    const normal = [0, 1, 2, 3].map((a) => [0, 1, 2, 3].map((b) => known.reduce((sum, row, n) => sum + weights[n] ** 2 * row[a] * row[b], 0)));
    const right = [0, 1, 2, 3].map((a) => [known.reduce((sum, row, n) => sum + weights[n] ** 2 * row[a] * levels[n], 0)]);
    found = solve(normal, right).map((row) => row[0]);
    const away = known.map((row, n) => Math.abs(levels[n] - row.reduce((sum, x, a) => sum + x * found[a], 0)));
    const scale = 2 * median(away) + 1e-3;
    weights = away.map((x) => Math.sqrt(1 / Math.max(1, x / scale)));
  }
  const fitted = known.map((row) => row.reduce((sum, x, a) => sum + x * found[a], 0));
  return { slope: found.slice(1) as Vec3, middle, ratio: Math.exp(Math.max(...fitted) - Math.min(...fitted)) };
}

function blocks(image: Float32Array, core: Uint8Array, grid: Grid): { places: Vec3[]; levels: number[] } {
  const [p, q, r] = grid.shape;
  const [a, b, c] = grid.spacing.map((mm) => Math.max(1, roundHalfEven(BLOCK_MM / mm)));
  const places: Vec3[] = [];
  const levels: number[] = [];
  for (let i = 0; i < p; i += a)
    for (let j = 0; j < q; j += b)
      for (let k = 0; k < r; k += c) {
        const values: number[] = [];
        for (let x = i; x < Math.min(i + a, p); x++)
          for (let y = j; y < Math.min(j + b, q); y++)
            for (let z = k; z < Math.min(k + c, r); z++) {
              const n = (x * q + y) * r + z;
              if (core[n]) values.push(image[n]);
            }
        if (values.length < FILLED * a * b * c) continue;
        const [level] = percentiles(values, [WHITE]);
        if (level <= 0) continue;
        places.push(grid.toWorld([i + (a - 1) / 2, j + (b - 1) / 2, k + (c - 1) / 2]));
        levels.push(Math.log(level));
      }
  return { places, levels };
}
