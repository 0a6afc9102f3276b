"use strict";
// The page of a subject: faders of the contours, and a viewer for each session.

for (const figure of document.querySelectorAll(".slices")) {
  const fade = figure.querySelector(".fade");
  fade.hidden = false;
  fade.querySelector("input").addEventListener("input", (event) => {
    for (const over of figure.querySelectorAll(".over")) over.style.opacity = event.target.value / 100;
  });
  // the structure under the pointer, by its row in the table
  const names = figure.closest(".result");
  const pointed = figure.querySelector(".pointed");
  const row = (index) => names.querySelector(`[data-index="${index}"] .name, [data-index="${index}"] .go`);
  figure.addEventListener("pointerover", ({ target }) => {
    const index = target.dataset?.index;
    pointed.textContent = index === undefined ? "" : row(index)?.textContent ?? `label ${index}`;
  });
  figure.addEventListener("click", ({ target }) => {
    const found = target.dataset?.index === undefined ? null : row(target.dataset.index)?.closest("tr");
    if (found?.closest("details")) found.closest("details").open = true;
    found?.click();
  });
}

// make the name of a row a button, which goes with a click on the row
function makeReachable(row, go) {
  const name = row.querySelector(".name");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "go";
  button.textContent = name.textContent;
  button.title = "Show in the viewer";
  name.replaceWith(button);
  row.classList.add("reachable");
  row.addEventListener("click", go);
}

// long tables: words in a name leave the rows that have them; all are shown on paper
for (const search of document.querySelectorAll(".find-rows")) {
  const details = search.closest("details");
  const said = details.querySelector(".find output");
  details.querySelector(".find").hidden = false;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const part of details.querySelectorAll("tbody")) {
      const fits = (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
      const rows = [...part.querySelectorAll("tr[data-name]")];
      part.hidden = words.length > 0 && !rows.some(fits);
      if (!part.hidden) found += rows.length;
    }
    said.textContent = words.length ? `${found} found` : "";
  });
  const whole = !details.parentElement.querySelector("table[data-kind=regions]"); // else too many for paper
  addEventListener("beforeprint", () => { if (whole) details.open = true; });
}

for (const button of document.querySelectorAll("button.copy")) {
  const text = document.getElementById(button.dataset.from).innerText;
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
}

class Viewer {
  /** The one that is open: a browser keeps few WebGL contexts. */
  static current = null;

  constructor(section) {
    this.section = section;
    this.anchor = section.dataset.anchor;
    this.places = JSON.parse(document.getElementById("places-" + this.anchor).textContent);
    this.shown = -2;
    section.hidden = false;
    this.find(".open").addEventListener("click", () => this.open());
    this.find("select").addEventListener("change", (event) => this.show(Number(event.target.value)));
    this.find(".opacity").addEventListener("input", () => this.outline());
    this.find(".outline").addEventListener("change", () => this.outline());
    for (const one of [".level", ".window"]) this.find(one).addEventListener("input", () => this.window());
    this.find(".reset").addEventListener("click", () => {
      this.find(".level").value = this.find(".window").value = 50;
      this.window();
    });
    const whole = this.find(".whole");
    whole.hidden = !document.fullscreenEnabled;
    whole.addEventListener("click", () => this.find(".stage").requestFullscreen());
    this.rows();
  }

  find(selector) {
    return this.section.querySelector(selector);
  }

  /** Make the name of each structure that the viewer knows a button. */
  rows() {
    for (const table of this.section.closest(".session").querySelectorAll("table[data-task]")) {
      const map = this.places.findIndex((one) => one.task === table.dataset.task);
      for (const row of map < 0 ? [] : table.querySelectorAll("tr[data-index]")) {
        const place = this.places[map].places.find((one) => one.index === Number(row.dataset.index));
        if (!place) continue;
        makeReachable(row, () => this.go(map, place));
      }
    }
  }

  problem() {
    if (!document.createElement("canvas").getContext("webgl2"))
      return "The viewer requires WebGL 2, which this browser does not support. The images below show the same contours.";
    if (typeof DecompressionStream === "undefined")
      return "The viewer requires a newer browser (with DecompressionStream). The images below show the same contours.";
    return "";
  }

