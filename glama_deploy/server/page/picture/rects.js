/** Rectangles of pixels: {left, top, right, bottom}. Right and bottom are exclusive. */

export const makeRect = (left, top, right, bottom) => ({ left, top, right, bottom });
export const widthOf = (rect) => rect.right - rect.left;
export const heightOf = (rect) => rect.bottom - rect.top;
export const isEmpty = (rect) => rect.right <= rect.left || rect.bottom <= rect.top;

export const intersect = (a, b) =>
  makeRect(Math.max(a.left, b.left), Math.max(a.top, b.top), Math.min(a.right, b.right), Math.min(a.bottom, b.bottom));

/** Return the smallest rectangle that contains both. `a` may be null. */
export const unite = (a, b) =>
  a
    ? makeRect(Math.min(a.left, b.left), Math.min(a.top, b.top), Math.max(a.right, b.right), Math.max(a.bottom, b.bottom))
    : b;

export const grow = (rect, pixels) =>
  makeRect(rect.left - pixels, rect.top - pixels, rect.right + pixels, rect.bottom + pixels);
