// The map on a canvas: points that are their pictures when near; panning, zooming, lasso, keyboard.
import { pictureUrl } from "./api.js";
import { penOf } from "./dom.js";

const DOT = 9, NEAR = 84, MOST_LARGE = 60, MOST_LEVELS = 24, GLIDE_MS = 350;
const TOOLS = 56; // pixels at the top that the tools cover

/** @typedef {{ select: (indices: number[]) => void, hover: (index: number) => void }} Listener */
/** @typedef {{ image: HTMLImageElement, cut: number, cutX: number, cutY: number }} Large A picture, and its square in the middle. */
/** @typedef {{ canvas: HTMLCanvasElement, side: number }} Level */

export class MapView {
  zoom = 1;
  panX = 0;
  panY = 0;
  /** @type {"move" | "lasso"} */
  mode = "move";
  hovered = -1;
  frames = 0;
  moved = false;
  waiting = 0;
  since = 0;
  /** @type {number[]} The indices of the pictures on the map; `x` and `y` are in their order. */
  shown = [];
  /** @type {number[]} */
  x = [];
  /** @type {number[]} */
  y = [];
  /** @type {{ x: number[], y: number[] } | null} Where the pictures glide from. */
  from = null;
  /** @type {(string | null)[]} */
  colors = [];
  /** @type {Set<number>} */
  selected = new Set();
  /** @type {Set<number>} */
  marked = new Set();
  /** @type {Set<number>} */
  named = new Set();
  /** @type {Point[] | null} The lasso. */
  path = null;
  /** @type {Map<number, Large>} */
  large = new Map();
  /** @type {Map<string, Level>} Small pictures in the size in which they are drawn, by sheet and side. */
  levels = new Map();
  /** @type {Map<number, Point>} */
  pointers = new Map();

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {FolderOnMap} folder
   * @param {Listener} on
   */
  constructor(canvas, folder, on) {
    this.canvas = canvas;
    this.folder = folder;
    this.on = on;
    this.items = folder.items;
    this.pen = penOf(canvas);
    const { count } = folder.sheets;
    this.sheets = Array.from({ length: count }, (_, number) => {
      const image = new Image();
      image.onload = () => this.draw();
      image.src = `/api/folders/${folder.id}/sheets/${number}.jpg`;
      return image;
    });
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(canvas);
    for (const name of /** @type {const} */ (["pointerdown", "pointermove", "pointerup", "pointercancel"])) canvas.addEventListener(name, (event) => this[name](event));
    canvas.addEventListener("pointerleave", () => { if (!this.pointers.size && document.activeElement !== canvas) this.hover(-1); });
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); this.scale(Math.exp(-event.deltaY / 500), event.offsetX, event.offsetY); }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    this.reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  close() { this.resized.disconnect(); cancelAnimationFrame(this.waiting); }

  /**
   * Where the pictures are. They glide there.
   *
   * @param {number[]} shown the indices of the pictures
   * @param {number[][]} coordinates their points in the same order
   */
  place(shown, coordinates) {
    const xs = coordinates.map((point) => point[0]), ys = coordinates.map((point) => point[1] ?? 0);
    const [lowX, highX, lowY, highY] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const span = Math.max(highX - lowX, highY - lowY, 1e-9);
    const same = this.shown.length === shown.length;
    this.from = same && !this.reduced ? { x: this.now("x"), y: this.now("y") } : null;
    this.shown = shown;
    this.x = xs.map((value) => (value - (lowX + highX) / 2) / span);
    this.y = ys.map((value) => ((lowY + highY) / 2 - value) / span);
    this.since = performance.now();
    this.draw();
  }
  /** @param {"x" | "y"} axis */
  now(axis) {
    const t = Math.min((performance.now() - this.since) / GLIDE_MS, 1), eased = t * (2 - t);
    if (!this.from || t >= 1) { this.from = null; return this[axis]; }
    const from = this.from[axis];
    return this[axis].map((value, place) => from[place] + (value - from[place]) * eased);
  }

  /** Pixels of the screen for the side of the whole map. */
  get unit() { return Math.min(this.canvas.clientWidth, this.canvas.clientHeight - TOOLS) * 0.9 * this.zoom; }
  /** The middle of the canvas below the tools. @returns {Point} */
  get middle() { return [this.canvas.clientWidth / 2, (this.canvas.clientHeight + TOOLS) / 2]; }
  /**
   * @param {number} x
   * @param {number} y
   * @returns {Point}
   */
  toScreen(x, y) {
    const [middleX, middleY] = this.middle;
    return [middleX + this.panX + x * this.unit, middleY + this.panY + y * this.unit];
  }
  /** The side of a picture in pixels: they keep apart when the map is dense, and grow when it is near. */
  get side() { return Math.round(Math.max(4, Math.min(220, 0.62 * this.unit / Math.sqrt(Math.max(this.shown.length, 12))))); }
  /**
   * The middle of a picture on the canvas.
   *
   * @param {number} index
   */
  pointOf(index) { const place = this.shown.indexOf(index); return this.toScreen(this.x[place], this.y[place]); }

  /** @param {number} factor */
  scale(factor, x = this.middle[0], y = this.middle[1]) {
    const next = Math.max(0.5, Math.min(80, this.zoom * factor)), real = next / this.zoom;
    const [middleX, middleY] = this.middle;
    this.panX = (this.panX + middleX - x) * real + x - middleX;
    this.panY = (this.panY + middleY - y) * real + y - middleY;
    this.zoom = next;
    this.draw();
  }
  /** @param {number} index */
  fly(index, zoom = Math.max(this.zoom, 6)) {
    const place = this.shown.indexOf(index);
    if (place < 0) return;
    this.zoom = zoom;
    this.panX = -this.x[place] * this.unit;
    this.panY = -this.y[place] * this.unit;
    this.hover(index);
    this.draw();
  }
  fit() { this.zoom = 1; this.panX = this.panY = 0; this.draw(); }

  draw() { this.waiting ||= requestAnimationFrame(() => { this.waiting = 0; this.paint(); }); }

  paint() {
    const { canvas, pen } = this, ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    this.frames++;
    const xs = this.now("x"), ys = this.now("y"), { side, unit } = this, half = Math.round(side * ratio / 2) / ratio;
    const style = getComputedStyle(canvas), accent = style.getPropertyValue("--accent"), plain = style.getPropertyValue("--muted");
    const { columns, perSheet } = this.folder.sheets, left = this.middle[0] + this.panX, top = this.middle[1] + this.panY;
    const border = Math.max(1.5, side / 22);
    for (let place = 0; place < this.shown.length; place++) {
      const x = Math.round((left + xs[place] * unit) * ratio) / ratio, y = Math.round((top + ys[place] * unit) * ratio) / ratio;
      if (x < -half || y < -half || x > width + half || y > height + half) continue;
      const index = this.shown[place], color = this.colors[index];
      if (side < DOT) {
        pen.fillStyle = this.selected.has(index) ? accent : color || plain;
        pen.fillRect(x - half, y - half, side, side);
        continue;
      }
      if (color || this.selected.has(index) || this.marked.has(index)) {
        const rim = this.selected.has(index) || this.marked.has(index) || this.named.has(index) ? border * 2 : border;
        pen.fillStyle = this.selected.has(index) || this.marked.has(index) ? accent : color || plain;
        pen.fillRect(x - half - rim, y - half - rim, side + 2 * rim, side + 2 * rim);
      }
      const near = side > NEAR && this.near(index), level = this.level(Math.floor(index / perSheet), Math.round(side * ratio)), cell = index % perSheet;
      if (near) pen.drawImage(near.image, near.cutX, near.cutY, near.cut, near.cut, x - half, y - half, side, side);
      else if (level) pen.drawImage(level.canvas, cell % columns * level.side, Math.floor(cell / columns) * level.side, level.side, level.side, x - half, y - half, side, side);
      else { pen.fillStyle = plain; pen.fillRect(x - half, y - half, side, side); }
    }
    if (this.hovered >= 0 && this.shown.includes(this.hovered)) {
      const [x, y] = this.pointOf(this.hovered);
      pen.strokeStyle = accent;
      pen.lineWidth = 3;
      pen.strokeRect(x - half - 4, y - half - 4, side + 8, side + 8);
    }
    if (this.path) {
      pen.beginPath();
      this.path.forEach(([x, y], step) => pen[step ? "lineTo" : "moveTo"](x, y));
      pen.closePath();
      pen.strokeStyle = accent;
      pen.lineWidth = 2;
      pen.setLineDash([6, 5]);
      pen.stroke();
      pen.setLineDash([]);
    }
    if (this.from) this.draw();
  }

  /**
   * A sheet whose small pictures have this side, in pixels of the screen: copying them is fast, scaling each is not.
   *
   * @param {number} number
   * @param {number} side
   */
  level(number, side) {
    const sheet = this.sheets[number], key = `${number} ${side}`, known = this.levels.get(key);
    if (known || !sheet?.complete || !sheet.naturalWidth) return known;
    if (this.levels.size >= MOST_LEVELS) drop(this.levels);
    const { tile } = this.folder.sheets, canvas = document.createElement("canvas"), level = { canvas, side };
    canvas.width = Math.round(sheet.naturalWidth / tile * side);
    canvas.height = Math.round(sheet.naturalHeight / tile * side);
    penOf(canvas).drawImage(sheet, 0, 0, canvas.width, canvas.height);
    this.levels.set(key, level);
    return level;
  }

  /**
   * The larger picture of an item, once it is there. Few are kept.
   *
   * @param {number} index
   */
  near(index) {
    const known = this.large.get(index);
    if (known) return known.cut ? known : null;
    if (this.large.size >= MOST_LARGE) drop(this.large);
    const image = new Image(), large = { image, cut: 0, cutX: 0, cutY: 0 };
    image.onload = () => {
      large.cut = Math.min(image.naturalWidth, image.naturalHeight);
      large.cutX = (image.naturalWidth - large.cut) / 2;
      large.cutY = (image.naturalHeight - large.cut) / 2;
      this.draw();
    };
    image.src = pictureUrl(this.items[index].picture, 320);
    this.large.set(index, large);
    return null;
  }

  // --- pointers ---

  /**
   * @param {number} x
   * @param {number} y
   */
  at(x, y) {
    const { side } = this, reach = Math.max(side / 2, 8);
    let best = -1, closest = Infinity;
    for (let place = 0; place < this.shown.length; place++) {
      const [px, py] = this.toScreen(this.x[place], this.y[place]), distance = Math.max(Math.abs(px - x), Math.abs(py - y));
      if (distance <= reach && distance < closest) { closest = distance; best = this.shown[place]; }
    }
    return best;
  }
  /** @param {number} index */
  hover(index) {
    if (index === this.hovered) return;
    this.hovered = index;
    this.on.hover(index);
    this.draw();
  }
  /** @param {PointerEvent} event */
  pointerdown(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.moved = false;
    if (this.pointers.size === 2) this.path = null;
    else if (this.mode === "lasso" || event.shiftKey) this.path = [[event.offsetX, event.offsetY]];
  }
  /** @param {PointerEvent} event */
  pointermove(event) {
    /** @type {Point} */
    const now = [event.offsetX, event.offsetY], before = this.pointers.get(event.pointerId);
    if (!before) {
      this.hover(this.at(...now));
      return;
    }
    if (Math.hypot(now[0] - before[0], now[1] - before[1]) > 2) this.moved = true;
    if (this.pointers.size === 2) {
      const other = [...this.pointers].filter(([id]) => id !== event.pointerId)[0][1];
      const spread = (/** @type {Point} */ point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      this.scale(spread(now) / Math.max(spread(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.path) this.path.push(now);
    else { this.panX += now[0] - before[0]; this.panY += now[1] - before[1]; }
    this.pointers.set(event.pointerId, now);
    this.draw();
  }
  /** @param {PointerEvent} event */
  pointerup(event) {
    this.pointers.delete(event.pointerId);
    const { path } = this;
    if (path && path.length > 2) this.choose(this.shown.filter((_, place) => inside(this.toScreen(this.x[place], this.y[place]), path)), event.ctrlKey || event.metaKey);
    else if (!this.moved) {
      const found = this.at(event.offsetX, event.offsetY);
      this.hover(found);
      if (found >= 0 && (event.ctrlKey || event.metaKey || this.mode === "lasso")) this.toggle(found);
    }
    this.path = null;
    this.draw();
  }
  /** @param {PointerEvent} event */
  pointercancel(event) { this.pointers.delete(event.pointerId); this.path = null; this.draw(); }

  /** @param {Iterable<number>} indices */
  choose(indices, more = false) {
    this.selected = new Set(more ? [...this.selected, ...indices] : indices);
    this.on.select([...this.selected]);
    this.draw();
  }
  /** @param {number} index */
  toggle(index) {
    if (this.selected.has(index)) this.selected.delete(index); else this.selected.add(index);
    this.on.select([...this.selected]);
    this.draw();
  }

  // --- keyboard: arrows go from picture to picture, Enter chooses ---

  /** @param {KeyboardEvent} event */
  key(event) {
    /** @type {Record<string, Point>} */
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in steps) this.hover(this.next(...steps[event.key]));
    else if (event.key === "Enter" || event.key === " ") { if (this.hovered >= 0) this.toggle(this.hovered); }
    else if (event.key === "Escape") { this.choose([]); this.hover(-1); }
    else if (event.key === "+" || event.key === "=") this.scale(1.4);
    else if (event.key === "-") this.scale(1 / 1.4);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
  /**
   * The nearest picture in a direction.
   *
   * @param {number} dx
   * @param {number} dy
   */
  next(dx, dy) {
    const place = this.shown.indexOf(this.hovered);
    if (place < 0) return this.shown[0] ?? -1;
    let best = this.hovered, closest = Infinity;
    for (let other = 0; other < this.shown.length; other++) {
      const ahead = (this.x[other] - this.x[place]) * dx + (this.y[other] - this.y[place]) * dy;
      const beside = Math.abs((this.x[other] - this.x[place]) * dy) + Math.abs((this.y[other] - this.y[place]) * dx);
      if (other !== place && ahead > 0 && ahead + 2 * beside < closest) { closest = ahead + 2 * beside; best = this.shown[other]; }
    }
    return best;
  }
}

/**
 * Removes the oldest entry.
 *
 * @template K
 * @param {Map<K, unknown>} map
 */
function drop(map) {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}

/**
 * Whether a point is inside of a polygon, by the number of its edges to the right.
 *
 * @param {Point} point
 * @param {Point[]} polygon
 */
function inside([x, y], polygon) {
  let within = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [ax, ay] = polygon[i], [bx, by] = polygon[j];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) within = !within;
  }
  return within;
}
