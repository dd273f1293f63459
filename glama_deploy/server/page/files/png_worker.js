/** The worker of png_background.js. */
import { decodePng, encodePng, encodePngGray } from "./png.js";

const jobs = { decodePng, encodePng, encodePngGray };

onmessage = async ({ data: { number, name, values } }) => {
  try {
    postMessage({ number, result: await jobs[name](...values) });
  } catch (error) {
    postMessage({ number, error: error.message });
  }
};
