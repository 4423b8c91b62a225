import keras
import numpy as np
import pytest
from conftest import randomize

import vit_tf
from vit_tf import build_vit
from vit_tf.training.lora import add_lora, merge_lora

pytestmark = pytest.mark.every_backend

ALL = ("qkv", "projection", "fc1", "fc2")
KINDS = {  # hyperparameters, and the names of the layers that can be adapted in each block
    "encoder": (dict(), ["attention/qkv", "attention/projection", "mlp/fc1", "mlp/fc2"]),
    "res_post, two inner matrices": (
        dict(block="res_post", mlp="swiglu_split"),
        ["attention/qkv", "attention/projection", "mlp/fc1_gate", "mlp/fc1_value", "mlp/fc2"],
    ),
    "parallel things": (
        dict(block="parallel_things"),
        [f"{a}_{i}/{b}" for a, b in zip(["attention"] * 2 + ["mlp"] * 2, ALL) for i in (0, 1)],
    ),
    "parallel scaling": (
        dict(block="parallel_scaling"),
        ["in_projection", "attention_projection", "mlp_projection"],
    ),
    "fused": (
        dict(block="parallel_scaling", attention="differential"),
        ["in_projection", "out_projection"],
    ),
}


def tiny_vit(**overrides):
    small = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16)
    return build_vit("vit_cifar10", **{**small, "patch_stem": "conv", "num_classes": 3, **overrides})


def images(n=3):
    return np.random.default_rng(5).normal(size=(n, 8, 8, 3)).astype("float32")


def numpy(x):
    return np.array(keras.ops.convert_to_numpy(x))


def randomize_adapters(layers):
    rng = np.random.default_rng(6)
    for layer in layers:
        for variable in (layer.lora_kernel_a, layer.lora_kernel_b):
            variable.assign(rng.normal(0, 0.5, variable.shape))


