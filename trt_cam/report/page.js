"use strict";
// The page's data lie in one block of JSON; all of it reaches the page as text, never as markup.

const D = JSON.parse(document.getElementById("data").textContent);
const BOXES = D.protocol.boxes, KINDS = BOXES ? ["right", "cls_wrong", ...D.kinds.slice(1)] : [];
const WORDS = {
  right: "right", cls_wrong: "class wrong", multi_instances: "several objects in one box", region_part: "part of the object",
  region_more: "more than the object", region_wrong: "elsewhere",
  fixed: "Fixed beforehand", "from-val": "Chosen on other photos", best: "Best on these photos (oracle)",
  top1_cls: "Top-1 Cls", top5_cls: "Top-5 Cls", top1_loc: "Top-1 Loc", top5_loc: "Top-5 Loc",
  maxboxacc_v2: "MaxBoxAccV2", pxap: "PxAP", gt_known_30: "GT-known 0.3", gt_known_50: "GT-known 0.5",
  gt_known_70: "GT-known 0.7", any_box_30: "any box 0.3", any_box_50: "any box 0.5", any_box_70: "any box 0.7",
  boxes: "number of boxes",
};
const MEANS = {
  fixed: () => "One threshold for each method, set before these photos were looked at.",
  "from-val": () => `Chosen on photos that are not counted here: ${D.methods[0].splits["from-val"]}. An accuracy one can have.`,
  best: () => "Chosen on the very photos that are counted, one for each IoU: how the field compares, and an accuracy that nobody has on new photos.",
  none: () => "",
};
const COLUMNS = [
  ["top1_cls", "The class found first is the right one."],
  ["top1_loc", "It is, and the box around the largest region has an IoU of 0.5 with an object."],
  ["top5_loc", "The same, the right class among the first five."],
  ["gt_known_50", "The right class is given; the box around the largest region has an IoU of at least 0.5."],
  ["gt_known_70", "The same, an IoU of at least 0.7."],
  ["maxboxacc_v2", "The box of any region or hole counts; mean over an IoU of 0.3, 0.5 and 0.7."],
  ["pxap", "Average precision of the map as a classifier of pixels, over all pixels of all photos."],
].filter(([name]) => name in D.methods[0].figures[D.sources[0]].scores);
const SQUARES = { gt_known_30: "centred_square_30", gt_known_50: "centred_square_50", gt_known_70: "centred_square_70", maxboxacc_v2: "centred_square_v2", pxap: "centre" };
const WHOLE = { gt_known_30: "whole_image_30", gt_known_50: "whole_image_50", gt_known_70: "whole_image_70", maxboxacc_v2: "whole_image_v2", pxap: "whole_image" };
const SQUARE = BOXES ? "best centred square" : "in the middle", PHOTOS = D.identity.data.photos - D.failed.length;
const DASHES = ["", "9 4", "3 3", "12 3 3 3"];

const state = {
  source: D.source, sort: D.protocol.headline, down: true, shown: new Set(D.methods.slice(0, 8).keys()),
  score: D.protocol.headline, curve: "gt_known_50", first: 0, second: Math.min(1, D.methods.length - 1), tau: null,
};
const $ = (id) => document.getElementById(id);
const percent = (value) => (value == null ? "–" : value.toFixed(1));
const range = ([value, low, high]) => `${percent(value)} % (${percent(low)} to ${percent(high)})`;
const figures = (m) => D.methods[m].figures[state.source];
const own = (m) => (BOXES ? figures(m).scores.gt_known_50[3] : null);
const word = (name) => WORDS[name] ?? name;

// Elements. Strings become text nodes.
function make(space, tag, given = {}, ...inside) {
  const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "colour") made.style.setProperty("--c", value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside.filter((one) => one != null));
  return made;
}
const h = (...all) => make("", ...all);
const s = (...all) => make("http://www.w3.org/2000/svg", ...all);
const fill = (where, ...inside) => (typeof where === "string" ? $(where) : where).replaceChildren(...inside);
const colour = (m) => `var(--m${m % 8})`;
const dash = (m) => DASHES[Math.floor(m / 8) % DASHES.length];
const options = (id, pairs, value) => {
  fill(id, ...pairs.map(([key, text]) => h("option", { value: key }, text)));
  $(id).value = value;
};
function swatch(m) {
  const line = s("line", { x1: 0, x2: 28, y1: 6, y2: 6, class: "series", "stroke-dasharray": dash(m) });
  return s("svg", { class: "swatch", viewBox: "0 0 28 12", "aria-hidden": "true", colour: colour(m) }, line, s("circle", { class: "dot", cx: 14, cy: 6, r: 4 }));
}
const named = (m) => [swatch(m), D.methods[m].name];

