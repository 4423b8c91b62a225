import keras
import pytest

from vit_tf import build_vit


@pytest.fixture(scope="module")
def vit_b16():
    with keras.StatelessScope(initialize_variables=False):
        return build_vit("vit_b16")
