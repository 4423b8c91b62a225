import numpy as np
import pytest


@pytest.fixture(autouse=True)
def seeded():
    """Nothing here uses Keras, whose state takes longer to clear than most of these tests."""


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    return {
        "cls_token": rng.normal(size=(1, 1, 6)).astype("float32"),
        "blocks.0.weight": rng.normal(size=(6, 4)).astype("float32"),
        "scale": rng.normal(size=()).astype("float32"),
        "index": rng.integers(-9, 9, (5,)),
    }


@pytest.fixture
def torch():
    return pytest.importorskip("torch")
