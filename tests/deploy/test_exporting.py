import functools
import json

import keras
import numpy as np
import pytest
from conftest import randomize
from support.export_cases import KINDS, runtime_web_folder, small_classifier
from support.marks import mostly_slow

from vit_tf import build_vit, export
from vit_tf.classifier import Classifier
from vit_tf.data.augment import batch
from vit_tf.deploy import Predictor, exporting, read_manifest
from vit_tf.deploy.agreement import BOUNDS
from vit_tf.deploy.export_formats import EXPORTED, FORMATS
from vit_tf.deploy.runtimes import open_runtime
from vit_tf.deploy.writers import onnx_file
from vit_tf.preprocessing import Preprocessing
from vit_tf.weights import resize_model

pytestmark = pytest.mark.tensorflow_only

IMAGES = np.random.default_rng(0).normal(size=(3, 48, 64, 3)).astype("float32")


def tiny(**options):
    sizes = dict(image_size=(8, 16), patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16)
    return randomize(build_vit("vit_tiny_patch16_224", num_classes=3, **{**sizes, **options}))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------------------------------
# Every format of every kind of model
# ---------------------------------------------------------------------------------------------------
@functools.cache
def shared_classifier(kind):
    return small_classifier(kind)


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """The options of an export in the format "web" without npm."""
    return {"onnxruntime_web": runtime_web_folder(tmp_path_factory.mktemp("npm"))}


CASES = {f"{format}-{kind}": (kind, format) for format in EXPORTED for kind in KINDS}
FAST = ("onnx-cifar10", "openvino-distilled")
# For all kinds stand attention pooling, two outputs and chunks of queries; `test_write.py` has all in ONNX.
IN_EVERY_FORMAT = ("siglip", "distilled", "many_tokens")
FURTHER = [
    name
    for name in CASES
    if name.startswith("web") or name != "onnx-cifar10" and not name.endswith(IN_EVERY_FORMAT)
]


@pytest.mark.parametrize("kind, format", mostly_slow(CASES, FAST, FURTHER))
def test_exports_agree(out, web, kind, format):
    classifier = shared_classifier(kind)
    manifest = export(classifier, out, format=format, **(web if format == "web" else {}))
    assert manifest == read_manifest(out)
    assert manifest.agreement["largest_difference"] <= BOUNDS["float32"] == 1e-4
    assert manifest.agreement["top1_agreement"] == 1
    assert manifest.agreement["images"] == 64
    assert len(manifest.output_names) == len(classifier.model.outputs)
    assert manifest.labels == classifier.labels
    assert left(out.parent) == ["out"]


HALF = {
    f"{format}-{precision}-{kind}": (kind, format, precision)
    for kind in KINDS
    for format in EXPORTED
    for precision in FORMATS[format].precisions[1:]
}


@pytest.mark.parametrize(
    "kind, format, precision",
    mostly_slow(
        HALF,
        ("onnx-float16-plain",),
        [name for name in HALF if not name.endswith("plain") or name.startswith("web")],
    ),
)
def test_half_precision(out, web, kind, format, precision):
    classifier = shared_classifier(kind)
    manifest = export(classifier, out, format=format, precision=precision, **(web if format == "web" else {}))
    assert manifest.precision == precision
    assert 0 < manifest.agreement["largest_difference"] <= BOUNDS[precision]
    assert manifest.agreement["top1_agreement"] > 0.95
    if kind == "many_tokens":  # whose graph takes more bytes than its weights
        return
    full = 4 * classifier.model.count_params()
    model_files = [path for path in out.iterdir() if path.suffix in (".onnx", ".bin", ".tflite")]
    assert sum(path.stat().st_size for path in model_files) < 0.8 * full


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("format", ["onnx", "openvino", "litert"])
def test_preprocessing_in_the_graph(out, format):
    settings = Preprocessing((8, 16), crop_fraction=1, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    classifier = Classifier(tiny(), settings, None)
    manifest = export(classifier, out, format=format, preprocessing=True)
    assert manifest.input_kind == "uint8"
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3)).astype("uint8")
    (outputs,) = open_runtime(out, manifest).run(pixels)
    np.testing.assert_allclose(outputs, classifier.model(settings(pixels)), rtol=1e-4, atol=1e-5)
    assert "encoded" not in manifest.agreement


