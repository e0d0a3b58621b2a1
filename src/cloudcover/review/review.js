// The review page. The server filters, orders, renders and saves; this file shows and takes keys.
// A verdict is shown at once and saved in the background: jobs are sent one after the other, kept over a
// reload, and sent again when the server comes back.

const VERDICTS = { b: "bad", c: "clean", u: "unsure", x: "" };
const LABEL = 1, UNKNOWN = 2, PREDICTION = 4; // bits of a mask's byte
const STYLE = getComputedStyle(document.documentElement);
const COLOURS = Object.fromEntries(["label", "prediction", "both", "unknown", "ground", "raised"].map((name) => [name, STYLE.getPropertyValue(`--${name}`).trim()]));
const ZOOMS = [1, 3, 9], LARGEST_ZOOM = 32;
const CELLS = [150, 230], GAP = 12, CAPTION = 22; // a grid's cell, least and largest width [CSS pixels]
const AHEAD = 4; // chips fetched before they are asked for
const TRIES = 5; // repetitions of a change that the server could not save
const KEPT = 24; // chips whose pictures stay in memory

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%`;
const time = (text) => text.replace(/T(\d\d:\d\d).*/, " $1 UTC");

let session;
let chips = []; // the list: {id, suspicion, verdict, seen}; `verdict` is what the page shows, `seen` what the server said
let byId = new Map();
let at = 0;
let view = "single";
let colours = "both";
let hidden = false;
const layers = { label: true, prediction: true, difference: false };
const zoom = { factor: 1, x: 0.5, y: 0.5 }; // centre in shares of the chip
const selected = new Set();
let shown = null; // {id, picture} that the panels hold
const filters = find("#filters");
const note = find("#note input");

// ---------------------------------------------------------------------------------------------------------- server

async function get(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error((await answerOf(response)).error);
  return response;
}

/** Returns the server's answer, even if it is not JSON. */
async function answerOf(response) {
  return response.json().catch(() => ({ error: `the server answered ${response.status} ${response.statusText}` }));
}

async function post(address, body) {
  const send = () => fetch(address, {
    method: "POST", body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Review-Token": session.token },
  });
  let response = await send();
  if (response.status === 403) { // the server was restarted, and with it the token
    const fresh = await (await get("/api/session")).json();
    if (fresh.verdicts !== session.verdicts) location.reload(); // another project has this port now
    session = fresh;
    response = await send();
  }
  return { ok: response.ok, status: response.status, ...(await answerOf(response)) };
}

const saving = { jobs: [], changes: [], busy: false, offline: false };
const tabs = new BroadcastChannel("cloudcover-review");

function remember() {
  const kept = { jobs: saving.jobs, changes: saving.changes, version: session.version };
  sessionStorage.setItem(session.verdicts, JSON.stringify(kept));
  document.body.dataset.unsaved = saving.jobs.length;
}

function recall() {
  const kept = JSON.parse(sessionStorage.getItem(session.verdicts) ?? "null");
  if (!kept) return;
  saving.jobs = kept.jobs;
  saving.changes = kept.version === session.version ? kept.changes : []; // a new server knows no old change
}

/** Sends the waiting jobs, in order. */
async function save() {
  if (saving.busy) return;
  saving.busy = true;
  for (let refused = 0; saving.jobs.length;) {
    const job = saving.jobs[0];
    let answer;
    try {
      answer = await post("/api/verdicts", job);
    } catch {
      saving.offline = true;
      say(`The server does not answer. Not saved yet: ${saving.jobs.length}`, true);
      await new Promise((resolve) => setTimeout(resolve, 700));
      continue;
    }
    if (answer.status >= 500) { // a broken file, a full disk: nothing is lost, but a person must repair it
      saving.offline = true;
      say(`Not saved yet: ${saving.jobs.length}. ${answer.error}. ${refused < TRIES ? "" : "Repair it, then reload the page or judge the next label."}`, true);
      if (++refused > TRIES) break;
      await new Promise((resolve) => setTimeout(resolve, 700));
      continue;
    }
    refused = 0;
    if (saving.offline) {
      saving.offline = false;
      say("The server is back, everything is saved.");
    }
    saving.jobs.shift();
    if (answer.ok) {
      saving.changes.push(answer.change);
      adopt(answer.rows);
      showProgress(answer.progress);
      tabs.postMessage({ verdicts: session.verdicts, rows: answer.rows, progress: answer.progress });
    } else {
      const first = byId.get(job.chips[0]);
      for (const item of job.chips.map((id) => byId.get(id)).filter(Boolean)) item.verdict = item.seen[0];
      adopt(answer.rows ?? {});
      say(`Not saved: ${answer.error}`, true);
      if (first) go(chips.indexOf(first));
    }
    remember();
  }
  saving.busy = false;
}

/** Adopts the server's verdicts: chip -> [verdict, time]. */
function adopt(rows) {
  for (const [id, seen] of Object.entries(rows)) {
    for (const job of saving.jobs) if (id in job.seen) job.seen[id] = seen;
    const item = byId.get(id);
    if (!item) continue;
    item.seen = seen;
    if (!saving.jobs.some((job) => id in job.seen)) item.verdict = seen[0];
    markCell(id);
  }
  if (shown && shown.id in rows) showDetails(shown.id);
}

tabs.onmessage = ({ data }) => {
  if (data.verdicts !== session?.verdicts) return;
  adopt(data.rows);
  showProgress(data.progress);
};

// ----------------------------------------------------------------------------------------------------------- judge

function judge(verdict) {
  const items = view === "grid" && selected.size ? chips.filter((item) => selected.has(item.id)) : chips.slice(at, at + 1);
  if (!items.length) return;
  if (view === "single" && shown?.id !== items[0].id) return say("Not judged: the chip has not been shown yet.", true);
  saving.jobs.push({
    chips: items.map((item) => item.id), verdict, reason: verdict ? note.value : "",
    seen: Object.fromEntries(items.map((item) => [item.id, item.seen])),
  });
  for (const item of items) item.verdict = verdict;
  note.value = "";
  remember();
  save();
  say(items.length > 1 ? `${items.length} chips: ${verdict || "verdict removed"}` : `${items[0].id}: ${verdict || "verdict removed"}`);
  items.forEach((item) => markCell(item.id));
  selected.clear();
  if (verdict) go(nextUnjudged(chips.indexOf(items.at(-1))));
  else redraw();
}

/** Place of the next label without a verdict; the last place if there is none. */
function nextUnjudged(from) {
  for (let i = from + 1; i < chips.length; i++) if (!chips[i].verdict) return i;
  return Math.min(from + 1, chips.length - 1);
}

async function undo() {
  if (saving.jobs.length) return say("Not saved yet: undo is possible afterwards.", true);
  const change = saving.changes.pop();
  if (change === undefined) return say("Nothing to undo: X removes a verdict.");
  let answer;
  try {
    answer = await post("/api/undo", { change });
  } catch {
    saving.changes.push(change);
    return say("The server does not answer: nothing was undone.", true);
  }
  remember();
  adopt(answer.rows ?? {});
  if (!answer.ok) return say(`Not undone: ${answer.error}`, true);
  showProgress(answer.progress);
  tabs.postMessage({ verdicts: session.verdicts, rows: answer.rows, progress: answer.progress });
  const ids = Object.keys(answer.rows);
  say(`Undone: ${ids.length > 1 ? `${ids.length} chips` : ids[0]}`);
  const first = byId.get(ids[0]);
  if (first) go(chips.indexOf(first));
}

// -------------------------------------------------------------------------------------------------------- pictures

const pictures = new Map(); // address part -> promise of a picture, the least recently used first

/** Colours and layers of a chip; a thumbnail has only one of the two pictures. */
function picture(id, small = false) {
  const name = colours === "false" ? "false" : "true", key = `${small ? `small ${name}` : "full"}/${id}`;
  const found = pictures.get(key) ?? load(id, small, small ? [name] : ["true", "false"]);
  pictures.delete(key);
  pictures.set(key, found);
  found.catch(() => pictures.delete(key));
  const same = [...pictures.keys()].filter((other) => other.startsWith(small ? "small" : "full"));
  if (same.length > (small ? 20 : 1) * KEPT) pictures.delete(same[0]);
  return found;
}

async function load(id, small, names) {
  const address = (name) => `/api/chips/${encodeURIComponent(id)}/${name}?v=${session.version}${small ? "&small" : ""}`;
  const bitmap = async (name) => createImageBitmap(await (await get(address(name))).blob());
  const shownNames = names.filter((name) => name === "true" || session.false_colour);
  const [buffer, ...bitmaps] = await Promise.all([get(address("masks")).then((r) => r.arrayBuffer()), ...shownNames.map(bitmap)]);
  const masks = new Uint8Array(buffer), side = Math.round(Math.sqrt(masks.length));
  return {
    side, masks, ...Object.fromEntries(shownNames.map((name, i) => [name, bitmaps[i]])),
    label: outline(masks, side, LABEL), prediction: outline(masks, side, PREDICTION),
    difference: paint(masks, side, { label: `${COLOURS.label}80`, prediction: `${COLOURS.prediction}80` }),
    unknown: paint(masks, side, { unknown: `${COLOURS.unknown}b0` }),
  };
}

/** The border of a bit's area along the edges of pixels, so that a line covers no pixel's middle at any zoom.
 *  Outside the chip is no cloud: a chip that is all cloud gets a frame, and one that is clear gets none. */
function outline(masks, side, bit) {
  const path = new Path2D();
  const trace = (along, across, line) => {
    for (let i = 0; i <= side; i++) {
      for (let j = 0, from = -1; j <= side; j++) {
        const place = i * across + j * along, before = i > 0 ? masks[place - across] & bit : 0;
        const edge = j < side && (i < side ? masks[place] & bit : 0) !== before;
        if (edge && from < 0) from = j;
        if (!edge && from >= 0) { line(i, from, j); from = -1; }
      }
    }
  };
  trace(side, 1, (x, from, to) => { path.moveTo(x, from); path.lineTo(x, to); });
  trace(1, side, (y, from, to) => { path.moveTo(from, y); path.lineTo(to, y); });
  return path;
}

/** A canvas with a colour (#rrggbb or #rrggbbaa) per kind of pixel; kinds without a colour are transparent. */
function paint(masks, side, kinds) {
  const words = new Uint32Array(8);
  const word = (colour) => { // RGBA in a little-endian word
    const [r, g, b, a = 255] = (colour ?? "#00000000").match(/[\da-f]{2}/gi).map((digits) => parseInt(digits, 16));
    return ((a << 24) | (b << 16) | (g << 8) | r) >>> 0;
  };
  for (let code = 0; code < 8; code++) {
    const label = code & LABEL, predicted = code & PREDICTION;
    const same = !session.predicted && label;
    const kind = code & UNKNOWN ? "unknown" : same || (label && predicted) ? "both" : label ? "label" : predicted ? "prediction" : "clear";
    words[code] = word(kinds[kind]);
  }
  const canvas = new OffscreenCanvas(side, side), context = canvas.getContext("2d");
  const image = context.createImageData(side, side), pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = words[masks[i]];
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draws a chip into a canvas; returns its position in it, for the pointer. */
function draw(canvas, chip, name, width = 1.6, view = { factor: 1, x: 0.5, y: 0.5 }) {
  const ratio = devicePixelRatio, w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
  if (!w || !h) return null;
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d"), { side } = chip;
  let fit = (Math.min(w, h) - 4 * ratio) / side; // room for the line of a frame
  if (side > 256 && fit > 0.98 && fit < 1.12) fit = 1; // a pixel per pixel is sharper than a little more
  const scale = fit * view.factor;
  const start = (length, centre) => {
    const free = length - side * scale;
    return Math.round(free >= 0 ? free / 2 : Math.min(0, Math.max(free, length / 2 - centre * side * scale)));
  };
  const x = start(w, view.x), y = start(h, view.y);
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, w, h);
  context.setTransform(scale, 0, 0, scale, x, y);
  context.imageSmoothingEnabled = scale < 2 && scale !== 1;
  context.imageSmoothingQuality = "high";
  context.drawImage(chip[name], 0, 0, side, side);
  context.imageSmoothingEnabled = false;
  if (!hidden) {
    if (layers.label) context.drawImage(chip.unknown, 0, 0);
    if (layers.difference) context.drawImage(chip.difference, 0, 0);
    context.lineCap = "square";
    for (const layer of ["prediction", "label"]) {
      if (!layers[layer]) continue;
      context.strokeStyle = "rgb(0 0 0 / 60%)";
      context.lineWidth = (width + 1.6) * ratio / scale;
      context.stroke(chip[layer]);
      context.strokeStyle = COLOURS[layer];
      context.lineWidth = width * ratio / scale;
      context.stroke(chip[layer]);
    }
  }
  return { x: x / ratio, y: y / ratio, size: side * scale / ratio };
}

// ------------------------------------------------------------------------------------------------------ single view

/** Moves to a place of the list and shows it in the current view. */
function go(place) {
  at = Math.max(0, Math.min(place, chips.length - 1));
  Object.assign(zoom, { factor: 1, x: 0.5, y: 0.5 });
  keepAddress();
  if (view === "grid") showGrid();
  else showChip();
}

async function showChip() {
  const item = chips[at];
  find("#single").hidden = view !== "single";
  if (view !== "single") return;
  find("#single").classList.toggle("empty", !item);
  if (!item) return showNothing();
  const details = showDetails(item.id);
  let loaded;
  try {
    loaded = await picture(item.id);
  } catch (error) {
    return say(`${item.id} cannot be shown: ${error.message}`, true);
  }
  if (chips[at] !== item || view !== "single") return; // the reviewer has moved on
  shown = { id: item.id, picture: loaded };
  redraw();
  document.body.dataset.drawn = item.id;
  await details;
  if (shown?.id !== item.id) return;
  document.body.dataset.shown = item.id;
  for (let i = 1; i <= AHEAD; i++) if (chips[at + i]) picture(chips[at + i].id).catch(() => {});
}

/** Explains why there is nothing to show. */
function fail(error) {
  showNothing();
  find("#single").classList.add("empty");
  find("#chip").textContent = "The labels cannot be shown";
  find("#scene").textContent = `${error.message}. Reload the page when this is mended.`;
  document.body.dataset.failed = error.message;
}

function showNothing() {
  shown = null;
  all("#panels canvas, #difference").forEach((canvas) => canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height));
  for (const name of ["place", "scene", "verdict", "reasons", "facts"]) find(`#${name}`).replaceChildren();
  find("#suspicion").hidden = true;
  find("#neighbours div").replaceChildren();
  find("#chip").textContent = "No label fits these filters";
  find("#scene").textContent = "R removes them.";
}

