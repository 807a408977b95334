// Pointers, touch, the wheel and the keyboard on the map.

/** @typedef {import("./mapview.js").MapView} MapView */

/** @type {Record<string, Point>} */
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/**
 * Lets the user move the map, draw a lasso and choose pictures.
 *
 * @param {MapView} view
 */
export function steer(view) {
  const { element } = view;
  /** @type {Map<number, Point>} */
  const pointers = new Map();
  let moved = false;

  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    element.focus({ preventScroll: true });
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    moved = false;
    if (pointers.size === 2) view.path = null;
    else if (view.mode === "lasso" || event.shiftKey) view.path = [[event.offsetX, event.offsetY]];
  });
  element.addEventListener("pointermove", (event) => {
    /** @type {Point} */
    const now = [event.offsetX, event.offsetY], before = pointers.get(event.pointerId);
    if (!before) {
      view.hover(view.at(...now));
      return;
    }
    if (Math.hypot(now[0] - before[0], now[1] - before[1]) > 2) moved = true;
    if (pointers.size === 2) {
      const other = [...pointers].filter(([id]) => id !== event.pointerId)[0][1];
      const spread = (/** @type {Point} */ point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      view.scale(spread(now) / Math.max(spread(before), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (view.path) view.path.push(now);
    else { view.panX += now[0] - before[0]; view.panY += now[1] - before[1]; }
    pointers.set(event.pointerId, now);
    view.draw();
  });
  element.addEventListener("pointerup", (event) => {
    pointers.delete(event.pointerId);
    const { path } = view, isMore = event.ctrlKey || event.metaKey;
    if (path && path.length > 2) view.choose(view.within(path), isMore);
    else if (!moved) {
      const found = view.at(event.offsetX, event.offsetY);
      view.hover(found);
      if (found >= 0 && (isMore || view.mode === "lasso")) view.toggle(found);
    }
    view.path = null;
    view.draw();
  });
  element.addEventListener("pointercancel", (event) => { pointers.delete(event.pointerId); view.path = null; view.draw(); });
  element.addEventListener("pointerleave", () => { if (!pointers.size && document.activeElement !== element) view.hover(-1); });
  element.addEventListener("wheel", (event) => { event.preventDefault(); view.scale(Math.exp(-event.deltaY / 500), event.offsetX, event.offsetY); }, { passive: false });
  // Arrows go from picture to picture, Enter chooses.
  element.addEventListener("keydown", (event) => {
    if (event.key in STEPS) { view.hover(view.next(...STEPS[event.key])); view.reveal(view.hovered); }
    else if (event.key === "Enter" || event.key === " ") { if (view.hovered >= 0) view.toggle(view.hovered); }
    else if (event.key === "Escape") { view.choose([]); view.hover(-1); }
    else if (event.key === "+" || event.key === "=") view.scale(1.4);
    else if (event.key === "-") view.scale(1 / 1.4);
    else if (event.key === "0") view.fit();
    else return;
    event.preventDefault();
  });
}
