import numpy as np
import pytest
from conftest import randomize
from support.layer_cases import TOKENS, random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


def test_gated_mlp_is_the_same_packed_and_split():
    packed, split = layers.GatedMLP(5), layers.GatedMLP(5, packed=False)
    packed.build(TOKENS), split.build(TOKENS)
    randomize(packed)
    kernel, bias, *rest = packed.get_weights()
    split.set_weights([kernel[:, :5], bias[:5], kernel[:, 5:], bias[5:], *rest])
    np.testing.assert_allclose(packed(random(TOKENS)), split(random(TOKENS)), atol=1e-6)