// The table.
function tableColumns() {
  const all = COLUMNS.map(([name, means]) => ({ key: name, head: word(name), means, of: (f) => f.scores[name], base: (f, which) => f.baselines[which[name]], score: name }));
  for (const name of ["gt_known_50", "maxboxacc_v2", "pxap"].filter((one) => COLUMNS.some(([key]) => key === one))) {
    const small = (f, key) => (f.by_size.small.photos ? f.by_size.small[key] : null);
    all.push({ key: `small ${name}`, head: `small, ${word(name)}`, means: "Only photos whose largest object covers under 40 %.", of: (f) => small(f, name), base: (f, which) => small(f, which[name]) });
  }
  if (BOXES) all.push({ key: "boxes", head: "boxes", means: "Mean number of regions and holes at the threshold of any box 0.5: more boxes are more chances.", of: (f) => f.boxes["50"] });
  return all;
}
function cell(figure, best) {
  if (!figure) return h("td", {}, "–");
  return h("td", { class: best ? "top" : null }, percent(figure[0]), h("small", {}, `${percent(figure[1])}–${percent(figure[2])}`));
}
function drawTable() {
  const columns = tableColumns(), order = [...D.methods.keys()];
  const key = (m) => (state.sort === "at" ? own(m) : columns.find((one) => one.key === state.sort)?.of(figures(m))?.[0] ?? 0);
  if (state.sort === "name") order.sort((a, b) => (D.methods[a].name < D.methods[b].name ? -1 : 1));
  else order.sort((a, b) => key(b) - key(a));
  if (!state.down) order.reverse();
  const head = (name, text) => {
    const sorted = state.sort === name ? (state.down === (name !== "name") ? "descending" : "ascending") : null;
    const click = () => { state.down = state.sort === name ? !state.down : true; state.sort = name; drawTable(); $("table").querySelector(`[data-key="${name}"]`).focus(); };
    return h("th", { scope: "col", "aria-sort": sorted }, h("button", { type: "button", "data-key": name, onclick: click }, text));
  };
  const heads = [head("name", "Method"), ...(BOXES ? [head("at", "at")] : []), ...columns.map((one) => head(one.key, one.head))];
  fill($("table").tHead, h("tr", {}, ...heads));
  const best = columns.map((one) => (one.key === "boxes" ? NaN : Math.max(...order.map((m) => one.of(figures(m))?.[0] ?? 0))));
  const rows = order.map((m) => h("tr", {}, h("th", { scope: "row" }, ...named(m)),
    ...(BOXES ? [h("td", {}, own(m).toFixed(2))] : []),
    ...columns.map((one, i) => cell(one.of(figures(m)), one.of(figures(m))?.[0] === best[i]))));
  const base = (text, which) => h("tr", { class: "baseline" }, h("th", { scope: "row" }, text), ...(BOXES ? [h("td", {}, "–")] : []),
    ...columns.map((one) => cell(one.base?.(figures(0), which))));
  rows.push(base(SQUARE, SQUARES), base("whole photo", WHOLE));
  fill($("table").tBodies[0], ...rows);
  $("under-table").textContent = `Percent of ${PHOTOS} photos; below each figure its 95 % interval. ` + (BOXES ? "at: the threshold of the one box, a share of the map's maximum. Best centred square and whole photo: the same box in every photo." : "In the middle: a map that falls from the middle to the corners, the same in every photo; whole photo: a constant one.");
  fill("columns", ...columns.flatMap((one) => [h("dt", {}, one.head), h("dd", {}, one.means)]));
  drawPublished(columns);
}
function drawPublished(columns) {
  if (!D.published) return;
  const rows = D.published.rows.filter((row) => !$("benchmark").value || row.dataset === $("benchmark").value);
  const lines = rows.map((row) => h("tr", {}, h("th", { scope: "row" }, `${row.method}${row.rerun ? "*" : ""} `, h("small", {}, `${row.backbone}, ${row.dataset}, Table ${row.table}`)),
    ...(BOXES ? [h("td")] : []), ...columns.map((one) => h("td", {}, one.score in row ? percent(row[one.score]) : ""))));
  fill($("table").tBodies[1], h("tr", {}, h("th", { scope: "rowgroup" }, "Published"), h("td", { colspan: columns.length + 1 })), ...lines);
}
function drawLead() {
  const name = D.protocol.headline, order = [...D.methods.keys()].sort((a, b) => figures(b).scores[name][0] - figures(a).scores[name][0]);
  const top = figures(order[0]).scores[name], square = figures(0).baselines[SQUARES[name]];
  $("lead").textContent = `Highest ${word(name)}${state.source === "none" ? "" : `, thresholds ${word(state.source).toLowerCase()}`}: ${D.methods[order[0]].name} with ${range(top)}.` +
    (square ? ` ${BOXES ? "The same centred square in every photo" : "A map that falls from the middle"} gets ${percent(square[0])} %.` : "");
  $("source-means").textContent = MEANS[state.source]();
}

