"use strict";
// Plots of sessions, each drawn when it comes into view.

// after Okabe and Ito: told apart with any kind of colour vision
const COLOURS = ["#2f86d6", "#d98a00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#a0844f", "#7f7f7f"];
const LIGHT = { mark: "#0072b2", ink: "#1d2329", quiet: "#56606b", line: "#d9dee3", paper: "#ffffff", bad: "#a8201a" };
const DARK = { mark: "#56b4e9", ink: "#e3e7eb", quiet: "#a0abb6", line: "#323a42", paper: "#14181c", bad: "#f09088" };

/** A score between 0 and 1, or a correlation, with two decimals. */
const score = (value) => (value === null || value === undefined ? "n/a" : value.toFixed(2));

/** A number with about three digits. */
function brief(value) {
  if (value === null || value === undefined) return "n/a";
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
}

/** Value below which the share q of sorted numbers lies. */
function quantile(sorted, q) {
  const at = (sorted.length - 1) * q;
  const low = Math.floor(at);
  return sorted[low] + (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]) * (at - low);
}

/** How far each value steps aside, -1 to 1, so that points show how many they are. */
function aside(values) {
  const low = Math.min(...values);
  const width = (Math.max(...values) - low) / 30 || 1;
  const bin = (v) => Math.floor((v - low) / width);
  const count = new Map();
  for (const v of values) count.set(bin(v), (count.get(bin(v)) || 0) + 1);
  const most = Math.max(...count.values());
  const placed = new Map();
  return values.map((v) => {
    const one = bin(v);
    const n = placed.get(one) || 0;
    placed.set(one, n + 1);
    const room = count.get(one) / Math.max(most, 8);
    return count.get(one) > 1 ? room * (2 * (((n * 0.618034) % 1)) - 1) : 0;
  });
}

/** The lines of a box plot around x: box, median and whiskers, with gaps between them. */
function box(values, x) {
  const sorted = [...values].sort((a, b) => a - b);
  const [a, b, c] = [0.25, 0.5, 0.75].map((q) => quantile(sorted, q));
  const reach = 1.5 * (c - a);
  const low = sorted.find((v) => v >= a - reach);
  const high = sorted.findLast((v) => v <= c + reach);
  const [l, r, gap] = [x - 0.4, x + 0.4, [null, null]];
  return [[l, a], [r, a], [r, c], [l, c], [l, a], gap, [l, b], [r, b], gap, [x, a], [x, low], gap, [x, c], [x, high], gap];
}

/** A plot with its title, its buttons, and the keys that go from point to point. */
class Panel {
  static all = [];

