"""Cells that ask many times: every row of a variable, candidates to score, a grid of parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from IPython.display import display

from .asking import WORKERS, Asking
from .binding import check_name
from .client import Client
from .errors import Interrupted, OptionError, ProfileError, PromptError, ScoringError, nearest
from .grid import points
from .lazy import RowPrompt, complete_lazily, is_lazy
from .options import Options
from .pace import Pace
from .progress import Progress
from .prompt import names_in
from .rows import Rows, read_rows
from .schema import Completion
from .scores import UNCONDITIONAL, Scores, Scoring, check_score, rows_to_score, scoring_parameters
from .spread import spread_or_ask
from .sweep import CONCURRENCY, Board, Point, Sweep, at_point, check_sweep
from .task import DryRun, Task
from .views import FLUSH_SECONDS, choose_kind

if TYPE_CHECKING:
    from .magics import Session


class Many:
    """The cells of a session that ask many times."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def sweep(self, options: Options, body: str, seen: Mapping[str, Any], *, whole_cell: bool) -> Any:
        """Ask at every point of the grid, several at a time; bind and return the Sweep."""
        check_sweep(options)
        tasks, sweep = self._points(options, body, seen)
        again: Counter[bytes] = Counter()
        streams = []
        for task in tasks.values():
            # Named by its ordinal in the grid, so that the same cell asks, next time, only for what is missing.
            again[task.request.encode()] += 1
            sample = None if task.client.cassette is None else again[task.request.encode()]
            streams.append(task.client.send(task.request, sample=sample, frame=0.0 if options.quiet else FLUSH_SECONDS))
        board = Board([sweep.points[place] for place in tasks], streams, options.concurrency or CONCURRENCY)
        first = next(iter(tasks.values()))
        view = self._session.view(first, board.request, board.stop, whole_cell=whole_cell, names=board.labels)
        failure: BaseException | None = None
        try:
            with view:
                board.run(view.add)
        except Interrupted as error:
            failure = error
        for place, task in tasks.items():
            point = sweep.points[place]
            if point.completion is not None or point.error is not None:
                self._session.note(task, point.completion or Completion(request=task.request), point.error)
        value = sweep.to_frame() if options.form == "frame" else sweep
        if options.out is not None:
            self._session.shell.user_ns[options.out] = value
        if failure is None and len(sweep.failures) == len(sweep):
            failure = sweep.failures[0].error
        if failure is not None:
            raise failure
        return None if options.quiet and whole_cell else value

    def _points(self, options: Options, body: str, seen: Mapping[str, Any]) -> tuple[dict[int, Task], Sweep]:
        """Return what to ask, by its place in the grid, and the grid; a point without its endpoint has failed."""
        axes = options.sweep or []
        tasks: dict[int, Task] = {}
        grid = []
        for place, settings in enumerate(points(axes)):
            grid.append(Point(settings))
            try:
                tasks[place] = self._session.prepare(at_point(options, settings), body, seen)
                grid[-1].choices = tasks[place].request.choices
            except ProfileError as error:
                grid[-1].error = error
        if not tasks:
            raise grid[0].error or OptionError("--sweep has no points")
        return tasks, Sweep(axes, grid)

    def rows(self, options: Options, body: str, seen: Mapping[str, Any], *, whole_cell: bool) -> Any:
        """Ask for every row of a variable, several at a time; bind and return the Batch."""
        source = _variable("-i", options.inputs, seen)
        if options.out is not None:
            check_name(options.out, seen)
        client = self._session.client(options)
        parameters = self._session.parameters(options, client)
        if not options.raw and names_in(str(parameters.get("suffix", ""))):
            raise OptionError(
                "--suffix is the same for every row: what stands after {{fill}} in the prompt is a row's own"
            )
        rows = None if is_lazy(source) else read_rows(source)
        columns = rows.columns if rows is not None else tuple(map(str, getattr(source, "columns", ())))
        row = RowPrompt.of(body, seen, parameters, columns, raw=options.raw)
        if rows is None:
            value: Any = complete_lazily(source, row, client, concurrency=options.concurrency or WORKERS, given=options)
            if options.out is not None:
                self._session.shell.user_ns[options.out] = value
            return None if options.quiet and whole_cell else value
        if options.dry_run:
            first = rows.first()
            return None if first is None else DryRun(client, row.request(client, first))
        asking = spread_or_ask(
            rows,
            partial(row.request, client),
            client,
            executor=_variable("--executor", options.executor, seen),
            concurrency=options.concurrency or WORKERS,
            pack=options.pack or 1,
            pace=Pace(max_rps=options.max_rps, **(options.budget or {})),
        )
        return self._ask_rows(asking, options, client, whole_cell=whole_cell)

    def scores(self, options: Options, body: str, seen: Mapping[str, Any], *, whole_cell: bool) -> Any:
        """Score candidates behind the prompt, or behind that of every row; bind and return the Scores."""
        check_score(options)
        if options.out is not None:
            check_name(options.out, seen)
        client = self._session.client(options)
        parameters = {**self._session.parameters(options, client), **scoring_parameters(client, options.parameters)}
        rows, context = self._contexts(options, body, seen)
        name = options.score
        if not isinstance(name, str) or name not in rows.columns:
            shared = _variable("--score", name, seen)
            scored = rows_to_score(rows, context, lambda _: shared)
        else:
            scored = rows_to_score(rows, context, lambda columns: columns[name])
        scoring = Scoring(
            Scores(rows.columns, rows.kind, options.score_by or "logprob", scored, index=rows.index, types=rows.types),
            lambda prompt: client.request(prompt, **parameters),
            client,
            unconditional=UNCONDITIONAL if options.score_context is None else options.score_context,
            concurrency=options.concurrency or WORKERS,
            pace=Pace(max_rps=options.max_rps, **(options.budget or {})),
        )
        return self._ask_rows(scoring, options, client, whole_cell=whole_cell, what="prompts")

    def _contexts(
        self, options: Options, body: str, seen: Mapping[str, Any]
    ) -> tuple[Rows, Callable[[Mapping[str, Any]], str]]:
        """Return the rows, one without columns where there is no -i, and what makes a row's context."""
        if options.inputs is None:
            prompt, hole = self._session.prompt(options, body, seen)
            rendered: Callable[[Mapping[str, Any]], Any] = lambda _: (prompt, hole)  # noqa: E731
            rows = Rows(iter([(0, {})]), (), 1)
        else:
            rows = read_rows(_variable("-i", options.inputs, seen))
            rendered = RowPrompt.of(body, seen, {}, rows.columns, raw=options.raw).render

        def context(columns: Mapping[str, Any]) -> str:
            prompt, hole = rendered(columns)
            if hole is not None or not isinstance(prompt, str):
                raise PromptError("--score takes one text that candidates follow: no {{fill}}, no list of prompts")
            return prompt

        return rows, context

    def _ask_rows(
        self, work: Asking | Scoring, options: Options, client: Client, *, whole_cell: bool, what: str = "rows"
    ) -> Any:
        """Run many requests behind a progress; bind what came of them, whatever ended it, and return it."""
        session = self._session
        kind = "none" if options.quiet else choose_kind(session.shell, session.kind(options), whole_cell=whole_cell)
        progress = Progress(work.count, kind, work.stop, what=what)
        session.views.append(progress)
        client.on_wait = progress.wait
        failure: BaseException | None = None
        try:
            with progress:
                work.run(progress.add)
        except ScoringError:
            raise  # what has come would be no better than chance
        except BaseException as error:  # noqa: BLE001  # raised below, when nothing can be lost any more
            failure = error
        result = work.result
        if isinstance(failure, Interrupted) and kind != "none":
            display(result)  # what had come, as after an interrupt of one completion
        value = result.to_frame() if options.form == "frame" else result
        if options.out is not None:
            session.shell.user_ns[options.out] = value
        for row in islice(work.requests, 1):
            # One stands for all in the history, which would hold nothing else.
            if row.completion is not None and row.completion.request is not None:
                session.note(Task(options, row.completion.request, client, {}), row.completion)
        came = not work.breaker.reason or any(row.answered for row in work.requests)
        if failure is None and len(result) and (not came or all(row.error is not None for row in result)):
            failure = next(row.error for row in result if row.error is not None)
        if failure is not None:
            raise failure
        return None if options.quiet and whole_cell else value


def _variable(flag: str, named: Any, seen: Mapping[str, Any]) -> Any:
    """Return the variable that an option names, or what it was given as $name."""
    if not isinstance(named, str):
        return named
    if named not in seen:
        hint = nearest(named, seen) if named.isidentifier() else "; an expression needs a name first"
        raise OptionError(f"{flag} takes a variable's name, and there is no {named!r}{hint}")
    return seen[named]
