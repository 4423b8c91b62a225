"""How long cold processes take to start: imports, a prediction, and building models, on TensorFlow.

    python benchmarks/startup.py                          # a minute or two
    python benchmarks/startup.py --variants vit_s16 --rounds 3

Each row is a new process per round, and the rows take turns. "Building" is the time of `build_vit` with
random weights, the first model of its process; the other rows are the time of the whole process.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from processes import output_of

from vit_tf.commands import parser as cli
from vit_tf.variants import get_variant

KERAS = "`import keras`"


def main(arguments=None):
    parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["vit_b16", "vit_l16"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5, help="processes per row (5)")
    args = parser.parse_args(arguments)
    cli.check_counts(args, "rounds")
    for name in args.variants:
        get_variant(name)
    with tempfile.TemporaryDirectory() as folder:
        commands = make_commands(write_image(Path(folder)), args.variants)
        times = {name: [] for name in commands}
        for _ in range(args.rounds):
            for name, command in commands.items():
                times[name].append(seconds_of(command))
    print(markdown(times))


def write_image(folder):
    from PIL import Image

    Image.new("RGB", (320, 240), "green").save(folder / "image.png")
    return folder / "image.png"


def make_commands(image, variants):
    """Returns {row: arguments of Python}."""
    commands = {
        KERAS: ["-c", "import keras"],
        "`import keras, vit_tf`": ["-c", "import keras, vit_tf"],
        "`from vit_tf import build_vit`": ["-c", "from vit_tf import build_vit"],
        "`vit-tf predict` of an image, packaged model": ["-m", "vit_tf.commands.main", "predict", image],
    }
    for name in variants:
        build = f"vit_tf.build_vit({name!r})"
        commands[f"building {name}"] = [
            "-c",
            f"import time, keras, vit_tf; vit_tf.build_vit; s = time.perf_counter(); {build}; "
            "print('built', time.perf_counter() - s)",
        ]
    return commands


def seconds_of(command):
    """Returns the seconds that a process takes, or those that it prints behind "built"."""
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    start = time.perf_counter()
    words = output_of([sys.executable, *command], environment).split()
    seconds = time.perf_counter() - start
    return float(words[1]) if words[:1] == ["built"] else seconds


def markdown(times):
    """Returns the table of {row: seconds of each round}."""
    lines = ["| | seconds | of `import keras` |", "|---|---:|---:|"]
    for name, own in times.items():
        values = f"{median(own):.2f} ({min(own):.2f} to {max(own):.2f})"
        lines.append(f"| {name} | {values} | {median(own) / median(times[KERAS]):.2f} x |")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
