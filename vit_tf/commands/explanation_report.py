"""The report of `vit-tf explain`: the model and the images, and the sections about them."""

from pathlib import Path

import numpy as np

import vit_tf
from vit_tf import plots
from vit_tf.block_features import select_blocks
from vit_tf.checks import check_int, printable
from vit_tf.explain.gradient import symbolic_logits
from vit_tf.explain.relevance import pooled_tokens, pooling_weights
from vit_tf.plots.html_report import Section, html_page
from vit_tf.structure import ViTStructure

TOKENS = {
    "class_token": "the class token",
    "distillation_token": "the distillation token",
    "register_tokens": "the registers",
    "patches": "the mean of all patches",
}


def counted(things, noun):
    return f"{len(things)} {noun}{'s' * (len(things) != 1)}"


class ReportContext:
    """A model with the images of a report and their predictions.

    Args:
        loaded: a `vit_tf.classifier.Classifier`.
        paths: of the image files, n.
        layer: number or name of the block whose heads and features are drawn.
        class_index: int, the class that relevance is drawn for; None for the likeliest of each image.

    Raises:
        ValueError: the model has no such block or class, or a file is not an image.

    Attributes:
        structure: the `ViTStructure` of the model.
        layer: name of the block.
        x: float32 array (n, h, w, 3), normalised.
        images: the same in [0, 255], cropped to what the patches cover.
        names: of the images, n.
        captions: the names, each with the likeliest class if the model has a head.
        classes: per image a list of (label, probability as text).
        target: the class that relevance is drawn for, as text.
    """

    def __init__(self, loaded, paths, layer, class_index):
        self.model = loaded.model
        self.structure = ViTStructure(self.model, image_size=loaded.preprocessing.image_size)
        (self.layer,) = select_blocks(self.structure, layer)
        self.class_index = class_index
        if class_index is not None:
            check_int("--class", class_index, 0, symbolic_logits(self.structure)[0].shape[-1] - 1)
        self.x = loaded.preprocessing(paths)
        height, width = self.structure.patched_size
        self.images = loaded.preprocessing.to_pixels(self.x)[:, :height, :width]
        names = [printable(Path(str(path)).name) for path in paths]  # `StoredImage`s, too
        self.names = names if len(set(names)) == len(names) else [printable(path) for path in paths]
        self.classes, self.captions, self.target = [()] * len(names), self.names, "the likeliest class"
        if self.structure.heads:
            self.classify(loaded)
        if class_index is not None:
            self.target = f"class {class_index}"

    def classify(self, loaded):
        logits = self.model.predict_on_batch(self.x)
        predictions = loaded.decode(logits, 5)
        self.captions = [
            f"{name}\n{printable(best.label)} {best.text}"
            for name, (best, *_) in zip(self.names, predictions)
        ]
        self.classes = [
            [(each.label, f"{each.text} ✓" if each.selected else each.text) for each in image]
            for image in predictions
        ]
        if len(predictions[0]) > logits.shape[-1]:  # a single logit is that of the second label
            self.target = printable(loaded.labels[1])

    def one_by_one(self, function, *args):
        """Returns a function of model and images for all images, with the memory of one."""
        maps = [function(self.model, self.x[i : i + 1], *args) for i in range(len(self.x))]
        return np.concatenate(maps)

    def titled(self, title):
        """Returns the title of a figure with the name of the model."""
        return f"{self.model.name}: {title}"

    @property
    def query_name(self):
        """The tokens that the pooling reads, as text."""
        return " and ".join(TOKENS[name] for name in pooled_tokens(self.structure))


# ---------------------------------------------------------------------------------------------------
# Sections of the report: each function yields `Section`s
# ---------------------------------------------------------------------------------------------------
def relevance(context):
    maps = {"rollout": context.one_by_one(vit_tf.attention_rollout)}
    text = "Rollout: the share of each patch in the pooled features if attention alone mixed the tokens."
    if context.structure.heads:
        maps["relevance"] = context.one_by_one(vit_tf.class_relevance, context.class_index)
        maps["Grad-CAM"] = context.one_by_one(vit_tf.grad_cam, context.class_index)
        text += (
            f" Relevance: attention weighted by its gradient with respect to {context.target}. "
            "Grad-CAM: the same for the tokens."
        )
    figure = plots.saliency_maps(
        list(context.images), maps, context.captions, context.titled("relevant patches")
    )
    description = f"{', '.join(maps)} over {', '.join(context.names)}"
    yield Section("Relevant patches", text, {"relevance": (figure, description)})


