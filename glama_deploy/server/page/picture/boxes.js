/**
 * Boxes: the parts of a picture that a network is shown to fill its holes. The rules are those of
 * glama_deploy/inpainting/boxes.py. A hole is the bounding box of missing pixels whose 16×16 cells touch. A box shows a
 * hole with its context. Its edges lie at multiples of 8, as far as the picture goes. Pure functions, without DOM.
 */
import { grow, heightOf, makeRect, unite, widthOf } from "./rects.js";

export const CELL_PIXELS = 16;
export const SIDE_MULTIPLE = 8;
export const MIN_SIDE_PIXELS = 16;
export const MIN_CONTEXT_PIXELS = 64;
export const CONTEXT_SHARE = 0.5;
/** The most context: these pixels, or this share of the hole's shorter side. */
export const MAX_CONTEXT_PIXELS = 128;
export const MAX_CONTEXT_SHARE = 0.25;
/** Cost of a box beside its pixels, in pixels. */
export const BOX_OVERHEAD_PIXELS = 64 * 64;
/** Boxes that are farther from each other are not joined. */
const REACH_PIXELS = 64;
/** Holes share a box of more pixels only where a hole needs one as large. */
export const LARGE_BOX_PIXELS = 1024 * 1024;
/** More holes than these are shown in one box, and the engine divides the box. */
const MAX_HOLES = 100;

/** Return the boxes {hole, need, span} that together contain all missing pixels of a mask {data, width, height}. */
export function planBoxes(mask) {
  const holes = findHoles(mask);
  const boxes = holes.map((hole) => makeBox(hole, findNeed(hole), mask));
  if (boxes.length > MAX_HOLES) return [boxes.reduce((one, other) => joinBoxes(one, other, mask))];
  return mergeBoxes(boxes, mask);
}

/** Return the bounding box of each hole, in the order of the holes' first cells. */
export function findHoles({ data, width, height }) {
  const wide = Math.ceil(width / CELL_PIXELS);
  const high = Math.ceil(height / CELL_PIXELS);
  const cells = new Array(wide * high).fill(null);
  for (let y = 0; y < height; y++) {
    const row = data.subarray(y * width, (y + 1) * width);
    for (let x = row.indexOf(1); x >= 0; x = row.indexOf(1, x + 1)) {
      const cell = Math.floor(y / CELL_PIXELS) * wide + Math.floor(x / CELL_PIXELS);
      const bounds = (cells[cell] ??= makeRect(x, y, x + 1, y + 1));
      bounds.left = Math.min(bounds.left, x);
      bounds.right = Math.max(bounds.right, x + 1);
      bounds.bottom = y + 1;
    }
  }
  const holes = [];
  for (let first = 0; first < cells.length; first++) if (cells[first]) holes.push(takeHole(cells, first, wide, high));
  return holes;
}

/** Remove the cells of one hole, and return its bounding box. */
function takeHole(cells, first, wide, high) {
  let hole = null;
  const left = [first];
  while (left.length) {
    const cell = left.pop();
    if (!cells[cell]) continue;
    hole = unite(hole, cells[cell]);
    cells[cell] = null;
    const column = cell % wide;
    const row = (cell - column) / wide;
    for (let y = Math.max(0, row - 1); y <= Math.min(high - 1, row + 1); y++) {
      for (let x = Math.max(0, column - 1); x <= Math.min(wide - 1, column + 1); x++) left.push(y * wide + x);
    }
  }
  return hole;
}

/** Return the pixels of context on each side of a hole. */
export function contextMargin(hole) {
  const [shorter, longer] = [widthOf(hole), heightOf(hole)].sort((one, other) => one - other);
  const most = Math.max(MAX_CONTEXT_PIXELS, roundHalfToEven(MAX_CONTEXT_SHARE * shorter));
  return Math.max(MIN_CONTEXT_PIXELS, Math.min(most, roundHalfToEven(CONTEXT_SHARE * longer)));
}

/** Return a hole with its context. Its edges are moved to the nearest multiples of 8. */
export function findNeed(hole) {
  const { left, top, right, bottom } = grow(hole, contextMargin(hole));
  const round = (edge) => Math.floor(edge / SIDE_MULTIPLE + 0.5) * SIDE_MULTIPLE;
  return makeRect(round(left), round(top), round(right), round(bottom));
}

