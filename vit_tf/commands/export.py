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

from vit_tf.commands.folder_options import add_folder_options, check_folder_options, say
from vit_tf.commands.options import parse_image_size
from vit_tf.commands.startup import import_backend, without_converter_lines
from vit_tf.deploy.export_formats import EXPORTED, FORMATS
from vit_tf.deploy.layouts import LAYOUTS

HELP = f"write a model for other runtimes: {', '.join(EXPORTED)}"


def add_arguments(parser):
    parser.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(EXPORTED))
    precisions = dict.fromkeys(name for entry in FORMATS.values() for name in entry.precisions)
    parser.add_argument(
        "--precision", default="float32", metavar="P", help=f"{', '.join(precisions)} (float32)"
    )
    parser.add_argument(
        "--encoded", action="store_true", help="decode and resize in the graph, for onnx and savedmodel"
    )
    parser.add_argument(
        "--image-size",
        metavar="PIXELS",
        help="side, or HEIGHTxWIDTH; several, as in 224,384, are one graph in savedmodel, onnx and openvino, "
        "else one folder each; default: the model's",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators (23; 20 for web)")
    parser.add_argument("--layout", metavar="SERVER", help=f"write the folders of {', '.join(LAYOUTS)}")
    parser.add_argument(
        "--onnxruntime-web",
        metavar="DIR",
        help="for web: a copy of the npm package onnxruntime-web, which npm downloads otherwise",
    )
    add_folder_options(parser)


def run(args):
    from vit_tf.deploy.exporting import check_settings
    from vit_tf.deploy.web.runtime_files import prepare_runtime_files

    check_settings(args.format, args.precision, args.opset, args.layout, args.onnxruntime_web, args.encoded)
    check_folder_options(args)
    if args.format == "web":
        prepare_runtime_files(args.onnxruntime_web)
    sizes = None if args.image_size is None else parse_sizes(args.image_size)
    with without_converter_lines():
        exported(args, sizes)
    return 0


def exported(args, sizes):
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


def parse_sizes(text):
    """Returns (height, width), or a list of them for several sizes, which a comma separates."""
    sizes = [parse_image_size(part) for part in text.split(",")]
    return sizes if len(sizes) > 1 else sizes[0]
