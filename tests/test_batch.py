"""Many prompts: rows in, rows out, at a pace, and again after a crash only what is missing."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context

import pandas as pd
import polars as pl
import pytest
from conftest import PlainServer, ScriptedServer, answer, at_call, eventually

from completions_magic import Client
from completions_magic.asking import Asking
from completions_magic.batch import Batch, Row
from completions_magic.breaker import CircuitBreaker
from completions_magic.client import Wait
from completions_magic.errors import (
    AuthenticationError,
    BudgetError,
    CassetteError,
    ConfigurationError,
    Interrupted,
    OptionError,
    PromptError,
    RateLimitError,
)
from completions_magic.pace import Pace
from completions_magic.pool import run_all
from completions_magic.progress import Progress
from completions_magic.rows import read_rows
from completions_magic.scores import ScoredRow, Scores
from completions_magic.spread import Order
from completions_magic.spread import answer as work

FRAME = pd.DataFrame({"country": ["France", "Japan", "Egypt"], "year": [1, 2, 3]}, index=["f", "j", "e"])


class Heir(pd.DataFrame):
    """A frame of another library that is one of pandas."""


class Echo(ScriptedServer):
    """Answers every request with its own prompt, after `refusals` of its first ones; counts what it hears.

    `on_request` has functions by the number of the request, from 1; they are called before its answer.
    """

    def __init__(self, refusals=0, retry_after="0", latency=0.0):
        self.on_request = {}
        self.counting = threading.Lock()
        self.refusals = refusals
        self.latency = latency
        self.retry_after = retry_after
        self.times = []
        super().__init__()

    def _talk(self, connection):
        with contextlib.suppress(OSError), connection:
            while (heard := self._read(connection)) is not None:
                with self.counting:
                    self.times.append(time.monotonic())
                    self.heard.append(heard)
                    number = len(self.heard)
                if number in self.on_request:
                    self.on_request[number]()
                if number <= self.refusals:
                    headers = f"Retry-After: {self.retry_after}\r\n"
                    connection.sendall(answer({"error": {"message": "slow"}}, status="429 Slow", headers=headers))
                    continue
                time.sleep(self.latency)
                connection.sendall(echoed(heard.json))


def echoed(asked):
    """Return an answer that says the prompt; a prompt with `fail` in it is refused."""
    prompt = asked["prompt"]
    if "fail" in prompt:
        return answer({"error": {"message": f"no {prompt}"}}, status="400 Bad Request")
    texts = [text for text in ([prompt] if isinstance(prompt, str) else prompt) for _ in range(asked.get("n", 1))]
    choices = [{"text": f"<{text}>", "index": number, "finish_reason": "stop"} for number, text in enumerate(texts)]
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    return answer({"model": "m", "choices": choices, "usage": usage})


def interrupt():
    """Interrupt the cell that runs, as a person does."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.fixture
def echo():
    """Give a server that echoes."""
    server = Echo()
    yield server
    server.close()


def ask(cells, echo, options, body="Hi {{ row }}"):
    """Run a cell over rows; return what it bound."""
    where = f"-m m --base-url {echo.base_url} -o batch"
    cells.run(f"%%complete {where} {options}\n{body}").raise_error()
    return cells.names["batch"]


@pytest.mark.parametrize(
    ("source", "body", "prompts"),
    [
        (["a", "b"], "{{ row }}!", ["a!", "b!"]),
        (("a",), "{{ row }}", ["a"]),
        ([1, 2.5], "{{ row }}", ["1", "2.5"]),
        ([{"x": 1, "y": "b"}, {"x": 2, "y": "c"}], "{{ x }}{{ y }}", ["1b", "2c"]),
        ([{"a b": 1}], '{{ row["a b"] }}', ["1"]),
        ({"x": [1, 2], "y": ["b", "c"]}, "{{ x }}{{ y }}", ["1b", "2c"]),
        ((character for character in "ab"), "{{ row }}", ["a", "b"]),
        ({"x": range(2)}.items(), "{{ row[0] }}", ["x"]),
        (FRAME, "{{ country }} {{ year }}", ["France 1", "Japan 2", "Egypt 3"]),
        (FRAME.country, "{{ country }} {{ row }}", ["France France", "Japan Japan", "Egypt Egypt"]),
        (pd.Series([1, 2]), "{{ row }}", ["1", "2"]),
        (pl.DataFrame({"x": [1, 2]}), "{{ x }}", ["1", "2"]),
        (pl.Series("x", ["a"]), "{{ x }}", ["a"]),
        (pd.Series(["a", "b", "a"]).unique(), "{{ row }}", ["a", "b"]),
        (pd.Index(["a", "b"]), "{{ row }}", ["a", "b"]),
        (pd.Series(["a"]).array, "{{ row }}", ["a"]),
        (FRAME.groupby("country"), "{{ row[0] }}", ["Egypt", "France", "Japan"]),
        (Heir(FRAME), "{{ country }}", ["France", "Japan", "Egypt"]),
        (["{{ other }}"], "{{ row }}", ["{{ other }}"]),
        ([], "{{ row }}", []),
        (FRAME.iloc[:0], "{{ country }}", []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_rows_is_one_request_a_row(cells, echo, source, body, prompts):
    """Lists, columns, frames, series and iterables: columns and the row itself stand in the prompt, in order."""
    cells.names["source"] = source
    batch = ask(cells, echo, "-i source", body)
    assert sorted(heard.json["prompt"] for heard in echo.heard) == sorted(prompts)
    assert batch.texts == [f"<{prompt}>" for prompt in prompts]


@pytest.mark.parametrize("source", ["a text", b"bytes", 5, {"x": "abc"}, {"x": [1], "y": [1, 2]}, {"x": {"y": 1}}])
def test_what_has_no_rows_is_one_clear_line(source):
    """A text, a number, columns of different lengths: the error says what -i takes."""
    with pytest.raises(PromptError, match=r"rows|columns"):
        read_rows(source)


@pytest.mark.parametrize(
    "source",
    [
        pd.DataFrame([["a", "b"]], columns=["x", "x"]),
        pd.DataFrame([["a", "b"]], columns=[1, "1"]),
        {1: ["a"], "1": ["b"]},
    ],
    ids=["twice", "as text", "dict"],
)
def test_columns_that_are_called_the_same_are_told(source):
    """The prompt would take either, and the frame of the answers would have one of them."""
    with pytest.raises(PromptError, match=r"two columns are called '(x|1)': rename one"):
        read_rows(source)


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ("--concurrency 4", "-i or --sweep or --score"),
        ("--max-rps 4", "-i or --score"),
        ("--budget requests=4", "-i or --score"),
        ("--score-by pmi", "--score"),
        ("-i rows --score-context x", "--score"),
        ("--pack 4", "-i"),
        ("--executor pool", "-i"),
        ("--tune --budget tokens=4", "-i or --score"),
        ("--sweep n=1,2 --max-rps 4", "-i or --score"),
        ("--sweep n=1,2 --pack 4", "-i"),
    ],
)
def test_what_would_do_nothing_is_refused(cells, echo, options, ways):
    """An option for many completions, on a line for one or for a grid, is no silent wish."""
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} {options}\nP")
    assert isinstance(result.error_in_exec, OptionError)
    assert str(result.error_in_exec).endswith(f"would do nothing: it goes with {ways}")
    assert echo.heard == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-i nothing", "there is no 'nothing'"),
        ("-i rows --sweep n=1,2", "do not go together"),
        ("-i rows --tune", "do not go together"),
        ("-i rows --as json", "binds a Batch"),
        ("-i rows --bg", "--bg"),
        ("-i rows --prompt x", "--prompt"),
        ("-i rows --budget 5", "tokens=N or requests=N"),
        ("-i rows --max-rps 0", "--max-rps"),
        ("-i rows --concurrency 0", "--concurrency"),
    ],
)
def test_what_does_not_go_with_rows_is_said_before_anything_is_sent(cells, echo, options, said):
    """The cell fails with one line."""
    cells.names["rows"] = ["a"]
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} {options}\n{{{{ row }}}}")
    assert isinstance(result.error_in_exec, OptionError)
    assert said in str(result.error_in_exec)
    assert echo.heard == []


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT], ids=str)
def test_what_is_missing_is_no_text(cells, echo, missing):
    """None and NaN are not sent as words: the row says which column is missing, and the others are asked."""
    cells.names["rows"] = [{"x": missing}, {"x": "a"}, {"x": "b", "y": missing}]
    batch = ask(cells, echo, "-i rows", "{{ x }}")
    assert batch.texts == [None, "<a>", "<b>"]
    assert str(batch[0].error) == f"{{{{ x }}}} is missing in this row: it is {missing}"
    assert batch.html().count(f">{missing}<") == 0