// Plots, drawn as wide as their place is.
function axes(title, text, { width, height, left = 50, right = 12, top = 8, bottom = 36, x, y, xTicks, yTicks, xLabel = "", yLabel = "" }) {
  const sx = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (width - left - right), sy = (v) => height - bottom - ((v - y[0]) / (y[1] - y[0])) * (height - top - bottom);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${text}` }, s("title", {}, title), s("desc", {}, text));
  for (const v of yTicks) svg.append(s("line", { class: "axis", x1: left, x2: width - right, y1: sy(v), y2: sy(v) }), s("text", { class: "tick", x: left - 6, y: sy(v) + 4, "text-anchor": "end" }, String(v)));
  for (const v of xTicks) svg.append(s("line", { class: "axis", x1: sx(v), x2: sx(v), y1: top, y2: height - bottom }), s("text", { class: "tick", x: sx(v), y: height - bottom + 16, "text-anchor": "middle" }, String(v)));
  svg.append(s("text", { class: "tick", x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, xLabel));
  svg.append(s("text", { class: "tick", transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yLabel));
  return { svg, sx, sy };
}
function ticks(low, high, most = 6) {
  const raw = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((one) => one * power >= raw) * power, found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) found.push(+(i * step).toFixed(6));
  return found;
}
const widthOf = (id) => Math.max(280, Math.floor($(id).clientWidth));
function drawIntervals() {
  const name = state.score, width = widthOf("intervals"), all = [...D.methods.keys()].sort((a, b) => figures(b).scores[name][0] - figures(a).scores[name][0]);
  const base = figures(0).baselines[SQUARES[name]], values = all.flatMap((m) => figures(m).scores[name].slice(1, 3)).concat(base ? [base[0]] : []);
  const x = [Math.max(0, Math.floor(Math.min(...values) / 10) * 10), Math.min(100, Math.ceil(Math.max(...values) / 10) * 10)];
  const row = Math.max(38, Math.min(64, 300 / all.length)), height = all.length * row + 44;
  const { svg, sx } = axes(`95 % intervals of ${word(name)}`, all.map((m) => `${D.methods[m].name}: ${range(figures(m).scores[name])}`).join("; "),
    { width, height, left: 8, x, y: [0, 1], yTicks: [], xTicks: ticks(...x, width / 70), xLabel: "percent" });
  if (base) svg.append(s("line", { class: "base", x1: sx(base[0]), x2: sx(base[0]), y1: 8, y2: height - 36 }));
  all.forEach((m, i) => {
    const [value, low, high] = figures(m).scores[name], y = i * row + row / 2 + 12;
    svg.append(s("g", { colour: colour(m) }, s("text", { x: 8, y: y - 10 }, clipped(D.methods[m].name, width / 8)), s("line", { class: "whisker", x1: sx(low), x2: sx(high), y1: y, y2: y }), s("circle", { class: "dot", cx: sx(value), cy: y, r: 5.5 }, s("title", {}, `${D.methods[m].name}: ${range([value, low, high])}`))));
  });
  fill("intervals", svg, base ? h("p", { class: "quiet" }, `Dotted: ${SQUARE}, ${percent(base[0])} %.`) : "");
}
const clipped = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
function drawCurves() {
  const width = widthOf("curves"), height = 330, kind = state.curve, mask = !BOXES;
  const series = D.methods.map(({ curves }) => (mask ? [curves.recall, curves.precision] : [curves.thresholds, curves[kind]]));
  const top = mask ? 1 : Math.max(5, ...series.flatMap(([, y]) => Math.max(...y))) * 1.04, y = [0, kind === "boxes" || mask ? top : Math.min(100, Math.ceil(top / 10) * 10)];
  const { svg, sx, sy } = axes($("curve-title").textContent, `One line for each method; ${mask ? "precision over recall" : `${word(kind)} over the threshold`}.`,
    { width, height, x: [0, 1], y, xTicks: ticks(0, 1, width / 80), yTicks: ticks(...y), xLabel: mask ? "recall" : "threshold, a share of the map's maximum", yLabel: mask ? "precision" : kind === "boxes" ? "mean number" : "percent of photos" });
  const order = [...D.methods.keys()].sort((a, b) => state.shown.has(a) - state.shown.has(b) || b - a);
  for (const m of order) {
    const on = state.shown.has(m), [xs, ys] = series[m], points = xs.map((v, i) => (v == null || ys[i] == null ? null : `${sx(v).toFixed(1)} ${sy(ys[i]).toFixed(1)}`)).filter(Boolean);
    const line = s("path", { class: on ? "series" : "series off", d: `M${points.join("L")}`, "stroke-dasharray": on ? dash(m) : null, "data-m": m }, s("title", {}, D.methods[m].name));
    const group = s("g", { colour: colour(m) }, line), at = on && !mask ? chosen(m, kind) : null;
    if (at != null) group.append(s("circle", { class: "dot", cx: sx(at), cy: sy(ys[nearest(at)]), r: 5 }, s("title", {}, `${D.methods[m].name}: ${percent(ys[nearest(at)])} at ${at.toFixed(2)}`)));
    svg.append(group);
  }
  fill("curves", svg, mask ? "" : h("p", { class: "quiet" }, "Dots: the thresholds of the table."));
}
const chosen = (m, kind) => (figures(m).scores[kind] ?? (kind === "boxes" ? figures(m).boxes["50"] : null))?.[3];
const nearest = (tau) => D.thresholds.reduce((best, one, i) => (Math.abs(one - tau) < Math.abs(D.thresholds[best] - tau) ? i : best), 0);
function drawErrors() {
  if (!BOXES) return;
  const width = widthOf("errors"), row = 44, height = D.methods.length * row + 4, svg = s("svg", { width, height, role: "img", "aria-label": "Kinds of error" }, s("title", {}, "Kinds of error"));
  const told = [];
  D.methods.forEach((method, m) => {
    const { errors } = figures(m), sum = Object.values(errors).reduce((a, b) => a + b, 0), y = m * row + 16;
    let x = 0;
    svg.append(s("text", { x: 0, y: y - 4 }, clipped(method.name, width / 8)));
    told.push(`${method.name}: ${KINDS.filter((kind) => kind in errors).map((kind) => `${word(kind)} ${errors[kind]}`).join(", ")}`);
    KINDS.forEach((kind, k) => {
      const part = ((errors[kind] ?? 0) / sum) * width;
      if (!part) return;
      svg.append(s("rect", { x, y, width: Math.max(part - 1.5, 0.5), height: 22, rx: 2, fill: `var(--k${k})` }, s("title", {}, `${word(kind)}: ${errors[kind]} photos`)));
      if (part > 9 * String(errors[kind]).length + 5) svg.append(s("text", { x: x + part / 2 - 1, y: y + 15.5, "text-anchor": "middle", class: k === 0 || k === 5 ? "in on-dark" : "in" }, String(errors[kind])));
      x += part;
    });
  });
  svg.append(s("desc", {}, told.join("; ")));
  fill("errors", svg, h("ul", { class: "keys" }, ...KINDS.filter((kind) => kind in figures(0).errors).map((kind) => h("li", { colour: `var(--k${KINDS.indexOf(kind)})` }, h("i"), word(kind)))));
}
function drawHistograms() {
  if (!BOXES) return;
  const shown = [...D.methods.keys()].filter((m) => state.shown.has(m)), most = Math.max(1, ...shown.flatMap((m) => figures(m).iou_histogram.counts));
  const whole = widthOf("histograms"), across = Math.max(1, Math.floor((whole + 14) / 204)), width = Math.floor((whole + 14) / across) - 14;
  fill("histograms", ...shown.map((m) => {
    const { counts } = figures(m).iou_histogram, sum = counts.reduce((a, b) => a + b, 0), good = counts.slice(10).reduce((a, b) => a + b, 0);
    const { svg, sx, sy } = axes(`IoU of ${D.methods[m].name}`, `Photos in twenty steps from 0 to 1: ${counts.join(", ")}.`, { width, height: 96, left: 30, right: 8, bottom: 20, x: [0, 1], y: [0, most], xTicks: [0, 0.5, 1], yTicks: [0, most] });
    counts.forEach((count, i) => svg.append(s("rect", { x: sx(i / 20) + 0.5, y: sy(count), width: sx(0.05) - sx(0) - 1, height: sy(0) - sy(count), fill: i < 10 ? "var(--faint)" : colour(m) }, s("title", {}, `IoU from ${(i / 20).toFixed(2)}: ${count} photos`))));
    const made = h("div", {}, h("h4", {}, ...named(m)), svg, h("small", {}, `${percent((good / sum) * 100)} % from 0.5 on`));
    made.style.width = `${width}px`;
    return made;
  }));
}
function drawSizes() {
  const names = Object.keys(figures(0).by_size).filter((name) => name !== "small").concat("small"), score = state.score, table = $("size-table");
  const text = { small: "small: under 0.4", "below 0.1": "under 0.1", "0.4 and more": "0.4 and more" };
  const heads = names.map((name) => h("th", { scope: "col" }, text[name] ?? name, h("small", {}, ` ${figures(0).by_size[name].photos} photos`)));
  fill(table.tHead, h("tr", {}, h("th", { scope: "col" }, "Method"), ...heads));
  const row = (cells, ...inside) => h("tr", inside.length ? { class: "baseline" } : {}, ...cells);
  const rows = [...D.methods.keys()].map((m) => row([h("th", { scope: "row" }, ...named(m)), ...names.map((name) => cell(figures(m).by_size[name][score]))]));
  if (SQUARES[score]) rows.push(row([h("th", { scope: "row" }, SQUARE), ...names.map((name) => cell(figures(0).by_size[name][SQUARES[score]]))], true));
  fill(table.tBodies[0], ...rows);
  $("under-sizes").textContent = `${word(score)} (the score chosen for the intervals), percent of the photos whose largest object covers such a share of them.`;
}
function drawLegend() {
  const set = (all) => () => { state.shown = new Set(all ? D.methods.keys() : []); drawLegend(); drawCurves(); drawHistograms(); };
  const hot = (m, on) => () => document.querySelectorAll(`#curves [data-m="${m}"]`).forEach((line) => line.classList.toggle("hot", on));
  const chips = [...D.methods.keys()].map((m) => {
    const toggle = (event) => { event.target.checked ? state.shown.add(m) : state.shown.delete(m); drawCurves(); drawHistograms(); };
    return h("label", { onmouseenter: hot(m, true), onmouseleave: hot(m, false) }, h("input", { type: "checkbox", checked: state.shown.has(m), onchange: toggle, onfocus: hot(m, true), onblur: hot(m, false) }), ...named(m));
  });
  fill("legend", h("legend", {}, "Methods in colour"), ...chips, h("button", { type: "button", onclick: set(true) }, "All"), h("button", { type: "button", onclick: set(false) }, "None"));
}