/** Redraws the panels, or the cells of the grid, after a change of zoom, layer or size. */
function redraw() {
  all("footer [id^=layer]").forEach((name) => name.classList.toggle("on", !hidden && layers[name.id.slice(6)]));
  if (view === "grid") return all("#cells .cell").forEach(drawCell);
  document.body.dataset.colours = colours;
  all("#panels figure").forEach((figure) => { figure.hidden = colours !== "both" && figure.dataset.colours !== colours; });
  if (!shown) return;
  for (const figure of all("#panels figure:not([hidden])")) {
    const canvas = find("canvas", figure);
    canvas.place = draw(canvas, shown.picture, figure.dataset.colours, 1.6, zoom);
  }
  const { masks, side } = shown.picture;
  const map = paint(masks, side, { clear: COLOURS.raised, both: COLOURS.both, label: COLOURS.label, prediction: COLOURS.prediction, unknown: COLOURS.unknown });
  const canvas = Object.assign(find("#difference"), { width: side, height: side });
  canvas.getContext("2d").drawImage(map, 0, 0);
  canvas.style.imageRendering = side < canvas.clientWidth ? "pixelated" : "auto";
  drawNeighbours();
}

/** The scene's other chips, as large as there is room for all of them. */
function drawNeighbours() {
  const cells = all("#neighbours .cell"), box = find("#neighbours div"), gap = 8;
  let columns = 1, width = 0;
  for (let tried = 1; tried <= cells.length; tried++) {
    const high = (box.clientHeight + gap) / Math.ceil(cells.length / tried) - gap;
    const side = Math.min((box.clientWidth + gap) / tried - gap, high, CELLS[0]);
    if (side > width) [columns, width] = [tried, side];
  }
  box.style.gridTemplateColumns = `repeat(${columns}, ${Math.floor(width)}px)`;
  cells.forEach(drawCell);
}

