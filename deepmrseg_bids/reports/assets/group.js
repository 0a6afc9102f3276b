"use strict";
// The page of a study: filters, tables, plots, mosaics.

const byId = (id) => document.getElementById(id);

/** Fill a choice with [value, text] and keep what was chosen where it still is there. */
function choices(id, pairs) {
  const select = byId(id);
  const old = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value, textContent: text })));
  if (pairs.some(([value]) => String(value) === old)) select.value = old;
}

const taskTitle = (task) => cohort.titles[task] || task;
// what is shown first: a task of several structures, rather than a single volume
const firstTask = () => (cohort.tasks.find((one) => one.measures.some((measure) => measure.names.length > 2)) || cohort.tasks[0])?.task;
const taskOf = (id) => cohort.tasks.find((one) => one.task === byId(id).value);
const plain = (name) => name.replaceAll("-", " ");
const SIDE = /^(left|right)-/i;

/** Structures that share a plot: left and right of one. */
function pairsOf(names) {
  const pairs = new Map();
  names.forEach((name, n) => {
    const key = name.replace(SIDE, "");
    pairs.set(key, [...(pairs.get(key) || []), n]);
  });
  const left = (n) => (/^left-/i.test(names[n]) ? 0 : 1);
  return [...pairs].map(([name, own]) => [name, own.sort((a, b) => left(a) - left(b))]);
}

/** Words with which structures are found, where they are many. */
const finder = {
  many: 20,

  start(id, build) {
    byId(id).addEventListener("input", build);
  },

  /** The names in which all words occur, by their places; all of few. */
  found(id, names) {
    byId(id).parentElement.hidden = names.length <= finder.many;
    const words = names.length > finder.many ? byId(id).value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    return pairsOf(names).map(([name, own]) => [name, own.filter((n) => words.every((word) => plain(names[n]).toLowerCase().includes(word)))]).filter(([, own]) => own.length);
  },
};

/** Strips of points with boxes: one for each structure, or for each site or so of each. */
function strips(measure, indices, titles, look, groups, split) {
  const points = [];
  const lines = [];
  const boxes = indices.flatMap((index, n) => (split ? split.values : [null]).map((value) => ({ index, value, label: split ? `${titles[n]}\n${value}` : titles[n] })));
  const labels = boxes.map((one) => one.label);
  boxes.forEach(({ index, value }, x) => {
    const known = cohort.shown.filter((k) => measure.values[index][k] !== null && (value === null || cohort.people[split.column][k] === value));
    const values = known.map((k) => measure.values[index][k]);
    if (!values.length) return;
    const step = aside(values);
    known.forEach((k, n) => points.push({
      x: x + 0.36 * step[n], y: values[n], k,
      text: `${plain(measure.names[index])}: ${brief(values[n])} ${measure.unit}`, cells: [measure.names[index], values[n]],
    }));
    if (values.length >= 5) lines.push(...box(values, x));
  });
  const { series, listed, names } = scatter(points, { groups, look, size: points.length > 2000 ? 3.5 : 6 });
  listed.sort((a, b) => Math.round(a.x) - Math.round(b.x) || a.y - b.y);
  const last = boxes.length - 0.5;
  return {
    points: listed, columns: ["name", measure.key],
    option: {
      names: groups ? names : [],
      xAxis: [
        { type: "category", data: labels, axisTick: { show: false }, axisLabel: { color: look.ink, interval: 0, hideOverlap: false, lineHeight: 13, fontSize: labels.length > 4 ? 10.5 : 12, rotate: labels.length > 4 ? 45 : 0 } },
        { type: "value", min: -0.5, max: last, show: false },
      ],
      yAxis: { type: "value", scale: true, name: measure.unit, nameGap: 10, nameTextStyle: { align: "left", color: look.quiet } },
      series: [...series.map((one) => ({ ...one, xAxisIndex: 1 })), { ...line(lines, look.ink), xAxisIndex: 1, z: 4 }],
    },
  };
}

