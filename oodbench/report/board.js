"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = Object.fromEntries(data.fields.map((name, place) => [name, place]));
  const texts = ["model", "family", "in_dist", "ood", "scorer", "standing", "likelihood", "tunes", "bar_scorer", "device",
    "provenance", "command", "note"];
  const rows = data.rows.map((line, place) => {
    const row = Object.fromEntries(data.fields.map(name => [name, line[at[name]]]));
    for (const name of texts) row[name] = data.texts[row[name]];
    return Object.assign(row, {place, kind: row.likelihood === "exact" ? "exact" : "bound", pair: `${row.in_dist} → ${row.ood}`});
  });
  const MARK = {chance: 1, below: 2, seen: 4, best: 8, asGood: 16, synthetic: 32};
  const STEP = 60, KINDS = {scorer: "with a model", tuned: "tuned on OOD images", baseline: "model-free"};
  const byId = name => document.getElementById(name);
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const shown = value => value === null ? "–" : value.toFixed(3);
  const images = row => row.group === 1 ? "single" : `groups of ${row.group}`;

  const filters = [
    ["in", "in-dist", row => row.in_dist], ["ood", "OOD", row => row.ood], ["family", "family", row => row.family],
    ["model", "model", row => row.model], ["kind", "log p(x)", row => row.kind], ["standing", "scorers", row => KINDS[row.standing]],
    ["tunes", "tunes on", row => row.tunes], ["group", "judged", images], ["set", "OOD images", row => row.marks & MARK.synthetic ? "synthetic" : "real"],
    ["seed", "seed", row => String(row.seed)],
  ].map(([key, label, of]) => ({key, label, of, values: [...new Set(rows.map(of))]})).filter(one => one.values.length > 1);
  const usual = {group: "single", set: "real"};
  const columns = [
    ["scorer", "scorer", row => row.scorer], ["auroc", "AUROC", row => row.auroc, -1], ["plot", "interval and bar", null],
    ["model", "model", row => row.model], ["pair", "in-dist → OOD", row => row.place], ["kind", "log p(x)", row => row.kind],
    ["tunes", "tunes on", row => row.tunes], ["group", "judged", row => row.group],
    ["ms", "ms/image", row => row.ms], ["passes", "passes", row => row.passes],
  ];
  let state = {}, kept = [], limit = STEP;

  function readAddress() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = {sort: given.get("sort") || "", q: given.get("q") || "", row: given.get("row") || ""};
    for (const one of filters) {
      const value = given.has(one.key) ? given.get(one.key) : state.row ? "" : usual[one.key] || "";
      state[one.key] = value === "" || one.values.includes(value) ? value : one.values.find(own => own.startsWith(value)) || "";
    }
  }
  function writeAddress() {
    const said = new URLSearchParams();
    for (const one of filters) if (state[one.key] !== (usual[one.key] || "")) said.set(one.key, state[one.key]);
    for (const name of ["q", "sort", "row"]) if (state[name]) said.set(name, state[name]);
    history.replaceState(null, "", said.size ? `#${said}` : location.pathname + location.search);
  }

  function build() {
    const form = byId("filters");
    form.append(element("label", {}, "scorer", element("input", {type: "search", name: "q", placeholder: "any", autocomplete: "off"})));
    for (const one of filters) {
      const select = element("select", {name: one.key}, element("option", {value: ""}, "all"));
      for (const value of one.values) select.append(element("option", {value}, value));
      form.append(element("label", {}, one.label, select));
    }
    form.append(element("button", {type: "reset"}, "reset"));
    form.addEventListener("input", event => change({[event.target.name]: event.target.value}));
    form.addEventListener("submit", event => event.preventDefault());
    form.addEventListener("reset", event => { event.preventDefault(); location.hash = ""; fromAddress(); });
    for (const [key, label, of] of columns) {
      const head = element("th", {scope: "col", role: "columnheader", "data-key": key});
      if (of) {
        head.append(element("button", {type: "button"}, label));
        head.firstChild.addEventListener("click", () => change({sort: nextSort(key)}));
      } else head.append(element("span", {class: "soft"}, label));
      byId("heads").append(head);
    }
    byId("more").addEventListener("click", () => { limit += 5 * STEP; draw(); });
    byId("cell").addEventListener("close", () => { state.row = ""; writeAddress(); });
    window.addEventListener("hashchange", fromAddress);
    window.addEventListener("beforeprint", () => { limit = Infinity; draw(); });
  }
  function nextSort(key) {
    const first = columns.find(one => one[0] === key)[3] === -1 ? `-${key}` : key;
    const other = first[0] === "-" ? key : `-${key}`;
    return state.sort === first ? other : first;
  }
  function change(changes) { Object.assign(state, changes, {row: ""}); limit = STEP; select(); draw(); writeAddress(); }
  function fromAddress() {
    readAddress(); limit = STEP; select(); draw();
    for (const control of byId("filters").elements) if (control.name) control.value = state[control.name];
    const row = state.row && rows.find(one => one.id.startsWith(state.row));
    if (row) open(row);
    else if (byId("cell").open) byId("cell").close();
  }

  function select() {
    const wanted = filters.filter(one => state[one.key] !== "");
    const word = state.q.trim().toLowerCase();
    kept = rows.filter(row => wanted.every(one => one.of(row) === state[one.key]) && row.scorer.toLowerCase().includes(word));
    const key = state.sort.replace(/^-/, ""), column = columns.find(one => one[0] === key && one[2]);
    if (!column) return;
    const sign = state.sort[0] === "-" ? -1 : 1;
    kept.sort((one, other) => {
      const a = column[2](one), b = column[2](other);
      if (a === null || b === null) return (a === null) - (b === null) || one.place - other.place;
      return sign * (a < b ? -1 : a > b ? 1 : 0) || one.place - other.place;
    });
  }
  function draw() {
    const part = kept.slice(0, limit), body = byId("body");
    body.replaceChildren(...part.map(row => row.node = row.node || line(row)));
    byId("count").textContent = `${kept.length} of ${rows.length} trials` + (kept.length > part.length ? `, the first ${part.length} shown` : "");
    byId("more").hidden = kept.length <= part.length;
    byId("more").textContent = `show more of ${kept.length}`;
    for (const head of byId("heads").children) {
      const key = head.dataset.key;
      if (state.sort === key) head.setAttribute("aria-sort", "ascending");
      else if (state.sort === `-${key}`) head.setAttribute("aria-sort", "descending");
      else head.removeAttribute("aria-sort");
    }
    byId("answer").textContent = answer();
  }
  function answer() {
    const counted = kept.filter(row => row.group === 1 && row.auroc !== null && !(row.marks & (MARK.seen | MARK.synthetic)));
    const pairs = new Set(counted.map(row => `${row.model} ${row.pair} ${row.seed}`)), names = new Map();
    for (const row of counted) if (row.standing === "scorer") (names.get(row.scorer) || names.set(row.scorer, []).get(row.scorer)).push(row);
    const whole = [...names].filter(([, own]) => own.length === pairs.size)
      .map(([name, own]) => ({name, mean: own.reduce((sum, row) => sum + row.auroc, 0) / own.length, worst: Math.min(...own.map(row => row.auroc))}))
      .sort((one, other) => other.mean - one.mean);
    if (!pairs.size || !whole.length) return "No scorer with a model has a result on every pair shown.";
    const [best, next] = whole, better = best && counted.filter(row => row.scorer === best.name && !(row.marks & MARK.below)).length;
    const ends = `of ${pairs.size} model${pairs.size > 1 ? "s and pairs" : " and pair"} shown`;
    return `Highest mean AUROC ${ends}: ${best.name}, ${best.mean.toFixed(3)} (worst ${best.worst.toFixed(3)}; above the bar on ${better})` +
      (next ? `; next ${next.name}, ${next.mean.toFixed(3)}.` : ".");
  }
  function plot(row) {
    const box = element("span", {class: "plot", "aria-hidden": "true"}), percent = value => `${(100 * value).toFixed(2)}%`;
    if (row.auroc === null) return box;
    if (row.low !== null) box.append(element("i", {class: "interval", style: `left:${percent(row.low)};width:${percent(row.high - row.low)}`}));
    if (row.bar !== null) box.append(element("i", {class: "bar", style: `left:${percent(row.bar)}`, title: `bar: ${row.bar_scorer} ${shown(row.bar)}`}));
    box.append(element("i", {class: "at", style: `left:${percent(row.auroc)}`}));
    return box;
  }
  function value(row) {
    if (row.auroc === null) return row.note.startsWith("FAILED") ? "FAILED" : "–";
    const marks = [[MARK.chance, "▼"], [MARK.below, "‡"], [MARK.seen, "§"]].filter(([mark]) => row.marks & mark).map(([, sign]) => ` ${sign}`);
    return shown(row.auroc) + marks.join("");
  }
  function line(row) {
    const best = row.marks & (MARK.best | MARK.asGood), free = row.standing === "baseline";
    const cell = (label, content, kind = "number") => element("td", {role: "cell", class: kind, "data-label": label}, content);
    const button = element("button", {type: "button"}, row.scorer);
    button.addEventListener("click", () => { state.row = row.id; writeAddress(); open(row); });
    const interval = row.low === null ? "" : `95 % interval ${shown(row.low)} to ${shown(row.high)}` + (row.bar === null ? "" : `, bar ${shown(row.bar)}`);
    const drawn = element("td", {role: "cell", class: "wide", title: interval, "aria-label": interval}, plot(row));
    return element("tr", {role: "row", "data-id": row.id, class: (best ? "best " : "") + (free ? "model-free" : "")},
      element("th", {scope: "row", role: "rowheader"}, button), element("td", {role: "cell", class: "number value"}, value(row)), drawn,
      cell("model", row.model, ""), cell("", row.pair, "wide"), cell("log p", row.kind, ""), cell("tunes on", row.tunes, ""), cell("", images(row), ""),
      cell("ms/image", row.ms === null ? "–" : row.ms.toPrecision(3) + (row.device && row.device !== "cpu" ? ` (${row.device})` : "")),
      cell("passes", String(row.passes)));
  }

  const svg = (tag, attributes, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const word = (x, y, text, anchor = "middle") => svg("text", {x, y, "text-anchor": anchor, "font-size": 11, fill: "currentColor"}, text);
  function frame(label, ...drawn) {
    return svg("svg", {viewBox: "0 0 260 220", role: "img", "aria-label": label},
      svg("rect", {x: 36, y: 8, width: 212, height: 172, fill: "none", stroke: "var(--faint)"}), ...drawn);
  }
  function rocPicture(row) {
    const points = row.roc.map((caught, place) => `${(36 + 212 * data.rates[place]).toFixed(1)},${(180 - 0.172 * caught).toFixed(1)}`);
    return frame(`ROC curve, AUROC ${shown(row.auroc)}`, svg("line", {x1: 36, y1: 180, x2: 248, y2: 8, stroke: "var(--faint)"}),
      svg("polyline", {points: `36,180 ${points.join(" ")}`, fill: "none", stroke: "var(--plot)", "stroke-width": 2}),
      word(142, 212, "in-dist flagged"), word(36, 194, "0"), word(248, 194, "1"), word(30, 182, "0", "end"), word(30, 16, "1", "end"));
  }
  function histogram(row) {
    const most = Math.max(...row.inside, 50), width = 212 / row.inside.length;
    const bars = row.inside.map((share, place) => svg("rect", {x: (36 + place * width + 1).toFixed(1), y: (180 - 172 * share / most).toFixed(1),
      width: (width - 2).toFixed(1), height: (172 * share / most).toFixed(1), fill: "var(--plot)"}));
    const level = (180 - 172 * 50 / most).toFixed(1);
    return frame("histogram of OOD images by the percentile of in-dist scores", ...bars,
      svg("line", {x1: 36, x2: 248, y1: level, y2: level, stroke: "var(--bar)", "stroke-dasharray": "4 3"}),
      word(142, 212, "percentile among in-dist scores"), word(36, 194, "0"), word(248, 194, "100"), word(30, 16, `${(most / 10).toFixed(0)} %`, "end"));
  }
  function figure(drawing, words) { return element("figure", {}, drawing, element("figcaption", {}, words)); }
  function open(row) {
    const box = byId("cell"), close = element("button", {type: "button"}, "close");
    close.addEventListener("click", () => box.close());
    const metrics = element("table", {}, element("caption", {}, "metrics with 95 % intervals"));
    row.metrics.forEach((own, place) => {
      if (own.length) metrics.append(element("tr", {}, element("th", {scope: "row"}, data.metrics[place]),
        element("td", {class: "number"}, shown(own[0]) + (own[1] === null ? "" : ` [${shown(own[1])}, ${shown(own[2])}]`))));
    });
    const panels = element("div", {class: "panels"});
    if (row.roc.length) panels.append(
      figure(histogram(row), "OOD images by where their score lies among the in-dist scores; dashed: where images like those in-dist would lie."),
      figure(rocPicture(row), "ROC: OOD caught against in-dist flagged."));
    else panels.append(element("p", {class: "soft"}, "No ROC curve is stored for this row."));
    panels.append(element("div", {}, metrics));
    const made = JSON.stringify(JSON.parse(row.provenance), null, 1);
    const bar = row.bar === null ? "" : ` The bar is ${row.bar_scorer}, ${shown(row.bar)}.`;
    const tags = element("p", {class: "soft"}, `${row.model} (${row.family}; log p(x): ${row.likelihood}), ${images(row)}, seed ${row.seed}, tunes on ${row.tunes}.${bar} `,
      element("a", {href: `#row=${row.id}`}, "link to this row"));
    box.replaceChildren(element("h2", {id: "cell-title"}, `${row.scorer}: ${row.pair}`), tags, ...(row.note ? [element("p", {}, row.note)] : []), panels,
      element("p", {}, "The same number again:"), element("pre", {tabindex: "0"}, row.command),
      element("details", {}, element("summary", {}, "provenance"), element("pre", {tabindex: "0"}, made)), close);
    if (!box.open) box.showModal();
  }

  byId("choose").open = innerWidth > 760;
  build();
  fromAddress();
})();
