// Calls of the studio's own backend. There is no other host.

const HIDDEN_MS = 5000;

/** An error that the backend described: `message`, and the `field` that is wrong. */
export class Failure extends Error {
  /**
   * @param {{ error?: string, field?: string, code?: string }} values
   * @param {number} status
   */
  constructor(values, status) {
    super(values.error || `the studio answered ${status}`);
    this.field = values.field || "";
    this.code = values.code || "";
    this.status = status;
  }
}

/**
 * What went wrong, in words: with the field, if one is named.
 *
 * @param {unknown} error
 */
export function said(error) {
  if (error instanceof Failure && error.field) return `${error.field}: ${error.message}`;
  return error instanceof Error ? error.message : String(error);
}

/** @param {unknown} error */
export const isAbsent = (error) => error instanceof Failure && error.status === 404;

/**
 * @param {string} path
 * @param {RequestInit} [options]
 */
async function answered(path, options) {
  let reply;
  try {
    reply = await fetch(`/api${path}`, options);
  } catch {
    throw new Failure({ error: "the studio does not answer: is it still running?", code: "studio" }, 0);
  }
  if (reply.ok) return reply;
  throw new Failure(await reply.json().catch(() => ({})), reply.status);
}

/**
 * @param {string} path
 * @returns {Promise<any>} the JSON of the reply
 */
export const get = async (path) => (await answered(path)).json();

/**
 * Sends JSON or a form; gives the JSON of the reply.
 *
 * @param {string} path
 * @param {object} body
 * @returns {Promise<any>}
 */
export async function post(path, body = {}) {
  const form = body instanceof FormData;
  const reply = await answered(path, { method: "POST", body: form ? body : JSON.stringify(body), headers: form ? undefined : { "content-type": "application/json" } });
  return reply.status === 204 ? null : reply.json();
}

/** @param {string} path */
export const remove = (path) => answered(path, { method: "DELETE" });

/**
 * The lines of JSON of a reply, as they come.
 *
 * @param {string} path
 * @param {object} body
 * @param {AbortSignal} [signal] ends the request
 */
export async function* lines(path, body, signal) {
  const reply = await answered(path, { method: "POST", signal, body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  const decoder = new TextDecoder();
  let rest = "";
  for (const reader = /** @type {ReadableStream<Uint8Array>} */ (reply.body).getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop() ?? "";
    for (const part of parts) yield JSON.parse(part);
  }
}

/**
 * Follows a run: `handlers[event](values)`. The browser reconnects by itself, with the id of the last event that it saw, so
 * that nothing is missed. A window that is hidden stops following for a while: browsers open only six connections to one
 * host, and the seventh window would wait for ever. Returns a function that stops following.
 *
 * @param {RunInfo["kind"]} kind
 * @param {string} run
 * @param {Handlers} handlers
 */
export function follow(kind, run, handlers) {
  /** @type {EventSource | null} */
  let source = null;
  let ended = false, timer = 0;
  function join() {
    const joined = source = new EventSource(`/api/runs/${kind}/${run}/events`);
    joined.onmessage = ({ data }) => {
      const values = JSON.parse(data);
      handlers[values.event]?.(values);
      if (values.event === "end") { ended = true; joined.close(); }
    };
  }
  function shown() {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => { source?.close(); source = null; }, HIDDEN_MS);
    else if (!source && !ended) join();
  }
  document.addEventListener("visibilitychange", shown);
  join();
  return () => { clearTimeout(timer); document.removeEventListener("visibilitychange", shown); source?.close(); };
}

/**
 * @param {string} picture
 * @param {64 | 160 | 320 | 640 | 1280} side
 */
export const pictureUrl = (picture, side = 640) => `/api/pictures/${picture}/jpeg?side=${side}`;

/**
 * Uploads pictures; returns those that were kept, and says what was not.
 *
 * @param {File[]} files
 * @param {(text: string) => void} complain
 */
export async function upload(files, complain) {
  /** @type {StoredPicture[]} */
  const kept = [];
  for (let start = 0; start < files.length; start += 8) {
    const form = new FormData();
    for (const file of files.slice(start, start + 8)) form.append("file", file, file.name);
    for (const each of (await post("/pictures", form)).pictures) {
      if (each.error) complain(`${each.name}: ${each.error}`);
      else kept.push(each);
    }
  }
  return kept;
}
