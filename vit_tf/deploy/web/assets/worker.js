// Loads the model and runs it, beside the page, which stays responsive meanwhile.
// Receives {type: "load"} and {type: "run", id, bitmap}. Sends "progress", "ready", "result" and "error".

import * as ort from "./onnxruntime/ort.wasm.bundle.min.js";
import { normalize, resizeAndCrop } from "./preprocessing.js";

const MOST_THREADS = 8;
let description, session;

self.onmessage = async ({ data }) => {
  try {
    if (data.type === "load") await load();
    else await run(data);
  } catch (error) {
    self.postMessage({ type: "error", id: data.id, message: String(error?.message ?? error) });
  }
};

async function load() {
  description = await (await request("vit_tf.json")).json();
  const received = {};
  const progress = (name) => (count, total) => {
    received[name] = [count, total];
    if (Object.keys(received).length < 2) return;
    const [loaded, expected] = [0, 1].map((i) => Object.values(received).reduce((sum, x) => sum + x[i], 0));
    self.postMessage({ type: "progress", loaded, expected });
  };
  const [runtime, model] = await Promise.all([
    download("onnxruntime/ort-wasm-simd-threaded.wasm", progress("runtime")),
    download("model.onnx", progress("model")),
  ]);
  ort.env.wasm.wasmBinary = runtime;
  // Threads share memory, which browsers allow on pages with two headers only: see the guide.
  ort.env.wasm.numThreads = self.crossOriginIsolated
    ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
    : 1;
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  self.postMessage({ type: "ready", threads: ort.env.wasm.numThreads, isExact: readsExactPixels() });
}

async function request(path) {
  const response = await fetch(path, { cache: "no-cache" });
  if (!response.ok) throw new Error(`The file ${path} is missing on the server (${response.status}).`);
  return response;
}

/** Returns the bytes of a file, and calls `progress(received, total)` meanwhile. */
async function download(path, progress) {
  const response = await request(path);
  const total = Number(response.headers.get("Content-Length")) || 0;
  const parts = [];
  let received = 0;
  progress(0, total);
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    progress(received, Math.max(total, received));
  }
  return new Blob(parts).arrayBuffer();
}

async function run({ id, bitmap }) {
  const start = performance.now();
  const settings = description.preprocessing;
  const pixels = resizeAndCrop(sourceOf(bitmap), settings);
  bitmap.close();
  const [type, values] =
    description.input_kind === "uint8"
      ? ["uint8", new Uint8Array(pixels.buffer)]
      : ["float32", normalize(pixels, settings)];
  const images = new ort.Tensor(type, values, [1, ...settings.image_size, 3]);
  const results = await session.run({ [description.input_name]: images });
  const outputs = Object.fromEntries(
    Object.entries(results).map(([name, { data, dims }]) => [name, { data: Float32Array.from(data), dims }]),
  );
  self.postMessage({ type: "result", id, outputs, pixels, milliseconds: performance.now() - start });
}

/** Returns a bitmap as a source of `resample`: the browser holds the pixels, a few rows are read at a time. */
function sourceOf(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(1, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const rows = (top, count) => {
    if (canvas.width !== width || canvas.height !== count) [canvas.width, canvas.height] = [width, count];
    else context.clearRect(0, 0, width, count);
    context.drawImage(bitmap, 0, -top);
    return context.getImageData(0, 0, width, count).data;
  };
  return { width, height, rows };
}

/** Whether the browser returns the pixels of a canvas as they are. Some add noise, so that pages cannot track users. */
function readsExactPixels() {
  const side = 32;
  const context = new OffscreenCanvas(side, side).getContext("2d", { willReadFrequently: true });
  const written = new ImageData(side, side);
  written.data.forEach((_, i) => (written.data[i] = i % 4 === 3 ? 255 : (i * i * 7) % 256));
  context.putImageData(written, 0, 0);
  return context.getImageData(0, 0, side, side).data.every((value, i) => value === written.data[i]);
}
