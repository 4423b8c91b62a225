"""Plan a training run on other machines: time, memory, communication and input, before it starts.

    vit-tf plan vit_b16 --device h100 --devices 8                       # ImageNet-1k, 300 epochs, batch 1,024
    vit-tf plan vit_l16 --device a100-40 --devices 64 --batch-size 4096 --optimizer muon --ema
    vit-tf plan vit_s16 --images 200000 --image-kb 300 --epochs 50      # your own images
    vit-tf plan vit_b16 --device h200 --measured runs/gpu/gpu.json      # the speed that a benchmark measured
    vit-tf plan vit_huge_patch14_224 --devices 64 --layout model --model-parallel 4

Every layout is shown with and without rematerialisation (--remat of `vit-tf train`), and the fastest that
fits is recommended. The numbers are estimates; the last lines list what they assume.
"""

from vit_tf import terminal
from vit_tf.checks import check_choice, check_number, require, suggestion
from vit_tf.commands.options import parse_image_size
from vit_tf.commands.startup import import_backend
from vit_tf.planning.accelerators import DEVICES
from vit_tf.planning.cluster import OPTIMIZERS, PRECISIONS, Cluster, Job, Speed, assumed_speed
from vit_tf.planning.image_sets import IMAGE_SETS, ImageSet
from vit_tf.planning.layout_estimates import choose_degrees, estimate
from vit_tf.planning.measured_speed import read_measured_speed
from vit_tf.planning.plan_report import report
from vit_tf.planning.workload import measure_workload
from vit_tf.variants import get_variant

HELP = "estimate time and memory of training on other machines"
DATASET = "imagenet1k"


def add_arguments(parser):
    parser.add_argument("variant", metavar="VARIANT", help="name of a variant, see `vit-tf list`")
    parser.add_argument("--image-size", metavar="PIXELS", help="side, or HEIGHTxWIDTH; default: the model's")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    add_job(parser.add_argument_group("training"))
    add_cluster(parser.add_argument_group("devices"))


def add_job(group):
    known = ", ".join(IMAGE_SETS)
    group.add_argument("--dataset", metavar="NAME", help=f"one of {known}; default: {DATASET}")
    group.add_argument(
        "--images", type=int, metavar="N", help="number of training images of another data set"
    )
    group.add_argument("--image-kb", type=float, metavar="KB", help="average size of a file, with --images")
    group.add_argument("--epochs", type=int, default=300, metavar="N", help="default: %(default)s")
    group.add_argument(
        "--batch-size",
        type=int,
        default=1024,
        metavar="N",
        help="images per step on all devices (%(default)s)",
    )
    group.add_argument(
        "--optimizer", default="adamw", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (adamw)"
    )
    group.add_argument(
        "--precision",
        default="bfloat16",
        metavar="P",
        help=f"{', '.join(PRECISIONS)} (bfloat16), of computing",
    )
    group.add_argument("--ema", action="store_true", help="keep an average of the weights")
    group.add_argument("--remat", action="store_true", help="show layouts with rematerialisation alone")
    group.add_argument(
        "--images-per-core", type=float, metavar="X", help="images/s that a CPU core decodes and augments"
    )


def add_cluster(group):
    group.add_argument(
        "--device", default="h100", metavar="NAME", help=f"one of {', '.join(DEVICES)}; default: %(default)s"
    )
    group.add_argument("--devices", type=int, default=1, metavar="N", help="how many (1)")
    group.add_argument("--devices-per-host", type=int, metavar="N", help="default: of the maker's machine")
    group.add_argument(
        "--link",
        type=float,
        metavar="GB/s",
        help="measured speed of an all-reduce (bus bandwidth) between hosts, or in the only host; default: "
        "80 %% of the data sheet",
    )
    group.add_argument("--layout", default="auto", metavar="L", help="data, model, or auto for both (auto)")
    group.add_argument(
        "--model-parallel",
        type=int,
        metavar="K",
        help="devices that share a copy of the model; default: 2, 4, 8",
    )
    speeds = group.add_mutually_exclusive_group()
    speeds.add_argument(
        "--efficiency", type=float, metavar="X", help="fraction of the peak that training reaches"
    )
    speeds.add_argument(
        "--images-per-second", type=float, metavar="X", help="measured training of one device"
    )
    speeds.add_argument("--measured", metavar="FILE", help="gpu.json or speed.json of the benchmarks")


def run(args):
    size = parse_image_size(args.image_size)
    overrides = {} if size is None else {"image_size": size}
    config = get_variant(args.variant, **overrides)
    require(not config.takes_any_size, f"{args.variant} takes images of any size: give --image-size")
    check_numbers(args)
    job, cluster, speed = make_job(args), make_cluster(args), make_speed(args)
    heads = [number for number in (config.num_heads, config.num_kv_heads) if number]
    degrees = choose_degrees(job, cluster, heads, args.layout, args.model_parallel)
    import_backend()
    workload = measure_workload(args.variant, **overrides)
    if args.images_per_second is not None:
        rate = args.images_per_second
        speed = Speed(rate * workload.training_flops(), f"one device trains {rate:,.4g} images/s, as given")
    plan = estimate(workload, job, cluster, speed, tuple(degrees), args.remat or None, args.images_per_core)
    print(terminal.json_text(plan.to_dict()) if args.json else report(plan))
    return 0


def check_numbers(args):
    """Raises a ValueError for a number that is out of range."""
    for name in ("image_kb", "images_per_core", "images_per_second", "link", "efficiency"):
        value = getattr(args, name)
        interval = {"efficiency": "(0, 1]", "images_per_second": "(0, 1e9]"}.get(name, "(0, inf)")
        if value is not None:
            check_number(f"--{name.replace('_', '-')}", value, interval)


def make_job(args):
    """Returns the `Job` of the options."""
    require(args.dataset is None or args.images is None, "give either --dataset or --images, not both")
    require(
        args.image_kb is None or args.images is not None,
        "--image-kb goes with --images N, the number of images",
    )
    name = args.dataset or DATASET
    message = (
        f"unknown --dataset {name!r}{suggestion(name, IMAGE_SETS)}: expected one of {', '.join(IMAGE_SETS)}"
    )
    require(name in IMAGE_SETS, f"{message}, or give --images and --image-kb")
    image_set = IMAGE_SETS[name]
    if args.images is not None:
        size = image_set.image_bytes if args.image_kb is None else 1000 * args.image_kb
        image_set = ImageSet(args.images, size)
    return Job(image_set, args.epochs, args.batch_size, args.optimizer, args.precision, args.ema)


def make_cluster(args):
    link = None if args.link is None else 1e9 * args.link
    return Cluster(args.device, args.devices, args.devices_per_host, link)


def make_speed(args):
    """Returns the `Speed` of the options; that of --images-per-second needs the model's FLOPs."""
    check_choice("--precision", args.precision, PRECISIONS)
    if args.measured is not None:
        return read_measured_speed(args.measured, args.precision)
    return assumed_speed(DEVICES[args.device], args.precision, args.efficiency)
