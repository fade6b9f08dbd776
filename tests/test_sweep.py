"""A grid of completions: its points, their order, and what becomes of the ones that fail."""

import json
import signal
import subprocess
import sys
import threading

import pytest
from conftest import DONE, answer, event, piece, stream, stream_head

from completions_magic.errors import ConfigurationError, NotFoundError, OptionError
from completions_magic.grid import MOST_POINTS, points, read_axis
from completions_magic.options import Options, parse
from completions_magic.schema import Growing
from completions_magic.sweep import Sweep


@pytest.mark.parametrize(
    ("name", "given", "settings"),
    [
        ("temperature", "0,0.5,1", (0, 0.5, 1)),
        ("temperature", "0:1:5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("temperature", "0:0.3:4", (0.0, 0.1, 0.2, 0.3)),
        ("top-p", "1:0.5:2", (1.0, 0.5)),
        ("max_tokens", "10:30:3", (10, 20, 30)),
        ("seed", "1, 2 ,3", (1, 2, 3)),
        ("model", "a,b:7b", ("a", "b:7b")),
        ("profile", "local", ("local",)),
        ("echo", "true,false", (True, False)),
        ("stop", "\n,.", None),
        ("temperature", [0.1, 0.2], (0.1, 0.2)),
        ("stop", [["a", "b"], "c"], (["a", "b"], "c")),
    ],
)
def test_an_axis_is_a_list_a_range_or_python_values(name, given, settings):
    """What stands after the equals sign is read in the parameter's own type; ends of a range are part of it."""
    if settings is None:
        with pytest.raises(OptionError):
            read_axis(name, given)
        return
    axis = read_axis(name, given)
    assert axis.settings == settings
    assert [type(value) for value in axis.settings] == [type(value) for value in settings]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("temperatur", "1", "did you mean temperature"),
        ("stream", "true,false", "cannot be swept"),
        ("temperature", "0,3", "0 to 2"),
        ("temperature", "0:9:3", "0 to 2"),
        ("temperature", "0:1:1", "count from 2"),
        ("temperature", "0:1:x", "low:high:count"),
        ("temperature", "0:1:2.5", "low:high:count"),
        ("temperature", "", "a,b,c"),
        ("temperature", "0,,1", "a,b,c"),
        ("model", "a,,b", "a,b,c"),
        ("temperature", "1,1", "twice"),
        ("max_tokens", "1:2:5", "twice"),
        ("temperature", 5, "a list of values"),
    ],
)
def test_an_axis_that_is_none_is_one_clear_line(name, given, said):
    """The error names the option and what it takes."""
    with pytest.raises(OptionError, match="--sweep") as raised:
        read_axis(name, given)
    assert said in str(raised.value)


def test_the_last_axis_runs_fastest():
    """The points of a grid come in one order, and there is a limit to them."""
    axes = [read_axis("temperature", "0,1"), read_axis("n", "1,2")]
    assert [tuple(point.values()) for point in points(axes)] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    with pytest.raises(OptionError, match="twice"):
        points([axes[0], axes[0]])
    with pytest.raises(OptionError, match=f"{MOST_POINTS:,}"):
        points([read_axis("seed", list(range(200))), read_axis("logprobs", list(range(200)))])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--sweep temperature=0,1 --temperature 1", "both set and swept"),
        ("--sweep model=a,b -m c", "both set and swept"),
        ("--sweep n=1,2 --as json", "binds a Sweep"),
        ("--sweep n=1,2 --bg", "--bg"),
        ("--sweep n=1,2 --dry-run", "--dry-run"),
        ("--sweep n=1,2 --extract (?P<a>.)", "--extract"),
        ("--sweep n", "NAME=VALUES"),
        ("--sweep n=1,2 --concurrency 0", "--concurrency"),
    ],
)
def test_what_does_not_go_with_a_sweep_is_said_before_anything_is_sent(cells, line, said):
    """The cell fails with one line, and the server hears nothing."""
    result = cells.ask("Hi", line) if "-m c" not in line else cells.run(f"%%complete {line}\nHi")
    assert isinstance(result.error_in_exec, OptionError)
    assert said in str(result.error_in_exec)
    assert cells.heard == []


def test_values_may_be_a_variable():
    """`$name` takes the values of a variable."""
    options, _ = parse("--sweep temperature=$heat", {"heat": (0.5, 1.5)})
    assert options.sweep[0].settings == (0.5, 1.5)
    assert Options().sweep is None


def local(cells, options, prompt="Once upon a"):
    """Return the sweep of a cell on the embedded endpoint."""
    cells.run(f"%%complete -o swept --view none --max-tokens 6 --seed 1 {options}\n{prompt}").raise_error()
    return cells.names["swept"]


