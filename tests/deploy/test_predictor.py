"""`Predictor`: every kind of input, streams, threads, and the same answers as a `Classifier`."""

import gc
import io
import itertools
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from conftest import randomize
from PIL import Image
from support.exported import LABELS, PREPROCESSING, expected_logits, make_manifest, write_folder
from support.paths import ROOT

import vit_tf
from vit_tf.classifier import Classifier
from vit_tf.deploy import Predictor
from vit_tf.deploy.manifest import write_manifest
from vit_tf.files import read_json, write_json
from vit_tf.preprocessing import Preprocessing

PREPARE = Preprocessing(**PREPROCESSING)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("onnx") / "model", "onnx", output_names=["logits"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of images, and their paths in the order of their names."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(21):
        size = (10 + i, 30 - i, 3)
        Image.fromarray(rng.integers(0, 256, size, "uint8")).save(folder / f"{i:02}.png")
    return folder, sorted(folder.iterdir())


def expected(images):
    """Returns the predictions of the model for images that `Preprocessing` takes."""
    return vit_tf.decode_predictions(expected_logits(PREPARE(images)), 2, LABELS)


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for best, other in zip(found, wanted):
        assert [label for label, _ in best] == [label for label, _ in other]
        np.testing.assert_allclose([p for _, p in best], [p for _, p in other], atol=1e-5)


def test_all_kinds_of_images(exported, photos):
    folder, paths = photos
    predictor = Predictor(exported, "onnxruntime", batch_size=4)
    pictures = [Image.open(path).convert("RGB") for path in paths]
    arrays = [np.asarray(picture) for picture in pictures]
    wanted = expected(paths)
    for images in (
        folder,
        str(folder),
        paths,
        [str(path) for path in paths],
        tuple(path.read_bytes() for path in paths),
        (io.BytesIO(path.read_bytes()) for path in paths),
        iter(pictures),
        arrays,
        [array.astype("float32") for array in arrays],
        [paths[:3], [paths[3:10], arrays[10:]]],
        np.array([str(path) for path in paths]),
    ):
        assert_same(predictor.predict(images, top=2), wanted)
    for image in (paths[0], str(paths[0]), paths[0].read_bytes(), pictures[0], arrays[0], arrays[0][None]):
        assert_same(predictor.predict(image, top=2), wanted[:1])
    batch = np.stack([array[:10, :10] for array in arrays])
    assert_same(predictor.predict(batch, top=2), expected(batch))
    assert_same(predictor.predict(batch[..., :1], top=2), expected(batch[..., :1]))
    assert predictor.predict([]) == [] and predictor.outputs(iter(())).shape == (0, 4)


def test_tensors(exported):
    from keras import ops

    images = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), "uint8")
    assert_same(Predictor(exported).predict(ops.convert_to_tensor(images), top=2), expected(images))


@pytest.mark.parametrize(
    "images, message",
    [
        ("missing.png", "missing.png"),
        ([np.zeros((4, 4))], r"got the shape \(4, 4\)"),
        (7, "expected a path"),
        ([None], "expected a path"),
        (["https://example.org/a.png"], "is a URL"),
        ([b"words"], "not an image"),
    ],
)
def test_not_images(exported, images, message):
    with pytest.raises((ValueError, OSError), match=message):
        Predictor(exported, "onnxruntime").predict(images)


def test_a_folder_without_images(exported, tmp_path):
    with pytest.raises(ValueError, match="no image in the folder"):
        Predictor(exported, "onnxruntime").predict(tmp_path)


def test_probabilities_and_outputs(exported, photos):
    folder, paths = photos
    predictor = Predictor(exported, "onnxruntime")
    outputs = predictor.outputs(folder)
    assert outputs.dtype == "float32" and outputs.shape == (21, 4)
    np.testing.assert_allclose(outputs, expected_logits(PREPARE(paths)), atol=1e-5)
    scores = np.exp(outputs.astype("float64"))
    np.testing.assert_allclose(predictor.probabilities(folder), scores / scores.sum(1, keepdims=True))
    assert_same(predictor.decode(outputs, 2), expected(paths))


def test_two_heads_are_averaged(tmp_path, photos):
    predictor = Predictor(write_folder(tmp_path / "two"), "onnxruntime")
    paths = photos[1]
    np.testing.assert_allclose(predictor.outputs(paths), 1.5 * expected_logits(PREPARE(paths)), atol=1e-5)


def test_a_graph_of_pixels(tmp_path, photos):
    predictor = Predictor(write_folder(tmp_path / "pixels", input_kind="uint8"), "onnxruntime")
    paths = photos[1]
    np.testing.assert_allclose(
        predictor.outputs(paths), 1.5 * expected_logits(PREPARE.pixels(paths)), rtol=1e-4
    )


