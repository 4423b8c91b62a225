"""What became of each name of a source of weights."""

from dataclasses import dataclass, field

from vit_tf.checks import cut, listing, printable


@dataclass
class LoadReport:
    """What `load_weights` did with each name. Names are timm's, to which all formats are translated."""

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # of the model, not in the source
    unexpected: list[str] = field(default_factory=list)  # of the source, not in the model
    shape_mismatches: list[str] = field(default_factory=list)  # "name: (shape) in the source, (shape) here"
    resampled: list[str] = field(default_factory=list)  # "name: what became what"
    new_head: bool = False  # the head stayed at its random start: the source has none of its width
    unused: list[str] = field(default_factory=list)  # known parts without a place here, such as a pooler
    prefix: str = ""  # of the source's names, which the ViT stood under: keys, and names of wrappers
    left: list[str] = field(default_factory=list)  # tensors elsewhere in the source: of an optimizer, a loss
    adapted: list[str] = field(default_factory=list)  # "name: what became what", for other input channels
    not_finite: list[str] = field(default_factory=list)  # tensors that hold NaN or infinity

    @property
    def faults(self):
        """The names that do not fit, as one text; "" when all fit."""
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
        lines += [f"  {self.faults}"] if self.faults else []
        return "\n".join(map(printable, lines))
