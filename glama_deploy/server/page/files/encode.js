/** Encode results and masks, and hand them to the person. */
import { addToJpeg, makeChunks } from "./metadata.js";
import { encodePng } from "./png_background.js";

const JPEG_QUALITY = 0.95;

/** Return the type in which a picture is saved unless another is asked for: its own if that is JPEG, else PNG. */
export const savedType = (picture) =>
  picture.type === "image/jpeg" && picture.channels % 2 ? "image/jpeg" : "image/png";

/** Encode a picture in full resolution with its metadata, as JPEG or PNG. */
export async function encodePicture(picture, type = savedType(picture)) {
  if (type === "image/png") return encodePng(picture, await makeChunks(picture.metadata, picture.channels < 3));
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d").putImageData(new ImageData(picture.rgba, picture.width, picture.height), 0, 0);
  const blob = await canvas.convertToBlob({ type, quality: JPEG_QUALITY });
  const bytes = addToJpeg(new Uint8Array(await blob.arrayBuffer()), picture.metadata);
  return new Blob([bytes], { type });
}

/** Return a file name with another end: `photo.jpg` becomes `photo-filled.png`. */
export function makeName(name, end, type) {
  const stem = name.replace(/\.[^.]+$/, "");
  return `${stem}-${end}.${type === "image/jpeg" ? "jpg" : "png"}`;
}

/** Encode a picture and hand it to the person. What is changed during the encoding is not saved. Return the file's name. */
export async function savePicture(picture, type = savedType(picture)) {
  const name = makeName(picture.name, "filled", type);
  picture.isSaved = true;
  try {
    download(await encodePicture(picture, type), name);
  } catch (error) {
    picture.isSaved = false;
    throw error;
  }
  return name;
}

/** Have the browser save a blob. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
