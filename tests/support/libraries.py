"""The models of `library_cases.py` in their own libraries; and the recording of the cases:

    PYTHONPATH=.:tests python -m support.libraries

(needs torch, torchvision, timm, transformers, open_clip and keras-hub)
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # noqa: F401  # which aborts a process that loaded TensorFlow before it
import transformers

from support.cases import random_weights
from support.library_cases import SIGLIP2, case_images, library_cases
from support.paths import FIXTURES


def reference(case, folder, seed=0):
    """Writes the file of a case as its library does, with random values.

    Returns:
        (case, outputs): the case with the `shapes` of the file and its `config`; and what the library
        computes.
    """
    case, model = LIBRARIES[case["library"]](case, folder, seed)
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


def outputs(model, case, images):
    """Returns what a case compares of the output of its library's model."""
    kind = case["output"]
    if case["library"] != "transformers":
        return model(images)
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


LIBRARIES = {"transformers": in_transformers}


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
            del case["reference"]
            case |= dict(expected=rounded(expected))
            print(case["id"])
        else:
            case = old[case["id"]]
        lines.append(json.dumps(case, separators=(",", ":")))
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
