// A photo by the camera: seen live in a dialog, and taken.
import { h, icon, opened } from "./dom.js";
import { fileButton } from "./filebutton.js";

/** @type {Record<string, string>} What the browser's errors mean. */
const REASONS = {
  NotAllowedError: "The camera is not allowed for this page: allow it in the browser, beside the address, and open it again.",
  NotFoundError: "No camera was found: connect one, or choose a photo from disk.",
  NotReadableError: "The camera does not start: another program may use it.",
};
const WANTED = { video: { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 960 } } };

/**
 * A button that takes a photo; null where there can be no camera. Browsers hand the camera only to pages of this machine
 * or with https; a phone opens its own camera program otherwise.
 *
 * @param {(files: File[]) => void} take
 */
export function cameraButton(take) {
  if (navigator.mediaDevices) return h("button", { type: "button", onclick: () => openCamera(take) }, icon("camera"), "Camera");
  return matchMedia("(pointer: coarse)").matches ? fileButton("Camera", take, { camera: true, symbol: "camera" }) : null;
}

/** @param {(files: File[]) => void} take */
async function openCamera(take) {
  const video = h("video.viewfinder", { autoplay: true, muted: true, playsInline: true, hidden: true, "aria-label": "What the camera sees" });
  const words = h("p.hint", { role: "status" }, "Waiting for the camera. The browser may ask whether this page may use it.");
  const shoot = h("button.primary", { type: "button", disabled: true, onclick: () => shot(video).then((file) => { dialog.close(); take([file]); }) }, icon("camera"), "Take the photo");
  const dialog = opened("Camera", h("div.camera", {}, video, words, h("div.row.end", {}, shoot)));
  /** @param {string} reason */
  const fail = (reason) => { words.textContent = reason; words.hidden = false; video.hidden = shoot.disabled = true; };
  /** @type {MediaStream} */
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia(WANTED); }
  catch (failure) {
    const { name, message } = /** @type {DOMException} */ (failure);
    fail(REASONS[name] ?? `The camera does not start: ${message}`);
    return;
  }
  const end = () => { for (const track of stream.getTracks()) track.stop(); };
  dialog.addEventListener("close", end);
  if (!dialog.open) end(); // closed while the browser was asking
  stream.getVideoTracks()[0].addEventListener("ended", () => fail("The camera was switched off."));
  video.addEventListener("loadeddata", () => { words.hidden = true; video.hidden = shoot.disabled = false; shoot.focus(); });
  video.srcObject = stream;
}

/**
 * The picture that a video shows, as a file.
 *
 * @param {HTMLVideoElement} video
 * @returns {Promise<File>}
 */
function shot(video) {
  const canvas = h("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob((blob) => done(new File(blob ? [blob] : [], "camera.jpg", { type: "image/jpeg" })), "image/jpeg", 0.92));
}
