"""The modules of the page under Node.js, against the functions in Python that they repeat."""

import json
import shutil
import subprocess

import numpy as np
import PIL
import pytest
from PIL import Image
from support.photos import MEAN, STD, photo

from vit_tf.deploy.web.page import ASSETS
from vit_tf.labels import PROBLEM_TYPES, REGRESSION, SINGLE_LABEL
from vit_tf.predictions import decode_predictions, decode_values
from vit_tf.preprocessing import Preprocessing
from vit_tf.preprocessing.transform import INTERPOLATIONS

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed"),
    pytest.mark.tensorflow_only("no backend takes part"),
]

PREPROCESS = """
import { readFileSync } from "node:fs";
import { normalize, resizeAndCrop } from "./preprocessing.js";
const results = [];
for (const { file, width, height, settings } of JSON.parse(readFileSync("cases.json"))) {
  const bytes = readFileSync(file);
  const rows = (top, count) => bytes.subarray(4 * top * width, 4 * (top + count) * width);
  const pixels = resizeAndCrop({ width, height, rows }, settings, 200); // several bands
  results.push([Array.from(pixels), Array.from(normalize(pixels, settings))]);
}
console.log(JSON.stringify(results));
"""
DECODE = """
import { readFileSync } from "node:fs";
import { decode } from "./predictions.js";
const cases = JSON.parse(readFileSync("cases.json"));
console.log(JSON.stringify(cases.map(({ outputs, ...description }) => decode(outputs, description, 3))));
"""
SIZES = {"wide": (40, 83), "tall": (83, 40), "small": (5, 9), "a line": (1, 70), "as it is": (24, 24)}


def run_node(folder, script, cases):
    """Returns the JSON that a script writes, which imports modules of the page and reads cases.json."""
    for module in ASSETS.glob("*.js"):
        shutil.copy(module, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "cases.json").write_text(json.dumps(cases))
    (folder / "test.js").write_text(script)
    result = subprocess.run(["node", "test.js"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_pixels_are_those_of_pillow(size, tmp_path):
    is_old = int(PIL.__version__.split(".")[0]) < 13  # tall images: the other pass comes first
    pixels = photo(*size) if min(size) > 2 else np.arange(3 * size[1], dtype="uint8").reshape(1, -1, 3)
    image = Image.fromarray(pixels)
    (tmp_path / "image").write_bytes(image.convert("RGBA").tobytes())
    settings = [Preprocessing(24, interpolation=name, mean=MEAN, std=STD) for name in INTERPOLATIONS]
    settings += [
        Preprocessing(shape, crop_fraction=crop_fraction, crop_mode=mode, mean=MEAN, std=STD)
        for shape, crop_fraction in (((24, 24), 1.0), ((15, 36), 0.8))
        for mode in ("center", "border")
    ]
    settings.append(Preprocessing((24, 24), crop_mode="squash", mean=MEAN, std=STD))
    place = dict(file="image", width=image.width, height=image.height)
    cases = [dict(place, settings=each.to_dict()) for each in settings]
    for each, (found, normalized) in zip(settings, run_node(tmp_path, PREPROCESS, cases)):
        expected = np.asarray(each.resize_and_crop(image))
        if is_old and size[0] > size[1]:
            np.testing.assert_allclose(np.reshape(found, expected.shape), expected, atol=8)
            continue
        np.testing.assert_array_equal(np.reshape(found, expected.shape), expected, str(each))
        np.testing.assert_array_equal(np.reshape(normalized, expected.shape), each(image)[0], str(each))


def test_predictions_are_those_of_the_classifier(tmp_path):
    multi_label = PROBLEM_TYPES[1]
    names = ("a", "b", "c", "d", "e")
    cases = [
        dict(problem_type=SINGLE_LABEL, outputs=[0.5, -2, 3, 3, 700], labels=names, thresholds=None),
        dict(problem_type=multi_label, outputs=[0.5, 0.1, 3, -9, 800], labels=names, thresholds=None),
        dict(problem_type=multi_label, outputs=[0, 1, 2, 3, -4], labels=names, thresholds=[0.9] * 5),
        dict(problem_type=SINGLE_LABEL, outputs=[1.5], labels=names[:2], thresholds=None),
        dict(problem_type=SINGLE_LABEL, outputs=[-1.5], labels=names[:2], thresholds=[0.3]),
        dict(problem_type=SINGLE_LABEL, outputs=[0.5, 0.2, 0.3], labels=names[:3], activation="softmax"),
        dict(problem_type=REGRESSION, outputs=[0.123456789, -2e-9, 12345678], labels=names[:3]),
    ]
    for case, found in zip(cases, run_node(tmp_path, DECODE, [{"activation": "linear"} | c for c in cases])):
        outputs, labels = np.array(case["outputs"]), case["labels"]
        if case["problem_type"] == REGRESSION:
            expected = decode_values(outputs, labels)[0]
            values = [float(each["text"]) for each in found]
            np.testing.assert_allclose(values, [value for _, value in expected], rtol=1e-4)
        else:
            is_sigmoid = case["problem_type"] == multi_label or len(outputs) == 1
            activation = "none" if "activation" in case else "sigmoid" if is_sigmoid else "softmax"
            thresholds = case.get("thresholds") or (0.5 if case["problem_type"] == multi_label else None)
            (expected,) = decode_predictions(outputs, 3, labels, activation=activation, thresholds=thresholds)
            np.testing.assert_allclose([x["share"] for x in found], [p for _, p in expected], rtol=1e-12)
            if thresholds is not None or activation != "sigmoid":  # decode_predictions has a default
                assert [each["selected"] for each in found] == [each.selected for each in expected]
        assert [each["label"] for each in found] == [each.label for each in expected]
