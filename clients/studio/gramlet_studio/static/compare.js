// Two pictures over each other, with a handle between them: drag anywhere, or use the arrow keys.
import { h } from "./dom.js";

/** `show(url)` is the picture on the right, `before(url)` the one on the left. */
export function comparison({ beforeName = "Before", afterName = "After" } = {}) {
  let after = h("img.after", { alt: "", draggable: false });
  const before = h("img.before", { alt: "", draggable: false });
  const handle = h("input", { type: "range", min: 0, max: 100, value: 0, step: 0.5, "aria-label": `How much of ${beforeName.toLowerCase()} is shown` });
  const bar = h("span.bar", { "aria-hidden": "true" });
  const left = h("span.tag.left", {}, beforeName), right = h("span.tag.right", {}, afterName);
  const element = h("div.compare", {}, after, before, bar, left, right, handle);

  function move() {
    const share = Number(handle.value);
    before.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    bar.style.left = `${share}%`;
    bar.hidden = left.hidden = share === 0;
    right.hidden = share === 100 || share === 0;
    handle.setAttribute("aria-valuetext", `${Math.round(share)} percent`);
  }
  handle.addEventListener("input", move);
  move();
  let newest = 0;
  return {
    element, handle,
    /**
     * Shows a picture once it is decoded, so that nothing flickers. Older ones that come late are dropped.
     *
     * @param {string} url
     */
    async show(url, text = "") {
      const turn = ++newest, next = new Image();
      next.src = url;
      try { await next.decode(); } catch { return; }
      if (turn !== newest) return;
      next.className = "after";
      next.alt = text;
      next.draggable = false;
      after.replaceWith(next);
      after = next;
      element.style.aspectRatio = `${next.naturalWidth} / ${next.naturalHeight}`;
      element.style.setProperty("--ratio", String(next.naturalWidth / next.naturalHeight));
    },
    /** @param {string} url */
    before(url, text = "") { before.src = url; before.alt = text; },
    /** @param {number} share in percent */
    at(share) { handle.value = String(share); move(); },
  };
}
