/**
 * The engine behind the page of a static site: the network runs in this browser, in a worker. No picture leaves it.
 *
 * The comment of engine_server.js describes the object. `#engine=wasm`, `#engine=webgpu` and `#threads=1` behind the
 * page's address override what the worker would choose.
 */
import { keepOffline } from "./browser/offline.js";
import { TEXTS } from "./texts.js";

/** A WebAssembly module with one function, which returns `i8x16.popcnt(i8x16.splat(0))`: SIMD. */
const SIMD_MODULE = [
  ...[0, 97, 115, 109, 1, 0, 0, 0], // \0asm, version 1
  ...[1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0], // a function () -> v128
  ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11], // its code
];

/** Milliseconds after which `info` tells how far the engine is. */
const INFO_MILLISECONDS = 300;

const makeError = (message, code) => Object.assign(new Error(message), { code });
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** What a person wrote behind the page's address. */
function readChoice() {
  const given = new URLSearchParams(location.hash.slice(1));
  return { provider: given.get("engine"), threads: Number(given.get("threads")) || null };
}

/** The worker, which is started again after a cancelled or failed run. */
class Background {
  constructor(onProgress) {
    this.onProgress = onProgress;
    this.waiting = new Map();
    this.count = 0;
    this.worker = new Worker(new URL("browser/worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.#take(data);
    this.worker.onerror = (event) => this.stop(makeError(TEXTS.engineFailed(event.message ?? ""), "engine"));
  }

  call(name, ...values) {
    return new Promise((resolve, reject) => {
      this.waiting.set(++this.count, { resolve, reject });
      this.worker.postMessage({ number: this.count, name, values });
    });
  }

  /** End the worker. Calls that wait fail with the reason. */
  stop(reason) {
    this.worker.terminate();
    for (const { reject } of this.waiting.values()) reject(reason);
    this.waiting.clear();
  }

  #take({ number, result, error, progress }) {
    if (progress) return this.onProgress(progress);
    const { resolve, reject } = this.waiting.get(number);
    this.waiting.delete(number);
    return error === undefined ? resolve(result) : reject(makeError(TEXTS.engineFailed(error), "engine"));
  }
}

class BrowserEngine {
  constructor() {
    const note = isSecureContext ? null : TEXTS.insecure;
    Object.assign(this, { isLocal: true, note, precision: null, opening: null });
  }

  async info() {
    await Promise.race([this.#open(), pause(INFO_MILLISECONDS)]);
    const { site, opened, progress } = this;
    return {
      model: site?.model ?? "",
      models: site ? [site.model] : [],
      engine: opened?.engine ?? (progress ? describeProgress(progress) : null),
      precision: opened ? this.precision : null,
      precisions: site ? Object.keys(site.precisions) : [],
    };
  }

  async select({ precision }) {
    if (precision && precision !== this.precision) {
      this.#close(makeError(TEXTS.engineFailed(""), "engine"));
      this.precision = precision;
    }
    await this.#open();
    return this.info();
  }

  async fill(picture, mask, { signal, precision } = {}) {
    let isRunning = false;
    const cancelled = new Promise((_, reject) => {
      signal?.addEventListener("abort", () => {
        reject(signal.reason);
        if (!isRunning) return;
        this.#close(signal.reason); // a run cannot be interrupted
        this.#open().catch(() => {}); // the next fill tells
      });
    });
    cancelled.catch(() => {}); // a signal may come after the run
    try {
      await Promise.race([this.select({ precision }), cancelled]);
      isRunning = true;
      const { rgba, seconds } = await this.background.call("fill", picture, mask);
      return { rgba, seconds, engine: this.opened.engine };
    } catch (error) {
      if (error.code === "engine") this.#close(error); // its memory may be full or damaged
      throw error;
    } finally {
      isRunning = false;
    }
  }

  /** Open the network, unless it is open or being opened. */
  #open() {
    this.opening ??= this.#start().catch((error) => {
      this.#close(error);
      throw error;
    });
    return this.opening;
  }

  async #start() {
    if (!globalThis.WebAssembly?.validate(Uint8Array.from(SIMD_MODULE))) throw makeError(TEXTS.noSimd, "browser");
    await keepOffline();
    this.site ??= await readSite();
    this.precision ??= Object.keys(this.site.precisions)[0];
    this.background = new Background((progress) => (this.progress = progress));
    const place = { base: document.baseURI, precision: this.precision, ...readChoice() };
    this.opened = await this.background.call("open", this.site, place);
  }

  #close(reason) {
    this.background?.stop(reason);
    this.opening = this.opened = this.progress = null;
  }
}

const describeProgress = ({ loaded, total }) =>
  loaded < total ? TEXTS.downloading(loaded, total) : TEXTS.openingNetwork;

async function readSite() {
  try {
    const answer = await fetch(new URL("site.json", document.baseURI));
    if (answer.ok) return await answer.json();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the network fails
  }
  throw makeError(TEXTS.siteOffline, "offline");
}

export const createEngine = () => new BrowserEngine();
