/** An error of an engine, which the page shows to the person. */
export class EngineError extends Error {
  /** `code`: a word for the kind of error; "offline" without an answer, "token" where a token is expected. */
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}
