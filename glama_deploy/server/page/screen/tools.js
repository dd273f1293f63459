/** Tools: pointers, wheel and arrow keys become strokes in the mask, zoom and pan. */
import { drawLine, fillPolygon, fillRectangle } from "../picture/shapes.js";

export const MIN_SIZE_PIXELS = 2;
export const MAX_SIZE_PIXELS = 300;
const SIZE_STEP = 1.15;
const SPLIT_REACH_PIXELS = 20;
const KEY_STEP_PIXELS = 12;
/** The share of a pen's brush that is left without pressure. */
const LEAST_PRESSURE = 0.25;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Tools {
  /**
   * @param {View} view the view.
   * @param {{onStroke: function(PointerEvent|KeyboardEvent), onSize: function}} listeners `onStroke` is called when a
   *   stroke that changed the mask ends.
   */
  constructor(view, { onStroke, onSize }) {
    this.view = view;
    this.onStroke = onStroke;
    this.onSize = onSize;
    this.tool = "brush";
    /** Diameter of the brush in CSS pixels. */
    this.size = 40;
    this.pointers = new Map();
    this.mode = null;
    this.cursor = null;
    this.isSpaceDown = false;
    this.isHovering = false;
    view.drawMarks = (context) => this.#drawMarks(context);
    const { canvas } = view;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.cancel());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  resize(size) {
    this.size = Math.min(MAX_SIZE_PIXELS, Math.max(MIN_SIZE_PIXELS, size));
    this.onSize(this.size);
    this.view.invalidate();
  }

  /** Make the brush larger (1) or smaller (-1). */
  step(direction) {
    const larger = Math.max(this.size * SIZE_STEP, this.size + 1);
    const smaller = Math.min(this.size / SIZE_STEP, this.size - 1);
    this.resize(direction > 0 ? larger : smaller);
  }

  /** Take back a stroke that has begun. Return whether there was one. */
  cancel() {
    const was = this.mode === "draw";
    if (was) this.view.picture.cancelMaskEdit();
    this.mode = null;
    this.path = [];
    this.view.invalidate();
    return was;
  }

  updateCursor() {
    const pans = this.isSpaceDown || this.tool === "hand";
    this.view.canvas.dataset.cursor = pans ? (this.mode === "pan" ? "grabbing" : "grab") : this.tool;
  }

  #pointOf(event) {
    const bounds = this.view.canvas.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  }

  #down(event) {
    if (!this.view.picture) return;
    const point = this.#pointOf(event);
    if (this.mode === "draw" && !this.pointers.size) this.#end(event); // a stroke of the keys
    this.view.canvas.setPointerCapture(event.pointerId);
    this.view.canvas.focus({ preventScroll: true });
    this.pointers.set(event.pointerId, point);
    if (this.pointers.size === 2) {
      this.cancel();
      this.mode = "pinch";
    } else if (this.pointers.size > 2) return;
    else if (this.#isOnSplit(point)) this.mode = "split";
    else if (event.button === 1 || this.isSpaceDown || this.tool === "hand") this.mode = "pan";
    else if (event.button === 0) this.#start(point, event);
    this.updateCursor();
  }

  #move(event) {
    const point = this.#pointOf(event);
    const last = this.pointers.get(event.pointerId);
    this.#hover(event.pointerType === "touch" ? null : point);
    if (!last) return;
    if (this.mode === "pinch") this.#pinch(event.pointerId, point);
    else if (this.mode === "pan") this.view.panBy(point.x - last.x, point.y - last.y);
    else if (this.mode === "split") this.moveSplit(point.x / this.view.size.width);
    else if (this.mode === "draw") {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.#extend(this.#pointOf(each), each);
    }
    this.pointers.set(event.pointerId, point);
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.mode === "draw") {
      if (event.type === "pointercancel") this.cancel();
      else this.#end(event);
    }
    if (!this.pointers.size || this.mode !== "pinch") this.mode = null;
    this.updateCursor();
  }

  moveSplit(share) {
    this.view.split = Math.min(1, Math.max(0, share));
    this.view.invalidate();
    this.onSplit?.(this.view.split);
  }

  #isOnSplit(point) {
    const { split, size } = this.view;
    return split !== null && Math.abs(point.x - split * size.width) < SPLIT_REACH_PIXELS;
  }

  #pinch(moved, point) {
    const [id] = [...this.pointers.keys()].filter((other) => other !== moved);
    const [before, fixed] = [this.pointers.get(moved), this.pointers.get(id)];
    const distance = (a) => Math.hypot(a.x - fixed.x, a.y - fixed.y) || 1;
    const middle = { x: (before.x + fixed.x) / 2, y: (before.y + fixed.y) / 2 };
    this.view.zoomBy(distance(point) / distance(before), middle);
    this.view.panBy((point.x - before.x) / 2, (point.y - before.y) / 2);
  }

  #wheel(event) {
    event.preventDefault();
    if (event.altKey || event.shiftKey) return this.step((event.deltaY || event.deltaX) < 0 ? 1 : -1);
    const lines = event.deltaMode === 1 ? 16 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002; // a pinch on a trackpad comes as wheel with ctrl
    return this.view.zoomBy(Math.exp(-event.deltaY * lines * speed), this.#pointOf(event));
  }

  /** Arrow keys move the brush, Enter puts it down and lifts it. */
  #key(event) {
    const { view } = this;
    if (!view.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    if (ARROWS[event.key]) {
      const [dx, dy] = ARROWS[event.key];
      const step = event.shiftKey ? 1 : KEY_STEP_PIXELS;
      const { width, height } = view.size;
      const at = this.cursor ?? { x: width / 2, y: height / 2 };
      this.cursor = {
        x: Math.min(width, Math.max(0, at.x + dx * step)),
        y: Math.min(height, Math.max(0, at.y + dy * step)),
      };
      if (this.mode === "draw") this.#extend(this.cursor, event);
    } else if (event.key === "Enter") {
      this.cursor ??= { x: view.size.width / 2, y: view.size.height / 2 };
      if (this.mode === "draw") this.#end(event);
      else if (this.mode === null && this.tool !== "hand") this.#start(this.cursor, event);
    } else return;
    event.preventDefault();
    view.invalidate();
  }

  #hover(point) {
    this.isHovering = point !== null;
    this.cursor = point;
    this.view.invalidate();
  }

  #start(point, event) {
    this.mode = "draw";
    this.path = [];
    this.value = this.tool === "eraser" ? 0 : 1;
    this.view.picture.beginMaskEdit();
    this.#extend(point, event);
  }

  #extend(point, event) {
    const { picture, scale } = this.view;
    const pressure = event.pointerType === "pen" ? LEAST_PRESSURE + (1 - LEAST_PRESSURE) * event.pressure : 1;
    const to = { ...this.view.toPicture(point), radius: (this.size * pressure) / 2 / scale };
    const from = this.path[this.path.length - 1] ?? to;
    this.path.push(to);
    if (this.#isBrush) picture.editMask((data, size) => drawLine(data, size, from, to, this.value));
    this.view.invalidate();
  }

  #end(event) {
    const { picture } = this.view;
    const last = this.path[this.path.length - 1];
    if (this.tool === "rectangle") picture.editMask((data, size) => fillRectangle(data, size, this.path[0], last, 1));
    else if (this.tool === "lasso") picture.editMask((data, size) => fillPolygon(data, size, this.path, 1));
    this.mode = null;
    this.path = [];
    if (picture.endMaskEdit()) this.onStroke(event);
    this.view.invalidate();
  }

  get #isBrush() {
    return this.tool === "brush" || this.tool === "eraser";
  }

  #drawMarks(context) {
    const { view } = this;
    const outline = (draw) => {
      for (const [colour, width] of [["#000c", 3], ["#fff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        draw();
        context.stroke();
      }
    };
    if (this.mode === "draw" && !this.#isBrush) {
      const points = this.path.map(({ x, y }) => ({ x: x * view.scale + view.x, y: y * view.scale + view.y }));
      const [first, last] = [points[0], points[points.length - 1]];
      if (this.tool === "rectangle") outline(() => context.rect(first.x, first.y, last.x - first.x, last.y - first.y));
      else outline(() => points.forEach((point) => context.lineTo(point.x, point.y)));
    }
    if (!this.cursor || this.isSpaceDown || this.tool === "hand") return;
    const { x, y } = this.cursor;
    if (this.#isBrush) outline(() => context.arc(x, y, this.size / 2, 0, 7));
    else {
      outline(() => {
        context.moveTo(x - 8, y);
        context.lineTo(x + 8, y);
        context.moveTo(x, y - 8);
        context.lineTo(x, y + 8);
      });
    }
  }
}
