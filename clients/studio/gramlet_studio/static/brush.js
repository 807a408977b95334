// Regions, painted by brush: where in the photo a style applies, and which part of the style picture counts.
import { pictureUrl, said, upload } from "./api.js";
import { h, note, opened, penOf } from "./dom.js";

const SIDE = 640, COLOR = [255, 180, 84];
// For those who cannot paint: parts of the picture as [left, top, right, bottom].
/** @type {Record<string, [number, number, number, number]>} */
const PARTS = { "Left half": [0, 0, 0.5, 1], "Right half": [0.5, 0, 1, 1], "Top half": [0, 0, 1, 0.5], "Bottom half": [0, 0.5, 1, 1], Middle: [0.25, 0.25, 0.75, 0.75] };

/**
 * A picture to paint on. `mask()` is the region as a PNG file, white inside; null where nothing was painted.
 *
 * @param {string} title
 * @param {string} hint
 * @param {string} picture
 * @param {string | null | undefined} region
 * @param {{ width(): number, erases(): boolean }} brush
 */
function paintable(title, hint, picture, region, brush) {
  const image = h("img", { src: pictureUrl(picture, SIDE), alt: "" }), canvas = h("canvas", { role: "img", "aria-label": `${title}: nothing is marked, all of it counts` });
  const pen = penOf(canvas, { willReadFrequently: true });
  const parts = h("div.chips", { role: "group", "aria-label": title }, Object.entries(PARTS).map(([name, part]) => h("button", { type: "button", onclick: () => fill(part) }, name)),
    h("button.quiet", { type: "button", onclick: () => { pen.clearRect(0, 0, canvas.width, canvas.height); told(); } }, "Clear"));
  /** @type {Point | null} */
  let last = null;
  let marked = false;
  image.addEventListener("load", async () => {
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    if (region) await show(region);
  });

  function told() {
    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 3; i < data.length; i += 4) if (data[i] > 127) count++;
    marked = count > 0;
    canvas.setAttribute("aria-label", `${title}: ${marked ? `${Math.round(count / (canvas.width * canvas.height) * 100)} percent is marked` : "nothing is marked, all of it counts"}`);
  }
  /** @param {[number, number, number, number]} part */
  function fill([left, top, right, bottom]) {
    pen.globalCompositeOperation = "source-over";
    pen.fillStyle = `rgb(${COLOR})`;
    pen.fillRect(left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height);
    told();
  }
  /** @param {string} id */
  async function show(id) {
    const mask = new Image();
    mask.src = pictureUrl(id, SIDE);
    await mask.decode();
    pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([...COLOR, pixels.data[i] > 127 ? 255 : 0], i);
    pen.putImageData(pixels, 0, 0);
    told();
  }
  /**
   * @param {PointerEvent} event
   * @returns {Point}
   */
  const at = (event) => [event.offsetX / canvas.clientWidth * canvas.width, event.offsetY / canvas.clientHeight * canvas.height];
  /** @param {PointerEvent} event */
  function stroke(event) {
    const now = at(event);
    pen.globalCompositeOperation = brush.erases() ? "destination-out" : "source-over";
    pen.strokeStyle = `rgb(${COLOR})`;
    pen.lineWidth = brush.width() * canvas.width;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...(last || now));
    pen.lineTo(...now);
    pen.stroke();
    last = now;
  }
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); last = null; stroke(event); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) stroke(event); });
  canvas.addEventListener("pointerup", () => { last = null; told(); });

  return {
    element: h("div.paintable", {}, h("h3", {}, title), h("p.hint", {}, hint), h("div.easel", {}, image, canvas), parts),
    async mask() {
      if (!marked) return null;
      const flat = h("canvas", { width: canvas.width, height: canvas.height }), ground = penOf(flat);
      ground.drawImage(canvas, 0, 0);
      ground.globalCompositeOperation = "source-in"; // the painted part, in white
      ground.fillStyle = "#fff";
      ground.fillRect(0, 0, flat.width, flat.height);
      ground.globalCompositeOperation = "destination-over";
      ground.fillStyle = "#000";
      ground.fillRect(0, 0, flat.width, flat.height);
      /** @type {Blob} */
      const png = await new Promise((done, failed) => flat.toBlob((made) => made ? done(made) : failed(new Error("the region could not be drawn")), "image/png"));
      return new File([png], "region.png", { type: "image/png" });
    },
  };
}

/**
 * Lets the user paint the regions of a style; `done(regions)` gets the ids of the masks, null where all counts.
 *
 * @param {string} content
 * @param {OrderedStyle} style
 * @param {(regions: { content_region: string | null, style_region: string | null }) => void} done
 */
export function paintRegions(content, style, done) {
  const width = h("input", { type: "range", id: "brush", min: 0.02, max: 0.3, step: 0.01, value: 0.1 }), eraser = h("input", { type: "checkbox" });
  const brush = { width: () => Number(width.value), erases: () => eraser.checked };
  const where = paintable("On the photo", "Where the style applies", content, style.content_region, brush);
  const which = paintable("On the style", "Which part of it counts", style.picture, style.style_region, brush);
  const dialog = opened("Regions", h("div.row", {}, h("label", { for: "brush" }, "Brush"), h("span.brush", {}, width), h("label.check", {}, eraser, "Erase")),
    h("div.easels", {}, where.element, which.element),
    h("div.row.end", {}, h("button.primary", { type: "button", id: "regions-done", onclick: async () => {
      try {
        const masks = await Promise.all([where.mask(), which.mask()]);
        const kept = await upload(masks.filter((mask) => mask !== null), (text) => note(text, "bad"));
        done({ content_region: masks[0] && kept.shift()?.id || null, style_region: masks[1] && kept.shift()?.id || null });
        dialog.close();
      } catch (failure) { note(said(failure), "bad"); }
    } }, "Use these regions")));
}