def test_a_name_that_is_no_column_is_told_with_the_columns(cells, echo):
    """Whoever thinks of another input sees what this one has."""
    cells.names["rows"] = ["a", "b"]
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i rows\n{{{{ text }}}}")
    assert str(result.error_in_exec).endswith("; the names of a row are row")


@pytest.mark.parametrize(
    ("options", "body", "said"),
    [
        ("-i rows", "Hello", "the prompt is the same for every row"),
        ("-i rows.x", "{{ row }}", "an expression needs a name first"),
    ],
)
def test_a_slip_with_rows_is_told_before_anything_is_sent(cells, echo, options, body, said):
    """A prompt without a column, and an input that is no name."""
    cells.names["rows"] = ["a", "b"]
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} {options}\n{body}")
    assert said in str(result.error_in_exec)
    assert echo.heard == []


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"pack": 0}, {"pack": "4"}, {"concurrency": None}])
def test_a_program_that_asks_less_than_one_at_a_time_is_told_so(echo, settings):
    """As the line is; nothing is sent, and no batch comes back as if nothing had been asked for."""
    with echo.client() as client, ThreadPoolExecutor(1) as pool:
        for executor in (None, pool):
            with pytest.raises(ConfigurationError, match="a whole number from 1"):
                client.complete_many(["a", "b"], executor=executor, **settings)
    with pytest.raises(ConfigurationError, match="max_rps takes a number above 0, not 0"):
        Pace(max_rps=0)
    assert echo.heard == []


@pytest.mark.parametrize("table", [FRAME, pl.DataFrame({"x": ["a"]}), {"x": ["a"]}], ids=["pandas", "polars", "dict"])
def test_a_program_is_told_which_part_of_a_table_are_prompts(echo, table):
    """A table has several columns: one of them is to be given, and no row fails for what all are."""
    with echo.client() as client, pytest.raises(ConfigurationError, match="give a column of texts"):
        client.complete_many(table)
    assert echo.heard == []


def test_rows_travel_packed(cells, echo):
    """With --pack the prompts of several rows are one request; each row gets its own choices, the first the usage."""
    cells.names["rows"] = list("abcde")
    batch = ask(cells, echo, "-i rows --pack 2 -n 2 --concurrency 1")
    assert [heard.json["prompt"] for heard in echo.heard] == [["Hi a", "Hi b"], ["Hi c", "Hi d"], "Hi e"]
    assert [row.completion.texts for row in batch] == [[f"<Hi {letter}>"] * 2 for letter in "abcde"]
    assert [choice.index for row in batch for choice in row.completion.choices] == [0, 1] * 5
    assert [row.tokens for row in batch] == [5, 0, 5, 0, 5]
    assert "15 tokens" in batch.plain()


def test_a_pack_that_fails_fails_its_rows_alone(cells, echo):
    """A refusal is every packed row's error; a prompt that cannot be made leaves the others of its pack."""
    cells.names["rows"] = [{"x": "a"}, {"y": "b"}, {"x": ["fail"]}, {"x": "c"}]
    batch = ask(cells, echo, "-i rows --pack 4", "{{ x }}")
    assert [heard.json["prompt"] for heard in echo.heard] == [["a", "['fail']", "c"]]
    assert [type(row.error).__name__ for row in batch] == ["NoneType", "PromptError", "NoneType", "NoneType"]


