import numpy as np
import pytest
from PIL import Image

from vit_tf.data.augment.image import (
    Compose,
    EvalTransform,
    HorizontalFlip,
    RandomErasing,
    RandomResizedCrop,
    as_array,
    as_image,
)
from vit_tf.data.augment.randaugment import OPERATIONS, RandAugment
from vit_tf.preprocessing.transform import Preprocessing


def drawn(seed):
    return np.random.default_rng(seed)


def array(h=30, w=40, c=3):
    return np.random.default_rng(0).integers(0, 256, (h, w, c), "uint8")


def photo(h=30, w=40):
    """A smooth image of all colours."""
    return Image.fromarray(array(4, 5)).resize((w, h), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("h, w", [(375, 500), (40, 31), (7, 5)])
def test_rectangles_lie_within_the_image(h, w):
    crop = RandomResizedCrop(8)
    for seed in range(300):
        top, left, height, width = crop.rectangle(h, w, drawn(seed))
        assert top >= 0 and left >= 0 and height >= 1 and width >= 1
        assert top + height <= h and left + width <= w


def test_areas_and_ratios_of_crops_are_uniform():
    crop = RandomResizedCrop(8, scale=(0.1, 0.5))  # of which every rectangle fits into a square
    generator = drawn(0)
    rectangles = np.array([crop.rectangle(1000, 1000, generator) for _ in range(4000)])
    top, left, height, width = rectangles.T
    # Deciles of 4,000 draws of a uniform variable deviate by at most 0.008; four of those.
    deciles = np.arange(0.1, 1, 0.1)
    area = (height * width / 1e6 - 0.1) / 0.4
    ratio = (np.log(width / height) - np.log(3 / 4)) / (np.log(4 / 3) - np.log(3 / 4))
    place = top / (1000 - height)
    for values in (area, ratio, place, left / (1000 - width)):
        np.testing.assert_allclose(np.quantile(values, deciles), deciles, atol=0.032)
    assert abs(np.corrcoef(area, ratio)[0, 1]) < 0.064  # four deviations


@pytest.mark.parametrize("h, w, expected", [(100, 900, (100, 133)), (900, 100, (133, 100)), (1, 9, (1, 1))])
def test_the_largest_centred_rectangle_when_none_fits(h, w, expected):
    top, left, height, width = RandomResizedCrop(8, scale=(1, 1)).rectangle(h, w, drawn(0))
    assert (height, width) == expected
    assert (top, left) == ((h - height) // 2, (w - width) // 2)


def test_crop_is_a_resize_of_its_rectangle():
    crop = RandomResizedCrop((6, 10), interpolation="box")
    # By Pillow's box filter an enlargement repeats pixels: each is found by its centre.
    source = array(5, 7)
    for seed in range(10):
        result = crop(source, drawn(seed))
        assert isinstance(result, Image.Image) and result.size == (10, 6)
        top, left, height, width = crop.rectangle(5, 7, drawn(seed))
        rows = top + ((np.arange(6) + 0.5) * height / 6).astype(int)
        columns = left + ((np.arange(10) + 0.5) * width / 10).astype(int)
        np.testing.assert_array_equal(result, source[rows[:, None], columns])


def test_whole_photo_is_pillows_bicubic():
    whole = RandomResizedCrop((12, 16), scale=(1, 1), ratio=(4 / 3, 4 / 3))(photo(), drawn(0))
    np.testing.assert_array_equal(whole, photo().resize((16, 12), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("make", [array, photo], ids=["array", "photo"])
def test_flip_mirrors_as_often_as_told(make):
    source = make()
    mirrored = 0
    for seed in range(200):
        flipped = HorizontalFlip(0.25)(source, drawn(seed))
        assert type(flipped) is type(source)
        is_mirrored = (np.asarray(flipped) == np.asarray(source)[:, ::-1]).all()
        assert is_mirrored or (np.asarray(flipped) == np.asarray(source)).all()
        mirrored += is_mirrored
    assert 25 < mirrored < 75  # four deviations of 6.1
    np.testing.assert_array_equal(HorizontalFlip(1)(source, drawn(0)), np.asarray(source)[:, ::-1])


def test_erasing_draws_rectangles_of_noise():
    source = np.full((100, 160, 3), 77, "uint8")
    areas, ratios, values = [], [], []
    for seed in range(300):
        erased = RandomErasing(1.0)(source, drawn(seed))
        changed = (erased != 77).any(-1)  # a pixel of noise is all 77 once in 16 million
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert changed.sum() == h * w
        areas.append(h * w / source[..., 0].size)
        ratios.append(h / w)
        values.append(erased[changed].astype(float).mean())
    # Sides are rounded to pixels: the smallest rectangle, of 10 x 33, by up to 1 / 20.
    assert 0.02 * 0.95 < min(areas) < 0.04 and 0.3 < max(areas) < 1.05 / 3
    assert 0.3 * 0.95 < min(ratios) < 0.5 and 2 < max(ratios) < 3.3 * 1.05
    # The mean of [0.02, 1/3] is 0.177; those that do not fit, being large, are drawn again.
    assert 0.14 < np.mean(areas) < 0.2
    assert abs(np.mean(values) - 127.5) < 1
    assert (source == 77).all()


def test_erasing_is_as_often_as_told_and_needs_room():
    source = array()
    erased = [(RandomErasing(0.3)(source, drawn(seed)) != source).any() for seed in range(200)]
    assert 34 < sum(erased) < 86  # four deviations of 6.5
    np.testing.assert_array_equal(RandomErasing(0)(source, drawn(0)), source)
    tall = RandomErasing(1, area=(1, 1), ratio=(3, 3))  # never fits
    np.testing.assert_array_equal(tall(source, drawn(0)), source)


def test_eval_transform_is_preprocessing_without_normalisation():
    settings = Preprocessing((16, 24), crop_fraction=0.875)
    pixels = EvalTransform(settings)(photo(), None)
    assert pixels.dtype == np.uint8 and pixels.shape == (16, 24, 3)
    normalised = (pixels.astype("float32") / 255 - 0.5) / 0.5
    np.testing.assert_allclose(settings(photo())[0], normalised, atol=1e-6)


def test_compose_applies_in_order_and_returns_bytes():
    transform = Compose([RandomResizedCrop((8, 6)), HorizontalFlip(1)])
    pixels = transform(photo(), drawn(5))
    assert pixels.dtype == np.uint8 and pixels.shape == (8, 6, 3)
    expected = np.asarray(RandomResizedCrop((8, 6))(photo(), drawn(5)))[:, ::-1]
    np.testing.assert_array_equal(pixels, expected)
    np.testing.assert_array_equal(Compose([])(photo(), drawn(0)), photo())


def test_images_and_arrays():
    gray, colour, alpha = array(c=1), array(), array(c=4)
    np.testing.assert_array_equal(as_image(gray), np.repeat(gray, 3, axis=2))
    np.testing.assert_array_equal(as_image(colour), colour)
    np.testing.assert_array_equal(as_image(alpha), alpha[..., :3])
    np.testing.assert_array_equal(as_array(Image.fromarray(gray[..., 0])), np.repeat(gray, 3, axis=2))
    assert as_array(colour) is colour


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_grow_with_severity(name):
    source = photo()
    difference = []
    for severity in (0, 0.3, 0.9):
        result = OPERATIONS[name](source, severity, Image.Resampling.BICUBIC)
        assert result.size == source.size and result.mode == "RGB"
        difference.append(np.abs(np.asarray(result, float) - np.asarray(source)).mean())
    if name in ("AutoContrast", "Equalize", "Invert"):  # have no magnitude
        assert difference[0] == difference[1] == difference[2] > 1
    else:
        assert (difference[0] == 0) == (name != "Posterize")
        assert difference[0] < difference[1] < difference[2]


def test_directions_of_operations():
    source = photo(31, 31)
    near = Image.Resampling.NEAREST
    # To the right by 0.45 * 2/3 of 31 pixels, 9.3, and back; what comes in is grey.
    moved = np.asarray(OPERATIONS["TranslateX"](source, -2 / 3, near))
    np.testing.assert_array_equal(moved[:, 10:], np.asarray(source)[:, 1:-9][:, : moved.shape[1] - 10])
    np.testing.assert_array_equal(moved[:, :9], np.full((31, 9, 3), 128))


@pytest.mark.parity
def test_operations_are_timms(monkeypatch):
    auto_augment = pytest.importorskip("timm.data.auto_augment")
    increasing = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
    theirs = {name: f"{name}Increasing" for name in increasing}
    theirs |= {name: f"{name}Rel" for name in ("TranslateX", "TranslateY")}
    assert sorted(theirs.get(name, name) for name in OPERATIONS) == sorted(
        auto_augment._RAND_INCREASING_TRANSFORMS
    )
    settings = {"img_mean": (128, 128, 128), "interpolation": Image.Resampling.BICUBIC}
    for sign in (1, -1):
        monkeypatch.setattr(auto_augment, "_randomly_negate", lambda value, sign=sign: sign * value)
        for name, operation in OPERATIONS.items():
            for magnitude in (0, 3, 9, 9.6):
                expected = auto_augment.AugmentOp(theirs.get(name, name), 1, magnitude, settings)(photo())
                result = operation(photo(), sign * magnitude / 10, Image.Resampling.BICUBIC)
                np.testing.assert_array_equal(result, expected, err_msg=f"{name} {magnitude}")


def test_randaugment_is_a_function_of_the_generator():
    source = photo()
    augment = RandAugment(probability=1)
    results = [np.asarray(augment(source, drawn(seed))) for seed in range(30)]
    for seed in (0, 7):
        np.testing.assert_array_equal(augment(source, drawn(seed)), results[seed])
    assert all(result.shape == (30, 40, 3) for result in results)
    assert len({result.tobytes() for result in results}) > 25
    changed = [(result != np.asarray(source)).any() for result in results]
    assert np.mean(changed) > 0.9
    np.testing.assert_array_equal(augment(np.asarray(source), drawn(3)), results[3])


def recorded(monkeypatch, augment, calls):
    """Returns [(name, severity)] of all operations that `augment` applies in some calls."""
    applied = []

    def recorder(name):
        return lambda image, severity, _: applied.append((name, severity)) or image

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, recorder(name))
    generator = drawn(0)
    for _ in range(calls):
        augment(photo(2, 2), generator)
    return applied


def test_randaugment_draws_operations_magnitudes_and_directions(monkeypatch):
    applied = recorded(monkeypatch, RandAugment(3, 6, 0.5, probability=0.5), calls=2000)
    assert abs(len(applied) - 3000) < 4 * 39  # four deviations of the binomial
    names, severities = zip(*applied)
    counts = np.array([names.count(name) for name in OPERATIONS])
    assert np.all(np.abs(counts - len(applied) / 15) < 4 * 14)
    magnitudes = 10 * np.abs(severities)
    assert abs(magnitudes.mean() - 6) < 0.04 and abs(magnitudes.std() - 0.5) < 0.03
    assert abs(np.mean(np.sign(severities))) < 0.08


def test_magnitudes_are_clipped(monkeypatch):
    applied = recorded(monkeypatch, RandAugment(2, 10, 3.0, probability=1), calls=50)
    assert max(abs(severity) for _, severity in applied) == 1
    assert len(applied) == 100
    assert recorded(monkeypatch, RandAugment(0), calls=5) == []


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomResizedCrop(0), "`image_size`"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.2)), "`scale` must be two numbers, 0 < lowest"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.2)), "`scale`"),
        (lambda: RandomResizedCrop(8, scale=0.5), "`scale`"),
        (lambda: RandomResizedCrop(8, ratio=(0, 1)), "`ratio`"),
        (lambda: RandomResizedCrop(8, interpolation="cubic"), "`interpolation` must be one of"),
        (lambda: HorizontalFlip(1.1), "`probability` must be a number in"),
        (lambda: RandomErasing(-0.1), "`probability`"),
        (lambda: RandomErasing(area=(0, 0.5)), "`area`"),
        (lambda: RandomErasing(ratio=(3, 0.3)), "`ratio`"),
        (lambda: EvalTransform(224), "`preprocessing` must be a result of"),
        (lambda: Compose([HorizontalFlip(), "flip"]), "must be callables"),
        (lambda: RandAugment(num_ops=-1), "`num_ops`"),
        (lambda: RandAugment(magnitude=11), "`magnitude` must be a number in"),
        (lambda: RandAugment(magnitude_std=-1), "`magnitude_std`"),
        (lambda: RandAugment(probability=2), "`probability`"),
        (lambda: Compose([])(b"JPEG", drawn(0)), "got bytes: decode files first"),
        (lambda: RandAugment()(array().astype("float32"), drawn(0)), "got float32 of shape"),
        (lambda: RandomErasing()(array(c=2), drawn(0)), r"got uint8 of shape \(30, 40, 2\)"),
        (lambda: as_image(array()[0]), "1, 3 or 4 channels"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
