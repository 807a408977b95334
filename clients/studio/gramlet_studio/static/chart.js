// The loss by term, iteration by iteration, on a logarithmic scale.
import { h, penOf } from "./dom.js";

/** @typedef {{ iteration: number, [term: string]: number }} Reading */
/** @typedef {[term: string, name: string, color: string]} Term */

/** @type {Term[]} */
const TERMS = [["loss", "Total", "--line-total"], ["style", "Style", "--line-style"], ["content", "Content", "--line-content"], ["variation", "Smoothness", "--line-variation"]];
const DECADES = 3; // of the scale: the content loss starts at 0
const PEAKS = 0.05; // the share of the values that may be cut off

/**
 * A chart with `add(iteration values)`, `mark(iteration, kind)`, `clear()` and `element`.
 *
 * @param {Term[]} terms
 * @param {string} step
 */
export function lossChart(terms = TERMS, step = "iteration") {
  const canvas = h("canvas", { role: "img", "aria-label": "Loss: nothing yet" });
  const legend = h("ul.legend");
  const blank = h("p.hint", {}, `Drawn from the first ${step} on.`);
  const element = h("figure.chart", {}, canvas, blank, legend);
  /** @type {Reading[]} */
  const points = [];
  /** @type {{ iteration: number, kind: "scale" | "adjusted" }[]} */
  const marks = [];
  const values = new Map(terms.map(([term, name, color]) => {
    const value = h("b", {}, "–"), line = h("i", { "aria-hidden": "true" });
    line.style.background = `var(${color})`;
    legend.append(h("li", {}, line, name, " ", value));
    return /** @type {const} */ ([term, value]);
  }));
  let waiting = false;

  function draw() {
    waiting = false;
    blank.hidden = points.length > 0;
    const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1;
    if (!width) return;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = penOf(canvas), style = getComputedStyle(element);
    pen.scale(scale, scale);
    pen.clearRect(0, 0, width, height);
    if (!points.length) return;
    let [low, high] = range(points.map((point) => terms.map(([term]) => point[term]).filter((value) => value > 0).map(Math.log10)));
    if (high - low < 0.3) { low -= 0.15; high += 0.15; }
    const left = 48, bottom = 18, first = points[0].iteration, now = points[points.length - 1], last = Math.max(now.iteration, first + 1);
    const x = (/** @type {number} */ iteration) => left + (iteration - first) / (last - first) * (width - left - 6);
    const y = (/** @type {number} */ value) => 6 + (high - Math.log10(value)) / (high - low) * (height - bottom - 12);
    pen.font = "11px ui-sans-serif, system-ui, sans-serif";
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.fillStyle = style.getPropertyValue("--muted");
    pen.lineWidth = 1;
    for (let power = Math.ceil(low); power <= high; power++) {
      const at = y(10 ** power);
      pen.beginPath(); pen.moveTo(left, at); pen.lineTo(width, at); pen.stroke();
      pen.textAlign = "right"; pen.fillText(short(10 ** power), left - 6, at + 4);
    }
    pen.textAlign = "left"; pen.fillText(`${step} ${first}`, left, height - 4);
    pen.textAlign = "right"; pen.fillText(String(last), width - 6, height - 4);
    for (const { iteration, kind } of marks) {
      pen.setLineDash(kind === "scale" ? [] : [3, 3]);
      pen.strokeStyle = style.getPropertyValue(kind === "scale" ? "--line" : "--accent");
      pen.beginPath(); pen.moveTo(x(iteration), 6); pen.lineTo(x(iteration), height - bottom); pen.stroke();
    }
    pen.setLineDash([]);
    pen.lineWidth = 1.75;
    for (const [term, , color] of terms) {
      pen.strokeStyle = style.getPropertyValue(color);
      pen.beginPath();
      let on = false;
      for (const point of points) {
        if (!(point[term] > 0)) { on = false; continue; }
        pen[on ? "lineTo" : "moveTo"](x(point.iteration), y(Math.min(Math.max(point[term], 10 ** low), 10 ** high)));
        on = true;
      }
      pen.stroke();
    }
    canvas.setAttribute("aria-label", `Loss ${short(now.loss)} at ${step} ${now.iteration}, from ${short(points[0].loss)} at the start`);
    for (const [term, value] of values) value.textContent = now[term] > 0 ? short(now[term]) : "–";
  }
  function later() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }
  new ResizeObserver(later).observe(canvas);
  return {
    element,
    /** @param {Reading} point */
    add(point) {
      while (points.length && points[points.length - 1].iteration >= point.iteration) points.pop(); // a run that went on from its checkpoint
      points.push(point);
      later();
    },
    /**
     * @param {number} iteration
     * @param {"scale" | "adjusted"} kind
     */
    mark(iteration, kind) { marks.push({ iteration, kind }); later(); },
    clear() { points.length = marks.length = 0; later(); },
    draw: later,
  };
}

/**
 * Where the scale begins and ends. A short peak, as when a descent diverges and goes back, is cut off: it would press all
 * that matters to the ground.
 *
 * @param {number[][]} readings the logarithms of each reading
 * @returns {[number, number]}
 */
function range(readings) {
  const sorted = readings.flat().sort((a, b) => a - b);
  const high = Math.max(sorted[Math.ceil((sorted.length - 1) * (1 - PEAKS))] ?? 0, ...readings[0]);
  return [Math.max(sorted[0] ?? 0, high - DECADES), high];
}

/** @param {number | null | undefined} value */
export const short = (value) => value == null ? "–" : value >= 1e4 || value < 1e-2 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
