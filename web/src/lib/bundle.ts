// What a model file says of itself, and what its errors on other scans say of a volume.
// Mirrors deepmrseg_bids/inference/bundle.py and calibration.py.

import type { IntensityMode } from "./intensity";
import type { Vec3 } from "./linear";
import type { Region } from "./regions";

export interface Label {
  index: number;
  name: string;
  abbreviation: string;
  color: string;
}

export interface Preparation {
  spacing: number;
  intensity: IntensityMode;
  shape: Vec3;
  margin: number;
  position: boolean;
  coordinates: boolean;
  window: Vec3;
}

export interface Facts {
  licence?: string;
  cite?: string;
  training_data?: string;
  volume_interval?: Record<string, [number, number]>;
  volume_interval_ranges?: Record<string, { offset_mm3?: number; ranges: [number | null, number, number][] }>;
  volume_floor?: Record<string, number>;
  volume_if_none?: Record<string, number>;
  volume_thresholds?: Record<string, [number, number][]>;
  confidence_fit?: Record<string, [number, number, number]>;
}

export interface Bundle {
  software: string;
  task: string;
  version: string;
  sha256: string;
  network: { spatial_dims: number; in_channels: number; classes: number; width: number; depth: number; patch: number };
  preparation: Preparation;
  labels: Label[];
  facts: Facts;
  /** The labels of the task, where they are not those of its model. */
  table?: Label[];
  /** Its composite regions, if it has any. */
  regions?: Region[];
}

export type Interval = [number | null, number | null];

const EDGE = 1e-3;
const LEAST_ML = 0.01;

/** Volumes below it are not distinguishable from none, mm3; 0 if the model states none. */
export function floorOf(facts: Facts, name: string): number {
  return facts.volume_floor?.[name] ?? 0;
}

/** The 90 % interval of a volume, mm3. */
export function interval(facts: Facts, name: string, volume: number): Interval {
  const ifNone = facts.volume_if_none?.[name] ?? null;
  if (volume === 0) return ifNone === null ? [null, null] : [0, ifNone];
  const stated = facts.volume_interval_ranges?.[name];
  const plain = facts.volume_interval?.[name];
  const offset = stated?.offset_mm3 ?? 0;
  const ranges = stated?.ranges ?? (plain ? [[null, ...plain] as [null, number, number]] : []);
  const floor = floorOf(facts, name);
  for (const [end, lowFactor, highFactor] of ranges) {
    if (end !== null && volume >= end) continue;
    const low = Math.max((volume + offset) * lowFactor - offset, 0);
    const high = Math.max((volume + offset) * highFactor - offset, low);
    return volume < floor ? [0, Math.max(high, floor, ifNone ?? 0)] : [low, high];
  }
  return [null, null];
}

/** From which posterior on a voxel belongs to a structure, by the volume above one half. */
export function thresholdOf(facts: Facts, name: string, volume: number): number {
  const known = facts.volume_thresholds?.[name] ?? [];
  if (!known.length) return 0.5;
  const place = Math.log(Math.max(volume, 1));
  const above = known.findIndex(([end]) => Math.log(end) >= place);
  if (above < 0) return known[known.length - 1][1];
  if (above === 0) return known[0][1];
  const [[a, low], [b, high]] = [known[above - 1], known[above]];
  return low + ((high - low) * (place - Math.log(a))) / (Math.log(b) - Math.log(a));
}

function logit(share: number): number {
  const kept = Math.min(Math.max(share, EDGE), 1 - EDGE);
  return Math.log(kept / (1 - kept));
}

/** The Dice to expect, of the one that the posteriors predict; null if nothing was found. */
export function confidence(facts: Facts, name: string, predicted: number | null, volume: number): number | null {
  const fit = facts.confidence_fit?.[name];
  if (predicted === null || !fit) return predicted;
  const odds = fit[0] + fit[1] * Math.log10(Math.max(volume / 1000, LEAST_ML)) + fit[2] * logit(predicted);
  return 1 / (1 + Math.exp(-Math.min(Math.max(odds, -30), 30)));
}

