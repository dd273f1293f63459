/** Show the engine, switch models and precisions, report what the engine says, and ask for its token. */
import { TEXTS } from "../texts.js";

const find = (id) => document.getElementById(id);

const LOOK_MILLISECONDS = 1000;

/** Return the names of the models of an info. */
export const modelNames = (info) => (info.models ?? []).map((model) => model.name ?? model);

/** Return to the model that is shown, after requests with others. */
export async function restoreModel(app) {
  const { model, precision } = app.info;
  try {
    showInfo(app, await app.engine.select({ model, precision }));
  } catch (error) {
    app.report(error, () => restoreModel(app));
  }
}

export async function setUpModels(app) {
  app.report = (error, retry) => {
    if (error.code === "token") return askToken(app, retry);
    app.messages.say("");
    if (error.code === undefined) console.error(error); // a fault of the page
    return app.messages.warn(error.message, retry);
  };
  for (const id of ["model", "precision"]) find(id).addEventListener("change", ({ target }) => select(app, { [id]: target.value }));
  find("privacy").textContent = describePrivacy(app.engine);
  if (app.engine.note) app.messages.warn(app.engine.note);
  await refreshInfo(app);
}

function describePrivacy(engine) {
  if (engine.isLocal) return TEXTS.inBrowser;
  return ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname) ? TEXTS.local : TEXTS.privacy(location.host);
}

async function refreshInfo(app) {
  try {
    const info = await app.engine.info();
    showInfo(app, info);
    if (!info.precision) setTimeout(() => refreshInfo(app), LOOK_MILLISECONDS); // the engine is being opened
  } catch (error) {
    app.report(error, () => refreshInfo(app));
  }
}

function showInfo(app, info) {
  app.info = info;
  find("engine").textContent = TEXTS.engineIs(info);
  list(find("model"), modelNames(info), info.model);
  list(find("precision"), info.precisions ?? [], info.precision);
}

function list(element, names, chosen) {
  element.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  element.hidden = names.length < 2;
}

/** Change the model or the precision. Another model opens in its own precision. */
async function select(app, change) {
  const { model, precision } = app.info;
  app.messages.say(TEXTS.switching(change.model ?? model));
  try {
    showInfo(app, await app.engine.select(change.model ? change : { model, precision, ...change }));
    app.messages.say(TEXTS.engineIs(app.info));
  } catch (error) {
    showInfo(app, app.info);
    app.report(error, () => select(app, change));
  }
}

/** Ask for the token, and do again what failed without the token. */
function askToken(app, retry) {
  const dialog = find("token");
  const text = find("token-text");
  if (dialog.open) return;
  text.value = "";
  dialog.showModal();
  dialog.onclose = () => {
    if (!text.value) return;
    app.engine.setToken(text.value);
    (retry ?? (() => refreshInfo(app)))();
  };
}
