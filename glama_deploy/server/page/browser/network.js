/** A network in ONNX Runtime Web: download, session, check, and runs. */
import { computePadding, padSymmetric } from "../picture/boxes.js";
import { downloadJoined, loadRuntime } from "./download.js";
import { findBounds, findWindow, toPlanes, writeBytes } from "./pixels.js";

/** More threads than these do not make a picture faster. */
const MAX_THREADS = 8;
/** The side of the picture on which the browser learns which functions to compile well. */
const WARM_UP_PIXELS = 256;

const TITLES = { wasm: "WebAssembly", webgpu: "WebGPU" };

/** Return the providers to try: WebGPU on a graphics card, else WebAssembly; or the one that a person named. */
export async function chooseProviders(wanted) {
  if (wanted) return [wanted];
  const adapter = await globalThis.navigator?.gpu?.requestAdapter().catch(() => null);
  const isCard = adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  return isCard ? ["webgpu", "wasm"] : ["wasm"];
}

const countThreads = () => (globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency || 1) : 1);

/** Open the network of a site.json. `onProgress({loaded, total})` is called with bytes. */
export async function openNetwork(site, { base, precision, provider, threads }, onProgress = () => {}) {
  if (!TITLES[provider]) throw new Error(`the engine is ${provider}; expected ${Object.keys(TITLES).join(" or ")}`);
  const runtime = await loadRuntime(site.runtime.builds[provider], base);
  const count = threads ?? countThreads();
  runtime.env.wasm.numThreads = count;
  runtime.env.logLevel = "error";
  const { weights, structures, check } = site.precisions[precision];
  const model = await downloadJoined([structures[provider], weights], base, onProgress);
  const session = await runtime.InferenceSession.create(model, { executionProviders: [provider] });
  const how = provider === "wasm" ? `, ${count} ${count > 1 ? "threads" : "thread"}` : "";
  const description = `ONNX Runtime Web ${site.runtime.version} ${TITLES[provider]}${how}, ${precision}`;
  const network = new Network({ Tensor: runtime.Tensor, session, decoder: site.decoder, provider, description });
  await network.check(check);
  return network;
}

export class Network {
  constructor(parts) {
    Object.assign(this, parts);
  }

  /**
   * Fill the missing pixels of a picture. The network is shown the whole picture.
   * Return new RGBA pixels: alpha and known pixels stay as they are.
   */
  async fill(rgba, width, height, mask) {
    const result = rgba.slice();
    const bounds = findBounds(mask, width, height);
    if (!bounds) return result;
    const { values, window } = await this.run(rgba, width, height, mask, bounds);
    writeBytes(result, width, mask, bounds, values, window);
    return result;
  }

  /** Run the network; return its output of a window [3, h, w] from 0 to 1, and the window, which contains `bounds`. */
  async run(rgba, width, height, mask, bounds) {
    const padding = computePadding(width, height);
    const [wide, high] = [width + padding.right, height + padding.bottom];
    const pixels = padSymmetric(rgba, width, height, 4, padding);
    const missing = padSymmetric(mask, width, height, 1, padding);
    const window = findWindow(bounds, wide, high, this.decoder);
    const corners = BigInt64Array.of(...[window.top, window.left, window.bottom, window.right].map(BigInt));
    const { inpainted } = await this.session.run({
      image: new this.Tensor("float32", toPlanes(pixels), [1, 3, high, wide]),
      mask: new this.Tensor("float32", Float32Array.from(missing), [1, 1, high, wide]),
      window: new this.Tensor("int64", corners, [4]),
    });
    return { values: inpainted.data, window };
  }

  /** Fill a pattern, and compare the bytes with the expected ones. Throws an Error if they differ. */
  async check({ side, hole, tolerance, expected }) {
    const { rgba, mask } = makePattern(side, hole);
    const filled = await this.fill(rgba, side, side, mask);
    const wanted = atob(expected);
    let error = 0;
    for (let place = 0, count = 0; place < mask.length; place++) {
      if (!mask[place]) continue;
      for (let n = 0; n < 3; n++) {
        error = Math.max(error, Math.abs(filled[4 * place + n] - wanted.charCodeAt(count++)));
      }
    }
    if (error > tolerance) throw new Error(`${this.description} computes wrongly, by ${error} of 255`);
  }

  /** Run once at a usual size, so that the first fill is as fast as the others. WebGPU compiled all in the check. */
  async warmUp() {
    if (this.provider !== "wasm") return;
    const middle = { top: 96, left: 96, bottom: 160, right: 160 };
    const { rgba, mask } = makePattern(WARM_UP_PIXELS, middle);
    await this.fill(rgba, WARM_UP_PIXELS, WARM_UP_PIXELS, mask);
  }
}

/** Make the pattern of glama_deploy/export/web/check_sample.py. */
function makePattern(side, hole) {
  const rgba = new Uint8ClampedArray(4 * side * side);
  const mask = new Uint8Array(side * side);
  for (let y = 0, place = 0; y < side; y++) {
    for (let x = 0; x < side; x++, place++) {
      for (let n = 0; n < 3; n++) rgba[4 * place + n] = (5 * x + 3 * y + 40 * n + ((x * y) >> 3)) % 256;
      rgba[4 * place + 3] = 255;
      mask[place] = y >= hole.top && y < hole.bottom && x >= hole.left && x < hole.right ? 1 : 0;
    }
  }
  return { rgba, mask };
}
