"""Find the images of an embeddings file that are most similar to a query image.

    vit-tf embed photos --weights hf:timm/NAME --out photos.parquet
    vit-tf search photos.parquet query.jpg                       # the ten most similar, with similarities
    vit-tf search photos.parquet query.jpg --top 50 --html search.html
    vit-tf search photos.parquet a.jpg b.jpg --json

The query is embedded by the weights, pooling and preprocessing that FILE names. The similarity is the cosine
of the two vectors, and all vectors of FILE are compared. --html writes a page with thumbnails in one file.
"""

import os
import sys
from pathlib import Path

from vit_tf import files, terminal
from vit_tf.checks import brief, check_int, printable
from vit_tf.commands.options import check_new_file
from vit_tf.commands.runtime_options import check_runtime, import_runtime

HELP = "find the images of an embeddings file that are similar to a query"


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE", help="what `vit-tf embed` wrote")
    parser.add_argument("queries", nargs="+", metavar="QUERY", help="image files")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="number of images per query (10)")
    parser.add_argument("--weights", metavar="SOURCE", help="where the weights are now; default: as in FILE")
    add_pages(parser)


def add_pages(parser):
    """Adds the options of output that `search` and `duplicates` share."""
    parser.add_argument(
        "--images", metavar="FOLDER", help="where the images of FILE are now; default: as FILE says"
    )
    parser.add_argument("--html", metavar="PAGE", help="write a page with thumbnails")
    parser.add_argument("--force", action="store_true", help="replace PAGE if it exists")
    parser.add_argument("--json", action="store_true", help="print only JSON")


def check_pages(args):
    """Raises a ValueError for options of `add_pages` that cannot be used."""
    if args.html is not None:
        check_new_file("--html", args.html, args.force)
    if args.images is not None and not os.path.isdir(args.images):
        raise ValueError(f"--images {args.images!r} is no folder")


def run(args):
    """Returns the exit code: 0, or 2 if a query cannot be read."""
    from vit_tf.embeddings.neighbours import NearestNeighbours
    from vit_tf.embeddings.vector_file import read_embeddings
    from vit_tf.preprocessing.decode import read_image

    check_int("--top", args.top, 1)
    check_pages(args)
    embeddings = read_embeddings(args.file)
    for query in args.queries:
        read_image(query)  # an error comes before the slow imports
    extractor = open_extractor(args, embeddings.info)
    neighbours = NearestNeighbours(embeddings.vectors, exact=True)
    results = neighbours.search(extractor.embed(args.queries), args.top)
    found = [list(zip(*rows)) for rows in zip(*results)]  # per query: pairs of similarity and index
    if args.html is not None:
        write_page(args, embeddings, found)
    if args.json:
        print(terminal.json_text([as_dict(*each, embeddings) for each in zip(args.queries, found)]))
        return 0
    for query, pairs in zip(args.queries, found):
        print(printable(query))
        for similarity, i in pairs:
            label = f"  [{printable(embeddings.labels[i])}]" if embeddings.labels[i] else ""
            print(f"  {similarity:6.3f}  {printable(embeddings.paths[i])}{label}")
    return 0


def open_extractor(args, info):
    """Returns the extractor that made a file; a ValueError if it gives other vectors."""
    source = args.weights or info.source
    try:
        runtime = check_runtime("auto", source, info.model)
    except (ValueError, OSError) as error:
        hint = "" if args.weights else "; if the weights have moved, add --weights"
        raise ValueError(f"the weights of {args.file!r} cannot be opened: {brief(error)}{hint}") from error
    import_runtime(runtime)
    from vit_tf.embeddings.extractor import features
    from vit_tf.embeddings.vector_info import VectorInfo

    size = tuple(info.preprocessing["image_size"])
    extractor = features(source, info.pooling, normalize=info.normalized, image_size=size, variant=info.model)
    info.check_same(VectorInfo.of(extractor, source, info.folder, info.model, info.dtype), args.file)
    return extractor


def as_dict(query, pairs, embeddings):
    """Returns the result of a query as plain values."""
    keys = ("image", "label", "similarity")
    rows = [(embeddings.paths[i], embeddings.labels[i], round(float(s), 6)) for s, i in pairs]
    return {"query": query, "results": [dict(zip(keys, row)) for row in rows]}


def write_page(args, embeddings, found):
    from vit_tf.embeddings.contact_sheet import Card

    sections = []
    for query, pairs in zip(args.queries, found):
        cards = [Card(Path(query), query, "query", is_first=True)]
        for similarity, i in pairs:
            file, label = embeddings.file(i, args.images), embeddings.labels[i] or ""
            cards.append(Card(file, embeddings.paths[i], f"{similarity:.3f}", label))
        sections.append((f"Similar to {Path(query).name}", cards))
    info = embeddings.info
    text = f"Of {len(embeddings):,} images, embedded by {info.variant} ({info.source}). "
    text += "The numbers are cosine similarities."
    save_page(args, "Similar images", text, sections)


def save_page(args, title, text, sections):
    """Writes the page of --html, see `contact_sheet`, and says so."""
    from vit_tf.embeddings.contact_sheet import contact_sheet

    page = Path(args.html)
    with files.atomic_path(page) as partial:
        partial.write_text(contact_sheet(title, text, sections, page.absolute().parent), "utf-8")
    print(f"wrote {printable(page)}", file=sys.stderr if args.json else sys.stdout)
