"""The cost of a model as a table by component: floating-point operations, parameters, memory."""

from dataclasses import asdict, dataclass

COMPONENTS = (
    "patch embedding",
    "class token and positions",
    "QKV",
    "attention scores",
    "attention values",
    "projection",
    "MLP",
    "norms",
    "head",
)


@dataclass(frozen=True)
class Row:
    """The cost of one component: parameters, MACs of matrix products, activation memory in bytes."""

    component: str
    parameters: int = 0
    macs: int = 0
    activation_bytes: int = 0

    @property
    def flops(self) -> int:
        return 2 * self.macs

    def __add__(self, other):
        mine, other = asdict(self), asdict(other)
        return Row(self.component, *(mine[k] + other[k] for k in mine if k != "component"))

    def to_dict(self) -> dict:
        return {**asdict(self), "flops": self.flops}


@dataclass(frozen=True)
class FlopsTable:
    """The cost of a forward pass of `batch_size` images, one row per component of `COMPONENTS`."""

    model: str
    batch_size: int
    rows: tuple[Row, ...]

    @property
    def totals(self) -> Row:
        return sum(self.rows, Row("total"))

    def share(self, *components: str) -> float:
        """Returns the fraction of all FLOPs in these components, 0 to 1."""
        part = sum(row.flops for row in self.rows if row.component in components)
        return part / max(1, self.totals.flops)

    @property
    def attention_share(self) -> float:
        """The share of Q K^T and of the product with V, which grow quadratically with the tokens."""
        return self.share("attention scores", "attention values")

    @property
    def attention_layer_share(self) -> float:
        """The share of self-attention: `attention_share` plus QKV and projection."""
        return self.attention_share + self.share("QKV", "projection")

    def to_dict(self) -> dict:
        """Returns the table as dicts, lists and numbers, for JSON."""
        return {
            "model": self.model,
            "batch_size": self.batch_size,
            "components": [row.to_dict() for row in self.rows],
            "totals": self.totals.to_dict(),
            "attention_share": self.attention_share,
            "attention_layer_share": self.attention_layer_share,
        }

    def to_markdown(self) -> str:
        """Returns the table in Markdown, with exact numbers and the totals in the last row."""
        lines = ["| component | parameters | MACs | FLOPs | activation bytes |"]
        lines.append("|---|---:|---:|---:|---:|")
        for row in (*self.rows, self.totals):
            numbers = (row.parameters, row.macs, row.flops, row.activation_bytes)
            lines.append(f"| {row.component} | {' | '.join(f'{n:,}' for n in numbers)} |")
        return "\n".join(lines)