  /** Start once; a second call waits for the first. */
  open() {
    this.opening ??= this.start();
    return this.opening;
  }

  async start() {
    const problem = this.problem();
    if (problem) return this.tell(problem);
    this.find(".open").textContent = "Opening …";
    try {
      await page.library("niivue");
      Viewer.current?.close();
      Viewer.current = this;
      this.stage(true);
      await this.load();
    } catch (error) {
      this.stage(false);
      this.tell("The viewer could not start: " + error + ". The images below show the same contours.");
    }
  }

  async load() {
    const viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.8],
      crosshairWidth: 1,
      dragAndDropEnabled: false,
      isNearestInterpolation: false,
      loadingText: "",
      logLevel: "error",
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
      show3Dcrosshair: true,
    });
    viewer.onLocationChange = (where) => this.locate(where);
    const canvas = this.find("canvas");
    await viewer.attachToCanvas(canvas, false);
    canvas.addEventListener("keydown", (event) => this.key(event), { capture: true });
    this.viewer = viewer;
    this.scans = {};
    this.maps = {};
    const first = this.places.findIndex((one) => !one.mask);
    await this.show(Math.max(first, 0));
  }

  async image(id, name) {
    return niivue.NVImage.loadFromUrl({ url: await page.bytes(id), name });
  }

  /** The label map of a task, with its colours. */
  async labels(number) {
    const map = this.places[number];
    const image = await this.image(`map-${this.anchor}-${number}`, map.task + ".nii");
    image.hdr.intent_code = 1002; // a label map: of others the viewer draws no outlines
    const entries = [{ index: 0, name: "", rgb: [0, 0, 0] }, ...map.places];
    image.setColormapLabel({
      R: entries.map((one) => one.rgb[0]),
      G: entries.map((one) => one.rgb[1]),
      B: entries.map((one) => one.rgb[2]),
      A: entries.map((one) => (one.index ? 255 : 0)),
      I: entries.map((one) => one.index),
      labels: entries.map((one) => one.name),
    });
    return image;
  }

  async scan(number) {
    const image = await this.image(`scan-${this.anchor}-${number}`, "scan.nii");
    image.colormap = "gray";
    return image;
  }

  /**
   * Lay one label map on its scan; -1: none, on the scan that is there. One at a time, since each
   * takes memory and time.
   */
  async show(number) {
    this.find("select").value = number;
    if (this.shown === number) return;
    this.shown = number;
    const below = this.places[number]?.scan ?? this.below ?? 0;
    this.scans[below] ??= await this.scan(below);
    if (number >= 0) this.maps[number] ??= await this.labels(number);
    if (this.shown !== number) return;
    const kept = this.below === below ? 1 : 0;
    for (const old of this.viewer.volumes.slice(kept).reverse()) this.viewer.removeVolume(old);
    if (!kept) this.viewer.addVolume(this.scans[below]);
    this.below = below;
    if (number >= 0) {
      this.maps[number].opacity = this.opacity();
      this.viewer.addVolume(this.maps[number]);
    }
    this.outline();
    this.window();
    this.viewer.createOnLocationChange(); // the readout is about the map that is shown
  }

  opacity() {
    return this.find(".opacity").value / 100;
  }

  /** The structures as areas or, in place of these, as outlines, as opaque as is chosen. */
  outline() {
    if (!(this.viewer?.volumes.length > 1)) return;
    const lines = this.find(".outline").checked;
    this.viewer.opts.atlasOutline = lines ? this.opacity() : 0;
    this.viewer.setOpacity(1, lines ? 0.001 : this.opacity());
  }

  /** Brightness and contrast of the scan: 50 is the whole range of its greys. */
  window() {
    const scan = this.viewer?.volumes[0];
    if (!scan) return;
    const range = scan.global_max - scan.global_min;
    const width = range * 4 ** ((50 - this.find(".window").value) / 50);
    const middle = scan.global_min + range * (1 - this.find(".level").value / 100);
    [scan.cal_min, scan.cal_max] = [middle - width / 2, middle + width / 2];
    this.viewer.updateGLVolume();
  }

  /** Move the crosshair to a structure. */
  async go(map, place) {
    await this.open();
    if (!this.viewer) return;
    await this.show(map);
    this.viewer.scene.crosshairPos = this.viewer.mm2frac(place.centre);
    this.viewer.createOnLocationChange();
    this.viewer.drawScene();
    this.section.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const step = {
      ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0],
      PageDown: [0, 0, -1], PageUp: [0, 0, 1],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    this.viewer.moveCrosshairInVox(...step);
  }

  /** Say where the crosshair is, and in which structure. */
  locate(where) {
    const mm = Array.from(where.mm).slice(0, 3).map((one) => one.toFixed(0)).join(", ");
    const value = where.values[1]?.value;
    const place = this.places[this.shown]?.places.find((one) => one.index === Math.round(value));
    this.find(".where").textContent = `${mm} mm` + (place ? `: ${place.name.replaceAll("-", " ")}` : "");
  }

  tell(text) {
    const note = this.find(".problem");
    note.textContent = text;
    note.hidden = false;
    this.find(".open").hidden = true;
  }

  stage(open) {
    for (const part of this.section.querySelectorAll(".opened, .stage")) part.hidden = !open;
    this.find(".open").hidden = open;
  }

  close() {
    this.viewer?.gl.getExtension("WEBGL_lose_context")?.loseContext();
    this.viewer = this.scans = this.maps = this.opening = this.below = null;
    this.shown = -2;
    const canvas = this.find("canvas");
    canvas.replaceWith(canvas.cloneNode());
    this.stage(false);
    this.find(".open").textContent = "Open the viewer";
  }
}

