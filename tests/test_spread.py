"""Many prompts past one machine: processes, Dask and ipyparallel ask, one process writes."""

import os
import pickle
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import Context
from multiprocessing import get_context

import ipyparallel
import pandas as pd
import pytest
from conftest import eventually
from dask import bag, dataframe
from dask import config as dask_config
from distributed import Client as DaskClient
from distributed import LocalCluster
from ports import port_to_bind_later
from test_batch import Echo, hold_others, interrupt

from completions_magic import Client
from completions_magic.breaker import CircuitBreaker
from completions_magic.errors import (
    ConfigurationError,
    Interrupted,
    OptionError,
    ProfileError,
    PromptError,
    WorkerError,
)
from completions_magic.pace import Pace
from completions_magic.profiles import NOTEBOOK_FILE, Profile, trust
from completions_magic.rows import ROW, read_rows
from completions_magic.spread import Order, Spreading, answer

KEY = "sk-spread-0123456789abcdefghij"
ROWS = [str(number) for number in range(60)]


@pytest.fixture
def echo():
    """Give a server that echoes."""
    server = Echo()
    yield server
    server.close()


@pytest.fixture(scope="module")
def cluster():
    """Give a Dask cluster of two processes."""
    # On Python 3.11 a worker's profiler may freeze it, with whatever it does: dask/distributed, issue 8616.
    with (
        dask_config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0") as cluster,
    ):
        yield cluster


@pytest.fixture
def dask(cluster):
    """Give a Dask client whose workers are both there."""
    with DaskClient(cluster) as client:
        client.wait_for_workers(2)
        yield client


@pytest.fixture(scope="module")
def engines():
    """Give an ipyparallel client of two engines."""
    ports = ",".join(str(port_to_bind_later()) for _ in range(24))  # more than it needs: what is lacking it looks for
    with ipyparallel.Cluster(n=2, log_level=40, controller_args=[f"--IPController.ports={ports}"]) as client:
        yield client


def texts_of(batch):
    """Return the texts; fail with the first error where there is one."""
    assert [str(row.error) for row in batch.failures] == []
    return batch.texts


def test_every_executor_gives_the_same(echo, dask, engines):
    """Threads, processes, Dask with two workers and with one, ipyparallel: equal texts in the rows' order, each row asked once."""
    expected = [f"<{row}>" for row in ROWS]
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as alone,
        DaskClient(alone) as one,
        ThreadPoolExecutor(2) as threads,
        ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes,
        echo.client() as client,
    ):
        for executor in (None, threads, processes, dask.get_executor(), one.get_executor(), engines.executor()):
            assert texts_of(client.complete_many(ROWS, executor=executor, concurrency=4)) == expected
    assert set(Counter(heard.json["prompt"] for heard in echo.heard).values()) == {6}


def test_one_process_writes_and_nothing_is_asked_twice(echo, dask, tmp_path):
    """The journal that workers' answers went to replays in this process and at the workers' order alike."""
    with echo.client(cassette=tmp_path / "rows.jsonl") as client:
        first = texts_of(client.complete_many([*ROWS, "0"], executor=dask.get_executor()))
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 61
    with echo.client(cassette=tmp_path / "rows.jsonl") as client:
        again = client.complete_many([*ROWS, "0", "0", "new"], executor=dask.get_executor())
        assert texts_of(again)[:61] == first
        assert texts_of(client.complete_many([*ROWS, "0"])) == first
    assert len(echo.heard) == 63


def test_a_row_that_fails_leaves_the_others(echo, dask):
    """A refusal is in its row, with its status and partial, as without an executor."""
    with echo.client() as client:
        batch = client.complete_many(["a", "fail", "b"], executor=dask.get_executor())
    assert batch.texts == ["<a>", None, "<b>"]
    assert (batch[1].error.status, type(batch[1].error).__name__) == (400, "BadRequestError")
    assert "no fail" in str(batch[1].error)


def test_a_killed_worker_costs_a_retry_and_no_row(dask, echo):
    """A worker process dies with rows under way: all rows come, in order, none twice in the batch."""
    victim = next(iter(dask.run(os.getpid).values()))
    echo.on_request[9] = lambda: os.kill(victim, signal.SIGKILL)
    ended = []
    with echo.client() as client:
        rows = read_rows(ROWS)
        settings = {"executor": dask.get_executor(), "concurrency": 2}
        asking = Spreading(rows, lambda row: client.request(row[ROW]), client, **settings)
        batch = asking.run(lambda row: ended.append(row.label))
    assert texts_of(batch) == [f"<{row}>" for row in ROWS]
    assert sorted(ended) == list(range(60))


