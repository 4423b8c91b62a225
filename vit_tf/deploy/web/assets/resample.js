// Resizes images to the same bytes as Pillow 13: two passes of antialiased filters in fixed-point arithmetic, both
// rounded to bytes. A browser's own scaling gives other pixels. Earlier versions of Pillow always begin with the
// horizontal pass, which rounds some pixels of tall images differently.
// Reference: Pillow's src/libImaging/Resample.c and, for "nearest", Geometry.c.

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

// Per interpolation: the radius of the filter in output pixels, and its weight at a distance.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) < 1 ? sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(Math.PI * x)) : 0)],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/**
 * Returns, for each of `count` output pixels from `first` on, where its input pixels begin, how many they are,
 * and their weights as integers.
 */
function filterWeights(size, resized, first, count, interpolation) {
  const [radius, filter] = FILTERS[interpolation];
  const scale = size / resized;
  const widening = Math.max(scale, 1);
  const support = radius * widening;
  const most = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(count);
  const lengths = new Int32Array(count);
  const weights = new Int32Array(count * most);
  const exact = new Float64Array(most);
  for (let i = 0; i < count; i++) {
    const center = (first + i + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const length = Math.min(Math.trunc(center + support + 0.5), size) - start;
    let sum = 0;
    for (let j = 0; j < length; j++) {
      exact[j] = filter((j + start - center + 0.5) * (1 / widening));
      sum += exact[j];
    }
    for (let j = 0; j < length; j++) {
      const weight = (sum === 0 ? exact[j] : exact[j] / sum) * (1 << PRECISION_BITS);
      weights[i * most + j] = Math.trunc(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    starts[i] = start;
    lengths[i] = length;
  }
  return { starts, lengths, weights, most };
}

/** Returns the same for the interpolation "nearest", and for a side that keeps its size: one pixel each. */
function pickedPixels(size, resized, first, count) {
  const starts = new Int32Array(count);
  const scale = size / resized;
  let position = scale * 0.5;
  for (let i = 0; i < first + count; i++) {
    if (i >= first) starts[i - first] = Math.min(Math.trunc(position), size - 1);
    position += scale; // accumulated, as in Pillow
  }
  return {
    starts,
    lengths: new Int32Array(count).fill(1),
    weights: new Int32Array(count).fill(1 << PRECISION_BITS),
    most: 1,
  };
}

function sideWeights(size, resized, first, count, interpolation) {
  const picks = interpolation === "nearest" || size === resized;
  return picks
    ? pickedPixels(size, resized, first, count)
    : filterWeights(size, resized, first, count, interpolation);
}

/**
 * Resizes an image and returns a window of the result as bytes, red, green and blue per pixel.
 *
 * @param source `{width, height, rows(top, count)}`: `rows` returns the bytes of whole rows, red, green, blue
 *   and alpha per pixel. Alpha is dropped.
 * @param resized `{width, height}` of the whole image after the resize.
 * @param window `{left, top, width, height}` within the resized image.
 * @param interpolation a name of Pillow's.
 * @param bandPixels the largest number of pixels that are read at a time.
 */
export function resample(source, resized, window, interpolation, bandPixels = 1 << 22) {
  const across = sideWeights(source.width, resized.width, window.left, window.width, interpolation);
  const down = sideWeights(source.height, resized.height, window.top, window.height, interpolation);
  const [fewerColumns, fewerRows] = [source.width - resized.width, source.height - resized.height];
  const isVerticalFirst = fewerRows > 2 * Math.max(fewerColumns, 0);
  const rowBytes = isVerticalFirst ? 4 * source.width : 3 * window.width;
  const sums = new Int32Array(window.height * rowBytes).fill(HALF);
  const first = down.starts[0];
  const end = down.starts.reduce((last, start, i) => Math.max(last, start + down.lengths[i]), 0);
  const bandRows = Math.max(1, Math.floor(bandPixels / source.width));
  for (let top = first; top < end; top += bandRows) {
    const count = Math.min(bandRows, end - top);
    let bytes = source.rows(top, count);
    if (!isVerticalFirst) bytes = resampleRows(bytes, source.width, count, across);
    addRows(bytes, rowBytes, top, count, down, sums);
  }
  const bytes = new Uint8ClampedArray(sums.length); // which clamps
  for (let i = 0; i < sums.length; i++) bytes[i] = sums[i] >> PRECISION_BITS;
  return isVerticalFirst ? resampleRows(bytes, source.width, window.height, across) : bytes;
}

/** The horizontal pass over rows of four bytes per pixel. Returns rows of three bytes per pixel. */
function resampleRows(bytes, width, count, { starts, lengths, weights, most }) {
  const target = new Uint8ClampedArray(3 * count * starts.length);
  let offset = 0;
  for (let y = 0; y < count; y++) {
    for (let x = 0; x < starts.length; x++) {
      let [red, green, blue] = [HALF, HALF, HALF];
      let pixel = 4 * (y * width + starts[x]);
      for (let j = x * most; j < x * most + lengths[x]; j++, pixel += 4) {
        const weight = weights[j];
        red = (red + Math.imul(bytes[pixel], weight)) | 0;
        green = (green + Math.imul(bytes[pixel + 1], weight)) | 0;
        blue = (blue + Math.imul(bytes[pixel + 2], weight)) | 0;
      }
      target[offset++] = red >> PRECISION_BITS;
      target[offset++] = green >> PRECISION_BITS;
      target[offset++] = blue >> PRECISION_BITS;
    }
  }
  return target;
}

/** The vertical pass: adds `count` rows, from the row `top` of the image on, to the weighted sums of the output. */
function addRows(bytes, rowBytes, top, count, { starts, lengths, weights, most }, sums) {
  for (let y = 0; y < starts.length; y++) {
    const begin = Math.max(starts[y], top);
    const end = Math.min(starts[y] + lengths[y], top + count);
    for (let row = begin; row < end; row++) {
      const weight = weights[y * most + row - starts[y]];
      const start = (row - top) * rowBytes;
      for (let i = 0; i < rowBytes; i++) sums[y * rowBytes + i] += Math.imul(bytes[start + i], weight);
    }
  }
}
