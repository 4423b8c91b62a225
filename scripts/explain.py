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
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image
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
p { max-width: 44rem } .seen { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0; width: 11rem } figcaption { overflow-wrap: anywhere }
figure img { width: 100%; image-rendering: pixelated }
table { border-collapse: collapse; font-size: 0.85rem } td { padding: 0.1rem 1rem 0.1rem 0 }
"""


def main(arguments=None):
    args = parse_arguments(arguments)
    found = classifier.load(args.weights, args.variant, headless=True)
    x = found.preprocessing(args.images)
    args.out.mkdir(parents=True, exist_ok=True)
    seen = Seen(found, x, args)
    sections = []
    for draw in track(SECTIONS, "drawing", console=Console(stderr=True), transient=True):
        for section in draw(seen):
            for name, figure in section.figures.items():
                plots.save(figure, args.out / f"{name}.png")
            sections.append(section)
    with files.atomic_path(args.out / "report.html") as partial:
        partial.write_text(report(seen, args, sections), "utf-8")
    count = sum(len(section.figures) for section in sections)
    print(f"{args.out / 'report.html'}: {count} pictures of {len(args.images)} image(s)")


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
                f"{name}\n{top[0][0]} {top[0][1]:.0%}" for name, top in zip(self.names, self.classes)
            ]

    def titled(self, title):
        """Returns the title of a picture, which may leave the report."""
        return f"{self.model.name}: {title}"

    @property
    def query(self):
        return "class_token" if self.anatomy.encoder.class_token else PATCHES

    @property
    def whose(self):
        return "the class token" if self.query == "class_token" else "the mean of all patches"


# ---------------------------------------------------------------------------------------------------
# Sections
# ---------------------------------------------------------------------------------------------------
@dataclass
class Section:
    """A chapter of the report; `figures` go by their files' names."""

    title: str
    text: str
    figures: dict


def relevance(seen):
    maps = {"rollout": vit_tf.attention_rollout(seen.model, seen.x)}
    text = "Rollout: how much of each patch would arrive if attention alone mixed the tokens. "
    if seen.has_head:
        maps["relevance"] = vit_tf.class_relevance(seen.model, seen.x, seen.class_index)
        maps["Grad-CAM"] = vit_tf.grad_cam(seen.model, seen.x, seen.class_index)
        whose = "the likeliest class" if seen.class_index is None else f"class {seen.class_index}"
        text += f"Relevance: attention that speaks for {whose}, by its gradient. Grad-CAM: tokens that do. "
    text += "Each map goes from its least value (dark) to its largest (bright)."
    figure = plots.heat_maps(list(seen.images), maps, seen.captions, seen.titled("which patches matter"))
    yield Section("Which patches matter", text, {"relevance": figure})


def heads(seen):
    maps = vit_tf.attention_maps(seen.model, seen.x, layers=[seen.layer], queries=seen.query)[seen.layer]
    maps = seen.anatomy.to_grid(maps.mean(axis=2)[..., seen.anatomy.tokens(PATCHES)])
    title = f"What {seen.whose} attends to in {seen.layer}"
    text = "Each head has its own scale, and its title tells its largest value."
    found = zip(seen.images, maps, seen.captions)
    figures = {f"heads_{i}": plots.attention_heads(*each) for i, each in enumerate(found)}
    yield Section(title, text, figures)


def features(seen):
    found = vit_tf.forward_features(seen.model, seen.x)
    colours = vit_tf.features_to_rgb(found[seen.layer])
    title = seen.titled(f"the patches' features behind {seen.layer}")
    text = "Three principal components of all patches as red, green and blue: what is alike has one colour."
    figure = plots.feature_colours(list(seen.images), colours, title)
    yield Section(f"The patches' features behind {seen.layer}", text, {"features": figure})
    patches = {name: x.reshape(-1, x.shape[-1]) for name, x in found.items()}
    matrix = vit_tf.linear_cka(patches, patches)
    text = "Linear CKA of the patches' features behind two blocks: 1 where one is the other, rotated."
    title = seen.titled("how alike the blocks are")
    figure = plots.similarity_matrix(matrix, list(found), list(found), title)
    yield Section("How alike the blocks are", text, {"cka": figure})


def distances(seen):
    found = vit_tf.attention_distance(seen.model, seen.x)
    text = (
        f"The distance from a patch to what it attends to, in pixels, over {len(seen.x)} image(s); the paper "
        "took 128."
    )
    side = max(seen.anatomy.image_size)
    figure = plots.attention_distances(found, seen.titled("how far each head looks"), side)
    yield Section("How far each head looks", text, {"distances": figure})


def positions(seen):
    similarity = vit_tf.position_similarity(seen.model)
    text = "The cosine similarity of each patch's position embedding to all others."
    figure = plots.position_similarities(similarity, seen.titled("which positions are alike"))
    yield Section("Which positions are alike", text, {"positions": figure})


def patch_filters(seen):
    text = "The principal components of the filters that embed pixels; grey is zero."
    figure = plots.filters(vit_tf.patch_filters(seen.model), seen.titled("what the first filters see"))
    yield Section("What the first filters see", text, {"filters": figure})


def structure(seen):
    text = "Output shapes, parameters and multiply-adds for one image; bars are shares of these."
    yield Section("What the model is made of", text, {"diagram": plots.diagram(seen.model)})


SECTIONS = (relevance, heads, features, distances, positions, patch_filters, structure)


# ---------------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------------
def report(seen, args, sections):
    """Returns the report as one HTML document, its pictures inside."""
    parts = [f"<h1>Inside {escape(seen.model.name)}</h1>", f"<p>Weights: {escape(args.weights)}</p>"]
    cards = [card(*each) for each in zip_longest(seen.images, seen.names, seen.classes, fillvalue=())]
    parts.append(f'<div class="seen">{"".join(cards)}</div>')
    for section in sections:
        pictures = [picture(encoded(x), f"{section.title}: {name}") for name, x in section.figures.items()]
        parts += [f"<h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>", *pictures]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Inside {escape(seen.model.name)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def card(image, name, classes):
    """Returns an image as the model sees it, and what the model takes it for."""
    buffer = io.BytesIO()
    Image.fromarray(image.round().astype("uint8")).save(buffer, format="png")
    rows = "".join(f"<tr><td>{escape(label)}</td><td>{share:.1%}</td></tr>" for label, share in classes)
    caption = f"<figcaption>{escape(name)}<table>{rows}</table></figcaption>"
    return f"<figure>{picture(buffer.getvalue(), name)}{caption}</figure>"


def picture(png, alt):
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def encoded(figure):
    """Returns a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def escape(text):
    return html.escape(str(text).encode("utf-8", "replace").decode())


if __name__ == "__main__":
    cli.run(main)
