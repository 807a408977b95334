// The part Map: a folder arranged by style, whose regions become a classifier.
import { follow, get, isAbsent, lines, pictureUrl, post, said } from "./api.js";
import { go } from "./address.js";
import { ago, field, h, icon, note } from "./dom.js";
import { folderDrop, folderSummary } from "./folder.js";
import { MapView } from "./mapview.js";
import { fileButton } from "./filebutton.js";

export const PALETTE = ["#4c9be8", "#f2a33c", "#4cb782", "#e06c75", "#b58cf0", "#e5d352", "#58c4d6", "#f08fc0", "#9ab35a", "#c08457"];
const MOST_CHECKS = 24;
const SAVE_MS = 600;

/**
 * @param {HTMLElement} main
 * @param {string} run
 */
export function open(main, run) {
  return run ? openMap(main, run) : openStart(main);
}

/** @param {HTMLElement} main */
function openStart(main) {
  let folder = "";
  const understood = h("div"), make = h("button.primary", { type: "button", id: "make", disabled: true, onclick: order }, "Make the map");
  const look = h("select", { id: "by" }, h("option", { value: "gram" }, "Style: textures and colors (Gram matrices)"), h("option", { value: "pooled" }, "Content: what is in the picture (features)"));
  const perplexity = h("input", { id: "perplexity", type: "number", min: 2, max: 200, value: 30, inputmode: "numeric" });
  const stored = h("ul.links");
  main.append(h("div.start", {}, h("h1", {}, "Map"),
    h("p.muted", {}, "Drop a folder. Its pictures are arranged so that similar ones lie together; mark a region, name it, and a classifier learns it."),
    h("section.panel", { "aria-label": "A new map" },
      folderDrop("Drop a folder of pictures here", (summary) => { folder = summary.id; understood.replaceChildren(folderSummary(summary)); make.disabled = summary.pictures < 4; perplexity.value = String(Math.max(2, Math.min(30, Math.floor((summary.pictures - 1) / 3)))); }),
      understood,
      h("div.grid2.roomy", {}, field("by", "Arrange by", look), field("perplexity", "Neighbors (perplexity)", perplexity)),
      h("div.row.end", {}, make)),
    h("section.panel", { "aria-label": "Stored maps" }, h("h2", {}, "Stored maps"), stored)));
  get("/runs?kind=embed").then((/** @type {{ runs: RunInfo[] }} */ { runs }) => stored.replaceChildren(...runs.map((each) =>
    h("li", {}, h("a", { href: `/map/${each.run_id}` }, each.run_id), h("span.muted", {}, ` ${each.state}, ${each.settings || ""}, ${ago(each.created)}`))), ...(runs.length ? [] : [h("li.hint", {}, "None yet.")])),
  (failure) => note(said(failure), "bad"));

  async function order() {
    make.disabled = true;
    try {
      const { run } = await post("/maps", { folder, settings: { descriptor: look.value, perplexity: Number(perplexity.value) } });
      go(`/map/${run}`);
    } catch (failure) { note(said(failure), "bad"); make.disabled = false; }
  }
}

/**
 * @param {HTMLElement} main
 * @param {string} run
 */
