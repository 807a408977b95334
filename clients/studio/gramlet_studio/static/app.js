// The frame: tabs, the address, the state of the server, the theme.
import { get } from "./api.js";

const TABS = {
  stylize: () => import("./stylize.js"),
  runs: () => import("./runs.js"),
  map: () => import("./map.js"),
  heads: () => import("./heads.js"),
  sweep: () => import("./sweep.js"),
};
const STATUS_MS = 2500;
const main = document.getElementById("main");
let close = () => {};

/** Shows the part and the run that the address names. */
async function show() {
  const [, tab = "", run = ""] = location.pathname.split("/");
  const name = tab in TABS ? tab : "stylize";
  close();
  close = () => {};
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.tab === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · gramlet studio`;
  const module = await TABS[name]();
  main.replaceChildren();
  main.dataset.tab = name;
  close = module.open(main, decodeURIComponent(run)) || close;
}

/** Goes to an address of the studio without loading the page again; quietly: the part has shown it already. */
export function go(path, { quiet = false } = {}) {
  history.pushState(null, "", path);
  return quiet ? undefined : show();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='/']");
  if (!link || link.hasAttribute("download") || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  if (link.getAttribute("href").startsWith("/api/")) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  main.focus({ preventScroll: true });
});
addEventListener("popstate", show);

// --- the server ---

const server = document.getElementById("server"), banner = document.getElementById("banner");
/** The last status of the server, for the tabs; null while it does not answer. */
export let status = null;
const listeners = new Set();
/** Calls back with the status now and whenever it changes; returns a function that ends it. */
export function onStatus(listener) {
  listeners.add(listener);
  if (status) listener(status);
  return () => listeners.delete(listener);
}

async function look() {
  try {
    const found = await get("/status");
    const fresh = JSON.stringify(found) !== JSON.stringify(status);
    status = found;
    const model = found.model ? `${found.model.backbone} on ${found.model.device}` : "no network";
    say("serving", `${model}`, "");
    if (fresh) for (const listener of listeners) listener(status);
  } catch (failure) {
    status = null;
    const studio = failure.status === 0;
    say("lost", studio ? "studio lost" : "server lost",
      studio ? "The studio itself does not answer. Start it again with gramlet studio; this page goes on by itself."
             : `The gramlet server does not answer (${failure.message}). Runs go on by themselves when it is back.`);
  }
  setTimeout(look, STATUS_MS);
}

function say(state, words, warning) {
  if (server.dataset.state !== state) server.dataset.state = state;
  server.querySelector(".words").textContent = words;
  server.title = words;
  if (banner.hidden === !!warning) banner.hidden = !warning;
  if (banner.textContent !== warning) banner.textContent = warning;
}

// --- the theme ---

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  dispatchEvent(new Event("theme"));
});

look();
show();