def test_a_broken_pool_is_said_in_the_rows(echo):
    """A pool of processes that has lost one is of no use any more: the rows say so, with the next step."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, echo.client() as client:
        pid = pool.submit(os.getpid).result()
        echo.on_request[1] = lambda: os.kill(pid, signal.SIGKILL)
        batch = client.complete_many(ROWS, executor=pool, concurrency=2)
    assert {type(row.error) for row in batch} == {WorkerError}
    assert "run the cell again" in str(batch[0].error)
    assert "BrokenProcessPool" in str(batch[0].error)


def test_a_key_is_read_by_the_worker_and_never_sent_to_it(dask, engines, echo, monkeypatch):
    """What travels names the variable; a worker without it says which is missing, one that has it uses its own."""
    monkeypatch.setenv("SPREAD_KEY", KEY)
    profile = Profile("lab", echo.base_url, "SPREAD_KEY", "m")
    client = Client(profile)
    assert KEY.encode() not in pickle.dumps(Order.of(client, 2))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert client.complete_many(["a"], executor=pool).texts == ["<a>"]
    assert echo.heard[0].headers["authorization"] == f"Bearer {KEY}"
    for older in (dask.get_executor(), engines.executor()):  # their workers are older than the variable
        # They would fail one chunk of rows after the other.
        batch = client.complete_many(list("abcdefghijklmnopqrstuvwxyz"), executor=older, concurrency=1)
        assert isinstance(batch[0].error, ProfileError)
        assert "set the environment variable SPREAD_KEY (in the workers' environment" in str(batch[0].error)
        assert batch.ended.startswith("a worker fails every row: ")
        assert batch[-1].error is None
    own = Client(base_url=echo.base_url, model="m", api_key=KEY)
    with pytest.raises(ConfigurationError, match="name the environment variable"):
        own.complete_many(["a"], executor=dask.get_executor())
    assert len(echo.heard) == 1


class Losing(ThreadPoolExecutor):
    """An executor that loses the chunks whose numbers are in `lost`, as one does whose worker has died."""

    def __init__(self, lost):
        super().__init__(2)
        self.lost = lost
        self.count = 0

    def submit(self, work, /, *given, **named):
        """Run the work, or lose it."""
        self.count += 1
        if self.count in self.lost:
            future = Future()
            future.set_exception(OSError("the worker is gone"))
            return future
        return super().submit(work, *given, **named)


def test_a_chunk_that_is_lost_goes_to_another_worker(echo):
    """Lost once, all rows come; lost again and again, its rows say so, and the others come."""
    with echo.client() as client:
        with Losing({1}) as executor:
            assert texts_of(client.complete_many(ROWS, executor=executor)) == [f"<{row}>" for row in ROWS]
        with Losing({1, 3, 4}) as executor:
            batch = client.complete_many(ROWS[:16], executor=executor)
    assert batch.texts[8:] == [f"<{row}>" for row in ROWS[8:16]]
    lost = "the executor lost this row (OSError: the worker is gone): run the cell again, with a new executor if "
    assert [str(row.error) for row in batch.failures] == [
        f"{lost}this one is broken; with --journal only what is missing is asked"
    ] * 8


def test_one_refusal_slows_the_whole_chunk():
    """A 429 with Retry-After is waited for by all who ask for this chunk."""
    server = Echo(refusals=1, retry_after="0.4")
    with server.client() as client, ThreadPoolExecutor(1) as worker:
        order = Order.of(client, 4)
        held = hold_others(server, order.client().pace, 4)
        requests = [client.request(row) for row in ROWS[:20]]
        report = worker.submit(answer, order, requests, CircuitBreaker(16)).result()
    server.close()
    assert [outcome.completion.text for outcome in report.outcomes] == [f"<{row}>" for row in ROWS[:20]]
    assert held == [True] * 3
    assert min(moment - server.times[0] for moment in server.times[4:]) >= 0.39


def test_a_refusal_that_ends_a_chunk_slows_the_other_workers(echo):
    """What one process was told is told to the others: nothing new is handed out before the time is over."""
    server = Echo(refusals=1, retry_after="0.5")
    pace = Pace()
    held = hold_others(server, pace, 2)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        with echo.client() as client:
            client.complete_many(ROWS, executor=pool, concurrency=1)  # both processes are up
        with server.client(retries=0) as client:
            batch = Context().run(client.complete_many, ROWS, executor=pool, concurrency=1, pace=pace)
    server.close()
    assert len(batch.failures) == 1
    assert held == [True]
    assert min(moment - server.times[0] for moment in server.times[2:]) >= 0.49


def test_tokens_are_counted_where_they_were_spent(echo):
    """A budget of tokens counts the answers of all workers, and no replays."""
    pace = Pace(tokens=20)
    echo.latency = 0.005  # a chunk holds no more rows than its way there and back is worth
    with ThreadPoolExecutor(2) as executor, echo.client() as client:
        batch = client.complete_many(map(str, range(5000)), executor=executor, concurrency=1, pace=pace)
    assert pace.tokens == 5 * len(echo.heard) >= 20
    assert batch.ended == "the budget is spent"


def test_consent_is_given_where_the_person_is(echo, tmp_path, monkeypatch):
    """A key that may go to a notebook's endpoint may do so from a worker, which has no file of consents."""
    monkeypatch.setenv("SPREAD_KEY", KEY)
    profile = Profile("lab", echo.base_url, "SPREAD_KEY", "m", source=NOTEBOOK_FILE)
    with pytest.raises(ProfileError, match="agree once"):
        Client(profile)
    trust(profile)
    order = pickle.loads(pickle.dumps(Order.of(Client(profile), 2)))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert order.client().complete("a").text == "<a>"


