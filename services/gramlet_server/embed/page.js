"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const canvas = $("map"), pen = canvas.getContext("2d"), card = $("card");
const count = data.ids.length, threeDimensional = data.dimensions === 3;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
const hidden = new Set();
const turn = { x: -0.35, y: 0.6 };
let layout = 0, frame = 0, zoom = 1, panX = 0, panY = 0, hovered = -1, found = null, playing = 0, dirty = true;

// The coordinates of a frame as [x..., y..., z...], scaled to -1..1 around the frame's center, so that it fills the view.
function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed.data), c => c.charCodeAt(0));
  const whole = new Uint16Array(bytes.buffer), points = new Float32Array(3 * count);
  for (let axis = 0; axis < data.dimensions; axis++) {
    let low = 65535, high = 0;
    for (let i = 0; i < count; i++) { const v = whole[axis * count + i]; low = Math.min(low, v); high = Math.max(high, v); }
    for (let i = 0; i < count; i++) points[axis * count + i] = (whole[axis * count + i] - (low + high) / 2) / 32767.5;
  }
  let [width, height] = [1e-3, 1e-3];
  for (let i = 0; i < count; i++) { width = Math.max(width, Math.abs(points[i])); height = Math.max(height, Math.abs(points[count + i])); }
  packed.width = width; packed.height = height;
  return points;
}
for (const one of data.layouts) for (const each of one.frames) each.points = unpack(each);

let points = null, shape = null, from = null, moving = 0;
const screen = { x: new Float32Array(count), y: new Float32Array(count), scale: new Float32Array(count).fill(1) };
let order = Array.from({ length: count }, (_, i) => i);

const sheets = data.sheets.map(source => { const image = new Image(); image.onload = () => { dirty = true; }; image.src = source; return image; });
const perSheet = data.columns * data.rows;
function cellOf(i) {
  const number = i % perSheet;
  return { image: sheets[Math.floor(i / perSheet)], x: number % data.columns * data.cell, y: Math.floor(number / data.columns) * data.cell,
           w: data.sizes[2 * i], h: data.sizes[2 * i + 1] };
}
const colorOf = i => data.labels[i] < 0 ? data.noLabel : data.colors[data.labels[i]];
const shown = i => !hidden.has(data.labels[i]);

