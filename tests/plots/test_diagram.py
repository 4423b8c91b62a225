import keras
import pytest

from vit_tf import build_vit, count_flops, plots


def diagram_texts(model):
    return [text.get_text() for text in plots.model_diagram(model).axes[0].texts]


DISTILLED = "deit_tiny_distilled_patch16_224"


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize(
    "variant, overrides, expected",
    [
        ("vit_b16", dict(image_size=(64, 96)), ["block_0 to block_11", "12 heads of 64", "4×6 patches"]),
        (
            "vit_cifar10",
            {},
            ["block_0 to block_3", "convolutions of whitened pixels", "average of the"],
        ),
        (DISTILLED, dict(include_preprocessing=True), ["normalisation", "and the distillation token"]),
        ("vit_ti16", dict(block="parallel_things", num_registers=2), ["2 × attention", "2 registers"]),
        ("vit_ti16", dict(mlp="swiglu", attention="differential"), ["SwiGLU", "differential attention"]),
        (
            "vit_ti16",
            dict(pooling="map", patch_stem="patches", num_classes=0),
            ["a dense layer"],
        ),
    ],
)
def test_diagram(variant, overrides, expected):
    model = build_vit(variant, **overrides)
    found = [text.get_text() for text in plots.model_diagram(model).axes[0].texts]
    totals = count_flops(model).totals
    assert found[-2:] == [f"{totals.parameters:,}", f"{totals.macs:,}"]
    for text in expected:
        assert any(text in line for line in found), found
    assert sum(line.startswith("block_") for line in found) == 1


def test_diagram_has_a_box_for_what_it_does_not_know():
    vit = build_vit("vit_ti16", image_size=32, num_classes=0, num_layers=1, pre_norm=True)
    x = keras.layers.Dense(5, name="my_hidden")(vit.output)
    found = diagram_texts(keras.Model(vit.input, keras.layers.Dense(7, name="mine")(x)))
    assert {"pre norm", "my hidden", "mine"} <= set(found)
    assert found[found.index("mine") + 1 : found.index("mine") + 4] == ["7", "42", "35"]