/** Round as Python does. */
function roundHalfToEven(value) {
  return value % 1 === 0.5 ? 2 * Math.round(value / 2) : Math.round(value);
}

function makeBox(hole, need, size) {
  const [left, right] = placeSide(need.left, need.right, size.width);
  const [top, bottom] = placeSide(need.top, need.bottom, size.height);
  return { hole, need, span: makeRect(left, top, right, bottom) };
}

/** Return the first and the last pixel (exclusive) of a box along one axis, moved to lie within the picture. */
function placeSide(start, stop, extent) {
  const side = Math.min(extent, stop - start);
  const first = Math.min(Math.max(0, start), extent - side);
  return [first, first + side];
}

const countPixels = (box) => widthOf(box.span) * heightOf(box.span);
const joinBoxes = (one, other, size) => makeBox(unite(one.hole, other.hole), unite(one.need, other.need), size);

/** Join boxes within reach of each other where one box costs less than two: first the two that save most. */
function mergeBoxes(boxes, size) {
  const most = Math.max(LARGE_BOX_PIXELS, ...boxes.map(countPixels));
  const left = [...boxes];
  for (;;) {
    let best = { saved: 0 };
    for (const [n, one] of left.entries()) {
      for (const other of left.slice(n + 1)) {
        if (findGap(one.span, other.span) > REACH_PIXELS) continue;
        const joined = joinBoxes(one, other, size);
        const saved = countPixels(one) + countPixels(other) + BOX_OVERHEAD_PIXELS - countPixels(joined);
        if (saved > best.saved && countPixels(joined) <= most) best = { saved, one, other, joined };
      }
    }
    if (!best.joined) return left.sort((one, other) => one.hole.top - other.hole.top || one.hole.left - other.hole.left);
    for (const box of [best.one, best.other]) left.splice(left.indexOf(box), 1);
    left.push(best.joined);
  }
}

/** Return the pixels between two rectangles along the axis with the larger gap; below 0 where they overlap. */
const findGap = (a, b) => Math.max(a.top - b.bottom, b.top - a.bottom, a.left - b.right, b.left - a.right);

/** Return the rows and columns to add at the bottom and right, so that an engine takes a size. */
export function computePadding(width, height) {
  const side = (pixels) => Math.max(MIN_SIDE_PIXELS, Math.ceil(pixels / SIDE_MULTIPLE) * SIDE_MULTIPLE) - pixels;
  return { right: side(width), bottom: side(height) };
}

/** Return an array of `channels` bytes a pixel, padded by its reflection (the edge pixel is repeated first). */
export function padSymmetric(data, width, height, channels, { right, bottom }) {
  const mirror = (place, side) => (place % (2 * side) < side ? place % side : side - 1 - (place % side));
  const padded = new data.constructor((width + right) * (height + bottom) * channels);
  for (let y = 0; y < height + bottom; y++) {
    const from = mirror(y, height) * width;
    for (let x = 0; x < width + right; x++) {
      const source = (from + mirror(x, width)) * channels;
      for (let n = 0; n < channels; n++) padded[(y * (width + right) + x) * channels + n] = data[source + n];
    }
  }
  return padded;
}

/** Return the RGBA pixels of a rectangle. */
export function cropPixels(rgba, width, rect) {
  const part = new Uint8ClampedArray(4 * widthOf(rect) * heightOf(rect));
  for (let y = rect.top; y < rect.bottom; y++) {
    const start = 4 * (y * width + rect.left);
    part.set(rgba.subarray(start, start + 4 * widthOf(rect)), 4 * (y - rect.top) * widthOf(rect));
  }
  return part;
}

/**
 * Copy the missing pixels of a box's hole from the filled box into a picture.
 *
 * `left` holds 1 where a pixel is still missing, and is set to 0 where a pixel was copied: where holes overlap, the first
 * one fills.
 */
export function compositeBox(rgba, width, left, box, filled) {
  const { hole, span } = box;
  for (let y = hole.top; y < hole.bottom; y++) {
    for (let x = hole.left; x < hole.right; x++) {
      const place = y * width + x;
      if (!left[place]) continue;
      left[place] = 0;
      const source = 4 * ((y - span.top) * widthOf(span) + x - span.left);
      for (let n = 0; n < 4; n++) rgba[4 * place + n] = filled[source + n];
    }
  }
}
