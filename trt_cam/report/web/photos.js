// The photos: heat on a canvas over each, boxes as SVG over that.

const SIZE = 128; // of a canvas, which is stretched over its photo
const COLOURS = bytes(D.colours); // red, green, blue of 256 levels
let cards = [];
let opened = []; // frames of the photo that is shown under all methods

/** A method's map of a photo, enlarged smoothly and stretched to 0..255, as the evaluator does. */
function heatOf({ width, levels }) {
  const grey = bytes(levels);
  const height = grey.length / width;
  const pixels = new ImageData(width, height);
  grey.forEach((v, i) => pixels.data.set([v, v, v, 255], 4 * i));
  const small = h("canvas", { width, height });
  small.getContext("2d").putImageData(pixels, 0, 0);
  const brush = h("canvas", { width: SIZE, height: SIZE }).getContext("2d", { willReadFrequently: true });
  brush.imageSmoothingQuality = "high";
  brush.drawImage(small, 0, 0, SIZE, SIZE);
  const found = brush.getImageData(0, 0, SIZE, SIZE).data.filter((_, i) => i % 4 === 0);
  const low = Math.min(...found);
  const span = Math.max(...found) - low || 1;
  return found.map((v) => ((v - low) / span) * 255);
}

function paint(frame, least) {
  const image = new ImageData(SIZE, SIZE);
  frame.heat ??= heatOf(frame.photo.heat[frame.m]);
  frame.heat.forEach((v, i) => {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = COLOURS[3 * v + c];
    image.data[4 * i + 3] = v < least ? 0 : 30 + 0.72 * v;
  });
  frame.canvas.getContext("2d").putImageData(image, 0, 0);
}

const twice = (shape, given, line) => [s(shape, { ...given, class: "casing" }), s(shape, { ...given, class: line })];
const corners = (x, y, right, bottom) => ({ x, y, width: right - x, height: bottom - y });

function makeFrame(photo, m) {
  const canvas = h("canvas", { width: SIZE, height: SIZE, "aria-hidden": "true" });
  const view = { viewBox: `0 0 ${D.grid} ${D.grid}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  const svg = s("svg", view);
  const frame = { photo, m, canvas, caption: h("figcaption"), rects: [] };
  if (BOXES) {
    for (const box of photo.truth) svg.append(...twice("rect", corners(...box), "truth-line"));
    frame.rows = bytes(photo.boxes[m], D.wide);
    frame.rects = twice("rect", {}, "box-line");
    svg.append(...frame.rects);
  } else svg.append(...twice("path", { d: photo.truth }, "truth-line"));
  const image = photo.thumb
    ? h("img", { src: photo.thumb, alt: `${photo.name}, ${photo.id}`, decoding: "async" })
    : h("span", {}, "This photo could not be read.");
  const picture = h("div", { class: "picture" }, image, canvas, svg);
  picture.style.aspectRatio = photo.size.join(" / ");
  frame.element = h("figure", { class: "frame" }, picture, frame.caption);
  paint(frame, 0);
  return frame;
}

const position = (m) => nearest(state.tau ?? own(m));
const rowAt = ({ m, rows }) => rows.subarray(6 * D.levels[position(m)]).slice(0, 6);
const kindAt = (frame) => (frame.photo.right[frame.m] ? D.kinds[rowAt(frame)[5]] : "cls_wrong");

function updateFrame(frame) {
  const { m, photo, caption, rects } = frame;
  const title = h("span", {}, ...named(m));
  if (!BOXES) {
    if (frame.tau !== state.tau) paint(frame, (state.tau ?? 0) * 255);
    frame.tau = state.tau;
    caption.replaceChildren(title);
    return;
  }
  const [x, y, right, bottom, iou] = rowAt(frame);
  for (const [key, one] of Object.entries(corners(x, y, right, bottom))) {
    for (const rect of rects) rect.setAttribute(key, one);
  }
  const kind = kindAt(frame);
  const guess = kind === "cls_wrong" ? ` (taken for ${photo.predicted[m]})` : "";
  const text = ` at ${D.thresholds[position(m)].toFixed(2)}: ${word(kind)}${guess}`;
  caption.replaceChildren(title, h("br"), h("b", {}, `IoU ${(iou / 100).toFixed(2)}`), text);
}

function makeCard(photo) {
  const alone = $("alone").checked || state.second === state.first;
  const frames = [state.first, ...(alone ? [] : [state.second])].map((m) => makeFrame(photo, m));
  const given = { type: "button", "aria-label": `All methods on ${photo.id}`, onclick: () => openOne(photo) };
  const head = h("div", { class: "row" }, h("h3", {}, photo.name || photo.id), h("button", given, "All methods"));
  const pictures = h("div", { class: "frames" }, ...frames.map((one) => one.element));
  return { photo, frames, element: h("li", { class: "card" }, head, h("p", { class: "id" }, photo.id), pictures) };
}

function drawGallery() {
  const list = $("list").value;
  const places = list === "all" ? [...D.photos.keys()] : D.lists[state.first][list];
  cards = places.map((place) => makeCard(D.photos[place]));
  $("cards").classList.toggle("pairs", cards.some((one) => one.frames.length > 1));
  fill("cards", ...cards.map((one) => one.element));
  updateGallery();
}

function updateGallery() {
  const tau = state.tau ?? own(state.first) ?? 0;
  const text = state.tau != null ? tau.toFixed(2) : BOXES ? `${tau.toFixed(2)}, own` : "all";
  $("tau").value = nearest(tau);
  $("tau").setAttribute("aria-valuetext", text);
  $("tau-value").textContent = text;
  const wanted = { class: $("class").value, kind: $("kind").value };
  for (const { photo, frames, element } of cards) {
    frames.forEach(updateFrame);
    const other = wanted.class && photo.name !== wanted.class;
    element.hidden = Boolean(other || (wanted.kind && kindAt(frames[0]) !== wanted.kind));
  }
  opened.forEach(updateFrame);
  const left = cards.filter((one) => !one.element.hidden).length;
  $("count").textContent =
    left === cards.length
      ? `${left} photos.`
      : left
        ? `${left} of ${cards.length} photos.`
        : `None of these ${cards.length} photos; choose another list, class or error.`;
}

function openOne(photo) {
  opened = ALL.map((m) => makeFrame(photo, m));
  opened.forEach(updateFrame);
  $("one-title").textContent = `${photo.name}, ${photo.id}`;
  fill("one-frames", ...opened.map((one) => one.element));
  $("one").showModal();
}