const distributions = {
  start() {
    choices("d-task", cohort.tasks.map((one) => [one.task, taskTitle(one.task)]));
    byId("d-task").value = firstTask();
    choices("d-boxes", [["", "of all sessions"], ...cohort.groups().map((one) => [one.column, `by ${one.column}`])]);
    byId("d-boxes").addEventListener("change", distributions.build);
    choices("d-colour", [["", "outliers"], ...cohort.groups().map((one) => [one.column, one.column])]);
    byId("d-task").addEventListener("change", () => { distributions.measures(); distributions.build(); });
    byId("d-measure").addEventListener("change", distributions.build);
    finder.start("d-find", distributions.build);
    byId("d-colour").addEventListener("change", () => Panel.refresh());
    distributions.measures();
    distributions.build();
  },

  measures() {
    choices("d-measure", (taskOf("d-task")?.measures || []).map((one) => [one.key, one.title]));
  },

  build() {
    const holder = byId("d-panels");
    Panel.clear(holder);
    const task = taskOf("d-task");
    const measure = task?.measures.find((one) => one.key === byId("d-measure").value);
    if (!measure) return holder.replaceChildren("No volumes available.");
    const found = finder.found("d-find", measure.names);
    if (!found.length) holder.replaceChildren("No structure has these words.");
    else if (!holder.querySelector(".panel")) holder.replaceChildren();
    for (const [name, own] of found) {
      const labels = own.map((n) => (own.length > 1 ? measure.names[n].split("-")[0] : plain(measure.names[n])));
      const title = `${plain(name)}: ${measure.title}`;
      new Panel(holder, title, (look) => {
        const groups = cohort.groups().find((one) => one.column === byId("d-colour").value);
        const split = cohort.groups().find((one) => one.column === byId("d-boxes").value);
        return strips(measure, own, labels, look, groups, split);
      });
    }
  },
};

/** Least squares through 1, x and x²; null where the points do not settle it. */
function quadratic(points) {
  const mean = points.reduce((a, p) => a + p.x, 0) / points.length;
  const rows = points.map((p) => [1, p.x - mean, (p.x - mean) ** 2, p.y]);
  const a = [0, 1, 2].map((i) => [0, 1, 2, 3].map((j) => rows.reduce((s, r) => s + r[i] * r[j], 0)));
  for (let i = 0; i < 3; i += 1) {
    const pivot = a.slice(i).reduce((best, row, n) => (Math.abs(row[i]) > Math.abs(a[best][i]) ? n + i : best), i);
    [a[i], a[pivot]] = [a[pivot], a[i]];
    if (Math.abs(a[i][i]) < 1e-9) return null;
    for (let j = 0; j < 3; j += 1) {
      if (j === i) continue;
      const share = a[j][i] / a[i][i];
      for (let m = i; m < 4; m += 1) a[j][m] -= share * a[i][m];
    }
  }
  const [c0, c1, c2] = [0, 1, 2].map((i) => a[i][3] / a[i][i]);
  return (x) => c0 + c1 * (x - mean) + c2 * (x - mean) ** 2;
}

const ages = {
  /** Which columns are age and sex. */
  find() {
    const columns = Object.keys(cohort.people);
    const numeric = (column) => cohort.people[column].some((cell) => numberIn(cell) !== null);
    ages.age = ["sessions_age", "age", "participants_age"].map((name) => columns.find((c) => c.toLowerCase() === name)).find((c) => c && numeric(c))
      || columns.find((c) => /(^|_)age(_|$)/i.test(c) && numeric(c));
    ages.sex = columns.find((c) => /^(participants_)?(sex|gender)$/i.test(c));
  },

  start() {
    const note = byId("age-note");
    if (!ages.age) {
      note.textContent = "No column with ages was found in participants.tsv or sessions.tsv, so no curves are shown."
        + (ages.sex ? ` Distributions can be coloured by ${ages.sex}.` : "");
      byId("age-controls").hidden = true;
      return;
    }
    ages.years = cohort.people[ages.age].map(numberIn);
    const without = ages.years.filter((age) => age === null).length;
    note.textContent = `Age is the column ${ages.age}` + (ages.sex ? `, sex the column ${ages.sex}` : "; no column with sex was found")
      + (cohort.norms ? `. Bands and thin lines are the reference centiles ${cohort.norms.centiles.join(", ")} (--norms), for structures that it contains` : "")
      + `. Curves are least-squares quadratic fits, for groups of at least ten sessions.`
      + (without ? ` ${without} of ${cohort.size} session${cohort.size === 1 ? "" : "s"} ${without === 1 ? "has" : "have"} no numeric age.` : "");
    choices("a-task", cohort.tasks.map((one) => [one.task, taskTitle(one.task)]));
    byId("a-task").value = firstTask();
    byId("a-task").addEventListener("change", () => { ages.measures(); ages.build(); });
    byId("a-measure").addEventListener("change", ages.build);
    finder.start("a-find", ages.build);
    ages.measures();
    ages.build();
  },

  measures() {
    const own = (taskOf("a-task")?.measures || []).filter((one) => !["confidence", "deviation"].includes(one.key));
    choices("a-measure", own.map((one) => [one.key, one.title]));
  },

  build() {
    const holder = byId("a-panels");
    Panel.clear(holder);
    const measure = taskOf("a-task")?.measures.find((one) => one.key === byId("a-measure").value);
    if (!measure) return;
    for (const [, own] of finder.found("a-find", measure.names)) {
      for (const n of own) {
        new Panel(holder, `${plain(measure.names[n])}: ${measure.title} over age`, (look) => ages.plot(measure, n, look));
      }
    }
  },

  plot(measure, n, look) {
    const known = cohort.shown.filter((k) => ages.years[k] !== null && measure.values[n][k] !== null);
    const points = known.map((k) => ({
      x: ages.years[k], y: measure.values[n][k], k, text: `${brief(measure.values[n][k])} ${measure.unit}, age ${ages.years[k]}`,
      cells: [measure.names[n], ages.years[k], measure.values[n][k]],
    }));
    const values = ages.sex ? [...new Set(cohort.people[ages.sex].filter(Boolean))].sort().slice(0, 6) : [];
    const groups = values.length > 1 ? { column: ages.sex, values } : null;
    const { series, listed, names } = scatter(points, { groups, look, size: points.length > 1000 ? 3.5 : 6 });
    listed.sort((a, b) => a.x - b.x);
    const curves = (groups ? values : [null]).flatMap((value, g) => {
      const own = points.filter((p) => value === null || cohort.people[ages.sex][p.k] === value);
      const xs = own.map((p) => p.x);
      const fit = own.length >= 10 ? quadratic(own) : null;
      if (!fit) return [];
      const [low, high] = [Math.min(...xs), Math.max(...xs)];
      const data = Array.from({ length: 41 }, (_, s) => low + ((high - low) * s) / 40).map((x) => [x, fit(x)]);
      return [{ ...line(data, groups ? COLOURS[g] : look.ink, { width: 2.5 }), z: 5, name: value === null ? undefined : String(value) }];
    });
    if (measure.key === "volume_mm3") curves.unshift(...ages.bands(measure.names[n], groups, values, look));
    return {
      points: listed, columns: ["name", ages.age, measure.key],
      option: {
        names: groups ? names : [], xAxis: { type: "value", scale: true, name: `${ages.age}, years`, nameLocation: "middle", nameGap: 24 },
        yAxis: { type: "value", scale: true, name: measure.unit, nameGap: 10, nameTextStyle: { align: "left", color: look.quiet } }, series: [...series, ...curves],
      },
    };
  },
};

