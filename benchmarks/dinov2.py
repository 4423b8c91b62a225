"""DINOv2's trained weights: features compared with transformers, and figures of features and attention.

    KERAS_BACKEND=torch python benchmarks/dinov2.py hf:facebook/dinov2-small         # needs transformers
    python benchmarks/dinov2.py hf:facebook/dinov2-small --images a.jpg b.jpg --stem docs/images/dinov2
    python benchmarks/dinov2.py FOLDER --reference features.npz                      # of another runtime

SOURCE is a folder in transformers' layout, or its name on the Hugging Face hub. The first form prints the
largest difference between the features of the last norm and those of transformers, at the checkpoint's own
image size, at 224 pixels and for a rectangular image. `--reference` names an .npz of arrays `x224`
(b, 224, 224, 3) and `y224` (b, tokens, width), and so on for each size: inputs and features of another
runtime, such as ONNX Runtime, instead of transformers. `--images` draws attention and features instead.
"""

import argparse
import os
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import vit_tf
from vit_tf import plots
from vit_tf.commands import parser as cli


def main(arguments=None):
    args = parse_arguments(arguments)
    if args.images:
        draw(args.source, args.images, args.image_size, args.stem)
        return
    references = stored(args.reference) if args.reference else by_transformers(args.source)
    print("| image | largest difference | of the largest feature |\n|---|---:|---:|")
    for x, expected in references:
        difference = np.abs(features(args.source, x) - expected).max()
        height, width = x.shape[1:3]
        print(f"| {height}x{width} | {difference:.1e} | {difference / np.abs(expected).max():.1e} |")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder, or hf:owner/name")
    parser.add_argument("--reference", metavar="NPZ", help="inputs and features of another runtime")
    parser.add_argument("--images", nargs="+", metavar="IMAGE", help="photographs to draw")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="of the figures; the checkpoint's own"
    )
    parser.add_argument(
        "--stem", default="dinov2", help="prefix of the names of the figures; default: %(default)s"
    )
    return parser.parse_args(arguments)


def features(source, x):
    """Returns the tokens after the last norm, `(b, 1 + n, d)`, of normalized images `(b, h, w, 3)`."""
    model = vit_tf.build_vit(weights=source, image_size=x.shape[1:3])
    return keras.Model(model.input, model.get_layer("norm").output).predict_on_batch(x)


def stored(path):
    """Yields inputs and features of an .npz file."""
    arrays = np.load(path)
    for name in arrays:
        if name.startswith("x"):
            yield arrays[name], arrays[f"y{name[1:]}"]


def by_transformers(source, num_images=2):
    """Yields random inputs and the features that transformers computes from them, in float32."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source.removeprefix("hf:")).eval()
    own, rng = model.config.image_size, np.random.default_rng(0)
    for size in ((own, own), (224, 224), (280, 196)):
        x = rng.normal(size=(num_images, *size, 3)).astype("float32")
        with torch.no_grad():
            y = model(pixel_values=torch.from_numpy(x).permute(0, 3, 1, 2)).last_hidden_state
        yield x, y.numpy()


def draw(source, images, image_size, stem):
    """Draws the class token's attention in the last block, and the features as colours."""
    model = vit_tf.build_vit(weights=source, **({"image_size": image_size} if image_size else {}))
    size = model.input_shape[1:3]
    prepare = replace(vit_tf.get_preprocessing(source, image_size=size), crop_fraction=1.0)
    x = prepare(images)
    pixels = list(prepare.to_pixels(x))
    names = [os.path.splitext(os.path.basename(path))[0] for path in images]
    grid = last_features(model, x)
    colours = vit_tf.features_to_rgb(grid, foreground=True)
    plots.save(
        plots.feature_colours(pixels, colours, "DINOv2's features as colours", names), f"{stem}_features.png"
    )
    heads = class_attention(model, x, grid.shape[1:3])
    maps = {f"head {i}": heads[:, i] for i in range(heads.shape[1])}
    plots.save(
        plots.saliency_maps(pixels, maps, names, "what the class token attends to"), f"{stem}_attention.png"
    )


def last_features(model, x):
    """Returns the features after the last block `(b, grid_h, grid_w, d)`. One image at a time: memory."""
    parts = [vit_tf.forward_features(model, image[None], layers=[-1]) for image in x]
    return np.concatenate([next(iter(features.values())) for features in parts])


def class_attention(model, x, grid_size):
    """Returns the class token's attention in the last block, `(b, heads, grid_h, grid_w)`."""
    maps = [
        next(iter(vit_tf.attention_maps(model, image[None], layers=[-1], queries="class_token").values()))
        for image in x
    ]
    maps = np.concatenate(maps)[:, :, 0]  # (b, heads, 1 + n)
    return maps[..., -int(np.prod(grid_size)) :].reshape(*maps.shape[:2], *grid_size)


if __name__ == "__main__":
    cli.run(main)