def test_an_endpoint_that_answers_one_of_many_prompts_is_told_from_one_that_answers_all(cells):
    """Rows that an endpoint has dropped from a pack have an error with the next step, and no other row's text."""
    one = answer({"choices": [{"text": "x", "index": 0, "finish_reason": "stop"}]})
    server = ScriptedServer([one])
    cells.names["rows"] = list("ab")
    batch = ask(cells, server, "-i rows --pack 2")
    server.close()
    assert batch.texts == ["x", None]
    assert "leave out --pack" in str(batch[1].error)


def test_a_hole_in_each_row_cannot_be_packed(cells, echo):
    """A request has one suffix: rows with their own are refused before they are sent."""
    cells.names["rows"] = list("ab")
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i rows --pack 2\na {{{{fill}}}} {{{{ row }}}}")
    assert "--pack sends one suffix" in str(result.error_in_exec)
    assert echo.heard == []


def test_a_frame_comes_back_as_a_frame(cells, echo):
    """The input's index and columns, then text, finish_reason, usage and error; names that clash are told apart."""
    cells.names["source"] = FRAME.rename(columns={"year": "text"})
    frame = ask(cells, echo, "-i source --as frame", "{{ country }}")
    assert list(frame.index) == ["f", "j", "e"]
    assert list(frame.columns) == [
        "country",
        "text",
        "completion_text",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "error",
    ]
    assert frame.completion_text.tolist() == ["<France>", "<Japan>", "<Egypt>"]
    assert frame.completion_tokens.tolist() == [3, 3, 3]
    cells.names["source"] = pl.DataFrame({"x": ["a", "b"]})
    frame = ask(cells, echo, "-i source --as frame -n 2", "{{ x }}")
    assert isinstance(frame, pl.DataFrame)
    assert frame["choice"].to_list() == [0, 1, 0, 1]


def test_the_frame_of_a_batch_can_be_asked_again(cells, echo):
    """Its columns have our names already, with and without what stands before them: none of them is written over."""
    cells.names["source"] = pd.DataFrame({"text": ["a", "b"], "completion_text": ["c", "d"], "error": [1, 2]})
    frame = ask(cells, echo, "-i source --as frame", "{{ text }}")
    assert frame.completion_text.tolist() == ["c", "d"]
    assert frame.completion_completion_text.tolist() == ["<a>", "<b>"]
    assert frame.error.tolist() == [1, 2]
    assert frame.completion_error.tolist() == [None, None]


def test_a_row_that_fails_leaves_the_others(cells, echo):
    """Its error is in its row; a prompt that cannot be rendered, too; all rows failing fails the cell."""
    cells.names["rows"] = [{"x": "a"}, {"x": "fail"}, {"y": "b"}, {"x": "c"}]
    batch = ask(cells, echo, "-i rows", "{{ x }}")
    assert batch.texts == ["<a>", None, None, "<c>"]
    assert [type(row.error).__name__ for row in batch.failures] == ["BadRequestError", "PromptError"]
    assert "2 failed" in batch.plain()
    assert "1 x BadRequestError, first in row 1: " in batch.plain()
    cells.names["rows"] = ["fail", "fail again"]
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i rows -o every\n{{{{ row }}}}")
    assert type(result.error_in_exec).__name__ == "BadRequestError"
    assert len(cells.names["every"]) == 2


def hold_others(server, pace, count):
    """Let the others of the first `count` requests be answered once `pace` has heard of a rest; return whether it had."""
    rests, held, hold = threading.Event(), [], pace.hold

    def hold_and_tell(seconds):
        hold(seconds)
        if seconds:
            rests.set()

    pace.hold = hold_and_tell
    for number in range(2, count + 1):
        server.on_request[number] = lambda: held.append(rests.wait(20))
    return held


def test_one_refusal_slows_all():
    """A 429 with Retry-After is waited for by every worker: none asks before the time is over."""
    server = Echo(refusals=1, retry_after="0.4")
    pace = Pace()
    held = hold_others(server, pace, 4)
    with server.client() as client:
        batch = Context().run(client.complete_many, [str(number) for number in range(20)], concurrency=4, pace=pace)
    server.close()
    first = server.times[0]
    # Those that were under way when the refusal came are heard at once; all others wait.
    later = [moment - first for moment in server.times[4:]]
    assert batch.failures == []
    assert held == [True] * 3
    assert min(later) >= 0.39


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
def test_no_waits_holds_for_the_common_pause_too(workers):
    """Tests of code that meets a busy endpoint wait for none of its rests, in this process."""
    with contextlib.closing(Echo(refusals=2, retry_after="0.4" if workers else "30")) as server:
        pace = Pace()
        with server.client() as client, ThreadPoolExecutor(1) as pool:
            batch = client.complete_many(list("abcdefgh"), pace=pace, executor=pool if workers else None)
    assert batch.failures == []
    assert pace.rest == 0
    assert workers or server.times[-1] - server.times[0] < 10


def test_a_program_hears_of_the_retries_of_its_rows():
    """`on_wait` of the client that asks is called, whichever thread it was."""
    heard = []
    with (
        contextlib.closing(Echo(refusals=2, retry_after="0.1")) as server,
        server.client(on_wait=heard.append) as client,
    ):
        assert client.complete_many(list("abcdefgh")).failures == []
    assert [(wait.reason, wait.seconds, wait.retries) for wait in heard] == [("429", 0.1, 2)] * 2


def test_a_retry_stands_in_the_one_line_of_progress_while_it_waits():
    """With the seconds that are left; the next takes its place, and nothing of it stays."""
    progress = Progress(40, "none", list)
    progress.add(Row(0, {}, error=BudgetError("spent")))
    assert "trying" not in str(progress)
    for retry in (1, 2):
        progress.wait(Wait("429", 12.0, retry, 3))
    assert re.fullmatch(r"1 of 40 rows · 429: trying again in 12 s, 2 of 3 · .*", str(progress))
    progress.wait(Wait("no answer", 0.0, 1, 2))
    assert "1 of 40 rows · no answer: trying again at once, 1 of 2 · " in str(progress)
    assert eventually(lambda: "trying" not in str(progress))


