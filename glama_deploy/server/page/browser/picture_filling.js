/** Fill a picture with gray or transparent pixels by a network of colours, as glama_deploy does. */

/**
 * @param {(rgba: Uint8ClampedArray) => Promise<Uint8ClampedArray>} fill fills the missing pixels' colours.
 * @param {{rgba: Uint8ClampedArray, width: number, height: number, channels: number}} picture
 * @param {Uint8Array} mask 1 for a missing pixel.
 * @returns {Promise<Uint8ClampedArray>} the filled pixels.
 */
export async function fillPicture(fill, picture, mask) {
  const rgba = await fill(picture.rgba);
  if (picture.channels < 3) makeGray(rgba, mask);
  return rgba;
}

/** Replace the colours of missing pixels by their brightness (ITU-R 601, in 16-bit numbers as Pillow has it). */
function makeGray(rgba, mask) {
  for (let place = 0; place < mask.length; place++) {
    if (!mask[place]) continue;
    const [red, green, blue] = rgba.subarray(4 * place, 4 * place + 3);
    rgba.fill((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16, 4 * place, 4 * place + 3);
  }
}
