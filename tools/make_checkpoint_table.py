"""Makes docs/checkpoints.md: timm's checkpoints of these architectures, and the layouts of their files.

    pip install timm
    python tools/make_checkpoint_table.py [FILE]

timm's pretrained configurations name a file for every checkpoint: on the hub in timm's own layout, from its
makers, or both. tests/weights/formats/test_makers.py and tests/test_parity.py write a file of each layout and
load it. Needs timm 1.0.31 or later; the same version of timm always gives the same table. The exit code is 2
for a wrong argument.
"""

from pathlib import Path

from vit_tf.commands.parser import Parser, run
from vit_tf.files import atomic_path

MODULES = ("vision_transformer", "deit", "vision_transformer_hybrid", "eva", "beit")
TARGET = Path(__file__).resolve().parents[1] / "docs" / "checkpoints.md"
# Of a makers' file, the part of its address that tells the layout, the first that matches.
ADDRESSES = {
    "flexivit": "Google npz",
    "vit_models": "Google npz",
    "_reg4_pretrain": "DINOv2 with registers",
    "dinov2_vitg14": "DINOv2 SwiGLU",
    "/dinov2/": "DINOv2",
    "/dino/": "DINO",
    "/mae/": "MAE",
    "/ijepa/": "I-JEPA",
    "deit_3_": "DeiT III",
    "/deit/": "DeiT",
    "/mobileclip/": "MobileCLIP",
    "pytorch-image-models/releases": "timm",
}
HEADING = "## timm's checkpoints\n"  # what stands before it on the page is written by hand
HEAD = """
Made by `python tools/make_checkpoint_table.py` from timm {version}: its {tags} tags of the {architectures}
architectures here. {files} tags have a file: {hub} on the hub in timm's own layout, {makers} from their
makers. {without} tags have no file in timm. "timm" stands for `model.safetensors` under timm's names. For
each layout below, the tests write a small model with random weights and load it back
(`tests/weights/formats/test_makers.py`; Google's layout in `tests/test_parity.py`). The tests do not download
the published files.

| layout | tags with a file of it |
| --- | --- |
{layouts}

| architecture | tag | on the hub | makers' file | layout loads |
| --- | --- | --- | --- | --- |
{rows}
"""


def main():
    parser = Parser(description="Makes the table of timm's checkpoints and their layouts.")
    parser.add_argument("file", nargs="?", type=Path, default=TARGET, help="default: %(default)s")
    path = parser.parse_args().file
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent}, make it first")
    introduction = TARGET.read_text(encoding="utf-8").partition(HEADING)[0]
    text = introduction + HEADING + table_text()
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    print(f"wrote {path}")
    return 0


def table_text():
    """Returns the part of the page below `HEADING` as Markdown."""
    import timm
    from timm.models import get_arch_pretrained_cfgs, list_models

    names = [name for module in MODULES for name in list_models(module=module, include_tags=False)]
    entries = []
    for name in sorted(names):
        for config in get_arch_pretrained_cfgs(name).values():
            hub = "timm" if config.hf_hub_id else ""
            entries.append((name, config.tag or "", hub, makers_layout(config.url or "")))
    counts = {}
    for _, _, *layouts in entries:
        for layout in {layout for layout in layouts if layout}:
            counts[layout] = counts.get(layout, 0) + 1
    with_file = [entry for entry in entries if any(entry[2:])]
    rows = [
        f"| {name} | {tag or '(none)'} | {hub or '-'} | {makers or '-'} | {'yes' if hub or makers else '-'} |"
        for name, tag, hub, makers in entries
    ]
    return HEAD.format(
        version=timm.__version__,
        tags=len(entries),
        architectures=len(names),
        files=len(with_file),
        hub=sum(bool(entry[2]) for entry in entries),
        makers=sum(bool(entry[3]) for entry in entries),
        without=len(entries) - len(with_file),
        layouts="\n".join(f"| {layout} | {count} |" for layout, count in sorted(counts.items())),
        rows="\n".join(rows),
    )


def makers_layout(address):
    """Returns the layout of the file at an address, "" if there is no address.

    Raises:
        ValueError: the address is unknown.
    """
    if not address:
        return ""
    for part, layout in ADDRESSES.items():
        if part in address:
            return layout
    raise ValueError(f"no layout is known for {address}: add it to ADDRESSES, and its test")


if __name__ == "__main__":
    run(main)
