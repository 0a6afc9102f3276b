// The page: a form, a worker that does the work, and what it found.

import "./style.css";
import { percentOf, TASKS } from "./lib/index";
import type { Measure } from "./lib/index";
import { loadModels, VERSION } from "./models";
import type { Models } from "./models";
import { duration } from "./progress";
import { Viewer } from "./viewer";
import type { Message, Request, Result } from "./worker";

const base = new URL("./", location.href).href;
const chosenFirst = ["brain", "deepbrain", "hippocampus"];

function element<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function made<K extends keyof HTMLElementTagNameMap>(tag: K, text = "", className = ""): HTMLElementTagNameMap[K] {
  const one = document.createElement(tag);
  one.textContent = text;
  if (className) one.className = className;
  return one;
}

const viewer = new Viewer(element<HTMLCanvasElement>("canvas"), element("where"));
const images = { t1w: null as File | null, flair: null as File | null };
let segmented = images; // those of the result, whatever is chosen since
let models: Models = {};
let worker: Worker | null = null;
let results: Result[] = [];
let showing = 0; // maps that the viewer was asked for and does not show yet
let failures = new Map<string, string[]>(); // the tasks that each message is about

function wantedTasks(): string[] {
  return Array.from(document.querySelectorAll<HTMLInputElement>("#tasks input:checked"), (box) => box.value);
}

function problem(text: string): void {
  element("problem").textContent = text;
  element("problem").hidden = !text;
}

/** Which buttons can be pressed, and what is asked for. */
function refresh(): void {
  const tasks = wantedTasks();
  const flair = TASKS.some((task) => task.needsFlair && tasks.includes(task.name));
  element("flair-row").hidden = !flair;
  const missing = !images.t1w ? "Choose a T1w image first." : !tasks.length ? "Choose a task." : flair && !images.flair ? "Choose the FLAIR." : "";
  element("missing").textContent = missing;
  element<HTMLButtonElement>("run").disabled = worker !== null || missing !== "";
  element("cancel").hidden = worker === null;
  element("working").hidden = worker === null;
}

function offerTasks(): void {
  for (const task of TASKS) {
    if (!task.models.every((model) => model in models)) continue;
    const box = made("input");
    box.type = "checkbox";
    box.value = task.name;
    box.checked = chosenFirst.includes(task.name);
    box.addEventListener("change", refresh);
    const label = made("label");
    const more = task.needsFlair ? " (requires a FLAIR that is aligned with the T1w)" : "";
    label.append(box, ` ${task.title}${more}`);
    element("tasks").append(label);
  }
}

function listModels(): void {
  element("version").textContent = `This page is of deepmrseg-bids ${VERSION} and contains these models. Models of other versions are refused.`;
  for (const [name, { bundle }] of Object.entries(models)) {
    const row = made("tr");
    const head = made("th", name);
    head.scope = "row";
    const { training_data: data, licence, cite } = bundle.facts;
    row.append(head, ...[`${bundle.version} ${bundle.sha256.slice(0, 12)}`, data, licence, cite].map((text) => made("td", text ?? "unknown")));
    element("models").querySelector("tbody")?.append(row);
  }
}

/** Take files that were dropped; a FLAIR, by its name, is for the tasks that need one. */
function take(files: Iterable<File>): void {
  for (const file of files) {
    const named = /flair/i.test(file.name) && !/_t1w?\.nii/i.test(file.name);
    const flair = named && chooseFlairTasks();
    images[flair ? "flair" : "t1w"] = file;
    const list = new DataTransfer();
    list.items.add(file);
    element<HTMLInputElement>(flair ? "flair" : "t1w").files = list.files;
  }
  refresh();
}

/** Choose the tasks that need a FLAIR; whether there are any. */
function chooseFlairTasks(): boolean {
  const boxes = Array.from(document.querySelectorAll<HTMLInputElement>("#tasks input"));
  const fitting = boxes.filter((box) => TASKS.some((task) => task.needsFlair && task.name === box.value));
  for (const box of fitting) box.checked = true;
  return fitting.length > 0;
}

function watchForm(): void {
  for (const name of ["t1w", "flair"] as const) {
    const input = element<HTMLInputElement>(name);
    input.addEventListener("change", () => {
      images[name] = input.files?.[0] ?? null;
      refresh();
    });
  }
  const drop = element("drop");
  for (const kind of ["dragover", "dragleave", "drop"] as const)
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && worker === null) take(event.dataTransfer?.files ?? []);
    });
  element("run").addEventListener("click", start);
  element("cancel").addEventListener("click", () => {
    stop();
    problem("Cancelled.");
    element("run").focus();
  });
}

