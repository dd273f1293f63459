/** The open pictures as a strip. A picture that was changed stays in memory, others are opened again when shown. */
import { decodeFile } from "../files/decode.js";
import { download, encodePicture, makeName, savedType } from "../files/encode.js";
import { Picture } from "../picture/picture.js";
import { TEXTS } from "../texts.js";

const THUMBNAIL_PIXELS = 104;
/** Pixels of changed pictures that are kept with their history. Beyond, the oldest keep only their result. */
const MAX_KEPT_PIXELS = 100_000_000;

export class Strip {
  constructor(app) {
    this.app = app;
    this.nav = document.getElementById("strip");
    /** {file, name, type, picture, button}: `picture` while it is shown or has changes. */
    this.items = [];
    this.current = null;
    this.observer = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) if (isIntersecting) this.#draw(target);
    });
  }

  get hasUnsaved() {
    return this.items.some(({ picture }) => picture && !picture.isSaved);
  }

  /** Add files, and show the first of them. */
  async add(files) {
    const items = files.map((file) => ({ file, name: file.name, type: file.type, picture: null }));
    items.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
    this.items.push(...items);
    for (const item of items) this.#addButton(item);
    this.nav.hidden = this.items.length < 2;
    if (items.length) await this.show(items[0]);
  }

  async show(item) {
    const { app } = this;
    this.wanted = item;
    if (!item.picture) {
      app.messages.say(TEXTS.loading(item.name));
      try {
        const decoded = await decodeFile(item.file);
        item.picture = new Picture(item.isResult ? { ...decoded, name: item.name, type: item.type } : decoded);
      } catch (error) {
        this.#remove(item);
        app.messages.say("");
        if (!(error instanceof DOMException)) console.error(error);
        return app.messages.warn(TEXTS.cannotOpen(item.name));
      }
    }
    if (this.wanted !== item) return this.#release();
    this.current = item;
    app.messages.clear();
    app.show(item.picture);
    item.button.scrollIntoView({ block: "nearest", inline: "nearest" });
    return this.#release();
  }

  canStep(step) {
    return Boolean(this.items[this.items.indexOf(this.current) + step]);
  }

  step(step) {
    return this.show(this.items[this.items.indexOf(this.current) + step]);
  }

  async saveAll() {
    for (const { picture } of this.items) {
      if (!picture || picture.isSaved) continue;
      download(await encodePicture(picture), makeName(picture.name, "filled", savedType(picture)));
      picture.isSaved = true;
    }
    this.app.refresh();
  }

  refresh() {
    for (const { button, picture } of this.items) {
      button.setAttribute("aria-current", String(picture !== null && picture === this.app.picture));
      button.classList.toggle("changed", Boolean(picture?.canUndo));
    }
  }

  #remove(item) {
    this.items = this.items.filter((other) => other !== item);
    item.button.closest("li").remove();
    this.nav.hidden = this.items.length < 2;
  }

  /** Forget pictures without changes, and shorten the oldest of the others to their results. */
  async #release() {
    const others = this.items.filter((item) => item.picture && item !== this.current);
    for (const item of others) if (!item.picture.canUndo && item.picture.isSaved) item.picture = null;
    let kept = others.reduce((sum, { picture }) => sum + (picture ? picture.width * picture.height : 0), 0);
    for (const item of others) {
      if (kept <= MAX_KEPT_PIXELS) break;
      const { picture } = item;
      if (!picture) continue;
      kept -= picture.width * picture.height;
      item.file = new File([await encodePicture(picture, "image/png")], item.name);
      Object.assign(item, { isResult: true, picture: null });
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
