/** The worker of engine_browser.js: it opens the network, and fills pictures. */
import { chooseProviders, openNetwork } from "./network.js";
import { fillPicture } from "./picture_filling.js";

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
    return { engine: network.description, provider: network.provider };
  },

  async fill(picture, mask) {
    const started = performance.now();
    const rgba = await fillPicture((pixels) => network.fill(pixels, picture.width, picture.height, mask), picture, mask);
    return { rgba, seconds: (performance.now() - started) / 1000 };
  },
};

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
