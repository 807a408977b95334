// The frame: tabs, links, the theme.
import { go, showBy } from "./address.js";
import { byId } from "./dom.js";
import { watchServer } from "./server.js";

/** @type {Record<string, () => Promise<Part>>} */
const TABS = {
  stylize: () => import("./stylize.js"),
  runs: () => import("./runs.js"),
  map: () => import("./map.js"),
  heads: () => import("./heads.js"),
  sweep: () => import("./sweep.js"),
  see: () => import("./see.js"),
};
const main = byId("main");
let close = () => {};

/** Shows the part and the run that the address names. */
async function show() {
  const [, tab = "", run = ""] = location.pathname.split("/");
  const name = tab in TABS ? tab : "stylize";
  close();
  close = () => {};
  for (const link of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("nav a"))) {
    if (link.dataset.tab === name) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · gramlet studio`;
  const module = await TABS[name]();
  main.replaceChildren();
  main.dataset.tab = name;
  close = module.open(main, decodeURIComponent(run)) || close;
}

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element && event.target.closest("a[href^='/']"), path = link && link.getAttribute("href");
  if (!link || !path || link.hasAttribute("download") || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  if (path.startsWith("/api/")) return;
  event.preventDefault();
  go(path);
  main.focus({ preventScroll: true });
});

// A file that is dropped beside the places for files would be opened instead of this page.
addEventListener("dragover", (event) => {
  if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "none";
});
addEventListener("drop", (event) => { if (event.dataTransfer?.types.includes("Files")) event.preventDefault(); });

// --- the theme ---

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
  dispatchEvent(new Event("theme"));
});

watchServer();
showBy(show);