# ---------------------------------------------------------------------------------------------------
# Streams and threads
# ---------------------------------------------------------------------------------------------------
def test_an_endless_generator_is_read_a_bounded_way_ahead(exported, photos):
    paths, drawn = photos[1], itertools.count()

    def endless():
        for path in itertools.cycle(paths):
            next(drawn)
            yield path

    predictor = Predictor(exported, "onnxruntime", batch_size=4, threads=2)
    stream = predictor.stream(endless(), top=2)
    found = list(itertools.islice(stream, 50))
    assert [image for image, _ in found] == list(itertools.islice(itertools.cycle(paths), 50))
    assert_same([predictions for _, predictions in found[:21]], expected(paths))
    assert next(drawn) <= 50 + 5 * 4 + 2
    before = threading.active_count()
    stream.close()
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("vit_tf"):
            thread.join(10)
    assert threading.active_count() < before


def test_results_come_in_order_and_bad_images_are_reported(exported, photos):
    paths = [str(path) for path in photos[1]]
    images = [*paths[:5], "missing.png", *paths[5:6], b"words", *paths[6:]]
    problems = []
    predictor = Predictor(exported, "onnxruntime", batch_size=4)
    found = list(predictor.stream(images, 2, on_error=lambda *problem: problems.append(problem)))
    assert [image for image, _ in found] == paths
    assert_same([predictions for _, predictions in found], expected(paths))
    assert [image for image, _ in problems] == ["missing.png", b"words"]
    assert isinstance(problems[0][1], FileNotFoundError) and "not an image" in str(problems[1][1])
    found = []
    with pytest.raises(FileNotFoundError):
        for image, _ in predictor.stream(images):
            found.append(image)
    assert found == paths[:5]


def test_an_error_of_the_generator_follows_the_results_before(exported, photos):
    def failing():
        yield from photos[1][:6]
        raise KeyError("camera")

    found = []
    with pytest.raises(KeyError, match="camera"):
        for image, _ in Predictor(exported, "onnxruntime", batch_size=4).stream(failing()):
            found.append(image)
    assert found == photos[1][:6]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_eight_threads_get_the_same_results(exported, photos, runtime):
    folder, paths = photos
    predictor = Predictor(exported, runtime, batch_size=4)
    alone = predictor.outputs(folder)
    orders = [np.random.default_rng(i).permutation(len(paths)) for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda order: predictor.outputs([paths[i] for i in order]), orders)
        for order, outputs in zip(orders, found):
            np.testing.assert_allclose(outputs, alone[order], atol=1e-6)


# ---------------------------------------------------------------------------------------------------
# Descriptions
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(labels=["a", "b"]), "`labels` must be 4 names, one per logit, got 2"),
        (dict(thresholds=[0.5]), "`thresholds` must be 4 numbers"),
        (dict(problem_type="unknown"), "`problem_type` must be one of"),
        (dict(activation="relu"), "`activation` must be one of"),
        (dict(precision="float8"), "`precision` must be one of"),
        (dict(num_outputs=0), "`num_outputs` must be a positive int"),
        (dict(image_size=[7, 8]), r"`image_size` must be that of the preprocessing, \(6, 8\), got \(7, 8\)"),
    ],
)
def test_the_description_of_another_model(tmp_path, fields, message):
    folder = tmp_path / "model"
    folder.mkdir()
    write_manifest(folder, make_manifest())
    write_json(folder / "vit_tf.json", read_json(folder / "vit_tf.json") | fields)
    with pytest.raises(ValueError, match=f"vit_tf.json' is damaged: .*{message}"):
        Predictor(folder)


def test_the_main_file_names_the_folder(exported, photos):
    assert_same(Predictor(exported / "model.onnx").predict(photos[1], 2), expected(photos[1]))


def test_several_labels(tmp_path, photos):
    options = dict(problem_type="multi_label_classification", thresholds=[0.2, 0.4, 0.6, 0.8])
    folder = write_folder(tmp_path / "model", output_names=["logits"], **options)
    scores = 1 / (1 + np.exp(-expected_logits(PREPARE(photos[1])).astype("float64")))
    for thresholds, limits in ((None, options["thresholds"]), (0.3, [0.3] * 4), ([0.1, 0.2, 0.3, 0.4],) * 2):
        predictor = Predictor(folder, "onnxruntime", thresholds=thresholds)
        for row, best in zip(scores, predictor.predict(photos[0], top=1)):
            selected = {each.label for each in best if each.selected}
            assert selected == {label for label, p, t in zip(LABELS, row, limits) if p >= t}
    np.testing.assert_allclose(predictor.probabilities(photos[0]), scores, atol=1e-5)
    with pytest.raises(ValueError, match="`thresholds` must be 4 numbers"):
        Predictor(folder, thresholds=[0.5])


