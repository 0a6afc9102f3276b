// The table of volumes, with the columns of the app (bids/tables.py).

import type { Measure, Segmentation } from "./results";

const COLUMNS = ["index", "name", "volume_mm3", "volume_low_mm3", "volume_high_mm3", "volume_icv_percent", "volume_brain_percent", "confidence"];

function cell(value: number | string | null, decimals?: number): string {
  if (value === null) return "n/a";
  return typeof value === "string" || decimals === undefined ? String(value) : value.toFixed(decimals);
}

export function percentOf(row: Measure, whole: number | null): number | null {
  return whole ? (100 * row.volume) / whole : null;
}

/** The volumes of composite regions as tab-separated values. */
export function regionsTsv(result: Segmentation): string {
  return morphTsv({ ...result, measures: result.regions, lesionCount: null });
}

/** The volumes of a task as tab-separated values. */
export function morphTsv(result: Segmentation): string {
  const lesions = result.lesionCount !== null;
  const floors = result.measures.some((row) => row.floor !== null);
  const columns = [...COLUMNS, ...(lesions ? ["lesion_count"] : []), ...(floors ? ["volume_floor_mm3"] : [])];
  const rows = result.measures.map((row) => [
    cell(row.index),
    row.name,
    cell(row.volume, 2),
    cell(row.low, 2),
    cell(row.high, 2),
    cell(percentOf(row, result.icvMm3), 5),
    cell(percentOf(row, result.brainMm3), 5),
    cell(row.confidence, 4),
    ...(lesions ? [cell(result.lesionCount)] : []),
    ...(floors ? [cell(row.floor, 2)] : []),
  ]);
  return [columns, ...rows].map((cells) => `${cells.join("\t")}\n`).join("");
}
