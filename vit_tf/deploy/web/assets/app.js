// The page: takes an image, shows what the worker computes of it. vit_tf.json and page.json describe the model.

import { attentionMap, drawAttention, whereLargest } from "./attention.js";
import { decode } from "./predictions.js";
import { fillColour, placement } from "./preprocessing.js";

const MOST_MEGAPIXELS = 178; // as in vit_tf
const DISPLAY_SIDE = 640; // pixels of the canvases
const MOST_LISTED = 20; // classes that are named in the text
const UNSURE = 0.5; // a lower probability is not stated as a fact
const FORMATS = "Choose a JPEG, PNG, WebP, GIF, AVIF or BMP file.";

const element = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
let description, page;
let choices = 0; // how often images were chosen
let latest = 0; // the choice that is shown
let isReady = false;
let waiting = null; // the message of an image that was chosen before the model was loaded

start().catch((error) => fail(error.message));

async function start() {
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => {
    event.preventDefault();
    fail("The model cannot run in this browser: a current version of Chrome, Edge, Firefox or Safari can.");
  };
  [description, page] = await Promise.all(["vit_tf.json", "page.json"].map(fetchJSON));
  description.labels = page.labels;
  introduce();
  listen();
  worker.postMessage({ type: "load" });
}

async function fetchJSON(path) {
  const response = await fetch(path, { cache: "no-cache" });
  if (!response.ok) throw new Error(`The file ${path} is missing on the server (${response.status}).`);
  return response.json();
}

/** Describes the model. All names come from files, and are set as text, never as HTML. */
function introduce() {
  const { labels, image_size: size } = description;
  const names = labels.length <= MOST_LISTED ? `: ${labels.join(", ")}` : "";
  const count = labels.length.toLocaleString("en");
  const isExclusive = description.problem_type.startsWith("single_label");
  const limits = isExclusive ? " Anything else is taken for one of them." : "";
  const classes = ` It knows ${count} classes${names}.${limits}`;
  const isClassifier = labels.length > 1 && description.problem_type !== "regression";
  element("introduction").textContent =
    `A Vision Transformer runs in this browser.${isClassifier ? classes : ""} Your images stay on this device.`;
  if (!labels.length) element("introduction").parentElement.querySelector("h1").textContent = "Where does it look?";
  document.title = `${document.querySelector("h1").textContent} (${description.variant})`;
  const facts = {
    Model: description.variant,
    Weights: description.source,
    Input: `${size[0]} × ${size[1]} pixels`,
    Precision: description.precision,
    Runtime: `ONNX Runtime Web ${page.onnxruntime_web}`,
  };
  for (const [name, value] of Object.entries(facts)) {
    element("about").append(make("dt", name), make("dd", value));
  }
  element("queries").textContent = page.attention?.query ?? "";
  element("attended").hidden = !page.attention;
  element("result").classList.toggle("plain", !page.attention);
}

