// Choosing files with a button.
import { h, icon } from "./dom.js";

/**
 * A button that opens the system's choice of files.
 *
 * @param {string} label
 * @param {(files: File[]) => void} take
 * @param {{ multiple?: boolean, camera?: boolean, symbol?: "picture" | "camera" | "plus", title?: string }} options
 */
export function fileButton(label, take, { multiple = false, camera = false, symbol = "picture", title = label } = {}) {
  const input = h("input", { type: "file", accept: "image/*", multiple, hidden: true, "aria-label": title, capture: camera ? "environment" : null });
  input.addEventListener("change", () => { if (input.files?.length) take([...input.files]); input.value = ""; });
  return h("span.file", {}, h("button", { type: "button", title: title === label ? null : title, onclick: () => input.click() }, icon(symbol), label), input);
}
