"""Candidates for the end of a text, scored by a model: how likely each is, row by row, and which is the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING, Any

from .asking import WORKERS, Asking
from .batch import MOST_COLUMNS, SHOWN, Row, causes
from .breaker import CircuitBreaker
from .client import Client
from .errors import CompletionsError, ConfigurationError, OptionError, PromptError, ScoringError
from .frame import frame_of, free_name
from .heatmap import preformatted
from .inert import inert, one_line
from .likelihood import MEASURES, Echo, Likelihood, likelihoods, read_echo
from .options import Options
from .pace import Pace
from .profiles import LOCAL
from .record import CODE, FOOT, code, count, tr
from .rows import ROW, Rows, is_frame, read_rows, shown
from .schema import CompletionRequest

if TYPE_CHECKING:
    import pandas as pd

UNCONDITIONAL = "Answer:"
"""The context that stands for no context: that of Brown et al. (2020), without its blank, which is the candidate's."""
PREFIX = "score_"
UNBROKEN = 20
"""Characters of a text that the record keeps on one line."""
FIXED = ("n", "best_of", "suffix", "echo", "stream", "stream_options", "stop")
"""Parameters that a scoring request sets by itself, or that mean nothing to it."""

Pair = tuple[str, str]
"""A context and a candidate that may follow it."""


@dataclass(frozen=True)
class Score:
    """A candidate and how likely it is after its row's context; `prior` is the same after the unconditional context.

    Natural logarithms; None is what did not come.
    """

    candidate: str
    likelihood: Likelihood | None = None
    prior: Likelihood | None = None

    @property
    def logprob(self) -> float | None:
        """The log-probability of the whole candidate: the sum over its tokens."""
        return None if self.likelihood is None else self.likelihood.logprob

    @property
    def per_token(self) -> float | None:
        """The same divided by the number of tokens, as in Brown et al. (2020), section 2.4."""
        return None if self.likelihood is None else self.likelihood.logprob / self.likelihood.tokens

    @property
    def per_byte(self) -> float | None:
        """The same divided by the bytes of UTF-8, which does not depend on how a model cuts text into tokens."""
        return None if self.likelihood is None else self.likelihood.logprob / self.likelihood.bytes

    @property
    def pmi(self) -> float | None:
        """The pointwise mutual information, log P(candidate | context) - log P(candidate | unconditional context).

        It takes from a candidate what it owes to being a frequent text: Brown et al. (2020), section 2.4, and
        PMI_DC in Holtzman et al. (2021), "Surface Form Competition".
        """
        if self.likelihood is None or self.prior is None:
            return None
        return self.likelihood.logprob - self.prior.logprob

    def by(self, measure: str) -> float | None:
        """Return one of the measures."""
        value: float | None = getattr(self, measure)
        return value


@dataclass
class ScoredRow:
    """One row: its label, its columns, its context, a score for each candidate in order, and the error if it failed."""

    label: Any
    columns: Mapping[str, Any]
    context: str = ""
    scores: list[Score] = field(default_factory=list)
    error: CompletionsError | None = None

    def best(self, measure: str) -> str | None:
        """Return the candidate with the highest value, the first of equal ones; None where one was not scored."""
        values = [score.by(measure) for score in self.scores]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return self.scores[values.index(max(known))].candidate