def test_a_workers_client_has_the_settings_of_the_one_here(echo):
    """Every timeout, limit and number of retries travels; what a row asks for does not travel twice."""
    given = {"connect_timeout": 1.0, "first_token_timeout": 2.0, "timeout": 3.0, "retries": 4, "event_limit": 5}
    profile = Profile("lab", echo.base_url, model="m", parameters={"seed": 1})
    client = Client(profile, **given)
    worker = pickle.loads(pickle.dumps(Order.of(client, 2))).client()
    assert worker.settings == client.settings == {"model": "m", **given}
    assert worker.profile.parameters == {}


def test_a_worker_keeps_its_threads(echo):
    """From chunk to chunk: to start them would take as long as a chunk of quick answers."""

    def asked():
        answer(order, [client.request(row) for row in ROWS[:8]], CircuitBreaker(16))
        threads = set(threading.enumerate()) - before
        return {thread for thread in threads if thread.name.startswith("completions-worker")}

    before = set(threading.enumerate())
    with echo.client() as client, ThreadPoolExecutor(1) as worker:
        order = Order.of(client, 3)
        first = worker.submit(asked).result()
        assert 1 <= len(first) <= 3
        assert worker.submit(asked).result() >= first
    assert eventually(lambda: not first & set(threading.enumerate()))


def test_a_budget_and_a_pace_hold_past_one_machine(echo, dask):
    """No more requests than the budget allows; a rate is kept by handing rows out one at a time."""
    with echo.client() as client:
        batch = client.complete_many(ROWS, executor=dask.get_executor(), pace=Pace(requests=7))
        assert len([text for text in batch.texts if text]) == len(echo.heard) == 7
        assert (batch.ended, len(batch.missing)) == ("the budget is spent", 53)
        began = time.monotonic()
        client.complete_many(ROWS[:8], executor=dask.get_executor(), pace=Pace(max_rps=20))
    assert echo.times[-1] - began >= 7 / 20


def test_an_interrupt_keeps_what_came(cells, echo, dask):
    """Nothing more is sent, what is under way comes in, and the cell ends as interrupted."""
    cells.names |= {"rows": [str(number) for number in range(2000)], "pool": dask.get_executor()}
    echo.on_request[20] = interrupt
    where = f"-m m --base-url {echo.base_url} --journal rows.jsonl"
    # With a rate a chunk holds one row. Where the first one's way is long, as on a busy machine, the third would hold all.
    result = cells.run(f"%%complete {where} -i rows --executor pool --max-rps 10000 -o batch\n{{{{ row }}}}")
    assert isinstance(result.error_in_exec, Interrupted)
    batch = cells.names["batch"]
    came = [text for text in batch.texts if text]
    assert 20 <= len(came) == len(echo.heard) < 2000
    assert len(batch) == 2000
    assert cells.run(f"%%complete {where} -i rows --executor $pool -o batch\n{{{{ row }}}}").success
    assert batch is not cells.names["batch"]
    assert texts_of(cells.names["batch"]) == [f"<{row}>" for row in range(2000)]
    assert len(echo.heard) == 2000


def test_what_is_no_executor_is_said_before_anything_is_sent(cells, echo):
    """A name that is not there, and a thing that is none."""
    cells.names |= {"rows": ["a"], "pool": 5}
    for options, said in (("--executor pool", "concurrent.futures.Executor"), ("--executor pol", "did you mean pool")):
        result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i rows {options}\n{{{{ row }}}}")
        assert said in str(result.error_in_exec)
    assert echo.heard == []


