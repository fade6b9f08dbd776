"""Rows of a Dask frame: each partition asks for its own rows, on the worker that holds it, when it is computed."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .asking import Asking
from .batch import PREFIX
from .errors import OptionError, PromptError, nearest
from .frame import free_name
from .options import Options
from .prompt import literals_in, names_in, render
from .rows import ROW, is_missing, read_rows
from .spread import Order

if TYPE_CHECKING:
    import pandas as pd

    from .client import Client
    from .schema import CompletionRequest

DTYPES = {
    "choice": "int64",
    "text": "object",
    "finish_reason": "object",
    "prompt_tokens": "Int64",
    "completion_tokens": "Int64",
    "error": "object",
}


@dataclass(frozen=True)
class RowPrompt:
    """The prompt of every row: a body with `{{ column }}`, what else it names, and the parameters of the request."""

    body: str
    names: Mapping[str, Any]
    parameters: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    raw: bool = False

    @classmethod
    def of(
        cls, body: str, seen: Mapping[str, Any], parameters: Mapping[str, Any], columns: Sequence[str], *, raw: bool
    ) -> RowPrompt:
        """Return the prompt of a body, or of the row itself where there is none; it keeps only the names in use.

        Raises PromptError for a body in which no row shows, and for braces around what a person takes for a column.
        """
        body = body if body.strip() else "{{ row }}"
        if not raw:
            _check_columns(body, seen, columns)
        if not raw and not names_in(body):
            raise PromptError(
                "the prompt is the same for every row: name a column, {{ column }}, or the row itself, {{ row }}; "
                "--raw sends it as it stands"
            )
        names = {name: seen[name] for name in names_in(body) if name in seen}
        return cls(body, names, parameters, tuple(columns), raw)

    def request(self, client: Client, columns: Mapping[str, Any]) -> CompletionRequest:
        """Return the request of a row; raise PromptError as `render` does."""
        prompt, suffix = self.render(columns)
        return client.request(prompt, **({} if suffix is None else {"suffix": suffix}), **self.parameters)

    def render(self, columns: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return a row's prompt and suffix; raise PromptError for a name that is not there, or is missing in the row.

        Missing is None or NaN, which as words in a prompt would be taken for text.
        """
        for name in [] if self.raw else names_in(self.body):
            if name in columns and is_missing(columns[name]):
                raise PromptError(f"{{{{ {name} }}}} is missing in this row: it is {columns[name]}")
            if name in self.columns and name not in columns:
                raise PromptError(f"{{{{ {name} }}}} is missing in this row, which other rows have")
        try:
            return render(self.body, ChainMap(dict(columns), dict(self.names)), raw=self.raw)
        except PromptError as error:
            raise PromptError(f"{error}; the names of a row are {', '.join(columns)}") from None

    def check(self) -> None:
        """Raise PromptError for a name that is no column and no variable, where all columns are known."""
        known = {ROW, *self.columns, *self.names}
        for name in () if self.raw else sorted(names_in(self.body) - known):
            raise PromptError(
                f"{{{{ {name} }}}}: there is no variable {name!r}{nearest(name, sorted(known))}; "
                f"the names of a row are {', '.join([ROW, *self.columns])}"
            )


def _check_columns(body: str, seen: Mapping[str, Any], columns: Sequence[str]) -> None:
    for name in literals_in(body):
        if name in columns:
            raise PromptError(f'{{{{ {name} }}}} would be sent as it stands: this column is {{{{ row["{name}"] }}}}')
    for name in names_in(body) - {ROW, *columns}:
        alike = [column for column in columns if column.casefold() == name.casefold()]
        if name in seen and alike:
            raise PromptError(
                f"{{{{ {name} }}}} is a variable of the notebook, the same in every row: did you mean {alike[0]}?"
            )


def is_lazy(source: object) -> bool:
    """Say whether `source` is a Dask DataFrame or Series, without importing Dask."""
    # What else of Dask has partitions, such as a bag, is no table.
    return type(source).__module__.partition(".")[0] in ("dask", "dask_expr") and hasattr(source, "dtypes")


def complete_lazily(source: Any, row: RowPrompt, client: Client, *, concurrency: int, given: Options) -> Any:
    """Return a Dask frame with the completions of a Dask frame or series; nothing is asked before it is computed.

    Its columns are the input's, then text, finish_reason, prompt_tokens, completion_tokens and error, as
    Batch.to_frame names them. Raises OptionError for options that need one process that sees all rows, and PromptError
    for a prompt that no row can fill.
    """
    alone = {"--journal": client.cassette, "--executor": given.executor, "--budget": given.budget}
    alone |= {"--max-rps": given.max_rps, "--dry-run": given.dry_run or None}
    for flag, value in alone.items():
        if value is not None:
            raise OptionError(
                f"{flag} does not go with a Dask frame, whose partitions are asked one by one: "
                "use its compute(), and --executor with client.get_executor()"
            )
    row.check()
    ask = partial(_complete, order=Order.of(client, concurrency), row=row, pack=given.pack or 1)
    # As Dask's own guide makes a meta: the function itself, on a frame without rows.
    empty = ask(source._meta)  # noqa: SLF001
    return source.map_partitions(ask, meta=empty)


def _complete(frame: pd.DataFrame | pd.Series[Any], order: Order, row: RowPrompt, pack: int) -> pd.DataFrame:
    client = order.client()
    asking = Asking(read_rows(frame), partial(row.request, client), client, concurrency=order.concurrency, pack=pack)
    asking.batch.several = row.parameters.get("n", 1) > 1
    batch = asking.run()
    came = batch.to_frame()
    ours = {free_name(name, batch.columns, PREFIX): dtype for name, dtype in DTYPES.items()}
    # The same types of columns however its rows went.
    return came.astype({name: dtype for name, dtype in ours.items() if name in came})