/** A task as the headings call it. */
function titleOf(task) {
  return document.querySelector(`.rating[data-task="${CSS.escape(task)}"]`)?.dataset.title ?? task;
}

/** What the group level says: verdicts, percentiles, and the pages before and after this one. */
const study = {
  start() {
    study.facts = JSON.parse(document.getElementById("study").textContent);
    for (const [session, one] of Object.entries(study.facts.sessions || {})) {
      study.judge(session, one);
      const section = document.querySelector(`section.session[data-session="${CSS.escape(session)}"]`);
      for (const [task, places] of Object.entries(one.standing || {})) {
        const tables = section?.querySelectorAll(`table[data-task="${CSS.escape(task)}"]`) ?? [];
        for (const table of Object.keys(places).length ? tables : []) study.place(table, places);
      }
    }
    study.pages();
    if (study.facts.norms) norms.start(study.facts.norms);
  },

  /** The verdict of the group level, which knows outliers and ratings, in place of the run's. */
  judge(session, { verdict, verdict_reason: reason, outlier_reasons: outlier, excluded }) {
    const note = document.querySelector(`.verdict[data-session="${CSS.escape(session)}"]`);
    if (!note || !verdict) return;
    const levels = ["ok", "check", "problem"];
    const [before] = levels.filter((level) => note.classList.contains(level));
    const worse = levels.indexOf(verdict) > levels.indexOf(before);
    if (worse) {
      note.classList.replace(before, verdict);
      note.querySelector("b").textContent = verdict;
    }
    const known = [];
    if (excluded) known.push(`Rated fail: ${excluded.split(",").map(titleOf).join(", ")}.`);
    if (outlier) known.push(`Outlier in the cohort: ${firstOf(outlier)}.`);
    const same = verdict === "ok" && before === "ok"; // the group level knows of outliers, too
    if ((worse || same) && !known.length && reason) known.push(reason);
    const why = note.querySelector(".why");
    if (known.length) why.textContent = [...(before === "ok" ? [] : [why.textContent]), ...known].join(" ");
  },

  place(table, places) {
    for (const part of table.querySelectorAll(".standing")) part.hidden = false;
    table.querySelector(".of").textContent = Math.max(...Object.values(places).map((one) => one[1]));
    for (const row of table.querySelectorAll("tr[data-name]")) {
      const [percentile, , z, adjusted, norm] = places[row.dataset.name] || [];
      const cell = row.querySelector(".standing");
      cell.textContent = percentile === undefined ? "n/a" : String(percentile);
      if (z === null || z === undefined) continue;
      const signed = (value) => (value.toFixed(1) < 0 ? "" : "+") + value.toFixed(1).replace("-0.0", "0.0");
      const known = (value) => value !== null && value !== undefined;
      const more = (known(adjusted) ? `; adj.\u00a0${signed(adjusted)}` : "") + (known(norm) ? `; ref.\u00a0${Math.round(norm)}` : "");
      cell.append(element("span", { className: "quiet", textContent: ` (z\u00a0${signed(z)}${more})` }));
    }
  },

  /** Links to the group report and to the pages before and after, in the order chosen there. */
  pages() {
    if (!study.facts.group) return;
    const own = decodeURIComponent(location.pathname.split("/").pop());
    let order = study.facts.order;
    try {
      const chosen = JSON.parse(localStorage.getItem(ratings.place.replace("ratings", "order")) || "[]");
      if (chosen.includes(own)) order = chosen;
    } catch { /* the order of the group level */ }
    const at = order.indexOf(own);
    const holder = document.getElementById("pages");
    holder.hidden = false;
    holder.append(element("a", { href: study.facts.group, textContent: "Group report" }));
    study.links = [order[at - 1], order[at + 1]].map((page, n) => {
      if (at < 0 || !page) return null;
      const name = page.replace(".html", "");
      const link = element("a", { href: encodeURI(page), textContent: n ? `Next: ${name} →` : `← Previous: ${name}`, rel: n ? "next" : "prev" });
      holder.append(link);
      return link;
    });
    if (at >= 0) holder.append(element("span", { className: "quiet", textContent: `${at + 1} of ${order.length}` }));
    document.addEventListener("keydown", (event) => {
      const link = { ArrowLeft: study.links[0], ArrowRight: study.links[1] }[event.key];
      if (link && !isWriting(event) && !event.target.matches("input, .scroll")) link.click();
    });
  },
};