def test_the_end_of_a_batch_shows_no_retry():
    """Once all rows are there nothing waits any more."""
    with Progress(1, "none", list) as progress:
        progress.wait(Wait("429", 12.0, 1, 3))
    assert "trying" not in str(progress)


def test_never_more_requests_a_second_than_said(echo):
    """`max_rps` bounds the rate of all workers together."""
    began = time.monotonic()
    with echo.client() as client:
        client.complete_many(list("abcdef"), concurrency=6, pace=Pace(max_rps=20))
    assert all(moment - began >= before / 20 for before, moment in enumerate(echo.times))


TYPED = {
    "pandas": pd.DataFrame(
        {
            "a": pd.Categorical(["x", None, "y"]),
            "b": pd.array([1, None, 3], dtype="Int64"),
            "c": pd.array([0.5, 1.5, 2.5], dtype="float32"),
            "d": pd.to_datetime(["2020-01-01", None, "2021-01-01"]).tz_localize("UTC"),
            "e": [{"a": 1}, [1], None],
        }
    ),
    "polars": pl.DataFrame(
        {"a": ["x", None, "y"], "b": [1, None, 3], "c": [[1], None, [2, 3]]},
        schema={"a": pl.Enum(["x", "y"]), "b": pl.Int8, "c": pl.List(pl.Int16)},
    ),
}


@pytest.mark.parametrize("kind", TYPED)
@pytest.mark.parametrize("scores", [False, True], ids=["batch", "scores"])
def test_a_frame_comes_back_with_the_types_of_its_columns(kind, scores):
    """A category is no text afterwards, nor a whole number with gaps a fraction; without rows too."""
    for given in (TYPED[kind], TYPED[kind][:0]):
        rows = read_rows(given)
        form = {"index": rows.index, "types": rows.types}
        if scores:
            came = Scores(rows.columns, kind, "logprob", [ScoredRow(*row) for row in rows.rows], **form).to_frame()
        else:
            came = Batch(rows.columns, kind, [Row(*row) for row in rows.rows], **form).to_frame()
        assert came[list(given.columns)].equals(given)
        assert list(came.dtypes)[: len(given.columns)] == list(given.dtypes)


@pytest.mark.parametrize(("budget", "most"), [("requests=3", 3), ("tokens=15", 3), ("tokens=1", 1)])
def test_a_spent_budget_ends_the_batch_with_what_is_done(cells, echo, budget, most):
    """Nothing is lost and nothing fails: the rows that were not asked say so, and the frame has all rows."""
    cells.names["rows"] = list("abcdefgh")
    batch = ask(cells, echo, f"-i rows --budget {budget} --concurrency 1")
    assert len(echo.heard) == most
    assert [text is not None for text in batch.texts] == [True] * most + [False] * (8 - most)
    assert len(batch.to_frame()) == 8
    assert len(batch.missing) == 8 - most
    assert batch.failures == []
    assert "not done: the budget is spent" in batch.plain()


def test_who_waits_for_a_turn_asks_nothing_more_after_stop(cells, echo):
    """Stop in the middle of a slow pace: the workers that wait give up instead of asking at once."""
    cells.names["rows"] = [str(number) for number in range(100)]
    waiting = []

    def interrupt_all():
        waiting.append(eventually(lambda: sum("completions-batch" in one.name for one in threading.enumerate()) == 8))
        interrupt()

    echo.on_request[1] = interrupt_all
    cells.run(f"%%complete -m m --base-url {echo.base_url} -i $rows -o batch --max-rps 0.05\n{{{{ row }}}}")
    assert waiting == [True]
    assert len(echo.heard) == 1
    assert "not done: interrupted" in cells.names["batch"].plain()


def test_a_budget_is_spent_before_it_is_passed():
    """The error of the pace itself says how much was spent."""
    pace = Pace(requests=1)
    pace.turn()
    with pytest.raises(BudgetError, match="1 requests, 0 tokens"):
        pace.turn()


def test_the_same_cell_asks_only_for_what_is_missing(cells, echo, tmp_path):
    """With a journal: nothing twice, one changed row redone, failed rows asked again, equal rows kept apart."""
    cells.names["rows"] = ["a", "b", "b", "fail"]
    first = ask(cells, echo, "-i rows --journal rows.jsonl --concurrency 2")
    assert len(echo.heard) == 4
    cells.names["rows"] = ["a", "B", "b", "b", "b"]
    second = ask(cells, echo, "-i rows --cassette rows.jsonl")
    asked = Counter(heard.json["prompt"] for heard in echo.heard[4:])
    assert asked == {"Hi B": 1, "Hi b": 1}
    assert second.texts == ["<Hi a>", "<Hi B>", "<Hi b>", "<Hi b>", "<Hi b>"]
    assert first.texts[:3] == ["<Hi a>", "<Hi b>", "<Hi b>"]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 6


DRIVER = """
import sys
from completions_magic import Client
client = Client(base_url=sys.argv[1], model="m", cassette="rows.jsonl")
batch = client.complete_many((f"row {number}" for number in range(300)), concurrency=4)
print(len(batch), len(batch.failures), len(set(batch.texts)))
"""