// Two methods.
const quality = D.methods.map((_, m) => bytes(D.quality[m]));
function bytes(text, wide) {
  const raw = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return wide ? new Uint16Array(raw.buffer) : raw;
}
function pair(score) {
  const { first, second } = state, flip = first > second ? -1 : 1;
  const row = D.pairs[state.source][score]?.find(([a, b]) => (a === first && b === second) || (a === second && b === first));
  if (!row) return null;
  const [, , value, low, high, won, lost] = row;
  return flip > 0 ? { value, low, high, won, lost } : { value: -value, low: -high, high: -low, won: lost, lost: won };
}
function drawPaired() {
  const single = state.first === state.second, a = D.methods[state.first].name, b = D.methods[state.second].name;
  $("paired").hidden = single;
  if (single) return;
  const sign = (v) => (v > 0 ? "+" : v < 0 ? "−" : "") + Math.abs(v).toFixed(1), table = $("differences"), scores = Object.keys(D.pairs[state.source]);
  fill(table.tHead, h("tr", {}, ...["Score", "Difference", "95 % interval", "won", "lost"].map((text) => h("th", { scope: "col" }, text))));
  fill(table.tBodies[0], ...scores.map((name) => {
    const one = pair(name);
    return h("tr", {}, h("th", { scope: "row" }, word(name)), h("td", {}, sign(one.value)), h("td", {}, `${sign(one.low)} to ${sign(one.high)}`), h("td", {}, String(one.won ?? "–")), h("td", {}, String(one.lost ?? "–")));
  }));
  const head = pair(D.protocol.headline), sure = head.low > 0 || head.high < 0;
  $("verdict").textContent = sure ? `${head.low > 0 ? a : b} is better in ${word(D.protocol.headline)}: ${sign(head.value)} points for the first, an interval that leaves zero out.` : `No difference in ${word(D.protocol.headline)} is shown between ${a} and ${b}: the interval of ${sign(head.value)} points holds zero.`;
  drawScatter(a, b);
}
function drawScatter(a, b) {
  const what = BOXES ? "IoU" : "average precision", side = Math.min(widthOf("scatter"), 460), bins = new Map(), one = quality[state.first], two = quality[state.second];
  $("scatter-title").textContent = `${what} of every photo`;
  one.forEach((v, i) => { const key = Math.min(19, v / 5 | 0) * 20 + Math.min(19, two[i] / 5 | 0); bins.set(key, (bins.get(key) ?? 0) + 1); });
  const most = Math.max(...bins.values()), quarter = (f, g) => one.filter((v, i) => f(v) && g(two[i])).length, yes = (v) => v >= 50, no = (v) => v < 50;
  const only = [quarter(yes, no), quarter(no, yes)], told = `${only[0]} photos reach 0.5 with ${a} only, ${only[1]} with ${b} only.`;
  const { svg, sx, sy } = axes(`${what} of ${a} and of ${b}`, told, { width: side, height: side * 0.88, x: [0, 1], y: [0, 1], xTicks: [0, 0.5, 1], yTicks: [0, 0.5, 1], xLabel: clipped(a, side / 8), yLabel: clipped(b, side / 8) });
  svg.append(s("line", { class: "base", x1: sx(0), y1: sy(0), x2: sx(1), y2: sy(1) }));
  for (const [key, count] of bins) {
    const x = (key / 20 | 0) / 20 + 0.025, y = (key % 20) / 20 + 0.025;
    svg.append(s("circle", { class: "dot", colour: x > y ? colour(state.first) : y > x ? colour(state.second) : "var(--soft)", cx: sx(x), cy: sy(y), r: 2.5 + 7 * Math.sqrt(count / most) }, s("title", {}, `${count} photos`)));
  }
  fill("scatter", svg, h("p", { class: "quiet" }, `${told} Larger dots: more photos.`));
}