/** Reference centiles: the outermost as a band, the others as lines. */
ages.bands = (name, groups, values, look) => {
  const curves = cohort.norms?.curves[name] || {};
  return Object.entries(curves).flatMap(([sex, { ages: years, volumes }]) => {
    const place = values.findIndex((value) => sex && String(value).toLowerCase().startsWith(sex));
    const colour = place < 0 ? look.quiet : COLOURS[place];
    const row = (c) => years.map((age, k) => [age, volumes[k][c]]);
    const last = cohort.norms.centiles.length - 1;
    const lines = cohort.norms.centiles.map((_, c) => ({ ...line(row(c), colour, { width: 1, type: c === 0 || c === last ? "dotted" : "dashed", opacity: 0.8 }), name: undefined, z: 1 }));
    const band = { ...line(years.map((age, k) => [age, volumes[k][last] - volumes[k][0]]), colour, { width: 0 }), areaStyle: { color: colour, opacity: 0.1 }, stack: "norms" + sex, stackStrategy: "all", name: undefined, z: 0 };
    return [{ ...line(row(0), colour, { width: 0 }), stack: "norms" + sex, stackStrategy: "all", name: undefined, z: 0 }, band, ...lines];
  });
};

const times = {
  start() {
    const people = new Map();
    cohort.participants.forEach((who, k) => people.set(who, [...(people.get(who) || []), k]));
    times.people = [...people.values()].filter((own) => own.length > 1 && own.every((k) => cohort.visits[k]));
    times.dated = times.people.length > 0 && times.people.every((own) => own.every((k) => cohort.years[k] !== null));
    const several = [...people.values()].filter((own) => own.length > 1).length;
    byId("time-controls").hidden = !times.people.length;
    byId("time-note").textContent = !several ? "No participant has several sessions."
      : !times.people.length ? "The order of the sessions of no participant is known: add dates (acq_time in scans.tsv or sessions.tsv)."
        : `Each line is one of ${times.people.length} participant${times.people.length === 1 ? "" : "s"} with several sessions, `
          + (times.dated ? "over years since the first session. " : "over the number of the session, since not all dates are known. ")
          + "Changes are from the first to the last session, with their 90 % interval (errors of both sessions assumed independent)."
          + (several > times.people.length ? ` ${several - times.people.length} participant${several - times.people.length === 1 ? "" : "s"} without a known order ${several - times.people.length === 1 ? "is" : "are"} not shown.` : "");
    if (!times.people.length) return;
    choices("t-task", cohort.tasks.map((one) => [one.task, taskTitle(one.task)]));
    byId("t-task").value = firstTask();
    choices("t-colour", [["", "participants"], ...cohort.groups().map((one) => [one.column, one.column])]);
    byId("t-task").addEventListener("change", () => { times.measures(); times.build(); });
    byId("t-measure").addEventListener("change", times.build);
    finder.start("t-find", times.build);
    byId("t-colour").addEventListener("change", () => Panel.refresh());
    times.measures();
    times.build();
  },

  measures() {
    const task = taskOf("t-task");
    const own = (task?.measures || []).filter((one) => !["deviation", "change_percent_per_year"].includes(one.key));
    choices("t-measure", [...own.map((one) => [one.key, one.title]), ...(task?.change.change_percent ? [["change", "Change with its 90 % interval"]] : [])]);
  },

  build() {
    const holder = byId("t-panels");
    Panel.clear(holder);
    const task = taskOf("t-task");
    const key = byId("t-measure").value;
    const measure = key === "change" ? task?.change.change_percent : task?.measures.find((one) => one.key === key);
    if (!measure) return;
    for (const [, own] of finder.found("t-find", measure.names)) {
      for (const n of own) {
        new Panel(holder, `${plain(measure.names[n])}: ${measure.title}` + (key === "change" ? "" : " over time"),
          (look) => (key === "change" ? times.changes(task.change, n, look) : times.lines(measure, n, look)));
      }
    }
  },

  groups() {
    return cohort.groups().find((one) => one.column === byId("t-colour").value);
  },

  colour(k, look) {
    const groups = times.groups();
    const place = groups ? groups.values.indexOf(cohort.people[groups.column][k]) : -1;
    return groups ? (place < 0 ? look.quiet : COLOURS[place % COLOURS.length]) : look.mark;
  },

  lines(measure, n, look) {
    const shown = new Set(cohort.shown);
    const at = (k) => (times.dated ? cohort.years[k] : cohort.visits[k]);
    const points = [];
    const drawn = new Map(); // one line of a colour, with gaps: a thousand lines would be slow
    for (const own of times.people) {
      const known = own.filter((k) => shown.has(k) && measure.values[n][k] !== null).sort((a, b) => at(a) - at(b));
      known.forEach((k) => points.push({
        x: at(k), y: measure.values[n][k], k, text: `${brief(measure.values[n][k])} ${measure.unit}, ${times.dated ? brief(at(k)) + " years" : "session " + at(k)}`,
        cells: [measure.names[n], at(k), measure.values[n][k]],
      }));
      if (known.length < 2) continue;
      const colour = times.colour(known[0], look);
      drawn.set(colour, [...(drawn.get(colour) || []), ...known.map((k) => [at(k), measure.values[n][k]]), [null, null]]);
    }
    const lines = [...drawn].map(([colour, data]) => ({ ...line(data, colour), name: undefined }));
    const groups = times.groups();
    const { series, listed, names } = scatter(points, { groups, look, size: 5 });
    const title = times.dated ? "years since the first session" : "session";
    return {
      points: listed, columns: ["name", times.dated ? "years" : "visit", measure.key],
      option: {
        names: groups ? names : [], xAxis: { type: "value", scale: true, name: title, nameLocation: "middle", nameGap: 24, minInterval: times.dated ? 0 : 1 },
        yAxis: { type: "value", scale: true, name: measure.unit, nameGap: 10, nameTextStyle: { align: "left", color: look.quiet } }, series: [...series, ...lines],
      },
    };
  },

  changes(change, n, look) {
    const [values, low, high] = ["change_percent", "change_low_percent", "change_high_percent"].map((key) => change[key]?.values[n]);
    const known = cohort.shown.filter((k) => values[k] !== null).sort((a, b) => values[a] - values[b]);
    const has = (k) => low && high && low[k] !== null && high[k] !== null;
    const points = known.map((k, x) => ({
      x: x + 1, y: values[k], k, text: `${brief(values[k])} %` + (has(k) ? ` (${brief(low[k])} to ${brief(high[k])} %)` : ", interval not known"),
      cells: [change.change_percent.names[n], values[k], has(k) ? low[k] : null, has(k) ? high[k] : null],
    }));
    const bars = known.flatMap((k, x) => (has(k) ? [[x + 1, low[k]], [x + 1, high[k]], [null, null]] : []));
    const groups = times.groups();
    const { series, listed, names } = scatter(points, { groups, look, size: 6 });
    return {
      points: listed, columns: ["name", "change_percent", "change_low_percent", "change_high_percent"],
      option: {
        names: groups ? names : [], xAxis: { type: "value", min: 0, max: known.length + 1, name: "participants, by change", nameLocation: "middle", nameGap: 24, axisLabel: { show: false } },
        yAxis: { type: "value", scale: true, name: "%", nameGap: 10, nameTextStyle: { align: "left", color: look.quiet } },
        series: [...series, line(bars, look.ink), line([[0, 0], [known.length + 1, 0]], look.quiet, { type: "dashed" })],
      },
    };
  },
};

