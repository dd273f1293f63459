/** Commands: what buttons and keys do. A button with `data-command` gets its name, icon, key and action from here. */
import { download, encodePicture, makeName, savePicture, savedType } from "./files/encode.js";
import { readMask } from "./files/mask_file.js";
import { encodePngGray } from "./files/png_background.js";
import { spread } from "./picture/shapes.js";
import { TEXTS } from "./texts.js";

const find = (id) => document.getElementById(id);
const ZOOM_STEP = 1.4;
const isMac = /Mac|iP(hone|ad)/.test(navigator.platform);

const hasPicture = (app) => app.picture !== null;
const hasMask = (app) => hasPicture(app) && !app.picture.mask.isEmpty;
const useTool = (name) => ({
  run: (app) => {
    app.tools.tool = name;
    app.tools.updateCursor();
    app.view.invalidate();
  },
  isOn: (app) => app.tools.tool === name,
});
const changeMask = (draw) => ({
  run: (app) => {
    app.forgetMessages();
    app.picture.changeMask(draw);
  },
  can: hasPicture,
});
const step = (name, text) => (app) => {
  app.filler.cancel();
  app.messages.clear();
  app.messages.say(text);
  app.picture[name]();
};
const growPixels = () => Math.min(500, Math.max(1, find("grow").valueAsNumber || 1));

async function save(app, type = savedType(app.picture)) {
  app.messages.say(TEXTS.saving(makeName(app.picture.name, "filled", type)));
  app.messages.say(TEXTS.saved(await savePicture(app.picture, type)));
}

async function copy(app) {
  if (!navigator.clipboard?.write) return app.messages.warn(TEXTS.cannotCopy); // a page of http
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": encodePicture(app.picture, "image/png") })]);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return app.messages.warn(TEXTS.cannotCopy); // the person or the browser refused
  }
  return app.messages.say(TEXTS.copied);
}

async function saveMask({ picture }) {
  const blob = await encodePngGray(picture.mask.data, picture.width, picture.height);
  download(blob, makeName(picture.name, "mask", "image/png"));
}

export async function openMask(app, file) {
  const { picture, messages } = app;
  app.forgetMessages();
  let read;
  try {
    read = await readMask(file, picture);
  } catch (error) {
    return messages.warn(error.code === "mask" ? error.message : TEXTS.cannotOpen([file.name]));
  }
  messages.say(read.text);
  return picture.changeMask((data) => (data.set(read.data), picture.mask.area));
}

function showSplit(app, isShown) {
  app.view.split = isShown ? 0.5 : null;
  find("split").hidden = !isShown;
  find("split").value = 50;
  app.view.invalidate();
}

/**
 * Each command has `run(app)`, and may have `can(app)`, `isOn(app)`, `hides` (it is hidden instead of disabled),
 * `isLight` (a stroke goes on) and `key`: the key's name, with "Ctrl+" (Cmd on a Mac) and "Shift+".
 */
