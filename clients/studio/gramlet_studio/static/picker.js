// Choosing pictures: dropped, from disk, from the camera, or a sample.
import { get, pictureUrl, said, upload } from "./api.js";
import { paintRegions } from "./brush.js";
import { cameraButton } from "./camera.js";
import { h, icon, note } from "./dom.js";
import { fileButton } from "./filebutton.js";

export const MOST_STYLES = 4;
/** @type {Promise<Sample[]> | null} */
let samples = null;
const loadSamples = () => (samples ??= get("/samples").then((/** @type {{ samples: Sample[] }} */ found) => found.samples).catch((failure) => { samples = null; throw failure; }));

/**
 * A file that was dropped; null, and a note, for a folder and for an empty file.
 *
 * @param {DataTransferItem} item
 */
function pictureOf(item) {
  const file = item.getAsFile();
  if (item.webkitGetAsEntry()?.isDirectory) note(`${file?.name || "This"} is a folder: drop pictures here`, "bad");
  else if (file && !file.size) note(`${file.name} is empty`, "bad");
  else return file;
  return null;
}

/**
 * Takes pictures that are dropped on an element.
 *
 * @param {HTMLElement} element
 * @param {(files: File[]) => void} take
 */
export function takesDrops(element, take) {
  let depth = 0;
  element.addEventListener("dragenter", (event) => { event.preventDefault(); depth++; element.classList.add("over"); });
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; element.classList.remove("over"); } });
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    element.classList.remove("over");
    const found = [...event.dataTransfer?.items ?? []].map(pictureOf).filter((file) => file !== null);
    if (found.length) take(found);
  });
}

/**
 * @param {Sample["use"]} use
 * @param {(sample: Sample) => void} choose
 */
function sampleStrip(use, choose) {
  const strip = h("div.samples", { role: "group", "aria-label": `Sample ${use === "content" ? "photos" : "styles"}` });
  loadSamples().then((found) => {
    for (const sample of found.filter((each) => each.use === use)) {
      strip.append(h("button.sample", { type: "button", title: sample.name, "aria-label": `Sample: ${sample.name}`, onclick: () => choose(sample) },
        h("img", { src: pictureUrl(sample.id, 160), alt: "", loading: "lazy" })));
    }
  }).catch((failure) => note(said(failure), "bad"));
  return strip;
}

/**
 * The content and the styles of an order. `changed()` is called whenever they change.
 *
 * @param {() => void} changed
 */
export function picturePicker(changed, { regions = true } = {}) {
  /** @type {{ content: StoredPicture | null, styles: ChosenStyle[] }} */
  const state = { content: null, styles: [] };
  const contentTile = h("div.drop.content"), styleTiles = h("div.styles");
  const complain = (/** @type {string} */ text) => note(text, "bad");

  /**
   * @param {File[]} files
   * @param {Sample["use"]} use
   */
  async function take(files, use) {
    try {
      const kept = await upload(files, complain);
      for (const picture of kept) add(picture.id, use, picture.name);
    } catch (failure) { complain(said(failure)); }
  }
  /**
   * @param {string} id
   * @param {Sample["use"]} use
   */
  function add(id, use, name = "") {
    if (use === "content") {
      state.content = { id, name };
      for (const style of state.styles) style.content_region = null; // it was painted on another photo
    } else if (state.styles.length < MOST_STYLES) state.styles.push({ picture: id, weight: 1, name });
    else {
      complain(`At most ${MOST_STYLES} styles: remove one first`);
      return;
    }
    draw();
    changed();
  }

  function draw() {
    const { content } = state;
    contentTile.replaceChildren(
      content ? h("img", { src: pictureUrl(content.id), alt: `Content ${content.name}` }) : h("p.hint", {}, "Drop a photo here"),
      h("div.row.over-picture", {},
        fileButton(content ? "Replace" : "Choose a photo", (files) => take(files.slice(0, 1), "content")),
        cameraButton((files) => take(files, "content")) ?? ""));
    contentTile.classList.toggle("filled", !!content);
    const several = state.styles.length > 1, shares = state.styles.map(() => h("b", {}));
    function tellShares() {
      const sum = state.styles.reduce((total, style) => total + style.weight, 0);
      shares.forEach((share, index) => { share.textContent = `${Math.round(state.styles[index].weight / sum * 100)} %`; });
    }
    tellShares();
    styleTiles.replaceChildren(
      ...state.styles.map((style, index) => h("div.style", {},
        h("img", { src: pictureUrl(style.picture, 320), alt: `Style ${index + 1} ${style.name}` }),
        h("button.quiet.icon.remove", { type: "button", "aria-label": `Remove style ${index + 1}`, onclick: () => { state.styles.splice(index, 1); draw(); changed(); } }, icon("close")),
        regions && content && h(`button.quiet.icon.paint${style.content_region || style.style_region ? ".on" : ""}`, { type: "button", "aria-label": `Regions of style ${index + 1}`, title: "Regions",
          onclick: () => paintRegions(content.id, style, (painted) => { Object.assign(style, painted); draw(); changed(); }) }, icon("brush")),
        several && h("label.ratio", {}, h("span.hidden", {}, `Share of style ${index + 1}`),
          h("input", { type: "range", min: 0.1, max: 3, step: 0.1, value: style.weight, oninput: (event) => { style.weight = Number(event.target.value); tellShares(); changed(); } }), shares[index]))),
      ...(state.styles.length < MOST_STYLES ? [h("div.drop.add", {}, h("p.hint", {}, state.styles.length ? "Another style" : "Drop a painting here"), fileButton("Choose", (files) => take(files, "style"), { multiple: true, symbol: "plus" }))] : []));
    const last = styleTiles.querySelector(".add");
    if (last instanceof HTMLElement) takesDrops(last, (files) => take(files, "style"));
  }
  takesDrops(contentTile, (files) => take(files.slice(0, 1), "content"));
  draw();

  return {
    state,
    element: h("section.panel.pictures", { "aria-label": "Pictures" },
      h("h2", {}, "Content"), contentTile, sampleStrip("content", (sample) => add(sample.id, "content", sample.name)),
      h("h2", {}, "Styles"), styleTiles, sampleStrip("style", (sample) => add(sample.id, "style", sample.name))),
    /**
     * Shows the pictures of an order.
     *
     * @param {StylizeOrder} order
     */
    fill(order) {
      state.content = order.content ? { id: order.content, name: "" } : null;
      state.styles = (order.styles || []).map((style) => ({ ...style, name: "" }));
      draw();
    },
    /**
     * Chooses two samples.
     *
     * @param {string} content its name
     * @param {string} style its name
     */
    async chooseSamples(content, style) {
      for (const sample of await loadSamples()) if (sample.name === (sample.use === "content" ? content : style)) add(sample.id, sample.use, sample.name);
    },
    /**
     * The pictures as the backend takes them.
     *
     * @returns {{ content: string | undefined, styles: OrderedStyle[] }}
     */
    values: () => ({
      content: state.content?.id,
      styles: state.styles.map(({ picture, weight, content_region, style_region }) => ({ picture, weight, ...(content_region ? { content_region } : {}), ...(style_region ? { style_region } : {}) })),
    }),
    get isComplete() { return !!state.content && state.styles.length > 0; },
  };
}