/** Reference centiles: for each structure a plot over age with the points of this person. */
const norms = {
  width: 300, height: 170, left: 44, right: 26, top: 8, bottom: 30, many: 30,

  start({ centiles, tasks }) {
    norms.centiles = centiles;
    const panels = Object.entries(tasks);
    if (!panels.length) return;
    document.getElementById("norms-outer").textContent = `${centiles[0]} and ${centiles.at(-1)}`;
    document.getElementById("norms-inner").textContent = centiles.slice(1, -1).join(", ") || "(none)";
    for (const id of ["norms", "norms-link"]) document.getElementById(id).hidden = false;
    for (const [task, own] of panels) {
      const grid = element("div", { className: "norm-panels" }, ...own.map(norms.panel));
      const title = titleOf(task);
      const holder = own.length > norms.many ? element("details", {}, element("summary", { textContent: `${title}: ${own.length} structures` }), grid) : element("div", {}, element("h3", { textContent: title }), grid);
      document.getElementById("norms-panels").append(holder);
    }
  },

  /** One structure: its name, the plot, and the same in words. */
  panel({ name, ages, volumes, points }) {
    const scale = Math.max(...volumes.at(-1)) >= 1e5 ? 1000 : 1;
    const unit = scale === 1 ? "mm³" : "ml";
    const shown = (value) => (value / scale).toLocaleString("en", { maximumSignificantDigits: 4 });
    const words = points.map(([session, age, volume, , , centile]) => {
      const who = points.length > 1 ? `${session}: ` : "";
      if (age === null) return `${who}age not known`;
      if (volume === null) return `${who}volume not known`;
      return `${who}${shown(volume)} ${unit} at age ${age}, ` + (centile === null ? "outside the ages of the reference" : norms.place(centile));
    });
    const caption = element("figcaption", {}, element("b", { textContent: name.replaceAll("-", " ") }), element("br"), words.join("; "));
    const figure = element("figure", { className: "norm" }, caption);
    figure.prepend(norms.plot({ ages, volumes, points: points.filter((one) => one[1] !== null && one[2] !== null), scale, unit, label: `${name.replaceAll("-", " ")} over age: ${words.join("; ")}` }));
    return figure;
  },

  /** A centile in words; beyond the outermost ones nothing more is known. */
  place(centile) {
    const [first, last] = [norms.centiles[0], norms.centiles.at(-1)];
    return centile <= first ? `at or below centile ${first}` : centile >= last ? `at or above centile ${last}` : `centile ${Math.round(centile)}`;
  },

  /** Of drawings, as the browser names it: a page holds no address. */
  namespace: Object.assign(document.createElement("div"), { innerHTML: "<svg></svg>" }).firstChild.namespaceURI,

  draw(name, facts, text) {
    const made = document.createElementNS(norms.namespace, name);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  },

  plot({ ages, volumes, points, scale, unit, label }) {
    const { width, height, left, right, top, bottom, draw } = norms;
    const values = [...volumes[0], ...volumes.at(-1), ...points.flatMap((one) => one.slice(2, 5)).filter((one) => one !== null)];
    const years = [...ages, ...points.map((one) => one[1])];
    const [x, y] = [norms.axis(years, left, width - right), norms.axis(values, height - bottom, top)];
    const path = (line) => line.map((value, k) => `${k ? "L" : "M"}${x.at(ages[k]).toFixed(1)} ${y.at(value).toFixed(1)}`).join("");
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
    const back = [...volumes.at(-1)].reverse().map((value, k) => `L${x.at(ages[ages.length - 1 - k]).toFixed(1)} ${y.at(value).toFixed(1)}`).join("");
    svg.append(draw("path", { class: "band", d: `${path(volumes[0])}${back}Z` }));
    volumes.forEach((line, c) => {
      const outer = c === 0 || c === volumes.length - 1;
      svg.append(draw("path", { class: `centile${outer ? " outer" : ""}${norms.centiles[c] === 50 ? " median" : ""}`, d: path(line) }));
      if (outer || norms.centiles[c] === 50) svg.append(draw("text", { x: width - right + 3, y: y.at(line.at(-1)) + 3 }, norms.centiles[c]));
    });
    for (const value of y.ticks) svg.append(draw("text", { x: left - 5, y: y.at(value) + 3, "text-anchor": "end" }, (value / scale).toLocaleString("en")));
    for (const value of x.ticks) svg.append(draw("text", { x: x.at(value), y: height - bottom + 13, "text-anchor": "middle" }, value));
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, `age, years (volume in ${unit})`));
    const placed = [...points].sort((a, b) => a[1] - b[1]);
    if (placed.length > 1) svg.append(draw("polyline", { class: "person", points: placed.map((one) => `${x.at(one[1])},${y.at(one[2])}`).join(" ") }));
    for (const [, age, volume, low, high] of placed) {
      if (low !== null && high !== null) svg.append(draw("path", { class: "person", d: `M${x.at(age)} ${y.at(low)}V${y.at(high)}` }));
      svg.append(draw("circle", { class: "person", cx: x.at(age), cy: y.at(volume), r: 4 }));
    }
    return svg;
  },

  /** Where values lie between two places, and three to six round ones among them. */
  axis(values, from, to) {
    let [low, high] = [Math.min(...values), Math.max(...values)];
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    [low, high] = [low - room, high + room];
    const rough = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
    const ticks = [];
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) ticks.push(Number(value.toPrecision(12)));
    return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks };
  },
};