async function showDetails(id) {
  const item = byId.get(id);
  find("#place").textContent = `${at + 1} of ${chips.length}${isFiltered() ? " in this list" : ""}`;
  find("#chip").textContent = id;
  showVerdict(item, null);
  let known;
  try {
    known = await (await get(`/api/chips/${encodeURIComponent(id)}`)).json();
  } catch (error) {
    return say(`The details of ${id} cannot be shown: ${error.message}`, true);
  }
  if (chips[at] !== item || view !== "single") return;
  find("#scene").textContent = `${known.location || "location unknown"} · ${time(known.scene.slice(known.location.length + 1))}`;
  showVerdict(item, known.verdict);
  const suspicion = find("#suspicion");
  suspicion.hidden = known.suspicion === null;
  find("b", suspicion).textContent = `Suspicion ${(known.suspicion ?? 0).toFixed(2)}`;
  find(".meter i", suspicion).style.width = `${100 * (known.suspicion ?? 0)}%`;
  const reasons = known.reasons.map((reason) => element("li", {}, element("b", { textContent: reason.title }), reason.text,
    element("small", { textContent: reason.figures })));
  if (!reasons.length && known.suspicion !== null) reasons.push(element("li", { className: "none", textContent: "The audit names no reason." }));
  find("#reasons").replaceChildren(...reasons);
  const facts = [["Cloud in the label", percent(known.label_coverage_share)]];
  if (known.prediction) facts.push(["Cloud in the prediction", percent(known.prediction.predicted_share)], ["IoU of the two", known.prediction.iou.toFixed(2)]);
  find("#facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", { textContent: name }), element("dd", { textContent: value })]));
  find("#neighbours").hidden = !known.neighbours.length;
  if (all("#neighbours .cell").map((made) => made.dataset.chip).join() !== known.neighbours.join()) {
    find("#neighbours div").replaceChildren(...known.neighbours.map((other) => cell(other)));
    drawNeighbours();
  }
}

