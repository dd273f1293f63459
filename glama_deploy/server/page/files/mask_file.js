/** Read mask files as glama_deploy/inpainting/folder.py and glama_deploy/io/mask_files.py do. */
import { decodeFile } from "./decode.js";
import { TEXTS } from "../texts.js";

/** A pixel is missing if its brightest colour is above this; in a painted layer, if its alpha is above PAINTED_ABOVE. */
const BRIGHT_ABOVE = 127;
const PAINTED_ABOVE = 16;
/** A layer is painted if its pixels from this alpha on are in one colour that is not black. */
const PAINT_ALPHA = 128;
const MIN_PAINT_BRIGHTNESS = 64;
const MAX_PAINT_DIFFERENCE = 32;

/**
 * Return a file's mask {data, text} at the size of a picture: 1 for a missing pixel, and a sentence about the file.
 * Throws an Error with the code "mask" if the file cannot be a mask of the picture.
 */
export async function readMask(file, picture) {
  const { name } = file;
  const check = (isRight, text) => {
    if (!isRight) throw Object.assign(new Error(text), { code: "mask" });
  };
  const { rgba, width, height } = await decodeFile(file);
  const size = { width, height };
  check(haveOneShape(size, picture), TEXTS.maskShape(name, size, picture));
  const missing = findMissing(rgba);
  check(missing, TEXTS.maskTransparent(name));
  check(missing.includes(1), TEXTS.maskEmpty(name));
  if (width === picture.width && height === picture.height) return { data: missing, text: TEXTS.maskOpened(name) };
  return { data: scale(missing, size, picture), text: TEXTS.maskScaled(name, width, height) };
}

/** Return whether two sizes have the same proportions, up to the rounding of the smaller one. */
function haveOneShape(one, other) {
  const [small, large] = [one, other].sort((a, b) => a.width * a.height - b.width * b.height);
  const isNear = (side, scaled) => Math.abs((large[side] * small[scaled]) / large[scaled] - small[side]) <= 1;
  return isNear("height", "width") || isNear("width", "height");
}

/** Return the missing pixels; null if transparent pixels may mean missing or known. */
function findMissing(rgba) {
  const missing = new Uint8Array(rgba.length / 4);
  const [least, most] = [new Uint8Array(4).fill(255), new Uint8Array(3)]; // colours of paint, and the least alpha
  for (let at = 0; at < rgba.length; at += 4) {
    least[3] = Math.min(least[3], rgba[at + 3]);
    for (let n = 0; n < 3 && rgba[at + 3] >= PAINT_ALPHA; n++) {
      least[n] = Math.min(least[n], rgba[at + n]);
      most[n] = Math.max(most[n], rgba[at + n]);
    }
  }
  const isOpaque = least[3] === 255;
  const isOneColour = most.every((value, n) => value - least[n] <= MAX_PAINT_DIFFERENCE);
  if (!isOpaque && (least[3] > 0 || !isOneColour || Math.max(...most) < MIN_PAINT_BRIGHTNESS)) return null;
  for (let at = 0; at < rgba.length; at += 4) {
    const bright = Math.max(rgba[at], rgba[at + 1], rgba[at + 2]);
    missing[at / 4] = isOpaque ? bright > BRIGHT_ABOVE : rgba[at + 3] > PAINTED_ABOVE;
  }
  return missing;
}

/** Scale a mask: each pixel takes the value of the nearest pixel. */
function scale(missing, from, to) {
  const data = new Uint8Array(to.width * to.height);
  for (let y = 0, place = 0; y < to.height; y++) {
    const row = Math.floor(((y + 0.5) * from.height) / to.height) * from.width;
    for (let x = 0; x < to.width; x++, place++) data[place] = missing[row + Math.floor(((x + 0.5) * from.width) / to.width)];
  }
  return data;
}
