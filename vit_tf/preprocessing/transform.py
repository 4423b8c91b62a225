"""`Preprocessing`: the evaluation transform of a checkpoint, from files and arrays to the input of the model.

The transform resizes with Pillow, as nearly every published ViT was trained and evaluated, and gives the same
pixels as timm. `Preprocessing.layer` does the same inside a graph, on every backend.
Shapes: b images, h rows, w columns of the input; H rows, W columns of the output.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_tf.checks import check_choice, check_number, is_number, pair, shown

if TYPE_CHECKING:
    import keras
    from PIL import Image

INTERPOLATIONS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # in Pillow's numbering
LARGEST_RESIZED = 64_000_000  # pixels
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocessing:
    """Resizes, crops and normalises images for a model.

    Args:
        image_size: (height, width) of the result in pixels, or one int for both.
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming", as in Pillow.
        crop_fraction: float in (0, 1], timm's `crop_pct`. The image is resized to
            `image_size / crop_fraction`, and the central `image_size` is kept.
        crop_mode: "center" keeps the aspect ratio and resizes the image until it covers that size. "border"
            keeps the aspect ratio and resizes the image until it fits into that size; the border is filled
            with the mean colour. "squash" resizes to exactly that size.
        mean, std: three floats for pixels in [0, 1]: the result is `(x / 255 - mean) / std`.

    Call arguments:
        images: A path, the bytes of an image file, an open binary file, a PIL image, an array `(h, w, c)` or
            `(b, h, w, c)` with c of 1, 3 or 4 and values in [0, 255], or a list of these, whose sizes may
            differ. See `vit_tf.preprocessing.decode.read_image` for the file formats. Floats are rounded and
            alpha is dropped. Unlike timm, the transform scales 16-bit grey to 8 bits (Pillow clips it), and
            rotates images by their EXIF orientation, which phones set.

    Output shape: float32 `(b, H, W, 3)`.

    Raises:
        ValueError: a setting is out of range, a file is not an image, an array has an unexpected shape or
            range, or a URL is given.
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
            check_choice(name, getattr(self, name), choices)
        check_number("crop_fraction", self.crop_fraction, "(0, 1]")
        for name, lowest in (("mean", -math.inf), ("std", 0)):
            values = getattr(self, name)
            if np.shape(values) != (3,) or not all(is_number(v) and v > lowest for v in values):
                kind = "positive numbers" if name == "std" else "numbers"
                raise ValueError(f"`{name}` must be three {kind} (red, green, blue), got {shown(values)}")
            object.__setattr__(self, name, tuple(float(value) for value in values))

    def __call__(self, images: Any) -> np.ndarray:
        return self.normalize(self.pixels(images))

    def pixels(self, images: Any) -> np.ndarray:
        """Returns images of `image_size`, not normalised: uint8 `(b, H, W, 3)`.

        Args:
            images: as for a call.
        """
        from vit_tf.preprocessing.images import to_pil_images

        return np.stack([np.asarray(self.resize_and_crop(image)) for image in to_pil_images(images)])

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """Returns `(x / 255 - mean) / std` of pixels `(b, H, W, 3)`, float32."""
        # In place and by whole rows: NumPy broadcasts three numbers slowly.
        *rows, width, channels = pixels.shape
        x = pixels.reshape(*rows, width * channels).astype("float32")
        x /= 255
        x -= np.tile(np.array(self.mean, "float32"), width)
        x /= np.tile(np.array(self.std, "float32"), width)
        return x.reshape(pixels.shape)

    def to_pixels(self, x: np.ndarray) -> np.ndarray:
        """Undoes the normalisation: returns float32 `(b, H, W, 3)` in [0, 255], to be drawn.

        Args:
            x: array, the result of a call.
        """
        mean, std = np.array([self.mean, self.std], "float32")
        return np.clip(255 * (np.asarray(x, "float32") * std + mean), 0, 255)

    def resize_and_crop(self, image: "Image.Image") -> "Image.Image":
        """Returns an RGB image of Pillow with `image_size` pixels, not normalised.

        Args:
            image: RGB `PIL.Image.Image` of any size.
        """
        from PIL import Image

        size = pair(self.image_size, "image_size")
        h, w = (int(side) for side in self.resized_size(image.height, image.width))
        top, left = (int(crop_start(side, kept)) for side, kept in zip((h, w), size))
        canvas = Image.new("RGB", size[::-1], self.fill)
        resample = Image.Resampling[self.interpolation.upper()]
        if h * w <= LARGEST_RESIZED:
            canvas.paste(image.resize((w, h), resample), (-left, -top))
            return canvas
        # An image of, say, 3 x 3,000 pixels: only the kept part of its resized version fits into memory.
        rows, columns = (min(side, kept) for side, kept in zip((h, w), size))
        y, x = max(top, 0), max(left, 0)
        scale_y, scale_x = image.height / h, image.width / w
        box = (x * scale_x, y * scale_y, (x + columns) * scale_x, (y + rows) * scale_y)
        canvas.paste(image.resize((columns, rows), resample, box=box), (x - left, y - top))
        return canvas

    def resized_size(self, h: Any, w: Any, xp: Any = np) -> tuple[Any, Any]:
        """Returns (height, width) of an h x w image after the resize and before the crop.

        Args:
            h, w: ints, or float64 tensors where `xp` is `keras.ops`.
            xp: NumPy or `keras.ops`.
        """
        scaled_h, scaled_w = (
            math.floor(side / self.crop_fraction) for side in pair(self.image_size, "image_size")
        )
        if self.crop_mode == "squash":
            return scaled_h, scaled_w
        if self.crop_mode == "center" and scaled_h == scaled_w:  # timm rounds down only for squares
            return xp.floor(scaled_h * h / xp.minimum(h, w)), xp.floor(scaled_w * w / xp.minimum(h, w))
        fitting = xp.minimum if self.crop_mode == "center" else xp.maximum
        ratio = fitting(h / scaled_h, w / scaled_w)
        return xp.maximum(xp.round(h / ratio), 1), xp.maximum(xp.round(w / ratio), 1)

    @property
    def fill(self):
        """The colour where an image does not cover `image_size`: three ints."""
        return tuple(round(255 * value) if self.crop_mode == "border" else 0 for value in self.mean)

    def layer(self, **kwargs: Any) -> "keras.layers.Layer":
        """Returns the transform as a layer for batches in [0, 255] of any size: see `PreprocessImages`."""
        from vit_tf.preprocessing.layer import PreprocessImages

        return PreprocessImages(self.to_dict(), **kwargs)

    def normalization(self) -> "keras.layers.Layer":
        """Returns a layer that maps images of `image_size` in [0, 255] to `(x / 255 - mean) / std`."""
        from vit_tf.preprocessing.layer import ChannelRescaling

        scale = [1 / (255 * std) for std in self.std]
        offset = [-mean / std for mean, std in zip(self.mean, self.std)]
        return ChannelRescaling(scale, offset, name="normalization")

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as plain values: `Preprocessing(**settings.to_dict())` equals `settings`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def crop_start(size, kept, xp=np):
    """Returns where a centred crop of `kept` pixels begins in `size`; negative if `kept` is larger."""
    margin = (size - kept) / 2
    return xp.where(margin >= 0, xp.round(margin), xp.ceil(margin))


