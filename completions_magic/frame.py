"""A data frame of columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd


def frame_of(
    columns: Mapping[str, Sequence[Any]], labels: Sequence[Any] | None = None, *, kind: str = "pandas"
) -> pd.DataFrame:
    """Return the columns as a pandas DataFrame with `labels` as its index, or as `kind` says, a polars one.

    Raises ConfigurationError with the install command where the library is not there.
    """
    try:
        if kind == "polars":
            import polars as pl

            return pl.DataFrame(columns, strict=False)
        import pandas as pd
    except ImportError:
        raise ConfigurationError("a frame needs pandas: pip install 'completions-magic[frame]'") from None
    return pd.DataFrame(columns, index=labels, columns=list(columns))