function showVerdict(item, row) {
  const box = find("#verdict");
  box.className = item.verdict;
  if (!item.verdict) return box.replaceChildren("Not judged");
  box.replaceChildren(element("b", { textContent: item.verdict }));
  if (row?.verdict === item.verdict) {
    box.append(` by ${row.reviewer || "nobody named"}`, element("small", { textContent: [time(row.time), row.reason].filter(Boolean).join(" · ") }));
  }
}

function showProgress(progress) {
  const { labels, judged, rate_per_min: rate } = progress;
  for (const part of all(".bar i")) part.style.width = `${100 * progress[part.className] / labels}%`;
  const left = labels - judged;
  const parts = [` of ${labels} judged`, `${progress.bad} bad, ${progress.clean} clean, ${progress.unsure} unsure`];
  if (rate && left) parts.push(`${rate} per minute`, `${left} left, about ${duration(left / rate)}`);
  else parts.push(`${left} left`);
  find("#progress p").replaceChildren(element("b", { textContent: judged }), parts.join(" · "));
  find("#progress").dataset.judged = judged;
}

function duration(minutes) {
  if (minutes < 1) return "a minute";
  return minutes < 100 ? `${Math.round(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
}

// ------------------------------------------------------------------------------------------------------------- grid

function pageSize() {
  const { clientWidth, clientHeight } = find("#cells");
  let best = { columns: 1, size: 1, area: 0 }; // whose cells cover most of the window
  for (let columns = 1; columns <= 40; columns++) {
    const width = (clientWidth + GAP) / columns - GAP, rows = Math.floor((clientHeight + GAP) / (width + CAPTION + GAP));
    const area = columns * rows * width * width;
    if (width >= CELLS[0] && width <= CELLS[1] && area > best.area) best = { columns, size: columns * rows, area };
  }
  return best;
}

/** Shows the page of the grid that holds the cursor. */
function showGrid() {
  find("#single").hidden = view !== "single";
  find("#grid").hidden = view !== "grid";
  document.body.dataset.view = view;
  if (view !== "grid") return;
  const box = find("#cells"), { columns, size } = pageSize(), first = at - (at % size);
  box.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  const ids = chips.slice(first, first + size).map((item) => item.id);
  if (ids.join() !== all(".cell", box).map((made) => made.dataset.chip).join()) {
    box.replaceChildren(...ids.map((id) => cell(id, true)));
    if (!ids.length) box.append("No label fits these filters: R removes them.");
    for (const item of chips.slice(first + size, first + 2 * size)) picture(item.id, true).catch(() => {});
    redraw();
  }
  ids.forEach(markCell);
  find("#page").textContent = ids.length ? `${first + 1}–${first + ids.length} of ${chips.length}` : "";
}

function cell(id, inGrid = false) {
  const made = element("button", { className: "cell", type: "button", tabIndex: -1, title: id }, element("canvas"), element("span", { className: "mark" }));
  made.dataset.chip = id;
  if (inGrid) {
    const { suspicion } = byId.get(id);
    made.append(element("p", {}, element("span", { textContent: id }), element("span", { textContent: suspicion === null ? "" : suspicion.toFixed(2) })));
  }
  mark(made);
  return made;
}

async function drawCell(made) {
  const loaded = await picture(made.dataset.chip, true).catch(() => null); // a missing server is reported elsewhere
  if (loaded && made.isConnected) draw(find("canvas", made), loaded, colours === "false" ? "false" : "true", 1.1);
  made.dataset.drawn = loaded !== null;
}

function markCell(id) {
  all(`.cell[data-chip="${CSS.escape(id)}"]`).forEach(mark);
}

function mark(made) {
  const item = byId.get(made.dataset.chip), verdict = item?.verdict ?? "";
  made.className = ["cell", verdict, chips[at] === item && item && "cursor", selected.has(made.dataset.chip) && "selected"].filter(Boolean).join(" ");
  find(".mark", made).textContent = verdict;
}

function select(from, to, on) {
  for (let i = Math.min(from, to); i <= Math.max(from, to); i++) {
    if (on) selected.add(chips[i].id);
    else selected.delete(chips[i].id);
    markCell(chips[i].id);
  }
  say(selected.size ? `${selected.size} selected` : "");
}

function selectPage() {
  const { size } = pageSize(), first = at - (at % size), last = Math.min(first + size, chips.length) - 1;
  const whole = chips.slice(first, last + 1).every((item) => selected.has(item.id));
  select(first, last, !whole);
}

/** Moves the cursor of the grid. */
function move(step, extend) {
  const from = at, to = Math.max(0, Math.min(at + step, chips.length - 1));
  if (extend) select(from, to, true);
  go(to);
  markCell(chips[from].id);
}

function turnTo(wanted) {
  view = wanted;
  selected.clear();
  delete document.body.dataset.shown;
  showGrid();
  go(at);
}

// ------------------------------------------------------------------------------------------------ filters and address

const wanted = () => Object.fromEntries([...new FormData(filters)].filter(([, value]) => value));
const isFiltered = () => Object.keys(wanted()).some((name) => name !== "order");

let listing = 0;
async function list(keep = chips[at]?.id) {
  const mine = ++listing;
  all("select", filters).forEach((box) => box.classList.toggle("set", box.value !== ""));
  let found;
  try {
    found = await (await get(`/api/chips?${new URLSearchParams(wanted())}`)).json();
  } catch (error) {
    return fail(error);
  }
  if (mine !== listing) return; // the filters have changed in the meantime
  chips = found.chips.map(([id, suspicion, verdict, time]) => ({ id, suspicion, verdict, seen: [verdict, time] }));
  byId = new Map(chips.map((item) => [item.id, item]));
  for (const job of saving.jobs) for (const id of job.chips) if (byId.has(id)) byId.get(id).verdict = job.verdict;
  selected.clear();
  find("#cells").replaceChildren();
  showProgress(found.progress);
  const kept = chips.findIndex((item) => item.id === keep);
  delete document.body.dataset.shown;
  go(kept >= 0 ? kept : chips.findIndex((item) => !item.verdict));
  document.body.dataset.listed = chips.length;
}

function fillFilters() {
  const { location, scene, reason } = session.options;
  const place = filters.location.value;
  const fill = (box, options) => {
    const value = box.value;
    box.replaceChildren(box.options[0], ...options.map((o) => element("option", { value: o.name, textContent: `${o.title ?? o.name} (${o.chips})` })));
    box.value = options.some((o) => o.name === value) ? value : "";
  };
  fill(filters.location, location);
  fill(filters.scene, scene.filter((o) => !place || o.location === place));
  fill(filters.reason, reason);
}

function keepAddress() {
  const parts = new URLSearchParams({ ...wanted(), ...(view === "grid" && { view }), ...(chips[at] && { chip: chips[at].id }) });
  history.replaceState(null, "", `/#${parts}`); // without the key
}