def heads(context):
    names, places = pooled_tokens(context.structure), context.structure.token_slices
    queries = names[0] if len(names) == 1 else None
    rows = pooling_weights(context.structure)[places[queries] if queries else slice(None)]
    options = dict(layers=[context.layer], queries=queries)
    maps = context.one_by_one(
        lambda *args: np.einsum("bhqk,q->bhk", vit_tf.attention_maps(*args, **options)[context.layer], rows)
    )
    title = f"What {context.query_name} attends to in {context.layer}"
    yield heads_section(context, title, "heads", maps)
    if context.structure.pools_by_attention:
        maps = context.one_by_one(lambda *args: vit_tf.attention_maps(*args, layers="pooling")["pooling"])
        yield heads_section(
            context, "What the learned query of the pooling attends to", "pooling", maps[:, :, 0]
        )


def heads_section(context, title, name, maps):
    """Returns a section of the heads' attention `(b, heads, k)`, the patches last."""
    count = int(np.prod(context.structure.grid_size))
    maps = context.structure.to_grid(maps[..., -count:])
    text = "Each head has its own scale; the title gives the largest value."
    figures = {}
    for i, caption in enumerate(context.captions):
        description = caption.replace("\n", ": ")
        figures[f"{name}_{i}"] = plots.attention_heads(context.images[i], maps[i], description), description
    return Section(title, text, figures)


def features(context):
    count = len(context.x) * int(np.prod(context.structure.grid_size))
    title = f"Features of the patches after {context.layer}"
    if count < 4:
        yield Section(title, f"Left out: this needs at least four patches, and there are {count}.", {})
        return
    by_block = vit_tf.forward_features(context.model, context.x)
    colours = vit_tf.features_to_rgb(by_block[context.layer])
    text = "Three principal components of all patches as red, green and blue: similar patches look alike."
    caption = context.titled(f"features of the patches after {context.layer}")
    figure = plots.feature_colours(list(context.images), colours, caption, context.names)
    description = f"colours of the patches of {', '.join(context.names)}"
    yield Section(title, text, {"features": (figure, description)})
    patches = {name: x.reshape(-1, x.shape[-1]) for name, x in by_block.items()}
    matrix = vit_tf.linear_cka(patches, patches)
    text = (
        "Linear CKA of the features of all patches of these images after two blocks: 1 if they are equal up "
        "to rotation and scale."
    )
    figure = plots.similarity_matrix(
        matrix, list(by_block), list(by_block), context.titled("similarity of the blocks")
    )
    description = f"first and last block: {matrix[0, -1]:.2f}"
    yield Section("Similarity of the blocks", text, {"cka": (figure, description)})


def distances(context):
    distance = vit_tf.attention_distance(context.model, context.x)
    text = (
        "Mean distance in pixels between a patch and the patches it attends to, over "
        f"{counted(context.x, 'image')}; the ViT paper took 128."
    )
    side = max(context.structure.image_size)
    figure = plots.attention_distances(distance, context.titled("attention distance of the heads"), side)
    first, last = distance[0].mean(), distance[-1].mean()
    description = f"{first:.0f} pixels in the first block, {last:.0f} in the last, mean of the heads"
    yield Section("Attention distance of the heads", text, {"distances": (figure, description)})


def positions(context):
    title, encoder = "Similarity of the positions", context.structure.patch_encoder
    if encoder is None or not encoder.position_table:
        yield Section(title, "Left out: the model has no table of positions.", {})
        return
    similarity = vit_tf.position_similarity(context.model)
    text = "The cosine similarity of each position embedding to all others."
    figure = plots.position_similarities(similarity, context.titled("similarity of the positions"))
    description = "one map per position of the grid"
    yield Section(title, text, {"positions": (figure, description)})


def patch_filters(context):
    text = "The principal components of the filters of the patch embedding; grey is zero."
    figure = plots.filters(vit_tf.patch_filters(context.model), context.titled("patch embedding filters"))
    yield Section("Patch embedding filters", text, {"filters": (figure, "patterns of pixels")})


def structure(context):
    text = "Output shapes, parameters and multiply-adds for one image; bars show the shares."
    description = f"{counted(context.structure.blocks, 'block')}, {context.model.count_params():,} parameters"
    yield Section("Stages of the model", text, {"diagram": (plots.model_diagram(context.model), description)})


SECTIONS = (relevance, heads, features, distances, positions, patch_filters, structure)


def html(context, sections, weights):
    """Returns the report as the text of an HTML page."""
    height, width = context.structure.image_size
    introduction = (
        f"{counted(context.structure.blocks, 'block')}, weights: {weights}. Images are shown as the model "
        f"receives them, resized and cropped to {height} × {width} pixels."
    )
    cards = zip(context.images, context.names, context.classes)
    return html_page(f"Inside {context.model.name}", introduction, cards, sections)
