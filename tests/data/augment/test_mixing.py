import numpy as np
import pytest

from vit_tf.data.augment.mixing import CutMix, MixUp, MixUpCutMix, blend, draw_mixing

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
        kind(MixUpCutMix(1.0, 1.0, probability=0.8, switch_prob=0.25), images, labels, seed)
        for seed in range(400)
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


@pytest.mark.parametrize("compiled", [False, True])
def test_each_image_is_blended_by_its_own_draw(compiled):
    """NumPy's arrays as they are, and those of JAX within a compiled function."""
    blended = pytest.importorskip("jax").jit(blend) if compiled else blend
    rng = np.random.default_rng(0)
    b, h, w = 5, 6, 8
    images = rng.uniform(0, 255, (b, h, w, 3)).astype("float32")
    labels = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1]]
    mixing = {"kept": np.array([1, 0.3, 1, 1, 0.9], "float32")}
    mixing |= {"top": np.array([0, 0, 1, 2, 0]), "bottom": np.array([0, 0, 4, 2, 0])}
    mixing |= {"left": np.array([0, 0, 3, 0, 0]), "right": np.array([0, 0, 8, 4, 0])}
    x, y = map(np.asarray, blended(images, labels, mixing))
    expected = images.copy()
    expected[1] = 0.3 * images[1] + 0.7 * images[3]
    expected[2, 1:4, 3:8] = images[2, 1:4, 3:8]  # its own partner
    expected[4] = 0.9 * images[4] + 0.1 * images[0]
    np.testing.assert_allclose(x, expected, atol=1e-4)  # float32 of 255
    np.testing.assert_allclose(y[[0, 3]], labels[[0, 3]])  # nothing, and an empty rectangle
    np.testing.assert_allclose(y[1], [0.7, 0.3, 0], atol=1e-6)
    mixing["bottom"][0] = h  # a rectangle of two columns
    mixing["right"][0] = 2
    x, y = map(np.asarray, blended(images, labels, mixing))
    np.testing.assert_allclose(x[0, :, :2], images[4, :, :2])
    np.testing.assert_allclose(x[0, :, 2:], images[0, :, 2:])
    np.testing.assert_allclose(y[0], [0.75, 0.25, 0], atol=1e-6)
    assert blend(images, labels, None)[0] is images


@pytest.mark.slow
@pytest.mark.parametrize("mixup, cutmix", [(0.4, 0), (0.4, 1.0)])
def test_draws_for_each_image(mixup, cutmix):
    jax = pytest.importorskip("jax")
    n, h, w = 4000, 10, 20
    mix = MixUpCutMix(mixup, cutmix, probability=0.8)
    drawn = jax.jit(lambda key: draw_mixing(mix, key, (n,), (h, w)))(jax.random.key(0))
    kept, top, bottom, left, right = (
        np.asarray(drawn[k]) for k in ("kept", "top", "bottom", "left", "right")
    )
    assert (
        (0 <= top).all()
        and (top <= h).all()
        and (bottom <= h).all()
        and (left >= 0).all()
        and (right <= w).all()
    )
    area = np.clip(bottom - top, 0, None) * np.clip(right - left, 0, None)
    is_blended, is_cut = kept < 1, area > 0
    assert not (is_blended & is_cut).any()
    both = bool(mixup and cutmix)
    # Standard errors are below 0.01; Beta(0.4, 0.4) rounds some weights to 1, and some rectangles are empty.
    np.testing.assert_allclose(is_blended.mean(), (0.4 if both else 0.8) if mixup else 0, atol=0.04)
    np.testing.assert_allclose(is_cut.mean(), (0.4 if both else 0.8) if cutmix else 0, atol=0.08)
    if mixup:  # mean and variance of Beta(a, a)
        np.testing.assert_allclose(kept[is_blended].mean(), 0.5, atol=0.03)
        np.testing.assert_allclose(kept[is_blended].var(), 1 / (4 * (2 * mixup + 1)), atol=0.02)
    if cutmix:  # the side is sqrt(1 - Beta(1, 1)), whose mean is 2/3; every third centre cuts it off
        assert 0.35 < ((right - left)[is_cut] / w).mean() < 0.67
    assert draw_mixing(None, jax.random.key(0), (n,), (h, w)) is None


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: MixUp(0), "`alpha` must be a positive number, got 0"),
        (lambda: CutMix(-1.0), "`alpha`"),
        (lambda: MixUpCutMix(mixup=-0.1), "`mixup`"),
        (lambda: MixUpCutMix(cutmix="1"), "`cutmix`"),
        (lambda: MixUpCutMix(0, 0), "must be positive, got 0 for both"),
        (lambda: MixUpCutMix(probability=1.5), "`probability`"),
        (lambda: MixUpCutMix(switch_prob=float("nan")), "`switch_prob`"),
        (lambda: MixUp()(np.zeros((2, 4, 4, 3)), np.zeros(2), drawn(0)), r"labels \(b, k\)"),
        (lambda: CutMix()(np.zeros((4, 4, 3)), np.zeros((4, 2)), drawn(0)), r"images \(b, h, w, c\)"),
        (
            lambda: MixUpCutMix(probability=0)(np.zeros((2, 4, 4, 3)), np.zeros((3, 2)), drawn(0)),
            "with the same b",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
