"""Images have their channels last, also where Keras's configuration says otherwise."""

import keras
import numpy as np
import pytest

import vit_tf
from vit_tf import build_vit
from vit_tf.data.augment import batch as augment
from vit_tf.preprocessing import Preprocessing

pytestmark = pytest.mark.every_backend

SETTINGS = Preprocessing((8, 12), mean=(0.1, 0.5, 0.4), std=(0.2, 0.3, 0.5), crop_fraction=0.8)
SMALL = dict(
    image_size=(8, 12), patch_size=4, num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=32, num_classes=3
)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype("float32")
LARGE = np.tile(IMAGES, (1, 4, 3, 1))[:, :, :32]


def build(**overrides):
    return build_vit("vit_b16", **{**SMALL, "include_preprocessing": SETTINGS, **overrides})


def predict(**overrides):
    model = build(**overrides)
    return model(IMAGES[..., :1] if overrides.get("in_channels") == 1 else IMAGES)


def reload(folder):
    path = folder / "model.keras"
    build().save(path)
    keras.config.set_image_data_format("channels_last")
    return keras.saving.load_model(path)(IMAGES)


AUGMENTATIONS = {
    "RandomFlip": {},
    "RandomCrop": dict(padding=2),
    "RandomAffine": dict(rotation=0.1, zoom=0.2),
    "Resize": dict(image_size=(5, 6)),
    "RandomColor": {},
    "RandomErasing": dict(probability=1.0),
}
RUNS = {  # name: function of a folder
    **{
        f"stem {stem}": lambda _, stem=stem: predict(patch_stem=stem)
        for stem in ("conv", "patches", "overlap", "whitened", "pooled", "resnet_d")
    },
    "stem resnet_v2": lambda _: predict(patch_stem="resnet_v2", stem_width=32, stem_blocks=(1,)),
    "stem mobileclip": lambda _: build(patch_stem="mobileclip", image_size=32, patch_size=16)(LARGE),
    "remainder": lambda _: build(image_size=(7, 11), patch_size=3, allow_remainder=True)(IMAGES[:, 1:, 1:]),
    "the variant's normalization": lambda _: predict(include_preprocessing=True),
    "one channel": lambda _: predict(include_preprocessing=True, in_channels=1),
    "preprocessing": lambda _: SETTINGS(IMAGES),
    "preprocessing layer": lambda _: SETTINGS.layer()(IMAGES),
    "normalization": lambda _: SETTINGS.normalization()(IMAGES),
    **{
        name: lambda _, name=name: getattr(augment, name)(**AUGMENTATIONS[name])(IMAGES, training=True)
        for name in AUGMENTATIONS
    },
    "a saved model": reload,
    "grad_cam": lambda _: vit_tf.grad_cam(build(), IMAGES, upsample=True),
    "patch_filters": lambda _: vit_tf.patch_filters(build()),
    "count_flops": lambda _: vit_tf.count_flops(build()).totals.flops,
}


@pytest.mark.fast_cases(4)
@pytest.mark.parametrize("name", RUNS)
def test_channels_first_changes_nothing(name, tmp_path):
    found = []
    for data_format in ("channels_last", "channels_first"):
        keras.utils.set_random_seed(3)
        keras.config.set_image_data_format(data_format)
        try:
            found.append(np.asarray(RUNS[name](tmp_path)))
        finally:
            keras.config.set_image_data_format("channels_last")
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-5)
    assert np.ptp(found[0]) > 0 or found[0].size == 1


def test_every_augmentation_layer_is_tried():
    layers = {
        name
        for name, value in vars(augment).items()
        if isinstance(value, type)
        and issubclass(value, keras.layers.Layer)
        and value.__module__ == augment.__name__
    }
    assert layers - {"RandomLayer"} == set(AUGMENTATIONS)
