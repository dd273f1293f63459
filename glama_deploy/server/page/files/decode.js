/** Decode picture files to bytes, without a change of colours. */
import { readMetadata } from "./metadata.js";
import { isPng, readChunks, readHeader, removeChunk } from "./png.js";
import { decodePng } from "./png_background.js";
import { TEXTS } from "../texts.js";

const HAS_ALPHA = [4, 6];
const IS_GRAY = [0, 4];

/**
 * Decode a file that a person opened.
 *
 * @returns {Promise<object>} what `Picture` takes, and `notes`: sentences about what the file loses.
 */
export async function decodeFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const type = detectType(bytes) ?? file.type;
  const metadata = await readMetadata(bytes, type);
  const parts = type === "image/png" ? removeChunk(bytes, "eXIf") : [bytes]; // its checksum is wrong now
  const decoded = await decodePixels(new Blob(parts, { type }));
  if (metadata.isGray) decoded.channels = 1;
  if (metadata.isProfileDamaged) decoded.notes.push(TEXTS.profileDamaged);
  return { name: file.name || TEXTS.pastedName, type, metadata, ...decoded, ...turn(decoded, metadata.orientation) };
}

/** Turn pixels upright by EXIF's orientation: 2 to 4 mirror rows and columns, 5 to 8 exchange them, too. */
function turn({ rgba, width, height }, orientation) {
  if (!(orientation > 1 && orientation <= 8)) return { rgba, width, height };
  const isTransposed = orientation > 4;
  const [wide, high] = isTransposed ? [height, width] : [width, height];
  const isColumnMirrored = [2, 3, 7, 8].includes(orientation);
  const isRowMirrored = [3, 4, 6, 7].includes(orientation);
  const source = new Uint32Array(rgba.buffer);
  const turned = new Uint32Array(source.length);
  for (let y = 0, to = 0; y < high; y++) {
    for (let x = 0; x < wide; x++, to++) {
      const [column, row] = isTransposed ? [y, x] : [x, y];
      const from = (isRowMirrored ? height - 1 - row : row) * width + (isColumnMirrored ? width - 1 - column : column);
      turned[to] = source[from];
    }
  }
  return { rgba: new Uint8ClampedArray(turned.buffer), width: wide, height: high };
}

function detectType(bytes) {
  if (isPng(bytes)) return "image/png";
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "image/jpeg";
  const text = String.fromCharCode(...bytes.subarray(0, 12));
  return text.startsWith("RIFF") && text.endsWith("WEBP") ? "image/webp" : null;
}

/** Decode a blob to {rgba, width, height, channels, notes}. */
export async function decodePixels(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const chunks = isPng(bytes) ? readChunks(bytes) : [];
  const png = chunks.length ? readHeader(chunks) : null;
  const isTransparent = png && (HAS_ALPHA.includes(png.colourType) || chunks.some(({ type }) => type === "tRNS"));
  const colours = png && IS_GRAY.includes(png.colourType) ? 1 : 3;
  const notes = png?.depth === 16 ? [TEXTS.sixteenBit] : [];
  if (isTransparent && png.depth === 8 && !png.isInterlaced) {
    const { width, height } = png;
    return { width, height, channels: colours + 1, notes, rgba: await decodePng(chunks) };
  }
  const { rgba, width, height } = await decodeByCanvas(blob);
  const hasAlpha = png ? isTransparent : isSeeThrough(rgba);
  if (hasAlpha) notes.push(TEXTS.roundedAlpha);
  if (!readsExactly()) notes.push(TEXTS.protected);
  return { rgba, width, height, channels: colours + (hasAlpha ? 1 : 0), notes };
}

async function decodeByCanvas(blob) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { rgba: context.getImageData(0, 0, width, height).data, width, height };
}

/** Return whether a canvas gives pixels back as they were put. Some browsers change them, against fingerprints. */
function readsExactly() {
  const pixels = Uint8ClampedArray.from({ length: 4 * 32 * 32 }, (_, place) => (place % 4 === 3 ? 255 : (37 * place) % 256));
  const context = new OffscreenCanvas(32, 32).getContext("2d");
  context.putImageData(new ImageData(pixels, 32), 0, 0);
  return context.getImageData(0, 0, 32, 32).data.every((value, place) => value === pixels[place]);
}

function isSeeThrough(rgba) {
  for (let place = 3; place < rgba.length; place += 4) if (rgba[place] !== 255) return true;
  return false;
}
