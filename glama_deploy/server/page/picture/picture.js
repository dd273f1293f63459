/** An open picture: its pixels, its mask, its history, and the original of what was filled. */
import { compositeBox, cropPixels, planBoxes } from "./boxes.js";
import { History } from "./history.js";
import { Mask } from "./mask.js";
import { intersect, isEmpty, makeRect, unite, widthOf } from "./rects.js";

const TILE_PIXELS = 256;

/** Events: `pixels` (detail: the changed rectangle) and `mask`. */
export class Picture extends EventTarget {
  /**
   * @param {{name: string, type: string, width: number, height: number, rgba: Uint8ClampedArray, channels: number,
   *   metadata: object}} decoded a decoded file, as files/decode.js returns it.
   */
  constructor(decoded) {
    super();
    Object.assign(this, decoded);
    this.mask = new Mask(this.width, this.height);
    this.history = new History();
    /** Tiles {area, rgba} of the picture as it was opened, by number; only tiles in which something was filled. */
    this.originals = new Map();
    this.isSaved = true;
  }

  get canUndo() {
    return this.history.done.length > 0;
  }

  get canRedo() {
    return this.history.undone.length > 0;
  }

  /** Start a change of the mask, which `endMaskEdit` makes one entry of the history. */
  beginMaskEdit() {
    this.before = this.mask.data.slice();
    this.edited = null;
  }

  /** Draw into the mask: `draw(data, size, value)` changes the data and returns the rectangle that changed. */
  editMask(draw) {
    const area = draw(this.mask.data, this.mask);
    if (isEmpty(area)) return;
    this.edited = unite(this.edited, area);
    this.mask.refresh(area);
    this.#tell("mask");
  }

  /** Finish a change of the mask. Return whether any pixel changed. */
  endMaskEdit() {
    const change = this.edited && this.mask.compare(this.before, this.edited);
    this.before = this.edited = null;
    if (!change?.runs.length) return false;
    this.history.push({ change, patches: [] });
    this.#tell("mask");
    return true;
  }

  /** Take a change of the mask back that was begun. */
  cancelMaskEdit() {
    if (this.edited) this.mask.toggle(this.mask.compare(this.before, this.edited));
    this.before = this.edited = null;
    this.#tell("mask");
  }

  /** Change the whole mask in one step. */
  changeMask(draw) {
    this.beginMaskEdit();
    this.editMask(draw);
    return this.endMaskEdit();
  }

  /**
   * Have an engine fill the mask's holes.
   *
   * @returns {Promise<object>} what `applyFill` takes, with `seconds` and `engine`. The picture is not changed yet.
   */
  async fill(engine, { onBox = () => {}, ...options } = {}) {
    const missing = this.mask.data.slice();
    const boxes = planBoxes({ data: missing, width: this.width, height: this.height });
    const filled = [];
    let seconds = 0;
    let name = "";
    for (const [number, box] of boxes.entries()) {
      onBox(number + 1, boxes.length);
      const part = { width: widthOf(box.span), height: box.span.bottom - box.span.top, channels: this.channels };
      part.rgba = cropPixels(this.rgba, this.width, box.span);
      const result = await engine.fill(part, this.mask.crop(box.span, missing), options);
      filled.push(result.rgba);
      seconds += result.seconds;
      name = result.engine;
    }
    return { missing, boxes, filled, seconds, engine: name };
  }

  /** Put filled boxes into the picture. Pixels that were erased from the mask meanwhile stay as they are. */
  applyFill({ missing, boxes, filled }) {
    const [mask, before] = [this.mask.data, this.mask.data.slice()];
    const area = boxes.map((box) => box.hole).reduce(unite);
    const patches = boxes.map(({ hole }) => ({ area: hole, rgba: cropPixels(this.rgba, this.width, hole) }));
    const left = missing.slice();
    for (let y = area.top; y < area.bottom; y++) {
      for (let place = y * this.width + area.left; place < y * this.width + area.right; place++) {
        left[place] &= mask[place];
        if (!missing[place]) continue;
        mask[place] = 0;
        if (this.before) this.before[place] = 0; // a stroke that is being painted does not undo the fill
      }
    }
    for (const [number, box] of boxes.entries()) {
      this.#keepOriginals(box.hole);
      compositeBox(this.rgba, this.width, left, box, filled[number]);
    }
    this.mask.refresh(area);
    this.history.push({ change: this.mask.compare(before, area), patches });
    this.isSaved = false;
    for (const { hole } of boxes) this.#tell("pixels", hole);
    this.#tell("mask");
  }

  undo() {
    this.history.undo((entry) => this.#exchange(entry));
  }

  redo() {
    this.history.redo((entry) => this.#exchange(entry));
  }

  #exchange(entry) {
    this.mask.toggle(entry.change);
    for (const patch of entry.patches) {
      const pixels = cropPixels(this.rgba, this.width, patch.area);
      pastePixels(this.rgba, this.width, patch);
      patch.rgba = pixels;
      this.isSaved = false;
      this.#tell("pixels", patch.area);
    }
    entry.patches.reverse(); // patches may overlap: what was exchanged first is exchanged back last
    this.#tell("mask");
  }

  #keepOriginals(rect) {
    const wide = Math.ceil(this.width / TILE_PIXELS);
    for (let row = Math.floor(rect.top / TILE_PIXELS); row * TILE_PIXELS < rect.bottom; row++) {
      for (let column = Math.floor(rect.left / TILE_PIXELS); column * TILE_PIXELS < rect.right; column++) {
        if (this.originals.has(row * wide + column)) continue;
        const [left, top] = [column * TILE_PIXELS, row * TILE_PIXELS];
        const tile = makeRect(left, top, left + TILE_PIXELS, top + TILE_PIXELS);
        const area = intersect(tile, makeRect(0, 0, this.width, this.height));
        this.originals.set(row * wide + column, { area, rgba: cropPixels(this.rgba, this.width, area) });
      }
    }
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function pastePixels(rgba, width, { area, rgba: pixels }) {
  const row = 4 * widthOf(area);
  for (let y = area.top; y < area.bottom; y++) {
    rgba.set(pixels.subarray((y - area.top) * row, (y - area.top + 1) * row), 4 * (y * width + area.left));
  }
}