@dataclass
class Scores:
    """The rows of an input with a score for each of their candidates, in order; `by` says what makes one the best."""

    columns: tuple[str, ...] = ()
    kind: str = "python"
    by: str = "logprob"
    rows: list[ScoredRow] = field(default_factory=list)
    ended: str = ""
    """Why not everything was asked: `stopped`, `interrupted`, `the budget is spent`, or how the endpoint failed."""
    tokens: int = 0
    """What was read and generated, as the server counts it."""
    index: tuple[Any, ...] = (None,)
    """The names of the levels of a pandas input's index."""
    types: Mapping[str, Any] = field(default_factory=dict)
    """The types of the columns of an input that is a frame."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ScoredRow]:
        return iter(self.rows)

    def __getitem__(self, number: int) -> ScoredRow:
        return self.rows[number]

    @property
    def best(self) -> list[str | None]:
        """The best candidate of every row, None where not all of its candidates have a score."""
        return self.best_by(self.by)

    def best_by(self, measure: str) -> list[str | None]:
        """Return the best candidates by another measure: logprob, per_token, per_byte or pmi; nothing is asked."""
        check_measure(measure)
        return [row.best(measure) for row in self.rows]

    @property
    def failures(self) -> list[ScoredRow]:
        """The rows that failed."""
        return [row for row in self.rows if row.error is not None]

    @property
    def missing(self) -> list[ScoredRow]:
        """The rows that were not asked to their end, for the reason in `ended`."""
        return [row for row in self.rows if row.error is None and row.best("logprob") is None]

    def to_frame(self, *, long: bool = False) -> pd.DataFrame:
        """Return the input's columns and index, then `best`, a score for each candidate, and `error`.

        Each score is by the measure `by`; its column is called after the candidate where every row has the same ones,
        and `score_0`, `score_1` … elsewhere. With `long` it is a row a candidate: candidate, logprob, tokens, bytes,
        per_token, per_byte, pmi, best, error. A name that the input has already gets `score_` before it. A polars
        input gives a polars frame. Needs pandas, or polars for a polars input: raises ConfigurationError with the
        install command without it.
        """
        lines = [(row, line) for row in self.rows for line in self._long(row)] if long else self._wide()
        names = list(lines[0][1]) if lines else [self._name("best"), self._name("error")]
        columns = {name: [row.columns.get(name) for row, _ in lines] for name in self.columns}
        columns |= {name: [line[name] for _, line in lines] for name in names}
        return frame_of(columns, [row.label for row, _ in lines], kind=self.kind, levels=self.index, types=self.types)

    def _wide(self) -> list[tuple[ScoredRow, dict[str, Any]]]:
        most = max((len(row.scores) for row in self.rows), default=0)
        best, error = self._name("best"), self._name("error")
        names = self.candidates or [f"score_{number}" for number in range(most)]
        # A candidate may be called as another column is, the best too.
        taken = {*self.columns, best, error}
        names = [free_name(name, taken.union(names), PREFIX) if name in taken else name for name in names]
        lines = []
        for row in self.rows:
            values = dict(zip_longest(names, (score.by(self.by) for score in row.scores)))
            lines.append((row, {best: row.best(self.by), **values, error: _in_words(row.error)}))
        return lines

    def _name(self, name: str) -> str:
        return free_name(name, self.columns, PREFIX)

    def _long(self, row: ScoredRow) -> Iterator[dict[str, Any]]:
        best = row.best(self.by)
        for score in row.scores or [Score("")]:
            read = score.likelihood
            line = {
                "candidate": score.candidate or None,
                "logprob": score.logprob,
                "tokens": None if read is None else read.tokens,
                "bytes": None if read is None else read.bytes,
                "per_token": score.per_token,
                "per_byte": score.per_byte,
                "pmi": score.pmi,
                "best": None if best is None else score.candidate == best,
                "error": _in_words(row.error),
            }
            yield {self._name(name): value for name, value in line.items()}

    @property
    def candidates(self) -> list[str]:
        """The candidates where every row that has any has the same ones, else nothing."""
        lists = {tuple(score.candidate for score in row.scores) for row in self.rows if row.scores}
        return list(lists.pop()) if len(lists) == 1 else []

    def causes(self) -> list[str]:
        """Return why rows failed, the most frequent kind first: how often, and the first of them."""
        return causes(row.error for row in self.rows)

    def footer(self) -> str:
        """Return one line: how many rows and candidates, by what the best is chosen, how many failed, the tokens."""
        scored = sum(score.likelihood is not None for row in self.rows for score in row.scores)
        parts = [count(len(self), "row"), f"{count(scored, 'candidate')} scored", f"best by {self.by}"]
        parts += [f"{len(self.failures):,} failed"] if self.failures else []
        if self.missing:
            parts.append(f"{len(self.missing):,} not done" + (f": {self.ended}" if self.ended else ""))
        return " · ".join([*parts, *([count(self.tokens, "token")] if self.tokens else [])])

    def plain(self) -> str:
        """Return the table of the record and the footer, as plain text."""
        head, lines = self._table()
        shown = [head, *lines]
        widths = [max(len(line[at]) for line in shown) for at in range(len(head))]
        rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in shown]
        return inert("\n".join([*(row.rstrip() for row in rows), *self._notes(), f"({self.footer()})"]))

    def html(self) -> str:
        """Return the table of the record and the footer, as inert HTML."""
        head, lines = self._table()
        rows = "".join(tr("td", *map(_cell, line)) for line in lines)
        notes = [*self._notes(), self.footer()]
        return f"<table>{tr('th', *map(_cell, head))}{rows}</table>" + "".join(
            f'<p style="{FOOT}">{code(note)}</p>' for note in notes
        )

    def _notes(self) -> list[str]:
        more = [f"… {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []
        return [*more, *self.causes()]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return what the record shows: the candidates of one row in all measures, or the best of the first rows."""
        if len(self) == 1 and self.rows[0].scores:
            best = self.rows[0].best(self.by)
            scores = self.rows[0].scores
            lines = [
                [_quoted(score.candidate), *(_number(score.by(name)) for name in MEASURES), _mark(score, best)]
                for score in scores
            ]
            return ["candidate", *MEASURES, ""], lines
        names = [name for name in self.columns if name != "row"][:MOST_COLUMNS]
        shared = self.candidates[:MOST_COLUMNS]
        lines = []
        for row in self.rows[:SHOWN]:
            best = row.best(self.by)
            values = {score.candidate: _number(score.by(self.by)) for score in row.scores}
            said = "not done" if best is None else _quoted(best)
            if row.error is not None:
                said = type(row.error).__name__
            given = [shown(row.columns.get(name), 60) for name in names]
            lines.append([one_line(str(row.label), 40), *given, said, *(values.get(name, "") for name in shared)])
        return ["", *names, "best", *map(_quoted, shared)], lines

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.plain(), "text/html": self.html()}

    def __repr__(self) -> str:
        return f"Scores({self.footer()})"


