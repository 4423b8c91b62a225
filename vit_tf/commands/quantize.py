"""Quantize a classifier to int8 for a runtime, with settings that are chosen by measuring them.

    vit-tf quantize runs/pets out --data pets --runtime openvino
    vit-tf quantize cifar10 out --data cifar10 --runtime onnxruntime
    vit-tf quantize hf:timm/NAME out --data imagenet/val --runtime litert --max-drop 1

OUT is a folder with the model's file and vit_tf.json, whose "quantization" is the report: size, speed,
accuracy before and after, agreement, what stayed in float and why, and what was tried. Each setting of the
runtime's own tool is applied with the same calibration images and measured on the same held-out images. Of
those whose loss of accuracy and its standard error are together at most --max-drop points, the fastest is
kept; if there is none, that with the smallest sum. If all lose more than --max-drop, nothing is written.

DATA is a folder, zip or CSV of labelled images, see `vit-tf finetune --help`; or cifar10, cifar100, sample,
or an .npz. Accuracy is measured on its validation images, else on images that are drawn by class. Test images
take no part: they are for a final test. If SOURCE is a run on the same DATA, the parts are the run's.
"""

from vit_tf import terminal
from vit_tf.checks import printable
from vit_tf.commands.folder_options import add_folder_options, check_folder_options, say
from vit_tf.commands.startup import import_backend, without_converter_lines
from vit_tf.deploy.quantizing import RUNTIMES

HELP = "quantize a classifier to int8, and measure what that costs"
NAMES_SHOWN = 3  # of layers that stayed in float


def add_arguments(parser):
    parser.add_argument("--data", required=True, metavar="DATA", help="labelled images, see above")
    parser.add_argument("--runtime", required=True, choices=RUNTIMES, help="what runs the quantized model")
    parser.add_argument(
        "--calibration-images", type=int, default=300, metavar="N", help="images to calibrate on (300)"
    )
    parser.add_argument(
        "--held-out",
        type=int,
        metavar="N",
        help="images to measure accuracy on; default: all validation images, at most 2,000",
    )
    parser.add_argument(
        "--max-drop", type=float, default=0.5, metavar="POINTS", help="largest loss of accuracy (0.5)"
    )
    parser.add_argument(
        "--match",
        choices=("name", "known", "order"),
        default="name",
        help="how classes of DATA are matched with labels, see `vit-tf evaluate --help`",
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="allowed share of unreadable images (0.01)",
    )
    add_folder_options(parser)


def run(args):
    from vit_tf.data.image_files import find_images
    from vit_tf.deploy.quantizing import check_settings
    from vit_tf.training.datasets import is_array_source

    check_settings(args.runtime, args.max_drop, args.calibration_images, args.held_out, args.preprocessing)
    check_folder_options(args)
    if not is_array_source(args.data):
        find_images(args.data)  # before Keras is imported
    with without_converter_lines():
        manifest = quantized(args)
    print_report(manifest.quantization)
    print(f"wrote {printable(args.out)}")
    return 0


def quantized(args):
    """Quantizes by the arguments; returns the `Manifest`."""
    import_backend(log_level=2)  # LiteRT's converter warns of its own defaults
    from vit_tf.deploy import quantize

    return quantize(
        args.source,
        args.out,
        args.data,
        runtime=args.runtime,
        max_drop=args.max_drop,
        calibration_images=args.calibration_images,
        held_out=args.held_out,
        preprocessing=args.preprocessing,
        match=args.match,
        max_bad=args.max_bad,
        force=args.force,
        variant=args.model,
        progress=say,
    )


def print_report(report):
    """Prints the report of `vit_tf.deploy.quantize` as a table, with a star for what is kept."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column(f"{report['runtime']}, int8")  # in narrow windows this column wraps
    for heading in ("drop, points", "agreement", "MB", "speed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for trial in report["tried"]:
        mark = "*" if trial["name"] == report["name"] else " "
        cells = ["failed", "", "", ""] if trial["error"] else measured_cells(trial)
        table.add_row(f"{mark} {trial['name']}", *cells)
    terminal.console().print(table)
    before, after = (report[key] for key in ("before", "after"))
    images = f"{report['held_out_images']:,} {report['held_out']} images"
    print(f"{report['metric']} {before:.2%} in float32, {after:.2%} in int8 ({images})")
    sizes = [report[key] / 1e6 for key in ("bytes_before", "bytes_after")]
    print(f"{sizes[0]:,.2f} MB in float32, {sizes[1]:,.2f} MB in int8; speed in batches of 8")
    for item in report["float_layers"]:
        names = item["layers"]
        more = f", ... ({len(names)} in all)" if len(names) > NAMES_SHOWN else ""
        print(f"in float: {', '.join(names[:NAMES_SHOWN])}{more}: {item['reason']}")


def measured_cells(trial):
    error = "" if trial["drop_error"] is None else f" ± {trial['drop_error']:.2f}"
    return [
        f"{trial['drop']:.2f}{error}",
        f"{trial['top1_agreement']:.2%}",
        f"{trial['bytes'] / 1e6:,.2f}",
        f"{trial['speed_ratio']:.2f} x",
    ]