let byPointer = false;
filters.addEventListener("pointerdown", () => { byPointer = true; });
filters.addEventListener("keydown", () => { byPointer = false; });
filters.addEventListener("change", (event) => {
  if (event.target.name === "location") fillFilters();
  if (byPointer) event.target.blur(); // with the keyboard, letters keep selecting until Esc or Enter
  list();
});

// --------------------------------------------------------------------------------------------------- keys and pointer

let silence;
function say(text, problem = false) {
  const box = find("#message");
  if (saving.offline && !text.includes("Not saved yet")) return; // nothing else matters now
  clearTimeout(silence);
  box.textContent = text;
  box.className = problem ? "problem" : "";
  silence = setTimeout(() => { if (!saving.offline) box.textContent = ""; }, problem ? 9000 : 3000);
}

function toggle(layer) {
  if (hidden) hidden = false;
  else layers[layer] = !layers[layer];
  redraw();
}

function zoomTo(factor, place = null) {
  zoom.factor = Math.max(1, Math.min(factor, LARGEST_ZOOM));
  if (place) Object.assign(zoom, place);
  redraw();
}

function pan(x, y) {
  const margin = 0.5 / zoom.factor, within = (value) => Math.max(margin, Math.min(1 - margin, value));
  Object.assign(zoom, { x: within(zoom.x + x), y: within(zoom.y + y) });
  redraw();
}

