// Building the page. Text is always text: nothing here, or anywhere in the studio, turns a string into markup.

/**
 * An element: h("button.primary", { type: "button", onclick }, "Stylize"). Attributes that are null or false are left out.
 *
 * @template {string} D
 * @param {D} description
 * @param {Attributes<ElementOf<D>>} attributes
 * @param {...Children} children
 * @returns {ElementOf<D>}
 */
export function h(description, attributes = {}, ...children) {
  const [tag, ...classes] = description.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) set(element, name, value);
  for (const child of children.flat()) if (child != null && child !== false) element.append(child);
  return /** @type {ElementOf<D>} */ (element);
}

/**
 * The element of an id, which is in the page.
 *
 * @param {string} id
 */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/**
 * @param {HTMLElement} element
 * @param {string} name
 * @param {any} value
 */
function set(element, name, value) {
  if (value == null || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "dataset") Object.assign(element.dataset, value);
  else if (name in element && typeof value !== "string") /** @type {any} */ (element)[name] = value;
  else element.setAttribute(name, value === true ? "" : value);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasRenderingContext2DSettings} [settings]
 */
export const penOf = (canvas, settings) => /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", settings));

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  download: "M12 3v12m0 0 5-5m-5 5-5-5M4 20h16",
  stop: "M7 7h10v10H7z",
  play: "M8 5v14l11-7z",
  fork: "M6 4v6a4 4 0 0 0 4 4h8m0 0-4-4m4 4-4 4M6 20v-6",
  trash: "M5 7h14M10 7V4h4v3m3 0-1 13H8L7 7",
  plus: "M12 5v14M5 12h14",
  brush: "M4 20c3 0 5-1 5-4a2 2 0 0 1 3 0c1 1 1 2 0 3-2 2-5 2-8 1zm7-6 8-9 1 1-8 9",
  close: "M6 6l12 12M18 6 6 18",
  folder: "M3 7a2 2 0 0 1 2-2h4l2 2h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z",
  picture: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15 9h.01",
  camera: "M4 8h4l2-3h4l2 3h4v11H4zM12 17a4 4 0 1 0 0-8 4 4 0 0 0 0 8z",
  lasso: "M7 17c-3-1-4-3-4-6 0-4 4-7 9-7s9 3 9 7-4 7-9 7c-2 0-3 0-4 0m-1-1a2 2 0 1 0 1 4 2 2 0 0 0-1-4z",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  eye: "M2 12s4-6.500 10-6.500S22 12 22 12s-4 6.500-10 6.500S2 12 2 12zM12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01M15 9h.01M9 15h.01",
  whole: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  hand: "M8 12V6a1.5 1.5 0 0 1 3 0v5-6a1.5 1.5 0 0 1 3 0v6-4a1.5 1.5 0 0 1 3 0v7c0 4-2 6-5 6s-4-1-6-4l-3-5a1.5 1.5 0 0 1 2.500-1.500z",
};

/**
 * An element of SVG.
 *
 * @template {keyof SVGElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} attributes
 * @param {...SVGElement} children
 * @returns {SVGElementTagNameMap[T]}
 */
export function shape(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * A line drawing, for the eyes only.
 *
 * @param {keyof typeof SHAPES} name
 */
export const icon = (name) => shape("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "line" }, shape("path", { d: SHAPES[name] }));

/**
 * An input with its label.
 *
 * @param {string} id of the input
 * @param {string} label
 * @param {HTMLElement} input
 */
export const field = (id, label, input) => h("div.setting.inline", {}, h("label", { for: id }, label), input);

/**
 * Says something in the corner, and to screen readers.
 *
 * @param {string} text
 * @param {"" | "bad"} kind
 */
export function note(text, kind = "") {
  const line = h(`p.note${kind && "." + kind}`, {}, text);
  byId("notes").append(line);
  setTimeout(() => line.remove(), kind === "bad" ? 9000 : 4500);
}

/**
 * Asks before something that cannot be undone.
 *
 * @param {string} question
 * @param {string} action
 */
export function confirmed(question, action) {
  return new Promise((answer) => {
    /** @type {HTMLDialogElement} */
    const dialog = h("dialog.ask", { "aria-label": question, onclose: () => { dialog.remove(); answer(dialog.returnValue === "yes"); } },
      h("p", {}, question),
      h("div.row.end", {},
        h("button", { type: "button", onclick: () => dialog.close("no") }, "Keep"),
        h("button.danger", { type: "button", onclick: () => dialog.close("yes") }, action)));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * A dialog with a title and a way out.
 *
 * @param {string} title
 * @param {...Children} children
 */
export function opened(title, ...children) {
  /** @type {HTMLDialogElement} */
  const dialog = h("dialog.sheet", { "aria-label": title, onclose: () => dialog.remove() },
    h("div.row.between", {}, h("h2", {}, title),
      h("button.quiet.icon", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"))),
    ...children);
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** @param {number} count */
export const bytesText = (count) => count >= 1e6 ? `${(count / 1e6).toFixed(1)} MB` : `${Math.ceil(count / 1e3)} kB`;

/** @type {[number, string][]} */
const AGES = [[86400, "day"], [3600, "hour"], [60, "minute"]];

/** @param {number} seconds since the epoch */
export function ago(seconds) {
  const age = Date.now() / 1000 - seconds;
  for (const [unit, name] of AGES) {
    const count = Math.floor(age / unit);
    if (count) return `${count} ${name}${count > 1 ? "s" : ""} ago`;
  }
  return "just now";
}
