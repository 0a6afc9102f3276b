// Small matrices, as arrays of rows.

export type Vec3 = [number, number, number];
export type Matrix = number[][];

export function identity(size: number): Matrix {
  return Array.from({ length: size }, (_, i) => Array.from({ length: size }, (_, j) => +(i === j)));
}

export function transpose(a: Matrix): Matrix {
  return a[0].map((_, j) => a.map((row) => row[j]));
}

export function multiply(a: Matrix, b: Matrix): Matrix {
  return a.map((row) => b[0].map((_, j) => row.reduce((sum, x, k) => sum + x * b[k][j], 0)));
}

/** The solution x of a x = b by elimination with pivots; b has one or more columns. */
export function solve(a: Matrix, b: Matrix): Matrix {
  const n = a.length;
  const rows = a.map((row, i) => [...row, ...b[i]]);
  for (let c = 0; c < n; c++) {
    let best = c;
    for (let r = c + 1; r < n; r++) if (Math.abs(rows[r][c]) > Math.abs(rows[best][c])) best = r;
    [rows[c], rows[best]] = [rows[best], rows[c]];
    const pivot = rows[c][c];
    for (let r = 0; r < n; r++) {
      if (r === c || rows[r][c] === 0) continue;
      const factor = rows[r][c] / pivot;
      for (let k = c; k < rows[r].length; k++) rows[r][k] -= factor * rows[c][k];
    }
  }
  return rows.map((row, i) => row.slice(n).map((x) => x / row[i]));
}

export function inverse(a: Matrix): Matrix {
  return solve(a, identity(a.length));
}

export function det3(m: Matrix): number {
  return (
    m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
    m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
    m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
  );
}

export function upper3(affine: Matrix): Matrix {
  return affine.slice(0, 3).map((row) => row.slice(0, 3));
}

/** The matrix with perpendicular columns that is nearest to a regular one (its polar factor). */
export function nearestRotation(m: Matrix): Matrix {
  let x = m;
  for (let step = 0; step < 100; step++) {
    const other = transpose(inverse(x));
    const next = x.map((row, i) => row.map((value, j) => (value + other[i][j]) / 2));
    const moved = Math.max(...next.flatMap((row, i) => row.map((v, j) => Math.abs(v - x[i][j]))));
    x = next;
    if (moved < 1e-14) break;
  }
  return x;
}

/** Decimals as NumPy rounds them: halves to even. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

export function rounded(value: number, decimals: number): number {
  const factor = 10 ** decimals;
  return roundHalfEven(value * factor) / factor;
}

export function column(m: Matrix, j: number): Vec3 {
  return [m[0][j], m[1][j], m[2][j]];
}

export function length3(v: ArrayLike<number>): number {
  return Math.hypot(v[0], v[1], v[2]);
}