function show(nextLayout, nextFrame, jump) {
  layout = nextLayout; frame = Math.min(nextFrame, data.layouts[layout].frames.length - 1);
  const one = data.layouts[layout], now = one.frames[frame];
  from = points && !jump && !reducedMotion ? current() : null;
  shape = now; points = spreadPoints(); moving = performance.now(); dirty = true;
  $("layout").value = layout; $("frame").max = one.frames.length - 1; $("frame").value = frame;
  $("layout-name").textContent = one.name; $("layout").setAttribute("aria-valuetext", one.name);
  const text = now.kl ? `${now.iteration}, KL ${now.kl.toFixed(3)}` : "";
  $("frame-name").textContent = text; $("frame").setAttribute("aria-valuetext", `iteration ${text}`);
  $("frame-control").hidden = $("play").hidden = one.frames.length < 2;
}
function current() {
  const t = Math.min((performance.now() - moving) / 260, 1), e = t * (2 - t);
  if (!from || t >= 1) { from = null; return points; }
  const between = new Float32Array(points.length);
  for (let i = 0; i < between.length; i++) between[i] = from[i] + (points[i] - from[i]) * e;
  return between;
}
function sizeAt(power) {
  const fit = Math.sqrt(0.34 * canvas.clientWidth * canvas.clientHeight / Math.max(count, 1));
  return Math.max(6, Math.min(fit, 120)) * Math.pow(4, $("size").value / 50 - 1) * power;
}
const baseSize = () => sizeAt(Math.pow(zoom, 0.72));
function unitAt() {
  const w = canvas.clientWidth, h = canvas.clientHeight, room = threeDimensional ? 0 : sizeAt(1) / 2 + 24;
  if (threeDimensional) return Math.min(w, h) * 0.36;
  return Math.max(40, Math.min((w / 2 - room) / shape.width, (h / 2 - room) / shape.height));
}
// The points of the frame. Pictures that hide others are moved apart, each as little as possible.
function spreadPoints() {
  if (!$("apart").checked) return shape.points;
  const w = canvas.clientWidth, h = canvas.clientHeight, unit = unitAt(), size = sizeAt(1) * 1.14;
  const key = [w, h, size, unit].join();
  if (shape.apartKey === key) return shape.apart;
  const x = new Float32Array(count), y = new Float32Array(count), half = new Float32Array(2 * count);
  for (let i = 0; i < count; i++) {
    x[i] = shape.points[i] * unit + Math.sin(i * 12.9898) * 0.05; y[i] = shape.points[count + i] * unit + Math.sin(i * 78.233) * 0.05;
    const cell = Math.max(data.sizes[2 * i], data.sizes[2 * i + 1], 1);
    half[2 * i] = size * (data.sizes[2 * i] || cell) / cell / 2; half[2 * i + 1] = size * (data.sizes[2 * i + 1] || cell) / cell / 2;
  }
  const limitX = w / 2 - size / 2, limitY = h / 2 - size / 2;
  for (let round = 0, hit = true; hit && round < 300; round++) {
    hit = false;
    const cells = new Map();
    for (let i = 0; i < count; i++) {
      const key = Math.floor(x[i] / size) * 65536 + Math.floor(y[i] / size);
      cells.has(key) ? cells.get(key).push(i) : cells.set(key, [i]);
    }
    for (let i = 0; i < count; i++) {
      const column = Math.floor(x[i] / size), row = Math.floor(y[i] / size);
      for (let a = -1; a <= 1; a++) for (let b = -1; b <= 1; b++) for (const j of cells.get((column + a) * 65536 + row + b) || []) {
        if (j <= i) continue;
        const dx = x[j] - x[i], dy = y[j] - y[i];
        const ox = half[2 * i] + half[2 * j] - Math.abs(dx), oy = half[2 * i + 1] + half[2 * j + 1] - Math.abs(dy);
        if (ox <= 0.5 || oy <= 0.5) continue;
        hit = true;
        if (ox < oy) { const push = 0.45 * ox * (dx < 0 ? -1 : 1); x[i] -= push; x[j] += push; }
        else { const push = 0.45 * oy * (dy < 0 ? -1 : 1); y[i] -= push; y[j] += push; }
      }
      x[i] = Math.max(-limitX, Math.min(limitX, x[i])); y[i] = Math.max(-limitY, Math.min(limitY, y[i]));
    }
  }
  const apart = shape.points.slice();
  for (let i = 0; i < count; i++) { apart[i] = x[i] / unit; apart[count + i] = y[i] / unit; }
  shape.apartKey = key; shape.apart = apart;
  return apart;
}
function project() {
  const p = current(), w = canvas.clientWidth, h = canvas.clientHeight;
  const unit = unitAt() * zoom;
  const sx = Math.sin(turn.x), cx = Math.cos(turn.x), sy = Math.sin(turn.y), cy = Math.cos(turn.y);
  for (let i = 0; i < count; i++) {
    let x = p[i], y = p[count + i], z = p[2 * count + i], scale = 1;
    if (threeDimensional) {
      [x, z] = [cy * x + sy * z, cy * z - sy * x];
      [y, z] = [cx * y - sx * z, cx * z + sx * y];
      scale = 3.2 / (3.2 - z);
    }
    screen.x[i] = w / 2 + panX + x * unit * scale; screen.y[i] = h / 2 + panY - y * unit * scale; screen.scale[i] = scale;
  }
  if (threeDimensional) order.sort((a, b) => screen.scale[a] - screen.scale[b]);
}
function drawItem(i, size) {
  const x = screen.x[i], y = screen.y[i], lit = i === hovered || (found && found.has(i));
  const s = size * screen.scale[i] * (i === hovered ? 1.25 : 1), w = canvas.clientWidth, h = canvas.clientHeight;
  if (x < -s || y < -s || x > w + s || y > h + s) return;
  pen.globalAlpha = found && !lit ? 0.18 : 1;
  const cell = cellOf(i), color = $("colors").checked ? colorOf(i) : "transparent";
  if (!cell.w || s < 7) {
    pen.fillStyle = $("colors").checked ? colorOf(i) : "#888";
    pen.beginPath(); pen.arc(x, y, Math.max(2.5, s / 5), 0, 7); pen.fill();
  } else {
    const shrink = s / Math.max(cell.w, cell.h), dw = cell.w * shrink, dh = cell.h * shrink;
    const edge = Math.max(1.5, s / 22);
    pen.fillStyle = color; pen.fillRect(x - dw / 2 - edge, y - dh / 2 - edge, dw + 2 * edge, dh + 2 * edge);
    if (cell.image.complete) pen.drawImage(cell.image, cell.x, cell.y, cell.w, cell.h, x - dw / 2, y - dh / 2, dw, dh);
    if (lit) { pen.lineWidth = 3; pen.strokeStyle = getComputedStyle(document.body).getPropertyValue("--ink");
               pen.strokeRect(x - dw / 2 - edge, y - dh / 2 - edge, dw + 2 * edge, dh + 2 * edge); }
  }
  pen.globalAlpha = 1;
}
function draw() {
  if (dirty || from) {
    dirty = false;
    const ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0); pen.clearRect(0, 0, w, h); pen.imageSmoothingQuality = "high";
    project();
    const size = baseSize();
    for (const i of order) if (i !== hovered && shown(i)) drawItem(i, size);
    if (hovered >= 0 && shown(hovered)) drawItem(hovered, size);
    if (hovered >= 0) moveCard();
  }
  requestAnimationFrame(draw);
}

