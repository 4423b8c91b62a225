"""Show what a model attends to in images: attention, relevance, features, positions, filters.

    vit-tf explain cat.jpg                                        # by the CIFAR-10 model in this package
    vit-tf explain cat.jpg dog.jpg --weights runs/pets --out inside
    vit-tf explain cat.jpg --weights hf:timm/NAME --class 281     # relevance for a class

OUT gets the figures as PNG files, and report.html, which contains all of them. An earlier report in OUT is
replaced.
"""

from pathlib import Path

from vit_tf import files, terminal
from vit_tf.commands.options import add_model, add_weights, check_source
from vit_tf.commands.startup import import_backend

HELP = "draw attention, relevance and features for images"
MOST_IMAGES = 16


def add_arguments(parser):
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help=f"files, folders or patterns: up to {MOST_IMAGES} images"
    )
    add_weights(parser)
    add_model(parser)
    parser.add_argument(
        "--class",
        dest="class_index",
        type=int,
        metavar="N",
        help="class for the relevance; default: likeliest",
    )
    parser.add_argument(
        "--layer",
        type=number_or_name,
        default=-1,
        help="block whose heads and features are drawn, by number or name; default: -1, the last",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/explain"), help="folder; default: %(default)s")


def number_or_name(text):
    return int(text) if text.lstrip("-").isdigit() else text


def run(args):
    from vit_tf.data.image_paths import expanded, find_argument
    from vit_tf.preprocessing.decode import read_image

    names = [name for argument in args.images for name in expanded(argument)]
    images = [path for name in names for path in find_argument(name)[0]]
    if len(images) > MOST_IMAGES:
        raise ValueError(f"a report shows up to {MOST_IMAGES} images, got {len(images)}")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a folder, and {str(args.out)!r} is a file")
    for path in images:
        read_image(path)  # an error comes before the slow imports
    check_source(args.weights, args.model)
    import_backend()
    from vit_tf import classifier, plots
    from vit_tf.commands import explanation_report as report

    loaded = classifier.load(args.weights, args.model, headless=True)
    context = report.ReportContext(loaded, images, args.layer, args.class_index)
    args.out.mkdir(parents=True, exist_ok=True)
    remove_earlier(args.out)
    sections = []
    for draw in terminal.track(report.SECTIONS, "drawing"):
        for section in draw(context):
            for name, (figure, _) in section.figures.items():
                plots.save(figure, args.out / f"{name}.png")
            sections.append(section)
    with files.atomic_path(args.out / "report.html") as partial:
        partial.write_text(report.html(context, sections, args.weights), "utf-8")
    count = sum(len(section.figures) for section in sections)
    path = terminal.printable(args.out / "report.html")
    print(f"{path}: {count} figures of {report.counted(context.names, 'image')}")
    return 0


def remove_earlier(out):
    """Removes an earlier report, which may have had more images, and what a killed process left."""
    files.remove_partial_files(out)
    for path in (out / "report.html", *out.glob("heads_*.png"), *out.glob("pooling_*.png")):
        path.unlink(missing_ok=True)
