"""Small models: for tests, for CIFAR-10, and the example of vit-pytorch's README."""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import GAP, LAYER_SCALE, MAP

VIT_PYTORCH = dict(
    patch_stem="patches", patch_norm=True, embedding_norm=True, qkv_bias=False, norm_epsilon=1e-5
)
DROPOUT = dict(dropout_rate=0.1, attention_dropout_rate=0.1)
TEST = dict(**LAYER_SCALE, num_registers=1)

FAMILIES = {
    # The Keras tutorial's model with a class token, and two of this package: four blocks behind two
    # convolutions, and one block behind five convolutions with max pooling.
    "CIFAR-10": {
        "vit_cifar10_tutorial": ViTConfig(72, 6, 64, 8, 4, 128, **DROPOUT, num_classes=10),
        "vit_cifar10": ViTConfig(
            32, 4, 192, 4, 6, 384, pooling="avg", patch_stem="whitened", activation="relu", num_classes=10
        ),
        "vit_cifar10_hybrid": ViTConfig(
            32, 4, 256, 1, 8, 512, pooling="avg", patch_stem="pooled", activation="relu", num_classes=10
        ),
    },
    # https://github.com/lucidrains/vit-pytorch
    "vit-pytorch": {
        "vit_pytorch": ViTConfig(256, 32, 1024, 6, 16, 2048, head_dim=64, **VIT_PYTORCH),
    },
    "test": {
        "test_vit": ViTConfig(160, 16, 64, 6, 2, 192),
        "test_vit2": ViTConfig(160, 16, 64, 8, 2, 192, **GAP, **TEST, final_norm="pooled"),
        "test_vit3": ViTConfig(160, 16, 96, 9, 3, 192, **MAP, **TEST, pool_prefix=True),
        "test_vit4": ViTConfig(160, 16, 96, 9, 3, 288, **GAP, **TEST, norm="rms", final_norm="pooled"),
    },
}
