/**
 * EXIF, XMP and colour profile: read from a file, tidied, and put into the encoded result.
 *
 * A page's pixels are upright, so the orientation is reset. Thumbnails are removed: they show what was removed.
 */
import { deflate, inflate, readChunks } from "./png.js";

const EXIF = "Exif\0\0";
const XMP = "http://ns.adobe.com/xap/1.0/\0";
const ICC = "ICC_PROFILE\0";
const PNG_XMP = "XML:com.adobe.xmp\0\0\0\0\0";
/** Chunks of a PNG that describe its colours and its owner. */
const KEPT_CHUNKS = ["gAMA", "cHRM", "sRGB", "cICP", "pHYs", "tEXt", "zTXt", "iTXt"];
const MAX_SEGMENT_BYTES = 65533;
const TAG = { orientation: 0x0112, thumbnailStart: 0x0201, thumbnailLength: 0x0202 };

const toBytes = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
/** One letter a byte. A browser's decoder of "latin1" is that of windows-1252, and changes bytes. */
const toText = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
const startsWith = (bytes, text) => toText(bytes.subarray(0, text.length)) === text;
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function join(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/**
 * Read what a file says about its picture, and reset the orientation in `bytes`, so that no decoder turns the picture.
 *
 * @returns {Promise<{exif: ?Uint8Array, xmp: ?Uint8Array, icc: ?Uint8Array, density: ?Uint8Array, chunks: object[],
 *   isGray: boolean, isProfileDamaged: boolean, orientation: number}>} TIFF bytes, XML, the profile, a JPEG's APP0, a PNG's
 *   other chunks, whether a JPEG is gray, whether a profile was left out, and the orientation (1 to 8, as EXIF has it).
 */
export async function readMetadata(bytes, type) {
  const found = { exif: null, xmp: null, icc: null, density: null, chunks: [], orientation: 1 };
  Object.assign(found, { isGray: false, isProfileDamaged: false });
  if (type === "image/jpeg") readJpeg(bytes, found);
  else if (type === "image/png") await readPng(bytes, found);
  else if (type === "image/webp") readWebp(bytes, found);
  if (found.exif) Object.assign(found, tidyExif(found.exif));
  if (found.xmp) found.xmp = tidyXmp(found.xmp);
  return found;
}

/** Return the segments {marker, data} of a JPEG up to its pixels, and the place where the pixels start. */
function readSegments(bytes) {
  const segments = [];
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda) {
    const length = viewOf(bytes).getUint16(at + 2);
    segments.push({ marker: bytes[at + 1], data: bytes.subarray(at + 4, at + 2 + length) });
    at += 2 + length;
  }
  return { segments, end: at };
}

function readJpeg(bytes, found) {
  const parts = [];
  for (const { marker, data } of readSegments(bytes).segments) {
    if (marker === 0xe0 && startsWith(data, "JFIF\0")) found.density = data.slice(0, 12);
    else if (marker === 0xe1 && startsWith(data, EXIF)) found.exif ??= data.subarray(EXIF.length);
    else if (marker === 0xe1 && startsWith(data, XMP)) found.xmp ??= data.slice(XMP.length);
    else if (marker === 0xe2 && startsWith(data, ICC)) parts[data[ICC.length]] = data.slice(ICC.length + 2);
    else if (marker >= 0xc0 && marker <= 0xc2) found.isGray = data[5] === 1;
  }
  if (parts.length) found.icc = join(parts.filter(Boolean));
}

async function readPng(bytes, found) {
  for (const { type, data } of readChunks(bytes)) {
    if (type === "eXIf") found.exif = data;
    else if (type === "iCCP") Object.assign(found, await readProfile(data));
    else if (type === "iTXt" && startsWith(data, PNG_XMP)) found.xmp = data.slice(PNG_XMP.length);
    else if (KEPT_CHUNKS.includes(type)) found.chunks.push({ type, data: data.slice() });
  }
}

async function readProfile(data) {
  try {
    return { icc: await inflate(data.subarray(data.indexOf(0) + 2)) };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return { isProfileDamaged: true }; // not deflated data
  }
}

