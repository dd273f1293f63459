/** Ways in: picker, folder, drag and drop, paste, the sample. */
import { openMask } from "../commands.js";
import { TEXTS } from "../texts.js";

const find = (id) => document.getElementById(id);
const SAMPLE = "page/sample.jpg";

export function setUpFiles(app) {
  const take = (files) => {
    find("compare").close(); // it belongs to the picture that is shown
    const isPicture = (file) => file.type.startsWith("image/");
    const others = [...files].filter((file) => !isPicture(file)).map((file) => file.name);
    return app.strip.add([...files].filter(isPicture), others);
  };
  for (const id of ["files", "folder"]) {
    find(id).addEventListener("change", ({ target }) => {
      take(target.files);
      target.value = "";
    });
  }
  find("mask").addEventListener("change", ({ target }) => {
    openMask(app, target.files[0]);
    target.value = "";
  });
  addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    take(await listDropped(event.dataTransfer));
  });
  app.openSample = async () => {
    let blob;
    try {
      blob = await (await fetch(SAMPLE)).blob();
    } catch {
      return app.messages.warn(TEXTS.offline, app.openSample);
    }
    return take([new File([blob], "sample.jpg", { type: "image/jpeg" })]);
  };
}

/** Return the files that were dropped, and those of folders. */
async function listDropped({ items, files }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return files;
  return (await Promise.all(entries.map(listEntry))).flat();
}

async function listEntry(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found.flat();
    found.push(...(await Promise.all(some.filter((each) => each.isFile).map(listEntry))));
  }
}
