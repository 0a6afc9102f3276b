// Reads a scan and runs the networks, away from the page, so that the page stays alive. One worker
// does one scan: when it ends, all its memory is free.

import * as ort from "onnxruntime-web/wasm";
import { gzipped, niftiBytes, readVolume, run, ScanError, Session, TASKS, morphTsv, regionsTsv, worstFirst } from "./lib/index";
import type { Finding, Label, Measure, Predictor, Segmentation, Task, Volume } from "./lib/index";
import { fetched, loadModel, loadModels } from "./models";
import type { Models } from "./models";
import { Progress } from "./progress";

export interface Request {
  base: string;
  t1w: File;
  flair: File | null;
  tasks: string[];
}

export interface Result {
  task: string;
  title: string;
  table: Label[];
  measures: Measure[];
  regions: Measure[];
  findings: Finding[];
  brainMm3: number | null;
  icvMm3: number | null;
  lesionCount: number | null;
  onFlair: boolean;
  tsv: string;
  regionsTsv: string;
  labels: Uint8Array<ArrayBuffer>;
}

export type Message =
  | { kind: "progress"; stage: string; share: number; left: number | null }
  | { kind: "result"; result: Result }
  | { kind: "failed"; title: string; message: string }
  | { kind: "end"; seconds: number; threads: number }
  | { kind: "error"; message: string };

const send = (message: Message, transfer: Transferable[] = []) => self.postMessage(message, { transfer });

self.addEventListener("message", ({ data }: MessageEvent<Request>) => {
  work(data).catch((error: unknown) => send({ kind: "error", message: said(error) }));
});

function said(error: unknown): string {
  if (error instanceof ScanError) return error.message;
  if (error instanceof RangeError || /memory|allocation|OOM/i.test(String(error))) return `This browser has too little memory for the image. Close other tabs, use a computer with more memory, or the deepmrseg-bids app. (${error})`;
  return `An unexpected error occurred: ${error}`;
}

async function work({ base, t1w, flair, tasks }: Request): Promise<void> {
  const start = performance.now();
  const models = await loadModels(base);
  const wanted = TASKS.filter((task) => tasks.includes(task.name));
  const progress = new Progress([...new Set(wanted.flatMap((task) => task.models))], tasks.includes("wml"));
  let stage = "Reading the image";
  const report = () => send({ kind: "progress", stage, share: progress.share, left: progress.left });
  report();
  const scans = [await readVolume(t1w, t1w.name), flair && (await readVolume(flair, flair.name))] as [Volume, Volume | null];
  stage = "Loading the models";
  report();
  const threads = await startRuntime(base);
  const predictors = predictorsOf(base, models, (model) => {
    progress.called(model);
    report();
  });
  const session = new Session(...scans, predictors, (text) => {
    stage = text;
    report();
  });
  const queue: Promise<void>[] = [];
  await run(session, tasks, (task, result) => {
    if (result instanceof ScanError) send({ kind: "failed", title: task.title, message: result.message });
    else queue.push(publish(task, result, result.onFlair ? (scans[1] as Volume) : scans[0]));
  });
  await Promise.all(queue);
  send({ kind: "end", seconds: (performance.now() - start) / 1000, threads });
}

async function publish(task: Task, result: Segmentation, scan: Volume): Promise<void> {
  const labels = await gzipped(niftiBytes(result.labels, scan.grid, scan.forms));
  const { table, measures, regions, brainMm3, icvMm3, lesionCount, onFlair } = result;
  const findings = worstFirst(result.findings);
  const tsvs = { tsv: morphTsv(result), regionsTsv: regionsTsv(result) };
  send({ kind: "result", result: { task: task.name, title: task.title, table, measures, regions, findings, brainMm3, icvMm3, lesionCount, onFlair, ...tsvs, labels } }, [labels.buffer]);
}

/** Start ONNX Runtime with as many threads as the page may have. */
async function startRuntime(base: string): Promise<number> {
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
  ort.env.logLevel = "error";
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = { mjs: new URL("ort/runtime.js", base).href };
  ort.env.wasm.wasmBinary = (await fetched(new URL("ort/runtime.wasm.gz", base))).buffer;
  return threads;
}

function predictorsOf(base: string, models: Models, called: (model: string) => void): (name: string) => Promise<Predictor> {
  const made = new Map<string, Promise<Predictor>>();
  const network = async (name: string, part: number) => {
    const file = models[name].files[part];
    const model = await loadModel(new URL(`models/${file.name}`, base), file.sha256);
    const session = await ort.InferenceSession.create(model, { enableMemPattern: false });
    return async (image: Float32Array, dims: number[]): Promise<Float32Array> => {
      const input = new ort.Tensor("float32", image, dims);
      const outputs = await session.run({ [session.inputNames[0]]: input });
      const answer = outputs[session.outputNames[0]];
      const data = answer.data as Float32Array;
      called(part ? `${name}-head` : name);
      return data;
    };
  };
  const make = async (name: string): Promise<Predictor> => {
    if (!(name in models)) throw new ScanError(`the page has no model '${name}'`);
    return { bundle: models[name].bundle, network: await network(name, 0), head: () => network(name, 1) };
  };
  return (name) => {
    if (!made.has(name)) made.set(name, make(name));
    return made.get(name) as Promise<Predictor>;
  };
}