def test_a_driver_that_is_killed_goes_on_where_it_was(echo, tmp_path):
    """Killed with SIGKILL again and again: in the end every row is there, and none that was on disk was asked twice."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = set()
    for kill_at in (40, 110, 190, 10_000):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, echo.base_url],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        echo.on_request = {kill_at: driver.kill}
        heard_before = len(echo.heard)
        out, _ = driver.communicate()
        assert not finished & {heard.json["prompt"] for heard in echo.heard[heard_before:]}
        lines = (tmp_path / "rows.jsonl").read_bytes().splitlines(keepends=True)
        whole = {json.loads(line)["request"]["body"]["prompt"] for line in lines if line.endswith(b"\n")}
        assert finished <= whole
        finished = whole
    assert out.split() == ["300", "0", "300"]
    times = Counter(heard.json["prompt"] for heard in echo.heard)
    assert len(times) == 300
    # What was under way at one of the three kills may have been asked again, and nothing else.
    assert sum(times.values()) <= 300 + 3 * 4


def test_rows_that_break_off_keep_what_has_come(cells, echo):
    """An iterator that fails after some rows fails the cell; the rows that had come are bound."""

    def rows():
        yield from "ab"
        raise ValueError("the file ends here")

    cells.names["rows"] = rows()
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i rows -o batch --concurrency 1\n{{{{ row }}}}")
    assert isinstance(result.error_in_exec, ValueError)
    assert cells.names["batch"].texts == ["<a>", "<b>"]


def test_an_interrupt_while_workers_are_being_started_is_heard():
    """Those that work already are stopped, and no more are started."""
    stopped = threading.Event()

    def works():
        yield lambda: stopped.wait(10)
        signal.raise_signal(signal.SIGINT)
        yield lambda: pytest.fail("it was started after the interrupt")

    with ThreadPoolExecutor(2) as pool:
        assert run_all(pool, works(), stopped.set)


def test_a_work_that_began_as_its_start_was_interrupted_has_settled_at_the_end():
    """Neither the pool nor who gave it the work has noted its thread by then."""
    begun, stopped, settled = threading.Event(), threading.Event(), []

    def work():
        begun.set()
        stopped.wait(10)
        time.sleep(0.3)
        settled.append(True)

    with ThreadPoolExecutor(1) as pool:
        at_call(threading.Event.wait, lambda: begun.wait(10) and interrupt())  # a start waits until its thread runs
        assert run_all(pool, [work], stopped.set)
        assert settled == [True]


def test_a_work_whose_thread_was_not_started_is_not_waited_for():
    """An interrupt that comes just before it leaves the work without anybody who would do it."""
    with ThreadPoolExecutor(1) as pool:
        at_call(threading.Thread.start, interrupt)
        assert run_all(pool, [lambda: pytest.fail("it was started after the interrupt")], lambda: None)


def test_an_interrupt_keeps_what_is_done(cells, echo):
    """What had come is bound, the rest is marked as not done, and the cell ends as interrupted."""
    cells.names["rows"] = [str(number) for number in range(1000)]
    echo.on_request[30] = interrupt
    line = f"%%complete -m m --base-url {echo.base_url} -i rows -o batch --max-rps 300\n{{{{ row }}}}"
    result = cells.run(line)
    assert isinstance(result.error_in_exec, Interrupted)
    batch = cells.names["batch"]
    assert len(batch) == 1000
    assert len([text for text in batch.texts if text]) >= 30 - 8  # as many were under way
    assert len(batch.missing) > 500
    assert batch.failures == []


def test_answers_are_in_the_rows_order_at_any_concurrency(echo):
    """Whatever ends first, the first row is the first."""
    prompts = [str(number) for number in range(200)]
    with echo.client() as client:
        one = client.complete_many(prompts, concurrency=1)
        many = client.complete_many(iter(prompts), concurrency=16)
    assert one.texts == many.texts == [f"<{prompt}>" for prompt in prompts]
    assert many.columns == ("row",)
    assert [row.label for row in many] == list(range(200))


def test_the_record_shows_the_first_rows_and_is_inert(cells, echo):
    """Text and HTML hold the first rows, how many more there are, and no markup from a model."""
    cells.names["rows"] = ["<img src=x onerror=alert(1)>"] * 7
    bundle = ask(cells, echo, "-i rows")._repr_mimebundle_()
    assert "<img" not in bundle["text/html"]
    assert bundle["text/html"].count("&lt;img") == 5
    assert "… 2 more" in bundle["text/plain"]
    assert bundle["text/plain"].endswith("(7 rows · 35 tokens)")


def test_one_prompt_is_no_list_of_prompts():
    """A text is not taken for its letters; what takes it is said."""
    with pytest.raises(ConfigurationError, match="takes a list of prompts, and this is one"):
        Client().complete_many("Once")


def test_rows_come_from_the_embedded_endpoint_too():
    """Without a server, several workers share the model; the same seed gives the same texts."""
    texts = [Client().complete_many(["Once", "The"], max_tokens=4, seed=1).texts for _ in range(2)]
    assert texts[0] == texts[1]
    assert all(texts[0])


def test_a_batch_that_is_refused_throughout_says_so(cells):
    """A 429 for every row is the rows' error, after its retries."""
    server = Echo(refusals=10_000)
    cells.names["rows"] = ["a", "b"]
    result = cells.run(f"%%complete -m m --base-url {server.base_url} -i rows --retries 1\n{{{{ row }}}}")
    server.close()
    assert isinstance(result.error_in_exec, RateLimitError)
    assert len(server.heard) == 4


# -- an endpoint that fails every row ----------------------------------------------------------------------------------

REFUSALS = {
    "401": answer({"error": "no such key"}, status="401 Unauthorized"),
    "404": answer({"error": "no model m"}, status="404 Not Found"),
    "307": answer(b"", status="307 Moved", headers="Location: /elsewhere\r\n"),
    "403": answer({"error": "not yours"}, status="403 Forbidden"),
    "429": answer({"error": "slow"}, status="429 Slow", headers="Retry-After: 0\r\n"),
    "500": answer({"error": "oops"}, status="500 Oops", headers="x-should-retry: false\r\n"),
}


class Says(Echo):
    """Refuses a prompt with the status that it begins with, and echoes any other.

    "slow" is echoed once it has heard so many others, "late" refused once `late` is set.
    """

    def __init__(self):
        self.late = threading.Event()
        super().__init__()

    def _talk(self, connection):
        with contextlib.suppress(OSError), connection:
            while (heard := self._read(connection)) is not None:
                self.heard.append(heard)
                status, *more = heard.json["prompt"].split() if heard.body else ["404"]
                if status == "slow":
                    eventually(lambda count=int(more[0]): len(self.heard) > count)
                if status == "late":
                    status = "429" if self.late.wait(10) else "no"
                connection.sendall(REFUSALS.get(status) or echoed(heard.json))

    @property
    def asked(self):
        """The prompts that it heard, without a look at its models."""
        return [heard.json["prompt"] for heard in self.heard if heard.body]


