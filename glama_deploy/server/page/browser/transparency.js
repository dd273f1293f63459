/**
 * Fill pictures with transparency by the rules of glama_deploy/inpainting/transparency.py, which explains them.
 * Planes are arrays with one value a pixel, or several (`channels`), row by row. Pure functions.
 */
import { grow, heightOf, intersect, makeRect, widthOf } from "../picture/rects.js";
import { findBounds } from "./pixels.js";

const VISIBLE_ALPHA = 8;
const ALPHA_NOISE = 8;
const HALF_ALPHA = 127.5;
const CELL_DOUBLINGS = 4;
const SPREAD_CELL_PIXELS = 4;
const CONTEXT_PIXELS = 64;
const LEAST_WEIGHT = 1e-6;

/** Return a picture's pixels, filled in colours and alpha. `fill(rgba)` fills the missing pixels' colours. */
export async function fillTransparent(fill, { rgba, width, height }, mask) {
  const alpha = Uint8ClampedArray.from(mask, (_, place) => rgba[4 * place + 3]);
  const isOpaque = alpha.every((value, place) => mask[place] || value === 255);
  const shown = isOpaque ? rgba : spreadColours(rgba, width, height, (place) => !mask[place] && alpha[place]);
  const filled = await fill(shown);
  const alphas = isOpaque ? alpha.map(() => 255) : await fillAlpha(fill, alpha, width, height, mask);
  const result = rgba.slice();
  for (let place = 0; place < mask.length; place++) {
    if (!mask[place]) continue;
    result.set(filled.subarray(4 * place, 4 * place + 3), 4 * place);
    result[4 * place + 3] = alphas[place];
  }
  return result;
}

/** Return the pixels with the colours of visible ones spread over invisible ones. */
function spreadColours(rgba, width, height, readAlpha) {
  const hidden = Uint8Array.from({ length: width * height }, (_, place) => (readAlpha(place) < VISIBLE_ALPHA ? 1 : 0));
  if (!hidden.includes(1) || !hidden.includes(0)) return rgba;
  const side = SPREAD_CELL_PIXELS;
  const [wide, high] = [Math.ceil(width / side), Math.ceil(height / side)];
  const [weights, colours] = [new Float32Array(wide * high), new Float32Array(3 * wide * high)];
  const counts = new Float32Array(wide * high);
  eachPixel(width, height, (place, x, y) => {
    const cell = Math.floor(y / side) * wide + Math.floor(x / side);
    counts[cell]++;
    if (hidden[place]) return;
    weights[cell]++;
    for (let n = 0; n < 3; n++) colours[3 * cell + n] += rgba[4 * place + n];
  });
  for (let cell = 0; cell < counts.length; cell++) {
    for (let n = 0; n < 3; n++) colours[3 * cell + n] /= Math.max(weights[cell], LEAST_WEIGHT);
    weights[cell] /= counts[cell];
  }
  const smooth = Uint8ClampedArray.from(pushPull(colours, weights, wide, high, 3));
  const result = rgba.slice();
  const sample = (pixel, scale, most) => {
    const at = Math.min(Math.max((pixel + 0.5) * scale - 0.5, 0), most);
    return [Math.floor(at), Math.min(Math.floor(at) + 1, most), at % 1];
  };
  eachPixel(width, height, (place, x, y) => {
    if (!hidden[place]) return;
    const [left, right, across] = sample(x, wide / width, wide - 1);
    const [top, bottom, down] = sample(y, high / height, high - 1);
    for (let n = 0; n < 3; n++) {
      const mix = (row) => (1 - across) * smooth[3 * (row * wide + left) + n] + across * smooth[3 * (row * wide + right) + n];
      result[4 * place + n] = (1 - down) * mix(top) + down * mix(bottom);
    }
  });
  return result;
}