function openMap(main, run) {
  const surface = h("div.map", { tabindex: 0, role: "application", "aria-label": "Map of pictures: arrow keys go from picture to picture, Enter chooses, plus and minus zoom" });
  const words = h("p.words", { id: "words", role: "status" }, "Loading"), spoken = h("p.hidden", { "aria-live": "polite" });
  const drawn = h("p.hint", { role: "status", hidden: true });
  const meter = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
  const cardImage = h("img", { alt: "" }), cardWords = h("figcaption"), card = h("figure.hovercard", { hidden: true }, cardImage, cardWords);
  const modes = /** @type {const} */ ([["move", "Move", "hand"], ["lasso", "Lasso", "lasso"]]).map(([mode, label, symbol]) =>
    h("button", { type: "button", id: `mode-${mode}`, "aria-pressed": String(mode === "move"), onclick: () => choose(mode) }, icon(symbol), label));
  const tools = h("div.row.tools", {}, ...modes, h("button", { type: "button", title: "Show the whole map", onclick: () => view?.fit() }, icon("whole"), "Fit"), fileButton("Find", find, { title: "Find the nearest to a picture of yours" }));
  const side = h("div.side");
  main.append(h("h1.hidden", {}, "Map"), h("div.atlas", {}, h("section.mapstage", { "aria-label": "Map" }, h("div.mapcanvas", {}, surface, card, tools), words, meter, drawn, spoken), side));

  /** @type {MapView | null} */
  let view = null;
  /** @type {FolderItem[]} */
  let items = [];
  /** @type {Set<number>} */
  const refused = new Set();
  /** @type {Map<string, Set<number>>} The pictures of each name. */
  const groups = new Map();
  /** @type {Opinion[][]} What the classifier says of each picture, the best class first. */
  const opinions = [];
  let unfollow = () => {}, unfollowTraining = () => {}, saving = 0, learning = false, closed = false, head = "";
  const nameInput = h("input", { type: "text", id: "region", placeholder: "Name of the region", maxlength: 60, autocomplete: "off", list: "regions" });
  const known = h("datalist", { id: "regions" });
  const nameButton = h("button.primary", { type: "button", id: "name", disabled: true, onclick: nameSelection }, "Name");
  const groupList = h("ul.groups"), checks = h("div.checks"), learned = h("p.muted", { role: "status" });
  const headInput = h("input", { type: "text", id: "head", value: `map-${run.slice(0, 6)}`, pattern: "[A-Za-z0-9_\\-]{1,64}" });
  const learn = h("button.primary", { type: "button", id: "learn", disabled: true, onclick: train }, "Learn these regions");
  const withOpinions = h("input", { type: "checkbox", id: "with-opinions", onchange: saveSoon });
  const exports = h("div.row", {}, h("a.button", { href: `/api/maps/${run}/names.csv`, download: "" }, icon("download"), "CSV"), h("a.button", { href: `/api/maps/${run}/names.zip`, download: "" }, icon("download"), "Folders (ZIP)"));
  side.append(
    h("section.panel", { "aria-label": "Regions" }, h("h2", {}, "1 · Name regions"), h("p.hint", {}, "Draw a lasso, or hold Shift and drag, then give the pictures a name."),
      h("form.row", { onsubmit: (event) => { event.preventDefault(); nameSelection(); } }, h("label.hidden", { for: "region" }, "Name of the region"), nameInput, known, nameButton), groupList),
    h("section.panel", { "aria-label": "Learn" }, h("h2", {}, "2 · Learn and recolor"), field("head", "Name of the classifier", headInput), learn, learned),
    h("section.panel", { "aria-label": "Check" }, h("h2", {}, "3 · Check next"), h("p.hint", {}, "Here come the pictures about which the classifier is least sure."), checks),
    h("section.panel", { "aria-label": "Export" }, h("h2", {}, "4 · Take it with you"), h("label.check", {}, withOpinions, "With the classifier's predictions"), exports));

  /** @param {MapView["mode"]} mode */
  function choose(mode) {
    if (view) view.mode = mode;
    surface.dataset.mode = mode;
    for (const button of modes) button.setAttribute("aria-pressed", String(button.id === `mode-${mode}`));
  }

  // --- the map while it is made, and when it is done ---

  const kept = () => items.map((_, index) => index).filter((index) => !refused.has(index));
  /** @type {Handlers} */
  const handlers = {
    queued({ position }) { words.textContent = position ? `Waiting: ${position} before this one` : "Waiting"; },
    refusedItem({ refused: item }) { refused.add(item.index); },
    described({ described, count }) { words.textContent = `Looking at the pictures: ${described} of ${count}`; progress(described, count); },
    working({ task, done, total }) { words.textContent = `${task[0].toUpperCase()}${task.slice(1)}`; progress(done, total); },
    layout({ coordinates, iteration, iterations, kl_divergence: divergence }) {
      if (coordinates) place(coordinates);
      words.textContent = `t-SNE: iteration ${iteration} of ${iterations}, divergence ${divergence.toFixed(2)}`;
      progress(iteration, iterations);
    },
    progress({ done, total }) { progress(done, total); },
    lost() { words.textContent = "The server is lost. The map goes on by itself when it is back."; },
    result(map) {
      for (const item of map.refused) refused.add(item.index);
      place(map.layouts[0].coordinates);
      const { trustworthiness, label_accuracy: accuracy } = map.layouts[0].quality;
      words.replaceChildren(...[
        `${map.places.length} pictures${refused.size ? `, ${refused.size} could not be read` : ""}`,
        `trustworthiness ${Math.round(trustworthiness * 100)} %`,
        ...(accuracy == null ? [] : [`${Math.round(accuracy * 100)} % have a neighbor of their class`]),
      ].flatMap((fact, number) => [number ? " " : "", h("span.fact", {}, fact)]));
      meter.hidden = true;
      main.dataset.done = "yes";
    },
    end({ state, error }) { if (state !== "succeeded") { words.textContent = `${state}: ${error}`; meter.hidden = true; } },
  };
  /**
   * @param {number} done
   * @param {number} total
   */
  function progress(done, total) { meter.hidden = !total; meter.max = total || 1; meter.value = done; }
  /** @param {number[][]} coordinates */
  function place(coordinates) {
    const shown = kept();
    if (shown.length === coordinates.length) view?.place(shown, coordinates);
  }

  async function load() {
    try {
      const { order } = await get(`/runs/embed/${run}`);
      if (!order?.folder) { side.hidden = true; words.textContent = "This map was not made here, so its pictures are not at hand. Drop its folder under Map to make it again."; return; }
      /** @type {FolderOnMap} */
      const folder = await get(`/folders/${order.folder}`);
      if (closed) return;
      ({ items } = folder);
      const made = view = new MapView(surface, folder, { select: selected, hover: hovered, painted: (_, reason) => { drawn.textContent = reason; drawn.hidden = !reason; } });
      Object.assign(surface, { view }); // for the tests
      /** @type {(string | null)[]} */
      const names = order.names || [];
      names.forEach((name, index) => { if (name) join(name, [index]); });
      const labels = [...new Set(items.map((item) => item.label))].filter(Boolean);
      if (groups.size) recolor();
      else if (labels.length > 1) items.forEach(({ label }, index) => { made.colors[index] = label ? PALETTE[labels.indexOf(label) % PALETTE.length] : null; });
      made.recolor();
      drawGroups();
      unfollow = follow("embed", run, handlers);
    } catch (failure) { side.hidden = isAbsent(failure); words.textContent = said(failure); }
  }

  /** @param {number} index */
  function hovered(index) {
    card.hidden = index < 0;
    if (index < 0) return;
    const item = items[index], opinion = opinions[index];
    const group = groupOf(index), guess = opinion ? `, predicted ${opinion[0][0]} ${Math.round(opinion[0][1] * 100)} %` : "";
    cardImage.src = pictureUrl(item.picture, 320);
    cardWords.textContent = `${item.name}${group ? `, named ${group}` : ""}${guess}`;
    spoken.textContent = cardWords.textContent;
  }

  // --- regions ---

  const groupOf = (/** @type {number} */ index) => { for (const [name, members] of groups) if (members.has(index)) return name; return ""; };
  const colorOf = (/** @type {string} */ name) => {
    const number = [...groups.keys()].indexOf(name);
    return number < 0 ? null : PALETTE[number % PALETTE.length];
  };
  /**
   * @param {string} name
   * @param {number[]} indices
   */
  function join(name, indices) {
    for (const members of groups.values()) for (const index of indices) members.delete(index);
    groups.set(name, new Set([...groups.get(name) ?? [], ...indices]));
  }
  /** @type {number[]} */
  let chosen = [];
  /** @param {number[]} indices */
  function selected(indices) {
    chosen = indices;
    nameButton.disabled = !indices.length;
    nameButton.textContent = indices.length ? `Name ${indices.length}` : "Name";
    spoken.textContent = `${indices.length} chosen`;
    if (indices.length) choose("move");
  }
  function nameSelection() {
    const name = nameInput.value.trim();
    if (!name || !chosen.length) { nameInput.focus(); return; }
    join(name, chosen);
    nameInput.value = "";
    view?.choose([]);
    changed();
  }
  function changed() { recolor(); drawGroups(); drawChecks(); saveSoon(); }
  function recolor() {
    if (!view) return;
    const { colors } = view;
    items.forEach((_, index) => {
      const name = groupOf(index) || opinions[index]?.[0][0];
      colors[index] = name ? colorOf(name) : null;
    });
    view.named = new Set([...groups.values()].flatMap((members) => [...members]));
    view.recolor();
  }
  function drawGroups() {
    groupList.replaceChildren(...[...groups].map(([name, members]) => {
      const dot = h("i.swatch", { "aria-hidden": "true" });
      dot.style.background = colorOf(name) || "";
      return h("li.row", {}, dot, h("button.quiet.grow", { type: "button", onclick: () => view?.choose(members) }, name), h("b", {}, String(members.size)),
        h("button.quiet.icon", { type: "button", "aria-label": `Remove the name ${name}`, onclick: () => { groups.delete(name); changed(); } }, icon("close")));
    }));
    known.replaceChildren(...[...groups.keys()].map((name) => h("option", { value: name })));
    const sizes = [...groups.values()].map((members) => members.size);
    learn.disabled = learning || sizes.length < 2 || sizes.some((size) => size < 2);
    learned.textContent = sizes.length < 2 ? "Name two regions at least." : sizes.some((size) => size < 2) ? "Each region needs two pictures." : /^(Name|Each)/.test(learned.textContent ?? "") ? "" : learned.textContent;
  }
  function saveSoon() { clearTimeout(saving); saving = setTimeout(save, SAVE_MS); }
  async function save() {
    const names = items.map((_, index) => groupOf(index) || (withOpinions.checked && opinions[index]?.[0][0]) || null);
    try { await post(`/maps/${run}/names`, { names }); } catch (failure) { note(said(failure), "bad"); }
  }
  exports.addEventListener("click", (event) => { if (saving) { clearTimeout(saving); saving = 0; save(); } if (![...groups].length) { event.preventDefault(); note("Name a region first", "bad"); } });

  // --- learning ---

  async function train() {
    learning = true;
    learn.disabled = true;
    learned.textContent = "Sending the regions";
    try {
      const { run: training } = await post(`/maps/${run}/train`, { head: headInput.value, groups: Object.fromEntries([...groups].map(([name, members]) => [name, [...members]])) });
      unfollowTraining();
      unfollowTraining = follow("train", training, {
        extracting({ done, total }) { learned.textContent = `Features: ${done} of ${total}`; },
        epoch({ epoch, epochs, accuracy }) { learned.textContent = `Epoch ${epoch} of ${epochs}, accuracy ${Math.round(accuracy * 100)} %`; },
        async result({ head: made }) { head = `${made.name}/${made.version}`; await predict(); },
        end({ state, error }) { if (state !== "succeeded") { learned.textContent = error; learning = false; drawGroups(); } },
      });
    } catch (failure) { learned.textContent = said(failure); learning = false; drawGroups(); }
  }
  async function predict() {
    let count = 0;
    try {
      /** @type {AsyncIterable<{ index: number, classes?: Opinion[], failed?: string }>} */
      const predictions = lines(`/maps/${run}/predictions`, { head });
      for await (const { index, classes, failed } of predictions) {
        if (failed) throw new Error(failed);
        if (classes) opinions[index] = classes;
        if (classes && view) view.colors[index] = colorOf(groupOf(index) || classes[0][0]);
        count++;
        learned.textContent = `Recoloring: ${count} of ${items.length}`;
        view?.recolor();
      }
      learned.textContent = `The map has the colors of ${head}.`;
      main.dataset.recolored = head;
    } catch (failure) { learned.textContent = said(failure); }
    learning = false;
    changed();
  }
  function drawChecks() {
    const margin = (/** @type {number} */ index) => opinions[index][0][1] - (opinions[index][1]?.[1] ?? 0);
    const unsure = opinions.map((_, index) => index).filter((index) => opinions[index] && !groupOf(index)).sort((a, b) => margin(a) - margin(b)).slice(0, MOST_CHECKS);
    checks.replaceChildren(...unsure.map((index) => {
      const item = items[index], [best, second] = opinions[index];
      return h("div.checkcard", {},
        h("button.bare", { type: "button", "aria-label": `Show ${item.name} on the map`, onclick: () => view?.fly(index) }, h("img", { src: pictureUrl(item.picture, 160), alt: "", loading: "lazy" })),
        ...[best, second].filter(Boolean).map(([name, share]) => {
          const button = h("button", { type: "button", title: `This is ${name}`, "aria-label": `${item.name} is ${name}`, onclick: () => { join(name, [index]); changed(); } }, `${Math.round(share * 100)} % ${name}`);
          button.style.borderLeftColor = colorOf(name) || "";
          return button;
        }));
    }));
  }

  /** @param {File[]} files */
  async function find(files) {
    if (!view) return;
    const form = new FormData();
    form.append("file", files[0], "file");
    try {
      /** @type {{ neighbors: { index: number }[] }} */
      const { neighbors } = await post(`/maps/${run}/find`, form);
      const shown = view.shown;
      view.marked = new Set(neighbors.map((each) => shown[each.index]));
      view.recolor();
      if (neighbors.length) view.fly(shown[neighbors[0].index], 4);
      note(`The ${neighbors.length} nearest pictures are marked`);
    } catch (failure) { note(said(failure), "bad"); }
  }
  load();
  return () => { closed = true; unfollow(); unfollowTraining(); view?.close(); if (saving) { clearTimeout(saving); save(); } };
}
