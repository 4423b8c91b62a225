"""Plots of models and of their inside show the numbers that were given to them."""

import numpy as np
import pytest
from support.figures import texts

from vit_tf import plots

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 8, 12, 3)).astype("uint8")


def titles(figure):
    return [text for text in texts(figure) if text]


def images_in(figure):
    return [image for axes in figure.axes for image in axes.get_images()]


@pytest.mark.slow
def test_attention_heads(tmp_path):
    maps = RNG.random((5, 2, 3)).astype("float32")
    figure = plots.attention_heads(IMAGES[0], maps, "block_3")
    assert titles(figure)[:2] == ["block_3", "image"]
    assert f"head 4, up to {maps[4].max():.1%}" in texts(figure)
    drawn = [image.get_array() for image in images_in(figure) if image.get_array().shape == (2, 3)]
    np.testing.assert_array_equal(drawn, maps)
    assert len(figure.axes) == 8 and sum(bool(axes.get_images()) for axes in figure.axes) == 6
    plots.save(figure, tmp_path / "heads.png")


@pytest.mark.slow
def test_maps_cover_the_whole_image(tmp_path):
    maps = {"a": RNG.random((3, 2, 3)), "b": RNG.random((3, 4, 6))}
    figure = plots.saliency_maps(IMAGES, maps, ["x", "y", "$z"], "maps")
    assert titles(figure) == ["maps", *"xab", *"yab", "$z", *"ab"]
    heat = images_in(figure)[2]  # the first image, its grey copy, the map
    np.testing.assert_allclose(heat.get_array(), maps["a"][0], rtol=1e-6)
    assert tuple(heat.get_extent()) == (-0.5, 11.5, 7.5, -0.5)
    plots.save(figure, tmp_path / "maps.png")
    assert texts(plots.saliency_maps(IMAGES[:1, ..., :1], maps["a"][:1], ["x"], "one"))[0] == "one"


def test_attention_distances():
    distances = RNG.random((4, 3)) * 20
    axes = plots.attention_distances(distances, "far", side=32).axes[0]
    heads = [line.get_ydata() for line in axes.get_lines() if line.get_linestyle() == "None"]
    np.testing.assert_array_equal(heads, distances.T)
    (mean,) = [line.get_ydata() for line in axes.get_lines() if line.get_linestyle() != "None"]
    np.testing.assert_allclose(mean, distances.mean(1))
    assert axes.get_ylim() == (0, 32)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one head", "mean of the heads"]


def test_position_similarities():
    similarity = RNG.random((3, 8, 3, 8))
    (tiles,) = images_in(plots.position_similarities(similarity, "positions", most=4))[:1]
    array = np.ma.filled(tiles.get_array(), np.nan)
    assert array.shape == (3 * 4 - 1, 4 * 9 - 1)
    np.testing.assert_array_equal(array[:3, :8], similarity[0, 0])
    np.testing.assert_array_equal(array[-3:, -8:], similarity[2, 7])
    assert np.isnan(array[3]).all()
    (tiles,) = images_in(plots.position_similarities(similarity[:, :2, :, :2], "small"))[:1]
    assert tiles.get_array().shape == (3 * 10 - 1, 2 * 7 - 1)  # maps of 9 x 6 pixels, gaps of one


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (4, 12)])
def test_labels_of_positions_are_inside_the_figure(grid):
    figure = plots.position_similarities(2 * RNG.random(grid * 2) - 1, "positions")
    figure.draw_without_rendering()
    axes, bar = figure.axes
    for label in (axes.xaxis.label, axes.yaxis.label, bar.yaxis.label):
        box = label.get_window_extent()
        assert min(box.x0, box.y0) > 0 and box.x1 < figure.bbox.x1 and box.y1 < figure.bbox.y1


@pytest.mark.parametrize("k, channels", [(1, 3), (9, 3), (8, 1)])
def test_filters(k, channels):
    values = RNG.normal(size=(k, 2, 4, channels))
    (tiles,) = images_in(plots.filters(values, "filters"))
    array = tiles.get_array()
    assert array.min() >= 0 and array.max() <= 1 and array.shape[-1] == 3
    scaled = 0.5 + 0.5 * values[0] / np.abs(values[0]).max()
    np.testing.assert_allclose(array[:2, :4], np.broadcast_to(scaled, (2, 4, 3)))


def test_feature_colours_and_similarities(tmp_path):
    colours = RNG.random((3, 2, 3, 3))
    shown = images_in(plots.feature_colours(IMAGES, colours, "features"))
    np.testing.assert_array_equal([x.get_array() for x in shown if x.get_array().shape == (2, 3, 3)], colours)
    figure = plots.similarity_matrix(RNG.random((2, 3)), "ab", ["block_0", "b", "c"], "CKA")
    assert len(figure.axes[0].texts) == 6 and "CKA" in texts(figure)
    plots.save(figure, tmp_path / "cka.pdf")


def test_long_captions_are_cut_in_their_middle():
    long = f"{'n' * 99}.jpg\nStaffordshire bullterrier 91%"
    for figure in (
        plots.saliency_maps(IMAGES[:1], RNG.random((1, 2, 3)), [long], "t"),
        plots.image_grid(IMAGES[:1], [long], "t"),
        plots.feature_colours(IMAGES[:1], RNG.random((1, 2, 3, 3)), "t", [long]),
    ):
        (caption,) = [text for text in texts(figure) if text.startswith("nnn")]
        name, label = caption.split("\n")
        assert "..." in name and name.endswith(".jpg") and len(name) <= 35 and label.endswith("91%")


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: plots.saliency_maps(IMAGES / 255, np.ones((3, 2, 2)), "abc", "t"),
            r"in \[0, 255\], got 0 to 1: conv",
        ),
        (lambda: plots.image_grid(IMAGES - 128.0, "abc", "t"), r"got -128 to 127"),
        (lambda: plots.attention_heads(IMAGES[0] * np.nan, np.ones((2, 2, 2)), "t"), "got nan to nan"),
        (
            lambda: plots.feature_colours(IMAGES, np.ones((3, 2, 2, 3)), "t", "ab"),
            "expected 3 captions for as many images, got 2",
        ),
        (lambda: plots.attention_heads(IMAGES, np.ones((2, 2, 2)), "t"), r"must be \(h, w, 1 or 3\)"),
        (lambda: plots.attention_heads(IMAGES[0], np.ones((2, 2)), "t"), r"`maps` must be \(n, grid_h"),
        (lambda: plots.saliency_maps(IMAGES, np.ones((2, 2, 2)), "abc", "t"), r"`maps` must be \(3, grid_h"),
        (
            lambda: plots.saliency_maps(IMAGES, np.ones((3, 2, 2)), "ab", "t"),
            "for as many images, got 2",
        ),
        (lambda: plots.attention_distances(np.ones(3), "t"), r"must be \(layers, heads\)"),
        (lambda: plots.position_similarities(np.ones((2, 2, 2, 3)), "t"), r"must be \(h, w, h, w\)"),
        (lambda: plots.filters(np.ones((2, 2)), "t"), r"must be \(k, h, w, c\)"),
        (lambda: plots.feature_colours(IMAGES, np.ones((2, 2, 2, 3)), "t"), r"must be \(3, grid_h"),
        (lambda: plots.similarity_matrix(np.ones((2, 2)), "ab", "c", "t"), r"must be \(2, 1\)"),
        (lambda: plots.model_diagram("vit"), "must be a `keras.Model`"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