const agreement = {
  start() {
    agreement.all = cohort.tasks.flatMap((one) => one.agreements.map((own) => ({ ...own, task: one.task })));
    if (!agreement.all.length) return;
    choices("g-which", agreement.all.map((one, n) => [n, `${taskTitle(one.task)}, ${one.reference}`]));
    byId("g-which").value = Math.max(0, agreement.all.findIndex((one) => one.task === firstTask()));
    byId("g-which").addEventListener("change", () => { agreement.structures(); agreement.build(); });
    byId("g-structure").addEventListener("change", agreement.build);
    agreement.structures();
    agreement.build();
  },

  get one() {
    return agreement.all[Number(byId("g-which").value)];
  },

  structures() {
    choices("g-structure", agreement.one.names.map((name) => [name, plain(name)]));
  },

  build() {
    const holder = byId("g-panels");
    Panel.clear(holder);
    const { one } = agreement;
    const name = byId("g-structure").value;
    const about = one.summary[name] || {};
    byId("g-note").textContent = `${plain(name)}, ${about.n_volumes ?? "n/a"} session${about.n_volumes === 1 ? "" : "s"}: Dice ${score(about.f1_mean)} (SD ${score(about.f1_sd)}), `
      + `CCC ${score(about.ccc)} (95 % CI ${score(about.ccc_low)} to ${score(about.ccc_high)}), ICC ${score(about.icc)}, bias ${brief(about.bias_mm3)} mm³, `
      + `limits of agreement ${brief(about.limit_low_mm3)} to ${brief(about.limit_high_mm3)} mm³. Values and lines refer to all sessions, points to the sessions that match the filters.`;
    const where = `${taskTitle(one.task)} and ${one.reference}`;
    for (const [key, title, unit] of [["f1", "Dice", "Dice"], ["asd_mm", "Mean surface distance", "mm"], ["hd95_mm", "HD95", "mm"]]) {
      const score = one.scores[key];
      if (!score) continue;
      new Panel(holder, `${title}: ${where}`, (look) => strips({ ...score, unit }, [...score.names.keys()], score.names.map(plain), look, null));
    }
    if (!one.scores.volume_mm3 || !one.scores.reference_volume_mm3) return;
    new Panel(holder, `${plain(name)}: volume against ${one.reference}`, (look) => agreement.against(name, about, look));
    new Panel(holder, `${plain(name)}: Bland-Altman with ${one.reference}`, (look) => agreement.blandAltman(name, about, look));
  },

  volumes(name) {
    const { volume_mm3: ours, reference_volume_mm3: theirs } = agreement.one.scores;
    const [a, b] = [ours, theirs].map((score) => score.values[score.names.indexOf(name)]);
    return cohort.shown.filter((k) => a?.[k] !== null && b?.[k] !== null && a && b).map((k) => ({ k, ours: a[k], theirs: b[k] }));
  },

  against(name, about, look) {
    const points = agreement.volumes(name).map(({ k, ours, theirs }) => ({
      x: theirs, y: ours, k, text: `${brief(ours)} mm³, reference ${brief(theirs)} mm³`, cells: [name, ours, theirs],
    }));
    const all = points.flatMap((p) => [p.x, p.y]);
    const ends = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    const { series, listed } = scatter(points, { look, size: 6 });
    listed.sort((a, b) => a.x - b.x);
    const title = { text: `CCC ${score(about.ccc)}, n = ${about.n_volumes ?? "n/a"}`, right: 16, top: 4, textStyle: { fontSize: 12, fontWeight: "normal", color: look.ink } };
    return {
      points: listed, columns: ["name", "volume_mm3", "reference_volume_mm3"],
      option: {
        title, xAxis: { type: "value", scale: true, name: "reference, mm³", nameLocation: "middle", nameGap: 24 }, yAxis: { type: "value", scale: true, name: "mm³", nameGap: 10 },
        series: [...series, line(ends.map((v) => [v, v]), look.quiet, { type: "dashed" })],
      },
    };
  },

  blandAltman(name, about, look) {
    const points = agreement.volumes(name).map(({ k, ours, theirs }) => ({
      x: (ours + theirs) / 2, y: ours - theirs, k, text: `mean ${brief((ours + theirs) / 2)} mm³, difference ${brief(ours - theirs)} mm³`,
      cells: [name, (ours + theirs) / 2, ours - theirs],
    }));
    const xs = points.map((p) => p.x);
    const ends = xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
    const { series, listed } = scatter(points, { look, size: 6 });
    listed.sort((a, b) => a.x - b.x);
    const rules = [["bias_mm3", "solid", "bias"], ["limit_low_mm3", "dashed", "-1.96 SD"], ["limit_high_mm3", "dashed", "+1.96 SD"]]
      .filter(([key]) => about[key] !== null && about[key] !== undefined)
      .map(([key, type, text]) => ({
        ...line(ends.map((x) => [x, about[key]]), look.quiet, { type }),
        endLabel: { show: true, formatter: `${text}\n${brief(about[key])}`, color: look.ink, fontSize: 11, lineHeight: 13 },
      }));
    return {
      points: listed, columns: ["name", "mean_mm3", "difference_mm3"],
      option: {
        grid: { left: 12, right: 70, top: 30, bottom: 28, containLabel: true },
        xAxis: { type: "value", scale: true, name: "mean of both, mm³", nameLocation: "middle", nameGap: 24 },
        yAxis: { type: "value", scale: true, name: "difference, mm³", nameGap: 10, nameTextStyle: { align: "left", color: look.quiet } },
        series: [...series, ...rules],
      },
    };
  },
};