function readWebp(bytes, found) {
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = viewOf(bytes).getUint32(at + 4, true);
    const data = bytes.subarray(at + 8, at + 8 + length);
    const name = toText(bytes.subarray(at, at + 4));
    if (name === "EXIF") found.exif = startsWith(data, EXIF) ? data.subarray(EXIF.length) : data;
    else if (name === "ICCP") found.icc = data.slice();
    else if (name === "XMP ") found.xmp = data.slice();
    at += 8 + length + (length % 2);
  }
}

/**
 * Reset the orientation and remove the thumbnail, in the given bytes.
 *
 * @returns {{exif: ?Uint8Array, orientation: number}} a copy of the bytes, or null for EXIF that cannot be read.
 */
function tidyExif(exif) {
  const view = viewOf(exif);
  const isLittle = exif[0] === 0x49;
  const short = (at) => view.getUint16(at, isLittle);
  const long = (at) => view.getUint32(at, isLittle);
  let orientation = 1;
  try {
    if (short(2) !== 42) return { exif: null, orientation };
    const first = long(4);
    for (const entry of listEntries(first)) {
      if (short(entry) !== TAG.orientation) continue;
      orientation = short(entry + 8);
      view.setUint16(entry + 8, 1, isLittle);
    }
    const link = first + 2 + 12 * short(first);
    const thumbnail = {};
    if (long(link)) for (const entry of listEntries(long(link))) thumbnail[short(entry)] = long(entry + 8);
    const start = thumbnail[TAG.thumbnailStart];
    if (start) exif.fill(0, start, start + thumbnail[TAG.thumbnailLength]);
    view.setUint32(link, 0, isLittle);
    return { exif: exif.slice(), orientation };
  } catch (error) {
    if (error instanceof RangeError) return { exif: null, orientation }; // an offset beyond the end
    throw error;
  }

  function listEntries(directory) {
    return Array.from({ length: short(directory) }, (_, number) => directory + 2 + 12 * number);
  }
}

function tidyXmp(xmp) {
  const text = toText(xmp);
  if (text.includes("xmpGImg:image")) return null; // a thumbnail
  return toBytes(text.replace(/(tiff:Orientation(?:="|>))[2-8]/g, (_, start) => `${start}1`));
}

/** Return the profile if it belongs to colours of red, green and blue (or to gray, where the result is gray). */
const matchProfile = (icc, isGray) => (icc && startsWith(icc.subarray(16), isGray ? "GRAY" : "RGB ") ? icc : null);

/** Return a JPEG with the metadata in place of what the encoder wrote. */
export function addToJpeg(bytes, { exif, xmp, icc, density }) {
  const { segments, end } = readSegments(bytes);
  const parts = [bytes.subarray(0, 2)];
  const write = (marker, ...data) => {
    const length = data.reduce((sum, part) => sum + part.length, 2);
    if (length > MAX_SEGMENT_BYTES + 2) return; // no segment may be longer
    parts.push(Uint8Array.of(0xff, marker, length >> 8, length & 255), ...data);
  };
  const own = segments.find(({ marker }) => marker === 0xe0)?.data;
  const header = density ? join([density, Uint8Array.of(0, 0)]) : own;
  if (header) write(0xe0, header);
  if (exif) write(0xe1, toBytes(EXIF), exif);
  if (xmp) write(0xe1, toBytes(XMP), xmp);
  const profile = matchProfile(icc, false);
  const room = MAX_SEGMENT_BYTES - ICC.length - 2;
  const count = profile ? Math.ceil(profile.length / room) : 0;
  for (let number = 0; number < count; number++) {
    const part = profile.subarray(number * room, (number + 1) * room);
    write(0xe2, toBytes(ICC), Uint8Array.of(number + 1, count), part);
  }
  for (const { marker, data } of segments) if (marker < 0xe0 || marker > 0xe2) write(marker, data);
  return join([...parts, bytes.subarray(end)]);
}

/** Return the chunks of a PNG with the metadata. */
export async function makeChunks({ exif, xmp, icc, chunks }, isGray) {
  const made = [...chunks];
  const profile = matchProfile(icc, isGray);
  if (profile) made.unshift({ type: "iCCP", data: join([toBytes("profile\0\0"), await deflate(profile)]) });
  if (exif) made.push({ type: "eXIf", data: exif });
  if (xmp) made.push({ type: "iTXt", data: join([toBytes(PNG_XMP), xmp]) });
  return made;
}
