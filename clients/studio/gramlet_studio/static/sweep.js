// The part Sweep: a grid of ratios and depths that fills in cell by cell.
import { follow, get, isAbsent, post, said } from "./api.js";
import { go } from "./address.js";
import { onStatus } from "./server.js";
import { field, h, icon, note, opened } from "./dom.js";
import { picturePicker } from "./picker.js";

/** @typedef {{ row: number, column: number, ratio: number, deepestStage: string }} Cell */

/**
 * @param {HTMLElement} main
 * @param {string} run
 */
export function open(main, run) {
  const picker = picturePicker(() => { start.disabled = !picker.isComplete; });
  const ratios = h("input", { id: "ratios", type: "text", value: "0.1, 1, 10", placeholder: "0.1, 1, 10", inputmode: "decimal" });
  const size = h("input", { id: "size", type: "number", min: 64, max: 512, step: 32, value: 192 });
  const iterations = h("input", { id: "iterations", type: "number", min: 1, max: 500, step: 10, value: 60 });
  const stages = h("fieldset.stages", {}, h("legend", {}, "Deepest style stage of each row"));
  const start = h("button.primary", { type: "button", id: "start", disabled: true, onclick: order }, icon("play"), "Fill the grid");
  const stop = h("button", { type: "button", id: "stop", hidden: true, onclick: () => post(`/runs/sweep/${run}/stop`).catch((failure) => note(said(failure), "bad")) }, icon("stop"), "Stop");
  const words = h("p.words", { id: "words", role: "status" }, run ? "Loading" : "Small pictures show what the weights do, before one is painted at full size."), grid = h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Grid of pictures" });
  main.append(h("h1.hidden", {}, "Sweep"), h("div.workbench.two", {}, picker.element, h("div.stage", {},
    h("section.panel", { "aria-label": "Grid" }, h("div.grid2.three", {}, field("ratios", "Columns: content / style", ratios), field("size", "Size (px)", size), field("iterations", "Iterations", iterations)), stages, h("div.row", {}, start, stop)),
    words, grid)));
  /** @type {Map<string, HTMLElement>} */
  let cells = new Map();
  /** @type {{ ratios: number[], deepest_stages: string[], settings: StylizeSettings } | null} */
  let shape = null;
  let done = 0;

  const offStatus = onStatus((status) => {
    const own = status.stylize?.preset_settings?.[0]?.style_stages;
    if (stages.querySelector("input") || !own) return;
    const names = Object.keys(own);
    stages.append(...names.map((name, index) => h("label.check", {}, h("input", { type: "checkbox", value: name, checked: index >= names.length - 3 }), name)));
  });

  async function order() {
    const columns = ratios.value.split(/[\s,;]+/).filter(Boolean).map(Number);
    if (!columns.length || columns.some(Number.isNaN)) { note(`Columns: give numbers with commas between them, such as ${ratios.placeholder}`, "bad"); return; }
    start.disabled = true;
    try {
      const { run: made } = await post("/sweeps", { ...picker.values(), ratios: columns,
        deepestStages: [...stages.querySelectorAll("input")].filter((box) => box.checked).map((box) => box.value), settings: { size: Number(size.value), iterations: Number(iterations.value) } });
      go(`/sweep/${made}`);
    } catch (failure) { note(said(failure), "bad"); start.disabled = false; }
  }

  const short = (/** @type {number} */ value) => Number(value.toPrecision(3)).toString();
  /** @type {Handlers} */
  const handlers = {
    reset() { cells = new Map(); done = 0; },
    sweepQueued({ position }) { words.textContent = position ? `Waiting: ${position} before this one` : "Waiting"; },
    sweepStarted(/** @type {NonNullable<typeof shape>} */ values) {
      shape = values;
      stop.hidden = false;
      grid.replaceChildren(h("table.sweep", {}, h("caption", {}, "Columns: content weight / style weight. Rows: the deepest style stage."),
        h("thead", {}, h("tr", {}, h("td", {}), shape.ratios.map((ratio) => h("th", { scope: "col" }, short(ratio))))),
        h("tbody", {}, values.deepest_stages.map((stage, row) => h("tr", {}, h("th", { scope: "row" }, stage), values.ratios.map((_, column) => {
          const cell = h("td", {}, h("div.slot", {}, h("span.muted", {}, "waits")));
          cells.set(`${row}-${column}`, cell);
          return cell;
        }))))));
    },
    cell({ row, column, ratio, deepestStage, done: finished, iteration }) {
      const cell = cells.get(`${row}-${column}`);
      if (!cell) return;
      if (!finished) {
        const total = shape?.settings.iterations || 1, meter = cell.querySelector("progress") || h("progress", { max: total, value: 0, "aria-label": `${deepestStage}, ${short(ratio)}` });
        if (!meter.parentNode) cell.replaceChildren(h("div.slot", {}, meter));
        meter.value = iteration || 0;
        return;
      }
      done++;
      words.textContent = `${done} of ${cells.size} pictures`;
      const url = `/api/runs/sweep/${run}/pictures/cell-${row}-${column}`;
      cell.replaceChildren(h("button.slot.bare", { type: "button", "aria-label": `${deepestStage}, content to style ${short(ratio)}: open`, onclick: () => look({ row, column, ratio, deepestStage }, url) }, h("img", { src: url, alt: "" })));
    },
    sweepRemoteProgress({ progress }) { words.textContent = `${progress.done} of ${progress.total} pictures`; },
    result() {
      stop.hidden = true;
      main.dataset.done = "yes";
      words.textContent = "The grid is complete. Open a picture to go on from it at full size.";
      if (!shape) grid.replaceChildren(h("img", { src: `/api/runs/sweep/${run}/result.png`, alt: "The grid, as one picture" }));
    },
    end({ state, error }) { stop.hidden = true; if (state !== "succeeded") words.textContent = `${state}: ${error}`; },
  };

  /**
   * @param {Cell} cell
   * @param {string} url
   */
  function look(cell, url) {
    const full = h("input", { id: "full-size", type: "number", min: 64, max: 2048, step: 32, value: 512 }), steps = h("input", { id: "full-iterations", type: "number", min: 1, max: 2000, step: 10, value: 100 });
    const dialog = opened(`${cell.deepestStage}, content to style ${short(cell.ratio)}`, h("img.large", { src: url, alt: "The picture of this cell" }),
      h("div.grid2", {}, field("full-size", "Size (px)", full), field("full-iterations", "Iterations", steps)),
      h("div.row.end", {}, h("button.primary", { type: "button", id: "go-on", onclick: async () => {
        try {
          const { run: made } = await post(`/sweeps/${run}/go-on`, { ...cell, settings: { size: Number(full.value), iterations: Number(steps.value) } });
          dialog.close();
          go(`/stylize/${made}`);
        } catch (failure) { note(said(failure), "bad"); }
      } }, "Go on at full size")));
  }

  let unfollow = () => {};
  if (run) {
    get(`/runs/sweep/${run}`).then((/** @type {{ order?: StylizeOrder & { ratios?: number[] } }} */ found) => {
      if (found.order) {
        picker.fill(found.order);
        start.disabled = false;
        ratios.value = (found.order.ratios || []).join(", ");
        size.value = String(found.order.settings.size || size.value);
        iterations.value = String(found.order.settings.iterations || iterations.value);
      }
      unfollow = follow("sweep", run, handlers);
    }, (failure) => { words.textContent = isAbsent(failure) ? "This sweep does not exist any more." : said(failure); });
  }
  return () => { unfollow(); offStatus(); };
}
