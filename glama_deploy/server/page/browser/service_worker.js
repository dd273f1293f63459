/**
 * The service worker of a static site. `service_worker.js` beside the page defines `SITE` and reads this file.
 *
 * `SITE.files` has the SHA-256 of each file, and `SITE.first` lists those that the page needs to start. A file is kept
 * under its address and its hash, so that a new version of the site downloads only what changed, and no page sees files
 * of two versions.
 */
/* global SITE */

const CACHE = `glama ${registration.scope}`;
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};
const files = new Map(
  Object.entries(SITE.files).map(([path, hash]) => {
    const url = new URL(path, registration.scope).href;
    return [url, { url, hash, key: `${url}?sha256=${encodeURIComponent(hash)}` }];
  }),
);
const index = files.get(new URL("index.html", registration.scope).href);
files.set(registration.scope, index);

addEventListener("install", (event) => {
  const first = SITE.first.map((path) => files.get(new URL(path, registration.scope).href));
  event.waitUntil(Promise.all(first.map(keepVerified)));
});

addEventListener("activate", (event) => event.waitUntil(Promise.all([clients.claim(), removeOthers()])));

addEventListener("fetch", (event) => {
  const url = event.request.url.replace(/[?#].*$/, "");
  const file = files.get(url);
  if (file && event.request.method === "GET") event.respondWith(answer(file, event));
});

/** Remove the files of other versions. */
async function removeOthers() {
  const cache = await caches.open(CACHE);
  const keys = new Set([...files.values()].map(({ key }) => key));
  const kept = await cache.keys();
  await Promise.all(kept.filter(({ url }) => !keys.has(url)).map((request) => cache.delete(request)));
}

/** Download a file, verify it and keep it, unless it is kept. */
async function keepVerified(file) {
  const cache = await caches.open(CACHE);
  if (await cache.match(file.key)) return;
  const found = await fetch(file.url, { cache: "no-cache", integrity: `sha256-${file.hash}` });
  if (!found.ok) throw new Error(`${file.url}: ${found.status}`);
  await cache.put(file.key, new Response(await found.arrayBuffer(), { headers: makeHeaders(found) }));
}

/** Answer with the kept file, or download it and keep it while the page reads it. */
async function answer(file, event) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(file.key);
  if (kept) return kept;
  const found = await fetch(file.url, { cache: "no-cache" });
  if (!found.ok || !found.body) return found;
  const [read, copy] = found.body.tee();
  event.waitUntil(keepCopy(cache, file, copy, makeHeaders(found)));
  return new Response(read, { headers: makeHeaders(found) });
}

async function keepCopy(cache, file, stream, headers) {
  const bytes = await new Response(stream).arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  if (btoa(String.fromCharCode(...digest)) !== file.hash) {
    console.warn(`${file.url} belongs to another version of the site and is not kept. Close all its tabs.`);
    return;
  }
  try {
    await cache.put(file.key, new Response(bytes, { headers: { ...headers, "Glama-Kept": "yes" } }));
  } catch (error) {
    console.warn(`${file.url} cannot be kept for use without a network: ${error.message}`);
  }
}

function makeHeaders(found) {
  return { ...ISOLATION, "Content-Type": found.headers.get("Content-Type") ?? "" };
}