function start(): void {
  if (!images.t1w) return;
  delete element("viewer").dataset.shown;
  problem("");
  segmented = { ...images };
  results = [];
  failures = new Map();
  element("result").hidden = true;
  for (const id of ["findings", "tables", "map"]) element(id).replaceChildren();
  worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  worker.addEventListener("message", ({ data }: MessageEvent<Message>) => receive(data));
  worker.addEventListener("error", (event) => {
    stop();
    problem(`An unexpected error occurred: ${event.message || "the browser stopped the computation"}`);
  });
  const tasks = wantedTasks();
  const flair = TASKS.some((task) => task.needsFlair && tasks.includes(task.name)) ? images.flair : null;
  worker.postMessage({ base, t1w: images.t1w, flair, tasks } satisfies Request);
  refresh();
  element("cancel").focus();
}

/** End the worker, and with it all memory that it took. */
function stop(): void {
  worker?.terminate();
  worker = null;
  refresh();
}

function receive(message: Message): void {
  if (message.kind === "progress") {
    element<HTMLProgressElement>("bar").value = message.share;
    if (element("stage").textContent !== message.stage) element("stage").textContent = message.stage;
    element("left").textContent = message.left === null ? "" : `about ${duration(message.left)} left`;
  } else if (message.kind === "result") results.push(message.result);
  else if (message.kind === "failed") {
    failures.set(message.message, [...(failures.get(message.message) ?? []), message.title]);
    problem([...failures].map(([text, titles]) => `${titles.join(", ")}: ${text}`).join(" "));
  } else if (message.kind === "error") {
    stop();
    problem(message.message);
    element("run").focus();
  } else finish(message.seconds, message.threads);
}

function finish(seconds: number, threads: number): void {
  stop();
  if (!results.length) return element("run").focus();
  const scan = segmented.t1w as File;
  element("summary").textContent = `${scan.name}: ${seconds.toFixed(0)} s with ${threads} thread${threads === 1 ? "" : "s"}. Label maps are on the grid of the image.`;
  element("result").hidden = false;
  showFindings();
  results.forEach((result, n) => {
    element("tables").append(tableOf(result));
    const option = made("option", result.title);
    option.value = String(n);
    element("map").append(option);
  });
  const last = results.length - 1;
  element<HTMLSelectElement>("map").value = String(last);
  void showMap(last);
  element("result").focus();
}

function showFindings(): void {
  const seen = new Set<string>();
  const every = results.flatMap((result) => result.findings);
  for (const severity of ["error", "warning", "info"])
    for (const one of every.filter((other) => other.severity === severity)) {
      if (seen.has(one.message)) continue;
      seen.add(one.message);
      const note = made("p", "", `finding ${severity}`);
      note.append(made("strong", `${severity}: `), one.message, " ", made("code", one.code));
      element("findings").append(note);
    }
  if (!seen.size) element("findings").append(made("p", "No findings."));
}

function scanOf(result: Result): File {
  return (result.onFlair ? segmented.flair : segmented.t1w) as File;
}

async function showMap(number: number): Promise<void> {
  const result = results[number];
  const scan = scanOf(result);
  const stage = document.querySelector(".stage") as HTMLElement;
  element("viewer").ariaBusy = String(++showing > 0);
  stage.hidden = false; // a canvas that is not there has no size
  let reason = "";
  try {
    await viewer.show({ scan, labels: result.labels, table: result.table }, Number(element<HTMLInputElement>("opacity").value) / 100);
    viewer.setOutline(element<HTMLInputElement>("outline").checked);
    element("viewer").dataset.shown = result.task;
  } catch (error) {
    reason = error instanceof Error ? error.message : String(error);
  }
  element("no-viewer").textContent = reason && `The viewer could not show the image: ${reason}. The tables and downloads below are complete.`;
  element("no-viewer").hidden = !reason;
  element("picture").toggleAttribute("disabled", reason !== "");
  stage.hidden = reason !== "";
  element("viewer").ariaBusy = String(--showing > 0);
}

function tableOf(result: Result): HTMLElement {
  const part = made("section");
  part.dataset.task = result.task;
  part.append(made("h3", result.title), volumesOf(result, result.measures, result.title));
  if (result.lesionCount !== null) part.append(made("p", `${result.lesionCount} lesion${result.lesionCount === 1 ? "" : "s"}`));
  part.append(downloads(result));
  if (result.regions.length) {
    const title = `${result.title}: composite regions`;
    const line = made("p", "", "controls");
    line.append(download("Regions (TSV)", `${stemOf(result)}_seg-${result.task}_desc-regions_morph.tsv`, () => tsvOf(result.regionsTsv)));
    part.append(made("h3", title), volumesOf(result, result.regions, title), line);
  }
  return part;
}