@pytest.mark.slow
def test_encoded_images(out):
    import tensorflow as tf

    classifier = Classifier(tiny(), Preprocessing((8, 16), mean=(0.4, 0.5, 0.6)), None)
    manifest = export(classifier, out, format="savedmodel", preprocessing=True)
    assert manifest.agreement["encoded"]["largest_difference"] < 0.02
    model = tf.saved_model.load(str(out))
    pixels = np.tile(np.arange(50, 120, dtype="uint8")[:, None, None], (1, 90, 3))
    png = tf.io.encode_png(pixels)
    outputs = model.signatures["encoded_images"](image_bytes=tf.stack([png, png, png]))["logits"]
    expected = classifier.model(classifier.preprocessing([pixels]))
    np.testing.assert_allclose(outputs, np.repeat(expected, 3, axis=0), atol=0.02)


# ---------------------------------------------------------------------------------------------------
# Models with more than a ViT
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "augmentation",
    [
        lambda: batch.RandomFlip(),
        lambda: keras.layers.RandomFlip(),
        lambda: keras.Sequential([keras.layers.RandomRotation(0.5), keras.layers.RandomBrightness(0.9)]),
    ],
    ids=["ours", "Keras", "nested"],
)
@pytest.mark.parametrize(
    "format",
    ["onnx", *[pytest.param(x, marks=pytest.mark.slow) for x in ("savedmodel", "openvino", "litert")]],
)
def test_augmentation_is_left_out(out, augmentation, format):
    vit = tiny(name="vit")
    images = keras.Input((8, 16, 3), name="photos")
    model = keras.Model(images, vit(augmentation()(images)))
    manifest = export(Classifier(model, Preprocessing((8, 16)), None), out, format=format)
    images = IMAGES[:, :8, :16]
    (outputs,) = open_runtime(out, manifest).run(images)
    np.testing.assert_allclose(outputs, vit(images), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("format", ["onnx", "savedmodel"])
def test_a_model_that_normalizes_takes_pixels(out, format):
    settings = Preprocessing((8, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    vit = tiny(include_preprocessing=settings)
    model = keras.Sequential([keras.Input((8, 16, 3)), keras.layers.RandomFlip(), vit])
    manifest = export(model, out, format=format)
    assert manifest.input_kind == "uint8"
    np.testing.assert_allclose(manifest.preprocessing["mean"], settings.mean, rtol=1e-5)
    np.testing.assert_allclose(manifest.preprocessing["std"], settings.std, rtol=1e-5)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3)).astype("uint8")
    (outputs,) = open_runtime(out, manifest).run(pixels)
    np.testing.assert_allclose(outputs, vit(pixels.astype("float32")), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_probabilities(out):
    manifest = export(tiny(classifier_activation="softmax"), out, format="onnx")
    assert manifest.activation == "softmax"


@pytest.mark.slow
def test_the_exported_model_does_not_change(out):
    model = tiny()
    before = model(IMAGES[:, :8, :16])
    layers = len(model.layers)
    export(model, out, format="onnx")
    np.testing.assert_array_equal(model(IMAGES[:, :8, :16]), before)
    assert len(model.layers) == layers


def test_a_file_of_keras(out, tmp_path):
    path = tmp_path / "model.keras"
    tiny().save(path)
    manifest = export(path, out, format="onnx")
    assert manifest.labels is None and manifest.source == str(path)
    model = tiny()
    model.get_layer("head").quantize("int8")
    model.save(path)
    with pytest.raises(ValueError, match="is quantized: export or quantize the float32 model"):
        export(path, out, format="onnx", force=True)


# ---------------------------------------------------------------------------------------------------
# Folders
# ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_several_image_sizes(out):
    manifests = export(tiny(), out, format="litert", image_size=[(8, 16), 12])
    assert [manifest.image_size for manifest in manifests] == [(8, 16), (12, 12)]
    assert left(out) == ["12x12", "8x16"]
    assert read_manifest(out / "12x12") == manifests[1]
    assert manifests[1].preprocessing["image_size"] == [12, 12]


@pytest.mark.parametrize("format", ["savedmodel", "onnx", "openvino"])
def test_one_graph_takes_several_image_sizes(out, format):
    model, sizes = tiny(), [(16, 8), 12, (8, 16)]
    manifest = export(model, out, format=format, image_size=sizes)
    assert manifest == read_manifest(out)
    assert manifest.image_sizes == ((16, 8), (12, 12), (8, 16)) and manifest.image_size == (16, 8)
    runtime = open_runtime(out)
    for size in manifest.image_sizes:
        images = IMAGES[:, : size[0], : size[1]]
        (outputs,) = runtime.run(images)
        expected = keras.ops.convert_to_numpy(resize_model(model, size)(images))
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
    with pytest.raises(ValueError, match=r"'b', \*\(12, 12, 3\)\) or .* got float32 \(3, 16, 16, 3\)"):
        runtime.run(IMAGES[:, :16, :16])
    if format == "savedmodel":  # which resamples the table
        (outputs,) = runtime.compute(IMAGES[:, :8, :8])
        expected = keras.ops.convert_to_numpy(resize_model(model, 8)(IMAGES[:, :8, :8]))
        np.testing.assert_allclose(outputs, expected, atol=1e-5 * np.abs(expected).max())
    else:  # which have no table for another size
        with pytest.raises(Exception, match="(?i)shape|dimension|broadcast"):
            runtime.compute(IMAGES[:, :8, :8])
    predictor = Predictor(out, image_size=12)
    assert predictor.outputs(np.zeros((30, 40, 3), "uint8")).shape == (1, 3)
    with pytest.raises(ValueError, match=r"takes images of 16x8, 12x12, 8x16 pixels, got \(8, 8\): export"):
        Predictor(out, image_size=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, first, second",
    [
        ("cifar10", 32, (40, 32)),
        ("many_tokens", (66, 64), 16),
        ("registers", (42, 56), 28),
        ("differential", 48, (64, 16)),
    ],
)
def test_one_savedmodel_of_other_kinds(out, kind, first, second):
    """In a graph of one signature, whose image size, grid and number of tokens are unknown."""
    import tensorflow as tf

    options = dict(image_size=[first, second], preprocessing=True, layout="tfserving")
    manifest = export(shared_classifier(kind), out, format="savedmodel", **options)
    assert manifest.agreement["largest_difference"] <= BOUNDS["float32"]
    folder = out / manifest.variant / "1"
    assert left(out) == sorted(["models.config", manifest.variant])
    (name, signature), *others = tf.saved_model.load(str(folder)).signatures.items()
    assert (name, others) == ("serving_default", [])  # "encoded_images" would have to choose a size
    assert signature.structured_input_signature[1]["images"].shape.as_list() == [None, None, None, 3]
    weights = 4 * shared_classifier(kind).model.count_params()
    assert (folder / "variables" / "variables.data-00000-of-00001").stat().st_size < 1.1 * weights + 10_000


@pytest.mark.parametrize("format", ["savedmodel", "onnx"])
def test_relative_positions_have_one_size(out, format):
    model = tiny(relative_positions=True, position_table=False)
    with pytest.raises(ValueError, match="do not allow several image sizes in one graph: export each size"):
        export(model, out, format=format, image_size=[(8, 16), 12])
    assert left(out.parent) == []


def test_an_onnx_model_takes_encoded_images(out):
    pytest.importorskip("onnxruntime_extensions")
    classifier = Classifier(tiny(), Preprocessing((8, 16), mean=(0.4, 0.5, 0.6)), ("a", "b", "c"))
    manifest = export(classifier, out, format="onnx", encoded=True)
    assert manifest.input_kind == manifest.input_name == "encoded"
    assert manifest.agreement["largest_difference"] < 0.02 and manifest.agreement["images"] == 8
    photos = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3)).astype("uint8")
    photos = np.repeat(np.repeat(photos, 8, axis=1), 8, axis=2)
    outputs = Predictor(out).outputs(photos)
    expected = keras.ops.convert_to_numpy(classifier.model(classifier.preprocessing(photos)))
    np.testing.assert_allclose(outputs, expected, atol=0.02 * np.abs(expected).max())
    with pytest.raises(ValueError, match="takes a list of vectors of uint8"):
        open_runtime(out).run(photos)


