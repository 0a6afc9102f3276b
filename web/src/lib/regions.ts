// Composite regions: lobes, hemispheres, tissues. White matter has one label a side; a region of it is
// the part that lies nearer to the cortex of its lobe than to that of any other.
// Mirrors deepmrseg_bids/tasks/regions.py.

import { interval } from "./bundle";
import type { Facts } from "./bundle";
import type { Grid } from "./grid";
import { roundHalfEven } from "./linear";
import type { Vec3 } from "./linear";
import { distance } from "./ndimage";
import type { Labels } from "./nifti";
import { counts } from "./results";
import type { Measure } from "./results";
import type { SoftCounts } from "./soft_counts";

/** What a region is made of: labels, of which those count that lie nearest to some others. */
export interface Region {
  index: number;
  name: string;
  labels: number[];
  near: number[];
}

const STEP_MM = 2; // between the voxels that are asked what they lie near
const EQUAL_MM = 1e-3;

/** Volume, interval and confidence of each region; the last is not known of a part of labels. */
export function measureRegions(labels: Labels, grid: Grid, regions: Region[], sure: SoftCounts, facts: Facts): Measure[] {
  const volumes = regionVolumes(labels, grid, regions);
  return regions.map((region, n) => {
    const [low, high] = interval(facts, region.name, volumes[n]);
    const confidence = region.near.length ? null : sure.expectedDice(region.labels);
    return { index: region.index, name: region.name, volume: volumes[n], low, high, confidence, floor: null };
  });
}

/** The volume of each region, mm3. */
export function regionVolumes(labels: Labels, grid: Grid, regions: Region[]): number[] {
  const voxels = counts(labels, Math.max(0, ...regions.flatMap((region) => region.labels)));
  const share = shares(labels, grid, regions.filter((region) => region.near.length));
  return regions.map((region) => region.labels.reduce((all, code) => all + voxels[code], 0) * grid.voxelVolume * (share.get(region) ?? 1));
}

/** Which part of its labels lies in each region, from voxels on a coarser grid. */
function shares(labels: Labels, grid: Grid, regions: Region[]): Map<Region, number> {
  const out = new Map<Region, number>();
  if (!regions.length) return out;
  const { codes, shape, spacing } = thinned(labels, grid);
  for (const made of new Set(regions.map((region) => region.labels.join()))) {
    const group = regions.filter((region) => region.labels.join() === made);
    const [first] = group;
    const points = Array.from(codes.keys()).filter((n) => codes[n] && first.labels.includes(codes[n]));
    const away = group.map(({ near }) => {
      const wanted = new Set(near);
      const others = Uint8Array.from(codes, (code) => +!(code && wanted.has(code)));
      const from = others.includes(0) ? distance(others, shape, { sampling: spacing, open: true }) : null;
      return points.map((n) => (from ? from[n] : Infinity));
    });
    const parts = group.map(() => 0);
    points.forEach((_, p) => {
      const least = Math.min(...away.map((one) => one[p]));
      const nearest = group.flatMap((_, r) => (Number.isFinite(least) && away[r][p] <= least + EQUAL_MM ? [r] : []));
      for (const r of nearest) parts[r] += 1 / nearest.length / points.length;
    });
    group.forEach((region, r) => out.set(region, parts[r]));
  }
  return out;
}

/** Some voxels, evenly spread. */
function thinned(labels: Labels, grid: Grid): { codes: Uint16Array; shape: Vec3; spacing: Vec3 } {
  const steps = grid.spacing.map((edge) => Math.max(1, roundHalfEven(STEP_MM / edge)));
  const shape = grid.shape.map((edge, k) => Math.ceil(edge / steps[k])) as Vec3;
  const codes = new Uint16Array(shape[0] * shape[1] * shape[2]);
  for (let i = 0, n = 0; i < shape[0]; i++)
    for (let j = 0; j < shape[1]; j++)
      for (let k = 0; k < shape[2]; k++, n++) codes[n] = labels[(i * steps[0] * grid.shape[1] + j * steps[1]) * grid.shape[2] + k * steps[2]];
  return { codes, shape, spacing: grid.spacing.map((edge, k) => edge * steps[k]) as Vec3 };
}