@pytest.fixture
def says():
    """Give a server that refuses as the prompt says."""
    with contextlib.closing(Says()) as server:
        yield server


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
@pytest.mark.parametrize(
    ("status", "said"), [("401", "answered 401"), ("404", "answered 404"), ("307", "redirects to")]
)
def test_what_every_row_would_meet_alike_ends_the_batch_at_once(says, status, said, workers):
    """One request of each that was under way; the rest is not asked, and says why in one line."""
    with says.client() as client, ThreadPoolExecutor(1) as pool:
        rows = [f"{status} {number}" for number in range(500)]
        batch = client.complete_many(rows, concurrency=4, executor=pool if workers else None)
    assert len(says.asked) == len(batch.failures) <= (8 if workers else 4)
    assert len(batch) == 500
    assert len(batch.missing) == 500 - len(batch.failures)
    assert batch.ended.startswith(f"every row would fail alike: {says.base_url} {said} ")
    assert "\n" not in batch.ended
    assert len(batch.ended) < 300
    assert batch.to_frame()["error"].iloc[-1] == f"not asked: {batch.ended}"


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
def test_a_journal_that_is_lost_ends_the_batch(echo, tmp_path, workers):
    """Nothing more is paid for that could not be kept; what was answered is in its row."""
    journal, link = tmp_path / "rows.jsonl", tmp_path / "link"
    link.symlink_to(tmp_path)
    echo.on_request[9] = lambda: link.replace(journal)  # at once: a worker writes rows meanwhile
    with echo.client(cassette=journal) as client, ThreadPoolExecutor(1) as pool:
        rows = [str(number) for number in range(5000)]
        pace = Pace(max_rps=10_000)  # a chunk holds one row
        batch = client.complete_many(rows, concurrency=2, pace=pace, executor=pool if workers else None)
    assert batch.ended.startswith("every row would fail alike: the cassette rows.jsonl ")
    assert len(batch.missing) > 2500
    assert {type(row.error) for row in batch.failures} == {CassetteError}
    # One that looked for its row before it asked, and found the journal lost, has no answer.
    assert [row for row in batch.failures if row.completion is not None and row.completion.text == f"<{row.label}>"]


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
@pytest.mark.parametrize("status", ["403", "429"])
def test_refusals_in_a_row_end_the_batch(says, status, workers):
    """Twice as many as may be under way, after their retries; those that are still end."""
    tries = 2 if status == "429" else 1
    with says.client(retries=1) as client, ThreadPoolExecutor(1) as pool:
        rows = [f"{status} {number}" for number in range(5000)]
        batch = client.complete_many(rows, concurrency=2, executor=pool if workers else None)
    # More where a thread or a chunk is held up by a busy machine, as if it were being answered.
    assert (8 if workers else 4) <= len(batch.failures) <= 2500
    assert len(says.asked) == tries * len(batch.failures)
    assert len(batch.missing) == 5000 - len(batch.failures)
    said = f" requests in a row have failed, the last: {says.base_url} answered {status} "
    assert re.match(rf"\d+{re.escape(said)}", batch.ended)


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
def test_refusals_beside_an_answer_that_takes_long_do_not_end_the_batch(says, workers):
    """Of an endpoint with one place, which refuses whoever else comes meanwhile, every row is asked."""
    rows = ["slow 30", *[f"429 {number}" for number in range(30)], "last"]
    with says.client(retries=0) as client, ThreadPoolExecutor(2) as pool:
        batch = client.complete_many(rows, concurrency=2, executor=pool if workers else None)
    assert sorted(says.asked) == sorted(rows)
    assert (batch.ended, batch.texts[0], batch.texts[-1]) == ("", "<slow 30>", "<last>")


class Telling(CircuitBreaker):
    """A breaker that does `then` as the first request has ended."""

    def __init__(self, most, then):
        super().__init__(most)
        self._then = then

    def end(self, number):
        """Do `then` after it."""
        super().end(number)
        if number == 1:
            self._then()


class HoldingUp:
    """A lock; `seconds` is for how long the thread is held up that lets go of it next."""

    def __init__(self):
        self.seconds = 0.0
        self._lock = threading.Lock()

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *_):
        seconds, self.seconds = self.seconds, 0.0
        self._lock.release()
        time.sleep(seconds)


def test_an_answer_counts_as_soon_as_it_is_under_way_no_more(says):
    """A thread that is held up right then lets no refusal of the others end the batch."""
    rows = ["slow 20", *[f"429 {number}" for number in range(19)], "late", "last"]
    with says.client(retries=0) as client:
        asking = Asking(read_rows(rows), lambda row: client.request(row["row"]), client, concurrency=2)
        asking._lock = lock = HoldingUp()

        def hold_up():
            lock.seconds = 0.1
            says.late.set()

        asking.breaker = Telling(asking.breaker.most, hold_up)
        batch = asking.run()
    assert sorted(says.asked) == sorted(rows)
    assert (batch.ended, batch.texts[0], batch.texts[-1]) == ("", "<slow 20>", "<last>")


def test_a_failure_of_tls_ends_the_batch_at_once():
    """No certificate and no protocol gets better from row to row."""
    with contextlib.closing(PlainServer()) as plain:
        base_url = plain.base_url.replace("http", "https")
        with Client(base_url=base_url, model="m") as client:
            batch = client.complete_many(list("abcdef"), concurrency=1)
    assert len(batch.failures) == 1
    assert batch.ended == f"every row would fail alike: {base_url} speaks plain http: try {plain.base_url}"


def test_a_connection_that_is_refused_again_and_again_ends_the_batch(closed_port):
    """Nobody is there to be asked for the others."""
    with Client(base_url=f"http://127.0.0.1:{closed_port}/v1", model="m", retries=0) as client:
        batch = client.complete_many(list(map(str, range(20_000))), concurrency=2)
    # More where a busy machine holds up the one thread while the other is refused again and again.
    assert 4 <= len(batch.failures) <= 10_000
    assert "cannot be reached" in batch.ended


