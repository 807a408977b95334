// The map: where the pictures are, and what is chosen. A painter draws it, by WebGL if the browser can.
import { CanvasPainter } from "./mapcanvas.js";
import { WebGLPainter } from "./mapgl.js";
import { steer } from "./mapinput.js";
import { MapPictures } from "./mappictures.js";
import { shape } from "./dom.js";

const DOT = 9, GLIDE_MS = 350;
const LARGER = 1.3; // times the size of a small picture: from there on the larger ones are drawn
const TOOLS = 56; // pixels at the top that the tools cover

/** @typedef {{ select: (indices: number[]) => void, hover: (index: number) => void, painted: (name: string, reason: string) => void }} Listener */
/**
 * What a painter needs to know of the view, in pixels of the screen: `left` and `top` of the middle of the map, `unit` for
 * its side, the `side` of a picture, and the width of a `rim`. `glide`: from 0 at `from` to 1 at the pictures' places.
 *
 * @typedef {{ width: number, height: number, ratio: number, left: number, top: number, unit: number, side: number, rim: number, dots: boolean, glide: number }} Frame
 */

export class MapView {
  zoom = 1;
  panX = 0;
  panY = 0;
  /** @type {"move" | "lasso"} */
  mode = "move";
  hovered = -1;
  frames = 0;
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

  width = 0;
  height = 0;
  placed = 0;
  colored = 0;
  ink = { accent: "", plain: "" };
  /** @type {Painter | null} */
  painter = null;
  /** @type {Painter | null} Waits for its graphics card. */
  lost = null;
  gone = new AbortController();

