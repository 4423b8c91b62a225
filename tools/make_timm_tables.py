"""Makes two tables in vit_tf/assets from an installed timm: ImageNet's class names and preprocessing.

    pip install timm
    python tools/make_timm_tables.py [FOLDER]

imagenet1k_classes.txt has one line per class in the order of the logits, "synset<TAB>names".
timm_checkpoints.json has the preprocessing of every checkpoint of timm's plain ViTs: "settings" are the
distinct settings, "architectures" maps each architecture's tags to the index of their setting, the default
tag first, and "renamed" maps timm's deprecated names to the current names. Needs timm 1.0.31 or later; the
same version of timm always gives the same files. The script takes a few seconds; the exit code is 2 for a
wrong argument.
"""

import csv
import json
from importlib.resources import files
from pathlib import Path

from vit_tf.commands.parser import Parser, run
from vit_tf.files import atomic_path

MODULES = ("vision_transformer", "deit", "vision_transformer_hybrid", "eva", "beit")
FIELDS = ("input_size", "crop_pct", "interpolation", "mean", "std", "crop_mode", "num_classes")
ASSETS = Path(__file__).resolve().parents[1] / "vit_tf" / "assets"


def main():
    parser = Parser(description="Makes the tables of class names and of preprocessing.")
    parser.add_argument("folder", nargs="?", type=Path, default=ASSETS, help="default: %(default)s")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}, make it first")
    texts = {
        "imagenet1k_classes.txt": imagenet_classes(),
        "timm_checkpoints.json": table_text(checkpoint_table()),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return 0


def imagenet_classes():
    """Returns the lines "synset<TAB>names" of ImageNet-1k, in the order of the logits."""
    info = files("timm.data") / "_info"
    lemmas = (info / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines()
    names = dict(csv.reader(lemmas, delimiter="\t"))
    synsets = (info / "imagenet_synsets.txt").read_text("utf-8").split()
    if len(synsets) != 1000:
        raise ValueError(f"timm lists {len(synsets)} synsets of ImageNet-1k, expected 1,000")
    return "".join(f"{synset}\t{names[synset]}\n" for synset in synsets)


def checkpoint_table():
    """Returns {"timm", "settings", "architectures", "renamed"} of timm's plain ViTs."""
    import timm
    from timm.models import get_arch_pretrained_cfgs, get_deprecated_models, get_pretrained_cfg, list_models

    settings, architectures, deprecated = [], {}, {}
    for module in MODULES:
        deprecated |= get_deprecated_models(module)
        for name in sorted(list_models(module=module, include_tags=False)):
            configs = {config.tag or "": config for config in get_arch_pretrained_cfgs(name).values()}
            default = get_pretrained_cfg(name).tag or ""
            architectures[name] = {}
            for tag in sorted(configs, key=lambda tag: tag != default):  # stable: only the default moves
                setting = {field: getattr(configs[tag], field) for field in FIELDS}
                if setting not in settings:
                    settings.append(setting)
                architectures[name][tag] = settings.index(setting)
    renamed = {}
    for old, new in sorted(deprecated.items()):
        architecture, _, tag = (new or "").partition(".")
        if tag in architectures.get(architecture, ()):  # timm maps two names to tags that do not exist
            renamed[old] = new
    return {
        "timm": timm.__version__,
        "settings": settings,
        "architectures": architectures,
        "renamed": renamed,
    }


def table_text(table):
    """Returns the table as JSON with one line per entry, so that a change is one line of a diff."""
    parts = []
    for key, value in table.items():
        if isinstance(value, dict):
            lines = [f"{json.dumps(name)}:{compact(entry)}" for name, entry in value.items()]
            parts.append(f'"{key}":{{\n' + ",\n".join(lines) + "\n}")
        elif isinstance(value, list):
            parts.append(f'"{key}":[\n' + ",\n".join(compact(entry) for entry in value) + "\n]")
        else:
            parts.append(f'"{key}":{compact(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def write_text(path, text):
    """Writes the text atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    run(main)