const everywhere = {
  l: () => toggle("label"),
  p: () => session.predicted && toggle("prediction"),
  d: () => session.predicted && toggle("difference"),
  h: () => { hidden = !hidden; redraw(); },
  t: () => { if (session.false_colour) { colours = { both: "true", true: "false", false: "both" }[colours]; redraw(); } },
  g: () => turnTo(view === "grid" ? "single" : "grid"),
  f: () => filters.location.focus(),
  r: () => { filters.reset(); fillFilters(); list(); },
  Backspace: undo,
  Home: () => go(0),
  End: () => go(chips.length - 1),
  "?": () => find("#help").showModal(),
};
const inSingle = {
  ArrowLeft: (shift) => (shift ? pan(-0.25 / zoom.factor, 0) : go(at - 1)),
  ArrowRight: (shift) => (shift ? pan(0.25 / zoom.factor, 0) : go(at + 1)),
  ArrowUp: (shift) => shift && pan(0, -0.25 / zoom.factor),
  ArrowDown: (shift) => shift && pan(0, 0.25 / zoom.factor),
  Enter: () => go(nextUnjudged(at)),
  z: () => zoomTo(ZOOMS.find((factor) => factor > zoom.factor) ?? 1, pointer),
  n: () => note.focus(),
  j: () => chips[at] && window.open(`/api/chips/${encodeURIComponent(chips[at].id)}`, "_blank", "noopener"),
};
const inGrid = {
  ArrowLeft: (shift) => move(-1, shift),
  ArrowRight: (shift) => move(1, shift),
  ArrowUp: (shift) => move(-pageSize().columns, shift),
  ArrowDown: (shift) => move(pageSize().columns, shift),
  PageUp: () => move(-pageSize().size),
  PageDown: () => move(pageSize().size),
  " ": () => chips[at] && select(at, at, !selected.has(chips[at].id)),
  a: selectPage,
  Enter: () => turnTo("single"),
  Escape: () => chips.length && select(0, chips.length - 1, false),
};

