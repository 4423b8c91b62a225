"""`LoadReport`: the result of `load_weights` for each tensor."""

from dataclasses import dataclass, field

from vit_tf.checks import cut, listing, printable


@dataclass
class LoadReport:
    """The result of `load_weights` for each tensor. All names are timm's."""

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the model, not in the source
    unexpected: list[str] = field(default_factory=list)  # in the source, not in the model
    shape_mismatches: list[str] = field(default_factory=list)  # "name: (shape) in the source, (shape) here"
    resampled: list[str] = field(default_factory=list)  # "name: (old grid) to (new grid), method"
    new_head: bool = False  # the head keeps random values: the source has none of its width
    unused: list[str] = field(default_factory=list)  # known parts that the model lacks, such as a pooler
    prefix: str = ""  # of the ViT's names in the source: keys and names of wrappers
    left: list[str] = field(default_factory=list)  # tensors outside the ViT: of an optimizer, a loss
    adapted: list[str] = field(default_factory=list)  # "name: 3 input channels to 1"
    not_finite: list[str] = field(default_factory=list)  # tensors that hold NaN or infinity

    @property
    def errors(self):
        """The names that do not fit, as one text; "" if all fit."""
        parts = []
        for kind in ("missing", "unexpected", "shape_mismatches"):
            names = getattr(self, kind)
            if names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                parts.append(f"{len(names)} {kind}: {', '.join(map(cut, names[:5]))}{more}")
        return "; ".join(parts)

    def __str__(self):
        lines = [f"{len(self.loaded)} tensors from {self.source} ({self.format})"]
        if self.prefix:
            lines.append(f"  unwrapped from {self.prefix!r}")
        if self.left:
            lines.append(f"  left: {listing(self.left)}")
        lines += [f"  adapted {text}" for text in self.adapted]
        lines += [f"  resampled {text}" for text in self.resampled]
        if self.new_head:
            lines.append("  the head is new: it starts at random")
        if self.unused:
            lines.append(f"  not used: {listing(self.unused)}")
        if self.not_finite:
            lines.append(f"  NaN or infinity in: {listing(self.not_finite)}")
        lines += [f"  {self.errors}"] if self.errors else []
        return "\n".join(map(printable, lines))
