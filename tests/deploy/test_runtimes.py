"""The runtimes: outputs by name, threads, precision, and what each refuses."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.exported import expected_logits, make_manifest, random_images, write_folder

from vit_tf.deploy import extras
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.runtimes import RUNTIMES, choose_runtime, open_runtime, opening

PAIRS = [(format, name) for name, entry in RUNTIMES.items() for format in entry.formats if format != "web"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns a function from a format to an exported folder, written once."""
    root, written = tmp_path_factory.mktemp("exported"), {}

    def folder(format, **fields):
        key = (format, *map(str, fields.items()))
        if key not in written:
            written[key] = write_folder(root / str(len(written)), format, **fields)
        return written[key]

    return folder


def test_the_runtime_of_every_format_reads_it():
    assert all(name in RUNTIMES[entry.runtime].formats for name, entry in FORMATS.items())


@pytest.mark.fast_cases(3)
@pytest.mark.parametrize("format, name", PAIRS)
def test_outputs_by_name_at_two_batch_sizes(folders, format, name):
    runtime = open_runtime(folders(format), runtime=name, threads=1)
    assert runtime.name == name
    for images in (random_images(5), random_images(2)):
        logits, distillation_logits = runtime.run(images)
        assert logits.dtype == distillation_logits.dtype == "float32"
        np.testing.assert_allclose(logits, expected_logits(images), atol=1e-5)
        np.testing.assert_allclose(distillation_logits, 2 * expected_logits(images), atol=1e-5)


@pytest.mark.fast_cases(3)
@pytest.mark.parametrize("format, name", PAIRS)
def test_eight_threads_get_the_outputs_of_their_images(folders, format, name):
    runtime = open_runtime(folders(format), runtime=name, threads=2)
    batches = [random_images(1 + i % 3, seed=i) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        for images, (logits, _) in zip(batches, pool.map(runtime.run, batches)):
            np.testing.assert_allclose(logits, expected_logits(images), atol=1e-5)


@pytest.mark.fast_cases(3)
@pytest.mark.parametrize("format, name", PAIRS)
def test_pixels(folders, format, name):
    runtime = open_runtime(folders(format, input_kind="uint8"), runtime=name)
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 8, 3), "uint8")
    np.testing.assert_allclose(runtime.run(images)[0], expected_logits(images), rtol=1e-4)
    with pytest.raises(ValueError, match=r"takes uint8 images \('b', \*\(6, 8, 3\)\), got float32"):
        runtime.run(images.astype("float32"))


@pytest.mark.parametrize("images", [random_images()[:0], random_images()[:, :5], random_images()[0], [[0.0]]])
def test_images_of_another_shape(folders, images):
    with pytest.raises(ValueError, match="the model takes float32 images"):
        open_runtime(folders("onnx"), runtime="onnxruntime").run(images)


def test_outputs_stay_as_they_are_when_the_runtime_runs_again(folders):
    for name in ("openvino", "onnxruntime"):
        runtime = open_runtime(folders("onnx"), runtime=name)
        first = runtime.run(random_images(seed=1))[0]
        kept = first.copy()
        runtime.run(random_images(seed=2))
        np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("precision, hint", [("float32", "f32"), ("bfloat16", "bf16"), ("int8", "f32")])
def test_openvino_computes_in_the_precision_of_the_manifest(folders, precision, hint):
    import openvino

    runtime = open_runtime(folders("openvino", precision=precision))
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hint = "f32"
    assert runtime.model.get_property("INFERENCE_PRECISION_HINT").to_string() == hint


# ---------------------------------------------------------------------------------------------------
# The choice
# ---------------------------------------------------------------------------------------------------
def test_auto_takes_the_first_installed_runtime(monkeypatch):
    missing = set()
    for module in (opening, extras):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else name)
    manifest = make_manifest("onnx")
    assert choose_runtime(manifest) == "onnxruntime"  # the format's own
    assert choose_runtime(manifest, "auto") == "openvino"
    quantized = make_manifest("onnx", precision="int8", quantization={"method": "dynamic"})
    assert choose_runtime(quantized, "auto") == "onnxruntime"
    missing.add("openvino")
    assert choose_runtime(manifest, "auto") == "onnxruntime"
    missing.add("onnxruntime")
    for name, runtime in (("auto", "onnxruntime"), ("openvino", "openvino")):
        extra = {"onnxruntime": "onnx", "openvino": "openvino"}[runtime]
        message = rf"^the runtime '{runtime}' needs {runtime}: pip install 'vit_tf\[{extra}\]'$"
        with pytest.raises(ValueError, match=message):
            choose_runtime(manifest, name)


def test_another_runtime(folders):
    with pytest.raises(ValueError, match="does not read the format 'onnx': choose openvino or onnxruntime"):
        open_runtime(folders("onnx"), runtime="keras")
    with pytest.raises(ValueError, match=r"`runtime` must be one of .* \(did you mean 'openvino'\?\)"):
        open_runtime(folders("onnx"), runtime="openvinoo")
    with pytest.raises(ValueError, match="`threads` must be a positive int or None, got 0"):
        open_runtime(folders("onnx"), threads=0)


# ---------------------------------------------------------------------------------------------------
# Damage
# ---------------------------------------------------------------------------------------------------
@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("format, name", PAIRS)
def test_a_damaged_file_is_one_line(tmp_path, format, name):
    folder = write_folder(tmp_path / "model", format)
    path = folder / FORMATS[format].file
    content = path.read_bytes()
    for damaged in (b"", b"words", content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"cannot be opened by {name}: ") as caught:
            open_runtime(folder, runtime=name)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(ValueError, match=f"is incomplete: it has no {path.name}"):
        open_runtime(folder, runtime=name)


@pytest.mark.parametrize(
    "format, name",
    [
        ("openvino", "model.bin"),
        pytest.param("savedmodel", "variables/variables.index", marks=pytest.mark.slow),
    ],
)
def test_a_model_without_its_weights(tmp_path, format, name):
    folder = write_folder(tmp_path / "model", format)
    (folder / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"cannot be opened by {format}: .*; if the file is damaged, export"):
        open_runtime(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"is incomplete: it has no {name}; export the model again"):
        open_runtime(folder)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_manifest_of_another_model(tmp_path, name):
    folder = write_folder(tmp_path / "model", "onnx", num_outputs=7, labels=None)
    with pytest.raises(ValueError, match=r"\(5, 4\), expected \(5, 7\): vit_tf.json is of another model"):
        open_runtime(folder, runtime=name).run(random_images())
    for fields in (dict(output_names=["scores"]), dict(input_name="scores")):
        with pytest.raises(ValueError, match="vit_tf.json names 'scores': vit_tf.json is of another model"):
            open_runtime(folder, make_manifest(**fields), name)
