// A folder of pictures: dropped or chosen, sent piece by piece, and what was understood of it.
import { post, said } from "./api.js";
import { bytesText, h, icon, note } from "./dom.js";

const MOST_BYTES = 32e6, BATCH_FILES = 40, BATCH_BYTES = 24e6;

/** @typedef {{ path: string, file: File }} Found */

/**
 * The files below what was dropped, and the name of the folder.
 *
 * @param {DataTransferItemList} items
 */
async function dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null);
  /** @type {Found[]} */
  const found = [];
  const name = entries.length === 1 && entries[0].isDirectory ? entries[0].name : "pictures";
  /**
   * @param {FileSystemEntry} entry
   * @param {string} path
   */
  async function walk(entry, path) {
    if (entry.isFile) {
      found.push({ path, file: await new Promise((done, failed) => /** @type {FileSystemFileEntry} */ (entry).file(done, failed)) });
      return;
    }
    const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
    for (;;) {
      /** @type {FileSystemEntry[]} */
      const some = await new Promise((done, failed) => reader.readEntries(done, failed)); // at most 100 at once
      if (!some.length) return;
      for (const each of some) await walk(each, path ? `${path}/${each.name}` : each.name);
    }
  }
  for (const entry of entries) await walk(entry, entries.length === 1 && entry.isDirectory ? "" : entry.name);
  return { name, files: found };
}

/** @param {FileList} list */
function chosen(list) {
  const parts = list[0]?.webkitRelativePath.split("/") ?? [];
  const depth = parts.length > 1 ? 1 : 0;
  return { name: depth ? parts[0] : "pictures", files: [...list].map((file) => ({ file, path: (file.webkitRelativePath || file.name).split("/").slice(depth).join("/") })) };
}

/**
 * A place to drop a folder. `ready(summary)` is called with what the studio understood.
 *
 * @param {string} hint
 * @param {(summary: FolderSummary) => void} ready
 */
export function folderDrop(hint, ready) {
  const meter = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Upload" }), words = h("p.hint", { role: "status" }, hint);
  const input = h("input", { type: "file", multiple: true, hidden: true, webkitdirectory: true, "aria-label": "Choose a folder" });
  const element = h("div.drop.folder", {}, icon("folder"), words, meter, h("button", { type: "button", onclick: () => input.click() }, "Choose a folder"), input);
  input.addEventListener("change", () => { if (input.files?.length) send(chosen(input.files)); input.value = ""; });
  let depth = 0;
  element.addEventListener("dragenter", (event) => { event.preventDefault(); depth++; element.classList.add("over"); });
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("dragleave", () => { if (--depth <= 0) element.classList.remove("over"); });
  element.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    element.classList.remove("over");
    if (event.dataTransfer) send(await dropped(event.dataTransfer.items));
  });

  /** @param {{ name: string, files: Found[] }} given */
  async function send({ name, files }) {
    const sent = files.filter(({ file }) => file.size && file.size <= MOST_BYTES);
    if (sent.length < files.length) note(`${files.length - sent.length} of ${files.length} files are left out: empty, or larger than ${bytesText(MOST_BYTES)}`, "bad");
    if (!sent.length) return;
    meter.hidden = false;
    try {
      const { folder } = await post("/folders", { name });
      for (let start = 0; start < sent.length;) {
        const form = new FormData();
        /** @type {string[]} */
        const names = [];
        for (let bytes = 0; start < sent.length && names.length < BATCH_FILES && (!bytes || bytes + sent[start].file.size <= BATCH_BYTES); start++) {
          form.append("file", sent[start].file, "file");
          names.push(sent[start].path);
          bytes += sent[start].file.size;
        }
        form.append("names", JSON.stringify(names));
        await post(`/folders/${folder}/files`, form);
        meter.value = start / sent.length;
        words.textContent = `${start} of ${sent.length} files`;
      }
      ready(await post(`/folders/${folder}/end`));
      words.textContent = `${name}: choose another folder to replace it`;
    } catch (failure) {
      words.textContent = hint;
      note(said(failure), "bad");
    }
    meter.hidden = true;
  }
  return element;
}

/**
 * What was understood of a folder: classes with counts, and what was left out and why.
 *
 * @param {FolderSummary} summary
 */
export function folderSummary(summary) {
  const most = Math.max(1, ...summary.classes.map((each) => each.count));
  /** @type {Map<string, FolderSummary["leftOut"]>} */
  const reasons = new Map();
  for (const each of summary.leftOut) reasons.set(each.reason, [...reasons.get(each.reason) ?? [], each]);
  return h("div.summary", {},
    h("p", {}, h("b", {}, `${summary.pictures} ${summary.pictures === 1 ? "picture" : "pictures"}`), ` in ${summary.name}`, summary.sets.length ? `, sets ${summary.sets.join(", ")}` : "", summary.unlabelled && summary.classes.length ? `, ${summary.unlabelled} without a class` : ""),
    summary.classes.length > 0 && h("ul.classes", {}, summary.classes.slice(0, 40).map((each) => {
      const bar = h("i", { "aria-hidden": "true" });
      bar.style.width = `${each.count / most * 100}%`;
      return h("li", {}, h("span", {}, each.name), h("span.track", {}, bar), h("b", {}, String(each.count)));
    })),
    summary.leftOut.length > 0 && h("details", {}, h("summary", {}, `${summary.leftOut.length} left out`),
      h("ul", {}, [...reasons].map(([reason, some]) => h("li.muted", {}, `${reason}: ${some.slice(0, 6).map((each) => each.name).join(", ")}${some.length > 6 ? ` and ${some.length - 6} more` : ""}`)))));
}