def test_a_grid_of_25_points_and_two_choices_has_50_rows(cells):
    """The frame is tidy, its order is the grid's, and it is the same at any concurrency."""
    options = "-n 2 --sweep temperature=0:2:5 --sweep top_p=0.2:1:5"
    frame = local(cells, options).to_frame()
    assert list(frame.columns[:4]) == ["temperature", "top_p", "index", "text"]
    assert len(frame) == 50
    assert frame.temperature.tolist() == sorted(frame.temperature)
    assert frame["index"].tolist() == [0, 1] * 25
    again = local(cells, f"{options} --concurrency 1").to_frame()
    assert again.equals(frame)


def test_a_point_that_fails_leaves_the_others(cells):
    """Its rows hold the error, the rest of the grid is kept, and the cell goes on."""
    frame = local(cells, "-n 2 --sweep best_of=1,2,3 --sweep temperature=0.5,1").to_frame()
    failed = frame[frame.error.notna()]
    assert (len(frame), len(failed), set(failed.best_of)) == (12, 4, {1})
    assert failed.text.isna().all()
    assert failed.error.str.contains("best_of").all()


def test_a_grid_that_fails_everywhere_fails_the_cell(cells):
    """The first error goes on, and the sweep is bound all the same."""
    result = cells.run("%%complete -o swept --sweep model=no,nor\nHi")
    assert isinstance(result.error_in_exec, NotFoundError)
    assert [point.error is not None for point in cells.names["swept"]] == [True, True]


def test_a_completion_is_found_by_its_values(cells):
    """`sweep[values]` is a completion, `sweep.at(name=value)` a part of the grid; what is not there is a KeyError."""
    cells.run(
        "%%complete -o swept --view none --sweep temperature=0,1 --sweep max_tokens=2,3\nOnce upon a"
    ).raise_error()
    swept = cells.names["swept"]
    assert swept[0, 3].text.startswith(swept[0, 2].text)
    assert swept[0, 3].request.parameters.max_tokens == 3
    part = swept.at(temperature=0)
    assert isinstance(part, Sweep)
    assert list(part.axes) == ["max_tokens"]
    assert part[2].text == swept[0, 2].text
    assert len(swept) == 4
    with pytest.raises(KeyError, match="the axes are temperature 0, 1; max_tokens 2, 3"):
        swept[9, 9]
    with pytest.raises(KeyError, match="did you mean temperature"):
        swept.at(temperatur=1)
    with pytest.raises(KeyError, match="it was 0, 1"):
        swept.at(temperature=0.5)


def test_never_more_requests_at_once_than_said(cells):
    """The server counts: at most `--concurrency` requests are open, and as many as that."""
    now, most, lock = [0], [0], threading.Lock()
    together = threading.Barrier(2)

    def counted(connection):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait(10)
        with lock:
            now[0] -= 1
        connection.sendall(stream([event("a", reason="stop"), DONE]))

    cells.server.scripts = [counted]
    cells.ask("Hi", "--sweep seed=1,2,3,4,5,6 --concurrency 2 --view none").raise_error()
    assert (len(cells.heard), most[0]) == (6, 2)


def test_a_choice_belongs_to_its_point(cells):
    """Each request is the line with the point's values and nothing else."""
    cells.server.scripts = [answer({"choices": [{"text": "a", "index": 0, "finish_reason": "stop"}]})]
    where = f"--base-url {cells.server.base_url}"
    cells.run(f"%%complete {where} --view none --top-p 0.5 --sweep temperature=0,1 --sweep model=x,y\nHi").raise_error()
    sent = sorted((heard.json["temperature"], heard.json["model"]) for heard in cells.heard)
    assert sent == [(0, "x"), (0, "y"), (1, "x"), (1, "y")]
    assert {heard.json["top_p"] for heard in cells.heard} == {0.5}


def test_an_interrupt_keeps_what_is_done(cells):
    """Points that had ended are kept, those under way are marked, the others are not asked, and the cell ends."""

    def endless(connection):
        connection.sendall(stream_head() + piece(event("slow ")))
        cells.server.wait_until_gone(connection)

    def interrupt(frame, what, _):
        if what == "call" and frame.f_code is Growing.add.__code__ and frame.f_locals["chunk"].text == "slow ":
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    cells.server.scripts = [stream([event("done", reason="stop"), DONE]), endless]
    threading.setprofile(interrupt)  # in the worker, where what was sent has come
    try:
        result = cells.ask("Hi", "-o swept --sweep seed=1,2,3,4 --concurrency 1 --view none")
    finally:
        threading.setprofile(None)
    assert type(result.error_in_exec).__name__ == "Interrupted"
    reasons = [p.completion and p.completion.choices[0].finish_reason for p in cells.names["swept"]]
    assert reasons == ["stop", "interrupted", None, None]
    assert cells.server.gone.wait(5)
    assert len(cells.heard) == 2


