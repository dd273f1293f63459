/** Draw the visible part of a picture, its mask, and what a tool marks. Zoom and pan. Positions are CSS pixels. */
import { heightOf, intersect, isEmpty, makeRect, widthOf } from "../picture/rects.js";
import { TEXTS } from "../texts.js";

const MAX_SCALE = 32;
const MAX_FIT_SCALE = 2;
const FIT_MARGIN_PIXELS = 24;
/** Above this scale a pixel is drawn as a square. */
const SQUARE_SCALE = 3;
const MAX_PIXEL_RATIO = 2;
const COARSE_SIDE_PIXELS = 512;
/** The mask's colour (magenta, as ABGR without alpha), and the alpha of its inside and its outline. */
const MASK_COLOUR = 0x8a2bff;
const MASK_ALPHA = 0x78;
const OUTLINE_ALPHA = 0xff;
const PULSE_MILLISECONDS = 500;

/** A picture at its full size, at half of it, at a quarter, and so on. */
class Pyramid {
  constructor(picture) {
    this.image = new ImageData(picture.rgba, picture.width, picture.height);
    this.levels = [];
    let { width, height } = picture;
    for (;;) {
      this.levels.push(new OffscreenCanvas(width, height).getContext("2d"));
      if (Math.max(width, height) <= COARSE_SIDE_PIXELS) break;
      width = Math.ceil(width / 2);
      height = Math.ceil(height / 2);
    }
    this.refresh(makeRect(0, 0, picture.width, picture.height));
  }

  refresh(area) {
    this.levels[0].putImageData(this.image, 0, 0, area.left, area.top, widthOf(area), heightOf(area));
    for (let n = 1; n < this.levels.length; n++) {
      area = makeRect(area.left >> 1, area.top >> 1, (area.right + 1) >> 1, (area.bottom + 1) >> 1);
      const [x, y, width, height] = [area.left, area.top, widthOf(area), heightOf(area)];
      this.levels[n].clearRect(x, y, width, height);
      this.levels[n].drawImage(this.levels[n - 1].canvas, 2 * x, 2 * y, 2 * width, 2 * height, x, y, width, height);
    }
  }
}

