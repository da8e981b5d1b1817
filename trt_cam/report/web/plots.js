// The plots, as SVG, drawn as wide as their place is.

const widthOf = (id) => Math.max(260, Math.floor($(id).clientWidth));

function ticks(low, high, most = 6) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i++) found.push(+(i * step).toFixed(6));
  return found;
}

/** An empty plot, with the functions that place a number on it; `x` and `y` are [low, high, ticks, label]. */
function axes(title, text, { width, height, x, y, left = 50, bottom = 36 }) {
  const right = width - 12;
  const top = 8;
  const low = height - bottom;
  const sx = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left);
  const sy = (v) => low - ((v - y[0]) / (y[1] - y[0])) * (low - top);
  const line = (x1, y1, x2, y2) => s("line", { class: "axis", x1, y1, x2, y2 });
  const tick = (text, given) => s("text", { class: "tick", "text-anchor": "middle", ...given }, String(text));
  const svg = plain(title, text, width, height);
  for (const v of y[2]) {
    svg.append(line(left, sy(v), right, sy(v)), tick(v, { x: left - 6, y: sy(v) + 4, "text-anchor": "end" }));
  }
  for (const v of x[2]) svg.append(line(sx(v), top, sx(v), low), tick(v, { x: sx(v), y: low + 16 }));
  const turned = `translate(12 ${(top + low) / 2}) rotate(-90)`;
  svg.append(tick(x[3] ?? "", { x: (left + right) / 2, y: height - 3 }), tick(y[3] ?? "", { transform: turned }));
  return { svg, sx, sy };
}
function plain(title, text, width, height) {
  const given = { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${text}` };
  return s("svg", given, s("title", {}, title), s("desc", {}, text));
}

function drawIntervals() {
  const { score } = state;
  const order = by(score);
  const base = figures(0).baselines[SQUARES[score]];
  const ends = order.flatMap((m) => figures(m).scores[score].slice(1, 3)).concat(base ? [base[0]] : []);
  const low = Math.max(0, Math.floor(Math.min(...ends) / 10) * 10);
  const high = Math.min(100, Math.ceil(Math.max(...ends) / 10) * 10);
  const width = widthOf("intervals");
  const row = Math.max(38, Math.min(64, 300 / order.length));
  const height = order.length * row + 44;
  const text = order.map((m) => `${nameOf(m)}: ${interval(figures(m).scores[score])}`).join("; ");
  const x = [low, high, ticks(low, high, width / 70), "percent"];
  const { svg, sx } = axes(`95 % intervals of ${word(score)}`, text, { width, height, left: 8, x, y: [0, 1, []] });
  if (base) svg.append(s("line", { class: "base", x1: sx(base[0]), x2: sx(base[0]), y1: 8, y2: height - 36 }));
  order.forEach((m, i) => {
    const figure = figures(m).scores[score];
    const y = (i + 0.5) * row + 12;
    const title = s("title", {}, `${nameOf(m)}: ${interval(figure)}`);
    svg.append(
      s(
        "g",
        { colour: colour(m) },
        s("text", { x: 8, y: y - 10 }, clipped(nameOf(m), width / 8)),
        s("line", { class: "whisker", x1: sx(figure[1]), x2: sx(figure[2]), y1: y, y2: y }),
        s("circle", { class: "dot", cx: sx(figure[0]), cy: y, r: 5.5 }, title),
      ),
    );
  });
  fill("intervals", svg, base ? h("p", { class: "quiet" }, `Dotted: ${SQUARE}, ${percent(base[0])} %.`) : "");
}

function drawCurves() {
  const kind = state.curve;
  const lines = D.methods.map(({ curves }) =>
    BOXES ? [curves.thresholds, curves[kind]] : [curves.recall, curves.precision],
  );
  const width = widthOf("curves");
  const most = Math.max(...lines.flatMap(([, ys]) => Math.max(...ys)));
  const high = !BOXES ? 1 : kind === "boxes" ? most * 1.04 : Math.min(100, Math.ceil((most + 1) / 10) * 10);
  const x = [0, 1, ticks(0, 1, width / 80), BOXES ? "threshold, a share of the map's maximum" : "recall"];
  const unit = !BOXES ? "precision" : kind === "boxes" ? "mean number" : "percent of photos";
  const text = `One line for each method: ${BOXES ? `${word(kind)} over the threshold` : "precision over recall"}.`;
  const size = { width, height: 330, x, y: [0, high, ticks(0, high), unit] };
  const { svg, sx, sy } = axes($("curve-title").textContent, text, size);
  for (const m of [...ALL].sort((a, b) => state.shown.has(a) - state.shown.has(b) || b - a)) {
    const on = state.shown.has(m);
    const [xs, ys] = lines[m];
    const points = xs.map((v, i) => (v == null || ys[i] == null ? "" : `${sx(v).toFixed(1)} ${sy(ys[i]).toFixed(1)}`));
    const given = { d: `M${points.filter(Boolean).join("L")}`, "data-m": m, "stroke-dasharray": on ? dash(m) : null };
    const line = s("path", { class: on ? "series" : "series off", ...given }, s("title", {}, nameOf(m)));
    const at = on && BOXES ? nearest(chosen(m, kind)) : null;
    const dot = at == null ? null : s("circle", { class: "dot", cx: sx(xs[at]), cy: sy(ys[at]), r: 5 });
    dot?.append(s("title", {}, `${nameOf(m)}: ${percent(ys[at])} at ${xs[at].toFixed(2)}`));
    svg.append(s("g", { colour: colour(m) }, line, dot));
  }
  fill("curves", svg, BOXES ? h("p", { class: "quiet" }, "Dots: the thresholds of the table.") : "");
}
const chosen = (m, kind) => (kind === "boxes" ? figures(m).boxes["50"] : figures(m).scores[kind])[3];

function drawErrors() {
  const width = widthOf("errors");
  const row = 44;
  const there = KINDS.filter((kind) => kind in figures(0).errors);
  const told = (m) => there.map((kind) => `${word(kind)} ${figures(m).errors[kind]}`).join(", ");
  const text = ALL.map((m) => `${nameOf(m)}: ${told(m)}`).join("; ");
  const svg = plain("Kinds of error", text, width, ALL.length * row + 4);
  for (const m of ALL) {
    const y = m * row + 16;
    let x = 0;
    svg.append(s("text", { x, y: y - 4 }, clipped(nameOf(m), width / 8)));
    for (const kind of there) {
      const count = figures(m).errors[kind];
      const part = (count / PHOTOS) * width;
      const k = KINDS.indexOf(kind);
      const given = { x, y, width: Math.max(part - 1.5, 0.5), height: 22, rx: 2, fill: `var(--k${k})` };
      const inside = { x: x + part / 2 - 1, y: y + 15.5, "text-anchor": "middle" };
      const ink = k === 0 || k === 5 ? "in on-dark" : "in";
      if (count) svg.append(s("rect", given, s("title", {}, `${word(kind)}: ${count} photos`)));
      if (part > 9 * String(count).length + 5) svg.append(s("text", { class: ink, ...inside }, String(count)));
      x += part;
    }
  }
  const key = (kind) => h("li", { colour: `var(--k${KINDS.indexOf(kind)})` }, h("i"), word(kind));
  fill("errors", svg, h("ul", { class: "keys" }, ...there.map(key)));
}

function drawHistograms() {
  const shown = ALL.filter((m) => state.shown.has(m));
  const most = Math.max(1, ...shown.flatMap((m) => figures(m).iou_histogram.counts));
  const whole = widthOf("histograms") + 14;
  const width = Math.floor(whole / Math.max(1, Math.floor(whole / 204))) - 14;
  const histogram = (m) => {
    const { counts } = figures(m).iou_histogram;
    const size = { width, height: 96, left: 30, bottom: 20, x: [0, 1, [0, 0.5, 1]], y: [0, most, [0, most]] };
    const text = `Photos in twenty steps from 0 to 1: ${counts.join(", ")}.`;
    const { svg, sx, sy } = axes(`IoU of ${nameOf(m)}`, text, size);
    counts.forEach((count, i) => {
      const given = { x: sx(i / 20) + 0.5, y: sy(count), width: sx(0.05) - sx(0) - 1, height: sy(0) - sy(count) };
      const title = s("title", {}, `IoU from ${(i / 20).toFixed(2)}: ${count} photos`);
      svg.append(s("rect", { ...given, fill: i < 10 ? "var(--faint)" : colour(m) }, title));
    });
    const good = `${percent((sum(counts.slice(10)) / PHOTOS) * 100)} % from 0.5 on`;
    const made = h("div", {}, h("h4", {}, ...named(m)), svg, h("small", {}, good));
    made.style.width = `${width}px`;
    return made;
  };
  fill("histograms", ...shown.map(histogram));
}

function drawLegend() {
  const redraw = () => {
    drawCurves();
    if (BOXES) drawHistograms();
  };
  const set = (all) => () => {
    state.shown = new Set(all ? ALL : []);
    drawLegend();
    redraw();
  };
  const chip = (m) => {
    const hot = (on) => () => $("curves").querySelector(`[data-m="${m}"]`).classList.toggle("hot", on);
    const toggle = (event) => {
      if (event.target.checked) state.shown.add(m);
      else state.shown.delete(m);
      redraw();
    };
    const given = { checked: state.shown.has(m), onchange: toggle, onfocus: hot(true), onblur: hot(false) };
    const box = h("input", { type: "checkbox", ...given });
    return h("label", { onmouseenter: hot(true), onmouseleave: hot(false) }, box, ...named(m));
  };
  const button = (text, all) => h("button", { type: "button", onclick: set(all) }, text);
  fill("legend", h("legend", {}, "Methods in colour"), ...ALL.map(chip), button("All", true), button("None", false));
}

// Two methods.
const quality = D.quality.map((text) => bytes(text)); // hundredths, a photo each

function pair(score) {
  const { first, second } = state;
  const rows = D.pairs[state.source][score];
  const same = rows.find(([a, b]) => a === first && b === second);
  if (same) return same.slice(2);
  const [, , middle, low, high, won, lost] = rows.find(([a, b]) => a === second && b === first);
  return [-middle, -high, -low, lost, won];
}

function drawPaired() {
  const { first, second } = state;
  $("paired").hidden = first === second;
  if (first === second) return;
  const sign = (v) => (v > 0 ? "+" : v < 0 ? "−" : "") + Math.abs(v).toFixed(1);
  const heads = ["Score", "Difference", "95 % interval", "won", "lost"].map((one) => h("th", { scope: "col" }, one));
  const rows = Object.keys(D.pairs[state.source]).map((score) => {
    const [middle, low, high, won, lost] = pair(score);
    const cells = [sign(middle), `${sign(low)} to ${sign(high)}`, String(won ?? "–"), String(lost ?? "–")];
    return rowOf({}, [word(score)], ...cells.map((one) => h("td", {}, one)));
  });
  $("differences").tHead.replaceChildren(h("tr", {}, ...heads));
  $("differences").tBodies[0].replaceChildren(...rows);
  const [, low, high] = pair(HEADLINE);
  $("verdict").textContent =
    low > 0 || high < 0
      ? `${nameOf(low > 0 ? first : second)} is better in ${word(HEADLINE)}: the interval of the difference leaves ` +
        "zero out."
      : `No difference of ${nameOf(first)} and ${nameOf(second)} in ${word(HEADLINE)} is shown: the interval of the ` +
        "difference holds zero.";
  drawScatter(first, second);
}

function drawScatter(first, second) {
  const what = BOXES ? "IoU" : "Average precision";
  const width = Math.min(widthOf("scatter"), 460);
  const bins = new Map();
  quality[first].forEach((v, i) => {
    const key = [v, quality[second][i]].map((one) => Math.min(19, Math.floor(one / 5))).join();
    bins.set(key, (bins.get(key) ?? 0) + 1);
  });
  const only = (a, b) => quality[a].filter((v, i) => v >= 50 && quality[b][i] < 50).length;
  const text =
    `${only(first, second)} photos reach 0.5 with ${nameOf(first)} only, ` +
    `${only(second, first)} with ${nameOf(second)} only.`;
  const side = (m) => [0, 1, [0, 0.5, 1], clipped(nameOf(m), width / 8)];
  const size = { width, height: width * 0.88, x: side(first), y: side(second) };
  const { svg, sx, sy } = axes(`${what} of ${nameOf(first)} and of ${nameOf(second)}`, text, size);
  svg.append(s("line", { class: "base", x1: sx(0), y1: sy(0), x2: sx(1), y2: sy(1) }));
  const most = Math.max(...bins.values());
  for (const [key, count] of bins) {
    const [x, y] = key.split(",").map((one) => (+one + 0.5) / 20);
    const better = x > y ? colour(first) : y > x ? colour(second) : "var(--soft)";
    const given = { cx: sx(x), cy: sy(y), r: 2.5 + 7 * Math.sqrt(count / most), colour: better };
    svg.append(s("circle", { class: "dot", ...given }, s("title", {}, `${count} photos`)));
  }
  $("scatter-title").textContent = `${what} of every photo`;
  const at = BOXES ? "At the thresholds that the run reports. " : "";
  fill("scatter", svg, h("p", { class: "quiet" }, `${at}${text} Larger dots: more photos.`));
}