document.addEventListener("keydown", (event) => {
  if (find("#help").open || !session) return;
  if (event.target.matches("input, select")) {
    if (["Escape", "Enter"].includes(event.key)) event.target.blur();
    return;
  }
  if ((event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); return undo(); }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const command = (view === "grid" ? inGrid : inSingle)[key] ?? everywhere[key];
  if (key in VERDICTS) {
    if (!event.repeat) judge(VERDICTS[key]); // a key held down judges once
  } else if (!command || (!chips.length && !(key in everywhere))) return;
  else command(event.shiftKey);
  event.preventDefault();
});

let pointer = null; // where the pointer is over the chip, in shares of it
for (const canvas of all("#panels canvas")) {
  const place = (event) => {
    const { x, y, size } = canvas.place ?? { x: 0, y: 0, size: 1 };
    return { x: (event.offsetX - x) / size, y: (event.offsetY - y) / size };
  };
  canvas.addEventListener("pointermove", (event) => {
    pointer = place(event);
    if (event.buttons && canvas.place) pan(-event.movementX / canvas.place.size, -event.movementY / canvas.place.size);
  });
  canvas.addEventListener("pointerleave", () => { pointer = null; });
  canvas.addEventListener("dblclick", (event) => zoomTo(ZOOMS.find((factor) => factor > zoom.factor) ?? 1, place(event)));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const factor = Math.max(1, Math.min(zoom.factor * 1.2 ** -Math.sign(event.deltaY), LARGEST_ZOOM)), at = place(event);
    const kept = zoom.factor / factor; // the point under the pointer stays where it is
    zoomTo(factor, { x: at.x + (zoom.x - at.x) * kept, y: at.y + (zoom.y - at.y) * kept });
  }, { passive: false });
}

