"""timm's ViT as a file for another engine.

It is written in a process of its own, so that PyTorch is in no memory that is measured.
"""

import json
import subprocess
import sys
from dataclasses import asdict

from contestants import Dimensions


def write(job, path):
    """Writes the model of `job` to `path`, whose ending tells the format: .xml (OpenVINO) or .onnx.

    Returns the number of its parameters: the other engines fold some of them into each other.

    Raises:
        RuntimeError: the conversion failed; the message is its last line.
    """
    spec = json.dumps({"dimensions": asdict(job.dimensions), "image_size": job.image_size})
    command = [sys.executable, "-m", "contestants.convert", spec, str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"conversion from timm: {(result.stderr.strip().splitlines() or ['failed'])[-1]}")
    return int(result.stdout.splitlines()[-1])


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


def main():
    import torch

    from contestants.timm import make_model

    spec, path = json.loads(sys.argv[1]), sys.argv[2]
    size = spec["image_size"]
    model = make_model(Dimensions(**spec["dimensions"]), size).eval()
    writer = write_openvino if path.endswith(".xml") else write_onnx
    with torch.no_grad():
        writer(model, torch.zeros(2, 3, size, size), path)
    print(sum(parameter.numel() for parameter in model.parameters()))


if __name__ == "__main__":
    main()
