/**
 * Draw hard-edged shapes into mask data (Uint8Array, one byte a pixel, 0 known and 1 missing). Each function returns the
 * rectangle that may have changed. A pixel belongs to a shape if its centre lies in the shape.
 */
import { intersect, isEmpty, makeRect } from "./rects.js";

const cut = (size, left, top, right, bottom) =>
  intersect(
    makeRect(0, 0, size.width, size.height),
    makeRect(Math.floor(left), Math.floor(top), Math.ceil(right), Math.ceil(bottom)),
  );

/** Draw a line with round ends. `from` and `to` are {x, y, radius}; the radius changes evenly between them. */
export function drawLine(data, size, from, to, value) {
  const most = Math.max(from.radius, to.radius, 0.5);
  const area = cut(
    size,
    Math.min(from.x, to.x) - most,
    Math.min(from.y, to.y) - most,
    Math.max(from.x, to.x) + most,
    Math.max(from.y, to.y) + most,
  );
  const dx = to.x - from.x;
  const dy = to.y - from.y;
  const square = dx * dx + dy * dy || 1;
  for (let y = area.top; y < area.bottom; y++) {
    for (let x = area.left; x < area.right; x++) {
      const px = x + 0.5 - from.x;
      const py = y + 0.5 - from.y;
      const t = Math.min(1, Math.max(0, (px * dx + py * dy) / square));
      const radius = Math.max(0.5, from.radius + t * (to.radius - from.radius));
      if ((px - t * dx) ** 2 + (py - t * dy) ** 2 <= radius * radius) data[y * size.width + x] = value;
    }
  }
  return area;
}

/** Fill a polygon by the even-odd rule. `points` is a list of {x, y}; the last point joins the first. */
export function fillPolygon(data, size, points, value) {
  const xs = points.map((point) => point.x);
  const ys = points.map((point) => point.y);
  const area = cut(size, Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
  for (let y = area.top; y < area.bottom; y++) {
    const crossings = [];
    points.forEach((a, n) => {
      const b = points[(n + 1) % points.length];
      if (a.y > y + 0.5 !== b.y > y + 0.5) crossings.push(a.x + ((y + 0.5 - a.y) / (b.y - a.y)) * (b.x - a.x));
    });
    crossings.sort((one, other) => one - other);
    for (let n = 0; n + 1 < crossings.length; n += 2) {
      const first = Math.max(area.left, Math.ceil(crossings[n] - 0.5));
      const last = Math.min(area.right, Math.ceil(crossings[n + 1] - 0.5));
      if (first < last) data.fill(value, y * size.width + first, y * size.width + last);
    }
  }
  return area;
}

/** Fill the rectangle between two corners {x, y}. */
export function fillRectangle(data, size, one, other, value) {
  const area = cut(
    size,
    Math.min(one.x, other.x),
    Math.min(one.y, other.y),
    Math.max(one.x, other.x),
    Math.max(one.y, other.y),
  );
  for (let y = area.top; y < area.bottom && !isEmpty(area); y++) {
    data.fill(value, y * size.width + area.left, y * size.width + area.right);
  }
  return area;
}

/** Give `value` to every pixel that has a pixel of `value` within `pixels` rows and columns. */
export function spread(data, size, pixels, value) {
  const { width, height } = size;
  for (let y = 0; y < height; y++) spreadLine(data, y * width, 1, width, pixels, value);
  for (let x = 0; x < width; x++) spreadLine(data, x, width, height, pixels, value);
  return makeRect(0, 0, width, height);
}

function spreadLine(data, start, step, count, pixels, value) {
  const paint = (from, to) => {
    for (let n = Math.max(0, from); n < to; n++) data[start + n * step] = value;
  };
  let last = -Infinity; // the last pixel that had the value before; only pixels behind `n` are painted
  for (let n = 0; n <= count; n++) {
    if (n < count && data[start + n * step] !== value) continue;
    if (last >= 0) paint(last + 1, Math.min(last + 1 + pixels, n));
    if (n < count) paint(Math.max(last + 1, n - pixels), n);
    last = n;
  }
}
