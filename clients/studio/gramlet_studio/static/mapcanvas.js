// The map without WebGL: on a 2D canvas, picture by picture.
import { h, penOf } from "./dom.js";

const REST_MS = 150; // after the last step of a zoom

/** @typedef {import("./mapview.js").MapView} MapView */
/** @typedef {import("./mapview.js").Frame} Frame */

/** @implements {Painter} */
export class CanvasPainter {
  name = "canvas";
  canvas = h("canvas");
  pen = penOf(this.canvas);
  /** @type {Map<number, HTMLCanvasElement>} The sheets in the size in which they are drawn: copying is fast, scaling is not. */
  levels = new Map();
  levelSide = 0;
  side = 0;
  rest = 0;

  close() { clearTimeout(this.rest); this.canvas.remove(); }

  /**
   * @param {MapView} view
   * @param {Frame} frame
   */
  paint(view, frame) {
    const { canvas, pen } = this, { width, height, side, rim, unit, left, top } = frame, { columns, perSheet } = view.folder.sheets;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    pen.clearRect(0, 0, width, height);
    this.choose(view, side);
    const near = view.pictures.near(view.nearby(frame)), { x, y } = view.now(), half = side / 2, { levelSide } = this;
    pen.imageSmoothingEnabled = side >= view.folder.sheets.tile;
    for (let place = 0; place < view.shown.length; place++) {
      const fromX = Math.round(left + x[place] * unit - half), fromY = Math.round(top + y[place] * unit - half);
      if (fromX < -side || fromY < -side || fromX > width || fromY > height) continue;
      const index = view.shown[place], { color, strength } = view.markOf(index);
      if (strength || frame.dots) {
        const edge = frame.dots ? 0 : rim * strength;
        pen.fillStyle = color;
        pen.fillRect(fromX - edge, fromY - edge, side + 2 * edge, side + 2 * edge);
      }
      if (frame.dots) continue;
      const large = near.get(index), level = large ? null : this.level(view, Math.floor(index / perSheet)), cell = index % perSheet;
      if (large) pen.drawImage(large.image, large.cutX, large.cutY, large.cut, large.cut, fromX, fromY, side, side);
      else if (level) pen.drawImage(level, cell % columns * levelSide, Math.floor(cell / columns) * levelSide, levelSide, levelSide, fromX, fromY, side, side);
      else { pen.fillStyle = view.ink.plain; pen.fillRect(fromX, fromY, side, side); }
    }
  }

  /**
   * Chooses the size of the levels: that of the pictures, at most that of the sheets, but one that is near while the map is
   * zoomed.
   *
   * @param {MapView} view
   * @param {number} side
   */
  choose(view, side) {
    const wanted = Math.min(side, view.folder.sheets.tile), isZooming = side !== this.side, isNear = this.levelSide / wanted < 3 && this.levelSide / wanted > 0.6;
    this.side = side;
    if (this.levelSide === wanted) return;
    if (isZooming && isNear) {
      clearTimeout(this.rest);
      this.rest = setTimeout(() => view.draw(), REST_MS);
      return;
    }
    this.levels.clear();
    this.levelSide = wanted;
  }

  /**
   * @param {MapView} view
   * @param {number} number
   */
  level(view, number) {
    const known = this.levels.get(number), sheet = view.pictures.sheet(number);
    const { tile } = view.folder.sheets;
    if (known || !sheet || this.levelSide === tile) return known ?? sheet;
    const level = h("canvas");
    level.width = Math.round(sheet.naturalWidth / tile * this.levelSide);
    level.height = Math.round(sheet.naturalHeight / tile * this.levelSide);
    penOf(level).drawImage(sheet, 0, 0, level.width, level.height);
    this.levels.set(number, level);
    return level;
  }
}
