"""Shows what a Vision Transformer sees in pictures: attention, relevance, features, positions, filters.

    python scripts/explain.py cat.jpg                              # by the CIFAR-10 model of the package
    python scripts/explain.py cat.jpg dog.jpg --weights runs/pets/model --out runs/inside
    python scripts/explain.py cat.jpg --weights hf:timm/vit_base_patch16_224.augreg2_in21k_ft_in1k --class 281

OUT gets the pictures as PNG, and report.html with all of them inside, which can be mailed. An earlier report
there is replaced.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import vit_tf
from vit_tf import classifier, files, plots, terminal
from vit_tf.commands import main as cli
from vit_tf.plots.html_report import Section, page
from vit_tf.structure import ViTStructure


def main(arguments=None):
    args = parse_arguments(arguments)
    found = classifier.load(args.weights, args.variant, headless=True)
    seen = Seen(found, args)
    args.out.mkdir(parents=True, exist_ok=True)
    remove_earlier(args.out)
    sections = []
    for draw in terminal.track(SECTIONS, "drawing"):
        for section in draw(seen):
            for name, (figure, _) in section.figures.items():
                plots.save(figure, args.out / f"{name}.png")
            sections.append(section)
    with files.atomic_path(args.out / "report.html") as partial:
        title, text = f"Inside {seen.model.name}", introduction(seen, args.weights)
        cards = zip(seen.images, seen.names, seen.classes)
        partial.write_text(page(title, text, cards, sections), "utf-8")
    count = sum(len(section.figures) for section in sections)
    print(
        f"{terminal.printable(args.out / 'report.html')}: {count} pictures of {counted(seen.names, 'image')}"
    )


def parse_arguments(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        type=number_or_name,
        default=-1,
        help="the block whose heads and features are drawn, by number or name; default: -1, the last",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), help="default: %(default)s")
    args = parser.parse_args(arguments)
    if len(args.images) > 16:
        raise ValueError(f"a report shows up to 16 images, got {len(args.images)}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {str(args.out)!r} is a file, and must be a folder")
    return args


def number_or_name(text):
    return int(text) if text.lstrip("-").isdigit() else text


def remove_earlier(out):
    """Removes an earlier report, which may have had more images, and what a kill left of it."""
    files.remove_partial_files(out)
    for path in (out / "report.html", *out.glob("heads_*.png"), *out.glob("pooling_*.png")):
        path.unlink(missing_ok=True)


def counted(things, noun):
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


class Seen:
    """A model, the images that it sees, and what it takes them for.

    Attributes:
        x: float32 array (n, h, w, 3), normalised.
        images: the same as pictures in [0, 255], but for what no patch covers.
    """

    def __init__(self, found, args):
        self.model = found.model
        self.anatomy = ViTStructure(self.model)
        (self.layer,) = self.anatomy.choose(args.layer)
        self.check_class(args.class_index)
        self.x = found.preprocessing(args.images)
        height, width = self.anatomy.patched_size
        self.images = found.preprocessing.to_pixels(self.x)[:, :height, :width]
        names = [terminal.printable(Path(name).name) for name in args.images]
        paths = [terminal.printable(name) for name in args.images]
        self.names = names if len(set(names)) == len(names) else paths
        self.classes, self.captions, self.likeliest = [()] * len(names), self.names, "the likeliest class"
        if self.anatomy.has_head:
            self.classify(found)

    def classify(self, found):
        logits = self.model.predict_on_batch(self.x)
        predictions = found.decode(logits, 5)
        self.captions = [
            f"{name}\n{terminal.printable(best.label)} {best.text}"
            for name, (best, *_) in zip(self.names, predictions)
        ]
        self.classes = [
            [(each.label, f"{each.text} ✓" if each.selected else each.text) for each in image]
            for image in predictions
        ]
        if len(predictions[0]) > logits.shape[-1]:  # one logit of two labels speaks for the second
            self.likeliest = terminal.printable(found.labels[1])

    def check_class(self, index):
        self.class_index = index
        if index is None:
            return
        num_classes = self.anatomy.logits()[0].shape[-1]
        if not 0 <= index < num_classes:
            raise ValueError(f"--class must be from 0 to {num_classes - 1} for these weights, got {index}")

    def one_by_one(self, function, *args):
        """Returns a function of model and images for all of them: memory is that of one."""
        maps = [function(self.model, self.x[i : i + 1], *args) for i in range(len(self.x))]
        return np.concatenate(maps)

    def titled(self, title):
        """Returns the title of a picture, which may leave the report."""
        return f"{self.model.name}: {title}"

    @property
    def whose(self):
        """Whose attention the model's answer comes from."""
        return " and ".join(TOKENS[name] for name in self.anatomy.pooled_tokens())


TOKENS = {
    "class_token": "the class token",
    "distillation_token": "the distillation token",
    "register_tokens": "the registers",
    "patches": "the mean of all patches",
}


