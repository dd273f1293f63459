/** The page: the parts are made here and know of each other only through `app`. */
import { COMMANDS, setUpCommands } from "./commands.js";
import { setUpCompare } from "./screen/compare.js";
import { Filler } from "./screen/filler.js";
import { setUpFiles } from "./screen/intake.js";
import { Messages } from "./screen/messages.js";
import { setUpModels } from "./screen/models.js";
import { Strip } from "./screen/strip.js";
import { setUpTheme } from "./screen/theme.js";
import { Tools, MAX_SIZE_PIXELS, MIN_SIZE_PIXELS } from "./screen/tools.js";
import { View } from "./screen/view.js";
import { TEXTS } from "./texts.js";

const find = (id) => document.getElementById(id);
const engineModule = document.querySelector('meta[name="glama-engine"]').content;
const { createEngine } = await import(new URL(engineModule, document.baseURI));

const textOf = (path) => path.split(".").reduce((texts, name) => texts[name], TEXTS);
document.documentElement.lang = TEXTS.language;
document.title = TEXTS.title;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = textOf(element.dataset.text);
for (const element of document.querySelectorAll("[data-title]")) element.title = textOf(element.dataset.title);
for (const element of document.querySelectorAll("[data-label]")) {
  element.setAttribute("aria-label", textOf(element.dataset.label));
  if (element.tagName === "SUMMARY") element.title = textOf(element.dataset.label);
}

const view = new View(find("canvas"));
const app = { picture: null, view, engine: createEngine(), messages: new Messages() };
app.filler = new Filler(app);
app.tools = new Tools(view, {
  onStroke: (event) => {
    app.forgetMessages();
    if (find("auto").checked && !event.shiftKey && app.tools.tool !== "eraser") app.filler.run();
  },
  onSize: (size) => {
    find("size").value = 100 * Math.sqrt((size - MIN_SIZE_PIXELS) / (MAX_SIZE_PIXELS - MIN_SIZE_PIXELS));
    find("size-text").textContent = `${Math.round(size)} px`;
  },
});

/** Show a picture. */
app.show = (picture) => {
  app.filler.cancel();
  app.tools.cancel();
  app.picture = picture;
  view.split = null;
  find("split").hidden = true;
  view.show(picture);
  picture.addEventListener("mask", app.refresh);
  picture.addEventListener("pixels", app.refresh);
  find("empty").hidden = true;
  app.messages.say(`${TEXTS.opened(picture.name, picture.width, picture.height)} · ${TEXTS.paintHint}`);
  if (picture.notes.length) app.messages.warn(picture.notes.join(" "));
  app.refresh();
};

/** Remove messages about what was there before a change of the mask. A fill that runs keeps its own. */
app.forgetMessages = () => {
  app.messages.clear();
  if (!app.filler.isRunning) app.messages.say("");
};

/** Bring buttons up to date, once a frame. */
app.refresh = () => {
  app.frame ??= requestAnimationFrame(() => {
    app.frame = null;
    app.refreshCommands();
    app.strip.refresh();
  });
};

app.strip = new Strip(app);
setUpTheme(app);
setUpFiles(app);
setUpCompare(app);
setUpCommands(app, COMMANDS);
app.tools.resize(40);
find("size").addEventListener("input", (event) => {
  const share = (event.target.value / 100) ** 2;
  app.tools.resize(MIN_SIZE_PIXELS + share * (MAX_SIZE_PIXELS - MIN_SIZE_PIXELS));
});
find("split").addEventListener("input", (event) => app.tools.moveSplit(event.target.value / 100));
app.tools.onSplit = (share) => (find("split").value = 100 * share);
view.onZoom = (scale) => (find("scale").querySelector("span").textContent = `${Math.round(100 * scale)} %`);
addEventListener("beforeunload", (event) => app.strip.hasUnsaved && event.preventDefault());
app.refreshCommands();
await setUpModels(app);