@pytest.fixture(scope="module")
def plain():
    """A model that nothing is added to."""
    return tiny_vit()


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_start_at_nothing_and_are_merged_into_the_kernels(kind):
    overrides, names = KINDS[kind]
    vit = randomize(tiny_vit(**overrides))
    paths, start = [v.path for v in vit.weights], [numpy(v.value) for v in vit.weights]
    logits = numpy(vit(images()))

    layers = add_lora(vit, rank=2, alpha=6, on=ALL)
    np.testing.assert_array_equal(numpy(vit(images())), logits)
    adapters = {f"block_0/{name}/lora_kernel_{side}" for name in names for side in "ab"}
    assert {v.path for v in vit.trainable_variables} == adapters | {"head/kernel", "head/bias"}
    assert len(layers) == len(names)

    randomize_adapters(layers)
    adapted = numpy(vit(images()))
    assert np.abs(adapted - logits).max() > 0.1
    expected = dict(zip(paths, start))
    for layer in layers:
        a, b = (numpy(v.value).astype("float64") for v in (layer.lora_kernel_a, layer.lora_kernel_b))
        expected[layer.path + "/kernel"] = expected[layer.path + "/kernel"] + 6 / 2 * a @ b

    assert merge_lora(vit) == len(names)
    assert not any("lora_rank" in layer.get_config() for layer in layers)
    assert [v.path for v in vit.weights] == [v.path for v in vit.trainable_variables] == paths
    for variable in vit.weights:  # sums of numbers of about one, in float32
        np.testing.assert_allclose(numpy(variable.value), expected[variable.path], rtol=0, atol=1e-6)
    np.testing.assert_allclose(numpy(vit(images())), adapted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_merged_model_is_saved_and_loaded_as_any_other(tmp_path):
    vit = randomize(tiny_vit())
    vit.predict(images(), verbose=0)  # compiled before there were adapters
    randomize_adapters(add_lora(vit, rank=2))
    adapted = numpy(vit(images()))
    np.testing.assert_allclose(vit.predict(images(), verbose=0), adapted, rtol=0, atol=1e-5)
    merge_lora(vit)
    np.testing.assert_allclose(vit.predict(images(), verbose=0), adapted, rtol=0, atol=1e-5)
    vit_tf.save_weights(vit, tmp_path / "vit.safetensors")
    vit.save_weights(tmp_path / "vit.weights.h5")
    vit.save(tmp_path / "vit.keras")
    again = [tiny_vit(weights=tmp_path / name) for name in ("vit.safetensors", "vit.weights.h5")]
    for model in (*again, keras.saving.load_model(tmp_path / "vit.keras")):
        np.testing.assert_allclose(numpy(model(images())), adapted, rtol=0, atol=1e-5)
        assert [v.path for v in model.weights] == [v.path for v in vit.weights]


@pytest.mark.slow
def test_a_compiled_function_around_it_outlives_the_merge():
    """The adapter must not be added a second time."""
    vit = randomize(tiny_vit())
    randomize_adapters(add_lora(vit, rank=2))
    around = keras.Sequential([vit])
    adapted = around.predict(images(), verbose=0)
    merge_lora(vit)
    np.testing.assert_allclose(around.predict(images(), verbose=0), adapted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_training_changes_adapters_and_head_alone():
    vit = randomize(tiny_vit())
    randomize_adapters(add_lora(vit, rank=2))
    trained = [v.path for v in vit.trainable_variables]
    before = {v.path: numpy(v.value) for v in vit.weights}
    vit.compile("sgd", "mse")
    vit.fit(images(), np.ones((3, 3), "float32"), verbose=0)
    changed = [v.path for v in vit.weights if (numpy(v.value) != before[v.path]).any()]
    assert sorted(changed) == sorted(trained)
    assert len(trained) == 2 * 2 + 2


@pytest.mark.slow
def test_defaults_and_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    vit = randomize(tiny_vit(num_layers=2))
    logits = numpy(vit(images()))
    layers = add_lora(vit)
    assert [layer.name for layer in layers] == ["qkv", "projection"] * 2
    assert {(layer.lora_rank, layer.lora_alpha) for layer in layers} == {(8, 8)}
    np.testing.assert_array_equal(numpy(vit(images())), logits)
    randomize_adapters(layers)
    layer = layers[0]
    adapter = numpy(layer.lora_kernel_a.value) @ numpy(layer.lora_kernel_b.value)
    expected = numpy(layer._kernel.value) + adapter
    merge_lora(vit)
    # The kernels are float32, and the adapters must not be rounded to bfloat16 (1e-2) on the way.
    np.testing.assert_allclose(numpy(layer.kernel.value), expected, rtol=0, atol=1e-5)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "options, message",
    [
        (dict(rank=0), "`rank` must be a positive int, got 0"),
        (dict(rank=2.0), "`rank` must be a positive int"),
        (dict(rank=True), "`rank` must be a positive int"),
        (dict(rank=9), r"at most 8, the smaller side of block_0/attention/qkv/kernel \(8, 24\), got 9"),
        (dict(rank=2, alpha=0), "`alpha` must be a positive number or None"),
        (dict(rank=2, alpha="4"), "`alpha` must be a positive number or None"),
        (dict(rank=2, on=("qvk",)), r"`on` must be one of .* got 'qvk' \(did you mean 'qkv'\?\)"),
        (dict(rank=2, on=("head",)), "`on` must be one of"),
        (dict(rank=2, on=()), "names no projection"),
    ],
)
def test_bad_options(plain, options, message):
    with pytest.raises(ValueError, match=message):
        add_lora(plain, **options)
    assert plain.trainable_variables == plain.weights


def test_adapters_come_once_and_are_there_to_merge(plain):
    with pytest.raises(ValueError, match="no LoRA adapters to merge"):
        merge_lora(plain)
    vit = tiny_vit()
    add_lora(vit, rank=2, on="fc1")
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        add_lora(vit, rank=2, on="qkv")
    with pytest.raises(ValueError, match="no encoder blocks"):
        add_lora(keras.Sequential([vit]))
    with pytest.raises(ValueError, match="no encoder blocks"):
        merge_lora(keras.Sequential([vit]))