def _mark(score: Score, best: str | None) -> str:
    return "best" if score.candidate == best else ""


def _quoted(text: str) -> str:
    """Return a text as it is told from its neighbours: the blank before it counts."""
    return one_line(repr(text), 40)


def _cell(text: str) -> str:
    """Return a table's text as HTML; a short one is not broken, for a quote belongs to the blank after it."""
    if len(text) > UNBROKEN:
        return code(text)
    return f'<code style="{CODE};white-space:nowrap">{preformatted(text)}</code>'


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _in_words(error: CompletionsError | None) -> str | None:
    return None if error is None else error.headline


def check_measure(measure: str) -> str:
    """Return a measure; raise ConfigurationError with those that there are."""
    if measure not in MEASURES:
        raise ConfigurationError(f"a measure is {', '.join(MEASURES)}, not {str(measure)[:40]!r}")
    return measure


def check_score(options: Options) -> None:
    """Raise OptionError for a parameter that shapes what is generated."""
    shaped = [name for name in FIXED if name in options.parameters]
    if shaped:
        flag = shaped[0].replace("_", "-")
        raise OptionError(f"--{flag} is for what is generated: it does not go with --score")


def check_candidates(candidates: object) -> list[str]:
    """Return candidates as a list of texts; raise PromptError where they are none."""
    if isinstance(candidates, (str, bytes, Mapping)) or not isinstance(candidates, Iterable):
        raise PromptError(f"--score takes a list of texts, not {type(candidates).__name__}")
    listed = list(candidates)
    wrong = next((one for one in listed if not isinstance(one, str) or not one), None)
    if wrong is not None or not listed:
        said = f"{type(wrong).__name__} {one_line(repr(wrong), 40)}" if listed else "an empty list"
        raise PromptError(f"--score takes a list of texts that are not empty, not {said}")
    return [str(one) for one in listed]


