/** The functions of png.js, in a worker: large pictures do not stop the page. */

const worker = new Worker(new URL("png_worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let count = 0;

worker.onmessage = ({ data: { number, result, error } }) => {
  const { resolve, reject } = waiting.get(number);
  waiting.delete(number);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};

const call = (name, ...values) =>
  new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject });
    worker.postMessage({ number: count, name, values });
  });

export const encodePng = ({ rgba, width, height, channels }, extra = []) =>
  call("encodePng", { rgba, width, height, channels }, extra);
export const encodePngGray = (mask, width, height) => call("encodePngGray", mask, width, height);
export const decodePng = (chunks) => call("decodePng", chunks);