document.addEventListener("click", (event) => {
  const made = event.target.closest(".cell");
  if (!made) return;
  const place = chips.findIndex((item) => item.id === made.dataset.chip);
  if (place < 0) return say("This chip is not in the list: R removes the filters.");
  if (view === "grid") {
    const from = at;
    go(place);
    markCell(chips[from].id);
    if (event.shiftKey) select(from, place, true);
    else select(place, place, !selected.has(made.dataset.chip));
  } else go(place);
});
document.addEventListener("dblclick", (event) => { if (view === "grid" && event.target.closest(".cell")) turnTo("single"); });
new ResizeObserver(() => (view === "grid" ? showGrid() : redraw())).observe(find("body"));
window.addEventListener("beforeunload", (event) => { if (saving.offline) event.preventDefault(); });

// ------------------------------------------------------------------------------------------------------------ start

async function start() {
  session = await (await get("/api/session")).json();
  recall();
  const address = new URLSearchParams(location.hash.slice(1));
  fillFilters();
  filters.location.value = address.get("location") ?? "";
  fillFilters();
  for (const box of all("select", filters)) if (address.has(box.name)) box.value = address.get(box.name);
  if (address.get("view") === "grid") view = "grid";
  showGrid();
  await list(address.get("chip"));
  remember();
  save();
}

await start().catch(fail);
