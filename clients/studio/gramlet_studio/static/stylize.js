// The part Stylize: an order, the picture that forms, and the sliders that act on it.
import { follow, get, isAbsent, pictureUrl, post, remove, said } from "./api.js";
import { go } from "./address.js";
import { onStatus } from "./server.js";
import { lossChart, short } from "./chart.js";
import { comparison } from "./compare.js";
import { confirmed, h, icon, note } from "./dom.js";
import { picturePicker } from "./picker.js";
import { settingsPanel } from "./settings.js";

const ADJUST_MS = 180; // a slider that is dragged sends at most so often

/** @typedef {"new" | "queued" | "running" | "succeeded" | "stopped" | "failed"} State */

/** @type {[SettingName, string][]} */
const FIXED_NAMES = [["size", "size"], ["iterations", "iterations"], ["style_size", "stroke size"], ["colors", "colors"], ["preset", "preset"]];

const PLURALS = ["iterations", "colors", "styles"];

/**
 * @param {HTMLElement} main
 * @param {string} run
 */
export function open(main, run) {
  const view = {
    run: "", iteration: 0, total: 0, loss: 0, position: 0, error: "", pictured: false, live: false, unfollow: () => {},
    state: /** @type {State} */ ("new"),
    order: /** @type {StylizeOrder | null} */ (null),
    settings: /** @type {StylizeSettings | null} */ (null),
    scale: /** @type {{ height: number, width: number } | null} */ (null),
    initial: /** @type {string | null} The picture to start from. */ (null),
    rate: /** @type {[iteration: number, at: number][]} The last iterations, and when they came. */ ([]),
  };
  const picker = picturePicker(() => { draw(); if (view.state === "new") tell(); offerRestart(); });
  const settings = settingsPanel({ live: adjustSoon, rest: offerRestart });
  const chart = lossChart(), compare = comparison({ beforeName: "Photo", afterName: "Painting" });
  const words = h("p.words", { id: "words" }, "Choose a photo and a style, or take two of the samples.");
  const meter = h("progress", { max: 1, value: 0, "aria-label": "Iterations" });
  /**
   * @param {string} name
   * @param {string} label
   * @param {Parameters<typeof icon>[0]} symbol
   * @param {() => void} onclick
   */
  const button = (name, label, symbol, onclick, kind = "") => h(/** @type {"button"} */ (`button${kind && "." + kind}`), { type: "button", id: name, onclick, hidden: true }, icon(symbol), label);
  const buttons = {
    start: button("start", "Stylize", "play", start, "primary"),
    stop: button("stop", "Stop", "stop", stop),
    resume: button("resume", "Go on", "play", resume, "primary"),
    fork: button("fork", "Fork from here", "fork", fork),
    again: button("again", "New picture", "plus", () => go("/stylize")),
    remove: button("remove", "Delete", "trash", erase, "quiet"),
  };
  const save = h("a.button", { id: "save", download: "", hidden: true }, icon("download"), "Download PNG");
  const restart = h("div.restart", { hidden: true, role: "status" });
  const from = h("p.from", { hidden: true });
  const blank = h("div.blank", {}, icon("picture"), h("p", {}, "Your picture forms here."),
    h("button", { type: "button", id: "try", onclick: trySamples }, icon("play"), "Try it with samples"));
  const stage = h("section.stage", { "aria-label": "Picture" }, h("div.canvas", {}, compare.element, blank),
    h("div.state", {}, words, meter, from, restart, h("div.row.actions", {}, buttons.start, buttons.stop, buttons.resume, buttons.fork, save, buttons.again, buttons.remove)));
  main.append(h("h1.hidden", {}, "Stylize"), h("div.workbench", {}, picker.element, stage,
    h("div.side", {}, settings.element, h("section.panel", { "aria-label": "Loss" }, h("h2", {}, "Loss"), chart.element))));
  const repaint = () => chart.draw();
  addEventListener("theme", repaint);

  // --- what is shown ---

  function draw() {
    const { state } = view, running = state === "running" || state === "queued";
    stage.dataset.state = state;
    buttons.start.hidden = state !== "new";
    buttons.start.disabled = !picker.isComplete;
    buttons.stop.hidden = !running;
    buttons.resume.hidden = !["stopped", "failed"].includes(state);
    buttons.fork.hidden = state === "new" || !view.pictured;
    save.hidden = state !== "succeeded";
    buttons.again.hidden = buttons.remove.hidden = state === "new" || running;
    meter.hidden = !running;
    compare.element.hidden = !view.pictured && !picker.state.content;
    blank.hidden = !compare.element.hidden || state !== "new";
    if (picker.state.content && !view.pictured) compare.show(pictureUrl(picker.state.content.id, 1280), "The photo");
    from.hidden = !view.initial;
    from.textContent = view.initial ? "Starts from the picture of another run." : "";
  }

  function tell() {
    const { state, iteration, total, scale, settings: now } = view;
    if (state === "running") {
      const full = now && scale && Math.max(scale.height, scale.width) < (now.size || 0);
      const where = scale ? `${full ? "Large shapes first: " : "Full size: "}${scale.width} × ${scale.height} px` : "Preparing";
      words.textContent = `${where} · iteration ${iteration}${total ? ` of ${total}` : ""}${speed()}`;
      meter.max = total || 1;
      meter.value = iteration;
    } else if (state === "queued") words.textContent = view.position ? `Waiting: ${view.position} before this one` : "Waiting for the device";
    else if (state === "succeeded") words.textContent = `Done after ${iteration} iterations, loss ${short(view.loss)}. Drag across the picture to see the photo.`;
    else if (state === "new") words.textContent = picker.isComplete ? "Ready." : "Choose a photo and a style, or take two of the samples.";
    else if (state === "stopped") words.textContent = `Stopped at iteration ${iteration}. It can go on from its last checkpoint.`;
    else if (state === "failed") words.textContent = `Failed: ${view.error}`;
  }
  function speed() {
    const { rate } = view;
    if (rate.length < 3) return "";
    const [first, last] = [rate[0], rate[rate.length - 1]], perSecond = (last[0] - first[0]) / ((last[1] - first[1]) / 1000 || 1);
    return ` · ${perSecond >= 1 ? `${perSecond.toFixed(1)} a second` : `${(1 / perSecond).toFixed(1)} s each`}`;
  }
  /**
   * @param {State} state
   * @param {Partial<typeof view>} more
   */
  function become(state, more = {}) {
    Object.assign(view, more, { state });
    draw();
    tell();
  }

  // --- a run ---

  const picture = (/** @type {string} */ name, /** @type {number} */ turn) => `/api/runs/stylize/${view.run}/pictures/${name}?${turn}`;
  /** @type {Handlers} */
  const handlers = {
    reset() { chart.clear(); view.rate = []; view.live = false; },
    live() { view.live = true; },
    queued({ position }) { become("queued", { position }); },
    started({ settings: now, iteration }) {
      view.settings = now;
      settings.fill(now);
      become("running", { total: now.iterations || view.total, iteration: Math.max(iteration, view.iteration) });
    },
    scaleStarted({ iteration, height, width }) {
      chart.mark(iteration, "scale");
      view.rate = [];
      become("running", { scale: { height, width } });
    },
    iteration(values) {
      chart.add(values);
      view.rate.push([values.iteration, performance.now()]);
      if (view.rate.length > 12) view.rate.shift();
      view.iteration = values.iteration;
      view.loss = values.loss;
      if (view.state === "running") tell(); else become("running");
    },
    preview({ iteration }) {
      view.pictured = true;
      compare.show(picture("preview", iteration), `The picture after iteration ${iteration}`);
      draw();
    },
    adjusted({ iteration, settings: now }) {
      chart.mark(iteration, "adjusted");
      view.settings = now;
      if (!settings.element.contains(document.activeElement)) settings.fill(now); // another window may have moved the sliders
      if (view.live) note(`New weights from iteration ${iteration + 1}`);
    },
    recovered({ message, reason }) { if (view.live) note(sentence(message || reason)); },
    progress({ done, total }) { become("running", { iteration: done, total }); },
    lost() { words.textContent = "The server is lost. The run goes on by itself when it is back."; },
    result({ iteration, loss }) {
      view.pictured = true;
      save.href = `/api/runs/stylize/${view.run}/result.png?download`;
      compare.show(`/api/runs/stylize/${view.run}/result.png`, "The finished picture");
      become("succeeded", { iteration, loss });
    },
    end({ state, error }) { if (state !== "succeeded") become(state, { error }); },
  };

  /** @param {string} run */
  async function load(run) {
    try {
      /** @type {RunInfo & { state: State, order: StylizeOrder | null }} */
      const found = await get(`/runs/stylize/${run}`);
      view.order = found.order;
      if (found.order?.content) {
        picker.fill(found.order);
        settings.fill(found.order.settings || {});
        compare.before(pictureUrl(found.order.content, 1280), "The photo");
        view.initial = found.order.initial || null;
      }
      attach(run, found.state === "queued" ? "queued" : found.hasEnded ? found.state : "running", { iteration: found.progress?.done || 0, total: found.progress?.total || 0, error: found.error?.message });
    } catch (failure) {
      words.textContent = isAbsent(failure) ? "This run does not exist any more." : said(failure);
    }
  }
  /**
   * @param {string} run
   * @param {State} state
   * @param {Partial<typeof view>} more
   */
  function attach(run, state, more = {}) {
    view.unfollow();
    Object.assign(view, { run, pictured: false, scale: null, rate: [] });
    restart.hidden = true;
    become(state, more);
    view.unfollow = follow("stylize", run, handlers);
  }

  // --- what the user does ---

  /**
   * @param {() => Promise<unknown>} work
   * @param {HTMLButtonElement} [element]
   */
  async function attempt(work, element) {
    if (element) element.disabled = true;
    try { await work(); } catch (failure) { note(said(failure), "bad"); }
    if (element) element.disabled = false;
  }
  /** @returns {StylizeOrder} */
  const order = () => ({ ...picker.values(), settings: settings.values(), ...(view.initial ? { initial: view.initial } : {}) });

  function start() {
    return attempt(async () => {
      const asked = order();
      const { run } = await post("/stylizations", asked);
      view.order = asked;
      chart.clear();
      if (asked.content) compare.before(pictureUrl(asked.content, 1280), "The photo");
      go(`/stylize/${run}`, { quiet: view.state !== "new" });
      if (view.state !== "new") attach(run, "queued", { iteration: 0 });
    }, buttons.start);
  }
  function trySamples() {
    return attempt(async () => {
      await picker.chooseSamples("cat", "whirls");
      await start();
    });
  }
  function stop() { return attempt(() => post(`/runs/stylize/${view.run}/stop`), buttons.stop); }
  function resume() {
    return attempt(async () => {
      await post(`/stylizations/${view.run}/resume`);
      attach(view.run, "queued");
    }, buttons.resume);
  }
  function fork() {
    return attempt(async () => {
      const { picture: initial } = await post(`/stylizations/${view.run}/fork`);
      const { run } = await post("/stylizations", { ...order(), initial });
      go(`/stylize/${run}`);
    }, buttons.fork);
  }
  function erase() {
    return attempt(async () => {
      if (!await confirmed("Delete this run with its pictures?", "Delete")) return;
      await remove(`/runs/stylize/${view.run}`);
      go("/stylize");
    });
  }

  let timer = 0;
  /** @param {StylizeSettings} weights as the sliders are now: an event of the run may move them before they are sent */
  function adjustSoon(weights) {
    if (view.state !== "running") return;
    clearTimeout(timer);
    timer = setTimeout(() => attempt(() => post(`/stylizations/${view.run}/adjust`, weights)), ADJUST_MS);
  }

  /** Says what cannot act on the run under way, and offers to start it anew. */
  function offerRestart() {
    if (view.state === "new" || !view.order) return;
    const before = view.order.settings, now = settings.fixed(), pictures = picker.values();
    // What was not ordered is as the server has it; the stroke size is then that of the picture.
    const was = (/** @type {SettingName} */ name) => before[name] ?? (name === "style_size" ? undefined : view.settings?.[name]);
    const changed = FIXED_NAMES.filter(([name]) => (was(name) ?? "") !== (now[name] ?? "")).map(([, words]) => words);
    if (pictures.content !== view.order.content) changed.push("photo");
    changed.push(...changesOfStyles(view.order.styles, pictures.styles));
    restart.hidden = !changed.length;
    restart.replaceChildren(h("span", {}, `The new ${listed(changed)} ${changed.length > 1 || PLURALS.includes(changed[0]) ? "need" : "needs"} a restart.`),
      h("button", { type: "button", id: "restart", disabled: !picker.isComplete, onclick: async () => {
        if (["running", "queued"].includes(view.state)) await attempt(() => post(`/runs/stylize/${view.run}/stop`));
        await start();
      } }, "Restart"));
  }

  const offStatus = onStatus((status) => { if (status.stylize?.presets?.length) settings.presets(status.stylize.presets, status.stylize.preset_settings); });
  if (run) load(run); else draw();
  return () => { view.unfollow(); offStatus(); clearTimeout(timer); removeEventListener("theme", repaint); };
}

/**
 * What differs between the styles of two orders.
 *
 * @param {OrderedStyle[]} before
 * @param {OrderedStyle[]} now
 */
function changesOfStyles(before, now) {
  if (JSON.stringify(before.map((style) => style.picture)) !== JSON.stringify(now.map((style) => style.picture))) return ["styles"];
  const differ = (/** @type {(style: OrderedStyle) => unknown} */ of) => now.some((style, index) => of(style) !== of(before[index]));
  return [
    ...(differ((style) => style.weight) ? ["ratio between the styles"] : []),
    ...(differ((style) => `${style.content_region} ${style.style_region}`) ? ["region"] : []),
  ];
}

const listed = (/** @type {string[]} */ words) => [words.slice(0, -1).join(", "), ...words.slice(-1)].filter(Boolean).join(" and ");

const sentence = (/** @type {string} */ text) => text[0].toUpperCase() + text.slice(1);
