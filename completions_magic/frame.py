"""A data frame of columns."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd


def frame_of(
    columns: Mapping[str, Sequence[Any]],
    labels: Sequence[Any] | None = None,
    *,
    kind: str = "pandas",
    levels: Sequence[Any] = (None,),
    types: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Return the columns as a pandas DataFrame with `labels` as its index, or as `kind` says, a polars one.

    `levels` are the names of the index's levels: where there are several each label is a tuple. `types` are those of
    columns whose values came from a frame of the same library; the others' are found out.
    Raises ConfigurationError with the install command where the library is not there.
    """
    try:
        if kind == "polars":
            import polars as pl

            return pl.DataFrame(columns, schema_overrides=types, strict=False)
        import pandas as pd
    except ImportError:
        raise ConfigurationError("a frame needs pandas: pip install 'completions-magic[frame]'") from None
    if labels is None:
        return pd.DataFrame(columns, columns=list(columns))
    if len(levels) > 1:
        index = pd.MultiIndex.from_tuples(labels, names=levels)
    else:
        index = pd.Index(labels, name=levels[0], dtype=None if len(labels) else object)
    return pd.DataFrame(columns, index=index, columns=list(columns)).astype(types or {})


def free_name(name: str, taken: Container[str], prefix: str) -> str:
    """Return a column's name that none of those `taken` is: `prefix` stands before it as often as it needs to."""
    while name in taken:
        name = prefix + name
    return name
