"""Softmax, sigmoid or neither: probabilities and labels of outputs, as the model or its config.json says."""

import json
import re

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from PIL import Image
from safetensors.numpy import save_file
from support.cases import random_images, random_weights

import vit_tf
from vit_tf import build_vit
from vit_tf.classifier import Classifier
from vit_tf.commands import explanation_report
from vit_tf.commands import main as cli
from vit_tf.labels import imagenet_classes
from vit_tf.predictions import (
    Prediction,
    as_logits,
    decode_predictions,
    decode_values,
    output_activation,
    probabilities,
)
from vit_tf.preprocessing import Preprocessing

RNG = np.random.default_rng(5)
LOGITS = RNG.normal(0, 3, (4, 6))
MULTI = "multi_label_classification"


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x)))


# ---------------------------------------------------------------------------------------------------
# Softmax
# ---------------------------------------------------------------------------------------------------
def test_predictions_are_sorted_probabilities():
    logits = np.random.default_rng(0).normal(0, 3, (4, 1000)).astype("float32")
    decoded = decode_predictions(logits, top=7)
    assert len(decoded) == 4 and {len(best) for best in decoded} == {7}
    exponents = np.exp(logits.astype("float64"))
    probabilities = exponents / exponents.sum(1, keepdims=True)
    for row, best in zip(probabilities, decoded):
        order = np.argsort(row)[::-1][:7]
        assert [label for label, _ in best] == [imagenet_classes()[i] for i in order]
        np.testing.assert_allclose([probability for _, probability in best], row[order], rtol=1e-12)
    assert decode_predictions(ops.convert_to_tensor(logits), top=7) == decoded
    assert decode_predictions(logits[1], top=7) == decoded[1:2]
    assert decode_predictions(logits.tolist(), top=7) == decoded


def test_labels_and_top():
    logits = [[1.0, 3.0, 2.0]]
    assert [label for label, _ in decode_predictions(logits)[0]] == ["class 1", "class 2", "class 0"]
    assert [label for label, _ in decode_predictions(logits, 2, ("a", "b", "c"))[0]] == ["b", "c"]
    assert sum(probability for _, probability in decode_predictions(logits, 99)[0]) == pytest.approx(1)
    assert [label for label, _ in decode_predictions([0.0, 0.0], labels=["x", "y"])[0]] == ["x", "y"]
    assert decode_predictions(np.zeros(1000), 1, [str(i) for i in range(1000)])[0][0][0] == "0"


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_logits_of_probabilities(activation):
    logits = np.random.default_rng(0).normal(0, 5, (20, 4))
    expected = probabilities(logits, activation)
    np.testing.assert_allclose(
        probabilities(as_logits(expected, activation), activation), expected, atol=1e-12
    )
    np.testing.assert_array_equal(as_logits(logits, "linear"), logits)
    ends = np.array([[0.0, 1.0]], "float32")
    assert np.isfinite(as_logits(ends, activation)).all()


