"use strict";
// Quality ratings: kept in this browser for all reports of a folder, exported and imported as TSV.

const LEVELS = ["pass", "doubtful", "fail"];

/** An element with properties and children; texts are texts, never markup. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Cells as a tab-separated table; white space within a cell becomes one space. */
function asTsv(rows) {
  const clean = (cell) => (cell === null || cell === undefined || cell === "" ? "n/a" : String(cell).replace(/\s+/g, " "));
  return rows.map((row) => row.map(clean).join("\t") + "\n").join("");
}

const ratings = {
  place: "deepmrseg-bids ratings " + location.protocol + location.host + location.pathname.replace(/[^/]*$/, ""),
  columns: ["participant_id", "session_id", "task", "rating", "comment", "rater", "time"],
  all: new Map(),
  given: new Map(),
  givers: [],
  rater: "",
  told: new Set(),

  /** Read what this browser has kept, and what came with the page. */
  start(given = []) {
    const meaning = document.getElementById("ratings-json");
    ratings.meaning = meaning ? meaning.textContent : "{}";
    try {
      ratings.rater = localStorage.getItem("deepmrseg-bids rater") || "";
    } catch {
      ratings.lost = true;
    }
    for (const row of given) ratings.given.set(ratings.key(row.participant_id, row.session_id, row.task, row.rater), row);
    ratings.givers = [...new Set(given.map((row) => row.rater))];
    for (const row of [...given, ...ratings.kept()]) ratings.add(row);
    addEventListener("storage", ({ key }) => {
      if (key !== ratings.place) return;
      for (const row of ratings.kept()) ratings.add(row);
      ratings.changed();
    });
    ratings.bar();
    ratings.changed();
  },

  kept() {
    try {
      return JSON.parse(localStorage.getItem(ratings.place) || "[]");
    } catch {
      return [];
    }
  },

  keep() {
    try {
      localStorage.setItem(ratings.place, JSON.stringify([...ratings.all.values()]));
      localStorage.setItem("deepmrseg-bids rater", ratings.rater);
    } catch {
      ratings.lost = true;
    }
  },

  key(participant, session, task, rater = ratings.rater) {
    return [participant, session || "", task, rater].join("\t");
  },

  /** Take a row, unless a later one about the same result by the same rater is known. */
  add(row) {
    const key = ratings.key(row.participant_id, row.session_id, row.task, row.rater);
    if ((ratings.all.get(key)?.time ?? "") > row.time) return false;
    ratings.all.set(key, row);
    return true;
  },

  /** What the present rater, or another one, says of a result. */
  of(participant, session, task, { rater = ratings.rater, rows = ratings.all } = {}) {
    return rows.get(ratings.key(participant, session, task, rater)) || rows.get(ratings.key(participant, session, "", rater));
  },

  /** The rating of a result: that of the rater who is named, else the most severe one that came with the page. */
  word(participant, session, task) {
    const own = ratings.of(participant, session, task)?.rating;
    if (own || ratings.rater) return own || "";
    const found = ratings.givers.map((rater) => ratings.of(participant, session, task, { rater, rows: ratings.given })?.rating);
    return [...LEVELS].reverse().find((level) => found.includes(level)) ?? "";
  },

  rate(participant, session, task, changes) {
    const old = ratings.of(participant, session, task) || {};
    const time = new Date().toISOString().slice(0, 19) + "Z";
    const row = { participant_id: participant, session_id: session || "", task, rating: old.rating || "", comment: old.comment || "", rater: ratings.rater, ...changes, time };
    ratings.all.set(ratings.key(participant, session, task), row);
    ratings.keep();
    ratings.changed();
  },

  changed() {
    for (const tell of ratings.told) tell();
    const rows = ratings.rows();
    const own = rows.filter((row) => row.rater === ratings.rater).length;
    const said = document.getElementById("rated");
    if (said) said.textContent = `${own} rated` + (own < rows.length ? `, ${rows.length - own} by other raters` : "") + (own && !ratings.rater ? "; enter your name as rater" : "") + (ratings.lost ? "; this browser does not keep ratings: export them before you close the page" : "");
  },

  rows() {
    return [...ratings.all.values()].filter((row) => row.rating || row.comment);
  },

  tsv() {
    const rows = ratings.rows().map((row) => ratings.columns.map((column) => row[column]));
    const order = new Intl.Collator("en", { numeric: true }).compare;
    rows.sort((a, b) => order(a.slice(0, 3).join("\t"), b.slice(0, 3).join("\t")) || order(a[5], b[5]));
    return asTsv([ratings.columns, ...rows]);
  },

  /** The cells of a table, also as spreadsheets write it: with commas or semicolons, with quotes. */
  cells(text) {
    const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/).filter((line) => line.trim() && !/^"?sep=.?"?\s*$/i.test(line));
    const between = ["\t", ";", ","].find((one) => lines[0]?.includes(one)) ?? "\t";
    const cell = new RegExp(`(?:"((?:[^"]|"")*)"|([^${between}]*))(?:${between}|$)`, "y");
    return lines.map((line) => {
      const found = [];
      for (cell.lastIndex = 0; cell.lastIndex <= line.length;) {
        const start = cell.lastIndex;
        const [whole, quoted, plain] = cell.exec(line) ?? [line.slice(start), undefined, line.slice(start)];
        found.push((quoted === undefined ? plain : quoted.replaceAll('""', '"')).trim());
        if (start + whole.length >= line.length && !(whole.endsWith(between) && start + whole.length === line.length)) break;
        cell.lastIndex = start + whole.length;
      }
      return found;
    });
  },

  /** The text of a file; spreadsheets write UTF-16, too. */
  async text(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const mark = { "255,254": "utf-16le", "254,255": "utf-16be" }[bytes.slice(0, 2).join()];
    return new TextDecoder(mark ?? "utf-8").decode(bytes);
  },

  /** Add the rows of a table; how many are new. */
  read(text) {
    const [head, ...lines] = ratings.cells(text);
    if (!head || !head.includes("participant_id") || !head.includes("rating")) throw new Error("no columns participant_id and rating, separated by tabs");
    let count = 0;
    for (const cells of lines) {
      const row = Object.fromEntries(ratings.columns.map((column) => {
        const cell = cells[head.indexOf(column)] ?? "";
        return [column, cell === "n/a" ? "" : cell];
      }));
      row.rating = row.rating.toLowerCase();
      if (row.rating && !LEVELS.includes(row.rating)) throw new Error(`${row.rating} is not a rating`);
      count += ratings.add(row);
    }
    ratings.keep();
    ratings.changed();
    return count;
  },

  bar() {
    const bar = document.getElementById("ratings-bar");
    bar.hidden = false;
    const find = (name) => bar.querySelector(name);
    find("#rater").value = ratings.rater;
    find("#rater").addEventListener("input", ({ target }) => {
      ratings.rater = target.value.trim().replace(/\s+/g, " ");
      ratings.keep();
      ratings.changed();
    });
    find("#export").addEventListener("click", () => {
      page.save("ratings.tsv", "text/tab-separated-values", ratings.tsv());
      page.save("ratings.json", "application/json", ratings.meaning);
    });
    find("#import").addEventListener("change", async ({ target }) => {
      const said = find("#imported");
      said.textContent = "";
      for (const file of target.files) {
        try {
          const count = ratings.read(await ratings.text(file));
          said.textContent += `${file.name}: ${count} row${count === 1 ? "" : "s"} read. `;
        } catch (error) {
          said.textContent += `${file.name}: not read (${error.message}). `;
        }
      }
      target.value = "";
    });
  },
};

