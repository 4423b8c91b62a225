"""Shows what a Vision Transformer sees in pictures: attention, relevance, features, positions, filters.

    python scripts/explain.py cat.jpg                              # by the CIFAR-10 model of the package
    python scripts/explain.py cat.jpg dog.jpg --weights runs/pets/model --out runs/inside
    python scripts/explain.py cat.jpg --weights hf:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k --class 281

OUT gets the pictures as PNG, and report.html with all of them inside, which can be mailed.
"""

import argparse
import base64
import html
import io
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.progress import track

import vit_tf
from vit_tf import classifier, cli, files, plots
from vit_tf.explain.anatomy import PATCHES, Anatomy

STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
img { max-width: 100%; height: auto; display: block }
p { max-width: 44rem } table { border-collapse: collapse } td { padding: 0.1rem 1rem 0.1rem 0 }
"""


def main(arguments=None):
    args = parse_arguments(arguments)
    found = classifier.load(args.weights, args.variant, headless=True)
    x = found.preprocessing(args.images)
    args.out.mkdir(parents=True, exist_ok=True)
    seen = Seen(found, x, args)
    sections = []
    for draw in track(SECTIONS, "drawing", console=Console(stderr=True), transient=True):
        for name, title, text, figure in draw(seen):
            plots.save(figure, args.out / f"{name}.png")
            sections.append((title, text, figure))
    with files.atomic_path(args.out / "report.html") as partial:
        partial.write_text(report(seen, args, sections), "utf-8")
    print(f"{args.out / 'report.html'}: {len(sections)} pictures of {len(args.images)} image(s)")


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, up to 16")
    parser.add_argument(
        "--weights", default="cifar10", help="see `vit-tf predict`; default: the package's CIFAR-10 model"
    )
    parser.add_argument("--variant", help="where the weights are a bare file, which knows none")
    parser.add_argument(
        "--class", dest="class_index", type=int, metavar="N", help="whose relevance; default: the likeliest"
    )
    parser.add_argument(
        "--layer",
        type=int,
        default=-1,
        help="the block whose heads and features are drawn (-1, the last)",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    if len(args.images) > 16:
        raise ValueError(f"a report shows up to 16 images, got {len(args.images)}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {str(args.out)!r} is a file, and must be a folder")
    return args


def pixels(x, prepare):
    """Returns what the model sees, as pictures in [0, 255]."""
    return np.clip(255 * (x * np.array(prepare.std) + np.array(prepare.mean)), 0, 255)


class Seen:
    """A model, the images that it sees, and what it takes them for."""

    def __init__(self, found, x, args):
        self.model, self.x = found.model, x
        self.images, self.names = pixels(x, found.preprocessing), [Path(name).name for name in args.images]
        self.anatomy = Anatomy(self.model)
        (self.layer,) = self.anatomy.choose(args.layer)
        self.class_index = args.class_index
        self.has_head = any(layer.name == "head" for layer in self.model.layers)
        self.classes, self.captions = [], self.names
        if self.has_head:
            logits = self.model.predict_on_batch(x)
            self.classes = vit_tf.decode_predictions(logits, 5, found.labels)
            self.captions = [
                f"{name}: {top[0][0]} {top[0][1]:.0%}" for name, top in zip(self.names, self.classes)
            ]

    @property
    def query(self):
        return "class_token" if self.anatomy.encoder.class_token else PATCHES

    @property
    def whose(self):
        return "the class token" if self.query == "class_token" else "the mean of all patches"


# ---------------------------------------------------------------------------------------------------
# Sections: each yields (file's name, title, text, figure)
# ---------------------------------------------------------------------------------------------------
def relevance(seen):
    maps = {"rollout": vit_tf.attention_rollout(seen.model, seen.x)}
    text = "Rollout: how much of each patch would arrive if attention alone mixed the tokens."
    if seen.has_head:
        maps["relevance"] = vit_tf.class_relevance(seen.model, seen.x, seen.class_index)
        maps["Grad-CAM"] = vit_tf.grad_cam(seen.model, seen.x, seen.class_index)
        whose = "the likeliest class" if seen.class_index is None else f"class {seen.class_index}"
        text += (
            f" Relevance: attention that speaks for {whose}, by its gradient. Grad-CAM: tokens that do. Each "
            "map goes from its least value (dark) to its largest (bright)."
        )
    figure = plots.heat_maps(list(seen.images), maps, seen.captions, "Which patches matter")
    yield "relevance", "Which patches matter", text, figure


def heads(seen):
    maps = vit_tf.attention_maps(seen.model, seen.x, layers=[seen.layer], queries=seen.query)[seen.layer]
    maps = seen.anatomy.to_grid(maps.mean(axis=2)[..., seen.anatomy.tokens(PATCHES)])
    for i, (image, values) in enumerate(zip(seen.images, maps)):
        title = f"{seen.layer}: what {seen.whose} attends to"
        text = f"{seen.names[i]}: each head has its own scale, and its title tells its largest value."
        yield f"heads_{i}", title, text, plots.attention_heads(image, values, title)


def features(seen):
    found = vit_tf.forward_features(seen.model, seen.x)
    colours = vit_tf.features_to_rgb(found[seen.layer])
    title = f"{seen.layer}: the patches' features"
    text = "Three principal components of all patches as red, green and blue: what is alike has one colour."
    yield "features", title, text, plots.feature_colours(list(seen.images), colours, title)
    patches = {name: x.reshape(-1, x.shape[-1]) for name, x in found.items()}
    matrix = vit_tf.linear_cka(patches, patches)
    title = "How alike the blocks are"
    text = "Linear CKA of the patches' features of two blocks: 1 where one is the other, rotated."
    yield "cka", title, text, plots.similarity_matrix(matrix, list(found), list(found), title)


def distances(seen):
    found = vit_tf.attention_distance(seen.model, seen.x)
    title = "How far each head looks"
    text = (
        f"The distance from a patch to what it attends to, in pixels, over {len(seen.x)} image(s); the paper "
        "took 128."
    )
    side = max(seen.anatomy.image_size)
    yield "distances", title, text, plots.attention_distances(found, title, side)


def positions(seen):
    title = "Which positions are alike"
    text = "The cosine similarity of each patch's position embedding to all others."
    figure = plots.position_similarities(vit_tf.position_similarity(seen.model), title)
    yield "positions", title, text, figure


def patch_filters(seen):
    title = "What the first filters see"
    text = "The principal components of the filters that embed pixels; grey is zero."
    yield "filters", title, text, plots.filters(vit_tf.patch_filters(seen.model), title)


def structure(seen):
    title = "What the model is made of"
    text = "Output shapes, parameters and multiply-adds for one image; bars are shares of these."
    yield "diagram", title, text, plots.diagram(seen.model)


SECTIONS = (relevance, heads, features, distances, positions, patch_filters, structure)


# ---------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------
def report(seen, args, sections):
    """Returns the report as one HTML document, its pictures inside."""
    parts = [f"<h1>Inside {escape(seen.model.name)}</h1>", f"<p>Weights: {escape(args.weights)}</p>"]
    for name, top in zip(seen.names, seen.classes):
        cells = "".join(f"<tr><td>{escape(label)}</td><td>{share:.1%}</td></tr>" for label, share in top)
        parts.append(f"<h2>{escape(name)}</h2><table>{cells}</table>")
    for title, text, figure in sections:
        picture = f'<img alt="{escape(title)}" src="data:image/png;base64,{encoded(figure)}">'
        parts.append(f"<h2>{escape(title)}</h2><p>{escape(text)}</p>{picture}")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Inside {escape(seen.model.name)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def escape(text):
    return html.escape(str(text).encode("utf-8", "replace").decode())


def encoded(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    cli.run(main)