// Photos: heat on a canvas over each, boxes as SVG over that.
const table = bytes(D.colours), SIZE = 128;
let frames = [];
function heatOf(photo, m) {
  const { width, levels } = photo.heat[m], grey = bytes(levels), small = h("canvas", { width, height: grey.length / width }), large = h("canvas", { width: SIZE, height: SIZE });
  const pixels = new ImageData(width, grey.length / width);
  grey.forEach((v, i) => pixels.data.set([v, v, v, 255], i * 4));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const brush = large.getContext("2d", { willReadFrequently: true });
  brush.imageSmoothingQuality = "high";
  brush.drawImage(small, 0, 0, SIZE, SIZE);
  return brush.getImageData(0, 0, SIZE, SIZE).data.filter((_, i) => i % 4 === 0);
}
function paint(frame, least) {
  const image = new ImageData(SIZE, SIZE);
  frame.heat ??= heatOf(frame.photo, frame.m);
  frame.heat.forEach((v, i) => {
    const alpha = v < least ? 0 : 30 + 0.72 * v;
    image.data.set([table[3 * v], table[3 * v + 1], table[3 * v + 2], alpha], i * 4);
  });
  frame.canvas.getContext("2d").putImageData(image, 0, 0);
}
function makeFrame(photo, m) {
  const svg = s("svg", { viewBox: `0 0 ${D.grid} ${D.grid}`, preserveAspectRatio: "none", "aria-hidden": "true" }), frame = { photo, m, canvas: h("canvas", { width: SIZE, height: SIZE, "aria-hidden": "true" }), caption: h("figcaption"), rects: [] };
  const twice = (shape, given, line) => [s(shape, { ...given, class: "casing" }), s(shape, { ...given, class: line })];
  if (BOXES) for (const [x, y, right, bottom] of photo.truth) svg.append(...twice("rect", { x, y, width: right - x, height: bottom - y }, "truth-line"));
  else svg.append(...twice("path", { d: photo.truth }, "truth-line"));
  if (BOXES) {
    frame.rects = twice("rect", {}, "box-line");
    frame.rows = bytes(photo.boxes[m], D.wide);
    svg.append(...frame.rects);
  }
  const picture = h("div", { class: "picture" }, photo.thumb ? h("img", { src: photo.thumb, alt: `${photo.name}, ${photo.id}`, decoding: "async" }) : h("span", { class: "quiet" }, "This photo could not be read."), frame.canvas, svg);
  picture.style.aspectRatio = `${photo.size[0]} / ${photo.size[1]}`;
  frame.element = h("figure", { class: "frame" }, picture, frame.caption);
  paint(frame, 0);
  return frame;
}
const position = (m) => nearest(state.tau ?? own(m) ?? 0);
function rowAt(frame) {
  const at = 6 * D.levels[position(frame.m)];
  return frame.rows.subarray(at, at + 6);
}
const kindAt = (frame) => (frame.photo.right[frame.m] ? D.kinds[rowAt(frame)[5]] : "cls_wrong");
function updateFrame(frame) {
  const name = h("span", {}, ...named(frame.m));
  if (!BOXES) {
    if (frame.drawn !== state.tau) paint(frame, state.tau == null ? 0 : state.tau * 255);
    frame.drawn = state.tau;
    return fill(frame.caption, name);
  }
  const [x, y, right, bottom, iou] = rowAt(frame), kind = kindAt(frame), guess = frame.photo.predicted[frame.m];
  for (const rect of frame.rects) for (const [key, value] of Object.entries({ x, y, width: right - x, height: bottom - y })) rect.setAttribute(key, value);
  fill(frame.caption, name, h("br"), h("b", {}, `IoU ${(iou / 100).toFixed(2)}`), ` at ${D.thresholds[position(frame.m)].toFixed(2)}: ${word(kind)}`, kind === "cls_wrong" ? ` (taken for ${guess})` : "");
}
function card(photo) {
  const second = $("alone").checked || state.second === state.first ? [] : [state.second], own = [state.first, ...second].map((m) => makeFrame(photo, m));
  const title = h("h3", {}, photo.name || photo.id), zoom = h("button", { type: "button", "aria-label": `All methods on ${photo.id}`, onclick: () => openOne(photo) }, "All methods");
  return { photo, frames: own, element: h("li", { class: "card" }, h("div", { class: "row" }, title, zoom), h("p", { class: "id" }, photo.id), h("div", { class: "frames" }, ...own.map((one) => one.element))) };
}
let cards = [];
function drawGallery() {
  if (!D.photos.length) return;
  const list = $("list").value, places = list === "all" ? [...D.photos.keys()] : D.lists[state.first][list];
  cards = places.map((place) => card(D.photos[place]));
  frames = cards.flatMap((one) => one.frames);
  $("cards").classList.toggle("pairs", cards.some((one) => one.frames.length > 1));
  fill("cards", ...cards.map((one) => one.element));
  updateGallery();
}
function updateGallery() {
  const tau = state.tau == null ? (BOXES ? own(state.first) : 0) : state.tau, wanted = { class: $("class").value, kind: $("kind").value };
  $("tau").value = nearest(tau);
  $("tau-value").textContent = state.tau == null ? (BOXES ? `${tau.toFixed(2)}, own` : "all") : tau.toFixed(2);
  $("tau").setAttribute("aria-valuetext", $("tau-value").textContent);
  frames.concat(opened).forEach(updateFrame);
  for (const one of cards) one.element.hidden = (wanted.class && one.photo.name !== wanted.class) || (wanted.kind && kindAt(one.frames[0]) !== wanted.kind);
  const left = cards.filter((one) => !one.element.hidden).length;
  $("count").textContent = left === cards.length ? `${left} photos.` : left ? `${left} of ${cards.length} photos.` : `None of these ${cards.length} photos; choose another list, class or error.`;
}
let opened = [];
function openOne(photo) {
  opened = [...D.methods.keys()].map((m) => makeFrame(photo, m));
  $("one-title").textContent = `${photo.name}, ${photo.id}`;
  fill("one-frames", ...opened.map((one) => one.element));
  opened.forEach(updateFrame);
  $("one").showModal();
}

