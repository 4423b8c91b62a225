import keras
import pytest

from vit_tf import build_vit, count_flops
from vit_tf.planning import measure_workload
from vit_tf.planning.workload import describe
from vit_tf.variants import get_variant


def test_vit_b16_costs_what_is_published(vit_b16):
    assert vit_b16.parameters == 86_567_656  # timm
    assert vit_b16.forward_flops == 33_465_790_464 + 1_430_654_976 + 231_211_008  # TensorFlow's profiler
    assert vit_b16.training_flops() == 105_382_969_344  # three forward passes
    assert vit_b16.training_flops(remat=True) == 4 * vit_b16.forward_flops
    assert (vit_b16.num_heads, vit_b16.num_blocks, vit_b16.head_width) == (12, 12, 64)
    assert vit_b16.tokens == 197 * 768 and vit_b16.pixels == 224 * 224 * 3


def test_activations_are_those_of_each_block(vit_b16):
    n, d, blocks = 197, 768, 12
    assert vit_b16.scores == blocks * 2 * 12 * n * n
    assert vit_b16.hidden == blocks * 2 * n * 4 * d
    assert vit_b16.heads == blocks * 4 * n * d
    assert vit_b16.whole == blocks * 4 * n * d + n * d  # both branches, both norms; the last norm


@pytest.mark.parametrize("name", ["test_vit", "vit_tiny_patch16_224", "vit_large_patch16_224"])
def test_model_parallelism_splits_the_matrices(name):
    workload = measure_workload(name)
    assert workload.parameters_per_device(1) == workload.parameters
    half = workload.parameters_per_device(2)
    assert workload.parameters / 2 < half < 0.6 * workload.parameters


@pytest.mark.parametrize("name", ["test_vit", "vit_small_patch16_224", "vit_medium_patch16_reg4_gap_256"])
def test_parts_sum_up_to_the_count(name):
    with keras.StatelessScope(initialize_variables=False):
        model = build_vit(name)
        workload, totals = describe(model, get_variant(name)), count_flops(model).totals
    keras.utils.clear_session()
    parts = workload.scores + workload.hidden + workload.heads + workload.whole + workload.outside
    assert 4 * parts == totals.activation_bytes
    assert (workload.parameters, workload.forward_flops) == (totals.parameters, totals.flops)
