import pytest

from vit_tf.labels import (
    imagenet_classes,
    labels_from_config,
    problem_type_from_config,
    thresholds_from_config,
)


def test_imagenet_classes():
    names = imagenet_classes()
    assert len(names) == 1000 and len(set(names)) == 999 and imagenet_classes() is names
    assert names[0] == "tench, Tinca tinca" and names[281] == "tabby, tabby cat"
    assert names[999] == "toilet tissue, toilet paper, bathroom tissue"
    assert [i for i, name in enumerate(names) if name == "crane"] == [134, 517]
    assert all(name == name.strip() and name for name in names)


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


@pytest.mark.parametrize("problem_type", ["multi_label", 3, ["regression"], "x" * 1000])
def test_an_unknown_problem_type(problem_type):
    with pytest.raises(ValueError, match="problem_type") as caught:
        problem_type_from_config({"problem_type": problem_type})
    assert len(str(caught.value)) < 300


def test_problem_type_and_thresholds():
    assert problem_type_from_config({}) == problem_type_from_config({"problem_type": None})
    assert problem_type_from_config({}) == "single_label_classification"
    assert problem_type_from_config({"problem_type": "regression"}) == "regression"
    several = {"problem_type": "multi_label_classification"}
    assert thresholds_from_config(several, 2) is None
    assert thresholds_from_config({**several, "thresholds": [0, 0.25]}, 2) == (0.0, 0.25)
    assert thresholds_from_config({"thresholds": [0.25]}, 1) == (0.25,)
    assert thresholds_from_config({"thresholds": "of something else"}, 2) is None


@pytest.mark.parametrize(
    "thresholds",
    [0.5, "abc", [0.5], [0.5] * 3, [0.5, -0.1], [0.5, 1.1], [0.5, True], [0.5, None], [0.5, "1"]],
)
def test_bad_thresholds(thresholds):
    config = {"problem_type": "multi_label_classification", "thresholds": thresholds}
    with pytest.raises(ValueError, match="thresholds"):
        thresholds_from_config(config, 2)
