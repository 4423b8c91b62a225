"""The models of `cases.py` in their own libraries: timm, transformers, vit-pytorch, on PyTorch."""

import json
from functools import partial

import numpy as np
import timm
import torch

from support.cases import random_images, random_weights, resampling_input
from vit_tf.variants import get_variant

CONFIGS = {"ViT": "ViTConfig", "DeiT": "DeiTConfig", "Dinov2With": "Dinov2WithRegistersConfig"}


def reference_model(case):
    """Returns the case's model in PyTorch, in evaluation mode."""
    options = case["reference"]
    if "hybrid" in options:
        model = hybrid_model(case["variant"], **options)
    elif case["format"] in ("timm", "google"):
        # A hair more, as timm rounds the product with the width down.
        ratios = {key: options[key] + 1e-9 for key in options if key.endswith("mlp_ratio")}
        model = timm.create_model(case["variant"], **{**options, **ratios})
    elif case["format"] == "vit_pytorch":
        import vit_pytorch

        model = vit_pytorch.ViT(**{**options, "image_size": tuple(options["image_size"])})
    else:
        import transformers

        prefix = next((p for p in CONFIGS if options["model"].startswith(p)), None)
        config = getattr(transformers, CONFIGS.get(prefix, "Dinov2Config"))(**options["config"])
        model = getattr(transformers, options["model"])(config)
    return model.eval()


