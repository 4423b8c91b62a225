"""The models of `library_cases.py` in their own libraries; and the recording of the cases:

    PYTHONPATH=.:tests python -m support.libraries

(needs torch, torchvision, timm, transformers, open_clip and keras-hub; and the makers' programs, see
`makers.py`)
"""

import json
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
import torch._dynamo  # noqa: F401  # which aborts a process that loaded TensorFlow before it
import transformers

from support import makers
from support.cases import random_weights
from support.library_cases import SIGLIP2, case_images, library_cases, preset_arrays
from support.paths import FIXTURES


def reference(case, folder, seed=0):
    """Writes the file of a case as its library does, with random values.

    Returns:
        (case, outputs): the case with the `shapes` of the file and its `config`; and what the library
        computes.
    """
    case, model = LIBRARIES[case["library"]](case, folder, seed)
    if case["library"] == "keras_hub":
        return case, keras_output(model, case, case_images(case, seed))
    with torch.no_grad():
        return case, np.asarray(outputs(model, case, torch_images(case, seed)))


def torch_images(case, seed):
    return torch.tensor(case_images(case, seed).transpose(0, 3, 1, 2))


def shapes_of(arrays):
    return {name: list(array.shape) for name, array in arrays.items()}


def with_random_values(model, seed):
    """Gives a PyTorch module random values by the names of its tensors; returns their shapes."""
    shapes = shapes_of({name: t for name, t in model.state_dict().items() if t.is_floating_point()})
    values = {name: torch.tensor(array) for name, array in random_weights(shapes, seed).items()}
    model.load_state_dict(values, strict=False)
    return shapes


# transformers --------------------------------------------------------------------------------------


def in_transformers(case, folder, seed):
    from safetensors.torch import load_file, save_file

    kind = getattr(transformers, case["model"])
    model = kind(kind.config_class(**case["reference"])).eval()
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    if case["names"] == "module":
        shapes = with_random_values(model, seed)
        save_file({name: model.state_dict()[name].contiguous() for name in shapes}, path)
    else:
        shapes = shapes_of(load_file(path))
        values = random_weights(shapes, seed)
        save_file({name: torch.tensor(x) for name, x in values.items()}, path, metadata={"format": "pt"})
        model = kind.from_pretrained(folder).eval()
        model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    return case | dict(shapes=shapes, config=config), model


