/** Tell the person: the status line for what goes well, a banner for what needs an answer. */
const find = (id) => document.getElementById(id);

export class Messages {
  constructor() {
    find("dismiss").addEventListener("click", () => this.clear());
    find("retry").addEventListener("click", () => {
      const { retry } = this;
      this.clear();
      retry?.();
    });
  }

  /** Show a text in the status line, which screen readers read out when the text changes. */
  say(text) {
    for (const element of document.querySelectorAll(".status")) {
      if (element.textContent !== text) element.textContent = text;
    }
  }

  /** Show how far something is. Screen readers are not told, for whom `say` is. */
  showProgress(text) {
    for (const element of document.querySelectorAll(".elapsed")) element.textContent = text;
  }

  /** Show a banner, with a button if there is something to try again. */
  warn(text, retry = null) {
    this.retry = retry;
    find("retry").hidden = !retry;
    find("alert").querySelector("p").textContent = text;
    find("alert").hidden = false;
  }

  clear() {
    this.retry = null;
    find("alert").hidden = true;
  }
}