function hover(i, announce) {
  if (i === hovered) return;
  hovered = i; dirty = true; card.hidden = i < 0;
  if (i < 0) return;
  const cell = cellOf(i), name = document.createElement("p"), label = document.createElement("p");
  card.replaceChildren();
  if (cell.w) {
    const large = document.createElement("canvas");
    const grow = Math.min(282 / cell.w, 282 / cell.h);
    large.width = Math.round(cell.w * grow); large.height = Math.round(cell.h * grow);
    large.getContext("2d").drawImage(cell.image, cell.x, cell.y, cell.w, cell.h, 0, 0, large.width, large.height);
    card.append(large);
  }
  name.textContent = data.ids[i]; card.append(name);
  if (data.labels[i] >= 0) { label.textContent = data.names[data.labels[i]]; card.append(label); }
  if (announce) $("spoken").textContent = [data.ids[i], data.names[data.labels[i]] || ""].join(", ");
  moveCard();
}
function moveCard() {
  const away = baseSize() * screen.scale[hovered] * 0.63 + 10, w = canvas.clientWidth, h = canvas.clientHeight;
  let x = screen.x[hovered] + away, y = screen.y[hovered] - card.offsetHeight / 2;
  if (x + card.offsetWidth > w - 8) x = screen.x[hovered] - away - card.offsetWidth;
  card.style.left = `${Math.max(8, Math.min(x, w - card.offsetWidth - 8))}px`;
  card.style.top = `${Math.max(8, Math.min(y, h - card.offsetHeight - 8))}px`;
}
function at(x, y) {
  const half = Math.max(baseSize() / 2, 6);
  let best = -1, least = Infinity;
  for (let i = 0; i < count; i++) {
    const reach = half * screen.scale[i], away = Math.max(Math.abs(screen.x[i] - x), Math.abs(screen.y[i] - y));
    if (shown(i) && away <= reach && away < least) { least = away; best = i; }
  }
  return best;
}
function zoomBy(factor, x, y) {
  const next = Math.max(0.4, Math.min(zoom * factor, 60)), by = next / zoom;
  const dx = x - canvas.clientWidth / 2, dy = y - canvas.clientHeight / 2;
  panX = dx - (dx - panX) * by; panY = dy - (dy - panY) * by; zoom = next; dirty = true;
}

const pointers = new Map();
canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId); pointers.set(event.pointerId, event); canvas.classList.add("dragging");
});
canvas.addEventListener("pointermove", event => {
  const box = canvas.getBoundingClientRect(), last = pointers.get(event.pointerId);
  if (!last) { hover(at(event.clientX - box.left, event.clientY - box.top)); return; }
  const dx = event.clientX - last.clientX, dy = event.clientY - last.clientY;
  if (pointers.size === 2) {
    const other = [...pointers.values()].find(p => p.pointerId !== event.pointerId);
    const before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY);
    const after = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
    zoomBy(after / Math.max(before, 1), (event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top);
  } else if (threeDimensional && !event.shiftKey) { turn.y += dx * 0.008; turn.x += dy * 0.008; }
  else { panX += dx; panY += dy; }
  pointers.set(event.pointerId, event); dirty = true;
});
for (const type of ["pointerup", "pointercancel"]) canvas.addEventListener(type, event => {
  pointers.delete(event.pointerId); if (!pointers.size) canvas.classList.remove("dragging");
});
canvas.addEventListener("pointerleave", () => { if (!pointers.size) hover(-1); });
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const box = canvas.getBoundingClientRect();
  zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
canvas.addEventListener("dblclick", event => { const box = canvas.getBoundingClientRect(); zoomBy(2, event.clientX - box.left, event.clientY - box.top); });

