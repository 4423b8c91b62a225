"""timm's ViT, or this project's, as a file for another engine.

It is written in a process of its own, so that PyTorch and TensorFlow are in no memory that is measured.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from contestants import Dimensions


def write(job, path, exported=False):
    """Writes the model of `job` to `path`, whose ending tells the format: .xml (OpenVINO) or .onnx.

    Args:
        exported: bool. True writes this project's model with `vit_tf.export`, False timm's.

    Returns:
        The number of its parameters: the other engines fold some of them into each other.

    Raises:
        RuntimeError: the conversion failed; the message is its last line.
    """
    spec = json.dumps(
        {"dimensions": asdict(job.dimensions), "image_size": job.image_size, "exported": exported}
    )
    command = [sys.executable, "-m", "contestants.convert", spec, str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["failed"])[-1]
        raise RuntimeError(f"conversion from {'vit_tf' if exported else 'timm'}: {reason}")
    return int(result.stdout.splitlines()[-1])


def shape(job, batch_size, exported):
    """Returns the shape of a batch: this project's models take the channels last."""
    size = (job.image_size, job.image_size)
    return (batch_size, *size, 3) if exported else (batch_size, 3, *size)


def write_openvino(model, images, path):
    import openvino

    converted = openvino.convert_model(model, example_input=images, input=[-1, *images.shape[1:]])
    openvino.save_model(converted, path, compress_to_fp16=False)


def write_onnx(model, images, path):
    import torch

    torch.onnx.export(
        model,
        (images,),
        path,
        input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("b")},),
        dynamo=True,
        verbose=False,
    )


def export_own(dimensions, size, path):
    """Writes this project's model; returns the number of its parameters."""
    import vit_tf

    model = vit_tf.build_vit("vit_b16", image_size=size, **asdict(dimensions))
    folder = Path(path).with_suffix("")
    vit_tf.export(model, folder, format="openvino" if path.endswith(".xml") else "onnx")
    for file in folder.iterdir():
        file.rename(Path(path).with_name(file.name))
    return model.count_params()


def main():
    spec, path = json.loads(sys.argv[1]), sys.argv[2]
    size, dimensions = spec["image_size"], Dimensions(**spec["dimensions"])
    if spec["exported"]:
        return print(export_own(dimensions, size, path))
    import torch

    from contestants.timm import make_model

    model = make_model(dimensions, size).eval()
    writer = write_openvino if path.endswith(".xml") else write_onnx
    with torch.no_grad():
        writer(model, torch.zeros(2, 3, size, size), path)
    print(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
