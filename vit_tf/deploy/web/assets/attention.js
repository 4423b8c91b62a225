// The attention of the last block as a map over the patches, and how it is drawn.

// Viridis at eight equal steps, between which colours are interpolated.
const VIRIDIS = [
  [68, 1, 84],
  [70, 50, 126],
  [54, 92, 141],
  [39, 127, 142],
  [31, 161, 135],
  [74, 193, 109],
  [160, 218, 57],
  [253, 231, 37],
];
const OPACITY = 0.62;

/**
 * Returns the attention to each patch, in rows: the mean over the heads and over the chosen queries. Prefix
 * tokens are left out.
 *
 * @param tensor `{data, dims}`, `(1, heads, queries, tokens)`.
 * @param layout `{queries: [start, stop], patches: [start, stop]}`.
 */
export function attentionMap({ data, dims }, { queries, patches }) {
  const [, heads, numQueries, tokens] = dims;
  const map = new Float32Array(patches[1] - patches[0]);
  const share = 1 / (heads * (queries[1] - queries[0]));
  for (let head = 0; head < heads; head++) {
    for (let query = queries[0]; query < queries[1]; query++) {
      const start = (head * numQueries + query) * tokens + patches[0];
      for (let i = 0; i < map.length; i++) map[i] += share * data[start + i];
    }
  }
  return map;
}

/** Draws a map over a grey copy of an image, from its smallest value (dark) to its largest (bright). */
export function drawAttention(canvas, image, map, { grid, covered }) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  [canvas.width, canvas.height] = [image.width, image.height];
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const low = map.reduce((a, b) => Math.min(a, b));
  const range = map.reduce((a, b) => Math.max(a, b)) - low || 1;
  const [rows, columns] = grid;
  for (let y = 0, i = 0; y < canvas.height; y++) {
    const row = ((y + 0.5) / canvas.height / covered[0]) * rows - 0.5;
    for (let x = 0; x < canvas.width; x++, i += 4) {
      const column = ((x + 0.5) / canvas.width / covered[1]) * columns - 0.5;
      const [red, green, blue] = colour((between(map, rows, columns, row, column) - low) / range);
      // Grey of low contrast, so that the map sets the brightness.
      const grey = 64 + (pixels.data[i] + pixels.data[i + 1] + pixels.data[i + 2]) / 6;
      pixels.data[i] = OPACITY * red + (1 - OPACITY) * grey;
      pixels.data[i + 1] = OPACITY * green + (1 - OPACITY) * grey;
      pixels.data[i + 2] = OPACITY * blue + (1 - OPACITY) * grey;
      pixels.data[i + 3] = 255;
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** Returns the value of a map between the centres of its patches. */
function between(map, rows, columns, row, column) {
  const y = Math.min(Math.max(row, 0), rows - 1);
  const x = Math.min(Math.max(column, 0), columns - 1);
  const [top, left] = [Math.floor(y), Math.floor(x)];
  const [bottom, right] = [Math.min(top + 1, rows - 1), Math.min(left + 1, columns - 1)];
  const upper = map[top * columns + left] * (1 - x + left) + map[top * columns + right] * (x - left);
  const lower = map[bottom * columns + left] * (1 - x + left) + map[bottom * columns + right] * (x - left);
  return upper * (1 - y + top) + lower * (y - top);
}

function colour(value) {
  const position = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1);
  const step = Math.min(Math.floor(position), VIRIDIS.length - 2);
  return VIRIDIS[step].map((low, i) => low + (position - step) * (VIRIDIS[step + 1][i] - low));
}

/** Returns in words where a map is largest, for those who do not see it: "in the upper left". */
export function whereLargest(map, [rows, columns]) {
  const largest = map.reduce((best, value, i) => (value > map[best] ? i : best), 0);
  const vertical = thirds(Math.floor(largest / columns), rows, ["upper", "", "lower"]);
  const horizontal = thirds(largest % columns, columns, ["left", "", "right"]);
  return `in the ${[vertical, horizontal].filter(Boolean).join(" ") || "centre"}`;
}

const thirds = (index, count, names) => names[Math.min(Math.floor((3 * (index + 0.5)) / count), 2)];
