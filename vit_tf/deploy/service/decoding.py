"""From the bytes of an image file to the input of the model, within a limit of pixels."""

from vit_tf.checks import brief, shown
from vit_tf.deploy.service.refusals import Refusal, busy
from vit_tf.preprocessing.decode import open_image


def read_within(image, position, max_pixels, read):
    """Returns the input of the model for a `SentImage`.

    Args:
        image: a `SentImage`.
        position: int, of the image in its request.
        max_pixels: int, checked by the image's header before its pixels are decoded.
        read: function from an image of Pillow, not decoded yet, to the input.

    Raises:
        Refusal: 413 for an image of too many pixels, 422 for bytes that are no image, 503 if memory is short.
    """
    where = f"image {position}" if image.name is None else f"image {position} ({shown(image.name)})"
    try:
        opened = open_image(image.data)
        width, height = opened.size
        if width * height <= max_pixels:
            return read(opened)
    except MemoryError:
        raise busy() from None
    except Exception as error:  # Pillow's decoders raise nearly everything
        raise Refusal(422, f"{where} cannot be read: {brief(error)}") from None
    limit = f"expected at most {max_pixels:,} in all, scale it down"
    raise Refusal(413, f"{where} has {width}x{height} pixels: {limit}")
