import pytest

from vit_tf.planning import measure_workload


@pytest.fixture(scope="package")
def vit_b16():
    return measure_workload("vit_base_patch16_224")
