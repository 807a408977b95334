// The state of the server: asked for again and again, shown in the frame, told to the parts.
import { get } from "./api.js";

const STATUS_MS = 2500;
const server = document.getElementById("server"), banner = document.getElementById("banner");
const listeners = new Set();
let status = null; // the last one; null while the server does not answer

/** Calls back with the status now and whenever it changes; returns a function that ends it. */
export function onStatus(listener) {
  listeners.add(listener);
  if (status) listener(status);
  return () => listeners.delete(listener);
}

/** Asks for the status now, and every few seconds from now on. */
export async function watchServer() {
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
  setTimeout(watchServer, STATUS_MS);
}

function say(state, words, warning) {
  if (server.dataset.state !== state) server.dataset.state = state;
  server.querySelector(".words").textContent = words;
  server.title = words;
  if (banner.hidden === !!warning) banner.hidden = !warning;
  if (banner.textContent !== warning) banner.textContent = warning;
}
