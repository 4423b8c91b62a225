import numpy as np
import pytest

from vit_tf.data.augment.mixing import CutMix, MixUp, MixUpCutMix

SHAPE = (5, 12, 20, 3)  # an odd batch, not square


def batch(shape=SHAPE, dtype="uint8", num_classes=4):
    rng = np.random.default_rng(0)
    labels = np.eye(num_classes, dtype="float32")[rng.integers(0, num_classes, shape[0])]
    return rng.integers(0, 256, shape).astype(dtype), labels


def distinct_batch():
    """A batch whose first and last image differ in every pixel."""
    images, labels = batch()
    images[-1] = 255 - images[0]  # of no byte is this itself
    return images, labels


def drawn(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_mixup_is_the_weighted_mean_with_the_mirrored_batch(dtype):
    images, labels = batch(dtype=dtype)
    before = images.copy()
    mixed, targets = MixUp(0.8)(images, labels, drawn(1))
    weight = drawn(1).beta(0.8, 0.8)
    assert 0.05 < weight < 0.95  # else the two would hardly differ
    for i in range(5):
        # Three float32 roundings of values up to 255.
        np.testing.assert_allclose(mixed[i], weight * images[i] + (1 - weight) * images[4 - i], atol=1e-4)
        np.testing.assert_allclose(targets[i], weight * labels[i] + (1 - weight) * labels[4 - i], atol=1e-6)
    np.testing.assert_array_equal(images, before)


def test_cutmix_pastes_the_partner_and_weighs_by_area():
    images, labels = distinct_batch()
    before = images.copy()
    h, w = SHAPE[1:3]
    seen_areas = set()
    for seed in range(50):
        mixed, targets = CutMix(1.0)(images, labels, drawn(seed))
        rng = drawn(seed)  # the paper's equation 2, by hand
        side = np.sqrt(1 - rng.beta(1.0, 1.0))
        r_h, r_w = int(h * side), int(w * side)
        y, x = rng.integers(h), rng.integers(w)
        top, bottom = max(y - r_h // 2, 0), min(y - r_h // 2 + r_h, h)
        left, right = max(x - r_w // 2, 0), min(x - r_w // 2 + r_w, w)
        for i in range(5):
            expected = images[i].copy()
            expected[top:bottom, left:right] = images[4 - i][top:bottom, left:right]
            np.testing.assert_array_equal(mixed[i], expected)
        replaced = (mixed[0] != images[0]).any(-1)
        kept = 1 - replaced.sum() / (h * w)
        np.testing.assert_allclose(targets, kept * labels + (1 - kept) * labels[::-1], atol=1e-6)
        seen_areas.add(int(replaced.sum()))
    assert len(seen_areas) > 20 and min(seen_areas) < 0.1 * h * w < 0.6 * h * w < max(seen_areas)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    "mix", [MixUp(0.4), CutMix(1.0), MixUpCutMix(), MixUpCutMix(probability=0.0)], ids=str
)
def test_dtypes_and_label_sums(mix):
    images, labels = batch()
    for seed in range(10):
        mixed, targets = mix(images, labels, drawn(seed))
        assert mixed.shape == images.shape and mixed.dtype == targets.dtype == np.float32
        assert 0 <= mixed.min() and mixed.max() <= 255 + 1e-4  # float32 roundings
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
        assert targets.min() >= 0


@pytest.mark.parametrize("mix", [MixUp(0.8), CutMix(1.0), MixUpCutMix()], ids=str)
def test_a_batch_of_one_is_its_own_partner(mix):
    images, labels = batch((1, 3, 7, 1))
    for seed in range(5):
        mixed, targets = mix(images, labels, drawn(seed))
        np.testing.assert_allclose(mixed, images, atol=1e-4)
        np.testing.assert_allclose(targets, labels, atol=1e-6)


def kind(mix, images, labels, seed):
    """Tells what a mix did to a batch whose every pixel of the first image differs from its partner's."""
    mixed, _ = mix(images, labels, drawn(seed))
    kept = (mixed[0] == images[0]).all(-1)
    pasted = (mixed[0] == images[-1]).all(-1)
    return "none" if kept.all() else "cutmix" if (kept | pasted).all() else "mixup"


def test_mix_chooses_one_a_batch():
    images, labels = distinct_batch()
    kinds = [
        kind(MixUpCutMix(1.0, 1.0, probability=0.8, switch=0.25), images, labels, seed) for seed in range(400)
    ]
    shares = [kinds.count(name) / 400 for name in ("none", "cutmix", "mixup")]
    # Rectangles of no pixel, some 3 % of CutMix's, count as none: 0.2, 0.2 and 0.6, +- 4 deviations of 0.1.
    np.testing.assert_allclose(shares, [0.2, 0.2, 0.6], atol=0.1)
    assert {kind(MixUpCutMix(mixup=0), images, labels, seed) for seed in range(20)} <= {"cutmix", "none"}
    assert {kind(MixUpCutMix(cutmix=0), images, labels, seed) for seed in range(20)} <= {"mixup", "none"}


def test_the_same_generator_draws_the_same():
    images, labels = batch()
    first, second, other = (MixUpCutMix()(images, labels, drawn(seed)) for seed in (3, 3, 4))
    for one, same in zip(first, second):
        np.testing.assert_array_equal(one, same)
    assert np.abs(first[0] - other[0]).max() > 1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MixUp(0), "`alpha` must be a number above 0, got 0"),
        (lambda: CutMix(-1.0), "`alpha`"),
        (lambda: MixUpCutMix(mixup=-0.1), "`mixup`"),
        (lambda: MixUpCutMix(cutmix="1"), "`cutmix`"),
        (lambda: MixUpCutMix(0, 0), "must be above 0, got 0 for both"),
        (lambda: MixUpCutMix(probability=1.5), "`probability`"),
        (lambda: MixUpCutMix(switch=float("nan")), "`switch`"),
        (lambda: MixUp()(np.zeros((2, 4, 4, 3)), np.zeros(2), drawn(0)), r"labels \(b, k\)"),
        (lambda: CutMix()(np.zeros((4, 4, 3)), np.zeros((4, 2)), drawn(0)), r"images \(b, h, w, c\)"),
        (lambda: MixUpCutMix(probability=0)(np.zeros((2, 4, 4, 3)), np.zeros((3, 2)), drawn(0)), "of one b"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