def crop_resize_matrix(size, resized, kept, interpolation, xp=np):
    """Returns the weights (kept, size) of the resize and centred crop of one side, and which rows exist.

    Each output pixel averages the input around its centre with a kernel. Where the image shrinks, the kernel
    widens by the same factor. Rows beyond the resized image repeat its last row, and do not exist.

    Args:
        size, resized: pixels of the side before and after the resize.
        kept: int, pixels of the side after the crop.
        interpolation: "bilinear" or "bicubic".
        xp: NumPy, or `keras.ops` where the sizes are float64 tensors.
    """
    resized = xp.array(resized, dtype="float64")
    position = crop_start(resized, kept, xp) + xp.arange(kept, dtype="float64")
    scale = size / resized
    centre = (xp.clip(position, 0, resized - 1) + 0.5) * scale
    distance = xp.abs(xp.arange(size, dtype="float64")[None] + 0.5 - centre[:, None])
    x = distance / xp.maximum(scale, 1.0)
    if interpolation == "bilinear":
        weights = xp.maximum(1 - x, 0.0)
    else:  # Keys's cubic convolution with a = -1/2
        near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
        weights = xp.where(x < 1, near, xp.where(x < 2, far, 0.0))
    return weights / xp.sum(weights, axis=1, keepdims=True), (position >= 0) & (position < resized)
