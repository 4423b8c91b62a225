import keras
import pytest
from support.memory_errors import TINY

from vit_tf import build_vit, count_flops, layers, memory
from vit_tf.flops import require_memory, training_bytes
from vit_tf.flops.memory_estimate import least_bytes
from vit_tf.variants import get_variant, list_models

GB = 10**9


@pytest.mark.parametrize("name", [*list_models("test*"), "vit_base_patch16_siglip_256", "vit_cifar10"])
def test_the_lower_bound_is_one_and_near(name):
    with keras.StatelessScope(initialize_variables=False):
        parameters = build_vit(name).count_params()
    keras.utils.clear_session()
    assert 0.5 * parameters < get_variant(name).least_parameters <= parameters


def test_a_training_step_takes_more_than_the_bound():
    network = build_vit("vit_cifar10", **TINY)
    estimate = training_bytes(network, 8)
    trained = sum(keras.ops.size(variable.value) for variable in network.trainable_variables)
    weights = 4 * network.count_params() + 12 * int(trained)
    assert estimate == weights + count_flops(network, 8).totals.activation_bytes
    assert least_bytes(get_variant("vit_cifar10", **TINY), 8, True) < estimate
    network.trainable = False
    assert training_bytes(network, 8) == 4 * network.count_params()


def test_a_gated_mlp_keeps_as_much_in_two_matrices_as_in_one():
    """The gate, the value and their product."""
    kept = []
    for packed in (True, False):
        x = keras.Input((5, 8))
        mlp = layers.GatedMLP(16, packed=packed)
        rows = count_flops(keras.Model(x, mlp(x)), 2).totals
        kept.append(rows.activation_bytes)
    assert kept[0] == kept[1] == 4 * 2 * 5 * (3 * 16 + 8)


@pytest.mark.parametrize(
    "options, batch_size, trains_blocks, is_refused",
    [
        (dict(image_size=224), 64, True, False),
        (dict(image_size=100_000), 1, False, True),
        (dict(image_size=(16, 10**9)), 1, False, True),
        (dict(num_layers=10**6), 1, False, True),
        (dict(hidden_dim=12 * 10**6), 1, False, True),
        (dict(num_classes=10**9), 1, False, True),
        (dict(image_size=4992), 8, False, False),
        (dict(image_size=4992), 64, True, True),
    ],
)
def test_what_cannot_fit_is_refused(options, batch_size, trains_blocks, is_refused, monkeypatch):
    monkeypatch.setattr("vit_tf.flops.memory_estimate.total_memory", lambda: 24 * GB)
    if not is_refused:
        return require_memory("vit_base_patch16_224", options, batch_size, trains_blocks)
    with pytest.raises(memory.OutOfMemory, match="needs at least [0-9,.]+ GB .* this machine has 24.0 GB"):
        require_memory("vit_base_patch16_224", options, batch_size, trains_blocks)
