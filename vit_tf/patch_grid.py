"""How patches tile an image: arithmetic of image sizes, patch sizes and grids."""


def resnet_stride(blocks, patch_size):
    """Returns the pixels of an image per pixel of the map that a `ResNetEmbedding` makes.

    Args:
        blocks: tuple of int, blocks per stage.
        patch_size: (height, width) in pixels of the image.

    Raises:
        ValueError: the stride does not divide the patch size.
    """
    stride = 4 << max(0, len(blocks) - 1)
    if any(side % stride for side in patch_size):
        raise ValueError(
            f"a residual network of {len(blocks)} stages makes one pixel of {stride}, which do not divide "
            f"the patch size {tuple(patch_size)}: choose a multiple of {stride}"
        )
    return stride


def grid_size(image_size, patch_size, allow_remainder=False, pad_to=1):
    """Returns how many patches tile an image: (rows, columns).

    Args:
        image_size: (height, width) in pixels; None for an unknown side, whose result is None.
        patch_size: (height, width) in pixels.
        allow_remainder: bool, whether pixels beyond the last whole patch may be dropped.
        pad_to: int, the stem pads the sides of the image to multiples of this number.

    Raises:
        ValueError: a patch side does not divide the image side, and no remainder is allowed; or the
            patch is larger than the image.
    """
    sides = [None if side is None else -(-side // pad_to) * pad_to for side in image_size]
    for side, patch in zip(sides, patch_size):
        if side is not None and side % patch and not (allow_remainder and side > patch):
            below, above = side - side % patch, side - side % patch + patch
            nearest = f"the nearest are {below} and {above}" if below else f"from {above}"
            raise ValueError(
                f"the patch size {patch_size} does not divide the image size {tuple(image_size)}: "
                f"choose an image side that is a multiple of {patch}, {nearest}"
            )
    return tuple(None if s is None else s // p for s, p in zip(sides, patch_size))
