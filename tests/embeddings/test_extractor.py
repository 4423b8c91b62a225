"""`vit_tf.features`: every pooling against NumPy, maps, inputs in every form, and what is refused."""

import io

import keras
import numpy as np
import pytest
from PIL import Image
from support.explained import small
from support.exported import PREPROCESSING, expected_logits, write_features, write_folder
from support.numpy_vit import forward_tokens, layer_norm

import vit_tf
from vit_tf.classifier import Classifier
from vit_tf.embeddings import FeatureExtractor
from vit_tf.embeddings.poolings import POOLINGS
from vit_tf.embeddings.token_features import patch_model, vector_model
from vit_tf.preprocessing import Preprocessing
from vit_tf.structure import ViTStructure

PREPARE = Preprocessing((8, 12), "bilinear", 1.0)
IMAGES = np.random.default_rng(5).integers(0, 256, (5, 8, 12, 3), "uint8")


def weights_of(model):
    return {variable.path: np.asarray(variable, "float64") for variable in model.weights}


def pooled(tokens, pooling, norm):
    """timm's `global_pool_nlc` with `fc_norm`, DINOv2's pair, and GeM, in NumPy."""
    patches = tokens[:, 1:]
    parts = {
        "token": lambda: [tokens[:, 0]],
        "avg": lambda: [patches.mean(1)],
        "gem": lambda: [np.cbrt((np.maximum(patches, 1e-6) ** 3).mean(1))],
        "cls+avg": lambda: [tokens[:, 0], patches.mean(1)],
    }[pooling]()
    return np.concatenate([norm(part) for part in parts], axis=-1)


@pytest.mark.every_backend
@pytest.mark.parametrize("final_norm", ["tokens", "pooled"])
def test_poolings_equal_numpy(final_norm):
    model = small(final_norm=final_norm)
    weights, images = weights_of(model), PREPARE(IMAGES)
    tokens = forward_tokens(images, weights, 2, 2)
    name = "norm" if final_norm == "tokens" else "pooled_norm"

    def norm(x):
        return layer_norm(x, weights[f"{name}/gamma"], weights[f"{name}/beta"])

    inside, after = (norm, lambda x: x) if final_norm == "tokens" else (lambda x: x, norm)
    structure = ViTStructure(model)
    for pooling in (None, *POOLINGS):
        extract = vector_model(structure, pooling)
        wanted = pooled(inside(tokens), pooling or "token", after)
        assert extract.output_shape == (None, wanted.shape[1])
        vectors = keras.ops.convert_to_numpy(extract(images))
        np.testing.assert_allclose(vectors, wanted, atol=1e-4)
    maps = keras.ops.convert_to_numpy(patch_model(structure)(images))
    np.testing.assert_allclose(maps.reshape(5, 6, 16), inside(tokens)[:, 1:], atol=1e-4)
    assert len(model.get_layer(name)._inbound_nodes) == 1  # the model itself is as it was


@pytest.fixture(scope="module")
def extractor():
    model = small(num_registers=1, distillation_token=True, prefix_positions=False)
    return vit_tf.features(Classifier(model, PREPARE, None), batch_size=4)


def test_two_heads_and_prefix_tokens(extractor):
    """The own features of a distilled model are the mean of its two tokens."""
    model = extractor._structure.model
    tokens = vit_tf.forward_features(model, PREPARE(IMAGES), layers=-1, reshape=False)["block_1"]
    wanted = tokens[:, :2].mean(1)
    np.testing.assert_allclose(extractor.embed(IMAGES), wanted, atol=1e-5)
    extractor.normalize = True
    wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(extractor.embed(IMAGES), wanted, atol=1e-5)
    np.testing.assert_allclose([v for _, v in extractor.stream(IMAGES)], wanted, atol=1e-5)
    extractor.normalize = False
    maps = tokens[:, 3:].reshape(5, 2, 3, 16)
    np.testing.assert_allclose(extractor.maps(IMAGES), maps, atol=1e-5)


def test_inputs_in_every_form(extractor, tmp_path):
    wanted = extractor.embed(IMAGES)
    assert wanted.shape == (5, extractor.num_features) and wanted.dtype == "float32"
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = sorted(tmp_path.iterdir())
    files = (io.BytesIO(path.read_bytes()) for path in paths)
    for images in (tmp_path, paths, files, map(Image.open, paths), list(IMAGES)):
        np.testing.assert_allclose(extractor.embed(images), wanted, atol=1e-6)
    np.testing.assert_allclose(extractor.embed(str(paths[2])), wanted[2:3], atol=1e-6)
    problems = []
    stream = extractor.stream([*paths[:2], "missing.png", paths[2]], lambda *pair: problems.append(pair))
    assert [image for image, _ in stream] == paths[:3] and problems[0][0] == "missing.png"
    assert extractor.embed([]).shape == (0, 16) and extractor.maps(iter(())).shape == (0, 2, 3, 16)
    with pytest.raises(FileNotFoundError):
        extractor.embed("missing.png")
    with pytest.raises(ValueError, match="not an image"):
        extractor.maps(b"words")


def test_another_image_size(extractor):
    classifier = Classifier(extractor._structure.model, PREPARE, None)
    larger = FeatureExtractor(classifier, "avg", image_size=(16, 12))
    assert larger.preprocessing.image_size == (16, 12) and larger._structure.grid_size == (4, 3)
    same = FeatureExtractor(classifier, image_size=(8, 12))
    assert same._structure.model is classifier.model


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    structure = ViTStructure(small(final_norm="pooled"))
    for pooling in POOLINGS:
        vectors = vector_model(structure, pooling)(PREPARE(IMAGES[:2]))
        assert keras.backend.standardize_dtype(vectors.dtype) == "float32"
        assert np.isfinite(keras.ops.convert_to_numpy(vectors)).all()


def test_an_exported_folder(tmp_path):
    folder = write_features(tmp_path / "features")
    extractor = vit_tf.features(folder, runtime="onnxruntime")
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), "uint8")
    wanted = expected_logits(Preprocessing(**PREPROCESSING)(image))
    np.testing.assert_allclose(extractor.embed(image), wanted, atol=1e-5)
    assert extractor.variant == "linear" and extractor.probe().shape == (4,)
    with pytest.raises(ValueError, match="gives vectors alone: give the weights themselves"):
        extractor.maps(image)
    for options in (dict(pooling="avg"), dict(image_size=32)):
        with pytest.raises(ValueError, match="has the pooling and the image size that were exported"):
            vit_tf.features(folder, **options)
    with pytest.raises(ValueError, match="gives classes, not features: give the weights themselves"):
        vit_tf.features(write_folder(tmp_path / "classes", output_names=["logits"]))


def test_bad_arguments():
    model = small(pooling="avg", class_token=False)
    for pooling, message in (
        ("token", "has no class token, which the pooling 'token' reads: choose 'avg' or 'gem'"),
        ("tokens", r"`pooling` must be one of 'token', .*\(did you mean 'token'\?\)"),
    ):
        with pytest.raises(ValueError, match=message):
            vit_tf.features(Classifier(model, PREPARE, None), pooling)
    dense = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="has no encoder blocks: give a model of `build_vit`"):
        vit_tf.features(Classifier(dense, Preprocessing(4), None))
    with pytest.raises(ValueError, match="the model must be a Keras model, a Classifier or a source"):
        vit_tf.features(7)