@pytest.mark.slow
def test_force_replaces_only_exported_folders(out):
    model = tiny()
    export(model, out, format="onnx")
    with pytest.raises(ValueError, match="already exists: choose another name, or add --force"):
        export(model, out, format="onnx")
    (out / "old").touch()
    export(model, out, format="onnx", force=True)
    assert "old" not in left(out) and left(out.parent) == ["out"]
    other = out.parent / "precious"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ValueError, match="is no exported folder"):
        export(model, other, format="onnx", force=True)
    assert left(other) == ["thesis.txt"]


def write_wrong(model, manifest, folder, opset):
    """A writer whose model has other weights."""
    wrong = keras.models.clone_model(model)
    for weight in wrong.weights:
        weight.assign(weight + 0.1)
    onnx_file.write(wrong, manifest, folder)


def write_truncated(model, manifest, folder, opset):
    onnx_file.write(model, manifest, folder)
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])


def write_on_a_full_disk(model, manifest, folder, opset):
    (folder / "half").write_text("written")
    raise RuntimeError("variables/part-00000; No space left on device")


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "write, error, message",
    [
        (write_wrong, ValueError, "does not agree with the Keras model: largest difference"),
        (write_truncated, ValueError, "model.onnx' cannot be opened by onnxruntime"),
        (write_on_a_full_disk, OSError, "No space left on device"),
    ],
)
def test_nothing_is_left_after_an_error(monkeypatch, out, write, error, message):
    module = type("Writer", (), {"write": staticmethod(write)})
    model = tiny()
    export(model, out, format="onnx")
    before = (out / "vit_tf.json").read_text()
    monkeypatch.setattr(exporting, "import_module", lambda name: module)
    for path in (out, out.parent / "other"):
        with pytest.raises(error, match=message):
            export(model, path, format="onnx", force=True)
    assert left(out.parent) == ["out"]
    assert (out / "vit_tf.json").read_text() == before