const mosaic = {
  limit: 60,

  start() {
    const tasks = cohort.tasks.map((one) => one.task).filter((task) => cohort.mosaics[task]);
    if (!tasks.length) return;
    choices("m-task", tasks.map((task) => [task, taskTitle(task)]));
    byId("m-task").addEventListener("change", () => { mosaic.limit = 60; mosaic.draw(); });
    byId("m-tiles").addEventListener("keydown", mosaic.key);
    ratings.told.add(() => [...byId("m-tiles").children].forEach((tile) => tile.box.show()));
    byId("m-more").addEventListener("click", () => { mosaic.limit += 120; mosaic.draw(); });
    mosaic.ready = true;
    mosaic.draw();
  },

  draw() {
    if (!mosaic.ready) return;
    const task = byId("m-task").value;
    byId("m-title").textContent = taskTitle(task);
    const sheets = cohort.mosaics[task];
    const confidence = cohort.confidences[task];
    const shown = new Set(cohort.shown);
    const rank = (k) => confidence[k] ?? -1; // not known: first
    const tiles = sheets.tiles.filter(([k]) => shown.has(k)).sort((a, b) => rank(a[0]) - rank(b[0]) || a[0] - b[0]);
    byId("m-tiles").replaceChildren(...tiles.slice(0, mosaic.limit).map((tile) => mosaic.tile(sheets, tile, confidence)));
    byId("m-shown").textContent = tiles.length ? `${Math.min(mosaic.limit, tiles.length)} of ${tiles.length} session${tiles.length === 1 ? "" : "s"}` : "No session matches the filters.";
    byId("m-more").hidden = tiles.length <= mosaic.limit;
  },

  tile(sheets, [k, sheet, place, problem], confidence) {
    const cut = element("span", { className: problem ? "cut none" : "cut", textContent: problem });
    if (!problem) {
      const [row, column] = [Math.floor(place / sheets.columns), place % sheets.columns];
      cut.style.backgroundImage = `url("${encodeURI(sheets.sheets[sheet])}")`;
      cut.style.backgroundSize = `${100 * sheets.columns}% ${100 * sheets.columns}%`;
      cut.style.backgroundPosition = [column, row].map((at) => `${(100 * at) / (sheets.columns - 1)}%`).join(" ");
    }
    const text = `${cohort.names[k]}, ${confidence[k] === null ? "no confidence" : "confidence " + score(confidence[k])}`;
    const link = element(cohort.pages[k] ? "a" : "span", { className: "open", textContent: text });
    if (cohort.pages[k]) link.href = encodeURI(cohort.pages[k]);
    const holder = element("div", { className: "rating screen" });
    const tile = element("div", { className: "tile", tabIndex: 0 }, cut, link, holder);
    cut.addEventListener("click", () => cohort.pages[k] && Panel.open(k));
    const task = byId("m-task").value;
    tile.box = new RatingBox(holder, cohort.participants[k], cohort.sessions[k], task, `${cohort.names[k]}, ${taskTitle(task)}`);
    tile.box.comment.hidden = !tile.box.comment.value;
    tile.box.leave = () => tile.focus();
    return tile;
  },

  /** Keys on a tile: ratings go on to the next one, arrows move, Enter opens the report. */
  key(event) {
    const tile = event.target.closest(".tile");
    if (!tile || isWriting(event)) return;
    const tiles = [...byId("m-tiles").children];
    const columns = tiles.findIndex((one) => one.offsetTop > tiles[0].offsetTop);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (event.key === "Enter" && event.target === tile) tile.querySelector("a.open")?.click();
    if (step) event.preventDefault();
    if (!step && !tile.box.key(event)) return;
    let to = tiles.indexOf(tile) + (step || 1);
    if (to >= tiles.length && !byId("m-more").hidden) {
      mosaic.limit += 120;
      mosaic.draw();
    }
    to = Math.min(Math.max(to, 0), byId("m-tiles").children.length - 1);
    byId("m-tiles").children[to].focus();
  },
};

