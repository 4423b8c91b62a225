"""The folder of the page, and the page itself in a real browser, against the numbers of the Keras model."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import randomize
from PIL import Image
from support.browser import Browser, can_run, served
from support.export_cases import KINDS, runtime_web_folder, small_classifier
from support.photos import MEAN, STD, photo

import vit_tf
from vit_tf.deploy.agreement import BOUNDS, compare
from vit_tf.deploy.manifest import Manifest, write_manifest
from vit_tf.deploy.subject import open_subject
from vit_tf.deploy.web import page
from vit_tf.deploy.web.runtime_files import RuntimeFiles, load_runtime_files
from vit_tf.labels import PROBLEM_TYPES, REGRESSION, imagenet_classes
from vit_tf.preprocessing import Preprocessing
from vit_tf.structure import ViTStructure

pytest.importorskip("onnx")

SHARED_MEMORY = [
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
]
LISTEN = "document.addEventListener('vit_tf:result', (event) => { window.latestResult = event.detail; })"
RESULT = """({
  logits: Array.from(Object.values(latestResult.outputs)[0].data),
  pixels: Array.from(latestResult.pixels),
  attention: Array.from(latestResult.attention),
  predictions: latestResult.predictions,
  lines: Array.from(document.querySelectorAll("#predictions li"), (item) => item.innerText.split("\\n")),
  answer: document.querySelector("#answer").innerText,
})"""
# Without the attention, which is large.
OUTPUTS = "{names}.map((name) => Array.from(latestResult.outputs[name].data))"
# Runs batches of the images in a file by the page's copy of ONNX Runtime Web.
RUN_BATCHES = """(async () => {{
  const ort = await import("/onnxruntime/ort.wasm.bundle.min.js");
  const read = async (name) => (await fetch(name)).arrayBuffer();
  ort.env.wasm.wasmBinary = await read("/onnxruntime/ort-wasm-simd-threaded.wasm");
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(new Uint8Array(await read("/model.onnx")));
  const images = new Float32Array(await read("/images.bin"));
  const outputs = {names}.map(() => []);
  const step = {size}.reduce((product, side) => product * side, 1);
  for (let start = 0; start < images.length; start += {batch} * step) {{
    const part = images.subarray(start, start + {batch} * step);
    const batch = new ort.Tensor("float32", part, [part.length / step, ...{size}]);
    const results = await session.run({{ images: batch }}, {names});
    {names}.forEach((name, i) => outputs[i].push(...results[name].data));
  }}
  return outputs;
}})()"""
ERROR = "!document.querySelector('#error').hidden && document.querySelector('#error').textContent"
# Gives a file to the page as a paste or a drop does.
GIVE = """(async () => {{
  const data = new DataTransfer();
  const response = await fetch("{name}");
  if (response.ok) data.items.add(new File([await response.blob()], "{name}", {{ type: "image/png" }}));
  const options = {{ bubbles: true, cancelable: true }};
  document.body.dispatchEvent("{event}" === "paste"
    ? new ClipboardEvent("paste", {{ clipboardData: data, ...options }})
    : new DragEvent("drop", {{ dataTransfer: data, ...options }}));
}})()"""


SMALL_MODELS = {
    "registers, pixels as input": dict(image_size=(32, 48), num_registers=3, input_kind="uint8"),
    "two heads": dict(
        variant="deit_tiny_distilled_patch16_224",
        separate_heads=True,
        output_names=("logits", "distillation_logits"),
    ),
    "no head": dict(num_classes=0, output_names=("features",)),
}


def describe(model, preprocessing, **fields):
    """Returns the `Manifest` of a page."""
    options = dict(
        format="web",
        precision="float32",
        input_kind="normalized",
        input_name="images",
        output_names=("logits",),
        image_size=model.input_shape[1:3],
        num_outputs=model.outputs[0].shape[-1],
        preprocessing=preprocessing.to_dict(),
        labels=None,
        problem_type=PROBLEM_TYPES[0],
        activation="linear",
        thresholds=None,
        source="a test",
        variant=model.name,
    )
    return Manifest(**{**options, **fields})


def small_model(variant="vit_tiny_patch16_224", **options):
    settings = dict(image_size=16, patch_size=8, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8) | options
    return randomize(vit_tf.build_vit(variant, **{"num_classes": 3, **settings}))


@pytest.fixture
def runtime(monkeypatch):
    """Small files instead of those of ONNX Runtime Web."""
    files = RuntimeFiles("1.2.3", b"export {};", b"\0asm")
    monkeypatch.setattr(page, "load_runtime_files", lambda folder: files)


def write_small(folder, **fields):
    """Writes the page of a small model; returns the content of page.json."""
    model = small_model()
    page.write(model, describe(model, Preprocessing(16), **fields), folder)
    return json.loads((folder / "page.json").read_text())


@pytest.mark.tensorflow_only("the ONNX writer's own tests run on every backend")
class TestFolder:
    def test_files(self, tmp_path, runtime):
        content = write_small(tmp_path, labels=("a", "b", "c"))
        names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
        assets = {path.name for path in page.ASSETS.iterdir()} - {"onnxruntime_license.txt"}
        runtime_names = {"LICENSE.txt", "ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm"}
        assert names == {*assets, "model.onnx", "page.json", *(f"onnxruntime/{x}" for x in runtime_names)}
        assert content == {
            "labels": ["a", "b", "c"],
            "attention": {
                "output": "attention",
                "query": "the class token",
                "queries": [0, 1],
                "patches": [1, 5],
                "grid": [2, 2],
                "covered": [1.0, 1.0],
            },
            "onnxruntime_web": "1.2.3",
        }

    @pytest.mark.slow
    def test_export(self, tmp_path):
        options = dict(preprocessing=Preprocessing(16), onnxruntime_web=runtime_web_folder(tmp_path))
        manifest = vit_tf.export(small_model(), tmp_path / "demo", format="web", **options)
        assert (manifest.format, manifest.input_kind) == ("web", "uint8")
        assert manifest.agreement["top1_agreement"] == 1
        assert (tmp_path / "demo" / "index.html").is_file()

    def test_export_without_a_copy_of_the_runtime(self, tmp_path):
        with pytest.raises(ValueError, match="is no copy of ONNX Runtime Web"):
            options = dict(preprocessing=Preprocessing(16), onnxruntime_web=tmp_path)
            vit_tf.export(small_model(), tmp_path / "demo", format="web", **options)
        with pytest.raises(ValueError, match="`onnxruntime_web` is for the format web, not for onnx"):
            vit_tf.export("cifar10", tmp_path / "demo", format="onnx", onnxruntime_web=tmp_path)
        assert not list(tmp_path.iterdir())

    def test_references_between_the_files(self):
        texts = {path.name: path.read_text() for path in page.ASSETS.iterdir()}
        for name in ("app.js", "style.css"):
            assert f'"{name}"' in texts["index.html"]
        for name in ("attention", "predictions", "preprocessing"):
            assert f'from "./{name}.js"' in texts["app.js"]
        assert f'"./{page.RUNTIME_FOLDER}/{page.RUNTIME_SCRIPT}"' in texts["worker.js"]
        assert f'"{page.RUNTIME_FOLDER}/{page.WEBASSEMBLY}"' in texts["worker.js"]
        scripts = "".join(text for name, text in texts.items() if name.endswith((".js", ".css")))
        assert "://" not in scripts  # nothing comes from elsewhere

    def test_default_labels(self):
        manifest = describe(small_model(), Preprocessing(16))
        structure = ViTStructure(small_model(num_classes=1000))
        assert page.page_labels(structure, replace(manifest, num_outputs=1000)) == list(imagenet_classes())
        values = replace(manifest, problem_type=REGRESSION)
        assert page.page_labels(structure, values) == ["value 0", "value 1", "value 2"]
        assert page.page_labels(ViTStructure(small_model(num_classes=0)), manifest) == []

    def test_layout_without_class_token_and_with_registers(self):
        average = ViTStructure(small_model(class_token=False, pooling="avg"))
        layout = page.attention_layout(average)
        assert (layout["query"], layout["queries"]) == ("the average patch", [0, 4])
        assert page.attention_layout(ViTStructure(small_model(image_size=1024, num_heads=4))) is None
        registers = page.attention_layout(ViTStructure(small_model(num_registers=3)))
        assert (registers["queries"], registers["patches"]) == ([0, 1], [4, 8])


@pytest.fixture(scope="module")
def classifier():
    return vit_tf.load("cifar10")


@pytest.fixture(scope="module")
def folder(classifier, tmp_path_factory):
    """The page of the packaged model, and images beside it."""
    if not can_run():
        pytest.skip("Chromium is not installed")
    try:
        load_runtime_files()
    except ValueError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("demo")
    options = dict(labels=classifier.labels, problem_type=classifier.problem_type)
    manifest = describe(classifier.model, classifier.preprocessing, **options)
    page.write(classifier.model, manifest, folder)
    write_manifest(folder, manifest)
    Image.fromarray(photo(90, 61)).save(folder / "tall.png")
    Image.fromarray(photo(300, 400, seed=1)).save(folder / "large.png")
    upright = Image.fromarray(photo(120, 80, seed=2))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees
    upright.save(folder / "turned.jpg", quality=95, exif=exif)
    (folder / "damaged.png").write_bytes((folder / "large.png").read_bytes()[:500])
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def browser(folder, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def open_page(browser, url):
    """Opens the page, and waits until the model is loaded; returns the number of its threads."""
    browser.open(url)
    browser.evaluate(LISTEN)
    return int(browser.wait_for("document.body.dataset.threads"))


def result_of(browser, script=RESULT):
    """Returns the result that the page shows next, as a script reads it."""
    browser.wait_for("window.latestResult && !document.querySelector('#result').classList.contains('busy')")
    result = browser.evaluate(script)
    browser.evaluate("window.latestResult = null")
    return result


def check_result(result, classifier, path, pixel_tolerance=0):
    """Compares what the page shows of an image file with the Keras model."""
    inputs = classifier.preprocessing(path)
    pixels = classifier.preprocessing.to_pixels(inputs)
    found = np.reshape(result["pixels"], pixels.shape)
    assert np.abs(found - pixels).max() <= pixel_tolerance + 0.01
    if pixel_tolerance:  # the decoders differ: compare the models on the same pixels
        inputs = classifier.preprocessing(found)
    logits = classifier.model(inputs, training=False).numpy()
    np.testing.assert_allclose(result["logits"], logits[0], atol=1e-5 * np.abs(logits).max())
    (maps,) = vit_tf.attention_maps(classifier.model, inputs, layers=[-1], reduce="mean").values()
    np.testing.assert_allclose(result["attention"], maps[0].mean(axis=0), atol=1e-6)
    (expected,) = classifier.decode(logits)
    assert [(x["label"], round(x["share"], 4)) for x in result["predictions"]] == [
        (label, round(probability, 4)) for label, probability in expected
    ]
    assert [label for label, _ in result["lines"]] == [label for label, _ in expected]
    assert expected[0].label in result["answer"]


@pytest.mark.slow
@pytest.mark.tensorflow_only("the browser runs the exported model")
class TestInABrowser:
    def test_numbers(self, browser, folder, classifier):
        browser.events.clear()
        with served(folder) as url:
            assert open_page(browser, url) == 1
            for name, tolerance in (("tall.png", 0), ("large.png", 0), ("turned.jpg", 3)):
                browser.choose_files("#file", folder / name)
                check_result(result_of(browser), classifier, folder / name, tolerance)
            for event in ("paste", "drop"):
                browser.evaluate(GIVE.format(event=event, name="tall.png"))
                check_result(result_of(browser), classifier, folder / "tall.png")
            requests = [
                x["params"]["request"]["url"]
                for x in browser.events
                if x["method"] == "Network.requestWillBeSent"
            ]
            assert requests and all(address.startswith((url, "data:")) for address in requests)
            assert not [
                x for x in browser.events if x["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
            ]

    @pytest.mark.parametrize("options", SMALL_MODELS.values(), ids=SMALL_MODELS)
    def test_other_models(self, options, browser, folder, tmp_path):
        fields = {key: options[key] for key in ("input_kind", "output_names") if key in options}
        model = small_model(**{key: value for key, value in options.items() if key not in fields})
        size = model.input_shape[1:3]
        prepare = Preprocessing(size, crop_fraction=0.8, mean=MEAN, std=STD)
        manifest = describe(model, prepare, **fields)
        page.write(model, manifest, tmp_path)
        write_manifest(tmp_path, manifest)
        with served(tmp_path) as url:
            open_page(browser, url)
            browser.choose_files("#file", folder / "large.png")
            result = result_of(browser)
        images = prepare(folder / "large.png")
        outputs = model(images, training=False)
        logits = np.mean([outputs] if len(model.outputs) == 1 else outputs, axis=0)[0]
        expected = np.exp(logits) / np.exp(logits).sum() if ViTStructure(model).heads else []
        shares = [each["share"] for each in result["predictions"]]
        np.testing.assert_allclose(shares, np.sort(expected)[::-1], rtol=1e-4)
        (maps,) = vit_tf.attention_maps(model, images, [-1], "mean", "class_token").values()
        patches = ViTStructure(model).tokens("patches")
        np.testing.assert_allclose(result["attention"], maps[0, 0, patches], atol=1e-6)

    @pytest.mark.exhaustive
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_on_real_images(self, kind, browser, folder, tmp_path):
        """The page computes one image at a time, and its runtime also batches."""
        subject = open_subject(small_classifier(kind))
        images, expected = subject.check_inputs("normalized")
        images.tofile(tmp_path / "images.bin")
        paths = [tmp_path / f"{i}.png" for i in range(len(images))]
        for path, image in zip(paths, subject.sample(len(images))):
            Image.fromarray(image).save(path)
        manifest = subject.describe("web", "float32")
        page.write(subject.model, manifest, tmp_path)
        write_manifest(tmp_path, manifest)
        names = list(manifest.output_names)
        shown = []
        with served(tmp_path) as url:
            open_page(browser, url)
            for path in paths:
                browser.choose_files("#file", path)
                shown.append(result_of(browser, OUTPUTS.format(names=names)))
            size = list(images.shape[1:])
            batched = browser.evaluate(RUN_BATCHES.format(names=names, size=size, batch=16))
        for outputs in (zip(*shown), batched):
            arrays = [np.reshape(values, y.shape) for values, y in zip(outputs, expected)]
            agreement = compare(arrays, expected)
            assert agreement["largest_difference"] <= BOUNDS["float32"]
            assert agreement["top1_agreement"] == 1

    def test_bad_files(self, browser, folder, classifier):
        with served(folder) as url:
            open_page(browser, url)
            for name, problem in (
                ("damaged.png", "“damaged.png” is not an image that this browser can read"),
                ("empty.png", "“empty.png” is empty"),
                ("page.json", "“page.json” is not an image"),
            ):
                browser.choose_files("#file", folder / name)
                browser.wait_for(f"({ERROR} || '').includes({json.dumps(problem)})")
            browser.evaluate(GIVE.format(event="paste", name="missing"))
            browser.wait_for(f"({ERROR} || '').includes('The clipboard has no image')")
            browser.evaluate(GIVE.format(event="drop", name="missing"))
            browser.wait_for(f"({ERROR} || '').includes('not a file')")
            browser.choose_files("#file", folder / "tall.png")
            check_result(result_of(browser), classifier, folder / "tall.png")
            assert browser.evaluate(ERROR) is False

    def test_threads(self, browser, folder, classifier):
        with served(folder, SHARED_MEMORY) as url:
            threads = open_page(browser, url)
            assert threads == min(browser.evaluate("navigator.hardwareConcurrency"), 8)
            browser.choose_files("#file", folder / "tall.png")
            check_result(result_of(browser), classifier, folder / "tall.png")

    def test_missing_model(self, browser, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "demo")
        (tmp_path / "demo" / "model.onnx").unlink()
        with served(tmp_path / "demo") as url:
            browser.open(url)
            assert "model.onnx is missing on the server (404)" in browser.wait_for(ERROR)
