/**
 * Register the service worker: it keeps the site for use without a network, and adds the headers that threads need.
 *
 * A browser runs threads only on pages that are isolated from other origins, which two headers ask for. A static host
 * often cannot send headers. So the page is loaded once more, by way of the service worker, on the first visit.
 */

/** The mark of a page that was loaded again. It prevents an endless loop where the service worker cannot isolate. */
const MARK = "glama-loaded-again";

/** Return when the page is kept and isolated as far as this browser allows. The page may be loaded again instead. */
export async function keepOffline() {
  if (!navigator.serviceWorker) return; // an insecure address, or a private window
  let registration;
  try {
    registration = await navigator.serviceWorker.register(new URL("service_worker.js", document.baseURI));
  } catch (error) {
    console.warn("The site cannot be kept for use without a network:", error.message);
    return;
  }
  if (!registration.active) await waitUntilActive(registration.installing ?? registration.waiting);
  const isServed = navigator.serviceWorker.controller !== null && crossOriginIsolated;
  if (isServed) sessionStorage.removeItem(MARK);
  else if (registration.active && !sessionStorage.getItem(MARK)) {
    sessionStorage.setItem(MARK, "1");
    location.reload();
    await new Promise(() => {}); // nothing is started on the page that goes
  }
}

function waitUntilActive(worker) {
  return new Promise((resolve) => {
    const look = () => ["activated", "redundant"].includes(worker.state) && resolve();
    worker.addEventListener("statechange", look);
    look();
  });
}
