/** All texts of the page, in one place for translators. */

const number = new Intl.NumberFormat("en");
const list = new Intl.ListFormat("en");
const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;

export const TEXTS = {
  language: "en",
  title: "glama-deploy · remove things from pictures",
  headline: "Remove something from a picture",
  invitation: "Drop a picture here, paste one, or",
  privacy: (host) => `Pictures are sent only to ${host}.`,
  local: "Pictures stay on this machine.",
  inBrowser: "Pictures stay in this browser.",
  paintHint: "Paint over what is to disappear.",
  canvas: "The picture. Paint over what is to disappear. Arrow keys move the brush, Enter puts it down and lifts it.",
  toolbar: "Tools",
  commandBar: "Picture",
  fillBar: "Fill",
  strip: "Open pictures",
  brushSize: "Brush",
  auto: "Fill when I let go",
  autoHint: "Hold Shift while you let go to collect several strokes",
  maskMenu: "Mask",
  growBy: "Pixels to grow or shrink by",
  splitLabel: "Line between before and after",
  before: "Before",
  after: "After",
  model: "Model",
  precision: "Precision",

  /** Commands: the name, which is also the tooltip. */
  commands: {
    open: "Open pictures",
    folder: "Open a folder",
    sample: "Try a sample picture",
    undo: "Undo",
    redo: "Redo",
    brush: "Brush",
    eraser: "Eraser",
    lasso: "Lasso",
    rectangle: "Rectangle",
    hand: "Move the picture",
    smaller: "Smaller brush",
    larger: "Larger brush",
    fill: "Fill",
    cancel: "Cancel",
    split: "Before and after",
    original: "Show the original while held",
    compare: "Compare models",
    copy: "Copy the result",
    save: "Download",
    savePng: "Download as PNG",
    saveAll: "Download all changed",
    maskOpen: "Open a mask",
    maskSave: "Download the mask",
    maskInvert: "Invert the mask",
    maskGrow: "Grow the mask",
    maskShrink: "Shrink the mask",
    maskClear: "Clear the mask",
    zoomIn: "Zoom in",
    zoomOut: "Zoom out",
    fit: "Fit to the window",
    actual: "Actual size",
    previous: "Previous picture",
    next: "Next picture",
    theme: "Dark or light",
    help: "Keys and help",
    close: "Close",
  },

  /** Short names that stand on buttons beside their icons. */
  short: {
    open: "Open",
    sample: "Try a sample",
    split: "Before / after",
    compare: "Compare",
    copy: "Copy",
    maskInvert: "Invert",
    maskGrow: "Grow",
    maskShrink: "Shrink",
    maskClear: "Clear",
  },

  help: {
    title: "Keys and help",
    wheel: ["Wheel, pinch", "Zoom"],
    pan: ["Space + drag", "Move the picture"],
    size: ["Alt or Shift + wheel", "Brush size"],
    collect: ["Shift + let go", "Collect strokes"],
    arrows: ["Arrows, Enter", "Paint by keys"],
    more: "Enter puts the brush down and lifts it. With Shift, arrow keys move by one pixel. A pen's pressure changes the width of the brush.",
  },

  compareTitle: "Compare models and precisions",
  compareHint: "The same mask is filled with each choice. Nothing changes until you use one.",
  compareAgain:
    "The mask of the last fill is filled with each choice. Use one to replace the last fill, or close to keep it.",
  compareEmpty: "Paint over something first. Then compare how models fill it.",
  compareRun: "Run",
  compareUse: "Use this",
  choice: (model, precision) => (precision ? `${model}, ${precision}` : model),

  loading: (name) => `Opening ${name} …`,
  opened: (name, width, height) => `${name} · ${number.format(width)} × ${number.format(height)}`,
  engineIs: (info) => `${info.model} · ${info.engine ?? "is being loaded …"}`,
  filling: "Filling …",
  progress: (box, boxes, elapsed) => `${boxes > 1 ? `${box} of ${boxes} · ` : ""}${elapsed.toFixed(1)} s`,
  cancelling: "Cancelling …",
  busy: "The server is busy. Waiting for a place …",
  filled: (total, network, engine) => `Filled in ${seconds(total)} (network ${seconds(network)}) · ${engine}`,
  seconds,
  cancelled: "Cancelled. The mask is as it was.",
  copied: "The result is in the clipboard.",
  saving: (name) => `Writing ${name} …`,
  saved: (name) => `${name} is downloaded.`,
  switching: (model) => `Loading ${model} …`,
  undone: "Undone.",
  redone: "Redone.",
  maskOpened: (name) => `${name} is the mask now.`,
  maskScaled: (name, width, height) =>
    `${name} is the mask now. It was scaled from ${number.format(width)} × ${number.format(height)} pixels.`,
  maskEmpty: (name) => `${name} has no bright pixel, so nothing is missing. The mask is as it was.`,
  maskShape: (name, mask, picture) =>
    `${name} has ${number.format(mask.width)} × ${number.format(mask.height)} pixels, the picture ` +
    `${number.format(picture.width)} × ${number.format(picture.height)}. They must have the same proportions.`,
  maskTransparent: (name) =>
    `${name} has transparent pixels, which may mean missing or known. ` +
    "Save the mask as black (known) and white (missing), or paint with one colour that is not black.",

  retry: "Try again",
  dismiss: "Close this message",
  offline: "The server does not answer. Start glama-serve again, or check the connection, and try again.",
  cannotOpen: (names) => {
    const listed = names.length > 3 ? [...names.slice(0, 2), `${names.length - 2} other files`] : names;
    const is = names.length > 1 ? "are not pictures" : "is not a picture";
    return `${list.format(listed)} ${is} that this browser can read. Use JPEG, PNG or WebP.`;
  },
  downloading: (loaded, total) => `${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB are downloaded …`,
  openingNetwork: "Opening the network …",
  insecure:
    "This address is not secure, so the browser runs the network in one thread and keeps nothing for offline use. " +
    "Open the page as https or on localhost.",
  engineFailed: (reason) =>
    reason.includes("bad_alloc")
      ? "The hole is too large for this browser. Paint and fill a smaller one first."
      : `The network cannot run in this browser: ${reason}. Reload the page.`,
  noSimd: "This browser does not run WebAssembly with SIMD. Use a current Chrome, Edge, Firefox or Safari.",
  siteOffline: "The site does not answer, and this browser has not kept it yet. Check the connection, and try again.",
  cannotCopy: "The browser does not allow the page to copy. Open the page as https or on localhost, or download.",
  wrongSize: (width, height, wantedWidth, wantedHeight) =>
    `The engine answered ${width} × ${height} pixels, but ${wantedWidth} × ${wantedHeight} were asked for.`,
  tokenTitle: "This server expects a token",
  tokenLabel: "Token",
  tokenSend: "Continue",
  pastedName: "pasted.png",
  sixteenBit: "This picture has 16 bits a colour. The page works with 8 bits, and so is the result.",
  profileDamaged: "The colour profile of this file is damaged. The result has none.",
  protected:
    "This browser changes the pixels that a page reads, to protect against tracking. Allow this page to read canvases.",
  roundedAlpha: "Colours of see-through pixels may change by rounding. Save the picture as PNG first to avoid this.",
};
