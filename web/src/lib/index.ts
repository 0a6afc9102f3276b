// The library of the page: a scan in, label maps and volumes out, as the Python package makes them.

export { worstFirst, ScanError } from "./findings";
export type { Finding } from "./findings";
export { gzipped, niftiBytes, readVolume } from "./nifti";
export type { Volume } from "./nifti";
export type { Bundle, Label } from "./bundle";
export type { Predictor } from "./predictor";
export type { Measure, Segmentation } from "./results";
export { run, Session, TASKS } from "./session";
export type { Task } from "./session";
export { morphTsv, percentOf, regionsTsv } from "./tables";