def test_a_dask_frame_stays_lazy(cells, echo, dask):
    """Nothing is asked before it is computed; then each partition asks for its own rows, and the index is kept."""
    frame = pd.DataFrame({"country": ["France", "Japan", "fail", "Egypt"]}, index=[2, 4, 6, 8])
    cells.names |= {"source": dataframe.from_pandas(frame, npartitions=2), "kind": "capital"}
    where = f"-m m --base-url {echo.base_url} -o lazy"
    cells.run(f"%%complete {where} -i source -n 2\nThe {{{{ kind }}}} of {{{{ country }}}}").raise_error()
    assert echo.heard == []
    came = cells.names["lazy"].compute()
    assert sorted(heard.json["prompt"] for heard in echo.heard) == sorted(f"The capital of {c}" for c in frame.country)
    columns = ["country", "choice", "text", "finish_reason", "prompt_tokens", "completion_tokens", "error"]
    assert list(cells.names["lazy"].columns) == list(came.columns) == columns
    assert dict(cells.names["lazy"].dtypes) == dict(came.dtypes)
    assert list(came.index) == [2, 2, 4, 4, 6, 8, 8]
    assert came.text[2].tolist() == ["<The capital of France>"] * 2
    assert came.error[6].startswith("BadRequestError")
    assert came.text.isna().sum() == 1


def test_a_name_that_no_row_has_is_told_before_a_dask_frame_is_computed(cells, echo):
    """Its columns are known: it need not be seen in every row, after hours."""
    cells.names["source"] = dataframe.from_pandas(pd.DataFrame({"text": ["a"]}), npartitions=1)
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -o lazy -i source\n{{{{ txt }}}}")
    assert isinstance(result.error_in_exec, PromptError)
    assert "no variable 'txt' (did you mean text?); the names of a row are row, text" in str(result.error_in_exec)
    assert "lazy" not in cells.names


def test_a_dask_frame_keeps_columns_that_are_called_as_ours(cells, echo, dask):
    """What an earlier cell has left in it is there beside what comes, and of the types that were said."""
    frame = pd.DataFrame({"text": ["a", None], "completion_text": [1, 2]})
    cells.names["source"] = dataframe.from_pandas(frame, npartitions=1)
    cells.run(f"%%complete -m m --base-url {echo.base_url} -o lazy -i source\n{{{{ text }}}}").raise_error()
    came = cells.names["lazy"].compute()
    assert dict(cells.names["lazy"].dtypes) == dict(came.dtypes)
    assert came.completion_text.tolist() == [1, 2]
    assert came.completion_completion_text[0] == "<a>"


@pytest.mark.parametrize(
    "options", ["--journal x.jsonl", "--budget requests=1", "--max-rps 2", "--executor pool", "--dry-run"]
)
def test_what_needs_one_process_does_not_go_with_a_dask_frame(cells, echo, dask, options):
    """The line names the option and the way round."""
    frame = dataframe.from_pandas(pd.DataFrame({"x": ["a"]}), npartitions=1)
    cells.names |= {"source": frame, "pool": dask.get_executor()}
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i source {options}\n{{{{ x }}}}")
    assert isinstance(result.error_in_exec, OptionError)
    assert "does not go with a Dask frame" in str(result.error_in_exec)
    assert options.split()[0] in str(result.error_in_exec)


def test_a_dask_frame_is_not_scored_by_the_names_of_its_columns(cells, echo):
    """Which is what it gives one by one: the line says what to do."""
    frame = dataframe.from_pandas(pd.DataFrame({"x": ["a"]}), npartitions=1)
    cells.names |= {"source": frame, "labels": [" a", " b"]}
    result = cells.run(f"%%complete -m m --base-url {echo.base_url} -i source --score labels\n{{{{ row }}}}")
    assert isinstance(result.error_in_exec, PromptError)
    assert "not those of dask: make one of it, such as with its compute()" in str(result.error_in_exec)
    assert echo.heard == []


def test_a_dask_bag_is_rows_as_any_iterable(cells, echo):
    """It is no table whose partitions could ask; and a series is prompts for a program."""
    cells.names["source"] = bag.from_sequence(["a", "b"])
    with dask_config.set(scheduler="synchronous"):
        cells.run(f"%%complete -m m --base-url {echo.base_url} -i source -o came\n{{{{ row }}}}").raise_error()
    assert cells.names["came"].texts == ["<a>", "<b>"]
    series = dataframe.from_pandas(pd.Series(["c"], name="x"), npartitions=1)
    with echo.client() as client, dask_config.set(scheduler="synchronous"):
        assert client.complete_many(series).texts == ["<c>"]


def test_a_series_stays_lazy_too(cells, echo, dask):
    """A Dask series is one column; several rows go as one request where that is asked for."""
    series = dataframe.from_pandas(pd.Series(list("abcd"), name="letter"), npartitions=1)
    cells.names["source"] = series
    cells.run(f"%%complete -m m --base-url {echo.base_url} -i source -o lazy --pack 2\n{{{{ letter }}}}").raise_error()
    assert cells.names["lazy"].compute().text.tolist() == ["<a>", "<b>", "<c>", "<d>"]
    assert sorted(heard.json["prompt"] for heard in echo.heard) == [["a", "b"], ["c", "d"]]