def siglip2_inputs(images, patch):
    """Returns the inputs of SigLIP 2 of any size: patches of rows, columns and channels."""
    b, c, height, width = images.shape
    x = images.reshape(b, c, height // patch, patch, width // patch, patch)
    x = x.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, patch * patch * c)
    grid = torch.tensor([[height // patch, width // patch]] * b)
    mask = torch.ones(x.shape[:2], dtype=torch.int64)
    return dict(pixel_values=x, pixel_attention_mask=mask, spatial_shapes=grid)


# Files of torch.save --------------------------------------------------------------------------------


def in_torchvision(case, folder, seed):
    from torchvision.models import VisionTransformer

    model = VisionTransformer(**case["reference"]).eval()

    def new_name(name):
        old = case["id"].endswith("2022")
        return name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2") if old else name

    return save_torch(case, model, model.state_dict(), folder, seed, new_name), model


def in_open_clip(case, folder, seed):
    import open_clip

    model = open_clip.CLIP(**case["reference"], output_dict=False).eval()
    case = save_torch(case, model, model.state_dict(), folder, seed)
    return case, model.encode_image


def in_open_clip_folder(case, folder, seed):
    import open_clip
    from open_clip.model import set_model_preprocess_cfg
    from open_clip.push_to_hf_hub import save_config_for_hf
    from safetensors.torch import save_file

    model = open_clip.CLIP(**case["reference"], output_dict=False).eval()
    set_model_preprocess_cfg(model, case["images"])
    shapes = with_random_values(model, seed)
    values = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(values, folder / "open_clip_model.safetensors")
    save_config_for_hf(model, folder / "open_clip_config.json", case["reference"])
    config = json.loads((folder / "open_clip_config.json").read_text())
    return case | dict(shapes=shapes, config=config), model.encode_image


def in_openai(case, folder, seed):
    import open_clip

    model = open_clip.CLIP(**case["reference"], output_dict=False).eval()
    for name in ("input_resolution", "context_length", "vocab_size"):
        if hasattr(model, name):
            delattr(model, name)
        model.register_buffer(name, torch.tensor(48))
    shapes = with_random_values(model, seed)
    with warnings.catch_warnings(action="ignore"):  # PyTorch calls TorchScript deprecated
        program = torch.jit.trace_module(model, {"encode_image": torch_images(case, seed)})
        program.save(folder / case["file"])
    return case | dict(shapes=shapes), model.encode_image


def in_timm(case, folder, seed):
    """timm's model of the same modules, in the dictionary that another program saves."""
    model = timm.create_model(case["variant"], **case["reference"]).eval()
    return save_torch(case, model, model.state_dict(), folder, seed, nested=True), model


def in_makers(case, folder, seed):
    """The model of the maker's own program, in the dictionary that this program saves."""
    model = makers.build(case["id"], case["reference"]).eval()
    case = save_torch(case, model, model.state_dict(), folder, seed, nested=case["id"] in PREFIXES)
    return case, partial(makers.features, model)


# What stands before the names in the files of programs.
PREFIXES = {
    "DINO": "teacher.backbone.",
    "MAE": "model.",
    "DINOv2 in chunks": "teacher.backbone.",
    "I-JEPA": "encoder.module.",
    "Lightning": "state_dict.model.",
}
BESIDE = {
    "DINO": {"student.module.backbone.patch_embed.proj.weight": [48, 3, 16, 16], "dino_loss.center": [1, 4]},
    "DINOv2 in chunks": {"teacher.dino_head.mlp.0.weight": [8, 48]},
    "I-JEPA": {"predictor.module.mask_token": [1, 1, 8]},
    "Lightning": {"state_dict.criterion.weight": [5]},
}
BESIDE["I-JEPA"]["target_encoder.module.patch_embed.proj.weight"] = [48, 3, 16, 16]


def save_torch(case, model, state, folder, seed, new_name=str, nested=False):
    """Gives a module random values by the names in its file, saves the file, and returns the whole case."""
    prefix = PREFIXES.get(case["id"], "")
    floats = {n: prefix + new_name(n) for n, tensor in state.items() if tensor.is_floating_point()}
    shapes = {theirs: list(state[name].shape) for name, theirs in floats.items()} | BESIDE.get(case["id"], {})
    values = {name: torch.tensor(x) for name, x in random_weights(shapes, seed).items()}
    values |= {floats[name]: state[name] for name in floats if name.endswith(makers.FIXED)}
    model.load_state_dict({name: values[theirs] for name, theirs in floats.items()}, strict=False)
    content = {"epoch": 3} if nested else values
    for name in values if nested else ():
        first, _, rest = name.partition(".")
        content.setdefault(first, {})[rest] = values[name]
    torch.save(content, folder / case["file"])
    return case | dict(shapes=shapes)


# keras-hub -----------------------------------------------------------------------------------------


def in_keras_hub(case, folder, seed):
    import h5py
    import keras_hub

    config, options = case["reference"], case["options"]
    if case["model"] == "SigLIPBackbone":
        vision = keras_hub.models.SigLIPVisionEncoder(**config)
        text = dict(vocabulary_size=20, embedding_dim=48, hidden_dim=48, num_layers=1, num_heads=3)
        text |= dict(intermediate_dim=32, max_sequence_length=8)
        backbone = keras_hub.models.SigLIPBackbone(vision, keras_hub.models.SigLIPTextEncoder(**text))
        output = vision
    else:
        output = backbone = getattr(keras_hub.models, case["model"])(**config)
    whole = backbone
    if "num_classes" in options:
        output = whole = keras_hub.models.ViTImageClassifier(backbone=backbone, **options)
    shards = {key: value for key, value in options.items() if key == "max_shard_size"}
    whole.save_to_preset(folder, **shards)
    shapes = {}
    for path in sorted(folder.glob("*.weights.h5")):
        found = shapes[path.name] = {}
        with h5py.File(path, "r+") as file:
            datasets = {}
            file.visititems(lambda name, item, datasets=datasets: datasets.update({name: item}))
            for name, item in datasets.items():
                if isinstance(item, h5py.Dataset) and not name.startswith("optimizer/"):
                    found[name] = "index" if item.dtype.kind == "i" else list(item.shape)
            for name, array in preset_arrays(found, seed).items():
                if found[name] != "index":
                    file[name][...] = array
    again = keras_hub.models.ViTImageClassifier if "num_classes" in options else type(backbone)
    again = again.from_preset(str(folder), **({"preprocessor": None} if "num_classes" in options else {}))
    again.save_to_preset(folder, **shards)
    files = ("config.json", "task.json", "model.weights.json")
    contents = {name: json.loads((folder / name).read_text()) for name in files if (folder / name).exists()}
    if case["model"] == "SigLIPBackbone":
        output = again.vision_encoder
    else:
        output = again
    return case | dict(shapes=shapes, config=contents), output


def keras_output(model, case, images):
    """Returns the logits, or the features, of a model of keras-hub for images of NumPy."""
    name = "pixel_values" if case["model"] == "DINOV3Backbone" else "images"
    inputs = images if case["model"] == "ViTBackbone" else {name: images}
    result = np.asarray(model(inputs))
    return result[:, 0] if result.ndim == 3 else result


def outputs(model, case, images):
    """Returns what a case compares of the output of its library's model."""
    if case["library"] != "transformers":
        return model(images)
    kind = case["output"]
    inputs = dict(pixel_values=images)
    if case["model"].startswith("Siglip2"):
        inputs = siglip2_inputs(images, SIGLIP2["patch_size"])
    if kind == "image_features":
        return model.get_image_features(**inputs).pooler_output
    if case["model"] == "ViTMAEForPreTraining":
        model = model.vit
    if case["model"] == "Aimv2Model":
        model = model.vision_model
    output = model(**inputs)
    if kind == "mean":
        return output.last_hidden_state.mean(1)
    return output.last_hidden_state[:, 0] if kind == "token" else output[kind]


LIBRARIES = {
    "transformers": in_transformers,
    "torchvision": in_torchvision,
    "open_clip": in_open_clip,
    "open_clip_folder": in_open_clip_folder,
    "openai": in_openai,
    "makers": in_makers,
    "timm": in_timm,
    "keras_hub": in_keras_hub,
}


def rounded(array):
    """Returns an array as lists of numbers of seven digits, all that a float32 has."""
    return [rounded(x) for x in array] if array.ndim else float(f"{array:.7g}")


def main():
    """Writes the fixture: the cases of the libraries that are named in the arguments, or all."""
    path = FIXTURES / "libraries.json"
    old = {case["id"]: case for case in json.loads(path.read_text())} if path.exists() else {}
    lines = []
    for case in library_cases():
        if len(sys.argv) < 2 or case["library"] in sys.argv[1:] or case["id"] not in old:
            with tempfile.TemporaryDirectory() as folder:
                case, expected = reference(case, Path(folder))
            case.pop("reference"), case.pop("file", None)
            case |= dict(expected=rounded(expected))
            print(case["id"])
        else:
            case = old[case["id"]]
        lines.append(json.dumps(case, separators=(",", ":")))
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