# ---------------------------------------------------------------------------------------------------
# Sections of the report, see `Section`
# ---------------------------------------------------------------------------------------------------
def relevance(seen):
    maps = {"rollout": seen.one_by_one(vit_tf.attention_rollout)}
    text = "Rollout: how much of each patch would arrive if attention alone mixed the tokens."
    if seen.anatomy.has_head:
        maps["relevance"] = seen.one_by_one(vit_tf.class_relevance, seen.class_index)
        maps["Grad-CAM"] = seen.one_by_one(vit_tf.grad_cam, seen.class_index)
        whose = seen.likeliest if seen.class_index is None else f"class {seen.class_index}"
        text += f" Relevance: attention that speaks for {whose}, by its gradient. Grad-CAM: tokens that do."
    figure = plots.saliency_maps(list(seen.images), maps, seen.captions, seen.titled("which patches matter"))
    shows = f"{', '.join(maps)} over {', '.join(seen.names)}"
    yield Section("Which patches matter", text, {"relevance": (figure, shows)})


def heads(seen):
    names, places = seen.anatomy.pooled_tokens(), seen.anatomy.token_slices()
    queries = names[0] if len(names) == 1 else None
    rows = seen.anatomy.pooled_rows()[places[queries] if queries else slice(None)]
    options = dict(layers=[seen.layer], queries=queries)
    maps = seen.one_by_one(
        lambda *args: np.einsum("bhqk,q->bhk", vit_tf.attention_maps(*args, **options)[seen.layer], rows)
    )
    title = f"What {seen.whose} attends to in {seen.layer}"
    yield heads_section(seen, title, "heads", maps)
    if seen.anatomy.pools_by_attention:
        maps = seen.one_by_one(lambda *args: vit_tf.attention_maps(*args, layers="pooling")["pooling"])
        yield heads_section(
            seen, "What the learned query of the pooling attends to", "pooling", maps[:, :, 0]
        )


def heads_section(seen, title, name, maps):
    """Returns a section of the heads' attention `(b, heads, k)`, the patches last."""
    count = int(np.prod(seen.anatomy.grid_size))
    maps = seen.anatomy.to_grid(maps[..., -count:])
    text = "Each head has its own scale, and its title tells its largest value."
    figures = {}
    for i, caption in enumerate(seen.captions):
        what = caption.replace("\n", ": ")
        figures[f"{name}_{i}"] = plots.attention_heads(seen.images[i], maps[i], what), what
    return Section(title, text, figures)


def features(seen):
    count = len(seen.x) * int(np.prod(seen.anatomy.grid_size))
    title = f"The patches' features behind {seen.layer}"
    if count < 4:
        yield Section(title, f"Left out: it takes four patches, and there are {count}.", {})
        return
    found = vit_tf.forward_features(seen.model, seen.x)
    colours = vit_tf.features_to_rgb(found[seen.layer])
    text = "Three principal components of all patches as red, green and blue: what is alike has one colour."
    caption = seen.titled(f"the patches' features behind {seen.layer}")
    figure = plots.feature_colours(list(seen.images), colours, caption, seen.names)
    shows = f"colours of the patches of {', '.join(seen.names)}"
    yield Section(title, text, {"features": (figure, shows)})
    patches = {name: x.reshape(-1, x.shape[-1]) for name, x in found.items()}
    matrix = vit_tf.linear_cka(patches, patches)
    text = (
        "Linear CKA of the features of all patches of these images, behind two blocks: 1 where one is the "
        "other, rotated."
    )
    figure = plots.similarity_matrix(
        matrix, list(found), list(found), seen.titled("how alike the blocks are")
    )
    shows = f"first and last block: {matrix[0, -1]:.2f}"
    yield Section("How alike the blocks are", text, {"cka": (figure, shows)})


def distances(seen):
    found = vit_tf.attention_distance(seen.model, seen.x)
    text = (
        "The distance in pixels from a patch to what it attends to, the mean over "
        f"{counted(seen.x, 'image')}; the paper took 128."
    )
    side = max(seen.anatomy.image_size)
    figure = plots.attention_distances(found, seen.titled("how far each head looks"), side)
    first, last = found[0].mean(), found[-1].mean()
    shows = f"{first:.0f} pixels in the first block, {last:.0f} in the last, as the mean of the heads"
    yield Section("How far each head looks", text, {"distances": (figure, shows)})


def positions(seen):
    similarity = vit_tf.position_similarity(seen.model)
    text = "The cosine similarity of each patch's position embedding to all others."
    figure = plots.position_similarities(similarity, seen.titled("which positions are alike"))
    shows = "a small map for each place of the grid"
    yield Section("Which positions are alike", text, {"positions": (figure, shows)})


def patch_filters(seen):
    text = "The principal components of the filters that embed pixels; grey is zero."
    figure = plots.filters(vit_tf.patch_filters(seen.model), seen.titled("what the first filters see"))
    yield Section("What the first filters see", text, {"filters": (figure, "patterns of pixels")})


def structure(seen):
    text = "Output shapes, parameters and multiply-adds for one image; bars are shares of these."
    shows = f"{counted(seen.anatomy.blocks, 'block')}, {seen.model.count_params():,} parameters"
    yield Section("What the model is made of", text, {"diagram": (plots.model_diagram(seen.model), shows)})


SECTIONS = (relevance, heads, features, distances, positions, patch_filters, structure)


def introduction(seen, weights):
    height, width = seen.anatomy.image_size
    return (
        f"{counted(seen.anatomy.blocks, 'block')}, weights: {weights}. The pictures are as the model sees "
        f"them, resized and cropped to {height} × {width} pixels."
    )


if __name__ == "__main__":
    cli.run(main)
