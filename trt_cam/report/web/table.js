// The tables: all figures, published ones beside them, and by size of the object.

const SCORES = {
  top1_cls: "The class found first is the right one.",
  top1_loc: "It is, and the box around the largest region has an IoU of 0.5 with an object.",
  top5_loc: "The same, the right class among the first five.",
  gt_known_50: "The right class is given; the box around the largest region has an IoU of at least 0.5.",
  gt_known_70: "The same, an IoU of at least 0.7.",
  maxboxacc_v2: "The box of any region or hole counts; the mean over an IoU of 0.3, 0.5 and 0.7.",
  pxap: "Average precision of the map as a classifier of pixels, over all pixels of all photos.",
};
const SMALL = "The same of the photos whose largest object covers under 40 %.";
const MANY = "Mean number of regions and holes, at the threshold of any box 0.5: more boxes are more chances.";

function columns() {
  const there = Object.keys(SCORES).filter((score) => score in figures(0).scores);
  const found = there.map((score) => ({
    key: score,
    score,
    head: word(score).replace(" ", "\n"),
    means: SCORES[score],
    of: (f) => f.scores[score],
    base: (f, which) => f.baselines[which[score]],
  }));
  for (const score of ["gt_known_50", "maxboxacc_v2", "pxap"].filter((one) => there.includes(one))) {
    const of = (f) => f.by_size.small[score];
    const base = (f, which) => f.by_size.small[which[score]];
    found.push({ key: `small ${score}`, head: `small,\n${word(score)}`, means: SMALL, of, base });
  }
  if (BOXES) found.push({ key: "boxes", head: "boxes", means: MANY, of: (f) => f.boxes["50"], base: () => null });
  return found;
}

function cell(figure, best = false) {
  if (!figure) return h("td", {}, "–");
  const ends = h("small", {}, `${percent(figure[1])}–${percent(figure[2])}`);
  return h("td", { class: best ? "top" : null }, percent(figure[0]), ends);
}
const rowOf = (given, first, ...cells) => h("tr", given, h("th", { scope: "row" }, ...first), ...cells);

function sorted(all) {
  if (state.sort === "name") return [...ALL].sort((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1));
  const column = all.find((one) => one.key === state.sort);
  const key = (m) => (column ? column.of(figures(m))?.[0] ?? 0 : own(m));
  return [...ALL].sort((a, b) => key(b) - key(a));
}

function drawTable() {
  const all = columns();
  const order = state.falling ? sorted(all) : sorted(all).reverse();
  const at = (text) => (BOXES ? [h("td", {}, text)] : []);
  const best = all.map((one) => Math.max(...ALL.map((m) => one.of(figures(m))?.[0] ?? 0)));
  const tops = (one, m, i) => one.key !== "boxes" && one.of(figures(m))?.[0] === best[i];
  const rows = order.map((m) =>
    rowOf({}, named(m), ...at(own(m)?.toFixed(2)), ...all.map((one, i) => cell(one.of(figures(m)), tops(one, m, i)))),
  );
  const base = (text, which) =>
    rowOf({ class: "baseline" }, [text], ...at("–"), ...all.map((one) => cell(one.base(figures(0), which))));
  const heads = [["name", "Method"], ...(BOXES ? [["at", "at"]] : []), ...all.map((one) => [one.key, one.head])];
  $("table").tHead.replaceChildren(h("tr", {}, ...heads.map((one) => sortable(...one))));
  $("table").tBodies[0].replaceChildren(...rows, base(SQUARE, SQUARES), base("whole photo", WHOLE));
  $("under-table").textContent =
    `Percent of ${PHOTOS} photos; below each figure its 95 % interval. ` +
    (BOXES
      ? "at: the threshold of the one box, a share of the map's maximum. " +
        "Best centred square and whole photo: the same box in every photo."
      : "In the middle: a map that falls from the middle to the corners; whole photo: a constant one.");
  fill("columns", ...all.flatMap((one) => [h("dt", {}, one.head), h("dd", {}, one.means)]));
  drawPublished(all);
}

function sortable(key, text) {
  const click = () => {
    state.falling = state.sort === key ? !state.falling : true;
    state.sort = key;
    drawTable();
    $("table").querySelector(`[data-key="${key}"]`).focus();
  };
  const way = state.falling === (key !== "name") ? "descending" : "ascending";
  const button = h("button", { type: "button", "data-key": key, onclick: click }, text);
  return h("th", { scope: "col", "aria-sort": state.sort === key ? way : null }, button);
}

function drawPublished(all) {
  if (!D.published) return;
  const wanted = $("benchmark").value;
  const rows = D.published.rows.filter((row) => !wanted || row.dataset === wanted);
  const shown = rows.map((row) => {
    const where = h("small", {}, `${row.backbone}, ${row.dataset}, Table ${row.table}`);
    const cells = all.map((one) => h("td", {}, one.score in row ? percent(row[one.score]) : ""));
    return rowOf({}, [`${row.method}${row.rerun ? "*" : ""} `, where], h("td"), ...cells);
  });
  const head = h("tr", {}, h("th", { scope: "rowgroup" }, "Published"), h("td", { colspan: all.length + 1 }));
  $("table").tBodies[1].replaceChildren(head, ...shown);
}

function drawSizes() {
  const { score } = state;
  const names = [...Object.keys(figures(0).by_size).filter((size) => size !== "small"), "small"];
  const heads = names.map((size) => {
    const text = { small: "small: below 0.4" }[size] ?? size;
    return h("th", { scope: "col" }, text, h("small", {}, ` ${figures(0).by_size[size].photos} photos`));
  });
  const cells = (m, key) => names.map((size) => cell(figures(m).by_size[size][key]));
  const rows = ALL.map((m) => rowOf({}, named(m), ...cells(m, score)));
  if (score in SQUARES) rows.push(rowOf({ class: "baseline" }, [SQUARE], ...cells(0, SQUARES[score])));
  $("size-table").tHead.replaceChildren(h("tr", {}, h("th", { scope: "col" }, "Method"), ...heads));
  $("size-table").tBodies[0].replaceChildren(...rows);
  $("under-sizes").textContent =
    `${word(score)}, the score chosen for the intervals, in percent of the photos ` +
    "whose largest object covers such a share of them.";
}

function drawLead() {
  const [top] = by(HEADLINE);
  const square = figures(0).baselines[SQUARES[HEADLINE]];
  const at = state.source === "none" ? "" : `, thresholds ${word(state.source).toLowerCase()}`;
  const same = BOXES ? "The same centred square in every photo" : "A map that falls from the middle";
  $("lead").textContent =
    `Highest ${word(HEADLINE)}${at}: ${nameOf(top)} with ${interval(figures(top).scores[HEADLINE])}. ` +
    `${same} gets ${percent(square[0])} %.`;
  $("source-means").textContent = SOURCES[state.source]();
}
