// From a model's outputs to lines of text, as in vit_tf.predictions.

const DEFAULT_THRESHOLD = 0.5;

/** Returns the probabilities of a model's outputs. `activation` is "softmax", "sigmoid" or "none". */
export function probabilities(outputs, activation) {
  if (activation === "none") return Array.from(outputs);
  if (activation === "sigmoid") return Array.from(outputs, sigmoid);
  const largest = outputs.reduce((a, b) => Math.max(a, b));
  const exponents = Array.from(outputs, (x) => Math.exp(x - largest));
  const sum = exponents.reduce((a, b) => a + b, 0);
  return exponents.map((x) => x / sum);
}

function sigmoid(x) {
  const small = Math.exp(-Math.abs(x)); // never overflows
  return (x >= 0 ? 1 : small) / (1 + small);
}

/** Returns what turns the outputs of the described model into probabilities. */
function activationOf(description, count) {
  if (description.activation !== "linear") return "none"; // the graph ends in softmax or sigmoid
  return description.problem_type.startsWith("multi_label") || count === 1 ? "sigmoid" : "softmax";
}

/**
 * Returns the predictions of one image: objects with `label`, `share` from 0 to 1 for a bar or null, `text`, and
 * `selected`, which is null for mutually exclusive classes. Highest first; a regression keeps its order.
 *
 * @param outputs one number per logit.
 * @param description the content of vit_tf.json, with a name per logit in `labels`.
 * @param top how many are returned at most, beside those that reach their threshold.
 */
export function decode(outputs, description, top = 5) {
  const { labels, problem_type: problemType } = description;
  if (problemType === "regression") {
    return Array.from(outputs, (value, i) => ({
      label: labels[i],
      share: null,
      text: String(Number(value.toPrecision(5))),
      selected: null,
    }));
  }
  let ranking = Array.from(outputs);
  let scores = probabilities(outputs, activationOf(description, outputs.length));
  let thresholds = description.thresholds;
  if (!thresholds && problemType.startsWith("multi_label")) thresholds = scores.map(() => DEFAULT_THRESHOLD);
  let selected = scores.map((score, i) => (thresholds ? score >= thresholds[i] : null));
  if (labels.length > scores.length) {
    // One output with two names is the probability of the second.
    scores = [1 - scores[0], scores[0]];
    ranking = scores;
    selected = thresholds ? [!selected[0], selected[0]] : [null, null];
  }
  return ranking
    .map((_, i) => i)
    .sort((a, b) => ranking[b] - ranking[a])
    .filter((i, rank) => rank < top || selected[i])
    .map((i) => ({
      label: labels[i],
      share: scores[i],
      text: `${(100 * scores[i]).toFixed(1)}\u00a0%`,
      selected: selected[i],
    }));
}
