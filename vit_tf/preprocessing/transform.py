"""`Preprocessing`: from files and arrays to the input of the model, as a callable and as a layer.

It resizes by Pillow, as nearly every published ViT was trained and measured, and gives timm's pixels
exactly; its `layer()` does the same inside a graph, on every backend.
Shapes: b images, h rows, w columns, c channels as they come in; H rows, W columns as they go out.
"""

import math
from dataclasses import asdict, dataclass

import keras
import numpy as np
from keras import ops

from vit_tf.checks import is_number, pair, shown

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's number
LARGEST_RESIZED = 64_000_000  # pixels
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """The way from images to what a model takes, as a callable.

    Args:
        image_size: (height, width) of the result in pixels, or one int for both.
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming", those of Pillow.
        crop_fraction: in (0, 1], timm's `crop_pct`. The image is resized to `image_size / crop_fraction`,
            and the centre of that is kept.
        crop_mode: "center" resizes the image until it covers that size and "border" until it fits in,
            both in its own proportions; "squash" to that very size. A border has the mean colour.
        mean, std: three numbers on the scale of pixels in [0, 1]: the result is `(x / 255 - mean) / std`.

    Call arguments:
        images: A path, the bytes of an image file, an open binary file, a PIL image, an array `(h, w, c)` or
            `(b, h, w, c)` with c of 1, 3 or 4 and values in [0, 255], or a list of these, whose sizes may
            differ. `decode.read_image` tells which files are read. Floats are rounded, alpha is dropped.
            Unlike timm, 16-bit grey is scaled to 8 bits (Pillow clips it), and images are turned as their
            EXIF orientation says, on which telephones rely.

    Output shape: float32 `(b, H, W, 3)`.

    Raises:
        ValueError: a setting is out of range; a file is no image; an array is of another shape or scale; a
            URL was given.
    """

    image_size: int | tuple[int, int]
    interpolation: str = "bicubic"
    crop_fraction: float = 0.9
    crop_mode: str = "center"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def __post_init__(self):
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        for name, choices in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {choices}, got {shown(getattr(self, name))}")
        if not (is_number(self.crop_fraction) and 0 < self.crop_fraction <= 1):
            raise ValueError(f"`crop_fraction` must be a number in (0, 1], got {shown(self.crop_fraction)}")
        for name, lowest in (("mean", -math.inf), ("std", 0)):
            values = getattr(self, name)
            if np.shape(values) != (3,) or not all(is_number(v) and v > lowest for v in values):
                kind = "positive numbers" if name == "std" else "numbers"
                raise ValueError(f"`{name}` must be three {kind} (red, green, blue), got {shown(values)}")
            object.__setattr__(self, name, tuple(float(value) for value in values))

    def __call__(self, images):
        from vit_tf.preprocessing.images import pictures  # Pillow comes when it is needed

        pixels = np.stack([np.asarray(self.fit(picture)) for picture in pictures(images)])  # (b, H, W, 3)
        return (pixels.astype("float32") / 255 - np.float32(self.mean)) / np.float32(self.std)

    def to_pixels(self, x):
        """Returns what a model sees as pictures again: float32 `(b, H, W, 3)` in [0, 255], to be drawn.

        Args:
            x: the result of a call.
        """
        pixels = 255 * (np.asarray(x, "float32") * np.float32(self.std) + np.float32(self.mean))
        return np.clip(pixels, 0, 255)

    def fit(self, picture):
        """Resizes and crops an RGB picture of Pillow to `image_size`."""
        h, w = (int(side) for side in self.resized_size(picture.height, picture.width))
        top, left = (int(crop_start(side, kept)) for side, kept in zip((h, w), self.image_size))
        from PIL import Image

        canvas = Image.new("RGB", self.image_size[::-1], self.fill)
        kind = Image.Resampling[self.interpolation.upper()]
        if h * w <= LARGEST_RESIZED:
            canvas.paste(picture.resize((w, h), kind), (-left, -top))
            return canvas
        # A line of pixels, a thousand times as long as wide: the kept part alone fits into the memory.
        rows, columns = (min(side, kept) for side, kept in zip((h, w), self.image_size))
        y, x = max(top, 0), max(left, 0)
        scale_y, scale_x = picture.height / h, picture.width / w
        box = (x * scale_x, y * scale_y, (x + columns) * scale_x, (y + rows) * scale_y)
        canvas.paste(picture.resize((columns, rows), kind, box=box), (x - left, y - top))
        return canvas

    def resized_size(self, h, w, xp=np):
        """Returns (height, width) of an h x w image after the resize and before the crop.

        `xp` is NumPy, or `keras.ops` for float64 tensors h and w.
        """
        scaled_h, scaled_w = (math.floor(side / self.crop_fraction) for side in self.image_size)
        if self.crop_mode == "squash":
            return scaled_h, scaled_w
        if self.crop_mode == "center" and scaled_h == scaled_w:  # timm rounds down for squares alone
            return xp.floor(scaled_h * h / xp.minimum(h, w)), xp.floor(scaled_w * w / xp.minimum(h, w))
        fitting = xp.minimum if self.crop_mode == "center" else xp.maximum
        ratio = fitting(h / scaled_h, w / scaled_w)
        return xp.maximum(xp.round(h / ratio), 1), xp.maximum(xp.round(w / ratio), 1)

    @property
    def fill(self):
        """The colour where an image does not cover `image_size`: three ints."""
        return tuple(round(255 * value) if self.crop_mode == "border" else 0 for value in self.mean)

    def layer(self, **kwargs):
        """Returns it as a layer for batches in [0, 255] of any size: see `PreprocessImages`."""
        return PreprocessImages(self.to_dict(), **kwargs)

    def normalization(self):
        """Returns a layer that maps images of the right size in [0, 255] to `(x / 255 - mean) / std`."""
        scale = [1 / (255 * std) for std in self.std]
        offset = [-mean / std for mean, std in zip(self.mean, self.std)]
        return ChannelRescaling(scale, offset, name="normalization")

    def to_dict(self):
        """Returns plain values: `Preprocessing(**settings.to_dict())` equals `settings`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def crop_start(size, kept, xp=np):
    """Returns where a centred crop of `kept` pixels begins in `size`; below 0 if it is larger."""
    margin = (size - kept) / 2
    return xp.where(margin >= 0, xp.round(margin), xp.ceil(margin))


@keras.saving.register_keras_serializable(package="vit_tf")
class ChannelRescaling(keras.layers.Rescaling):
    """`keras.layers.Rescaling` by a factor and an offset for each channel, which is always the last axis.

    Keras's layer takes another axis after `keras.config.set_image_data_format("channels_first")`.

    Args: those of `keras.layers.Rescaling`.

    Input and output shape: `(..., c)`; the output in the layer's compute dtype.
    """

    def call(self, inputs):
        inputs, scale, offset = (
            self.backend.cast(x, self.compute_dtype) for x in (inputs, self.scale, self.offset)
        )
        return inputs * scale + offset


@keras.saving.register_keras_serializable(package="vit_tf")
class PreprocessImages(keras.layers.Layer):
    """Resizes, crops and normalises a batch of images as `Preprocessing` does.

    It resizes by matrices and rounds to bytes after each side, as Pillow does: pixels are within 1/255 of
    Pillow 13's, where `keras.ops.image.resize` is off by 6/255 at edges. Older Pillow takes the sides in
    another order where the height shrinks by more than twice what the width does; edges differ by some
    7/255 then. `h` and `w` may be unknown in a graph.

    Args:
        settings: dict, what `Preprocessing.to_dict()` returns. `interpolation` must be "bicubic" or
            "bilinear" here.

    Input shape: `(b, h, w, 3)`, integers or floats in [0, 255].
    Output shape: `(b, H, W, 3)`, in the layer's compute dtype.

    Raises:
        ValueError: another interpolation, or images of another rank or number of channels.
    """

    def __init__(self, settings, **kwargs):
        super().__init__(**kwargs)
        self.preprocessing = Preprocessing(**settings)
        if self.preprocessing.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(
                "the layer resizes by 'bicubic' or 'bilinear', got interpolation="
                f"{self.preprocessing.interpolation!r}: call the Preprocessing on the images instead"
            )

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] != 3:
            raise ValueError(f"images must have the shape (b, h, w, 3), got {tuple(input_shape)}")

    def call(self, images):
        wanted = self.preprocessing
        _, h, w, _ = ops.shape(images)
        xp = np
        if not (isinstance(h, int) and isinstance(w, int)):  # TensorFlow tells them when a batch comes
            xp, h, w = ops, ops.cast(h, "float64"), ops.cast(w, "float64")
        new_h, new_w = wanted.resized_size(h, w, xp)
        rows, row_exists = resize_matrix(h, new_h, wanted.image_size[0], wanted.interpolation, xp)
        columns, column_exists = resize_matrix(w, new_w, wanted.image_size[1], wanted.interpolation, xp)
        exists = row_exists[:, None, None] & column_exists[None, :, None]  # (H, W, 1)
        rows_first = (new_h < h) & (2 * (w - new_w) < h - new_h)  # github.com/python-pillow/Pillow/pull/9549
        images = resize_by_matrices(images, rows, columns, rows_first)
        colours = (wanted.fill, wanted.mean, wanted.std)
        fill, mean, std = (ops.convert_to_tensor(colour, "float32") for colour in colours)
        images = ops.where(exists, images, fill)
        return ops.cast((images / 255 - mean) / std, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape[0], *self.preprocessing.image_size, 3

    def get_config(self):
        return {**super().get_config(), "settings": self.preprocessing.to_dict()}


def resize_matrix(size, resized, kept, interpolation, xp):
    """Returns the weights (kept, size) of a resize and centred crop of one side, and which rows exist.

    An output pixel averages the input around its centre by a kernel, which is as much wider as the image
    shrinks. Rows beyond the resized image repeat its last, and do not exist.
    """
    resized = xp.array(resized, dtype="float64")
    place = crop_start(resized, kept, xp) + xp.arange(kept, dtype="float64")
    scale = size / resized
    centre = (xp.clip(place, 0, resized - 1) + 0.5) * scale
    distance = xp.abs(xp.arange(size, dtype="float64")[None] + 0.5 - centre[:, None])
    x = distance / xp.maximum(scale, 1.0)
    if interpolation == "bilinear":
        weights = xp.maximum(1 - x, 0.0)
    else:  # Keys's cubic convolution with a = -1/2
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = xp.where(x < 1, near, xp.where(x < 2, far, 0.0))
    return weights / xp.sum(weights, axis=1, keepdims=True), (place >= 0) & (place < resized)


def resize_by_matrices(images, rows, columns, rows_first):
    """Resizes images (b, h, w, 3) by weights (H, h) and (W, w), in float32 and rounded after each."""
    images, rows, columns = (ops.cast(x, "float32") for x in (images, rows, columns))

    def resized(equation, images, weights):
        return ops.clip(ops.floor(ops.einsum(equation, images, weights) + 0.5), 0, 255)

    def height(images):
        return resized("bhwc,yh->bywc", images, rows)

    def width(images):
        return resized("bhwc,xw->bhxc", images, columns)

    return ops.cond(rows_first, lambda: width(height(images)), lambda: height(width(images)))
