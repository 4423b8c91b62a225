// The model's own preprocessing, as in vit_tf.preprocessing.Preprocessing: resize, centred crop, normalisation.

import { resample } from "./resample.js";

/** Rounds halves to even numbers, as Python and NumPy do. */
export function round(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Returns `{height, width}` of an image after the resize and before the crop. */
export function resizedSize(height, width, settings) {
  const scaled = settings.image_size.map((side) => Math.floor(side / settings.crop_fraction));
  if (settings.crop_mode === "squash") return { height: scaled[0], width: scaled[1] };
  if (settings.crop_mode === "center" && scaled[0] === scaled[1]) {
    const shorter = Math.min(height, width);
    return {
      height: Math.floor((scaled[0] * height) / shorter),
      width: Math.floor((scaled[1] * width) / shorter),
    };
  }
  const fitting = settings.crop_mode === "center" ? Math.min : Math.max;
  const ratio = fitting(height / scaled[0], width / scaled[1]);
  return { height: Math.max(round(height / ratio), 1), width: Math.max(round(width / ratio), 1) };
}

/** Returns where a centred crop of `kept` pixels begins in `size`; negative if `kept` is larger. */
export function cropStart(size, kept) {
  const margin = (size - kept) / 2;
  return margin >= 0 ? round(margin) : Math.ceil(margin);
}

/**
 * Returns where the model's input lies: `resized`, the size of the whole image after the resize, and `window`,
 * the kept part of it. The window is larger than the image where there is a border.
 */
export function placement(height, width, settings) {
  const resized = resizedSize(height, width, settings);
  const [keptHeight, keptWidth] = settings.image_size;
  const window = {
    top: cropStart(resized.height, keptHeight) + 0, // no negative zero
    left: cropStart(resized.width, keptWidth) + 0,
    height: keptHeight,
    width: keptWidth,
  };
  return { resized, window };
}

/** Returns the colour where an image does not cover the model's input: three bytes. */
export function fillColour({ mean, crop_mode: mode }) {
  return mean.map((value) => (mode === "border" ? round(255 * value) : 0));
}

/** Returns the resized and cropped image as bytes, red, green and blue per pixel; see `resample`. */
export function resizeAndCrop(source, settings, bandPixels) {
  const { resized, window } = placement(source.height, source.width, settings);
  const top = Math.max(window.top, 0);
  const left = Math.max(window.left, 0);
  const height = Math.min(resized.height, window.height);
  const width = Math.min(resized.width, window.width);
  const kept = { top, left, height, width };
  const inner = resample(source, resized, kept, settings.interpolation, bandPixels);
  if (height === window.height && width === window.width) return inner;

  const fill = fillColour(settings);
  const pixels = new Uint8ClampedArray(3 * window.height * window.width);
  for (let i = 0; i < pixels.length; i++) pixels[i] = fill[i % 3];
  for (let y = 0; y < height; y++) {
    const row = inner.subarray(3 * y * width, 3 * (y + 1) * width);
    pixels.set(row, 3 * ((y + top - window.top) * window.width + left - window.left));
  }
  return pixels;
}

/** Returns `(x / 255 - mean) / std` in float32, channels last. */
export function normalize(pixels, { mean, std }) {
  const values = new Float32Array(pixels.length);
  const table = mean.map((average, channel) =>
    Float32Array.from({ length: 256 }, (_, byte) => {
      const shifted = Math.fround(Math.fround(byte / 255) - Math.fround(average));
      return shifted / Math.fround(std[channel]);
    }),
  );
  for (let i = 0; i < pixels.length; i++) values[i] = table[i % 3][pixels[i]];
  return values;
}