const summary = {
  /** How many results of each task are rated, and which sessions are not. */
  ratings() {
    byId("ratings-caption").textContent = ratings.rater || !ratings.given.size ? "Results of this rater, number per task"
      : "Results of the raters of --ratings, of several the most severe rating, number per task";
    const rated = cohort.tasks.filter((one) => cohort.qc[`${one.task}_status`]); // no regions
    const rows = rated.map((one) => {
      const own = [...cohort.names.keys()].filter((k) => cohort.qc[`${one.task}_status`]?.[k] === "done");
      const found = own.map((k) => ratings.word(cohort.participants[k], cohort.sessions[k], one.task));
      const count = (level) => found.filter((rating) => rating === level).length;
      const left = own.filter((_, n) => !found[n]).map((k) => cohort.names[k]);
      const names = left.slice(0, 5).join(", ") + (left.length > 5 ? ` and ${left.length - 5} more` : "");
      const cells = [...[...LEVELS, ""].map((level) => element("td", { className: "number", textContent: count(level) })), element("td", { className: "quiet", textContent: names })];
      return element("tr", {}, element("th", { scope: "row", textContent: taskTitle(one.task) }), ...cells);
    });
    byId("ratings-rows").replaceChildren(...rows);
  },
};

/** The worst verdict first; of equal ones sessions without a result, then the most unusual, then the least confident: as the group level orders the subject reports. */
function verdictRank(k) {
  const level = ["problem", "check", "ok", ""].indexOf(cohort.qc.verdict?.[k] ?? "");
  const unusual = Math.min(Number(cohort.qc.outlier_score?.[k] || 0), 1e5);
  const sure = numberIn(cohort.qc.confidence_worst?.[k]);
  return 1e12 * level + (sure === null ? 0 : 2e11) - 1e6 * unusual + (sure ?? 0);
}