export const COMMANDS = {
  open: { key: "Ctrl+o", run: () => find("files").click() },
  folder: { run: () => find("folder").click() },
  sample: { run: (app) => app.openSample() },
  undo: {
    key: "Ctrl+z",
    can: (app) => hasPicture(app) && app.picture.canUndo,
    run: step("undo", TEXTS.undone),
  },
  redo: {
    key: "Ctrl+Shift+z",
    can: (app) => hasPicture(app) && app.picture.canRedo,
    run: step("redo", TEXTS.redone),
  },
  brush: { key: "b", ...useTool("brush") },
  eraser: { key: "e", ...useTool("eraser") },
  lasso: { key: "l", ...useTool("lasso") },
  rectangle: { key: "r", ...useTool("rectangle") },
  hand: { key: "m", ...useTool("hand") },
  smaller: { key: "[", isLight: true, run: (app) => app.tools.step(-1) },
  larger: { key: "]", isLight: true, run: (app) => app.tools.step(1) },
  fill: { key: "f", can: (app) => hasMask(app) && !app.filler.isRunning, run: (app) => app.filler.run() },
  cancel: {
    key: "Escape",
    hides: true,
    can: (app) => app.filler.isRunning,
    run: (app) => app.filler.cancel(),
  },
  split: {
    key: "v",
    can: hasPicture,
    isOn: (app) => app.view.split !== null,
    run: (app) => showSplit(app, app.view.split === null),
  },
  compare: { key: "c", can: (app) => hasPicture(app) && !app.filler.isRunning, run: (app) => app.openCompare() },
  copy: { key: "Ctrl+c", can: hasPicture, run: copy },
  save: { key: "Ctrl+s", can: hasPicture, run: (app) => save(app) },
  savePng: { key: "Ctrl+Shift+s", can: hasPicture, run: (app) => save(app, "image/png") },
  saveAll: { hides: true, can: (app) => app.strip.hasUnsaved, run: (app) => app.strip.saveAll() },
  maskOpen: { can: hasPicture, run: () => find("mask").click() },
  maskSave: { can: hasMask, run: saveMask },
  maskInvert: {
    key: "i",
    ...changeMask((data, mask) => {
      for (let place = 0; place < data.length; place++) data[place] ^= 1;
      return mask.area;
    }),
  },
  maskGrow: { key: "+", ...changeMask((data, mask) => spread(data, mask, growPixels(), 1)), can: hasMask },
  maskShrink: { key: "-", ...changeMask((data, mask) => spread(data, mask, growPixels(), 0)), can: hasMask },
  maskClear: { key: "Delete", ...changeMask((data, mask) => (data.fill(0), mask.area)), can: hasMask },
  zoomIn: { key: "2", isLight: true, can: hasPicture, run: (app) => app.view.zoomBy(ZOOM_STEP) },
  zoomOut: { key: "1", isLight: true, can: hasPicture, run: (app) => app.view.zoomBy(1 / ZOOM_STEP) },
  fit: { key: "0", can: hasPicture, run: (app) => app.view.fit() },
  actual: { key: "9", can: hasPicture, run: (app) => app.view.zoomBy(1 / app.view.scale) },
  previous: { key: "PageUp", can: (app) => app.strip.canStep(-1), run: (app) => app.strip.step(-1) },
  next: { key: "PageDown", can: (app) => app.strip.canStep(1), run: (app) => app.strip.step(1) },
  theme: { run: (app) => app.switchTheme() },
  help: { key: "?", run: () => find("help").showModal() },
};

export const showKey = (key) =>
  key.replace("Ctrl+", isMac ? "⌘ " : "Ctrl ").replace("Shift+", isMac ? "⇧ " : "Shift ").replace(/\b[a-z]$/, (letter) =>
    letter.toUpperCase(),
  );

/** Icons of commands that have none of their own. */
const ICONS = { savePng: "save", saveAll: "save", maskSave: "save", maskOpen: "open" };

/** Give buttons their names and actions, and have keys run commands. */
export function setUpCommands(app, commands) {
  const buttons = [...document.querySelectorAll("[data-command]")];
  const can = (command) => command.can?.(app) ?? true;
  const run = async (command) => {
    if (!can(command)) return;
    if (!command.isLight) app.tools.cancel();
    try {
      await command.run(app);
    } catch (error) {
      app.report(error);
    }
    app.refresh();
  };
  for (const button of buttons) {
    const name = button.dataset.command;
    const [command, text] = [commands[name], TEXTS.commands[name]];
    const title = command.key ? `${text} (${showKey(command.key)})` : text;
    const icon = ICONS[name] ?? name;
    const label = document.createElement("span");
    label.textContent = TEXTS.short[name] ?? text;
    if (name === "actual") label.textContent = "100 %";
    else button.innerHTML = `<svg aria-hidden="true"><use href="page/icons.svg#${icon}"></use></svg>`;
    if (button.classList.contains("wordy")) button.append(label);
    else button.setAttribute("aria-label", title);
    Object.assign(button, { type: "button", title });
    button.addEventListener("click", () => {
      button.closest("details")?.removeAttribute("open");
      run(command);
    });
  }
  app.refreshCommands = () => {
    for (const button of buttons) {
      const command = commands[button.dataset.command];
      button.disabled = !can(command);
      button.hidden = Boolean(command.hides) && !can(command);
      if (command.isOn) button.setAttribute("aria-pressed", String(command.isOn(app)));
    }
  };
  setUpKeys(app, Object.values(commands), run);
  setUpHelp(commands);
  document.body.inert = false; // a click before now would have been lost
}