@pytest.mark.parametrize("workers", [False, True], ids=["threads", "executor"])
@pytest.mark.parametrize("turns", ["fail fail", "500 500", "429 ok", "403 ok", "429 fail"])
def test_what_may_be_a_rows_own_fault_or_passes_never_ends_the_batch(says, turns, workers):
    """Nothing but 400s or 500s, and refusals with answers or 400s between them: every row is asked."""
    rows = [f"{turns.split()[number % 2]} {number}" for number in range(60)]
    with says.client(retries=0) as client, ThreadPoolExecutor(1) as pool:
        batch = client.complete_many(rows, concurrency=1, executor=pool if workers else None)
    assert sorted(says.asked) == sorted(rows)
    assert (batch.ended, batch.missing) == ("", [])


def test_once_rows_were_answered_a_refused_key_must_be_refused_again_and_again(says):
    """A gateway that stumbles once does not end a long batch; a key that was withdrawn does."""
    rows = ["a", "401 once", "b", *[f"401 {number}" for number in range(100)]]
    with says.client() as client:
        batch = client.complete_many(rows, concurrency=1)
    assert says.asked == rows[:5]
    assert batch.texts[:3] == ["<a>", None, "<b>"]
    assert batch.ended.startswith("2 requests in a row have failed")


def test_the_same_cell_asks_for_the_rest_when_the_endpoint_is_well_again(cells, says):
    """With a journal nothing is asked twice but what has failed; answers that are replayed say nothing of a key."""
    line = (
        f"%%complete -m m --base-url {says.base_url} -i rows -o batch --journal j.jsonl --concurrency 1\n{{{{ row }}}}"
    )
    cells.names["rows"] = ["a", *["401"] * 2, *"bcd"]
    cells.run(line).raise_error()
    cells.names["rows"] = ["a", "401", *"bcd"]
    del says.heard[:]
    cells.run(line).raise_error()
    assert says.asked == ["401"]
    assert cells.names["batch"].ended.endswith("; the same cell asks for the rest")
    cells.names["rows"] = list("abcd")
    cells.run(line).raise_error()
    assert says.asked == ["401", *"bcd"]
    assert cells.names["batch"].texts == ["<a>", "<b>", "<c>", "<d>"]


@pytest.mark.parametrize("options", ["", "--score labels --score-context ''"], ids=["rows", "scores"])
def test_a_cell_for_which_nothing_came_fails(cells, says, options):
    """With the first error, as where every row has failed; what was not asked is bound."""
    cells.names.update(rows=[f"401 {number}" for number in range(50)], labels=[" x"])
    line = f"%%complete -m m --base-url {says.base_url} -i rows -o batch {options} --concurrency 1\n401 {{{{ row }}}}"
    result = cells.run(line)
    assert isinstance(result.error_in_exec, AuthenticationError)
    assert len(cells.names["batch"]) == 50
    assert len(says.asked) == 1


def test_a_worker_ends_its_chunk_itself(says):
    """However many rows it was given; what it knows of earlier ones counts, and what it did not send has no outcome."""
    with says.client(retries=0) as client:
        requests = [client.request(f"429 {number}") for number in range(200)]
        report = work(Order.of(client, 2), requests, CircuitBreaker(4, failures=1))
    outcomes = [outcome for outcome in report.outcomes if outcome is not None]
    assert 3 <= len(outcomes) == len(says.asked) <= 4
    assert len(report.outcomes) == 200
    assert report.reason.startswith("4 requests in a row")


class Strict(ThreadPoolExecutor):
    """An executor whose workers end their chunks at the first refusal."""

    def submit(self, work, order, requests, _breaker):
        """Run the work with a breaker of its own."""
        return super().submit(work, order, requests, CircuitBreaker(1))


def test_what_a_worker_has_not_sent_is_not_passed_over(says):
    """Where it ended its chunk the batch ends, though the others have not met enough refusals: the rest says why."""
    with says.client(retries=0) as client, Strict(1) as pool:
        batch = client.complete_many(["429 0", "429 1", *"abcdefgh"], concurrency=2, executor=pool)
    assert re.match("[12] requests in a row have failed", batch.ended)
    assert 1 <= len(batch.failures) <= 2
    assert len(batch.missing) == 10 - len(says.asked) > 0


def test_chunks_that_are_under_way_together_may_all_be_refused_once(says):
    """As many refusals as there are requests under way say nothing yet."""
    rows = ["429 0", "429 1", *"abcdefgh"]
    with says.client(retries=0) as client, ThreadPoolExecutor(2) as pool:
        batch = client.complete_many(rows, concurrency=1, executor=pool)
    assert sorted(says.asked) == sorted(rows)
    assert batch.ended == ""


# -- what a first user took for granted --------------------------------------------------------------------------------


def test_a_value_that_a_row_lacks_is_not_taken_from_the_notebook(cells, echo):
    """Where other rows have the name a variable of that name is somebody else's."""
    cells.names.update(rows=[{"a": "x", "b": 1}, {"a": "y"}, {"b": 3, "a": "z"}], b="LEFT OVER")
    batch = ask(cells, echo, "-i rows", "{{ a }} {{ b }}")
    assert batch.texts == ["<x 1>", None, "<z 3>"]
    assert "missing in this row, which other rows have" in str(batch[1].error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{{ id }}: {{ text }}", "{{ text }} is a variable of the notebook, the same in every row: did you mean Text?"),
        (
            "{{ id }}: {{ First Name }}",
            '{{ First Name }} would be sent as it stands: this column is {{ row["First Name"] }}',
        ),
    ],
)
def test_braces_that_a_person_takes_for_a_column_are_told_before_anything_is_sent(cells, echo, body, said):
    """The wrong case, and names with blanks, which are literal; with --raw they are sent."""
    cells.names.update(rows=[{"id": 1, "Text": "a", "First Name": "b"}], text="an old review")
    line = f"%%complete -m m --base-url {echo.base_url} -i rows"
    assert str(cells.run(f"{line}\n{body}").error_in_exec) == said
    assert not echo.heard
    cells.run(f"{line} --raw -o batch\n{body}").raise_error()
    assert cells.names["batch"].texts == [f"<{body}>"]


