// The settings of a stylization: sliders that act on a run under way, and choices that need a new run.
import { h } from "./dom.js";

/** @type {[SettingName, string, string, number, number][]} */
const LIVE = [
  ["content_weight", "Content", "keeps the photo", -4, 4],
  ["style_weight", "Style", "follows the painting", -4, 4],
];
/** @type {[string, string][]} */
const COLORS = [["style", "of the style"], ["content-luminance", "of the photo"], ["content-histogram", "near the photo's"]];

const BASED = /** @type {const} */ (["content_weight", "style_weight"]);
const WEIGHTS = /** @type {const} */ ([...BASED, "total_variation_weight"]);
const FIXED = /** @type {const} */ (["size", "iterations", "style_size", "preset", "colors"]);

/**
 * `live(values)` is called when a slider moved that can act at once, `rest()` when a setting changed that cannot.
 *
 * @param {{ live: (weights: StylizeSettings) => void, rest: () => void }} on
 */
export function settingsPanel({ live, rest }) {
  /** @type {Record<string, StylizeSettings | undefined>} The settings of each preset. */
  let known = {};
  /** @type {StylizeSettings | null} What was shown last. */
  let filled = null;
  /** @type {{ content_weight: number, style_weight: number }} The middle of the sliders: the weights of the preset. */
  const base = { content_weight: 1, style_weight: 1 };
  const inputs = /** @type {Record<SettingName, HTMLInputElement | HTMLSelectElement>} */ ({});
  /** @type {(() => void)[]} */
  const shown = [];

  /**
   * @param {SettingName} name
   * @param {string} label
   * @param {string} hint
   * @param {number} low
   * @param {number} high
   * @param {(value: number) => string} text
   */
  function slider(name, label, hint, low, high, text) {
    const id = `set-${name}`, output = h("output", { for: id });
    const input = h("input", { type: "range", id, min: low, max: high, step: 0.25, value: 0, "aria-describedby": `${id}-hint` });
    const tell = () => { const words = text(Number(input.value)); output.textContent = words; input.setAttribute("aria-valuetext", words); };
    input.addEventListener("input", () => { tell(); live(weights()); });
    inputs[name] = input;
    shown.push(tell);
    tell();
    return h("div.setting", {}, h("div.row.between", {}, h("label", { for: id }, label), output), input, h("small", { id: `${id}-hint` }, hint));
  }
  const times = (/** @type {number} */ power) => `× ${Number((2 ** power).toPrecision(2))}`;

  /**
   * @param {SettingName} name
   * @param {string} label
   * @param {[string, string][]} options
   * @param {string} value
   */
  function choice(name, label, options, value) {
    const id = `set-${name}`;
    const select = h("select", { id, onchange: rest }, options.map(([key, words]) => h("option", { value: key, selected: key === value }, words)));
    inputs[name] = select;
    return h("div.setting.inline", {}, h("label", { for: id }, label), select);
  }
  /**
   * @param {SettingName} name
   * @param {string} label
   * @param {number | ""} value
   * @param {number} low
   * @param {number} high
   * @param {number} step
   */
  function number(name, label, value, low, high, step) {
    const id = `set-${name}`;
    const input = h("input", { id, type: "number", min: low, max: high, step, value, inputmode: "numeric", onchange: rest });
    inputs[name] = input;
    return h("div.setting.inline", {}, h("label", { for: id }, label), input);
  }

  const element = h("section.panel.settings", { "aria-label": "Settings" },
    h("div.row.between", {}, h("h2", {}, "Steer"), h("span.badge.live", { title: "These act on the run under way, from its next iteration" }, "live")),
    ...LIVE.map(([name, label, hint, low, high]) => slider(name, label, hint, low, high, times)),
    slider("total_variation_weight", "Smoothness", "total variation: fewer specks", 0, 8, (value) => value ? `${value}` : "off"),
    h("div.row.between", {}, h("h2", {}, "Begin with"), h("span.badge", { title: "A change of these needs a new start" }, "restarts")),
    h("div.grid2", {},
      number("size", "Size (px)", 384, 64, 2048, 32),
      number("iterations", "Iterations", 160, 1, 2000, 10),
      number("style_size", "Stroke size (px)", "", 64, 2048, 32),
      choice("colors", "Colors", COLORS, "style"),
      choice("preset", "Preset", [["default", "default"]], "default")));
  inputs.style_size.setAttribute("placeholder", "as size");
  for (const name of WEIGHTS) inputs[name].disabled = true; // what their middle stands for is not known yet

  function weights() {
    const smooth = Number(inputs.total_variation_weight.value);
    return {
      content_weight: base.content_weight * 2 ** Number(inputs.content_weight.value),
      style_weight: base.style_weight * 2 ** Number(inputs.style_weight.value),
      total_variation_weight: smooth ? base.style_weight * 1e-4 * 2 ** smooth : 0,
    };
  }
  /** @param {string} name */
  function choosePreset(name) {
    base.content_weight = known[name]?.content_weight || base.content_weight;
    base.style_weight = known[name]?.style_weight || base.style_weight;
  }
  inputs.preset.addEventListener("change", () => choosePreset(inputs.preset.value));
  const whole = (/** @type {SettingName} */ name) => Math.round(Number(inputs[name].value)) || undefined;
  /** @returns {StylizeSettings} */
  function fixed() {
    const values = { size: whole("size"), iterations: whole("iterations"), style_size: whole("style_size"), preset: inputs.preset.value, colors: inputs.colors.value };
    return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  }
  return {
    element, weights, fixed,
    /**
     * All settings for an order. Weights that are the preset's are left to it.
     *
     * @returns {StylizeSettings}
     */
    values() {
      const moved = WEIGHTS.filter((name) => Number(inputs[name].value) !== 0), all = weights();
      return { ...fixed(), ...Object.fromEntries(moved.map((name) => [name, all[name]])) };
    },
    /**
     * Shows the settings that are in force.
     *
     * @param {StylizeSettings} settings
     */
    fill(settings) {
      filled = settings;
      if (settings.preset) choosePreset(settings.preset);
      for (const name of FIXED) {
        if (settings[name] != null && (name !== "style_size" || settings.style_size !== settings.size)) inputs[name].value = String(settings[name]);
      }
      for (const name of BASED) {
        const weight = settings[name] ?? 0;
        if (weight > 0) inputs[name].value = String(Math.log2(weight / base[name]));
      }
      if (settings.total_variation_weight != null) {
        const weight = settings.total_variation_weight;
        inputs.total_variation_weight.value = String(weight > 0 ? Math.log2(weight / (base.style_weight * 1e-4)) : 0);
      }
      for (const tell of shown) tell();
    },
    /**
     * The presets that the server has.
     *
     * @param {string[]} names
     * @param {StylizeSettings[]} [settings]
     */
    presets(names, settings) {
      if (names.join() === Object.keys(known).join()) return;
      const chosen = inputs.preset.value;
      known = Object.fromEntries(names.map((name, index) => [name, settings?.[index]]));
      for (const name of WEIGHTS) inputs[name].disabled = false;
      inputs.preset.replaceChildren(...names.map((name) => h("option", { value: name, selected: name === chosen }, name)));
      if (filled) this.fill(filled); // their weights are now known
      else choosePreset(chosen);
    },
  };
}
