"use strict";
// The data of the page, what names mean, and how elements are made: data become text, never markup.

const D = JSON.parse(document.getElementById("data").textContent);
const ALL = [...D.methods.keys()];
const BOXES = D.protocol.boxes;
const HEADLINE = D.protocol.headline;
const PHOTOS = D.identity.data.photos - D.failed.length;
const KINDS = BOXES ? ["right", "cls_wrong", ...D.kinds.slice(1)] : [];
const WORDS = {
  right: "right",
  cls_wrong: "class wrong",
  multi_instances: "several objects in one box",
  region_part: "part of the object",
  region_more: "more than the object",
  region_wrong: "elsewhere",
  fixed: "Fixed beforehand",
  "from-val": "Chosen on other photos",
  best: "Best on these photos (oracle)",
  top1_cls: "Top-1 Cls",
  top5_cls: "Top-5 Cls",
  top1_loc: "Top-1 Loc",
  top5_loc: "Top-5 Loc",
  gt_known_30: "GT-known 0.3",
  gt_known_50: "GT-known 0.5",
  gt_known_70: "GT-known 0.7",
  any_box_30: "any box 0.3",
  any_box_50: "any box 0.5",
  any_box_70: "any box 0.7",
  maxboxacc_v2: "MaxBoxAccV2",
  pxap: "PxAP",
  boxes: "number of boxes",
};
const SOURCES = {
  fixed: () => "One threshold for each method, set before these photos were looked at.",
  "from-val": () =>
    `Chosen on photos that are not counted here (${D.methods[0].splits["from-val"]}): an accuracy one can have.`,
  best: () =>
    "Chosen on the very photos that are counted, one for each IoU: how the field compares, " +
    "and an accuracy that nobody has on new photos.",
  none: () => "",
};
// Baselines: what takes the same box, or map, in every photo.
const SQUARE = BOXES ? "best centred square" : "in the middle";
const SQUARES = {
  gt_known_30: "centred_square_30",
  gt_known_50: "centred_square_50",
  gt_known_70: "centred_square_70",
  maxboxacc_v2: "centred_square_v2",
  pxap: "centre",
};
const WHOLE = {
  gt_known_30: "whole_image_30",
  gt_known_50: "whole_image_50",
  gt_known_70: "whole_image_70",
  maxboxacc_v2: "whole_image_v2",
  pxap: "whole_image",
};

const state = {
  source: D.source,
  sort: HEADLINE,
  falling: true,
  shown: new Set(ALL.slice(0, 8)),
  score: HEADLINE,
  curve: "gt_known_50",
  first: 0,
  second: Math.min(1, D.methods.length - 1),
  tau: null, // each method's own
};

const word = (name) => WORDS[name] ?? name;
const nameOf = (m) => D.methods[m].name;
const figures = (m) => D.methods[m].figures[state.source];
const value = (m, score) => figures(m).scores[score][0];
const by = (score) => [...ALL].sort((a, b) => value(b, score) - value(a, score));
const own = (m) => (BOXES ? figures(m).scores.gt_known_50[3] : null);
const percent = (number) => (number == null ? "–" : number.toFixed(1));
const interval = ([middle, low, high]) => `${percent(middle)} % (${percent(low)} to ${percent(high)})`;
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const clipped = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
const nearest = (tau) =>
  D.thresholds.reduce((best, one, i) => (Math.abs(one - tau) < Math.abs(D.thresholds[best] - tau) ? i : best), 0);

function bytes(text, wide) {
  const raw = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return wide ? new Uint16Array(raw.buffer) : raw;
}

const $ = (id) => document.getElementById(id);
function make(made, given, inside) {
  for (const [key, one] of Object.entries(given)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), one);
    else if (key === "colour") made.style.setProperty("--c", one);
    else if (one != null && one !== false) made.setAttribute(key, one === true ? "" : one);
  }
  made.append(...inside.filter((one) => one != null)); // texts become text nodes
  return made;
}
const h = (tag, given = {}, ...inside) => make(document.createElement(tag), given, inside);
const s = (tag, given = {}, ...inside) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", tag), given, inside);
const fill = (id, ...inside) => $(id).replaceChildren(...inside);
function options(id, pairs, chosen) {
  fill(id, ...pairs.map(([key, text]) => h("option", { value: key }, text)));
  $(id).value = chosen;
}

// One colour for a method everywhere; dashes where there are more than eight.
const colour = (m) => `var(--m${m % 8})`;
const dash = (m) => ["", "9 4", "3 3", "12 3 3 3"][Math.floor(m / 8) % 4];
function named(m) {
  const line = s("line", { x1: 0, x2: 28, y1: 6, y2: 6, class: "series", "stroke-dasharray": dash(m) });
  const dot = s("circle", { class: "dot", cx: 14, cy: 6, r: 4 });
  const given = { class: "swatch", viewBox: "0 0 28 12", "aria-hidden": "true", colour: colour(m) };
  return [s("svg", given, line, dot), nameOf(m)];
}
