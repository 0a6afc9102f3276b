"use strict";
// The sessions of a study, and which of them the filters leave.

const cohort = {
  /** Read the data that lie in the page. */
  async load() {
    Object.assign(cohort, JSON.parse(new TextDecoder().decode(await page.bytes("cohort"))));
    cohort.size = cohort.participants.length;
    cohort.names = cohort.participants.map((who, k) => [who, cohort.sessions[k]].filter(Boolean).join(" "));
    const texts = [cohort.names, ...["findings", "reasons", "outlier_reasons"].map((c) => cohort.qc[c] || []),
      (cohort.qc.findings || []).map(sentences), ...Object.values(cohort.people)];
    cohort.haystacks = cohort.names.map((_, k) => texts.map((cells) => cells[k] || "").join(" \t ").toLowerCase());
    cohort.statuses = Object.keys(cohort.qc).filter((c) => c.endsWith("_status") && cohort.qc[c].some(Boolean));
    cohort.confidences = Object.fromEntries(cohort.tasks.map((one) => [one.task, cohort.meanConfidence(one)]));
    cohort.shown = [...cohort.names.keys()];
  },

  /** Columns of participants.tsv with few values, to filter and colour by. */
  groups() {
    const found = [];
    for (const [column, cells] of Object.entries(cohort.people)) {
      const values = [...new Set(cells.filter(Boolean))].sort();
      const dates = values.some((value) => /^\d{4}-\d\d-\d\d/.test(value));
      if (values.length >= 2 && values.length <= 8 && !dates) found.push({ column, values });
    }
    return found.slice(0, 6);
  },

  meanConfidence(one) {
    const measure = one.measures.find((m) => m.key === "confidence");
    return cohort.names.map((_, k) => {
      const known = measure ? measure.values.map((row) => row[k]).filter((v) => v !== null) : [];
      return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
    });
  },

  /** The most severe rating of a session; unrated if a task has none. */
  rating(k) {
    const own = cohort.tasks.filter((one) => cohort.qc[`${one.task}_status`]?.[k] === "done")
      .map((one) => ratings.word(cohort.participants[k], cohort.sessions[k], one.task));
    if (own.includes("fail")) return "fail";
    if (own.length === 0 || own.includes("")) return "unrated";
    return own.includes("doubtful") ? "doubtful" : "pass";
  },

  isOutlier(k) {
    return cohort.qc.outlier?.[k] === "yes";
  },

  /** Words that must all be found, and chosen values that must all hold. */
  filter({ words, status, severity, outlier, rating, people }) {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    const severe = { error: ["error"], warning: ["error", "warning"], none: ["none", ""] }[severity];
    cohort.shown = [...cohort.names.keys()].filter((k) => {
      if (!wanted.every((word) => cohort.haystacks[k].includes(word))) return false;
      if (severe && !severe.includes(cohort.qc.severity?.[k] ?? "")) return false;
      if (outlier && !cohort.isOutlier(k)) return false;
      if (rating && cohort.rating(k) !== rating) return false;
      if (people.some(([column, value]) => cohort.people[column][k] !== value)) return false;
      const found = cohort.statuses.map((c) => cohort.qc[c][k]).filter(Boolean);
      if (status === "clean") return found.every((one) => one === "done");
      return !status || found.includes(status);
    });
  },
};

