/** Compare how models and precisions fill the same mask. */
import { compositeBox, cropPixels } from "../picture/boxes.js";
import { grow, heightOf, intersect, makeRect, unite, widthOf } from "../picture/rects.js";
import { TEXTS } from "../texts.js";
import { modelNames, restoreModel } from "./models.js";

const find = (id) => document.getElementById(id);
const MARGIN_PIXELS = 48;

export function setUpCompare(app) {
  const dialog = find("compare");
  const results = dialog.querySelector(".results");
  let hasSwitched = false;
  /** Bring the last fill back, if it was undone to compare its mask. */
  let bringBack = null;
  app.openCompare = () => {
    const { picture, messages } = app;
    if (!app.info) return messages.warn(TEXTS.offline);
    if (picture.mask.isEmpty) bringBack = undoLastFill(picture);
    if (picture.mask.isEmpty) return messages.warn(TEXTS.compareEmpty);
    app.forgetMessages();
    dialog.querySelector(".hint").textContent = bringBack ? TEXTS.compareAgain : TEXTS.compareHint;
    listChoices(app.info, dialog.querySelector(".choices"));
    results.replaceChildren();
    return dialog.showModal();
  };
  dialog.addEventListener("close", () => {
    app.filler.cancel();
    bringBack?.();
    bringBack = null;
    if (hasSwitched) restoreModel(app);
    hasSwitched = false;
  });
  const use = (picture, { result, seconds }) => {
    bringBack = null; // the result replaces the last fill
    picture.applyFill(result);
    dialog.close();
    app.messages.say(TEXTS.filled(seconds, result.seconds, result.engine));
  };
  find("compare-run").addEventListener("click", async ({ currentTarget }) => {
    results.replaceChildren();
    hasSwitched = true;
    currentTarget.disabled = true; // one loop at a time
    for (const box of dialog.querySelectorAll(".choices input:checked")) {
      if (!dialog.open || !(await runChoice(app, box, results, use))) break;
    }
    currentTarget.disabled = false;
  });
}

/** Undo the last fill, so that its mask is there. Return what brings the fill back; null if the last step was no fill. */
function undoLastFill(picture) {
  if (!picture.history.done.at(-1)?.patches.length) return null;
  const { isSaved } = picture;
  const redo = () => {
    picture.redo();
    picture.isSaved = isSaved;
  };
  picture.undo();
  if (!picture.mask.isEmpty) return redo;
  redo(); // its mask was erased while it ran
  return null;
}

function listChoices(info, element) {
  const others = modelNames(info).filter((name) => name !== info.model);
  const precisions = info.precisions?.length ? info.precisions : [info.precision];
  const choices = [
    ...precisions.map((precision) => ({ model: info.model, precision })),
    ...others.map((model) => ({ model })),
  ];
  element.replaceChildren(
    ...choices.map((choice) => {
      const [label, box] = [document.createElement("label"), document.createElement("input")];
      Object.assign(box, { type: "checkbox", checked: choice.model === info.model });
      Object.assign(box.dataset, choice);
      label.append(box, ` ${TEXTS.choice(choice.model, choice.precision)}`);
      return label;
    }),
  );
}

async function runChoice(app, box, results, use) {
  const { picture } = app;
  const { model, precision } = box.dataset;
  const work = (options) => picture.fill(app.engine, { ...options, model, precision });
  const outcome = await app.filler.track(work, () => app.openCompare());
  app.messages.say("");
  if (!outcome) {
    if (!find("alert").hidden) find("compare").close(); // the banner is behind the dialog
    return false;
  }
  const [figure, caption, button] = ["figure", "figcaption", "button"].map((name) => document.createElement(name));
  for (const text of [TEXTS.choice(model, precision), TEXTS.seconds(outcome.result.seconds)]) {
    caption.append(Object.assign(document.createElement("span"), { textContent: text }));
  }
  button.textContent = TEXTS.compareUse;
  button.setAttribute("aria-label", `${TEXTS.compareUse}: ${TEXTS.choice(model, precision)}`);
  button.addEventListener("click", () => use(picture, outcome));
  figure.append(drawResult(picture, outcome.result), caption, button);
  results.append(figure);
  return true;
}

/** Return a canvas with the filled holes and what is around them. */
function drawResult(picture, { missing, boxes, filled }) {
  const holes = boxes.map(({ hole }) => hole).reduce(unite);
  const area = intersect(grow(holes, MARGIN_PIXELS), makeRect(0, 0, picture.width, picture.height));
  const move = ({ left, top, right, bottom }) =>
    makeRect(left - area.left, top - area.top, right - area.left, bottom - area.top);
  const pixels = cropPixels(picture.rgba, picture.width, area);
  const left = picture.mask.crop(area, missing);
  for (const [number, { hole, span }] of boxes.entries()) {
    compositeBox(pixels, widthOf(area), left, { hole: move(hole), span: move(span) }, filled[number]);
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [widthOf(area), heightOf(area)];
  canvas.getContext("2d").putImageData(new ImageData(pixels, canvas.width), 0, 0);
  return canvas;
}