def test_large_logits_do_not_overflow():
    [[(label, probability), (_, other)]] = decode_predictions(np.array([1e4, -1e4], "float32"))
    assert (label, probability, other) == ("class 0", 1.0, 0.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((3.0,), r"\(b, num_classes\) or \(num_classes,\), got the shape \(\)"),
        ((np.zeros((1, 2, 3)),), r"got the shape \(1, 2, 3\)"),
        ((np.zeros((2, 0)),), r"got the shape \(2, 0\)"),
        (([[1.0, np.nan]],), "NaN or infinite"),
        (([[1.0, np.inf]],), "NaN or infinite"),
        (([1.0, 2.0], 0), "`top` must be a positive int, got 0"),
        (([1.0, 2.0], 1.5), "`top` must be a positive int, got 1.5"),
        (([1.0, 2.0], True), "`top` must be a positive int, got True"),
        (([1.0, 2.0], 1, ["a"]), "`labels` must be 2 names, one per logit, got 1"),
        (([1.0, 2.0], 1, "ab"), "no file or folder 'ab'"),
        (([1.0, 2.0], 1, ["a"]), "`labels` must be 2 names"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(*arguments)


def test_the_labels_of_a_checkpoint_win(tmp_path):
    config = {"id2label": {str(i): f"kind {i}" for i in range(1000)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    logits = np.eye(1000)[7] * 9
    assert decode_predictions(logits, 1, labels=tmp_path)[0][0][0] == "kind 7"
    (tmp_path / "config.json").write_text("{}")
    assert decode_predictions(logits, 1, labels=str(tmp_path))[0][0][0] == imagenet_classes()[7]


# ---------------------------------------------------------------------------------------------------
# Sigmoid, neither, and what cannot be told apart
# ---------------------------------------------------------------------------------------------------
def test_sigmoid_selects_all_labels_that_reach_their_threshold():
    found = decode_predictions(LOGITS, 2, activation="sigmoid")
    for row, best in zip(sigmoid(LOGITS), found):
        order = np.argsort(-row)
        kept = [i for place, i in enumerate(order) if place < 2 or row[i] >= 0.5]
        assert best == [(f"class {i}", pytest.approx(row[i], rel=1e-12)) for i in kept]
        assert [each.selected for each in best] == [row[i] >= 0.5 for i in kept]
    assert {len(best) for best in found} - {2}, "no image has more labels than `top`: choose other logits"


def test_each_label_has_its_threshold():
    [best] = decode_predictions([0.0, 1.0, -1.0], activation="sigmoid", thresholds=[0.6, 0.9, 0.2])
    assert [(each.label, each.selected) for each in best] == [
        ("class 1", False),
        ("class 0", False),
        ("class 2", True),
    ]
    [best] = decode_predictions([0.0, 1.0, -1.0], activation="sigmoid", thresholds=0.5)
    assert [each.selected for each in best] == [True, True, False]
    assert best[0].as_dict() == {"label": "class 1", "probability": sigmoid(1.0), "selected": True}
    assert decode_predictions([9.0, 0.0])[0][0].as_dict().keys() == {"label", "probability"}
    with pytest.raises(ValueError, match="`thresholds` must be 3 numbers"):
        decode_predictions([0.0, 1.0, -1.0], activation="sigmoid", thresholds=[0.5])


@pytest.mark.parametrize("logit", [-9.0, -0.3, 2.0, 800.0, -800.0])
def test_one_logit_is_a_sigmoid(logit):
    probability = 1 / (1 + np.exp(-logit)) if logit > -100 else 0.0
    [[(label, found)]] = decode_predictions([[logit]])
    assert label == "class 0" and found == pytest.approx(probability)
    [best] = decode_predictions([logit], labels=["cat", "dog"])
    assert best == sorted([("dog", found), ("cat", 1 - found)], key=lambda pair: -pair[1])
    assert best[0].selected is None
    [best] = decode_predictions([logit], labels=["cat", "dog"], thresholds=[0.4])
    assert [each.label for each in best if each.selected] == ["dog" if probability >= 0.4 else "cat"]
    with pytest.raises(ValueError, match="softmax of one logit is always 1"):
        decode_predictions([logit], activation="softmax")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_classes", [2, 1000])
def test_a_softmax_is_not_applied_again(dtype, num_classes):
    logits = RNG.normal(0, 3, (3, num_classes))
    logits[0, 1] = logits[0].max() + np.log(999 * num_classes)  # more than 99.9 %, which would become 0.27 %
    again = decode_predictions(softmax(logits).astype(dtype))
    for expected, found in zip(decode_predictions(logits), again):
        assert [label for label, _ in found] == [label for label, _ in expected]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], rtol=1e-5)
    assert again[0][0].probability > 0.99


@pytest.mark.parametrize(
    "outputs, default",
    [
        ([[0.9, 0.2, 0.8]], "softmax"),  # a sigmoid's
        ([[0.7]], "sigmoid"),
        ([[0.0]], "sigmoid"),
        ([[0.5, 0.5], [0.5, 0.6]], "softmax"),
        ([[0.498, 0.5]], "softmax"),  # a softmax in bfloat16
    ],
)
def test_outputs_that_may_be_either_are_refused(outputs, default):
    with pytest.raises(ValueError, match=f'may be probabilities or logits: .*activation="{default}"'):
        decode_predictions(outputs)
    found = decode_predictions(outputs, activation="none")
    assert sorted(p for _, p in found[0]) == sorted(outputs[0])
    decode_predictions(outputs, activation=default)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(activation="relu"), "`activation` must be one of 'softmax', 'sigmoid', 'none', got 'relu'"),
        (dict(activation="none"), "for probabilities, and these outputs go from -2 to 5"),
        (dict(activation="sigmoid", thresholds=2), "from 0 to 1"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions([5.0, -2.0], **arguments)


def test_the_problem_type_of_a_checkpoint_wins(tmp_path):
    config = {"problem_type": MULTI, "id2label": {"0": "a", "1": "b"}, "thresholds": [0.1, 0.99]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    [best] = decode_predictions([-1.0, 2.0], labels=tmp_path)
    assert best == [("b", sigmoid(2.0)), ("a", pytest.approx(sigmoid(-1.0)))]
    assert [each.selected for each in best] == [False, True]
    (tmp_path / "config.json").write_text('{"problem_type": "regression"}')
    with pytest.raises(ValueError, match="regression: the outputs are values"):
        decode_predictions([-1.0, 2.0], labels=tmp_path)


def test_values_of_a_regression():
    [row] = decode_values([[31.5, -2.0]], ("age", "height"))
    assert row == [("age", 31.5), ("height", -2.0)]
    assert row[0].as_dict() == {"label": "age", "value": 31.5} and row[0].text == "31.5"
    assert decode_values([3.0]) == [[("value 0", 3.0)]]
    with pytest.raises(ValueError, match="must be 1 names"):
        decode_values([3.0], ("a", "b"))


def test_a_prediction_is_a_pair_that_can_be_pickled():
    import pickle

    found = Prediction("cat", 0.5)
    found.selected = True
    again = pickle.loads(pickle.dumps(found))
    assert again == ("cat", 0.5) and again.selected is True and again.text == "50.0%"


# ---------------------------------------------------------------------------------------------------
# Models
# ---------------------------------------------------------------------------------------------------
SIZES = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8)
PREPARE = Preprocessing((8, 8), "bilinear", 1.0, "squash", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def behind_features(kind):
    """Returns a model that ends as people end theirs, and its activation."""
    features = build_vit("vit_cifar10", **SIZES, num_classes=0)
    dense = keras.layers.Dense
    if kind == "sequential":
        return keras.Sequential([features, dense(3), keras.layers.Activation("sigmoid")]), "sigmoid"
    if kind == "dense":
        return keras.Sequential([features, dense(3, activation="softmax")]), "softmax"
    if kind == "layer":
        return keras.Model(features.input, keras.layers.Softmax()(dense(3)(features.output))), "softmax"
    if kind == "nested":
        inner = build_vit("vit_cifar10", **SIZES, num_classes=3, classifier_activation="softmax")
        images = keras.Input((8, 8, 3))
        return keras.Model(images, inner(images)), "softmax"
    return keras.Model(features.input, keras.layers.Rescaling(2.0)(dense(3)(features.output))), None


@pytest.mark.parametrize("kind", ["sequential", "dense", "layer", "nested", "unknown"])
def test_the_last_activation_of_a_model(kind):
    model, expected = behind_features(kind)
    assert output_activation(model) == expected


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize(
    "activation, problem_type, expected",
    [
        (None, "single_label_classification", softmax),
        ("softmax", "single_label_classification", softmax),
        (None, MULTI, sigmoid),
        ("sigmoid", MULTI, sigmoid),
    ],
)
@pytest.mark.parametrize("distilled", [False, True])
def test_a_classifier_activates_once(activation, problem_type, expected, distilled):
    options = dict(num_classes=3, distillation_token=distilled, pooling="token")
    model = randomize(build_vit("vit_cifar10", **SIZES, **options))
    logits = model.predict_on_batch(images := RNG.normal(size=(2, 8, 8, 3)).astype("float32"))
    if activation:
        weights = model.get_weights()
        model = build_vit("vit_cifar10", **SIZES, **options, classifier_activation=activation)
        model.set_weights(weights)
    found = Classifier(model, PREPARE, ("a", "b", "c"), problem_type)
    for row, best in zip(expected(logits), found.decode(model.predict_on_batch(images))):
        np.testing.assert_allclose([p for _, p in best], np.sort(row)[::-1], atol=1e-6)
        assert [label for label, _ in best] == [("a", "b", "c")[i] for i in np.argsort(-row)]
        assert all(
            each.selected == (None if problem_type != MULTI else each.probability >= 0.5) for each in best
        )


def test_an_unknown_problem_type_is_no_softmax():
    with pytest.raises(ValueError, match="`problem_type` must be"):
        Classifier(build_vit("vit_cifar10", **SIZES, num_classes=3), PREPARE, None, "multi_label")


# ---------------------------------------------------------------------------------------------------
# Folders of transformers: what their pipeline "image-classification" gives
# ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a function that writes a folder of transformers with some keys in its config.json."""
    with open("tests/fixtures/logits.json") as file:
        cases = json.load(file)
    (case,) = (case for case in cases if case["id"] == "huggingface ViTForImageClassification")

    def write(num_labels, **config):
        folder = tmp_path_factory.mktemp("folder")
        weights = random_weights(case["shapes"])
        for name in ("classifier.weight", "classifier.bias"):
            weights[name] = weights[name][:num_labels]
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(case["config"] | config))
        return folder

    write.images, write.logits = random_images(case), np.array(case["logits"])
    return write


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize(
    "num_labels, config, expected",
    [
        (5, {}, softmax),
        (5, {"problem_type": None}, softmax),
        (5, {"problem_type": "single_label_classification"}, softmax),
        (5, {"problem_type": MULTI}, sigmoid),
        (5, {"problem_type": "regression"}, lambda logits: logits),
        (1, {}, sigmoid),
        (1, {"problem_type": "single_label_classification"}, sigmoid),
        (1, {"problem_type": MULTI}, sigmoid),
        (1, {"problem_type": "regression"}, lambda logits: logits),
    ],
)
def test_folders_of_transformers(folder, num_labels, config, expected):
    names = {str(i): f"kind {i}" for i in range(num_labels)}
    found = vit_tf.load(folder(num_labels, **config, id2label=names))
    decoded = found.decode(found.model.predict_on_batch(folder.images))
    scores = expected(folder.logits[:, :num_labels])
    for row, best in zip(scores, decoded):
        by_name = dict(best)
        np.testing.assert_allclose([by_name[name] for name in names.values()], row, atol=1e-5)
        if config.get("problem_type") != "regression":
            assert [p for _, p in best] == sorted(by_name.values(), reverse=True)


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "num_labels, config, line, entry",
    [
        (5, {}, r"^   \d\d\.\d%  class \d$", {"label", "probability"}),
        (5, {"problem_type": MULTI}, r"^[ *] +\d+\.\d%  class \d$", {"label", "probability", "selected"}),
        (5, {"problem_type": "regression"}, r"^   *-?\d\.\d+  value \d$", {"label", "value"}),
        (1, {"id2label": {"0": "no", "1": "yes"}}, r"^   \d\d\.\d%  (yes|no)$", {"label", "probability"}),
    ],
)
def test_the_command_prints_them(folder, tmp_path, capsys, num_labels, config, line, entry):
    source = folder(num_labels, **config)
    Image.fromarray(RNG.integers(0, 256, (30, 40, 3), "uint8")).save(tmp_path / "a.png")
    arguments = ["predict", str(tmp_path / "a.png"), "--weights", str(source)]
    cli.main([*arguments, "--json"])
    (image,) = json.loads(capsys.readouterr().out)
    assert {frozenset(each) for each in image["predictions"]} == {frozenset(entry)}
    cli.main(arguments)
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == len(image["predictions"]) and all(re.search(line, each) for each in lines), lines
    for text, each in zip(lines, image["predictions"]):
        assert text.startswith("*") == each.get("selected", False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_labels, config, caption, whose",
    [
        (5, {}, r"^a\.png\nclass \d \d\d\.\d%$", "the likeliest class"),
        (5, {"problem_type": "regression"}, r"^a\.png\nvalue 0 -?\d\.\d+$", "the likeliest class"),
        (1, {"id2label": {"0": "no", "1": "yes"}}, r"^a\.png\n(yes|no) \d\d\.\d%$", "yes"),
    ],
)
def test_explain_shows_them(folder, tmp_path, num_labels, config, caption, whose):
    path = tmp_path / "a.png"
    Image.fromarray(RNG.integers(0, 256, (30, 40, 3), "uint8")).save(path)
    classifier = vit_tf.load(folder(num_labels, **config))
    context = explanation_report.ReportContext(classifier, [str(path)], layer=-1, class_index=None)
    assert re.fullmatch(caption, context.captions[0]) and context.target == whose
