/**
 * Read and write PNG files byte by byte. A canvas cannot do so: it multiplies colours with alpha, and loses chunks.
 */

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const COLOUR_TYPES = { 1: 0, 2: 4, 3: 2, 4: 6 };
const PALETTE = 3;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function computeCrc(bytes) {
  let crc = ~0;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const pipe = async (bytes, stream) =>
  new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
export const deflate = (bytes) => pipe(bytes, new CompressionStream("deflate"));
export const inflate = (bytes) => pipe(bytes, new DecompressionStream("deflate"));

export const isPng = (bytes) => SIGNATURE.every((value, place) => bytes[place] === value);

/** Return the chunks {type, data} of a PNG file. */
export function readChunks(bytes) {
  const chunks = [];
  const view = viewOf(bytes);
  for (let at = SIGNATURE.length; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    chunks.push({ type, data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return chunks;
}

/** Return the parts of a PNG file without the first chunk of a type. */
export function removeChunk(bytes, type) {
  const data = readChunks(bytes).find((chunk) => chunk.type === type)?.data;
  if (!data) return [bytes];
  const start = data.byteOffset - bytes.byteOffset - 8;
  return [bytes.subarray(0, start), bytes.subarray(start + 12 + data.length)];
}

/** Return the header {width, height, depth, colourType, isInterlaced} of a PNG's chunks. */
export function readHeader(chunks) {
  const data = chunks[0].data;
  const view = viewOf(data);
  const [depth, colourType, isInterlaced] = [data[8], data[9], data[12] === 1];
  return { width: view.getUint32(0), height: view.getUint32(4), depth, colourType, isInterlaced };
}

function writeChunk({ type, data }) {
  const chunk = new Uint8Array(12 + data.length);
  viewOf(chunk).setUint32(0, data.length);
  chunk.set([...type].map((letter) => letter.charCodeAt(0)), 4);
  chunk.set(data, 8);
  viewOf(chunk).setUint32(8 + data.length, computeCrc(chunk.subarray(4, 8 + data.length)));
  return chunk;
}

/**
 * Encode a picture {rgba, width, height, channels} without loss. Gray pictures have equal red, green and blue; of others
 * the brightness is taken.
 *
 * @param {{type: string, data: Uint8Array}[]} extra chunks to write before the pixels.
 * @returns {Promise<Blob>}
 */
export function encodePng({ rgba, width, height, channels }, extra = []) {
  const bytes = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; to < bytes.length; from += 4) {
    if (channels > 2) {
      bytes[to++] = rgba[from];
      bytes[to++] = rgba[from + 1];
      bytes[to++] = rgba[from + 2];
    } else bytes[to++] = (rgba[from] * 19595 + rgba[from + 1] * 38470 + rgba[from + 2] * 7471 + 0x8000) >> 16;
    if (channels % 2 === 0) bytes[to++] = rgba[from + 3];
  }
  return encodeBytes(bytes, width, height, channels, extra);
}

/** Encode a mask (1 is missing) as black and white. */
export const encodePngGray = (mask, width, height) =>
  encodeBytes(mask.map((value) => 255 * value), width, height, 1, []);

async function encodeBytes(bytes, width, height, channels, extra) {
  const header = new Uint8Array(13);
  viewOf(header).setUint32(0, width);
  viewOf(header).setUint32(4, height);
  header.set([8, COLOUR_TYPES[channels], 0, 0, 0], 8);
  const data = await deflate(filterRows(bytes, width * channels, channels));
  const chunks = [{ type: "IHDR", data: header }, ...extra, { type: "IDAT", data }, { type: "IEND", data: [] }];
  return new Blob([new Uint8Array(SIGNATURE), ...chunks.map(writeChunk)], { type: "image/png" });
}

function paeth(left, up, corner) {
  const a = Math.abs(up - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + up - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** Write each row as the difference from what its neighbours predict (filter 4, Paeth). */
function filterRows(bytes, row, step) {
  const filtered = new Uint8Array((bytes.length / row) * (row + 1));
  for (let start = 0, to = 0; start < bytes.length; start += row) {
    filtered[to++] = 4;
    for (let place = start; place < start + row; place++) {
      const left = place - start >= step ? bytes[place - step] : 0;
      const up = start ? bytes[place - row] : 0;
      const corner = start && place - start >= step ? bytes[place - row - step] : 0;
      filtered[to++] = bytes[place] - paeth(left, up, corner);
    }
  }
  return filtered;
}

/**
 * Decode a PNG of 8 bits that is not interlaced.
 *
 * @returns {Promise<Uint8ClampedArray>} RGBA, with the colours of transparent pixels as they are in the file.
 */
export async function decodePng(chunks) {
  const { width, height, colourType } = readHeader(chunks);
  const find = (type) => chunks.find((chunk) => chunk.type === type)?.data;
  const step = CHANNELS[colourType];
  const packed = new Blob(chunks.filter((chunk) => chunk.type === "IDAT").map((chunk) => chunk.data));
  const bytes = restoreRows(await inflate(packed), width * step, height, step);
  const [palette, transparent] = [find("PLTE"), find("tRNS")];
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let place = 0; place < width * height; place++) {
    const from = place * step;
    const [values, at] = colourType === PALETTE ? [palette, 3 * bytes[from]] : [bytes, from];
    const isGray = step < 3 && colourType !== PALETTE;
    for (let n = 0; n < 3; n++) rgba[4 * place + n] = values[isGray ? at : at + n];
    let alpha = step % 2 ? 255 : bytes[from + step - 1];
    if (transparent && colourType === PALETTE) alpha = transparent[bytes[from]] ?? 255;
    else if (transparent && step % 2 && isSame(bytes, from, step, transparent)) alpha = 0;
    rgba[4 * place + 3] = alpha;
  }
  return rgba;
}

const isSame = (bytes, from, step, transparent) => {
  for (let n = 0; n < step; n++) if (bytes[from + n] !== transparent[2 * n + 1]) return false;
  return true;
};

function restoreRows(filtered, row, height, step) {
  const bytes = new Uint8Array(row * height);
  for (let y = 0, from = 0; y < height; y++) {
    const filter = filtered[from++];
    for (let x = 0; x < row; x++) {
      const place = y * row + x;
      const left = x >= step ? bytes[place - step] : 0;
      const up = y ? bytes[place - row] : 0;
      const corner = y && x >= step ? bytes[place - row - step] : 0;
      let predicted = 0;
      if (filter === 1) predicted = left;
      else if (filter === 2) predicted = up;
      else if (filter === 3) predicted = (left + up) >> 1;
      else if (filter === 4) predicted = paeth(left, up, corner);
      bytes[place] = filtered[from++] + predicted;
    }
  }
  return bytes;
}