def hybrid_model(name, hybrid, mlp_ratio, **options):
    """Returns a hybrid of timm with another network in its stem than timm's constructors know."""
    from timm.models import vision_transformer_hybrid as hybrids

    variant = get_variant(name)
    width, blocks, arguments = hybrid.get("stem_width"), tuple(hybrid.get("stem_blocks", ())), {}
    standardized = partial(hybrids.StdConv2dSame, eps=1e-8)
    if variant.patch_stem == "mobileclip":
        d = options["embed_dim"]
        sizes = dict(channels=(d // 4, d // 4, d), stride=(4, 2, 2), kernel_size=(4, 2, 2), padding=0)
        backbone = hybrids.ConvStem(**sizes, act_layer=torch.nn.GELU)
        arguments = dict(embed_args=dict(proj=False), no_embed_class=True)
    elif variant.patch_stem == "resnet_d":
        channels = [width * 2**i for i in range(4)]
        sizes = dict(layers=(*blocks, 1)[:4], channels=channels, stem_width=width // 2)
        backbone = timm.create_model("resnet26d", features_only=True, out_indices=[len(blocks)], **sizes)
    elif blocks:
        channels = [4 * width * 2**i for i in range(4)]
        backbone = hybrids.ResNetV2(
            blocks, channels, 0, global_pool="", stem_chs=width, stem_type="same", preact=False,
            conv_layer=standardized,
        )  # fmt: skip
    else:
        backbone = hybrids.create_resnetv2_stem(3, width, "same", preact=False, conv_layer=standardized)
        arguments = dict(patch_size=8)
    options |= dict(mlp_ratio=mlp_ratio + 1e-9, **arguments)
    return hybrids._create_vision_transformer_hybrid(name, backbone, **options)


def complete(case, folder):
    """Adds the names and shapes of the weights, and the config.json that the library writes."""
    if "shapes" in case:
        return case
    model = reference_model(case)
    if case["format"] == "huggingface":
        model.save_pretrained(folder)
        from safetensors import safe_open

        with safe_open(folder / "model.safetensors", "numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        config = json.loads((folder / "config.json").read_text())
        return case | dict(shapes=shapes, config=config)
    counters = "num_batches_tracked"  # which PyTorch adds if they are missing
    tensors = {name: t for name, t in model.state_dict().items() if not name.endswith(counters)}
    return case | dict(shapes={name: list(t.shape) for name, t in tensors.items()})


def reference_logits(case, folder, seed=0):
    """Returns the library's own logits, or features, for the case's weights and images."""
    model = loaded_model(case, folder, seed)
    with torch.no_grad():
        output = model(reference_images(case, seed))
    for field in ("logits", "last_hidden_state"):
        output = getattr(output, field, output)
    return (output[:, 0] if output.ndim == 3 else output).numpy()


def reference_images(case, seed):
    return torch.tensor(random_images(case, seed).transpose(0, 3, 1, 2))


def reference_inside(case, folder, seed=0):
    """Returns what timm's blocks attend to, {index: (b, heads, n, n)}, and the features that leave them.

    Of attentions side by side, the mean. The features are those of `forward_intermediates`, normalised,
    {index: (b, grid_h, grid_w, d)}.
    """
    model = loaded_model(case, folder, seed)
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # which has no scores
        if name.endswith("attn_drop"):
            scores = found.setdefault(int(name.split(".")[1]), [])
            module.register_forward_pre_hook(lambda _, inputs, scores=scores: scores.append(inputs[0]))
    with torch.no_grad():
        options = dict(norm=True, output_fmt="NCHW", intermediates_only=True)
        features = model.forward_intermediates(reference_images(case, seed), **options)
    attention = {index: (sum(scores) / len(scores)).numpy() for index, scores in found.items()}
    return attention, {index: x.permute(0, 2, 3, 1).numpy() for index, x in enumerate(features)}


def reference_relevance(case, folder, class_index, seed=0):
    """Returns Chefer's relevance of a class and Grad-CAM in the last block, of timm's model by autograd.

    Rows are those of the class token, the mean of both tokens of a distilled model, else the mean of
    the patches; both are (b, grid_h, grid_w).
    """
    model = loaded_model(case, folder, seed)
    scores, tokens = [], []

    def keep(found, x):
        x = x * 1  # a tensor of its own: the gradient is of what is read here alone
        x.retain_grad()
        found.append(x)
        return x

    last = len(model.blocks) - 1
    for name, module in model.named_modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if name.endswith("attn_drop"):
            module.register_forward_pre_hook(lambda _, inputs: keep(scores, inputs[0]))
        if name.startswith(f"blocks.{last}.") and name.endswith(".attn"):
            module.register_forward_pre_hook(lambda _, inputs: keep(tokens, inputs[0]))
        if name == f"blocks.{last}.in_norm":
            module.register_forward_hook(lambda _, inputs, output: keep(tokens, output))
    with torch.enable_grad():
        model(reference_images(case, seed))[:, class_index].sum().backward()
    grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens
    b, n = tokens[0].shape[:2]
    rows = torch.zeros(b, n)
    rows[:, slice(0, prefix) if hasattr(model, "head_dist") else slice(0, 1)] = 1
    if model.global_pool != "token":
        rows = torch.zeros(b, n)
        rows[:, prefix:] = 1
    rows = rows / rows.sum(1, keepdim=True)
    side_by_side = len(scores) // len(model.blocks)
    for index in reversed(range(len(model.blocks))):
        some = scores[index * side_by_side : (index + 1) * side_by_side]
        matrix = sum((x * x.grad).clamp(min=0).mean(1) for x in some)
        rows = rows + (rows[:, None] @ matrix)[:, 0]
    cam = sum((x[:, prefix:] * x.grad[:, prefix:].mean(1, keepdim=True)).sum(-1) for x in tokens)
    maps = rows[:, prefix:], cam.clamp(min=0)
    return [x.detach().numpy().reshape(b, *grid) for x in maps]


def loaded_model(case, folder, seed):
    """Returns the case's model in PyTorch with the case's weights."""
    model = reference_model(case)
    weights = random_weights(case["shapes"], seed)
    if case["format"] == "google":
        np.savez(folder / "reference.npz", **weights)
        model.load_pretrained(str(folder / "reference.npz"))
    elif case["format"] == "huggingface":
        from safetensors.numpy import save_file

        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(case["config"]))
        model = type(model).from_pretrained(folder).eval()
    else:
        model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return model


def reference_resampled(case, seed=0):
    """Returns timm's resampling of a case, in our layout."""
    from timm.layers import resample_abs_pos_embed, resample_patch_embed

    x = torch.tensor(resampling_input(case, seed))
    new, options = list(case["new"]), dict(interpolation=case["method"], antialias=case["antialias"])
    if case["kind"] == "patch":
        return resample_patch_embed(x.permute(3, 2, 0, 1), new, **options).permute(2, 3, 1, 0).numpy()
    options["align_corners"] = case["align_corners"] or None
    return resample_abs_pos_embed(x, new, list(case["old"]), case["prefix"], **options).numpy()
