"""Export a model to other runtimes, checked there against the Keras model.

    vit-tf export cifar10 out --format onnx                          # ONNX Runtime, and others
    vit-tf export runs/pets out --format openvino --precision bfloat16
    vit-tf export hf:timm/NAME out --format savedmodel --preprocessing
    vit-tf export runs/pets out --format litert --precision float16
    vit-tf export runs/pets demo --format web                        # a page that runs the model
    vit-tf export runs/pets models --format openvino --layout ovms   # for OpenVINO Model Server

OUT is a folder with the model's file and vit_tf.json, which has the labels, the preprocessing and the
measured agreement. The exported model is run by its own runtime on real images before OUT appears. If an
output differs from the Keras model's by more than the bound of the precision, nothing is written.

The input "images" is float32 (b, h, w, 3) after the model's preprocessing, with any b. With --preprocessing
the input is uint8 pixels of the model's image size, and a SavedModel also takes encoded images. With
--encoded an ONNX model takes the bytes of one JPEG or PNG file.
"""

import sys
from pathlib import Path

from vit_tf.commands.options import add_model, check_source, parse_image_size
from vit_tf.commands.startup import import_backend
from vit_tf.deploy.export_formats import EXPORTED, FORMATS
from vit_tf.deploy.layouts import LAYOUTS

HELP = f"write a model for other runtimes: {', '.join(EXPORTED)}"


def add_arguments(parser):
    parser.add_argument("source", metavar="SOURCE", help="the weights, see `vit-tf --help`")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(EXPORTED))
    precisions = dict.fromkeys(name for entry in FORMATS.values() for name in entry.precisions)
    parser.add_argument(
        "--precision", default="float32", metavar="P", help=f"{', '.join(precisions)} (float32)"
    )
    parser.add_argument(
        "--preprocessing", action="store_true", help="normalise in the graph, which then takes uint8 pixels"
    )
    parser.add_argument(
        "--encoded", action="store_true", help="decode and resize in the graph, for onnx and savedmodel"
    )
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        help="side, or HEIGHTxWIDTH; several, as in 224,384, are one graph in onnx and openvino, else "
        "one folder each; default: the model's",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators (23; 20 for web)")
    parser.add_argument("--layout", metavar="SERVER", help=f"write the folders of {', '.join(LAYOUTS)}")
    parser.add_argument(
        "--onnxruntime-web",
        metavar="DIR",
        help="for web: a copy of the npm package onnxruntime-web, which npm downloads otherwise",
    )
    add_model(parser)
    parser.add_argument("--force", action="store_true", help="replace an exported folder OUT")


def run(args):
    from vit_tf.deploy.exporting import check_settings
    from vit_tf.deploy.folders import check_new_folder
    from vit_tf.deploy.web.runtime_files import prepare_runtime_files

    check_settings(args.format, args.precision, args.opset, args.layout, args.onnxruntime_web, args.encoded)
    check_new_folder(args.out, args.force)
    if args.format == "web":
        prepare_runtime_files(args.onnxruntime_web)
    sizes = None if args.image_size is None else parse_sizes(args.image_size)
    check_source(args.source, args.model)
    import_backend(log_level=2)  # LiteRT's converter warns of its own defaults
    from vit_tf.deploy import export

    export(
        args.source,
        args.out,
        format=args.format,
        precision=args.precision,
        preprocessing=args.preprocessing,
        encoded=args.encoded,
        image_size=sizes,
        opset=args.opset,
        layout=args.layout,
        force=args.force,
        variant=args.model,
        onnxruntime_web=args.onnxruntime_web,
        progress=say,
    )
    return 0


def say(line):
    print(line)
    sys.stdout.flush()


def parse_sizes(text):
    """Returns (height, width), or a list of them for several sizes, which a comma separates."""
    sizes = [parse_image_size(part) for part in text.split(",")]
    return sizes if len(sizes) > 1 else sizes[0]