def test_a_rerun_with_a_cassette_asks_only_for_what_is_missing(cells, tmp_path):
    """In the same session and in a new one: what is on the cassette is replayed, what failed is asked again."""
    whole = stream([event("a", reason="stop"), DONE])
    cells.server.scripts = [whole, answer({"error": {"message": "no"}}, status="500 No"), whole]
    line = "-o swept --sweep seed=1,2,3 --concurrency 1 --retries 0 --view none --cassette c.jsonl"
    cells.ask("Hi", line).raise_error()
    assert [point.error is None for point in cells.names["swept"]] == [True, False, True]
    cells.ask("Hi", line).raise_error()
    assert [heard.json["seed"] for heard in cells.heard] == [1, 2, 3, 2]
    assert cells.names["swept"].failures == []
    cells.ask("Hi", line).raise_error()
    assert len(cells.heard) == 4
    assert len((tmp_path / "c.jsonl").read_text().splitlines()) == 3


def test_the_record_of_two_axes_is_a_table_of_both(cells):
    """Rows and columns are the axes; every text and error is in it, as inert text."""
    hostile = "<img src=x onerror=alert(1)>"
    cells.server.scripts = [
        answer({"choices": [{"text": hostile, "index": 0, "finish_reason": "stop"}]}),
        answer({"error": {"message": f"no {hostile}"}}, status="400 No"),
    ]
    result = cells.ask("Hi", "--sweep temperature=0,1 --sweep seed=1,2 --concurrency 1 --view none")
    bundle, metadata = result.result._repr_mimebundle_()
    html = bundle["text/html"]
    assert (html.count("<tr>"), html.count("<th "), html.count("<td ")) == (3, 3, 6)
    assert "<img" not in html
    assert html.count("&lt;img") == 4
    assert "4 points · 1 completion · 3 failed" in bundle["text/plain"]
    assert json.loads(json.dumps(metadata))["completions_magic"]["sweep"] == {"temperature": [0, 1], "seed": [1, 2]}


@pytest.mark.parametrize("metric", ["length", "logprob", "distinct", "finish_reason", "own"])
def test_a_plot_has_a_place_for_every_value(cells, metric):
    """Any metric against any swept parameter: a dot a choice, a line a value of `by`, labelled axes."""
    swept = local(cells, "-n 2 --logprobs 0 --sweep temperature=0,1,2 --sweep top_p=0.5,1")
    given = (lambda choice: len(choice.text)) if metric == "own" else metric
    axes = swept.plot(given, by=None if metric == "finish_reason" else "top_p")
    assert axes.get_xlabel() == "temperature"
    if metric == "finish_reason":
        assert sum(bar.get_height() for bar in axes.patches) == pytest.approx(3)
    else:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["top_p 0.5", "top_p 1"]
        assert sum(len(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "None") == 12
    import matplotlib.pyplot as plt

    plt.close("all")


def test_a_plot_that_cannot_be_drawn_is_one_clear_line(cells):
    """A metric that nobody knows, a parameter that was not swept, log-probabilities that were not asked for."""
    swept = local(cells, "--sweep temperature=0,1")
    for arguments in ({"metric": "lengt"}, {"x": "top_p"}, {"metric": "logprob"}):
        with pytest.raises(ConfigurationError):
            swept.plot(**arguments)
    import matplotlib.pyplot as plt

    plt.close("all")


def test_without_matplotlib_the_error_says_what_to_install():
    """In an environment without it, one line with the command."""
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from completions_magic.grid import read_axis\nfrom completions_magic.sweep import Sweep\n"
        "try: Sweep([read_axis('seed', '1')], []).plot()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ConfigurationError a plot needs matplotlib: pip install 'completions-magic[plot]'\n"


def test_a_point_without_its_endpoint_stands_in_its_place(cells, server, tmp_path):
    """A profile whose key is missing fails its own points: the others are asked, and the frame has the reason."""
    (tmp_path / "completions.toml").write_text(
        f'[profiles.lab]\nbase_url = "{server.base_url}"\nmodel = "m"\n'
        '[profiles.cloud]\nbase_url = "https://cloud.invalid/v1"\nmodel = "m"\napi_key_env = "CLOUD_KEY"\n'
    )
    server.scripts = [answer({"choices": [{"text": "x", "finish_reason": "stop"}]})]
    cells.run("%%complete --sweep profile=lab,cloud -o grid\nP").raise_error()
    frame = cells.names["grid"].to_frame()
    assert frame.text.tolist()[0] == "x"
    assert frame.error.isna().tolist() == [True, False]
    assert "%completions trust cloud" in frame.error[1]
    result = cells.run("%%complete --sweep profile=cloud,clod\nP")
    assert "%completions trust cloud" in str(result.error_in_exec)
