// The part See: what a channel of the network responds to in your pictures, and the picture that forms for it.
import { get, isAbsent, lines, pictureUrl, said } from "./api.js";
import { go } from "./address.js";
import { field, h, icon, note, opened } from "./dom.js";
import { folderDrop } from "./folder.js";
import { onStatus } from "./server.js";

/** @typedef {{ left: number, top: number, width: number, height: number }} Box */
/**
 * @typedef {{ name: string, picture: string, activation: number, box: Box, width: number, height: number,
 *   jpeg: string, projection: string }} Patch
 */

/**
 * @param {HTMLElement} main
 * @param {string} run the stage and the channel, `layer3:712`
 */
export function open(main, run) {
  const [wantedStage, wantedChannel] = run.split(":"), wantedFolder = new URLSearchParams(location.search).get("in") || "";
  const source = h("select", { id: "source" }, h("option", { value: "" }, "the samples"));
  const stage = h("select", { id: "stage", onchange: limit }), channel = h("input", { id: "channel", type: "number", min: 0, value: wantedChannel || 0, inputmode: "numeric" });
  const forms = h("input", { type: "checkbox", id: "forms", checked: true });
  const start = h("button.primary", { type: "button", id: "look", disabled: true, onclick: look }, icon("play"), "Look");
  const stop = h("button", { type: "button", id: "stop", hidden: true, onclick: () => end("Stopped.") }, icon("stop"), "Stop");
  const words = h("p.words", { id: "words", role: "status" }, "Choose a stage and a channel: what makes it respond, and what would it like to see?");
  const meter = h("progress", { max: 1, value: 0, hidden: true, "aria-label": "Progress" });
  const formed = h("img", { alt: "", hidden: true }), formedWords = h("figcaption.muted", {}), patches = h("ul.patches");
  const picture = h("section.panel", { "aria-label": "The picture that forms", hidden: true }, h("h2", {}, "The picture that forms for it"), h("figure.formed", {}, h("div.frame", {}, formed), formedWords));
  const strongest = h("section.panel", { "aria-label": "Strongest patches", hidden: true },
    h("h2", {}, "Strongest patches in your pictures, each with what in it counts"), patches);
  const state = h("div.state", {}, words, meter);
  const blank = h("div.blank.panel", {}, icon("eye"), h("p", {}, "Parts of your pictures appear here, and a picture that the network dreams up."),
    h("button", { type: "button", id: "try", onclick: () => step(0) }, icon("dice"), "Any channel"));
  main.append(h("h1.hidden", {}, "See"), h("div.workbench.two", {},
    h("section.panel", { "aria-label": "What to look at" },
      field("stage", "Stage", stage),
      h("div.row.channel", {}, field("channel", "Channel", channel),
        h("button.icon", { type: "button", id: "before", "aria-label": "The channel before", onclick: () => step(-1) }, icon("left")),
        h("button.icon", { type: "button", id: "next", "aria-label": "The next channel", onclick: () => step(1) }, icon("right")),
        h("button.icon", { type: "button", id: "any", "aria-label": "Any channel", title: "Any channel", onclick: () => step(0) }, icon("dice"))),
      field("source", "Pictures", source),
      folderDrop("Drop another folder", (summary) => { source.append(h("option", { value: summary.id, selected: true }, `${summary.name} (${summary.pictures})`)); }),
      h("label.check", {}, forms, "Let a picture form for it"),
      h("div.row", {}, start, stop)),
    h("div.looked", {}, state, blank, h("div.seen", {}, picture, strongest))));

  /** @type {Map<string, number>} Each stage, and its channels. */
  const stages = new Map();
  let aborts = new AbortController(), urls = /** @type {string[]} */ ([]);

  function limit() {
    const count = stages.get(stage.value) ?? 1;
    channel.max = String(count - 1);
    channel.value = String(Math.min(Number(channel.value), count - 1));
  }
  /** @param {-1 | 0 | 1} by 0: any */
  function step(by) {
    const count = stages.get(stage.value) ?? 1;
    channel.value = String(by ? (Number(channel.value) + by + count) % count : Math.floor(Math.random() * count));
    look();
  }

  // --- pictures that come as text; they are kept as long as they are shown ---

  /**
   * @param {string} text in base64
   * @param {"jpeg" | "png"} type
   */
  function urlOf(text, type) {
    const url = URL.createObjectURL(new Blob([Uint8Array.from(atob(text), (character) => character.charCodeAt(0))], { type: `image/${type}` }));
    urls.push(url);
    return url;
  }
  function forget() {
    for (const url of urls) URL.revokeObjectURL(url);
    urls = [];
  }

  /**
   * @param {string} url
   * @param {string} text
   * @param {string} caption
   */
  function show(url, text, caption) {
    formed.src = url;
    formed.alt = text;
    formed.hidden = false;
    formedWords.textContent = caption;
  }

  // --- a look ---

  /** @type {Handlers} */
  const handlers = {
    queued({ position }) { words.textContent = position ? `Waiting: ${position} before this one` : "Waiting for the device"; },
    progress({ done, total }) {
      words.textContent = `Looking at the pictures: ${done} of ${total}`;
      progress(done, total);
    },
    refused({ name, error }) { note(`${name}: ${error}`, "bad"); },
    patches({ patches: found }) {
      strongest.hidden = false;
      patches.replaceChildren(...found.map(drawPatch));
      if (!found.length) patches.append(h("li.hint", {}, "This channel responds to none of these pictures."));
    },
    preview({ step: done, steps, jpeg }) {
      words.textContent = `The picture forms: step ${done} of ${steps}`;
      progress(done, steps);
      show(urlOf(jpeg, "jpeg"), `The picture that forms, after step ${done}`, `step ${done} of ${steps}`);
    },
    optimized({ png, activation }) { show(urlOf(png, "png"), `What channel ${channel.value} of ${stage.value} responds to most`, `mean activation ${short(activation)}`); },
    lost() { words.textContent = "The server is lost. The look begins again by itself when it is back."; },
    failed({ error, field: wrong }) { end(wrong ? `${wrong}: ${error}` : error); },
    result({ pictures, refused }) {
      end(`Channel ${channel.value} of ${stage.value}, in ${pictures} pictures${refused ? `, ${refused} of which could not be read` : ""}.`);
      main.dataset.done = "yes";
    },
  };
  /**
   * @param {number} done
   * @param {number} total
   */
  function progress(done, total) { meter.hidden = !total; meter.max = total || 1; meter.value = done; }

  /** @param {string} text what came of it */
  function end(text) {
    aborts.abort();
    words.textContent = text;
    meter.hidden = stop.hidden = true;
  }

  async function look() {
    aborts.abort();
    aborts = new AbortController();
    const { signal } = aborts, asked = { stage: stage.value, channel: Number(channel.value), folder: source.value, optimize: forms.checked };
    delete main.dataset.done;
    forget();
    patches.replaceChildren();
    formed.hidden = strongest.hidden = true;
    picture.hidden = !asked.optimize;
    formedWords.textContent = "It begins with noise, once the patches are found.";
    stop.hidden = false;
    blank.hidden = true;
    words.textContent = "Looking";
    state.scrollIntoView({ block: "nearest" });
    const path = `/see/${asked.stage}:${asked.channel}${asked.folder ? `?in=${asked.folder}` : ""}`;
    if (path !== location.pathname + location.search) go(path, { quiet: true });
    try {
      for await (const event of lines("/see", asked, signal)) handlers[event.event]?.(event);
    } catch (failure) {
      if (!signal.aborted) end(isAbsent(failure) ? "The studio does not have these pictures any more: drop the folder again." : said(failure));
    }
  }

  /** @param {Patch} patch */
  function drawPatch(patch) {
    const image = urlOf(patch.jpeg, "jpeg");
    return h("li", {}, h("button.bare", { type: "button", "aria-label": `Show where this is in ${patch.name}`, onclick: () => showWhole(patch) },
      h("img", { src: image, alt: `A part of ${patch.name}` }), patch.projection && h("img", { src: urlOf(patch.projection, "jpeg"), alt: "What in it counts" })),
    h("p.muted", {}, h("b", {}, short(patch.activation)), " ", patch.name));
  }
  /** @param {Patch} patch */
  function showWhole({ name, picture: id, box, width, height }) {
    const frame = h("span.box", { "aria-hidden": "true" });
    Object.assign(frame.style, { left: `${box.left / width * 100}%`, top: `${box.top / height * 100}%`, width: `${box.width / width * 100}%`, height: `${box.height / height * 100}%` });
    opened(name, h("div.boxed", {}, h("img", { src: pictureUrl(id, 1280), alt: name }), frame));
  }

  let ready = 0;
  /** Begins with what the address names, once the folders and the stages are known. */
  function begin() {
    if (++ready < 2) return;
    start.disabled = false;
    if (wantedStage) look();
  }
  get("/folders").then((/** @type {{ folders: { id: string, name: string, files: number }[] }} */ { folders }) => {
    source.append(...folders.map(({ id, name, files }) => h("option", { value: id, selected: id === wantedFolder }, `${name} (${files})`)));
    begin();
  }, (failure) => note(said(failure), "bad"));
  const offStatus = onStatus((status) => {
    if (stages.size || !status.stages) return;
    for (const { name, channels } of status.stages) stages.set(name, channels);
    const names = [...stages.keys()], middle = names[Math.floor(names.length * 0.6)];
    stage.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === (wantedStage || middle) }, `${name} (${stages.get(name)} channels)`)));
    limit();
    begin();
  });
  return () => { aborts.abort(); forget(); offStatus(); };
}

const short = (/** @type {number} */ value) => Number(value.toPrecision(3)).toString();
