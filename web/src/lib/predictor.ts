// A network at work: windows, and their blending. Mirrors deepmrseg_bids/inference/predictor.py.

import type { Bundle } from "./bundle";
import { cut } from "./grid";
import { roundHalfEven } from "./linear";
import type { Vec3 } from "./linear";

/** Posteriors (classes, *space) of an image (channels, *space). */
export type Network = (image: Float32Array, dims: number[]) => Promise<Float32Array>;

export interface Predictor {
  bundle: Bundle;
  network: Network;
  /** The last layer, of a model whose network ends before it. */
  head: () => Promise<Network>;
}

/** Gives the predictor of a model, by its name. */
export type Predictors = (name: string) => Promise<Predictor>;

/** First voxels of windows along one axis: evenly spaced, at even and odd voxels in turn. */
export function windowPlaces(edge: number, window: number, overlap = 0.5): number[] {
  if (!(window > 0 && window < edge)) return [0];
  const count = Math.ceil((edge - window) / (window * (1 - overlap))) + 1;
  return Array.from({ length: count }, (_, n) => {
    const start = roundHalfEven((n * (edge - window)) / (count - 1));
    return start + ((((start - n) % 2) + 2) % 2);
  });
}

/** Weights of a window: 1 in its middle, falling towards its rim. */
function bell(edge: number): Float32Array {
  return Float32Array.from({ length: edge }, (_, n) => Math.exp(-0.5 * ((n - (edge - 1) / 2) / (edge / 2) / 0.5) ** 2));
}

/** Posteriors (classes, *shape) of an image (channels, *shape), from overlapping windows. */
export async function predict(predictor: Predictor, image: Float32Array, shape: Vec3, overlap = 0.5): Promise<Float32Array> {
  const { window } = predictor.bundle.preparation;
  const { classes } = predictor.bundle.network;
  const size = shape[0] * shape[1] * shape[2];
  const channels = image.length / size;
  const edges = shape.map((edge, k) => (window[k] > 0 && window[k] < edge ? window[k] : edge)) as Vec3;
  const axes = shape.map((edge, k) => windowPlaces(edge, window[k], overlap));
  const places = axes[0].flatMap((i) => axes[1].flatMap((j) => axes[2].map((k): Vec3 => [i, j, k])));
  if (places.length === 1) return predictor.network(image, [1, channels, ...shape]);
  const bells = edges.map(bell);
  const total = new Float32Array(classes * size);
  const weight = new Float32Array(size);
  const count = edges[0] * edges[1] * edges[2];
  for (const start of places) {
    const stop = start.map((place, k) => place + edges[k]) as Vec3;
    const seen = new Float32Array(channels * count);
    for (let c = 0; c < channels; c++) seen.set(cut(image.subarray(c * size, (c + 1) * size), shape, { start, stop }), c * count);
    const answer = await predictor.network(seen, [1, channels, ...edges]);
    blend(answer, { classes, start, edges, shape, bells }, total, weight);
  }
  for (let c = 0; c < classes; c++) for (let n = 0; n < size; n++) total[c * size + n] /= weight[n];
  return total;
}

interface Window {
  classes: number;
  start: Vec3;
  edges: Vec3;
  shape: Vec3;
  bells: Float32Array[];
}

/** Add the answer for a window to the sums, without what lies beyond the image. */
function blend(answer: Float32Array, { classes, start, edges, shape, bells }: Window, total: Float32Array, weight: Float32Array): void {
  const size = shape[0] * shape[1] * shape[2];
  const count = edges[0] * edges[1] * edges[2];
  const stop = start.map((place, k) => Math.min(place + edges[k], shape[k])) as Vec3;
  for (let i = start[0]; i < stop[0]; i++)
    for (let j = start[1]; j < stop[1]; j++) {
      const outer = bells[0][i - start[0]] * bells[1][j - start[1]];
      const whole = (i * shape[1] + j) * shape[2];
      const part = ((i - start[0]) * edges[1] + j - start[1]) * edges[2] - start[2];
      for (let k = start[2]; k < stop[2]; k++) {
        const one = outer * bells[2][k - start[2]];
        weight[whole + k] += one;
        for (let c = 0; c < classes; c++) total[c * size + whole + k] += answer[c * count + part + k] * one;
      }
    }
}