const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", event => {
  const w = canvas.clientWidth, h = canvas.clientHeight, direction = directions[event.key];
  if (event.key === "+" || event.key === "=") zoomBy(1.4, w / 2, h / 2);
  else if (event.key === "-") zoomBy(1 / 1.4, w / 2, h / 2);
  else if (event.key === "0") reset();
  else if (event.key === "Escape") hover(-1);
  else if (direction) {
    const x0 = hovered < 0 ? w / 2 : screen.x[hovered], y0 = hovered < 0 ? h / 2 : screen.y[hovered];
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      if (i === hovered || !shown(i)) continue;
      const dx = screen.x[i] - x0, dy = screen.y[i] - y0, along = dx * direction[0] + dy * direction[1];
      const cost = along > 0.5 ? along + 3 * Math.abs(dx * direction[1] - dy * direction[0]) : Infinity;
      if (hovered < 0 ? Math.hypot(dx, dy) < least : cost < least) { least = hovered < 0 ? Math.hypot(dx, dy) : cost; best = i; }
    }
    if (best >= 0) {
      hover(best, true);
      if (screen.x[best] < 0 || screen.x[best] > w) { panX += w / 2 - screen.x[best]; dirty = true; }
      if (screen.y[best] < 0 || screen.y[best] > h) { panY += h / 2 - screen.y[best]; dirty = true; }
    }
  } else return;
  event.preventDefault();
});

function reset() { zoom = 1; panX = panY = 0; turn.x = -0.35; turn.y = 0.6; dirty = true; }
$("reset").addEventListener("click", reset);
function respread() { points = spreadPoints(); from = null; dirty = true; }
for (const id of ["size", "apart"]) $(id).addEventListener("input", respread);
$("colors").addEventListener("change", () => { dirty = true; });
$("layout").addEventListener("input", event => { stop(); show(+event.target.value, Infinity); });
$("frame").addEventListener("input", event => { stop(); show(layout, +event.target.value, true); });
$("find").addEventListener("input", event => {
  const wanted = event.target.value.trim().toLowerCase();
  found = wanted ? new Set(data.ids.flatMap((id, i) => id.toLowerCase().includes(wanted) ? [i] : [])) : null;
  $("spoken").textContent = found ? `${found.size} found` : ""; dirty = true;
});
function stop() { clearInterval(playing); playing = 0; $("play").textContent = "Play"; }
$("play").addEventListener("click", () => {
  if (playing) { stop(); return; }
  const last = data.layouts[layout].frames.length - 1;
  let next = frame >= last ? 0 : frame;
  $("play").textContent = "Pause";
  playing = setInterval(() => { show(layout, next, true); if (next++ >= last) stop(); }, 90);
});

function cellsOf(row, pairs) { for (const [tag, text] of pairs) { const cell = document.createElement(tag); cell.textContent = text; row.append(cell); } }
function fillAbout() {
  const facts = $("facts"), table = document.createElement("table");
  for (const [name, value] of data.facts) cellsOf(table.insertRow(), [["th", name], ["td", value]]);
  facts.append(table);
  for (const one of data.layouts) {
    const head = document.createElement("h2"), qualityTable = document.createElement("table");
    head.textContent = one.name;
    for (const [name, value] of Object.entries(one.quality))
      cellsOf(qualityTable.insertRow(), [["th", name.replaceAll("_", " ")], ["td", Number.isInteger(value) ? value : value.toFixed(3)]]);
    facts.append(head, qualityTable);
  }
  for (const note of data.notes) { const line = document.createElement("p"); line.textContent = note; facts.append(line); }
}
function fillLegend() {
  data.names.forEach((name, number) => {
    const button = document.createElement("button"), swatch = document.createElement("i");
    button.type = "button"; button.setAttribute("aria-pressed", "true"); swatch.style.background = data.colors[number];
    button.append(swatch, `${name} (${data.labels.filter(label => label === number).length})`);
    button.addEventListener("click", () => {
      const off = hidden.has(number); off ? hidden.delete(number) : hidden.add(number);
      button.setAttribute("aria-pressed", String(off)); dirty = true;
    });
    $("legend").append(button);
  });
  if (!data.names.length) $("colors").parentElement.hidden = true;
}

fillLegend(); fillAbout();
$("layout").max = data.layouts.length - 1;
$("layout-control").hidden = data.layouts.length < 2 && !data.layouts[0].name.startsWith("perplexity");
$("layout").hidden = data.layouts.length < 2;
$("apart-control").hidden = threeDimensional;
$("apart").checked = !threeDimensional && data.sheets.length > 0 && count <= 1500;
show(0, Infinity, true);
addEventListener("resize", respread);
// For scripts that examine the page, such as tests.
window.gramletMap = {
  count, pointOf: i => { project(); const box = canvas.getBoundingClientRect(); return [box.left + screen.x[i], box.top + screen.y[i]]; },
  hovered: () => hovered, layout: () => layout, frame: () => frame, ready: () => sheets.every(sheet => sheet.complete && sheet.naturalWidth),
};
requestAnimationFrame(draw);