async function fillAlpha(fill, alpha, width, height, mask) {
  if (!mask.includes(0)) return alpha.map(() => 255);
  const partial = findReached((place) => alpha[place] < 255, width, height, mask);
  const visible = findReached((place) => alpha[place] > 0, width, height, mask);
  const filled = alpha.map((value, place) => (!mask[place] ? value : visible[place] ? 255 : 0));
  const unclear = partial.map((value, place) => value & visible[place]);
  if (!unclear.includes(1)) return filled;
  const gray = new Uint8ClampedArray(4 * mask.length);
  for (let place = 0; place < mask.length; place++) gray.fill(mask[place] ? 0 : filled[place], 4 * place, 4 * place + 4);
  const found = await fill(gray);
  const here = intersect(grow(findBounds(unclear, width, height), CONTEXT_PIXELS), makeRect(0, 0, width, height));
  const size = [widthOf(here), heightOf(here)];
  const crop = (Type, read) => {
    const part = new Type(size[0] * size[1]);
    eachPixel(...size, (place, x, y) => (part[place] = read((here.top + y) * width + here.left + x)));
    return part;
  };
  const values = crop(Float32Array, (place) => (found[4 * place] + found[4 * place + 1] + found[4 * place + 2]) / 3);
  const known = crop(Uint8Array, (place) => 1 - mask[place]);
  const sharp = sharpenEdges(values, crop(Uint8Array, (place) => alpha[place]), known, ...size);
  eachPixel(...size, (place, x, y) => {
    const whole = (here.top + y) * width + here.left + x;
    if (unclear[whole]) filled[whole] = sharp[place];
  });
  return filled;
}

function sharpenEdges(values, alpha, known, width, height) {
  const partial = known.map((value, place) => value & (alpha[place] > ALPHA_NOISE && alpha[place] < 255 - ALPHA_NOISE));
  if (!partial.includes(1)) return Uint8ClampedArray.from(values, (value) => (value < HALF_ALPHA ? 0 : 255));
  const edges = new Uint8Array(known.length);
  eachPixel(width, height, (place, x, y) => {
    const before = [...(x ? [place - 1] : []), ...(y ? [place - width] : [])];
    for (const other of before) {
      if (alpha[other] >= HALF_ALPHA !== alpha[place] >= HALF_ALPHA) {
        edges[place] = known[place];
        edges[other] = known[other];
      }
    }
  });
  const share = judgeHardness(partial, edges, width, height);
  const slope = (place, step, at, side) => {
    const [before, after] = [at > 0 ? place - step : place, at < side - 1 ? place + step : place];
    return (values[after] - values[before]) / ((after - before) / step);
  };
  const result = new Uint8ClampedArray(values.length);
  eachPixel(width, height, (place, x, y) => {
    const value = values[place];
    const step = Math.max(Math.hypot(slope(place, width, y, height), slope(place, 1, x, width)), 1e-3);
    const hard = 255 * Math.min(Math.max((value - HALF_ALPHA) / step + 0.5, 0), 1);
    const soft = value < ALPHA_NOISE ? 0 : value > 255 - ALPHA_NOISE ? 255 : value;
    result[place] = soft + (hard - soft) * share[place];
  });
  return result;
}

/** Return how hard the known edges near each pixel are, from 0 (soft) to 1 (hard). */
function judgeHardness(partial, edges, width, height) {
  const side = 2 ** CELL_DOUBLINGS;
  let [wide, high] = [Math.ceil(width / side), Math.ceil(height / side)];
  const sumAround = (where) => {
    const sums = new Float32Array(wide * high);
    eachPixel(width, height, (place, x, y) => {
      if (!where[place]) return;
      const [column, row] = [Math.floor(x / side), Math.floor(y / side)];
      for (let r = Math.max(0, row - 1); r <= Math.min(high - 1, row + 1); r++) {
        for (let c = Math.max(0, column - 1); c <= Math.min(wide - 1, column + 1); c++) sums[r * wide + c]++;
      }
    });
    return sums;
  };
  const [soft, both] = [sumAround(partial), sumAround(edges)];
  const isHard = soft.map((count, cell) => (count <= both[cell] ? 1 : 0));
  let share = pushPull(isHard, soft.map((count, cell) => (count + both[cell] > 0 ? 1 : 0)), wide, high, 1);
  for (let n = 0; n < CELL_DOUBLINGS; n++) {
    share = double(share, wide, high, 1, 2 * wide, 2 * high);
    [wide, high] = [2 * wide, 2 * high];
  }
  return Float32Array.from({ length: width * height }, (_, place) => share[Math.floor(place / width) * wide + (place % width)]);
}

