"""List the near-duplicates of an embeddings file: copies, crops, other sizes and compressions of an image.

    vit-tf embed photos --weights hf:timm/NAME --out photos.parquet
    vit-tf duplicates photos.parquet
    vit-tf duplicates photos.parquet --threshold 0.9 --html duplicates.html
    vit-tf duplicates photos.parquet --json

A group is an image and all later images whose cosine similarity to it reaches the threshold. What similarity
a copy has depends on the weights: look at a page of --html first. From 50,000 images on, an index of usearch
finds the candidates; --exact compares all pairs.
"""

from vit_tf import terminal
from vit_tf.checks import check_number, printable
from vit_tf.commands.search import add_pages, check_pages, save_page

HELP = "list the near-duplicates of an embeddings file"
MOST_SHOWN = 600  # images on a page


def add_arguments(parser):
    parser.add_argument("file", metavar="FILE", help="what `vit-tf embed` wrote")
    parser.add_argument(
        "--threshold", type=float, default=0.95, metavar="S", help="lowest cosine similarity (0.95)"
    )
    parser.add_argument("--exact", action="store_true", help="compare all pairs of any number of images")
    add_pages(parser)


def run(args):
    from vit_tf.embeddings.copies import near_duplicates
    from vit_tf.embeddings.vector_file import read_embeddings

    check_number("--threshold", args.threshold, "(0, 1]")
    check_pages(args)
    embeddings = read_embeddings(args.file)
    groups = near_duplicates(embeddings.vectors, args.threshold, exact=args.exact or None)
    if args.html is not None:
        write_page(args, embeddings, groups)
    if args.json:
        print(terminal.json_text([as_list(*group, embeddings) for group in groups]))
        return 0
    for indices, similarities in groups:
        for i, similarity in zip(indices, similarities):
            print(f"{similarity:6.3f}  {printable(embeddings.paths[i])}")
        print()
    print(summary(embeddings, groups, args.threshold))
    return 0


def summary(embeddings, groups, threshold):
    """Returns the numbers of groups and images as a line of text."""
    count = sum(len(indices) for indices, _ in groups)
    return (
        f"{len(groups):,} groups with {count:,} of {len(embeddings):,} images reach the similarity "
        f"{threshold:g}"
    )


def as_list(indices, similarities, embeddings):
    """Returns a group as plain values."""
    rows = zip(indices, similarities)
    return [{"image": embeddings.paths[i], "similarity": round(float(s), 6)} for i, s in rows]


def write_page(args, embeddings, groups):
    from vit_tf.embeddings.contact_sheet import Card

    sections, count = [], 0
    for indices, similarities in groups:
        if count + len(indices) > MOST_SHOWN:
            break
        count += len(indices)
        cards = [
            Card(
                embeddings.file(i, args.images),
                embeddings.paths[i],
                f"{similarity:.3f}",
                embeddings.labels[i] or "",
                is_first=not position,
            )
            for position, (i, similarity) in enumerate(zip(indices, similarities))
        ]
        sections.append((f"{len(indices)} images", cards))
    info = embeddings.info
    text = f"{summary(embeddings, groups, args.threshold)}, as {info.variant} ({info.source}) embeds them."
    if len(sections) < len(groups):
        text += f" The page shows the first {len(sections):,} groups."
    save_page(args, "Near-duplicates", text, sections)
