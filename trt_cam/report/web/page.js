// Putting it together.

function drawPlots() {
  for (const draw of [drawIntervals, drawCurves, drawSizes]) draw();
  if (BOXES) for (const draw of [drawErrors, drawHistograms]) draw();
  if (ALL.length > 1) drawPaired();
}

function choosePair(first, second) {
  Object.assign(state, { first, second });
  $("first").value = first;
  $("second").value = second;
  drawPaired();
  drawGallery();
}

function listen() {
  const on = (id, kind, act) => $(id).addEventListener(kind, act);
  const choose = (id, key, ...draws) =>
    on(id, "change", () => {
      state[key] = $(id).value;
      for (const draw of draws) draw();
    });
  choose("score", "score", drawIntervals, drawSizes);
  choose("curve", "curve", drawCurves);
  for (const id of ["first", "second"]) on(id, "change", () => choosePair(+$("first").value, +$("second").value));
  on("swap", "click", () => choosePair(state.second, state.first));
  for (const id of ["list", "alone"]) on(id, "change", drawGallery);
  for (const id of ["class", "kind"]) on(id, "change", updateGallery);
  on("heat", "change", () => document.body.classList.toggle("no-heat", !$("heat").checked));
  const setTau = (tau) => {
    state.tau = tau;
    updateGallery();
  };
  on("tau", "input", () => setTau(D.thresholds[$("tau").value]));
  on("own", "click", () => setTau(null));
  on("one", "close", () => (opened = []));
  on("benchmark", "change", drawTable);
  on("published", "click", () => {
    const rows = $("table").tBodies[1];
    const show = rows.hidden;
    rows.hidden = $("published-note").hidden = !show;
    $("published").setAttribute("aria-expanded", show);
    $("published").textContent = show ? "Hide published figures" : "Show published figures";
  });
  on("theme", "click", () => {
    const root = document.documentElement;
    root.dataset.theme = { "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""];
    $("theme").textContent = `Theme: ${root.dataset.theme || "system"}`;
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) requestAnimationFrame(drawPlots);
    width = innerWidth;
  });
}

function startSources() {
  const radio = (source) => {
    const change = () => {
      state.source = source;
      for (const draw of [drawLead, drawTable, drawPlots, updateGallery]) draw();
    };
    const given = { value: source, checked: source === state.source, onchange: change };
    return h("label", {}, h("input", { type: "radio", name: "source", ...given }), word(source));
  };
  $("sources").append(...D.sources.map(radio));
  $("sources").hidden = D.source === "none";
}

function startChoices() {
  const words = (names) => names.map((one) => [one, word(one)]);
  const scores = Object.keys(figures(0).scores).filter((score) => score in WORDS);
  options("score", words(scores), state.score);
  options("curve", words(Object.keys(D.methods[0].curves).filter((one) => one !== "thresholds")), state.curve);
  for (const id of ["first", "second"]) options(id, ALL.map((m) => [m, nameOf(m)]), state[id]);
  const some = D.lists[0]?.best.length ?? 0;
  const lists = ["best", "median", "worst"].map((one) => [one, `${one} ${some} of the first method`]);
  const classes = [...new Set(D.photos.map((one) => one.name))].sort();
  options("list", [...lists, ["all", `all ${D.photos.length} on this page`]], "best");
  options("class", [["", "all"], ...classes.map((one) => [one, one])], "");
  options("kind", [["", "all"], ...words(KINDS)], "");
  $("tau").max = D.thresholds.length - 1;
}

function startPublished() {
  if (!D.published) return;
  const { likely, same, datasets, source, citations } = D.published;
  const what = same
    ? `Published figures of ${likely}, as many photos as here.`
    : "Published figures are of a whole benchmark, other photos than these: for orientation only.";
  options("benchmark", [["", "all"], ...Object.keys(datasets).map((one) => [one, one])], likely);
  $("published-note").textContent =
    `${what} They come from other models, training and protocols. ` +
    `Read from ${source}; *: its authors ran the method's code again.`;
  $("published-row").hidden = $("references").hidden = false;
  $("references").querySelector("p").textContent = source;
  const items = Object.entries(citations).map(([method, text]) => h("li", {}, `${method}: ${text}`));
  $("references").querySelector("ul").replaceChildren(...items);
}

function startAbout() {
  const { data, model, protocol, size, interval, batch_size, trt_cam } = D.identity;
  const facts = {
    "Data set": data.name,
    Split: data.split + (data.part ? `, ${data.part} photos` : ""),
    Photos: `${PHOTOS} of ${data.photos}`,
    Model: `${model.name} (weights ${model.weights})`,
    "Model's input": `${size.join(" × ")} pixels`,
    Protocol: protocol,
    Thresholds: `${D.thresholds.length}, ${interval} apart`,
    "Batch size": batch_size,
    trt_cam,
  };
  const terms = (pairs) => pairs.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, String(text))]);
  fill("identity", ...terms(Object.entries(facts)));
  fill("settings", ...terms(D.methods.map((one) => [one.name, one.settings])));
  $("failures").hidden = !D.failed.length;
  $("failures").querySelector("summary").textContent = `${D.failed.length} photos that count for no method`;
  const failed = D.failed.map(([photo, reason]) => h("li", {}, `${photo}: ${reason}`));
  $("failures").querySelector("ul").replaceChildren(...failed);
}

function start() {
  const notes = D.notes.map((text) => h("p", { class: "note" }, text));
  fill("notes", ...notes);
  document.querySelectorAll(".boxes-only").forEach((one) => (one.hidden = !BOXES));
  $("curve").parentElement.hidden = !BOXES;
  if (!BOXES) $("curve-title").textContent = "Precision and recall";
  $("two").hidden = $("alone").parentElement.hidden = ALL.length < 2;
  $("gallery-part").hidden = !D.photos.length;
  if (!D.photos.length) $("photos").append(h("p", { class: "note" }, D.notes[0] ?? "There are no photos."));
  $("gallery-means").textContent = BOXES
    ? "Ranked by the IoU of the one box at the threshold that the run reports. The two methods are chosen above."
    : "Ranked by the average precision of a photo's pixels. The threshold hides what scores lower.";
  for (const begin of [startSources, startChoices, startPublished, startAbout, listen]) begin();
  for (const draw of [drawLead, drawTable, drawLegend, drawPlots]) draw();
  if (D.photos.length) drawGallery();
}
start();