const isTyping = (element) => element.matches('input:not([type="range"], [type="checkbox"]), select, textarea');

function setUpKeys(app, commands, run) {
  let isFocusOfKeys = false; // noted when the focus moves, because a key makes every focus visible
  addEventListener("focusin", ({ target }) => (isFocusOfKeys = target.matches(":focus-visible")));
  addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || isTyping(event.target)) return;
    const modifier = event.ctrlKey || event.metaKey;
    if (event.key === "Escape" && closeMenus() | app.tools.cancel()) return;
    const isAtPicture = app.tools.isHovering || event.target === app.view.canvas;
    const isAtControl = isFocusOfKeys && event.target !== app.view.canvas;
    if (event.key === " " && isAtPicture && !isAtControl) {
      app.tools.isSpaceDown = true;
      app.tools.updateCursor();
      event.preventDefault();
    } else if (event.key === "Tab" && !modifier && (isAtPicture || event.target === document.body)) {
      holdOriginal(app, event);
    } else {
      const pressed = (modifier ? "Ctrl+" : "") + (modifier && event.shiftKey ? "Shift+" : "") + event.key.toLowerCase();
      const found = commands.find((command) => command.key?.toLowerCase() === pressed.toLowerCase());
      if (!found || event.altKey) return;
      if (found.key === "Ctrl+c" && getSelection().toString()) return; // the person copies text
      event.preventDefault();
      run(found);
    }
  });
  addEventListener("keyup", (event) => {
    if (event.key !== " " || !app.tools.isSpaceDown) return;
    event.preventDefault(); // it does not press a button that has the focus
    app.tools.isSpaceDown = false;
    app.tools.updateCursor();
  });
  const closeOutside = (event) => {
    if (event.target.closest(".menu") || !closeMenus()) return;
    if (event.target.id === "canvas") event.stopPropagation(); // the click closes a menu, and paints nothing
  };
  addEventListener("pointerdown", closeOutside, { capture: true });
}

function closeMenus() {
  const open = [...document.querySelectorAll(".menu[open]")];
  for (const menu of open) menu.open = false;
  return open.length > 0;
}

/** Milliseconds after which Tab counts as held. A shorter press moves the focus, as everywhere. */
const HOLD_MILLISECONDS = 250;

function holdOriginal(app, event) {
  event.preventDefault();
  if (event.repeat) return;
  const pressed = performance.now();
  const show = (isShown) => {
    app.view.showsOriginal = isShown;
    app.view.invalidate();
  };
  show(hasPicture(app));
  addEventListener("blur", () => show(false), { once: true });
  addEventListener(
    "keyup",
    () => {
      show(false);
      if (performance.now() - pressed < HOLD_MILLISECONDS) moveFocus(event.target, event.shiftKey ? -1 : 1);
    },
    { once: true },
  );
}

function moveFocus(from, step) {
  const all = [...document.querySelectorAll("button, input, select, summary, canvas[tabindex]")];
  const places = all.filter((element) => !element.disabled && element.checkVisibility());
  const at = places.indexOf(from);
  places[(at + step + places.length) % places.length]?.focus();
}

function setUpHelp(commands) {
  const dialog = find("help");
  const add = (key, text) => {
    const [row, term, keys] = ["div", "dt", "dd"].map((name) => document.createElement(name));
    term.textContent = text;
    keys.append(Object.assign(document.createElement("kbd"), { textContent: key }));
    row.append(term, keys);
    dialog.querySelector("dl").append(row);
  };
  dialog.querySelector("h2").textContent = TEXTS.help.title;
  dialog.querySelector("p").textContent = TEXTS.help.more;
  for (const [name, { key }] of Object.entries(commands)) if (key) add(showKey(key), TEXTS.commands[name]);
  add("Tab", TEXTS.commands.original);
  for (const name of ["size", "wheel", "pan", "collect", "arrows"]) add(...TEXTS.help[name]);
}
