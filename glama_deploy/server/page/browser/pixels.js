/** Convert pictures to a network's tensors and back, as glama_deploy/inpainting does. Pure functions. */
import { makeRect } from "../picture/rects.js";

/** Return the bounding box of a mask's missing pixels, or null. */
export function findBounds(mask, width, height) {
  let bounds = null;
  for (let y = 0; y < height; y++) {
    const row = mask.subarray(y * width, (y + 1) * width);
    const first = row.indexOf(1);
    if (first < 0) continue;
    bounds ??= makeRect(first, y, first, y);
    bounds.left = Math.min(bounds.left, first);
    bounds.right = Math.max(bounds.right, row.lastIndexOf(1) + 1);
    bounds.bottom = y + 1;
  }
  return bounds;
}

/**
 * Return the smallest window in which the pixels of a hole have the values of the whole (padded) picture, as
 * glama_deploy/inpainting/windows.py. `decoder` has the pixels for each value behind the last block (`reduction`), and
 * the pixels that the layers behind this block see on each side of a pixel (`reach`).
 */
export function findWindow(hole, width, height, { reduction, reach }) {
  const first = (pixel) => Math.max(0, Math.floor((pixel - reach) / reduction) * reduction);
  const behind = (pixel, side) => Math.min(side, (Math.ceil((pixel - 1 + reach) / reduction) + 1) * reduction);
  return makeRect(first(hole.left), first(hole.top), behind(hole.right, width), behind(hole.bottom, height));
}

/** Return the colours of RGBA pixels as planes of red, green and blue from 0 to 1. */
export function toPlanes(rgba) {
  const count = rgba.length / 4;
  const planes = new Float32Array(3 * count);
  for (let place = 0; place < count; place++) {
    for (let n = 0; n < 3; n++) planes[n * count + place] = rgba[4 * place + n] / 255;
  }
  return planes;
}

/** Write the missing pixels within `bounds` from planes of a window, rounded to the nearest even byte. */
export function writeBytes(rgba, width, mask, bounds, values, window) {
  const wide = window.right - window.left;
  const count = wide * (window.bottom - window.top);
  for (let y = bounds.top; y < bounds.bottom; y++) {
    for (let x = bounds.left; x < bounds.right; x++) {
      if (!mask[y * width + x]) continue;
      const place = (y - window.top) * wide + x - window.left;
      for (let n = 0; n < 3; n++) {
        const value = values[n * count + place];
        if (!Number.isFinite(value)) throw new Error("the network gave values that are not finite");
        rgba[4 * (y * width + x) + n] = Math.fround(value * 255); // a clamped array rounds to the nearest even byte
      }
    }
  }
}
