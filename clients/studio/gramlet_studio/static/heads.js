// The part Heads: a classifier from a folder, what is behind its numbers, and a photo to try it on.
import { follow, get, isAbsent, pictureUrl, post, remove, said } from "./api.js";
import { go } from "./address.js";
import { cameraButton } from "./camera.js";
import { lossChart } from "./chart.js";
import { confirmed, field, h, icon, note, opened } from "./dom.js";
import { folderDrop, folderSummary } from "./folder.js";
import { fileButton } from "./filebutton.js";

/** @type {import("./chart.js").Term[]} */
const TERMS = [["loss", "Training loss", "--line-style"], ["validation", "Validation loss", "--line-content"]];
/** @param {number} share */
const percent = (share) => `${Number((share * 100).toFixed(share > 0.99 || share < 0.1 ? 1 : 0))} %`;

const reading = (/** @type {Epoch} */ { epoch, loss, validation_loss: validation }) => ({ iteration: epoch, loss, validation });

/**
 * @param {HTMLElement} main
 * @param {string} run
 */
export function open(main, run) {
  return run ? openTraining(main, run) : openStart(main);
}

/** @param {HTMLElement} main */
function openStart(main) {
  let folder = "";
  const understood = h("div"), list = h("ul.cards.heads");
  const name = h("input", { id: "name", type: "text", pattern: "[A-Za-z0-9_\\-]{1,64}", placeholder: "bees", autocomplete: "off" });
  const kind = h("select", { id: "kind" }, h("option", { value: "mlp" }, "two layers"), h("option", { value: "linear" }, "linear probe"));
  const epochs = h("input", { id: "epochs", type: "number", min: 1, max: 500, value: 60, inputmode: "numeric" });
  const train = h("button.primary", { type: "button", id: "train", disabled: true, onclick: order }, "Train");
  main.append(h("div.start", {}, h("h1", {}, "Heads"), h("p.muted", {}, "A head is a small classifier on the frozen network. A folder for each class is enough, a handful of pictures each."),
    h("section.panel", { "aria-label": "A new head" },
      folderDrop("Drop a folder with a folder for each class", (summary) => {
        folder = summary.id;
        understood.replaceChildren(folderSummary(summary), summary.classes.length < 2 && h("p.bad", {}, "Training needs two classes: a folder for each.") || "");
        train.disabled = summary.classes.length < 2;
        if (!name.value) name.value = summary.name.replace(/[^\w-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 40);
      }), understood,
      h("div.grid2.three", {}, field("name", "Name", name), field("kind", "Kind", kind), field("epochs", "Epochs at most", epochs)), h("div.row.end", {}, train)),
    h("h2", {}, "Heads on the server"), list));
  const showHeads = () => get("/heads").then((/** @type {{ heads: Head[] }} */ { heads }) => {
    list.replaceChildren(...heads.map((head) => h("li.card.head", {}, h("div.facts", {}, h("p", {}, h("b", {}, `${head.name}/${head.version}`)), h("p.muted", {}, `${percent(head.accuracy)} right on unseen pictures, ${head.classes.length} classes`), h("p.muted", {}, head.classes.slice(0, 6).join(", "))),
      h("div.row", {}, h("a.button", { href: `/heads/${head.run_id}` }, "Open"), fileButton("Try", (files) => tryOn(`${head.name}/${head.version}`, files[0])),
        h("button.quiet.icon", { type: "button", "aria-label": `Delete ${head.name} version ${head.version}`, onclick: async () => {
          if (await confirmed(`Delete ${head.name}/${head.version}?`, "Delete")) remove(`/heads/${head.name}/${head.version}`).then(showHeads, (failure) => note(said(failure), "bad"));
        } }, icon("trash"))))));
    if (!heads.length) list.append(h("li.hint", {}, "None yet."));
  }, (failure) => note(said(failure), "bad"));
  showHeads();

  async function order() {
    train.disabled = true;
    try {
      const { run } = await post("/trainings", { folder, name: name.value, settings: { kind: kind.value, epochs: Number(epochs.value) } });
      go(`/heads/${run}`);
    } catch (failure) { note(said(failure), "bad"); train.disabled = false; }
  }
}

/**
 * What a head says of a photo.
 *
 * @param {string} head
 * @param {File} file
 */
async function tryOn(head, file) {
  const form = new FormData();
  form.append("file", file, "file");
  try {
    /** @type {{ classes: Opinion[] }} */
    const { classes } = await post(`/heads/${head}/predict`, form);
    const url = URL.createObjectURL(file), image = h("img.tried", { src: url, alt: "Your photo" });
    const dialog = opened(head, h("div.try", {}, image, bars(classes)));
    dialog.addEventListener("close", () => URL.revokeObjectURL(url));
  } catch (failure) { note(said(failure), "bad"); }
}

/** @param {Opinion[]} classes */
const bars = (classes) => h("ul.classes", {}, classes.map(([name, share]) => {
  const bar = h("i", { "aria-hidden": "true" });
  bar.style.width = `${share * 100}%`;
  return h("li", {}, h("span", {}, name), h("span.track", {}, bar), h("b", {}, percent(share)));
}));

/**
 * @param {HTMLElement} main
 * @param {string} run
 */
function openTraining(main, run) {
  const words = h("p.words", { id: "words", role: "status" }, "Loading"), meter = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
  const chart = lossChart(TERMS, "epoch"), report = h("section.panel.wide", { "aria-label": "Confusion matrix", hidden: true }), doubts = h("section.panel.wide", { "aria-label": "Pictures to look at", hidden: true });
  const actions = h("div.row", {}), stop = h("button", { type: "button", id: "stop", onclick: () => post(`/runs/train/${run}/stop`).catch((failure) => note(said(failure), "bad")) }, icon("stop"), "Stop");
  actions.append(stop);
  const title = h("h1", {}, "Training");
  main.append(h("div.training", {}, h("div.row.between", {}, title, actions), words, meter, h("section.panel", { "aria-label": "Loss" }, h("h2", {}, "Loss by epoch"), chart.element), report, doubts));
  /** @type {{ folder?: string, name?: string, changes?: Record<string, string | null> } | null} */
  let order = null;
  /** @type {Record<string, string | null>} */
  const changes = {};
  /** @type {Record<string, string>} The pictures of the folder, by name. */
  let ids = {};
  let done = false;
  const repaint = () => chart.draw();
  addEventListener("theme", repaint);

  /** @type {Handlers} */
  const handlers = {
    reset() { chart.clear(); },
    queued({ position }) { words.textContent = position ? `Waiting: ${position} before this one` : "Waiting"; },
    accepted({ pictures, wanted }) { words.textContent = `${pictures} pictures, ${wanted} of them new to the server`; },
    extracting({ done: count, total, cached }) { words.textContent = `Through the network once: ${count} of ${total}${cached ? `, ${cached} known from before` : ""}`; progress(count, total); },
    epoch(/** @type {Epoch & { epochs: number, accuracy: number, best: boolean }} */ values) {
      chart.add(reading(values));
      words.textContent = `Epoch ${values.epoch} of ${values.epochs}: ${percent(values.accuracy)} right on the validation set${values.best ? ", the best so far" : ""}`;
      progress(values.epoch, values.epochs);
    },
    skipped({ name, reason }) { note(`${name} takes no part: ${reason}`); },
    result({ head }) { finished(head); },
    end({ state, error }) { stop.hidden = true; meter.hidden = true; if (state !== "succeeded") words.textContent = `${state}: ${error}`; },
  };
  /**
   * @param {number} count
   * @param {number} total
   */
  function progress(count, total) { meter.hidden = !total; meter.max = total || 1; meter.value = count; }

  /** @param {Head} head */
  async function finished(head) {
    if (done) return;
    done = true;
    for (const epoch of head.outcome.history || []) chart.add(reading(epoch)); // those of before this page was opened
    stop.hidden = true;
    meter.hidden = true;
    const name = `${head.name}/${head.version}`, best = head.outcome.reports.find((each) => each.set === "val");
    words.textContent = `${name} is ready${best ? `: ${percent(best.accuracy)} right on ${best.pictures} validation pictures` : ""}.`;
    actions.append(fileButton("Try a photo", (files) => tryOn(name, files[0])), cameraButton((files) => tryOn(name, files[0])) ?? "",
      h("a.button", { href: `/api/heads/${name}/file`, download: "" }, icon("download"), "safetensors"));
    if (order?.folder) {
      /** @type {FolderOnMap | null} */
      const folder = await get(`/folders/${order.folder}`).catch(() => null);
      ids = Object.fromEntries((folder?.items || []).map((item) => [item.name, item.picture]));
      await get(`/trainings/${run}/validation`).then(({ pictures }) => showMatrix(head.classes, pictures), (failure) => note(said(failure), "bad"));
    }
    showDoubts(head);
    main.dataset.done = "yes";
  }

  /**
   * @param {string[]} classes
   * @param {JudgedPicture[]} pictures
   */
  function showMatrix(classes, pictures) {
    if (!pictures.length) return;
    const most = Math.max(1, ...classes.map((label) => pictures.filter((each) => each.label === label).length));
    report.hidden = false;
    report.style.setProperty("--classes", String(classes.length));
    report.replaceChildren(h("h2", {}, "Validation pictures: rows are their classes, columns what the head says. Open a cell to see them."),
      h("div.scroll", { tabindex: 0, role: "region", "aria-label": "Table of classes" }, h("table.matrix", {},
        h("thead", {}, h("tr", {}, h("td", {}), classes.map((label) => h("th", { scope: "col" }, label)))),
        h("tbody", {}, classes.map((row) => h("tr", {}, h("th", { scope: "row" }, row), classes.map((column) => {
          const behind = pictures.filter((each) => each.label === row && each.predicted === column);
          const cell = behind.length ? h(`button.cell.${row === column ? "right" : "wrong"}`, { type: "button", "aria-label": `${behind.length} of class ${row} called ${column}`, onclick: () => opened(`${row}, called ${column}`, gallery(behind)) }, String(behind.length)) : h("span.muted", {}, "0");
          if (behind.length) cell.style.setProperty("--share", String(behind.length / most));
          return h("td", {}, cell);
        })))))));
  }
  const gallery = (/** @type {JudgedPicture[]} */ pictures) => h("ul.thumbs", {}, pictures.map((each) => h("li", {}, h("img", { src: pictureUrl(each.picture, 320), alt: "", loading: "lazy" }), h("p.muted", {}, `${each.name} · ${percent(each.probability)}`))));

  /** @param {Head} head */
  function showDoubts(head) {
    const { suspects = [], duplicates = [], skipped = [] } = head.findings || {};
    if (!suspects.length && !duplicates.length && !skipped.length) return;
    const again = h("button.primary", { type: "button", disabled: true, onclick: retrain }, "Train again");
    /**
     * @param {string} name
     * @param {string | null | undefined} value another class; null: leave it out; undefined: keep its class
     */
    function decide(name, value) {
      if (value === undefined) delete changes[name]; else changes[name] = value;
      const count = Object.keys(changes).length;
      again.disabled = !count;
      again.textContent = count ? `Train again with ${count} ${count > 1 ? "changes" : "change"}` : "Train again";
    }
    doubts.hidden = false;
    doubts.replaceChildren(h("h2", {}, "Pictures to look at"),
      suspects.length > 0 && h("p.hint", {}, "Most of their nearest neighbors have another class. Decide, then train again.") || "",
      h("ul.doubts", {}, suspects.map((each) => h("li", {}, ids[each.name] && h("img", { src: pictureUrl(ids[each.name], 160), alt: "", loading: "lazy" }),
        h("div", {}, h("p", {}, each.name), h("p.muted", {}, `is ${each.label}, looks like ${each.suggestion} (${percent(each.probability)} of its neighbors' votes)`),
          h("div.row", {}, h("label.check", {}, h("select", { "aria-label": `What ${each.name} is`, onchange: (event) => decide(each.name, event.target.value === "keep" ? undefined : event.target.value === "out" ? null : each.suggestion) },
            h("option", { value: "keep" }, `${each.label}: keep`), h("option", { value: "change" }, `it is ${each.suggestion}`), h("option", { value: "out" }, "leave it out")))))))),
      duplicates.length > 0 && h("details", {}, h("summary", {}, `${duplicates.length} stand there twice`), h("ul", {}, duplicates.map((each) => h("li.muted", {}, `${each.name} = ${each.first}${each.conflicting ? ", with another class: neither takes part" : ""}`)))) || "",
      skipped.length > 0 && h("details", {}, h("summary", {}, `${skipped.length} could not be read`), h("ul", {}, skipped.map((each) => h("li.muted", {}, `${each.name}: ${each.reason}`)))) || "",
      suspects.length > 0 && order?.folder && h("div.row.end", {}, again) || "");
  }
  async function retrain() {
    try {
      const { run: next } = await post("/trainings", { ...order, validation: undefined, changes: { ...order?.changes, ...changes } });
      go(`/heads/${next}`);
    } catch (failure) { note(said(failure), "bad"); }
  }

  let unfollow = () => {};
  get(`/runs/train/${run}`).then((found) => {
    ({ order } = found);
    title.textContent = order?.name ? `Head ${order.name}` : "Head";
    unfollow = follow("train", run, handlers);
  }, (failure) => { words.textContent = isAbsent(failure) ? "This training does not exist any more." : said(failure); });
  return () => { unfollow(); removeEventListener("theme", repaint); };
}
