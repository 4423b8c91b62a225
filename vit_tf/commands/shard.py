"""Write labelled images as shards: a few large files that can be read fast from any place.

    vit-tf shard imagenet shards/imagenet                        # ArrayRecord, 256 MB each
    vit-tf shard pets.zip shards/pets --format webdataset        # tar files, as WebDataset has them
    vit-tf train --data shards/imagenet                          # every command takes the folder as DATA

DATA is a folder, zip or CSV of labelled images, see `vit-tf finetune --help`. The bytes of the images are
kept as they are. Each image is decoded once; those that cannot be read are left out and listed in
OUT/bad_files.csv, and later runs on the shards do not check again. After Ctrl-C, a kill or a full disk the
same command continues. The index, which makes OUT a data set, is written last of all.
"""

from pathlib import Path

from vit_tf.checks import check_int, check_number, printable
from vit_tf.memory import gigabytes
from vit_tf.terminal import shell_quoted

HELP = "write labelled images as shards"
FORMATS = ("arrayrecord", "webdataset")


def add_arguments(parser):
    parser.add_argument("data", metavar="DATA", help="labelled images, see above")
    parser.add_argument(
        "out", metavar="OUT", type=Path, help="folder to write; an unfinished one is continued"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="arrayrecord",
        help="arrayrecord (default), which grain reads; or webdataset: tar files of KEY.jpg, .cls and .json",
    )
    parser.add_argument(
        "--shard-mb", type=int, default=256, metavar="N", help="megabytes after which a shard ends (256)"
    )
    parser.add_argument(
        "--max-bad", type=float, default=0.01, metavar="X", help="largest share of unreadable files (0.01)"
    )


def run(args):
    """Returns the exit code: 0, or 1 if some images are left out."""
    check_int("--shard-mb", args.shard_mb, 1)
    check_number("--max-bad", args.max_bad, "[0, 1]")
    from vit_tf.data import write_shards

    written = write_shards(args.data, args.out, args.format, args.shard_mb, args.max_bad)
    for note in written.notes:
        print(f"note: {printable(note)}")
    if written.bad:
        path = printable(args.out / "bad_files.csv")
        print(f"{len(written.bad):,} files cannot be read and are left out: see {path}")
    print(
        f"wrote {written.num_images:,} images in {written.num_shards:,} shards, "
        f"{gigabytes(written.num_bytes)}, to {printable(args.out)}\n"
        f"try: vit-tf train --data {shell_quoted(args.out)}"
    )
    return 1 if written.bad else 0
