/** The mask of a picture: which pixels are missing. Coarser levels make it quick to search and to draw. */
import { heightOf, makeRect, widthOf } from "./rects.js";

const LEVELS = 7;

export class Mask {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    /** Uint8Array, one byte a pixel: 0 known, 1 missing. Call `refresh` after a change. */
    this.data = new Uint8Array(width * height);
    /** Level n has a pixel for 2^n × 2^n pixels, which is 1 if any of them is missing. */
    this.levels = [{ width, height, data: this.data }];
    while (this.levels.length < LEVELS) {
      const finer = this.levels[this.levels.length - 1];
      const size = { width: (finer.width + 1) >> 1, height: (finer.height + 1) >> 1 };
      this.levels.push({ ...size, data: new Uint8Array(size.width * size.height) });
    }
  }

  get area() {
    return makeRect(0, 0, this.width, this.height);
  }

  get isEmpty() {
    return !this.levels[LEVELS - 1].data.includes(1);
  }

  /** Bring the coarser levels up to date with changed pixels. */
  refresh(area) {
    for (let n = 1; n < LEVELS; n++) {
      const finer = this.levels[n - 1];
      const level = this.levels[n];
      area = makeRect(area.left >> 1, area.top >> 1, (area.right + 1) >> 1, (area.bottom + 1) >> 1);
      for (let y = area.top; y < area.bottom; y++) {
        const upper = 2 * y * finer.width;
        const lower = Math.min(2 * y + 1, finer.height - 1) * finer.width;
        for (let x = area.left; x < area.right; x++) {
          const next = Math.min(2 * x + 1, finer.width - 1);
          level.data[y * level.width + x] =
            finer.data[upper + 2 * x] | finer.data[upper + next] | finer.data[lower + 2 * x] | finer.data[lower + next];
        }
      }
    }
  }

  /** Return how the mask differs from earlier data within an area: runs of pixels, as (first, length) pairs. */
  compare(before, area) {
    const runs = [];
    for (let y = area.top; y < area.bottom; y++) {
      const end = y * this.width + area.right;
      for (let place = y * this.width + area.left; place < end; place++) {
        if (this.data[place] === before[place]) continue;
        const first = place;
        while (place < end && this.data[place] !== before[place]) place++;
        runs.push(first, place - first);
      }
    }
    return { area, runs: Uint32Array.from(runs) };
  }

  /** Turn the pixels of a difference over. Twice is as before. */
  toggle({ area, runs }) {
    for (let n = 0; n < runs.length; n += 2) {
      for (let place = runs[n]; place < runs[n] + runs[n + 1]; place++) this.data[place] ^= 1;
    }
    this.refresh(area);
  }

  /** Return the data of a rectangle. */
  crop(rect, data = this.data) {
    const part = new Uint8Array(widthOf(rect) * heightOf(rect));
    for (let y = rect.top; y < rect.bottom; y++) {
      const start = y * this.width;
      part.set(data.subarray(start + rect.left, start + rect.right), (y - rect.top) * widthOf(rect));
    }
    return part;
  }
}