  static seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      entry.target.panel.visible = entry.isIntersecting;
      if (entry.isIntersecting) entry.target.panel.draw();
    }
  }, { rootMargin: "150px" });

  /** make(look) gives {option, points, columns}: points are {series, at, k, cells}. */
  constructor(holder, title, make) {
    Object.assign(this, { title, make, stale: true, visible: false, current: -1 });
    this.plot = element("div", { className: "plot", tabIndex: 0 });
    this.plot.setAttribute("role", "application");
    this.plot.setAttribute("aria-label", title);
    this.said = element("p", { className: "said" });
    this.said.setAttribute("aria-live", "polite");
    const svg = element("button", { type: "button", textContent: "SVG", title: "Download this figure" });
    const tsv = element("button", { type: "button", textContent: "TSV", title: "Download these points" });
    for (const button of [svg, tsv]) button.setAttribute("aria-label", `${title}: download as ${button.textContent}`);
    svg.addEventListener("click", () => page.save(this.file + ".svg", "image/svg+xml", this.svg()));
    tsv.addEventListener("click", () => page.save(this.file + ".tsv", "text/tab-separated-values", this.tsv()));
    const head = element("header", {}, element("h3", { textContent: title }), element("span", { className: "screen" }, svg, " ", tsv));
    this.printed = element("div", { className: "printed" });
    this.box = element("div", { className: "panel" }, head, this.plot, this.printed, this.said);
    this.box.panel = this;
    holder.append(this.box);
    this.plot.addEventListener("keydown", (event) => this.key(event));
    Panel.all.push(this);
    Panel.seen.observe(this.box);
  }

  get file() {
    return this.title.replace(/[^A-Za-z0-9]+/g, "_");
  }

  remove() {
    Panel.seen.unobserve(this.box);
    Panel.all.splice(Panel.all.indexOf(this), 1);
    this.chart?.dispose();
    this.box.remove();
  }

  static clear(holder) {
    for (const panel of Panel.all.filter((one) => holder.contains(one.box))) panel.remove();
  }

  /** What is shown has changed: draw again, now or when it comes into view. */
  static refresh() {
    for (const panel of Panel.all) {
      panel.stale = true;
      if (panel.visible) panel.draw();
    }
  }

  static look = LIGHT;

  /** For print: every plot as a vector graphic, also those that were never in view. */
  static print(on) {
    for (const panel of Panel.all) panel.printed.replaceChildren(...(on && window.echarts ? [panel.drawing()] : []));
  }

  async draw() {
    if (!this.stale) return;
    this.stale = false;
    await page.library("echarts");
    if (!this.box.isConnected) return;
    const made = this.made = this.make(Panel.look);
    this.current = -1;
    if (!this.chart) {
      this.chart = echarts.init(this.plot);
      this.chart.on("click", ({ data }) => Panel.open(data?.[2]));
      new ResizeObserver(() => this.chart.isDisposed() || this.chart.resize()).observe(this.plot);
    }
    this.chart.setOption(this.whole(made.option, Panel.look), true);
    this.plot.setAttribute("aria-label", `${this.title}: plot of ${made.points.length} ${made.points.length === 1 ? "point" : "points"}. Arrow keys move between points, Enter opens the subject report.`);
  }

  whole(option, look) {
    const axis = { axisLine: { onZero: false, lineStyle: { color: look.quiet } }, axisLabel: { color: look.quiet, hideOverlap: true }, nameTextStyle: { color: look.ink }, splitLine: { lineStyle: { color: look.line } } };
    const dressed = (one) => (Array.isArray(one) ? one.map((a) => ({ ...axis, ...a })) : { ...axis, ...one });
    return {
      animation: false, textStyle: { fontFamily: "system-ui, sans-serif" }, grid: { left: 12, right: 16, top: 30, bottom: option.xAxis.name ? 28 : 6, containLabel: true },
      ...option, xAxis: dressed(option.xAxis), yAxis: dressed(option.yAxis),
      legend: { top: 0, textStyle: { color: look.ink }, itemWidth: 14, data: option.names, show: (option.names || []).length > 1 },
      tooltip: { confine: true, formatter: ({ data, seriesName, color }) => this.tip(data, seriesName), backgroundColor: look.paper, borderColor: look.quiet, textStyle: { color: look.ink, fontSize: 12 } },
    };
  }

  tip(data) {
    if (!data || data[2] === undefined) return "";
    return element("div", {}, ...this.lines(data[2], data[3]).map((line) => element("div", { textContent: line })));
  }

  lines(k, text) {
    const about = [cohort.names[k], text];
    if (cohort.isOutlier(k)) about.push("Outlier: " + (cohort.qc.outlier_reasons?.[k] || ""));
    return about.filter(Boolean).map((line) => (line.length > 110 ? line.slice(0, 110) + "…" : line));
  }

  static open(k) {
    if (k !== undefined && cohort.pages[k]) location.href = encodeURI(cohort.pages[k]);
  }

  key(event) {
    const points = this.made?.points || [];
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (event.key === "Enter" && points[this.current]) Panel.open(points[this.current].k);
    if (!step || !points.length) return;
    event.preventDefault();
    this.current = (this.current + step + points.length + (this.current < 0 && step < 0)) % points.length;
    const point = points[this.current];
    this.chart.dispatchAction({ type: "showTip", seriesIndex: point.series, dataIndex: point.at });
    this.said.textContent = this.lines(point.k, point.text).join(", ") + (cohort.pages[point.k] ? ". Enter opens the subject report." : "");
  }

  drawing() {
    const svg = new DOMParser().parseFromString(this.svg({ width: 430, height: 300 }), "image/svg+xml").documentElement;
    if (!svg.hasAttribute("viewBox")) svg.setAttribute("viewBox", "0 0 430 300");
    for (const name of ["width", "height"]) svg.removeAttribute(name);
    return document.importNode(svg, true);
  }

  /** The figure in light colours, at the size on the screen unless another is given. */
  svg(size = { width: Math.max(this.plot.clientWidth, 480), height: this.plot.clientHeight || 300 }) {
    const chart = echarts.init(null, null, { renderer: "svg", ssr: true, ...size });
    chart.setOption({ ...this.whole(this.make(LIGHT).option, LIGHT), backgroundColor: LIGHT.paper });
    const text = chart.renderToSVGString();
    chart.dispose();
    return text;
  }

  tsv() {
    const { columns, points } = this.make(LIGHT);
    const rows = points.map((point) => [cohort.participants[point.k], cohort.sessions[point.k], ...point.cells]);
    return asTsv([["participant_id", "session_id", ...columns], ...rows]);
  }
}

/** Points in series by group; outliers apart. points: {x, y, k, text, cells}. */
function scatter(points, { groups, look, size = 5 }) {
  const names = groups ? [...groups.values, "unknown"] : ["sessions", "outliers"];
  const own = (k) => (groups ? Math.max(0, names.indexOf(cohort.people[groups.column][k] || "unknown")) : Number(cohort.isOutlier(k)));
  const series = names.map((name, n) => ({
    type: "scatter", name: String(name), data: [], z: 3 + (n === 1 && !groups), large: false,
    symbol: !groups && n ? "diamond" : "circle", symbolSize: !groups && n ? size + 4 : size,
    itemStyle: { color: groups ? COLOURS[n % COLOURS.length] : n ? look.bad : look.mark, opacity: points.length > 1500 ? 0.55 : 0.8 },
    emphasis: { scale: 1.8 },
  }));
  const listed = points.map(({ x, y, k, text, cells }) => {
    const n = own(k);
    series[n].data.push([x, y, k, text]);
    return { x, y, k, text, cells, series: n, at: series[n].data.length - 1 };
  });
  return { series, listed, names: series.filter((one) => one.data.length).map((one) => one.name) };
}

/** A line that is no session: it takes no part in hovering. */
function line(data, color, more = {}) {
  return { type: "line", data, symbol: "none", silent: true, tooltip: { show: false }, lineStyle: { color, width: 1.4, ...more }, itemStyle: { color }, z: 2, name: more.name };
}
