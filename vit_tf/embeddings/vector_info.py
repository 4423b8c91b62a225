"""`VectorInfo`: how the vectors of a file were made, so that a query is embedded in the same way."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_tf.checks import check_choice, check_int, check_valid, is_number, require, shown
from vit_tf.preprocessing.transform import Preprocessing

if TYPE_CHECKING:
    from vit_tf.embeddings.extractor import FeatureExtractor

DTYPES = ("float32", "float16")
SAME_PROBE = 0.999  # cosine similarity: runtimes and precisions differ less, other weights more
COMPARED = ("variant", "pooling", "num_features", "preprocessing")


@dataclass(frozen=True, kw_only=True)
class VectorInfo:
    """How vectors were made.

    Args:
        source: the weights: an absolute path, "hf:owner/name" or "cifar10".
        model: the variant that was named for a bare file of weights, or None.
        variant: the name of the model.
        pooling: see `vit_tf.embeddings.FeatureExtractor`; None for the model's own.
        preprocessing: fields of a `Preprocessing`.
        num_features: int, the width of a vector.
        normalized: bool, whether the vectors were divided by their L2 norms.
        dtype: of the stored vectors, one of `DTYPES`.
        folder: the folder of the images, an absolute path, to which the paths of the images are relative.
        probe: `num_features` numbers, see `FeatureExtractor.probe`.

    Raises:
        ValueError: a value has another type or range.
    """

    source: str
    model: str | None
    variant: str
    pooling: str | None
    preprocessing: dict[str, Any]
    num_features: int
    normalized: bool
    dtype: str
    folder: str
    probe: tuple[float, ...]

    def __post_init__(self):
        for name in ("source", "model", "variant", "pooling", "folder"):
            value = getattr(self, name)
            check_valid(name, value, isinstance(value, str), "text", name in ("model", "pooling"))
        check_choice("dtype", self.dtype, DTYPES)
        check_int("num_features", self.num_features, 1)
        check_valid("normalized", self.normalized, isinstance(self.normalized, bool), "true or false")
        is_dict = isinstance(self.preprocessing, Mapping)
        check_valid("preprocessing", self.preprocessing, is_dict, "settings by name")
        try:
            Preprocessing(**self.preprocessing)
        except TypeError as error:
            raise ValueError(f"`preprocessing` has unknown settings: {error}") from error
        is_list = isinstance(self.probe, (list, tuple)) and all(map(is_number, self.probe))
        is_list = is_list and len(self.probe) == self.num_features
        check_valid("probe", self.probe, is_list, f"{self.num_features} numbers")
        object.__setattr__(self, "probe", tuple(float(x) for x in self.probe))

    @classmethod
    def of(
        cls,
        extractor: "FeatureExtractor",
        source: str | os.PathLike,
        folder: str | os.PathLike,
        model: str | None = None,
        dtype: str = "float32",
    ) -> "VectorInfo":
        """Returns the description of what an extractor makes.

        Args:
            extractor: a `FeatureExtractor` of `source`.
            source, model, dtype: see the class. A path becomes absolute.
            folder: the folder of the images.
        """
        text = os.fspath(source)
        return cls(
            source=os.path.abspath(text) if os.path.exists(text) else text,
            model=model,
            variant=extractor.variant,
            pooling=extractor.pooling,
            preprocessing=extractor.preprocessing.to_dict(),
            num_features=extractor.num_features,
            normalized=extractor.normalize,
            dtype=dtype,
            folder=os.path.abspath(folder),
            probe=tuple(float(f"{x:.7g}") for x in extractor.probe()),
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "VectorInfo":
        """Returns the description that `to_dict` returned.

        Raises:
            ValueError: a field is missing, unknown or invalid.
        """
        names = {item.name for item in fields(cls)}
        problem = f"it has the fields {shown(sorted(content))}"
        require(content.keys() == names, f"{problem}, expected {', '.join(sorted(names))}")
        return cls(**content)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return asdict(self)

    def check_same(self, other: "VectorInfo", path: str | os.PathLike, strict: bool = False) -> None:
        """Raises a ValueError unless vectors of both descriptions can be compared with each other.

        Args:
            other: the description of the model that is used now.
            path: the file of `self`, for the message.
            strict: bool, whether also the normalisation, the dtype and the folder must be the same.
        """
        for name in COMPARED + (("normalized", "dtype", "folder") if strict else ()):
            own, others = (getattr(each, name) for each in (self, other))
            problem = f"{os.fspath(path)!r} was embedded with {name} {shown(own)}, and not {shown(others)}"
            hint = "use the same weights and options, or embed the images again"
            require(own == others, f"{problem}: {hint}")
        a, b = (np.array(each.probe) for each in (self, other))
        similarity = a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-30)
        problem = f"{os.fspath(path)!r} was embedded with other weights ({shown(self.source)}, their vectors"
        problem += f" of the same image agree to {similarity:.3f})"
        require(similarity >= SAME_PROBE, f"{problem}: give these as --weights, or embed the images again")