/** Return colours in which a colour of weight below 1 passes into its surroundings. */
function pushPull(colours, weights, width, height, channels) {
  if (Math.min(width, height) < 2 || weights.every((weight) => weight === 1)) {
    const total = Math.max(weights.reduce((sum, weight) => sum + weight, 0), LEAST_WEIGHT);
    const mean = new Float64Array(channels);
    colours.forEach((value, place) => (mean[place % channels] += (value * weights[Math.floor(place / channels)]) / total));
    return colours.map((value, place) => {
      const weight = weights[Math.floor(place / channels)];
      return value * weight + mean[place % channels] * (1 - weight);
    });
  }
  const [wide, high] = [Math.ceil(width / 2), Math.ceil(height / 2)];
  const [coarse, total] = [new Float32Array(channels * wide * high), new Float32Array(wide * high)];
  eachPixel(width, height, (place, x, y) => {
    const cell = (y >> 1) * wide + (x >> 1);
    total[cell] += weights[place];
    for (let n = 0; n < channels; n++) coarse[channels * cell + n] += weights[place] * colours[channels * place + n];
  });
  const means = coarse.map((value, place) => value / Math.max(total[Math.floor(place / channels)], LEAST_WEIGHT));
  const lighter = total.map((weight) => Math.min(weight, 1));
  const smooth = double(pushPull(means, lighter, wide, high, channels), wide, high, channels, width, height);
  return smooth.map((value, place) => value + (colours[place] - value) * weights[Math.floor(place / channels)]);
}

/** Return values at twice the resolution, interpolated linearly, cut to a width and a height. */
function double(values, wide, high, channels, width, height) {
  const result = new Float32Array(channels * width * height);
  const beside = (pixel, side) => Math.min(Math.max((pixel >> 1) + (pixel % 2 ? 1 : -1), 0), side - 1);
  eachPixel(width, height, (place, x, y) => {
    const [near, far] = [(y >> 1) * wide, beside(y, high) * wide];
    const [here, there] = [x >> 1, beside(x, wide)];
    for (let n = 0; n < channels; n++) {
      const read = (row) => 0.75 * values[channels * (row + here) + n] + 0.25 * values[channels * (row + there) + n];
      result[channels * place + n] = 0.75 * read(near) + 0.25 * read(far);
    }
  });
  return result;
}

/** Return 1 for each missing pixel that a path of missing pixels joins to a known one for which `isSeed` holds. */
function findReached(isSeed, width, height, mask) {
  const found = new Uint8Array(mask.length);
  const list = (place) => {
    const x = place % width;
    const beside = [...(x > 0 ? [place - 1] : []), ...(x < width - 1 ? [place + 1] : [])];
    return [...beside, place - width, place + width].filter((other) => other >= 0 && other < mask.length);
  };
  const front = [];
  for (let place = 0; place < mask.length; place++) if (!mask[place] && isSeed(place)) front.push(place);
  while (front.length) {
    for (const other of list(front.pop())) {
      if (!mask[other] || found[other]) continue;
      found[other] = 1;
      front.push(other);
    }
  }
  return found;
}

function eachPixel(width, height, visit) {
  for (let y = 0, place = 0; y < height; y++) for (let x = 0; x < width; x++, place++) visit(place, x, y);
}