// Putting it together.
function drawPlots() {
  for (const draw of [drawIntervals, drawCurves, drawErrors, drawHistograms, drawSizes, drawPaired]) draw();
}
function drawAll() {
  for (const draw of [drawLead, drawTable, drawPlots, updateGallery]) draw();
}
function listen() {
  const on = (id, kind, act) => $(id).addEventListener(kind, act);
  on("score", "change", () => { state.score = $("score").value; drawIntervals(); drawSizes(); });
  on("curve", "change", () => { state.curve = $("curve").value; drawCurves(); });
  for (const id of ["first", "second"]) on(id, "change", () => { state[id] = +$(id).value; drawPaired(); drawGallery(); });
  on("swap", "click", () => { [state.first, state.second] = [state.second, state.first]; $("first").value = state.first; $("second").value = state.second; drawPaired(); drawGallery(); });
  for (const id of ["list", "alone"]) on(id, "change", drawGallery);
  for (const id of ["class", "kind"]) on(id, "change", updateGallery);
  on("heat", "change", () => document.body.classList.toggle("no-heat", !$("heat").checked));
  on("tau", "input", () => { state.tau = D.thresholds[$("tau").value]; updateGallery(); });
  on("own", "click", () => { state.tau = null; updateGallery(); });
  on("one", "close", () => { opened = []; });
  on("benchmark", "change", drawTable);
  on("published", "click", () => {
    const rows = $("table").tBodies[1], show = rows.hidden;
    rows.hidden = !show;
    $("published-note").hidden = !show;
    $("published").setAttribute("aria-expanded", show);
    $("published").textContent = show ? "Hide published figures" : "Show published figures";
  });
  on("theme", "click", () => {
    const next = { "": "light", light: "dark", dark: "" }[document.documentElement.dataset.theme ?? ""];
    document.documentElement.dataset.theme = next;
    $("theme").textContent = `Theme: ${next || "system"}`;
  });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) requestAnimationFrame(drawPlots); width = innerWidth; });
}
function start() {
  fill("notes", ...D.notes.map((text) => h("p", { class: "note" }, text)));
  const radios = D.sources.filter((name) => name !== "none").map((name) => h("label", {}, h("input", { type: "radio", name: "source", value: name, checked: name === state.source, onchange: () => { state.source = name; drawAll(); } }), word(name)));
  $("sources").append(...radios);
  $("sources").hidden = !radios.length;
  document.querySelectorAll(".boxes-only").forEach((one) => { one.hidden = !BOXES; });
  const scores = Object.keys(figures(0).scores).filter((name) => name !== "maxboxacc");
  options("score", scores.map((name) => [name, word(name)]), state.score);
  options("curve", Object.keys(D.methods[0].curves).filter((name) => name !== "thresholds").map((name) => [name, word(name)]), state.curve);
  if (!BOXES) { $("curve-title").textContent = "Precision and recall"; $("curve").parentElement.hidden = true; }
  for (const id of ["first", "second"]) options(id, D.methods.map((one, m) => [m, one.name]), state[id]);
  $("two").hidden = D.methods.length < 2;
  $("alone").parentElement.hidden = D.methods.length < 2;
  const some = D.lists.length ? D.lists[0].best.length : 0;
  options("list", [...["best", "median", "worst"].map((name) => [name, `${name} ${some} of the first method`]), ["all", `all ${D.photos.length} on this page`]], "best");
  options("class", [["", "all"], ...[...new Set(D.photos.map((one) => one.name))].sort().map((name) => [name, name])], "");
  options("kind", [["", "all"], ...KINDS.map((name) => [name, word(name)])], "");
  $("gallery-means").textContent = `Ranked by the ${BOXES ? "IoU of the one box at the threshold that the run reports" : "average precision of the photo's pixels"}; the two methods are chosen above.`;
  $("tau").max = D.thresholds.length - 1;
  $("gallery-part").hidden = !D.photos.length;
  if (!D.photos.length) $("photos").append(h("p", { class: "note" }, D.notes[0] ?? ""));
  startPublished();
  startAbout();
  listen();
  drawLegend();
  drawAll();
  drawGallery();
}
function startPublished() {
  if (!D.published) return;
  const { likely, same, datasets, source } = D.published;
  $("published-row").hidden = false;
  options("benchmark", [["", "all"], ...Object.keys(datasets).map((name) => [name, name])], likely);
  $("published-note").textContent = `${same ? `Published figures of ${likely}, as many photos as here.` : "Published figures are of a whole benchmark, other photos than these: for orientation only."} They come from other models, training and protocols. Read from ${source}; *: its authors ran the method's code again.`;
  $("references").hidden = false;
  fill($("references").querySelector("p"), source);
  fill($("references").querySelector("ul"), ...Object.entries(D.published.citations).map(([name, text]) => h("li", {}, `${name}: ${text}`)));
}
function startAbout() {
  const { data, model, protocol, size, interval, batch_size, trt_cam } = D.identity;
  const facts = { "Data set": data.name, Split: data.split + (data.part ? `, ${data.part} photos` : ""), Photos: `${data.photos - D.failed.length} of ${data.photos}`, Model: `${model.name} (weights ${model.weights})`, "Model's input": `${size.join(" × ")} pixels`, Protocol: protocol, Thresholds: `${D.thresholds.length}, ${interval} apart`, "Batch size": batch_size, trt_cam };
  fill("identity", ...Object.entries(facts).flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, String(text))]));
  fill("settings", ...D.methods.flatMap((one) => [h("dt", {}, one.name), h("dd", {}, one.settings)]));
  $("failures").hidden = !D.failed.length;
  $("failures").querySelector("summary").textContent = `${D.failed.length} photos that count for no method`;
  fill($("failures").querySelector("ul"), ...D.failed.map(([name, reason]) => h("li", {}, `${name}: ${reason}`)));
}
start();
