/** Run fills: one at a time, with progress and cancel. Strokes that are painted meanwhile are filled next. */
import { TEXTS } from "../texts.js";

const find = (id) => document.getElementById(id);
const TICK_MILLISECONDS = 100;

export class Filler {
  constructor(app) {
    this.app = app;
    this.controller = null;
    this.isWanted = false;
  }

  get isRunning() {
    return this.controller !== null;
  }

  cancel() {
    this.isWanted = false;
    if (!this.isRunning || this.controller.signal.aborted) return;
    this.app.messages.say(TEXTS.cancelling);
    this.controller.abort();
  }

  /** Fill the mask's holes. While a fill runs, another one is noted. */
  async run() {
    const { picture, messages } = this.app;
    if (!picture || picture.mask.isEmpty) return;
    this.isWanted = this.isRunning;
    if (this.isRunning) return;
    messages.clear();
    const outcome = await this.track((options) => picture.fill(this.app.engine, options), () => this.run());
    if (outcome) {
      const { result, seconds } = outcome;
      picture.applyFill(result);
      messages.say(TEXTS.filled(seconds, result.seconds, result.engine));
    }
    if (this.isWanted) this.run();
  }

  /**
   * Run `work({signal, onBox, onProgress})` with progress and cancel.
   *
   * @returns {Promise<?{result: object, seconds: number}>} null if it was cancelled, or failed and the person was told.
   */
  async track(work, retry) {
    const { view, messages } = this.app;
    const controller = new AbortController();
    const started = performance.now();
    const elapsed = () => (performance.now() - started) / 1000;
    let [box, boxes] = [1, 1];
    const tick = () => messages.showProgress(TEXTS.progress(box, boxes, elapsed()));
    const timer = setInterval(tick, TICK_MILLISECONDS);
    this.controller = controller;
    this.#show(true);
    messages.say(TEXTS.filling);
    try {
      const result = await work({
        signal: controller.signal,
        onBox: (number, count) => ([box, boxes] = [number, count]),
        onProgress: ({ busy }) => messages.say(busy ? TEXTS.busy : TEXTS.filling),
      });
      controller.signal.throwIfAborted();
      return { result, seconds: elapsed() };
    } catch (error) {
      if (controller.signal.aborted) messages.say(TEXTS.cancelled);
      else {
        this.isWanted = false; // the person decides
        this.app.report(error, retry);
      }
      return null;
    } finally {
      clearInterval(timer);
      messages.showProgress("");
      this.controller = null;
      this.#show(false);
      view.invalidate({ mask: true });
    }
  }

  #show(isRunning) {
    find("progress").hidden = !isRunning;
    this.app.view.isBusy = isRunning;
    this.app.view.invalidate();
    this.app.refresh();
  }
}
