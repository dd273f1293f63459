/**
 * The engine behind the page: a glama-serve that is asked over HTTP.
 *
 * An engine is an object with
 * - `info()` → {model, models, engine, precision, precisions, …};
 * - `select({model, precision})` → the new info;
 * - `fill({rgba, width, height, channels}, mask, {signal, onProgress, model, precision})` → {rgba, seconds, engine}.
 *   `rgba` is a Uint8ClampedArray with 4 bytes a pixel, `mask` a Uint8Array with 1 for a missing pixel, and `channels`
 *   says what the picture has: 1 gray, 2 gray and alpha, 3 colour, 4 colour and alpha.
 * - `isLocal`: true if no picture leaves the browser;
 * - `note`: a sentence that the person is told at the start, if there is one;
 * - `setToken(token)`, if the engine may fail with the code "token".
 * Errors have a `code`, a word that says which; an error without one is a fault of the page.
 */
import { decodePixels } from "./files/decode.js";
import { encodePng, encodePngGray } from "./files/png_background.js";
import { TEXTS } from "./texts.js";

export class EngineError extends Error {
  /** `code`: the server's word for the error; "offline" without an answer, "token" where a token is expected. */
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/** Seconds for which a busy server is asked again. */
const BUSY_SECONDS = 120;

let token = sessionStorage.getItem("token");

/** The token behind the address leaves the address: bookmarks and screenshots do not show the token. */
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  setToken(given);
  history.replaceState(null, "", location.pathname + location.search);
}

/** Keep the token that the server expects, for this tab. */
function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

export function createEngine() {
  return { info: () => askJson("v1/info"), select, fill, setToken };
}

const select = (choice) =>
  askJson("v1/model", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(choice),
  });

async function fill(picture, mask, { signal, onProgress = () => {}, model, precision } = {}) {
  const id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const form = new FormData();
  form.set("image", await encodePng(picture), "image.png");
  signal?.throwIfAborted();
  form.set("mask", await encodePngGray(mask, picture.width, picture.height), "mask.png");
  signal?.throwIfAborted();
  const fields = { id, region: "auto", format: "png", model, precision };
  for (const [name, value] of Object.entries(fields)) if (value) form.set(name, value);
  const cancel = () => ask(`v1/requests/${id}`, { method: "DELETE" }).catch(() => {}); // a cancelled request may be over
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    const answer = await askPatiently("v1/inpaint", { method: "POST", body: form, signal }, onProgress);
    const { rgba, width, height } = await decodePixels(await answer.blob());
    if (width !== picture.width || height !== picture.height) {
      throw new EngineError(TEXTS.wrongSize(width, height, picture.width, picture.height), "size");
    }
    const seconds = Number(answer.headers.get("X-Glama-Seconds"));
    return { rgba, seconds, engine: answer.headers.get("X-Glama-Engine") ?? "" };
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
}

/** Ask, and ask again while the server answers that it is busy. */
async function askPatiently(path, options, onProgress) {
  const end = Date.now() + 1000 * BUSY_SECONDS;
  for (;;) {
    try {
      return await ask(path, options);
    } catch (error) {
      if (!error.retryAfter || Date.now() > end) throw error;
      onProgress({ busy: true });
      await pause(1000 * error.retryAfter, options.signal);
      onProgress({ busy: false });
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

const askJson = async (path, options) => (await ask(path, options)).json();

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new EngineError(TEXTS.offline, "offline");
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let told = {};
  try {
    told = JSON.parse(text);
  } catch {
    told = { error: text.slice(0, 200) }; // an error page of a proxy
  }
  const code = answer.status === 401 ? "token" : (told.code ?? String(answer.status));
  const error = new EngineError(told.error || `${answer.status} ${answer.statusText}`, code);
  if (answer.status === 503) error.retryAfter = Number(answer.headers.get("Retry-After")) || 0;
  throw error;
}