  /**
   * @param {HTMLElement} element where the map is drawn, and which hears the pointers and the keyboard
   * @param {FolderOnMap} folder
   * @param {Listener} on
   */
  constructor(element, folder, on) {
    this.element = element;
    this.folder = folder;
    this.on = on;
    this.items = folder.items;
    this.pictures = new MapPictures(folder, () => this.draw());
    this.ring = shape("rect", { class: "ring" });
    this.rope = shape("path", { class: "rope" });
    element.append(shape("svg", { class: "marks", "aria-hidden": "true" }, this.ring, this.rope));
    this.resized = new ResizeObserver(() => this.resize());
    this.resized.observe(element);
    const { signal } = this.gone;
    steer(this);
    addEventListener("theme", () => this.recolor(), { signal });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.recolor(), { signal });
    this.reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.resize();
    this.recolor();
    this.ready = this.begin();
  }

  close() {
    this.gone.abort();
    this.resized.disconnect();
    cancelAnimationFrame(this.waiting);
    this.painter?.close();
    this.lost?.close();
    this.painter = this.lost = null;
  }

  /** Draws by WebGL, or without where the browser cannot. */
  async begin() {
    try {
      const painter = await WebGLPainter.make(this, () => this.lose(), () => this.begin());
      if (this.gone.signal.aborted) painter.close(); else this.use(painter, "");
    } catch (failure) {
      console.info("the map is drawn without WebGL:", failure);
      if (!this.gone.signal.aborted) this.use(new CanvasPainter(), "Drawn on a 2D canvas: this browser offers no WebGL by a graphics card.");
    }
  }
  /** The graphics card has dropped the map, as after a reset or a standby. The canvas is kept: the browser restores it. */
  lose() {
    this.lost = this.painter;
    this.lost?.canvas.remove();
    this.painter = null;
    this.use(new CanvasPainter(), "The graphics card dropped the map: it is drawn on a 2D canvas until the browser has it back.");
  }
  /**
   * @param {Painter} painter
   * @param {string} reason why it is not the one that was wanted
   */
  use(painter, reason) {
    this.painter?.close();
    if (!reason) { this.lost?.close(); this.lost = null; }
    this.painter = painter;
    this.element.prepend(painter.canvas);
    this.element.dataset.painter = painter.name;
    this.on.painted(painter.name, reason);
    this.draw();
  }

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
    this.from = same && !this.reduced ? this.now() : null;
    this.shown = shown;
    this.x = xs.map((value) => (value - (lowX + highX) / 2) / span);
    this.y = ys.map((value) => ((lowY + highY) / 2 - value) / span);
    this.since = performance.now();
    this.placed++;
    this.draw();
  }
  /** How far the pictures have glided: from 0 to 1. */
  get glide() {
    const t = Math.min((performance.now() - this.since) / GLIDE_MS, 1);
    return this.from ? t * (2 - t) : 1;
  }
  /** Where the pictures are at this moment. */
  now(glide = this.glide) {
    const { from } = this;
    if (!from || glide >= 1) return { x: this.x, y: this.y };
    const between = (/** @type {number[]} */ ends, /** @type {number[]} */ starts) => ends.map((value, place) => starts[place] + (value - starts[place]) * glide);
    return { x: between(this.x, from.x), y: between(this.y, from.y) };
  }

  resize() {
    this.width = this.element.clientWidth;
    this.height = this.element.clientHeight;
    this.draw();
  }
  /** CSS pixels for the side of the whole map. */
  get unit() { return Math.min(this.width, this.height - TOOLS) * 0.9 * this.zoom; }
  /** The middle of the element below the tools. @returns {Point} */
  get middle() { return [this.width / 2, (this.height + TOOLS) / 2]; }
  /**
   * The point of the map below a point of the element.
   *
   * @param {number} x
   * @param {number} y
   * @returns {Point}
   */
  toMap(x, y) {
    const [middleX, middleY] = this.middle, { unit } = this;
    return [(x - middleX - this.panX) / unit, (y - middleY - this.panY) / unit];
  }
  /** The side of a picture in CSS pixels: they keep apart when the map is dense, and grow when it is near. */
  get side() { return Math.round(Math.max(4, Math.min(220, 0.62 * this.unit / Math.sqrt(Math.max(this.shown.length, 12))))); }
  /**
   * The color around a picture, and how strong it is: 0 for none, 1 for a class, 2 for what was chosen, marked or named.
   *
   * @param {number} index
   */
  markOf(index) {
    if (this.selected.has(index) || this.marked.has(index)) return { color: this.ink.accent, strength: 2 };
    const color = this.colors[index];
    return { color: color || this.ink.plain, strength: color ? this.named.has(index) ? 2 : 1 : 0 };
  }

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

  /** Draws in the next frame. */
  draw() { this.waiting ||= requestAnimationFrame(() => { this.waiting = 0; this.paint(); }); }
  /** Draws with other colors. */
  recolor() {
    const style = getComputedStyle(this.element), color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    this.ink = { accent: color("--accent"), plain: color("--muted") };
    this.colored++;
    this.draw();
  }
  /** @returns {Frame} */
  frame() {
    const ratio = devicePixelRatio || 1, { side, width, height } = this, [middleX, middleY] = this.middle;
    return {
      width: Math.round(width * ratio), height: Math.round(height * ratio), ratio, unit: this.unit * ratio,
      left: (middleX + this.panX) * ratio, top: (middleY + this.panY) * ratio,
      side: Math.round(side * ratio), rim: Math.max(1.5, side / 22) * ratio, dots: side < DOT, glide: this.glide,
    };
  }
  /**
   * The corner at the upper left of a picture, in pixels of the screen.
   *
   * @param {number} index
   * @param {Frame} frame
   * @returns {Point}
   */
  cornerOf(index, { left, top, unit, side, glide }, place = this.shown.indexOf(index)) {
    const { from } = this, at = (/** @type {"x" | "y"} */ axis) => (from ? from[axis][place] + (this[axis][place] - from[axis][place]) * glide : this[axis][place]);
    return [Math.round(left + at("x") * unit - side / 2), Math.round(top + at("y") * unit - side / 2)];
  }
  /**
   * The pictures on the screen when they are larger than the small ones, the nearest to the middle first.
   *
   * @param {Frame} frame
   */
  nearby(frame) {
    const { width, height, side } = frame;
    if (side <= LARGER * this.folder.sheets.tile) return [];
    /** @type {{ index: number, away: number }[]} */
    const found = [];
    this.shown.forEach((index, place) => {
      const [x, y] = this.cornerOf(index, frame, place);
      if (x > -side && y > -side && x < width && y < height) found.push({ index, away: Math.hypot(x + (side - width) / 2, y + (side - height) / 2) });
    });
    return found.sort((one, other) => one.away - other.away).map(({ index }) => index);
  }

  paint() {
    if (!this.painter || !this.width) return;
    const frame = this.frame();
    this.frames++;
    this.painter.paint(this, frame);
    this.mark(frame);
    if (frame.glide < 1) this.draw(); else this.from = null;
  }
  /**
   * The ring around a picture, and the lasso.
   *
   * @param {Frame} frame
   */
  mark(frame) {
    const place = this.shown.indexOf(this.hovered), { side, ratio } = frame, around = 4;
    this.ring.toggleAttribute("hidden", place < 0);
    if (place >= 0) {
      const [x, y] = this.cornerOf(this.hovered, frame, place), size = side / ratio + 2 * around;
      for (const [name, value] of Object.entries({ x: x / ratio - around, y: y / ratio - around, width: size, height: size })) this.ring.setAttribute(name, String(value));
    }
    this.rope.setAttribute("d", this.path ? `M${this.path.map((point) => point.join(" ")).join("L")}Z` : "");
  }

  // --- pictures under a pointer, beside another, chosen ---

  /**
   * @param {number} x
   * @param {number} y
   */
  at(x, y) {
    const reach = Math.max(this.side / 2, 8) / this.unit, [mapX, mapY] = this.toMap(x, y);
    let best = -1, closest = Infinity;
    for (let place = 0; place < this.shown.length; place++) {
      const distance = Math.max(Math.abs(this.x[place] - mapX), Math.abs(this.y[place] - mapY));
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
  /**
   * Moves the map when a picture is beyond its edge.
   *
   * @param {number} index
   */
  reveal(index) {
    const place = this.shown.indexOf(index), [middleX, middleY] = this.middle, { unit } = this;
    if (place < 0) return;
    const x = middleX + this.panX + this.x[place] * unit, y = middleY + this.panY + this.y[place] * unit;
    if (x > 0 && y > TOOLS && x < this.width && y < this.height) return;
    this.panX = -this.x[place] * unit;
    this.panY = -this.y[place] * unit;
    this.draw();
  }
  /**
   * The pictures inside of a path on the element.
   *
   * @param {Point[]} path
   */
  within(path) {
    const around = path.map((point) => this.toMap(...point));
    return this.shown.filter((_, place) => inside([this.x[place], this.y[place]], around));
  }
  /** @param {Iterable<number>} indices */
  choose(indices, more = false) {
    this.selected = new Set(more ? [...this.selected, ...indices] : indices);
    this.on.select([...this.selected]);
    this.recolor();
  }
  /** @param {number} index */
  toggle(index) {
    if (this.selected.has(index)) this.selected.delete(index); else this.selected.add(index);
    this.on.select([...this.selected]);
    this.recolor();
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