/** The lowest confidence of a session, and of which structure. */
const worst = (k) => `${score(Number(cohort.qc.confidence_worst[k]))} ${plain(cohort.qc.confidence_worst_structure?.[k] || "")}`.trim();

/** How many tasks of a session are not done, by status; the reason names them. */
function undone(k) {
  const left = cohort.statuses.map((key) => cohort.qc[key][k]).filter((one) => one && one !== "done");
  return [...new Set(left)].sort().map((one) => `${left.filter((other) => other === one).length} ${one}`).join(", ") || "all done";
}

/** Columns of participants.tsv that a row has room for: age, sex and groups; the others are in the TSV. */
function shownPeople() {
  const known = [ages.age, ages.sex, ...cohort.groups().map((one) => one.column), ...Object.keys(cohort.people)];
  return new Set(known.filter(Boolean).filter((one, n) => known.indexOf(one) === n).slice(0, 4));
}

const tables = {
  start() {
    const qc = (title, key, more = {}) => ({ title, key, value: (k) => cohort.qc[key]?.[k] ?? "", ...more });
    const who = [
      { title: "Participant", key: "participant_id", value: (k) => cohort.participants[k], link: true },
      ...(cohort.sessions.some(Boolean) ? [{ title: "Session", key: "session_id", value: (k) => cohort.sessions[k] }] : []),
    ];
    const decimals = { number: true, show: (value) => score(Number(value)) };
    const word = (text) => `status ${["done", "skipped", "failed"].includes(text) ? text : "other"}`;
    const people = shownPeople();
    const about = Object.keys(cohort.people).map((key) => ({
      title: key, key, hidden: !people.has(key), value: (k) => cohort.people[key][k], number: cohort.people[key].every((cell) => cell === "" || numberIn(cell) !== null),
    }));
    tables.all = [
      new SessionTable(byId("outliers-table"), {
        name: "outliers", caption: "Outliers, the most extreme first", keep: cohort.isOutlier, sort: { column: "Robust z", down: true },
        empty: cohort.qc.outlier?.some(Boolean) ? "No outliers among the sessions that match the filters." : `Outlier detection needs at least ${cohort.fewest} sessions.`,
        columns: [...who, qc("Robust z", "outlier_score", decimals), qc("Reasons", "outlier_reasons", { show: firstOf }), qc("Confidence", "confidence_mean", decimals), qc("Findings", "findings", { show: sentences })],
      }),
      new SessionTable(byId("sessions-table"), {
        name: "sessions", caption: "All sessions", sort: { column: cohort.qc.verdict?.some(Boolean) ? "Verdict" : "Lowest confidence", down: false }, empty: "No session matches the filters.",
        columns: [
          ...who, ...cohort.statuses.map((key) => qc(taskTitle(key.replace("_status", "")), key, { word, hidden: true })),
          qc("Verdict", "verdict", { word: (text) => `light ${text}`, rank: verdictRank }), qc("Reason", "verdict_reason"),
          { title: "Tasks", key: "tasks", value: undone, word: (text) => `status ${text === "all done" ? "done" : text.includes("failed") ? "failed" : "other"}` }, qc("Confidence", "confidence_mean", { ...decimals, hidden: true }),
          { title: "Rating", key: "rating", value: cohort.rating, word: (text) => `rated ${text}` },
          qc("Lowest confidence", "confidence_worst", { number: true, wraps: true, says: worst }), qc("Structure", "confidence_worst_structure", { hidden: true }),
          qc("Severity", "severity", { hidden: true }), qc("Findings", "findings", { show: sentences, hidden: true }), qc("Robust z", "outlier_score", decimals), ...about,
          qc("Reasons", "reasons", { hidden: true }),
        ],
      }),
    ];
  },
};

