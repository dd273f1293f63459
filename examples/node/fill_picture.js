#!/usr/bin/env node
// Fill the holes of a picture in Node.js, with ONNX Runtime and a model of `glama-export --io uint8`.
//
//     npm install --ignore-scripts && node fill_picture.js MODEL.onnx PICTURE.ppm MASK.pgm RESULT.ppm
//
// The picture is a binary PPM, the mask a binary PGM of the same size. White pixels of the mask are missing. The model
// pads, scales and composites by itself: the program hands over the bytes of the files.
"use strict";

const { readFileSync, renameSync, rmSync, writeFileSync } = require("node:fs");
const ort = require("onnxruntime-node");

/** Gray values above this one are missing, as glama-serve reads a mask. */
const MISSING_ABOVE = 127;

/** The largest side of a picture in pixels. */
const MAX_SIDE = 16384;

/** Bad input, for which the program ends with exit code 2. */
class InputError extends Error {}

/**
 * Read a binary PPM (`P6`, 3 channels) or PGM (`P5`, 1 channel).
 * @returns {{height: number, width: number, pixels: Uint8Array}} rows from the top, channels of a pixel side by side
 */
function readPnm(path, magic, channels) {
  let file;
  try {
    file = readFileSync(path);
  } catch (error) {
    throw new InputError(`cannot read ${path} (${error.code}); check the path`);
  }
  const header = /^(P\d)(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+(\d+)\s/.exec(file.toString("latin1", 0, 4096));
  if (!header || header[1] !== magic) {
    throw new InputError(`${path} is not a binary PNM file of the kind ${magic}; convert it`);
  }
  const [width, height, largest] = header.slice(2).map(Number);
  if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE || largest !== 255) {
    throw new InputError(`${path} is not a picture of 8 bits a channel with sides up to ${MAX_SIDE} pixels`);
  }
  const pixels = file.subarray(header[0].length, header[0].length + height * width * channels);
  if (pixels.length < height * width * channels) {
    throw new InputError(`${path} ends before its last pixel; save the file again`);
  }
  return { height, width, pixels: new Uint8Array(pixels) };
}

/** Write a binary PPM, whole or not at all. */
function writePpm(path, { height, width, pixels }) {
  const unfinished = `${path}.part`;
  try {
    writeFileSync(unfinished, Buffer.concat([Buffer.from(`P6\n${width} ${height}\n255\n`, "latin1"), pixels]));
    renameSync(unfinished, path);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw new InputError(`cannot write ${path} (${error.code}); check the folder and the free space`);
  }
}

/** Open a model, and check that the model takes bytes. A model of `--io float` would need padding and scaling here. */
async function openModel(path) {
  const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
  const image = session.inputMetadata.find((input) => input.name === "image");
  if (image?.type !== "uint8") {
    throw new InputError("the model has no input 'image' of bytes; export the network with glama-export --io uint8");
  }
  return session;
}

/** Fill the missing pixels. Known pixels come back as they were. */
async function fill(session, { height, width, pixels }, mask) {
  const missing = mask.pixels.map((value) => (value > MISSING_ABOVE ? 1 : 0)); // above 0 is missing
  const inputs = {
    image: new ort.Tensor("uint8", pixels, [1, height, width, 3]),
    mask: new ort.Tensor("uint8", missing, [1, height, width]),
  };
  const { inpainted } = await session.run(inputs, ["inpainted"]);
  return { height, width, pixels: inpainted.data };
}

async function main(parameters) {
  if (parameters.length !== 4) {
    throw new InputError("usage: node fill_picture.js MODEL.onnx PICTURE.ppm MASK.pgm RESULT.ppm");
  }
  const [model, picturePath, maskPath, resultPath] = parameters;
  const picture = readPnm(picturePath, "P6", 3);
  const mask = readPnm(maskPath, "P5", 1);
  if (mask.height !== picture.height || mask.width !== picture.width) {
    const sizes = [mask, picture].map(({ height, width }) => `${width}x${height}`);
    throw new InputError(`the mask is ${sizes[0]} and the picture ${sizes[1]}; give a mask of the picture's size`);
  }
  writePpm(resultPath, await fill(await openModel(model), picture, mask));
}

main(process.argv.slice(2)).catch((error) => {
  const isInput = error instanceof InputError;
  console.error(`fill_picture: ${isInput ? "" : "ONNX Runtime failed: "}${error.message.split("\n")[0]}`);
  process.exitCode = 2;
});