/** The number in a cell that somebody else wrote, as the tables of the group level read it; null if it is none. */
function numberIn(cell) {
  const text = String(cell ?? "");
  if (!/^[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?$/i.test(text) || /^[+-]?\d{1,3},\d{3}$/.test(text)) return null;
  return Number(text.replace(",", "."));
}

/** Findings in words: tags as "warning:thick-slices", separated by commas, become sentences. */
function sentences(tags) {
  return (tags || "").split(",").filter(Boolean).map((tag) => {
    const [severity, code] = [tag.slice(0, tag.indexOf(":")), tag.slice(tag.indexOf(":") + 1)];
    return `${cohort.codes[code] || code} (${severity})`;
  }).join("; ");
}

/** A table of sessions: pages of 15 rows, sorted by a click on a title. */
class SessionTable {
  static rows = 15;

  constructor(holder, { name, caption, columns, keep = () => true, sort, empty }) {
    Object.assign(this, { holder, name, caption, columns, keep, empty, first: 0 });
    this.sort = sort;
    this.build();
  }

  build() {
    this.body = element("tbody");
    this.shown = this.columns.filter((column) => !column.hidden); // all are in the TSV
    this.heads = this.shown.map((column) => {
      const button = element("button", { type: "button", textContent: column.title });
      button.addEventListener("click", () => this.sortBy(column));
      return element("th", { scope: "col", className: column.number && !column.wraps ? "number" : "" }, button);
    });
    const caption = element("caption", { textContent: this.caption });
    const table = element("table", { className: "sortable" }, caption, element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    const scroll = element("div", { className: "scroll", tabIndex: 0 }, table);
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", this.caption);
    this.state = element("span");
    this.before = element("button", { type: "button", textContent: "Previous" });
    this.after = element("button", { type: "button", textContent: "Next" });
    this.before.addEventListener("click", () => this.turn(-1));
    this.after.addEventListener("click", () => this.turn(1));
    const save = element("button", { type: "button", textContent: "Download TSV", className: "save" });
    save.addEventListener("click", () => page.save(this.name + ".tsv", "text/tab-separated-values", this.tsv()));
    this.holder.append(scroll, element("p", { className: "pager screen" }, this.before, this.after, this.state, save));
  }

  turn(pages) {
    this.first += pages * SessionTable.rows;
    this.draw();
  }

  sortBy(column) {
    const down = this.sort.column === column.title ? !this.sort.down : Boolean(column.number);
    this.sort = { column: column.title, down };
    this.first = 0;
    this.update();
    this.sorted?.();
  }

  /** Take the sessions that the filters leave. */
  update() {
    const column = this.columns.find((one) => one.title === this.sort.column);
    const value = (k) => {
      if (column.rank) return column.rank(k);
      const cell = column.value(k);
      return column.number ? numberIn(cell) : cell;
    };
    const unknown = (v) => v === null || v === undefined || v === "" || Number.isNaN(v);
    const order = new Intl.Collator("en", { numeric: true }).compare;
    this.found = cohort.shown.filter(this.keep).map((k) => [value(k), k]);
    this.found.sort(([a, i], [b, j]) => {
      if (unknown(a) || unknown(b)) return unknown(a) - unknown(b) || i - j; // what is not known comes last
      const sign = this.sort.down ? -1 : 1;
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : order(String(a), String(b))) || i - j;
    });
    this.found = this.found.map(([, k]) => k);
    this.draw();
  }

  /** All rows for print, a page of them on the screen. */
  print(on) {
    this.whole = on;
    this.draw();
  }

  draw() {
    if (this.whole) {
      const rows = this.found.slice(0, 2000);
      this.body.replaceChildren(...rows.map((k) => element("tr", {}, ...this.shown.map((column) => this.cell(column, k)))));
      return;
    }
    const last = Math.max(0, Math.floor((this.found.length - 1) / SessionTable.rows) * SessionTable.rows);
    this.first = Math.min(Math.max(0, this.first), last);
    const rows = this.found.slice(this.first, this.first + SessionTable.rows);
    this.body.replaceChildren(...rows.map((k) => element("tr", {}, ...this.shown.map((column) => this.cell(column, k)))));
    this.heads.forEach((head, n) => {
      const own = this.shown[n].title === this.sort.column;
      if (own) head.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    this.state.textContent = rows.length
      ? `${this.first + 1} to ${this.first + rows.length} of ${this.found.length}` : this.empty;
    this.before.disabled = this.first === 0;
    this.after.disabled = this.first >= last;
  }

  cell(column, k) {
    const value = column.value(k);
    const text = value === null || value === undefined || value === "" ? "n/a" : column.says ? column.says(k) : column.show ? column.show(value) : String(value);
    const cell = element("td", { className: column.wraps ? "" : column.number ? "number" : text.length > 40 ? "long" : "word" });
    if (column.link && cohort.pages[k]) cell.append(element("a", { href: encodeURI(cohort.pages[k]), textContent: text }));
    else if (column.word) cell.append(element("span", { className: column.word(text), textContent: text }));
    else cell.textContent = text;
    return cell;
  }

  tsv() {
    return asTsv([this.columns.map((one) => one.key || one.title), ...this.found.map((k) => this.columns.map((one) => one.value(k)))]);
  }
}
