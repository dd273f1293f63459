/** Undo and redo. An entry can be applied again and again: each time it exchanges what it holds with the picture. */

/** Bytes of pixels and masks that the history keeps. The oldest entries are forgotten first. */
const MAX_BYTES = 512 * 1024 * 1024;

const countBytes = (entry) => entry.patches.reduce((sum, patch) => sum + patch.rgba.length, 4 * entry.change.runs.length);

export class History {
  constructor() {
    this.done = [];
    this.undone = [];
    this.bytes = 0;
  }

  /** Add an entry {change, patches}: a difference of the mask, and rectangles of the picture's other pixels. */
  push(entry) {
    this.bytes += countBytes(entry) - this.undone.reduce((sum, each) => sum + countBytes(each), 0);
    this.undone = [];
    this.done.push(entry);
    while (this.bytes > MAX_BYTES && this.done.length > 1) this.bytes -= countBytes(this.done.shift());
  }

  undo(apply) {
    move(this.done, this.undone, apply);
  }

  redo(apply) {
    move(this.undone, this.done, apply);
  }
}

function move(from, to, apply) {
  const entry = from.pop();
  if (!entry) return;
  apply(entry);
  to.push(entry);
}
