/** Download the parts of a site: the network, and ONNX Runtime Web. */

/** Download files {path, bytes}, and return their bytes behind one another. Files that were kept are no progress. */
export async function downloadJoined(parts, base, onProgress) {
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const joined = new Uint8Array(total);
  let loaded = 0;
  for (const { path, bytes } of parts) {
    const end = loaded + bytes;
    const answer = await request(new URL(path, base));
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      if (loaded + value.length > end) throw new Error(`${path} is longer than it should be; reload the page`);
      joined.set(value, loaded);
      loaded += value.length;
      if (!answer.headers.has("Glama-Kept")) onProgress({ loaded, total });
    }
    if (loaded !== end) throw new Error(`${path} is shorter than it should be; reload the page`);
  }
  return joined;
}

/** Load a build of ONNX Runtime Web; return its module. */
export async function loadRuntime({ library, factory, binary }, base) {
  const urls = [library, factory, binary].map(({ url }) => new URL(url, base));
  if (urls[0].origin === new URL(base).origin) {
    const runtime = await import(urls[0]);
    runtime.env.wasm.wasmPaths = { mjs: urls[1].href, wasm: urls[2].href };
    return runtime;
  }
  // another origin: each file is verified, and scripts run from copies in memory
  const [code, starter, bytes] = await Promise.all(
    [library, factory, binary].map(async ({ sha256 }, number) => {
      const answer = await request(urls[number], { integrity: `sha256-${sha256}`, credentials: "omit" });
      return answer.arrayBuffer();
    }),
  );
  const makeUrl = (script) => URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const runtime = await import(makeUrl(code));
  runtime.env.wasm.wasmPaths = { mjs: makeUrl(starter) };
  runtime.env.wasm.wasmBinary = bytes;
  return runtime;
}

async function request(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    throw new Error(`${url} cannot be downloaded (${error.message})`);
  }
  if (!answer.ok) throw new Error(`${url} cannot be downloaded (${answer.status})`);
  return answer;
}