def test_a_suffix_of_columns_is_refused(cells, echo):
    """It would be sent as it stands with every row."""
    cells.names["rows"] = ["a"]
    line = f'%%complete -m m --base-url {echo.base_url} -i rows --suffix "{{{{ row }}}}"'
    assert "{{fill}}" in str(cells.run(f"{line}\n{{{{ row }}}}").error_in_exec)


@pytest.mark.parametrize("budget", [3, 10, 40])
def test_a_budget_is_spent_whatever_the_pace(echo, budget):
    """Those that wait for their turn when it is spent still go: as many are asked as it says."""
    with echo.client() as client:
        batch = client.complete_many(map(str, range(60)), pace=Pace(max_rps=400, requests=budget))
    assert len(echo.heard) == budget
    assert sum(text is not None for text in batch.texts) == budget
    assert batch.ended == "the budget is spent"


def test_rows_that_were_not_asked_say_so_in_the_frame(echo):
    """So that who filters by error does not take them for answers."""
    with echo.client() as client:
        frame = client.complete_many(list("abc"), concurrency=1, pace=Pace(requests=1)).to_frame()
    assert list(frame["error"].fillna("")) == ["", "not asked: the budget is spent", "not asked: the budget is spent"]


def test_after_an_interrupt_what_had_come_of_the_rows_is_shown_and_said(cells, echo, capsys):
    """The record of the rows, then the interrupt, as of one completion."""
    cells.names["rows"] = [str(number) for number in range(1000)]
    echo.on_request[30] = interrupt
    line = f"%%complete -m m --base-url {echo.base_url} -i rows -o batch --concurrency 1 --max-rps 300 --view text"
    error = cells.run(f"{line}\n{{{{ row }}}}").error_in_exec
    assert error.batch is cells.names["batch"]
    shown = capsys.readouterr().out
    assert "[0] <0>" in shown
    assert "not done: interrupted" in shown
    assert "what had arrived is kept" in "".join(error._render_traceback_())


def test_rows_of_an_iterator_are_not_promised_to_come_again(echo, tmp_path):
    """The same cell would go on behind what the iterator has given; the frame shows which row is which."""
    echo.on_request[5] = interrupt
    with echo.client(cassette=tmp_path / "j.jsonl") as client, pytest.raises(Interrupted) as caught:
        client.complete_many((f"g{number}" for number in range(1000)), concurrency=2, pace=Pace(max_rps=200))
    batch = caught.value.batch
    assert batch.ended == "interrupted"
    assert list(batch.to_frame()["row"])[:3] == ["g0", "g1", "g2"]


def test_the_first_rows_request_can_be_looked_at(cells, echo):
    """--dry-run shows it, and sends nothing."""
    cells.names["rows"] = [{"a": "x"}, {"a": "y"}]
    shown = cells.run(f"%%complete -m m --base-url {echo.base_url} -i rows --dry-run --seed 4\nSay {{{{ a }}}}").result
    assert '"prompt": "Say x"' in repr(shown)
    assert '"seed": 4' in repr(shown)
    assert not echo.heard


@pytest.mark.parametrize("kind", [iter, lambda rows: (row for row in rows), lambda rows: map(str, rows)])
def test_no_row_of_an_iterator_is_lost_before_it_is_asked(cells, echo, kind):
    """A cell that shows the request, or fails with a slip, has looked at the first row; the next cell asks for it."""
    cells.names["rows"] = kind(["a", "b"])
    line = f"%%complete -m m --base-url {echo.base_url} -i rows -o batch"
    assert '"prompt": "Say a"' in repr(cells.run(f"{line} --dry-run\nSay {{{{ row }}}}").result)
    assert isinstance(cells.run(f"{line}\nthe same").error_in_exec, PromptError)
    assert isinstance(cells.run(f"{line} --executor line\n{{{{ row }}}}").error_in_exec, OptionError)
    cells.run(f"{line}\nSay {{{{ row }}}}").raise_error()
    assert cells.names["batch"].texts == ["<Say a>", "<Say b>"]
    cells.run(f"{line}\nSay {{{{ row }}}}").raise_error()
    assert len(cells.names["batch"]) == 0


@pytest.mark.parametrize(
    "index",
    [pd.Index(["p", "q"], name="key"), pd.MultiIndex.from_tuples([(1, 0), (1, 1)], names=["run", None])],
    ids=["named", "several levels"],
)
def test_an_index_keeps_its_names_and_levels(echo, index):
    """So that the frame can be joined with the input."""
    with echo.client() as client:
        frame = client.complete_many(pd.Series(["a", "b"], index=index)).to_frame()
    assert frame.index.equals(index)
    assert frame.index.names == index.names


def test_a_row_does_not_wait_for_the_next_one(echo):
    """An iterator may be slow, or look at what came of its earlier rows: each is asked when it is there."""
    heard = []

    def feed():
        for number in range(1, 4):
            yield str(number)
            heard.append(eventually(lambda asked=number: len(echo.heard) == asked, seconds=2.0))

    with echo.client() as client:
        assert client.complete_many(feed()).texts == ["<1>", "<2>", "<3>"]
    assert heard == [True, True, True]


def test_the_rate_is_that_of_what_is_asked(echo, tmp_path):
    """Rows that are replayed come at once, and say nothing of how long the others will take."""
    progress = Progress(3, "none", list)
    with echo.client(cassette=tmp_path / "j.jsonl") as client:
        client.complete_many(["a"])
        asking = Asking(read_rows(["a"]), lambda row: client.request(row["row"]), client)
        asking.run(progress.add)
    assert str(progress) == "1 of 3 rows · 5 tokens"
    assert len(echo.heard) == 1
