from vit_tf.deploy.quantizers.candidates import NO_KERNEL, PRODUCTS, STEM, Candidate, Layer, float_layers


def test_what_stays_in_float():
    layers = [Layer("a", "dense", True), Layer("b", "convolution", False), Layer("c", "attention", False)]
    layers += [Layer("d", "convolution", False), Layer("e", "dense", False)]
    candidate = Candidate("", {}, {"convolution": STEM, "attention": PRODUCTS})
    assert float_layers(candidate, layers) == [
        {"kind": "convolution", "reason": STEM, "layers": ["b", "d"]},
        {"kind": "attention", "reason": PRODUCTS, "layers": ["c"]},
        {"kind": "dense", "reason": NO_KERNEL, "layers": ["e"]},
    ]
