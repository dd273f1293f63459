/** The open pictures as a strip. A picture that was changed stays in memory, others are opened again when shown. */
import { openMask } from "../commands.js";
import { decodeFile } from "../files/decode.js";
import { encodePicture, savePicture } from "../files/encode.js";
import { Picture } from "../picture/picture.js";
import { TEXTS } from "../texts.js";

const THUMBNAIL_PIXELS = 104;
/** Pixels of changed pictures that are kept with their history. Beyond, the oldest keep only their result. */
const MAX_KEPT_PIXELS = 100_000_000;

export class Strip {
  constructor(app) {
    this.app = app;
    this.nav = document.getElementById("strip");
    /**
     * {file, name, type, picture, mask, button}: `picture` while it is shown or has changes, `mask` a file until it has
     * been opened on the picture. An item that keeps only its result has `result`, which replaces what `file` (now the result) says of the picture, and `hasUnsavedResult`.
     */
    this.items = [];
    this.current = null;
    this.observer = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) this.#draw(target);
    });
  }

  get hasUnsaved() {
    return this.items.some(isUnsaved);
  }

  /** Add files, and show the first of them that can be read. `leftOut` has names of other files, which are told, too. */
  async add(files, leftOut = []) {
    const masks = pairMasks(files);
    const taken = new Set(masks.values());
    const pictures = files.filter((file) => !taken.has(file));
    const items = pictures.map((file) => ({ file, name: file.name, type: file.type, picture: null, mask: masks.get(file) }));
    items.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
    this.items.push(...items);
    for (const item of items) this.#addButton(item);
    this.nav.hidden = this.items.length < 2;
    const names = [...leftOut];
    let notes = [];
    for (const item of items) {
      if (await this.show(item)) {
        notes = this.app.picture?.notes ?? [];
        break;
      }
      names.push(item.name);
    }
    if (names.length) this.app.messages.warn([TEXTS.cannotOpen(names), ...notes].join(" "));
  }

  /** Show an item. Return whether its file could be read. */
  async show(item) {
    const { app } = this;
    this.wanted = item;
    if (!item.picture) app.messages.say(TEXTS.loading(item.name));
    let picture;
    try {
      picture = await this.#open(item);
    } catch (error) {
      this.#remove(item);
      app.messages.say("");
      if (!(error instanceof DOMException)) console.error(error);
      app.messages.warn(TEXTS.cannotOpen([item.name]));
      return false;
    }
    if (this.wanted === item) {
      item.picture = picture;
      this.current = item;
      app.messages.clear();
      app.show(picture);
      const { mask } = item;
      item.mask = null;
      if (mask) await openMask(app, mask);
      item.button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    await this.#release();
    return true;
  }

  canStep(step) {
    return Boolean(this.items[this.items.indexOf(this.current) + step]);
  }

  step(step) {
    return this.show(this.items[this.items.indexOf(this.current) + step]);
  }

  async saveAll() {
    for (const item of this.items.filter(isUnsaved)) {
      await savePicture(await this.#open(item));
      await this.#release();
    }
    this.app.refresh();
  }

  refresh() {
    for (const { button, picture, result } of this.items) {
      button.setAttribute("aria-current", String(picture !== null && picture === this.app.picture));
      button.classList.toggle("changed", Boolean(picture?.canUndo || result));
    }
  }

  /** Return the picture of an item. Callers at the same time get the same one. */
  async #open(item) {
    if (item.picture) return item.picture;
    item.opening ??= decodeItem(item)
      .then((picture) => (item.picture = picture))
      .finally(() => (item.opening = null));
    return item.opening;
  }

  #remove(item) {
    this.items = this.items.filter((other) => other !== item);
    item.button.closest("li").remove();
    this.nav.hidden = this.items.length < 2;
  }

  /** Forget pictures without changes, and shorten the oldest of the others to their results. */
  async #release() {
    const others = this.items.filter((item) => item.picture && item !== this.current);
    for (const item of others) {
      const { canUndo, isSaved } = item.picture;
      if (!canUndo && (isSaved || item.result)) Object.assign(item, { picture: null, hasUnsavedResult: !isSaved });
    }
    let kept = others.reduce((sum, { picture }) => sum + (picture ? picture.width * picture.height : 0), 0);
    for (const item of others) {
      if (kept <= MAX_KEPT_PIXELS) break;
      const { picture } = item;
      if (!picture) continue;
      kept -= picture.width * picture.height;
      const last = picture.history.done.at(-1);
      const blob = await encodePicture(picture, "image/png");
      if (item === this.current || item.picture !== picture || picture.history.done.at(-1) !== last) continue; // used again
      item.file = new File([blob], item.name);
      item.result = { name: picture.name, type: picture.type, metadata: picture.metadata };
      Object.assign(item, { picture: null, hasUnsavedResult: !picture.isSaved });
    }
  }

  #addButton(item) {
    const [entry, button] = [document.createElement("li"), document.createElement("button")];
    Object.assign(button, { type: "button", title: item.name, item });
    button.setAttribute("aria-label", item.name);
    button.addEventListener("click", () => this.show(item));
    item.button = button;
    entry.append(button);
    this.nav.querySelector("ul").append(entry);
    this.observer.observe(button);
  }

  async #draw(button) {
    this.observer.unobserve(button);
    try {
      const bitmap = await createImageBitmap(button.item.file, { resizeHeight: THUMBNAIL_PIXELS, resizeQuality: "medium" });
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      button.replaceChildren(canvas);
    } catch {
      button.textContent = button.item.name; // `show` says why the file cannot be read
    }
  }
}

const stemOf = ({ name }) => name.replace(/\.\w+$/, "").toLowerCase();

/** Return a Map from pictures to their masks: photo.jpg to photo_mask.png, and a lone picture to mask.png. */
function pairMasks(files) {
  const masks = new Map();
  for (const file of files) {
    const [, stem] = /^(.*?)[-_. ]?mask\d*$/.exec(stemOf(file)) ?? [];
    const isOfFile = (other) => other !== file && (stem ? stemOf(other) === stem : files.length === 2);
    const picture = stem === undefined ? null : files.find(isOfFile);
    if (picture && !masks.has(picture)) masks.set(picture, file);
  }
  return masks;
}

const isUnsaved = ({ picture, hasUnsavedResult }) => (picture ? !picture.isSaved : Boolean(hasUnsavedResult));

async function decodeItem({ file, result, hasUnsavedResult }) {
  const picture = new Picture({ ...(await decodeFile(file)), ...result });
  picture.isSaved = !hasUnsavedResult;
  return picture;
}