const pickLevel = (scale, count) => Math.min(count - 1, Math.max(0, Math.floor(Math.log2(1 / scale) + 0.01)));

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.overlay = new OffscreenCanvas(1, 1).getContext("2d");
    this.picture = null;
    this.scale = 1;
    this.x = this.y = 0;
    /** The share of the view's width in which the original is shown: 0 none, 1 all; null without the line. */
    this.split = null;
    this.showsOriginal = false;
    this.isBusy = false;
    /** Draws what a tool marks. */
    this.drawMarks = () => {};
    this.onZoom = () => {};
    this.tileCanvases = new WeakMap();
    new ResizeObserver(() => this.#resize()).observe(canvas);
    this.onPixels = (event) => {
      this.pyramid.refresh(event.detail);
      this.invalidate();
    };
    this.onMask = () => this.invalidate({ mask: true });
  }

  /** Show a picture, or nothing. */
  show(picture) {
    this.picture?.removeEventListener("pixels", this.onPixels);
    this.picture?.removeEventListener("mask", this.onMask);
    this.picture = picture;
    this.pyramid = picture && new Pyramid(picture);
    picture?.addEventListener("pixels", this.onPixels);
    picture?.addEventListener("mask", this.onMask);
    this.fit();
  }

  get size() {
    return { width: this.canvas.clientWidth, height: this.canvas.clientHeight };
  }

  #resize() {
    const { width, height } = this.size;
    this.ratio = Math.min(MAX_PIXEL_RATIO, devicePixelRatio);
    this.canvas.width = Math.max(1, Math.round(width * this.ratio));
    this.canvas.height = Math.max(1, Math.round(height * this.ratio));
    if (this.isFitted) this.fit();
    else this.invalidate({ mask: true });
  }

  /** Show the whole picture in the middle. */
  fit() {
    if (!this.picture) return this.invalidate();
    const { width, height } = this.size;
    const scales = [
      (width - 2 * FIT_MARGIN_PIXELS) / this.picture.width,
      (height - 2 * FIT_MARGIN_PIXELS) / this.picture.height,
    ];
    this.scale = Math.max(0.01, Math.min(MAX_FIT_SCALE, ...scales));
    this.x = (width - this.picture.width * this.scale) / 2;
    this.y = (height - this.picture.height * this.scale) / 2;
    this.#changed(true);
  }

  /** Multiply the scale; the point stays where it is. */
  zoomBy(factor, at = { x: this.size.width / 2, y: this.size.height / 2 }) {
    const scale = Math.min(MAX_SCALE, Math.max(0.01, this.scale * factor));
    this.x = at.x - ((at.x - this.x) * scale) / this.scale;
    this.y = at.y - ((at.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.#changed(false);
  }

  panBy(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#changed(false);
  }

  #changed(isFitted) {
    this.isFitted = isFitted;
    this.invalidate({ mask: true });
    this.onZoom(this.scale);
  }

  toPicture({ x, y }) {
    return { x: (x - this.x) / this.scale, y: (y - this.y) / this.scale };
  }

  /** Draw again with the next frame. */
  invalidate({ mask = false } = {}) {
    this.isMaskStale ||= mask;
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#draw();
    });
  }

  #draw() {
    const { context, picture } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!picture) return;
    const { width, height } = this.size;
    const from = this.toPicture({ x: 0, y: 0 });
    const to = this.toPicture({ x: width, y: height });
    const seen = intersect(
      makeRect(0, 0, picture.width, picture.height),
      makeRect(Math.floor(from.x), Math.floor(from.y), Math.ceil(to.x), Math.ceil(to.y)),
    );
    if (isEmpty(seen)) return;
    context.imageSmoothingEnabled = this.scale < SQUARE_SCALE;
    context.imageSmoothingQuality = "high";
    if (picture.channels % 2 === 0) this.#drawCheckerboard(seen);
    const level = pickLevel(this.scale * this.ratio, this.pyramid.levels.length);
    this.#drawPart(this.pyramid.levels[level].canvas, seen, 2 ** level, { left: 0, top: 0 });
    const share = this.showsOriginal ? 1 : (this.split ?? 0);
    if (share > 0) this.#drawOriginal(seen, share * width);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    if (!this.showsOriginal) this.#drawMask(width, height);
    if (this.split !== null && !this.showsOriginal) this.#drawSplit(this.split * width, height);
    this.drawMarks(context);
    if (this.isBusy && !picture.mask.isEmpty) this.invalidate();
  }

  /** Place picture coordinates on the canvas, on whole pixels, so that parts join without seams. */
  #place(rect) {
    const at = (value, offset) => Math.round((value * this.scale + offset) * this.ratio);
    const [left, top] = [at(rect.left, this.x), at(rect.top, this.y)];
    return [left, top, at(rect.right, this.x) - left, at(rect.bottom, this.y) - top];
  }

  /** Draw a rectangle of the picture from a canvas that starts at `origin` and is `factor` times smaller. */
  #drawPart(canvas, rect, factor, origin) {
    const part = makeRect(
      Math.floor((rect.left - origin.left) / factor),
      Math.floor((rect.top - origin.top) / factor),
      Math.min(canvas.width, Math.ceil((rect.right - origin.left) / factor)),
      Math.min(canvas.height, Math.ceil((rect.bottom - origin.top) / factor)),
    );
    const place = makeRect(
      origin.left + part.left * factor,
      origin.top + part.top * factor,
      Math.min(origin.left + part.right * factor, this.picture.width),
      Math.min(origin.top + part.bottom * factor, this.picture.height),
    );
    this.context.drawImage(canvas, part.left, part.top, widthOf(part), heightOf(part), ...this.#place(place));
  }

  #drawOriginal(seen, width) {
    const { context, picture } = this;
    context.save();
    context.beginPath();
    context.rect(0, 0, width * this.ratio, this.canvas.height);
    context.clip();
    for (const tile of picture.originals.values()) {
      if (isEmpty(intersect(tile.area, seen))) continue;
      if (picture.channels % 2 === 0) {
        context.clearRect(...this.#place(tile.area));
        this.#drawCheckerboard(tile.area);
      }
      this.#drawPart(this.#canvasOf(tile), tile.area, 1, tile.area);
    }
    context.restore();
  }

  #canvasOf(tile) {
    let canvas = this.tileCanvases.get(tile);
    if (!canvas) {
      canvas = new OffscreenCanvas(widthOf(tile.area), heightOf(tile.area));
      canvas.getContext("2d").putImageData(new ImageData(tile.rgba, canvas.width), 0, 0);
      this.tileCanvases.set(tile, canvas);
    }
    return canvas;
  }

  #drawCheckerboard(rect) {
    const { context } = this;
    if (!this.checkerboard) {
      const small = new OffscreenCanvas(16, 16).getContext("2d");
      small.fillStyle = "#fff";
      small.fillRect(0, 0, 16, 16);
      small.fillStyle = "#ccc";
      small.fillRect(0, 0, 8, 8);
      small.fillRect(8, 8, 8, 8);
      this.checkerboard = context.createPattern(small.canvas, "repeat");
    }
    context.fillStyle = this.checkerboard;
    context.fillRect(...this.#place(rect));
  }

  #drawMask(width, height) {
    if (this.picture.mask.isEmpty) return;
    if (this.isMaskStale) this.#paintOverlay(width, height);
    this.isMaskStale = false;
    const { context } = this;
    context.save();
    if (this.isBusy) context.globalAlpha = 0.65 + 0.35 * Math.cos(performance.now() / PULSE_MILLISECONDS);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.overlay.canvas, 0, 0, width, height);
    context.restore();
  }

  /** Paint the visible mask, one pixel of the overlay a CSS pixel. */
  #paintOverlay(width, height) {
    const { canvas } = this.overlay;
    [canvas.width, canvas.height] = [width, height];
    const { levels } = this.picture.mask;
    const number = pickLevel(this.scale, levels.length);
    const level = levels[number];
    const step = this.scale * 2 ** number;
    const columns = Int32Array.from({ length: width }, (_, x) => Math.floor((x + 0.5 - this.x) / step));
    const image = this.overlay.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const [first, end] = [columns.findIndex((column) => column >= 0), columns.findLastIndex((c) => c < level.width) + 1];
    let above = new Uint8Array(width);
    for (let y = 0; y < height && first >= 0; y++) {
      const line = Math.floor((y + 0.5 - this.y) / step);
      const here = new Uint8Array(width);
      if (line >= 0 && line < level.height) {
        for (let x = first; x < end; x++) here[x] = level.data[line * level.width + columns[x]];
      }
      for (let x = first; x < end; x++) {
        const isOutline = here[x] !== above[x] || (x > 0 && here[x] !== here[x - 1]);
        if (isOutline) pixels[y * width + x] = ((OUTLINE_ALPHA << 24) | MASK_COLOUR) >>> 0;
        else if (here[x]) pixels[y * width + x] = ((MASK_ALPHA << 24) | MASK_COLOUR) >>> 0;
      }
      above = here;
    }
    this.overlay.putImageData(image, 0, 0);
  }

  #drawSplit(x, height) {
    const { context } = this;
    context.fillStyle = "#fff";
    context.shadowColor = "#0009";
    context.shadowBlur = 4;
    context.fillRect(x - 1, 0, 2, height);
    context.beginPath();
    context.arc(x, height / 2, 14, 0, 7);
    context.fill();
    context.shadowBlur = 0;
    context.fillStyle = "#222";
    context.font = "bold 14px system-ui, sans-serif";
    context.textAlign = "center";
    context.fillText("◂ ▸", x, height / 2 + 5);
    for (const [text, side, align] of [[TEXTS.before, -12, "right"], [TEXTS.after, 12, "left"]]) {
      context.font = "600 13px system-ui, sans-serif";
      context.textAlign = align;
      const width = context.measureText(text).width + 16;
      context.fillStyle = "#000a";
      context.beginPath();
      context.roundRect(align === "left" ? x + side - 4 : x + side + 4 - width, 12, width, 24, 12);
      context.fill();
      context.fillStyle = "#fff";
      context.fillText(text, x + side + (align === "left" ? 4 : -4), 28);
    }
  }
}
