import json

import numpy as np
import pytest
from keras import ops

from vit_tf.labels import decode_predictions, imagenet_classes, labels_from_config


def test_imagenet_classes():
    names = imagenet_classes()
    assert len(names) == 1000 and len(set(names)) == 999 and imagenet_classes() is names
    assert names[0] == "tench, Tinca tinca" and names[281] == "tabby, tabby cat"
    assert names[999] == "toilet tissue, toilet paper, bathroom tissue"
    assert [i for i, name in enumerate(names) if name == "crane"] == [134, 517]
    assert all(name == name.strip() and name for name in names)


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
        (([1.0, 2.0], 0), "`top` must be an int from 1, got 0"),
        (([1.0, 2.0], 1.5), "`top` must be an int from 1, got 1.5"),
        (([1.0, 2.0], True), "`top` must be an int from 1, got True"),
        (([1.0, 2.0], 1, ["a"]), "`labels` must be 2 names, one a logit, got 1"),
        (([1.0, 2.0], 1, "ab"), "no file or folder 'ab'"),
        (([1.0, 2.0], 1, ["a"]), "`labels` must be 2 names"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        decode_predictions(*arguments)


@pytest.mark.parametrize(
    "config, expected",
    [
        ({}, None),
        ({"pretrained_cfg": {"num_classes": 2}}, None),
        ({"label_names": ["n1", "n2"]}, ("n1", "n2")),
        ({"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat", "n2": "dog"}}, ("cat", "dog")),
        ({"label_names": ["n1", "n2"], "label_descriptions": {"n1": "cat"}}, ("cat", "n2")),
        ({"label_names": {"1": "n2", "0": "n1"}}, ("n1", "n2")),
        ({"pretrained_cfg": {"label_names": ["a", "b"]}, "label_names": ["c", "d"]}, ("c", "d")),
        ({"pretrained_cfg": {"label_names": ["a", "b"]}}, ("a", "b")),
        ({"labels": ["a", "b"], "architecture": "vit"}, ("a", "b")),
        ({"id2label": {"1": "dog", "0": "cat"}}, ("cat", "dog")),
        ({"id2label": {str(i): str(i * i) for i in range(12)}}, tuple(str(i * i) for i in range(12))),
        ({"id2label": {0: "cat", 1: "dog"}}, ("cat", "dog")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, None),
    ],
)
def test_labels_from_config(config, expected):
    assert labels_from_config(config) == expected


@pytest.mark.parametrize("names", [{"0": "a", "2": "b"}, {"1": "a"}, {"0": "a", "x": "b"}])
def test_labels_with_a_gap(names):
    with pytest.raises(ValueError, match="numbered from 0 to .* there is no"):
        labels_from_config({"id2label": names})


@pytest.mark.parametrize(
    "config",
    [
        {"id2label": 5},
        {"id2label": "abc"},
        {"label_names": [["a"], ["b"]]},
        {"label_names": [None, "a"]},
        {"label_names": ["a"], "label_descriptions": ["b"]},
        {"pretrained_cfg": "a"},
    ],
)
def test_labels_of_another_kind(config):
    with pytest.raises(ValueError, match="config.json must have"):
        labels_from_config(config)


def test_the_labels_of_a_checkpoint_win(tmp_path):
    config = {"id2label": {str(i): f"kind {i}" for i in range(1000)}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    logits = np.eye(1000)[7] * 9
    assert decode_predictions(logits, 1, labels=tmp_path)[0][0][0] == "kind 7"
    (tmp_path / "config.json").write_text("{}")
    assert decode_predictions(logits, 1, labels=str(tmp_path))[0][0][0] == imagenet_classes()[7]