/** Whether a key is meant for a text that somebody writes, or for the browser. */
const isWriting = ({ target, ctrlKey, altKey, metaKey }) => ctrlKey || altKey || metaKey
  || target.matches("input:not([type=checkbox]):not([type=range]), select, textarea, canvas");

/** The buttons and the comment of one result. */
class RatingBox {
  constructor(holder, participant, session, task, name) {
    Object.assign(this, { holder, participant, session, task });
    holder.setAttribute("role", "group");
    holder.setAttribute("aria-label", `Rating of ${name}`);
    this.buttons = LEVELS.map((level, n) => {
      const button = element("button", { type: "button", className: `rate ${level}`, textContent: level, title: `Key ${n + 1}` });
      button.addEventListener("click", (event) => {
        event.stopPropagation();
        this.rate(n);
      });
      return button;
    });
    this.comment = element("input", { type: "text", className: "comment", placeholder: "comment (C)" });
    this.comment.setAttribute("aria-label", `Comment on ${name}`);
    this.comment.addEventListener("change", () => ratings.rate(participant, session, task, { comment: this.comment.value.trim() }));
    this.comment.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === "Escape") this.leave?.();
      event.stopPropagation();
    });
    holder.append(...this.buttons, this.comment);
    this.show();
  }

  get row() {
    return ratings.of(this.participant, this.session, this.task);
  }

  /** Rate; the same rating again, or -1, takes it away. */
  rate(level) {
    const rating = LEVELS[level] ?? "";
    ratings.rate(this.participant, this.session, this.task, { rating: this.row?.rating === rating ? "" : rating });
  }

  /** What a key means: true if it was a rating, false if nothing. */
  key(event) {
    if (event.key === "c" || event.key === "C") {
      event.preventDefault();
      this.comment.hidden = false;
      this.comment.focus();
      return false;
    }
    if (!["0", "1", "2", "3"].includes(event.key)) return false;
    event.preventDefault();
    const rating = LEVELS[Number(event.key) - 1] ?? "";
    ratings.rate(this.participant, this.session, this.task, { rating });
    return true;
  }

  show() {
    const { rating = "", comment = "" } = this.row || {};
    this.buttons.forEach((button, n) => button.setAttribute("aria-pressed", String(LEVELS[n] === rating)));
    if (document.activeElement !== this.comment) this.comment.value = comment;
    this.holder.dataset.rating = rating;
  }
}