function make(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

/** Takes images from the file dialog, from drops and from the clipboard. */
function listen() {
  const input = element("file");
  input.addEventListener("change", () => {
    if (input.files.length) open([...input.files]); // a copy: the list changes with the next line
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    event.preventDefault();
    open(event.clipboardData.files, "The clipboard has no image: copy an image, not its address or its file name.");
  });
  const hasFiles = (event) => event.dataTransfer.types.includes("Files");
  let depth = 0; // dragenter and dragleave also come from the elements inside
  document.addEventListener("dragenter", (event) => {
    depth += 1;
    document.body.classList.toggle("dragging", hasFiles(event));
  });
  document.addEventListener("dragleave", () => {
    depth -= 1;
    if (depth === 0) document.body.classList.remove("dragging");
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // otherwise the browser leaves this page for the file
    depth = 0;
    document.body.classList.remove("dragging");
    open(event.dataTransfer.files, "What was dropped is not a file: save the image first, then drop the file.");
  });
}

/** Reads the first of some files, shows it, and sends it to the worker. */
async function open(files, problemWithout = "") {
  const choice = ++choices;
  showError(files.length ? "" : problemWithout);
  if (!files.length) return;
  let bitmap;
  try {
    bitmap = await read(files[0]);
  } catch (error) {
    if (choice === choices) showError(error.message);
    return;
  }
  if (choice !== choices) return bitmap.close(); // another image was chosen meanwhile
  latest = choice;
  const note = files.length > 1 ? `The first of ${files.length} files. ` : "";
  drawSeen(bitmap, note + files[0].name);
  const message = { type: "run", id: choice, bitmap };
  if (isReady) return send(message);
  waiting?.bitmap.close();
  waiting = message;
}

/** Returns a file as a bitmap, upright by its EXIF orientation, with the pixels as they are in the file. */
async function read(file) {
  const name = `“${file.name}”`;
  if (file.size === 0) throw new Error(`${name} is empty. ${FORMATS}`);
  let bitmap;
  try {
    const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error(`${name} is not an image that this browser can read, or the file is damaged. ${FORMATS}`);
  }
  const megapixels = (bitmap.width * bitmap.height) / 1e6;
  if (megapixels > MOST_MEGAPIXELS) {
    bitmap.close();
    throw new Error(`${name} has ${Math.round(megapixels)} megapixels: at most ${MOST_MEGAPIXELS} can be read.`);
  }
  return bitmap;
}

/** Draws the part of an image that the model sees, with the image's own sharpness. */
function drawSeen(bitmap, name) {
  const { resized, window } = placement(bitmap.height, bitmap.width, description.preprocessing);
  const [scaleX, scaleY] = [bitmap.width / resized.width, bitmap.height / resized.height];
  const [width, height] = [window.width * scaleX, window.height * scaleY]; // of the part, in the image's pixels
  const zoom = DISPLAY_SIDE / Math.max(width, height);
  const canvas = element("image");
  canvas.width = Math.max(Math.round(width * zoom), 1);
  canvas.height = Math.max(Math.round(height * zoom), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.imageSmoothingEnabled = zoom < 4; // the pixels of a small image are shown as they are
  context.fillStyle = `rgb(${fillColour(description.preprocessing).join(" ")})`;
  context.fillRect(0, 0, canvas.width, canvas.height);
  const [x, y] = [-window.left * scaleX * zoom, -window.top * scaleY * zoom];
  context.drawImage(bitmap, x, y, bitmap.width * zoom, bitmap.height * zoom);
  canvas.setAttribute("aria-label", `The image: ${name}`);
  element("seen-caption").textContent =
    `What the model sees, scaled to ${description.image_size.join(" × ")} pixels`;
  element("result").classList.add("busy");
  element("result").hidden = false;
  element("answer").hidden = false;
  element("answer").textContent = isReady ? "Computing …" : "Waiting for the model …";
  element("predictions").replaceChildren();
  element("timing").textContent = "";
  const attention = element("attention");
  [attention.width, attention.height] = [canvas.width, canvas.height]; // which clears it
}

function send(message) {
  worker.postMessage(message, [message.bitmap]);
}

function receive(message) {
  if (message.type === "progress") {
    const { loaded, expected } = message;
    element("state").textContent = `Loading the model, ${megabytes(expected)} in all …`;
    element("progress").value = expected ? loaded / expected : 0;
  } else if (message.type === "ready") {
    isReady = true;
    element("loading").hidden = true;
    element("protected").hidden = message.isExact;
    document.body.dataset.threads = message.threads; // for tests: the page is ready
    if (waiting) send(waiting);
    waiting = null;
  } else if (message.type === "error") {
    const text = `The model cannot run: ${message.message}`;
    if (isReady) showError(text);
    else fail(text);
  } else if (message.id === latest) {
    show(message);
  }
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/** Shows what the worker computed of the image. */
function show({ outputs, pixels, milliseconds }) {
  element("result").classList.remove("busy");
  const logits = mean(description.output_names.map((name) => outputs[name].data)); // of two heads, if there are two
  const predictions = description.labels.length ? decode(logits, description) : [];
  const map = page.attention ? attentionMap(outputs[page.attention.output], page.attention) : null;
  element("answer").textContent = headline(predictions);
  element("answer").hidden = !predictions.length;
  element("announcement").textContent = predictions.length ? `${predictions[0].label}, ${predictions[0].text}` : "Done";
  element("predictions").replaceChildren(...predictions.map(line));
  element("timing").textContent =
    `Computed on this device in ${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds).toLocaleString("en")} ms.`;
  if (map) {
    drawAttention(element("attention"), element("image"), map, page.attention);
    const where = whereLargest(map, page.attention.grid);
    element("attention").setAttribute("aria-label", `Attention map: the most attention is ${where} of the image`);
  }
  const detail = { outputs, pixels, predictions, attention: map };
  document.dispatchEvent(new CustomEvent("vit_tf:result", { detail }));
}

const mean = (arrays) =>
  arrays[0].map((_, i) => arrays.reduce((sum, values) => sum + values[i], 0) / arrays.length);

function headline(predictions) {
  if (!predictions.length) return "";
  const [first] = predictions;
  if (description.problem_type === "regression") return "Values";
  if (first.selected === null) return first.share < UNSURE ? `Not sure, perhaps: ${first.label}` : first.label;
  const present = predictions.filter((prediction) => prediction.selected).map(({ label }) => label);
  return present.length ? present.join(", ") : "None of the classes";
}

function line({ label, share, text, selected }) {
  const item = make("li", "", selected ? "selected" : "");
  item.append(make("span", selected ? `${label} ✓` : label, "label"), make("span", text, "value"));
  if (share !== null) {
    const bar = make("div", "", "bar");
    bar.append(make("span", ""));
    bar.firstChild.style.width = `${100 * share}%`;
    item.append(bar);
  }
  return item;
}

function showError(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
}

/** Shows an error after which the page is of no use. */
function fail(text) {
  element("choice").hidden = true;
  element("loading").hidden = true;
  element("result").hidden = true;
  showError(text);
}