/** The order of the sessions table, for the links between subject reports. */
const order = {
  keep() {
    const pages = [...new Set(tables.all[1].found.map((k) => cohort.pages[k]).filter(Boolean))];
    try {
      localStorage.setItem(ratings.place.replace("ratings", "order"), JSON.stringify(pages));
    } catch { /* the reports then use the order of the group level */ }
  },
};

/** Tables that stand in the page: a click on a title sorts their rows. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, n) => {
    const button = element("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const one of heads) one.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[n].textContent.replaceAll(",", "");
      const order = new Intl.Collator("en", { numeric: true }).compare;
      const compare = (a, b) => (Number.isNaN(Number(a) + Number(b)) ? (a === "n/a") - (b === "n/a") || order(a, b) : a - b);
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? -1 : 1) * compare(value(a), value(b)));
      table.tBodies[0].append(...rows);
    });
  });
}

const filters = {
  start() {
    byId("filters").hidden = false;
    filters.people = cohort.groups().map(({ column, values }) => {
      const select = element("select", {}, element("option", { value: "", textContent: "any" }), ...values.map((value) => element("option", { value, textContent: value })));
      select.dataset.column = column;
      byId("by-people").append(element("label", {}, column + " ", select));
      return select;
    });
    let timer;
    byId("search").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(filters.apply, 120); });
    for (const one of [byId("by-status"), byId("by-severity"), byId("by-outlier"), byId("by-rating"), ...filters.people]) one.addEventListener("change", filters.apply);
    byId("reset").addEventListener("click", () => {
      byId("search").value = "";
      for (const one of [byId("by-status"), byId("by-severity"), byId("by-rating"), ...filters.people]) one.value = "";
      byId("by-outlier").checked = false;
      filters.apply();
    });
    for (const button of document.querySelectorAll("button.find")) {
      button.addEventListener("click", () => {
        byId("search").value = button.dataset.find;
        filters.apply();
        byId("sessions").scrollIntoView();
      });
    }
    filters.apply();
  },

  apply() {
    cohort.filter({
      words: byId("search").value, status: byId("by-status").value, severity: byId("by-severity").value, outlier: byId("by-outlier").checked,
      rating: byId("by-rating").value,
      people: filters.people.filter((one) => one.value).map((one) => [one.dataset.column, one.value]),
    });
    byId("shown").textContent = `${cohort.shown.length} of ${cohort.size} session${cohort.size === 1 ? "" : "s"}`;
    for (const table of tables.all) table.update();
    order.keep();
    Panel.refresh();
    mosaic.draw();
  },
};

/** Dark or light on the screen. */
function dress() {
  Panel.look = matchMedia("(prefers-color-scheme: dark)").matches ? DARK : LIGHT;
  Panel.refresh();
}

/** Paper has all plots and all rows of tables. */
function paper(on) {
  Panel.print(on);
  for (const table of tables.all) table.print(on);
}

(async () => {
  await cohort.load();
  ratings.start(cohort.ratings);
  ratings.told.add(() => { tables.all?.[1].update(); summary.ratings(); });
  ages.find();
  tables.start();
  filters.start();
  tables.all[1].sorted = order.keep;
  dress();
  distributions.start();
  ages.start();
  times.start();
  agreement.start();
  mosaic.start();
  summary.ratings();
  document.querySelectorAll("table.static").forEach(sortable);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress());
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));
  await page.library("echarts"); // to print, it must be there at once
  document.body.dataset.ready = "yes";
})();