def rows_to_score(
    rows: Rows, context: Callable[[Mapping[str, Any]], str], candidates: Callable[[Mapping[str, Any]], object]
) -> list[ScoredRow]:
    """Return the rows with their contexts and candidates; one that has none has an error."""
    found = []
    for label, columns in rows.rows:
        row = ScoredRow(label, columns)
        try:
            row.context = context(columns)
            row.scores = [Score(candidate) for candidate in check_candidates(candidates(columns))]
        except CompletionsError as error:
            row.error = error
        found.append(row)
    return found


class Scoring:
    """The rows of a scoring at work: every context with every candidate is one request, and the same is asked once.

    `request` makes the request of a prompt. A row that has an error already is not asked. With an `unconditional`
    context each distinct candidate is asked behind that too, before all others, for `pmi`; an empty one leaves it out.
    """

    def __init__(
        self,
        scores: Scores,
        request: Callable[[str], CompletionRequest],
        client: Client,
        *,
        unconditional: str = UNCONDITIONAL,
        concurrency: int = WORKERS,
        pace: Pace | None = None,
    ) -> None:
        if check_measure(scores.by) == "pmi" and not unconditional:
            raise ConfigurationError("pmi needs an unconditional context: --score-context TEXT")
        self.scores = scores
        self._unconditional = unconditional
        self._name = client.name
        asked = [row for row in scores.rows if row.error is None]
        candidates = [score.candidate for row in asked for score in row.scores]
        first = [(unconditional, candidate) for candidate in candidates] if unconditional else []
        pairs = dict.fromkeys([*first, *((row.context, score.candidate) for row in asked for score in row.scores)])
        self.count = len(pairs)
        self._refusal: ScoringError | None = None
        rows = Rows(((pair, {"pair": pair}) for pair in pairs), (), len(pairs))
        self._asking = Asking(
            rows, lambda columns: request("".join(columns["pair"])), client, concurrency=concurrency, pace=pace
        )

    @property
    def result(self) -> Scores:
        """What came so far."""
        return self.scores

    @property
    def requests(self) -> Iterable[Row]:
        """What was asked so far, in order: a prompt each."""
        return self._asking.batch

    @property
    def breaker(self) -> CircuitBreaker:
        """What notices that the endpoint fails one request after the other."""
        return self._asking.breaker

    def stop(self) -> None:
        """End what is being asked, and ask nothing more; from any thread."""
        self._asking.stop()

    def run(self, on_end: Callable[[Row], object] = id) -> Scores:
        """Ask until every candidate has a score, or more is of no use; raise Interrupted when the person interrupts.

        What had come is in `scores` in any case. Raises ScoringError, and asks nothing more, when the endpoint gives
        no log-probabilities of a prompt. `on_end` hears of every request that has ended, from several threads.
        """

        def hear(row: Row) -> None:
            error = self._read(row)[1]
            if isinstance(error, ScoringError) and error.endpoint is not None and self._refusal is None:
                self._refusal = error
                self.stop()
            on_end(row)

        try:
            self._asking.run(hear)
        finally:
            self._fill()
        if self._refusal is not None:
            raise self._refusal
        return self.scores

    def _read(self, row: Row) -> tuple[Echo | None, CompletionsError | None]:
        """Return the tokens of a request's prompt, or why there are none; neither where it was not asked."""
        if row.error is not None or row.completion is None or not row.completion.finished:
            return None, row.error
        try:
            return read_echo(row.completion.choices[0], "".join(row.label), self._name), None
        except ScoringError as error:
            return None, error

    def _fill(self) -> None:
        scores = self.scores
        came = {row.label: self._read(row) for row in self.requests}
        usages = [row.completion.usage for row in self.requests if row.completion is not None]
        scores.tokens = sum(usage.total_tokens for usage in usages if usage is not None)
        scores.ended = self._asking.batch.ended
        for row in scores.rows:
            if row.error is None:
                self._score(row, came)

    def _score(self, row: ScoredRow, came: Mapping[Pair, tuple[Echo | None, CompletionsError | None]]) -> None:
        candidates = [score.candidate for score in row.scores]
        try:
            found = _likelihoods(row.context, candidates, came)
            priors = _likelihoods(self._unconditional, candidates, came) if self._unconditional else {}
        except CompletionsError as error:
            row.error = error
            return
        row.scores = [Score(candidate, found.get(candidate), priors.get(candidate)) for candidate in candidates]