/** A table of volumes that scrolls in its own box. */
function volumesOf(result: Result, rows: Measure[], title: string): HTMLElement {
  const table = made("table");
  table.append(made("caption", "Volume with its 90 % interval; confidence is the predicted Dice (0 to 1)"));
  const head = made("tr");
  ["Structure", "Volume (ml)", "90 % interval (ml)", "% of intracranial volume", "Confidence"].forEach((text, n) => {
    const cell = made("th", text, n ? "number" : "");
    cell.scope = "col";
    head.append(cell);
  });
  table.createTHead().append(head);
  const body = table.createTBody();
  for (const row of rows) body.append(rowOf(row, result));
  const scroll = made("div", "", rows.length > 40 ? "scroll long" : "scroll");
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", `Volumes: ${title}`);
  scroll.append(table);
  return scroll;
}

function rowOf(row: Measure, result: Result): HTMLTableRowElement {
  const line = made("tr");
  const name = made("th");
  name.scope = "row";
  const label = result.table.find((one) => one.index === row.index && one.name === row.name); // a region has none
  if (label) {
    const swatch = made("span", "", "swatch");
    swatch.style.background = label.color;
    name.append(swatch);
  }
  name.append(row.name.replaceAll("-", " "));
  const ml = (mm3: number) => (mm3 / 1000).toFixed(2);
  const share = percentOf(row, result.icvMm3);
  const cells = [
    ml(row.volume),
    row.low === null || row.high === null ? "n/a" : `${ml(row.low)} to ${ml(row.high)}`,
    share === null ? "n/a" : share.toFixed(2),
    row.confidence === null ? "n/a" : row.confidence.toFixed(2),
  ];
  line.append(name, ...cells.map((text) => made("td", text, "number")));
  return line;
}

/** The name of the scan, without what says of which kind it is. */
function stemOf(result: Result): string {
  return scanOf(result).name.replace(/(\.nii)?(\.gz)?$/i, "").replace(/_(T1w|FLAIR)$/, "");
}

function tsvOf(text: string): Blob {
  return new Blob([text], { type: "text/tab-separated-values" });
}

function downloads(result: Result): HTMLElement {
  const stem = stemOf(result);
  const kind = result.task === "brain" ? "desc-brain_mask" : `${result.onFlair ? "space-FLAIR_" : ""}seg-${result.task}_dseg`;
  const line = made("p", "", "controls");
  line.append(
    download("Label map (NIfTI)", `${stem}_${kind}.nii.gz`, () => new Blob([result.labels], { type: "application/gzip" })),
    download("Volumes (TSV)", `${stem}_seg-${result.task}_morph.tsv`, () => tsvOf(result.tsv)),
  );
  return line;
}

function download(text: string, name: string, content: () => Blob): HTMLButtonElement {
  const button = made("button", text);
  button.type = "button";
  button.addEventListener("click", () => save(content(), name));
  return button;
}

function save(content: Blob, name: string): void {
  const link = made("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function watchViewer(): void {
  element("map").addEventListener("change", (event) => void showMap(Number((event.target as HTMLSelectElement).value)));
  element("opacity").addEventListener("input", (event) => viewer.setOpacity(Number((event.target as HTMLInputElement).value) / 100));
  element("outline").addEventListener("change", (event) => viewer.setOutline((event.target as HTMLInputElement).checked));
  element("picture").addEventListener("click", async () => save(await viewer.picture(), "segmentation.png"));
}

/** Say what a phone, or an old browser, cannot do. */
function checkDevice(): void {
  const lacking = [
    [typeof WebAssembly === "undefined", "WebAssembly"],
    [typeof DecompressionStream === "undefined", "DecompressionStream"],
  ].flatMap(([missing, name]) => (missing ? [name] : []));
  const small = matchMedia("(pointer: coarse) and (max-width: 48rem)").matches;
  const notes = [
    lacking.length ? `This browser lacks ${lacking.join(" and ")}: use a newer one.` : "",
    small ? "Phones and small tablets usually have too little memory for whole heads (up to 2 GB are needed), and take several minutes: use a computer." : "",
    !window.isSecureContext ? "This page was loaded without https: it runs with one thread, and not without a network." : "",
  ].filter(Boolean);
  element("device").textContent = notes.join(" ");
  element("device").hidden = !notes.length;
}

/** Keep the page for use without a network, and say when that is so. */
async function keepOffline(): Promise<void> {
  if (!("serviceWorker" in navigator)) return;
  await navigator.serviceWorker.register(new URL("sw.js", base));
  await navigator.serviceWorker.ready;
  element("offline").textContent = "Ready: this page now works without a network.";
  // a host without the headers for threads: the service worker sets them from the next load on
  if (!window.crossOriginIsolated && !sessionStorage.getItem("reloaded") && !images.t1w) {
    sessionStorage.setItem("reloaded", "yes");
    location.reload();
  }
}

async function open(): Promise<void> {
  element("unstarted").remove();
  checkDevice();
  watchForm();
  watchViewer();
  try {
    models = await loadModels(base);
    offerTasks();
    listModels();
    refresh();
  } catch (error) {
    problem(error instanceof Error ? error.message : String(error));
    return;
  }
  await keepOffline().catch(() => undefined);
}

void open();