def test_a_regression(tmp_path, photos):
    folder = write_folder(tmp_path / "model", output_names=["logits"], problem_type="regression")
    predictor = Predictor(folder, "onnxruntime")
    [values] = predictor.predict(photos[1][0])
    assert [label for label, _ in values] == list(LABELS)
    np.testing.assert_allclose([x for _, x in values], predictor.outputs(photos[1][0])[0])
    with pytest.raises(ValueError, match="a regression has no probabilities"):
        predictor.probabilities(photos[1])
    with pytest.raises(ValueError, match="thresholds are for classes"):
        Predictor(folder, thresholds=0.5)


@pytest.mark.slow
def test_a_model_without_a_head(photos):
    model = vit_tf.build_vit("test_vit", num_classes=0)
    predictor = Predictor(Classifier(model, Preprocessing(model.input_shape[1:3]), None))
    assert predictor.outputs(photos[1][:2]).shape == (2, model.output_shape[-1])
    for function in (predictor.predict, predictor.probabilities, lambda x: list(predictor.stream(x))):
        with pytest.raises(ValueError, match="has no head: `outputs` gives its features"):
            function(photos[1][:1])


# ---------------------------------------------------------------------------------------------------
# Keras
# ---------------------------------------------------------------------------------------------------
def test_a_classifier_and_a_model(photos):
    model = randomize(vit_tf.build_vit("vit_cifar10", num_layers=1, num_classes=4))
    classifier = Classifier(model, Preprocessing(32, "bilinear"), LABELS)
    wanted = classifier.predict(photos[1], top=2)
    predictor = Predictor(classifier)
    assert predictor.runtime.name == "keras" and predictor.manifest is None
    assert_same(predictor.predict(photos[0], top=2), wanted)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: predictor.predict(photos[0], top=2), range(8)):
            assert_same(found, wanted)
    bare = Predictor(model)
    assert bare.preprocessing == vit_tf.get_preprocessing("vit_cifar10") and bare.labels is None
    model.name = "mine"
    with pytest.raises(ValueError, match="no checkpoint is called 'mine', so the preprocessing"):
        Predictor(model)
    with pytest.raises(ValueError, match="onnxruntime reads folders of `vit-tf export`, and <Functional"):
        Predictor(model, "onnxruntime")
    with pytest.raises(ValueError, match="must be a Keras model, a Classifier or a source, got 7"):
        Predictor(7)


@pytest.mark.slow
def test_normalization_inside_a_model(photos):
    settings = vit_tf.get_preprocessing("vit_cifar10")
    options = dict(num_layers=1, num_classes=4)
    plain = randomize(vit_tf.build_vit("vit_cifar10", **options))
    model = vit_tf.build_vit("vit_cifar10", include_preprocessing=settings, **options)
    model.set_weights(plain.get_weights())
    found, wanted = (Predictor(each).outputs(photos[1]) for each in (model, plain))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_a_file_of_keras(photos, tmp_path):
    """With the normalisation of someone else, whose name says nothing."""
    vit = randomize(vit_tf.build_vit("vit_cifar10", num_layers=1, num_classes=4))
    model = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Rescaling(1 / 100, offset=-1), vit])
    model.save(tmp_path / "model.keras")
    predictor = Predictor(tmp_path / "model.keras")
    settings = Preprocessing(32, crop_fraction=1.0, mean=(100 / 255,) * 3, std=(100 / 255,) * 3)
    np.testing.assert_allclose(predictor.outputs(photos[1]), vit(settings(photos[1])), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_packaged_model(photos):
    assert_same(Predictor("cifar10").predict(photos[1], 2), vit_tf.load("cifar10").predict(photos[1], 2))


# ---------------------------------------------------------------------------------------------------
# Without Keras
# ---------------------------------------------------------------------------------------------------
BLOCKED = """
    import sys

    class Blocker:
        names = {"keras", "tensorflow", "jax", "torch", "onnx", "h5py", "matplotlib", "grain",
                 "huggingface_hub", "safetensors"}

        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in self.names:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_neither_keras_nor_tensorflow_is_imported(exported, photos, tmp_path, runtime):
    code = f"""
    import vit_tf
    from vit_tf.commands.main import main

    predictor = vit_tf.Predictor({str(exported)!r}, {runtime!r})
    print(predictor.predict({str(photos[1][0])!r}, 1)[0][0].label)
    arguments = ["--weights", {str(exported)!r}, "--runtime", {runtime!r}]
    assert main(["predict", {str(photos[0])!r}, "--csv", {str(tmp_path / "a.csv")!r}, *arguments]) == 0
    """
    code = textwrap.dedent(BLOCKED) + textwrap.dedent(code)
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == expected(photos[1])[0][0].label
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 22
