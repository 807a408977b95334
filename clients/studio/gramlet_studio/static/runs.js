// The part Runs: every run in the server's store.
import { get, post, remove, said } from "./api.js";
import { comparison } from "./compare.js";
import { ago, bytesText, confirmed, h, icon, note, opened } from "./dom.js";

const NAMES = { stylize: "Stylization", sweep: "Sweep", train: "Head", embed: "Map" };
/** @type {Record<string, string>} */
const KINDS = { "": "All", stylize: "Stylizations", sweep: "Sweeps", train: "Heads", embed: "Maps" };
const PART = { stylize: "stylize", sweep: "sweep", train: "heads", embed: "map" };
const REFRESH_MS = 3000;

/** @param {HTMLElement} main */
export function open(main) {
  let kind = "", timer = 0, shown = "", closed = false;
  /** @type {Set<string>} */
  const chosen = new Set();
  const grid = h("ul.cards", { "aria-label": "Runs" }), empty = h("p.hint.centered", { hidden: true }, "No runs yet. Start one under Stylize, Map, Heads or Sweep.");
  const filters = h("div.chips", { role: "group", "aria-label": "Kind" }, Object.entries(KINDS).map(([value, name]) =>
    h("button", { type: "button", "aria-pressed": String(value === kind), onclick: (event) => {
      kind = value;
      for (const other of filters.children) other.setAttribute("aria-pressed", String(other === event.target));
      shown = "";
      load();
    } }, name)));
  const compareButton = h("button", { type: "button", disabled: true, onclick: compareTwo }, "Compare two");
  main.append(h("section.gallery", {}, h("div.row.between", {}, h("h1", {}, "Runs"), h("div.row", {}, filters, compareButton)), empty, grid));

  async function load() {
    clearTimeout(timer);
    try {
      /** @type {{ runs: RunInfo[] }} */
      const { runs } = await get(`/runs${kind ? `?kind=${kind}` : ""}`);
      const now = JSON.stringify(runs.map((run) => [run.run_id, run.state, run.progress.done, run.bytes]));
      if (now !== shown && !closed) draw(runs);
      shown = now;
    } catch (failure) { if (!closed && !shown) note(said(failure), "bad"); }
    if (!closed) timer = setTimeout(load, REFRESH_MS);
  }

  /** @param {RunInfo[]} runs */
  function draw(runs) {
    empty.hidden = runs.length > 0;
    const focus = document.activeElement instanceof HTMLElement && document.activeElement.dataset.focus;
    grid.replaceChildren(...runs.map(card));
    const again = focus && grid.querySelector(`[data-focus="${CSS.escape(focus)}"]`);
    if (again instanceof HTMLElement) again.focus();
    compareButton.disabled = chosen.size !== 2;
  }

  /** @param {RunInfo} run */
  function card(run) {
    const path = `/${PART[run.kind]}/${run.run_id}`, name = `${run.kind}/${run.run_id}`;
    const progress = run.progress.total && !run.hasEnded ? `${run.progress.done} of ${run.progress.total} ${run.progress.phase}` : "";
    const pictured = run.kind === "stylize" || run.kind === "sweep";
    const image = h("img", { src: `/api/runs/${name}/thumbnail.jpg?${run.state}${pictured ? run.progress.done : ""}`, alt: "", loading: "lazy", onerror: (event) => event.target.replaceWith(icon(run.kind === "embed" ? "lasso" : "folder")) });
    return h("li.card", { dataset: { state: run.state, run: run.run_id } },
      h("a.picture", { href: path, "aria-label": `Open ${run.kind} ${run.run_id}`, dataset: { focus: `open ${name}` } }, image),
      h("div.facts", {}, h("p", {}, h("b", {}, NAMES[run.kind]), " ", h("span.state-name", {}, run.state)), progress && h("p", {}, progress), h("p.muted", {}, run.settings || run.kind), h("p.muted", {}, `${ago(run.created)} · ${bytesText(run.bytes)}`)),
      h("div.row.between", {},
        pictured && run.state === "succeeded" ? h("label.check", {}, h("input", { type: "checkbox", checked: chosen.has(name), dataset: { focus: `pick ${name}` }, onchange: (event) => pick(name, event.target) }), "Compare") : run.hasEnded ? h("span") : h("button.quiet", { type: "button", onclick: () => act(() => post(`/runs/${name}/stop`)) }, icon("stop"), "Stop"),
        h("button.quiet.icon", { type: "button", "aria-label": `Delete ${run.run_id}`, dataset: { focus: `delete ${name}` }, onclick: () => erase(name) }, icon("trash"))));
  }

  /**
   * @param {string} name
   * @param {HTMLInputElement} box
   */
  function pick(name, box) {
    if (box.checked && chosen.size === 2) {
      box.checked = false;
      note("Two at a time: take one away first");
    }
    if (box.checked) chosen.add(name); else chosen.delete(name);
    compareButton.disabled = chosen.size !== 2;
  }
  function compareTwo() {
    const [left, right] = chosen, both = comparison({ beforeName: "First", afterName: "Second" });
    both.show(`/api/runs/${right}/result.png`, "Second picture");
    both.before(`/api/runs/${left}/result.png`, "First picture");
    both.at(50);
    opened("Compare two", both.element);
  }
  /** @param {() => Promise<unknown>} work */
  async function act(work) {
    try { await work(); } catch (failure) { note(said(failure), "bad"); }
    load();
  }
  /** @param {string} name */
  async function erase(name) {
    if (!await confirmed("Delete this run with everything that belongs to it?", "Delete")) return;
    chosen.delete(name);
    act(() => remove(`/runs/${name}`));
  }
  load();
  return () => { closed = true; clearTimeout(timer); };
}