def test_a_model_that_is_too_large_for_litert(monkeypatch, out):
    monkeypatch.setattr("vit_tf.deploy.writers.litert_file.LARGEST", 3000)
    with pytest.raises(ValueError, match="holds less than 3,000 bytes, and the weights take [45],.*float16"):
        export(tiny(), out, format="litert")


def test_a_full_disk_is_found_before_writing(monkeypatch, out):
    monkeypatch.setattr("vit_tf.files.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(OSError, match="No space left"):
        export(tiny(), out, format="onnx")
    assert left(out.parent) == []


# ---------------------------------------------------------------------------------------------------
# Mistakes
# ---------------------------------------------------------------------------------------------------
def half(precision):
    keras.config.set_dtype_policy(f"mixed_{precision}")
    return tiny()


@pytest.mark.parametrize(
    "make, options, message",
    [
        (tiny, dict(format="onxx"), "`format` must be one of .*did you mean 'onnx'"),
        (tiny, dict(format="savedmodel", precision="float16"), "must be one of float32, got 'float16'"),
        (tiny, dict(format="onnx", opset=7), "`opset` must be an int of at least 20"),
        (tiny, dict(format="litert", opset=20), "`opset` is for ONNX, not for litert"),
        (tiny, dict(format="litert", layout="triton"), "layout triton is for the format onnx or openvino"),
        (tiny, dict(format="onnx", image_size=[]), "`image_size` must be"),
        (
            tiny,
            dict(format="openvino", encoded=True),
            "`encoded` is for savedmodel and onnx, not for openvino",
        ),
        (tiny, dict(format="onnx", encoded=True, image_size=[8, 12]), "resized to one size, got several"),
        (tiny, dict(format="onnx", encoded=True, layout="triton"), "triton is for batches of images"),
        (tiny, dict(format="onnx", image_size=[8, (8, 8)]), "a list of different sizes"),
        (lambda: "missing", dict(format="onnx"), "no file or folder 'missing'"),
        (lambda: 7, dict(format="onnx"), "must be a Keras model, a Classifier or a source, got 7"),
        (lambda: tiny(name="x"), dict(format="onnx"), "no checkpoint is called 'x'"),
        (lambda: tiny(in_channels=1), dict(format="onnx"), "must take images"),
        (lambda: half("bfloat16"), dict(format="onnx"), "computes in bfloat16"),
        (
            lambda: Classifier(tiny(), Preprocessing((8, 16)), ("a", "b")),
            dict(format="onnx"),
            "`labels` must be 3 names",
        ),
        (
            lambda: Classifier(tiny(), Preprocessing((16, 8)), None),
            dict(format="onnx"),
            r"must make images of \(8, 16\) pixels",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]),
            dict(format="onnx"),
            "has no encoder blocks",
        ),
    ],
)
def test_mistakes(out, make, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        export(make(), out, **options)
    assert "\n" not in str(caught.value)
    assert left(out.parent) == []


@pytest.mark.parametrize("format, extra", [("onnx", "onnx"), ("openvino", "openvino"), ("litert", "litert")])
def test_a_missing_extra_is_named(monkeypatch, out, format, extra):
    monkeypatch.setattr("vit_tf.deploy.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install 'vit_tf\[{extra}\]'"):
        export("cifar10", out, format=format)


@pytest.mark.slow
def test_manifest(out):
    export("cifar10", out, format="onnx", opset=23)
    content = json.loads((out / "vit_tf.json").read_text())
    assert content["source"] == "cifar10" and content["variant"] == "vit_cifar10_hybrid"
    assert content["labels"][:2] == ["airplane", "automobile"]
    assert content["output_names"] == ["logits"] and content["num_outputs"] == 10
    assert {"vit_tf", "keras", "onnx", "onnxruntime"} <= content["versions"].keys()
    assert content["agreement"]["batch_sizes"] == [16, 5]