/** Rate with the keyboard: a rating goes on to the next result. */
const rater = {
  current: 0,

  start() {
    ratings.start();
    rater.boxes = Array.from(document.querySelectorAll(".rating"), (holder) => {
      const { participant, session, task, name } = holder.dataset;
      const box = new RatingBox(holder, participant, session, task, name);
      box.leave = () => document.activeElement.blur();
      return box;
    });
    ratings.told.add(() => rater.boxes.forEach((box) => box.show()));
    document.addEventListener("keydown", (event) => {
      if (isWriting(event) || !rater.boxes.length) return;
      const step = { j: 1, k: -1 }[event.key.toLowerCase()];
      if (step) rater.go(rater.current + step);
      else if (rater.boxes[rater.current].key(event)) rater.go(rater.current + 1);
    });
    rater.mark();
  },

  go(number) {
    rater.current = Math.min(Math.max(number, 0), rater.boxes.length - 1);
    rater.mark();
    rater.boxes[rater.current].holder.closest("section").scrollIntoView({ block: "start" });
  },

  mark() {
    rater.boxes.forEach((box, n) => box.holder.classList.toggle("current", n === rater.current));
  },
};
rater.start();
study.start();

const viewers = Array.from(document.querySelectorAll(".viewer"), (section) => new Viewer(section));