def _likelihoods(
    context: str, candidates: Sequence[str], came: Mapping[Pair, tuple[Echo | None, CompletionsError | None]]
) -> dict[str, Likelihood]:
    """Return how likely the candidates are, as far as they came; raise the error of the first that failed."""
    echoes: dict[str, Echo] = {}
    for candidate in candidates:
        echo, error = came.get((context, candidate), (None, None))
        if error is not None:
            raise error
        if echo is not None:
            echoes[candidate] = echo
    if len(echoes) < len(set(candidates)):
        return {}
    return dict(zip(echoes, likelihoods(context, list(echoes), list(echoes.values())), strict=True))


def scoring_parameters(client: Client, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a scoring request: what was given for it, without what shapes a text, echo and logprobs.

    One token is generated and cut off, unless max_tokens is given: vLLM refuses 0, and llama-cpp-python takes it for
    no limit at all. The embedded endpoint takes 0.
    """
    least = 0 if client.profile.base_url == LOCAL else 1
    return {"logprobs": 1, "max_tokens": least, **given, **dict.fromkeys(FIXED), "echo": True}


def score(
    client: Client,
    contexts: object,
    candidates: object,
    request: Callable[[str], CompletionRequest],
    *,
    by: str = "logprob",
    unconditional: str = UNCONDITIONAL,
    concurrency: int = WORKERS,
    pace: Pace | None = None,
) -> Scores:
    """Return the scores of candidates after one context or many; see Client.score."""
    if isinstance(candidates, str):
        raise ConfigurationError("candidates are a list of texts, and this is one text")
    for given in (contexts, candidates):
        if is_frame(given) or isinstance(given, Mapping):
            raise ConfigurationError("score takes texts: give a column of them, such as frame['text']")
    if isinstance(candidates, bytes) or not isinstance(candidates, Iterable):
        raise ConfigurationError(f"candidates are a list of texts, not {type(candidates).__name__}")
    listed = list(candidates)
    rows = read_rows([contexts] if isinstance(contexts, str) else contexts)
    is_shared = not listed or isinstance(listed[0], str)
    each = repeat(listed) if is_shared else iter(listed)
    scored = rows_to_score(rows, lambda columns: _text(columns[ROW]), lambda _: next(each, []))
    if not is_shared and len(listed) != len(scored):
        raise ConfigurationError(
            "each context has a list of candidates, or all have one: "
            f"{count(len(listed), 'list')} for {count(len(scored), 'context')}"
        )
    scores = Scores(rows.columns, rows.kind, check_measure(by), scored, index=rows.index, types=rows.types)
    return Scoring(scores, request, client, unconditional=unconditional, concurrency=concurrency, pace=pace).run()


def _text(context: object) -> str:
    if not isinstance(context, str):
        raise PromptError(f"a context to score behind is a text, not {type(context).__name__}")
    return context
