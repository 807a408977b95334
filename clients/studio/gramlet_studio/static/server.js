// The state of the server: asked for again and again, shown in the frame, told to the parts.
import { Failure, get, said } from "./api.js";
import { byId } from "./dom.js";

const STATUS_MS = 2500;
const server = byId("server"), banner = byId("banner"), words = /** @type {HTMLElement} */ (server.querySelector(".words"));
/** @type {Set<(status: ServerStatus) => void>} */
const listeners = new Set();
/** @type {ServerStatus | null} The last one; null while the server does not answer. */
let status = null;

/**
 * Calls back with the status now and whenever it changes; returns a function that ends it.
 *
 * @param {(status: ServerStatus) => void} listener
 */
export function onStatus(listener) {
  listeners.add(listener);
  if (status) listener(status);
  return () => { listeners.delete(listener); };
}

/** Asks for the status now, and every few seconds from now on. */
export async function watchServer() {
  try {
    /** @type {ServerStatus} */
    const found = await get("/status");
    const fresh = JSON.stringify(found) !== JSON.stringify(status);
    status = found;
    const model = found.model ? `${found.model.backbone} on ${found.model.device}` : "no network";
    say("serving", `${model}`, "");
    if (fresh) for (const listener of listeners) listener(found);
  } catch (failure) {
    status = null;
    const studio = failure instanceof Failure && failure.status === 0;
    say("lost", studio ? "studio lost" : "server lost",
      studio ? "The studio itself does not answer. Start it again with gramlet studio; this page goes on by itself."
             : `The gramlet server does not answer (${said(failure)}). Runs go on by themselves when it is back.`);
  }
  setTimeout(watchServer, STATUS_MS);
}

/**
 * @param {"serving" | "lost"} state
 * @param {string} text
 * @param {string} warning
 */
function say(state, text, warning) {
  if (server.dataset.state !== state) server.dataset.state = state;
  words.textContent = text;
  server.title = text;
  if (banner.hidden === !!warning) banner.hidden = !warning;
  if (banner.textContent !== warning) banner.textContent = warning;
}
