/** The worker of engine_browser.js: it opens the network, and fills pictures. */
import { chooseProviders, openNetwork } from "./network.js";
import { fillTransparent } from "./transparency.js";

/** The network that is open. */
let network = null;

const jobs = {
  /** Open the network with the first provider that works. */
  async open(site, { base, precision, provider, threads }) {
    const onProgress = (progress) => postMessage({ progress });
    const providers = await chooseProviders(provider);
    for (const [number, each] of providers.entries()) {
      try {
        network = await openNetwork(site, { base, precision, provider: each, threads }, onProgress);
        break;
      } catch (error) {
        if (number + 1 === providers.length) throw error;
        console.warn(`${each} is not used: ${error.message}`);
      }
    }
    setTimeout(() => enqueue(() => network.warmUp())); // after the answer
    return { engine: network.description };
  },

  async fill(picture, mask) {
    const started = performance.now();
    const fill = (pixels) => network.fill(pixels, picture.width, picture.height, mask);
    const rgba = picture.channels % 2 ? await fill(picture.rgba) : await fillTransparent(fill, picture, mask);
    if (picture.channels < 3) makeGray(rgba, mask);
    return { rgba, seconds: (performance.now() - started) / 1000 };
  },
};

/** Replace the colours of missing pixels by their brightness (ITU-R 601, in 16-bit numbers as Pillow has it). */
function makeGray(rgba, mask) {
  for (let place = 0; place < mask.length; place++) {
    if (!mask[place]) continue;
    const [red, green, blue] = rgba.subarray(4 * place, 4 * place + 3);
    rgba.fill((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16, 4 * place, 4 * place + 3);
  }
}

/** Jobs run one by one, because a session runs one picture at a time. */
let last = Promise.resolve();
const enqueue = (job) => (last = last.then(job));

onmessage = ({ data: { number, name, values } }) =>
  enqueue(async () => {
    try {
      postMessage({ number, result: await jobs[name](...values) });
    } catch (error) {
      postMessage({ number, error: String(error?.message ?? error) });
    }
  });
