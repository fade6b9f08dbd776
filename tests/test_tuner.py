"""The tuner: its messages against a scripted server, and the whole in real front ends."""

import atexit
import contextlib
import json
import sys
import threading
import time

import nbformat
import pytest
from conftest import DONE, END, ScriptedServer, answer, event, piece, stream, stream_head
from frontend import FrontEnd, faults, open_browser
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from playwright.sync_api import Locator, Page, expect
from traitlets.config import Config

from completions_magic.extension import CompletionsMagics
from completions_magic.options import parse
from completions_magic.tuner import Bench, Tuner

THEMES = ("JupyterLab Light", "JupyterLab Dark")


# Messages, without a browser


class CountedTuner(Tuner):
    """A tuner that keeps what it sends."""

    def __init__(self, *settings) -> None:
        self.sent = []
        self.said = []
        super().__init__(*settings)

    def send_state(self, key=None):
        """Keep the time and the state that is sent."""
        self.sent.append((time.monotonic(), self.get_state(key)))
        super().send_state(key)

    def send(self, content, buffers=None):
        """Keep the message that is sent."""
        self.said.append(content)
        super().send(content, buffers)


@pytest.fixture
def shell(server):
    """Return a shell with the extension loaded, whose cells ask the scripted server."""
    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "completions_magic")
    shell.run_line_magic("config", f"CompletionsMagics.base_url = '{server.base_url}'")
    shell.run_line_magic("config", "CompletionsMagics.model = 'm'")
    yield shell
    shell.run_line_magic("unload_ext", "completions_magic")
    InteractiveShell.clear_instance()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"] = main


def threads() -> list[str]:
    """Return the names of the tuner's threads that live."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("completions-tuner")]


def until(condition, seconds: float = 30.0) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def open_tuner(server, shell):
    """Return what opens a tuner on a line and a body, with scripts for the server; it is closed in the end."""
    session = next(known for known in shell.configurables if isinstance(known, CompletionsMagics)).session
    tuners = []

    def open_tuner(line: str, body: str, *scripts) -> CountedTuner:
        server.scripts = list(scripts)
        prepare = lambda options, body: session.prepare(options, body, shell.user_ns)  # noqa: E731
        bench = Bench(prepare, session.client, session._note_last, "cell-1")
        tuners.append(CountedTuner(parse(line, shell.user_ns)[0], body, bench))
        return tuners[-1]

    yield open_tuner
    for tuner in tuners:
        tuner.close()
    until(lambda: threads() == [])


def said(*texts: str, reason: str = "stop") -> bytes:
    """Return the stream of an answer."""
    return stream([*(event(text) for text in texts), event(reason=reason), DONE])


def setting(prompt: str = "Hi", **more) -> dict:
    """Return a setting as the page sends it; what is named is the text of a knob, `model` and `profile` apart."""
    return {"prompt": prompt, "model": more.pop("model", ""), "profile": more.pop("profile", ""), "knobs": more}


def hear(tuner: Tuner, **content) -> None:
    """Send a message of the page."""
    tuner._handle_custom_msg(content, [])


def run(tuner: Tuner, prompt: str = "Hi", **knobs) -> None:
    """Run, and wait until it has ended."""
    hear(tuner, run=setting(prompt, **knobs), by="page")
    until(lambda: tuner.get_state("running")["running"] is None)


def value(tuner: Tuner, name: str):
    """Return a value that the page reads."""
    return tuner.get_state(name)[name]


def endless(connection) -> None:
    """Send a word every few milliseconds, until the client hangs up."""
    connection.sendall(stream_head())
    while True:
        connection.sendall(piece(event(" z")))
        time.sleep(0.003)


def silent(server: ScriptedServer):
    """Return a script that sends one word and then nothing, and sees when the client hangs up."""

    def talk(connection) -> None:
        connection.sendall(stream_head() + piece(event(" one")))
        server.wait_until_gone(connection)

    return talk


def test_only_the_knobs_that_are_set_are_sent(open_tuner, server):
    """A run sends what is set, in the parameter's type, and nothing that nobody touched."""
    tuner = open_tuner("", "Hi", said(" there"))
    run(tuner, "Ho", temperature="0.7", stop="\\n\\n\nEND", echo="true", seed="5")
    assert server.heard[0].json == {
        "model": "m", "prompt": "Ho", "temperature": 0.7, "stop": ["\n\n", "END"], "echo": True, "stream": True, "seed": 5,
    }  # fmt: skip


def test_every_run_is_bound_and_is_the_record(open_tuner, shell):
    """-o takes each answer in the form of the line, and the output is its record with what was set."""
    tuner = open_tuner("-o story --as text --max-tokens 9", "Hi", said(" a"), said(" b"))
    tuner.start()
    until(lambda: shell.user_ns.get("story") == " a")
    run(tuner, temperature="0.5")
    assert shell.user_ns["story"] == " b"
    assert tuner.plain() == " b\n(m · complete)\ntemperature: 0.5"
    assert "<td" in tuner.html()
    assert "temperature" in tuner.html()
    assert tuner.metadata()["completions_magic"]["parameters"] == {"temperature": 0.5, "stream": True}


def test_the_prompt_is_a_template_at_every_run(open_tuner, server, shell):
    """A variable in the prompt is the one that there is when it runs."""
    shell.user_ns["name"] = "Ada"
    tuner = open_tuner("", "Hi {{ name }}", said(" a"))
    run(tuner, "Hi {{ name }}")
    shell.user_ns["name"] = "Bob"
    run(tuner, "Hi {{ name }}")
    assert [heard.json["prompt"] for heard in server.heard] == ["Hi Ada", "Hi Bob"]


def test_stop_keeps_what_has_come_and_the_server_sees_it(open_tuner, server, shell):
    """Stop hangs up on a silent server at once; what has come is bound, with how it ended."""
    tuner = open_tuner("-o story", "Hi", silent(server))
    hear(tuner, run=setting(), by="page")
    until(lambda: (value(tuner, "run_0")["state"], value(tuner, "run_0")["choices"]) == ("running", 1))
    hear(tuner, stop=True)
    assert value(tuner, "running") is None
    assert server.gone.wait(20)
    assert (shell.user_ns["story"].text, shell.user_ns["story"].choices[0].finish_reason) == (" one", "stopped")
    until(lambda: threads() == [])


def test_what_was_read_as_it_was_stopped_is_shown(open_tuner):
    """A word that the run's thread has, and cannot show before Stop is heard, is in the panel as it is in the answer."""
    tuner = open_tuner("", "Hi", endless)
    hear(tuner, run=setting(), by="page")
    until(lambda: value(tuner, "run_0")["choices"] == 1)
    with tuner._lock:
        run = tuner._running
        seen = run._seen[0]
        until(lambda: len(run.stream.partial.text) > seen)
        hear(tuner, stop=True)
    pages = (value(tuner, f"page_0_0_{at}") for at in range(value(tuner, "pane_0_0")[0]))
    assert "".join([*pages, value(tuner, "pane_0_0")[1]]) == tuner.completion.text
    assert value(tuner, "run_0")["tokens"] == len(tuner.completion.text) / len(" z")


def test_a_new_run_ends_the_one_in_flight(open_tuner, server, shell):
    """The server sees the first request gone; nothing of it is bound, and its card keeps what had come."""
    tuner = open_tuner("-o story", "Hi", silent(server), said(" two"))
    hear(tuner, run=setting(), by="page")
    until(lambda: value(tuner, "run_0")["choices"] == 1)
    run(tuner, temperature="1")
    assert server.gone.wait(20)
    assert shell.user_ns["story"].text == " two"
    assert value(tuner, "pane_0_0")[1:] == [" one", "stopped: incomplete"]
    assert value(tuner, "shown") == value(tuner, "bound") == 1


def test_a_run_that_was_replaced_before_anything_came_leaves_no_card(open_tuner, server):
    """Auto-run leaves no trail of empty cards."""
    tuner = open_tuner("", "Hi", server.wait_until_gone, said(" two"))
    hear(tuner, run=setting(), by="page")
    until(lambda: len(server.heard) == 1)
    run(tuner, temperature="1")
    assert value(tuner, "run_0")["state"] == "gone"
    assert server.gone.wait(20)


def test_an_error_is_in_words_and_the_panel_lives_on(open_tuner, shell, server):
    """What the server refuses is one line; the last good answer stays bound, and another run works."""
    refusal = answer({"error": {"message": "no such\nthing"}}, status="400 Bad Request")
    tuner = open_tuner("-o story", "Hi", said(" a"), refusal, said(" b"))
    run(tuner)
    run(tuner)
    assert value(tuner, "failed")
    assert "400" in value(tuner, "line")
    assert "no such thing" in value(tuner, "line")
    assert shell.user_ns["story"].text == " a"
    run(tuner)
    assert (value(tuner, "failed"), value(tuner, "line"), shell.user_ns["story"].text) == (False, "", " b")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (setting("{{ nobody }}"), "there is no variable 'nobody'"),
        (setting(" "), "the prompt is empty"),
        (setting(temperature="9"), "temperature takes a number, 0 to 2, not 9"),
        (setting(profile="nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_sent(open_tuner, server, wrong, words):
    """The panel refuses what a cell refuses, in the same words, before anything is sent."""
    tuner = open_tuner("", "Hi", said(" a"))
    hear(tuner, run=wrong, by="page")
    assert words in value(tuner, "line")
    assert value(tuner, "failed")
    assert server.heard == []
    run(tuner)
    assert not value(tuner, "failed")


def test_a_knob_that_is_off_is_named_while_it_is_turned(open_tuner):
    """An edit says at once which knob is off, and what the line is by now."""
    tuner = open_tuner("-o x", "Hi")
    hear(tuner, edit=setting(temperature="9", n="2"), by="page")
    assert list(value(tuner, "problems")) == ["temperature"]
    hear(tuner, edit=setting(temperature="1", n="2"), by="page")
    assert value(tuner, "problems") == {}
    assert value(tuner, "code") == "%%complete --temperature 1 -n 2 -o x"
    assert value(tuner, "setting")["by"] == "page"


def test_a_form_that_the_answer_has_not_is_said(open_tuner, shell):
    """Where --as finds no number the panel says so, and the completion itself is bound, as after a cell."""
    tuner = open_tuner("-o count --as number", "Hi", said(" none"))
    run(tuner)
    assert "there is no number" in value(tuner, "line")
    assert shell.user_ns["count"].text == " none"


def test_a_click_puts_the_knobs_back_and_a_star_binds(open_tuner, shell):
    """Restoring shows a run's setting and text and binds nothing; the star binds it, and it is what the file holds."""
    tuner = open_tuner("-o story", "Hi", said(" a"), said(" b"))
    run(tuner, temperature="0.5")
    run(tuner, "Ho", temperature="0.9", model="other")
    hear(tuner, restore=0)
    assert value(tuner, "setting")["knobs"] == {"temperature": "0.5"}
    assert (value(tuner, "setting")["prompt"], value(tuner, "setting")["model"]) == ("Hi", "")
    assert (value(tuner, "shown"), shell.user_ns["story"].text) == (0, " b")
    hear(tuner, star=0)
    assert shell.user_ns["story"].text == " a"
    assert value(tuner, "line") == "story holds run 1"
    assert tuner.plain() == " a\n(m · complete)\ntemperature: 0.5"


def test_cards_tell_what_differs_from_the_run_before(open_tuner):
    """Each row of a card is a name, its value, and whether the run before had another."""
    tuner = open_tuner("", "Hi", said(" a"))
    run(tuner, temperature="0.5", n="1")
    run(tuner, "Ho", temperature="0.9", n="1")
    run(tuner, "Ho", n="1")
    assert value(tuner, "card_0") == [["temperature", "0.5", False], ["n", "1", False]]
    assert value(tuner, "card_1") == [["temperature", "0.9", True], ["n", "1", False], ["prompt", "Ho", True]]
    assert value(tuner, "card_2") == [["n", "1", False], ["prompt", "Ho", False], ["temperature", "default", True]]


def test_pinned_runs_are_compared_word_by_word(open_tuner):
    """Two pinned runs mark what each has alone, a phrase as one; of three the first is the measure."""
    tuner = open_tuner("", "Hi", said("the red hot sun"), said("the cold grey moon"), said("the red sun"))
    for _ in range(3):
        run(tuner)
    hear(tuner, pin=0)
    until(lambda: value(tuner, "pins") == [0])
    assert value(tuner, "columns") == []
    hear(tuner, pin=1)
    until(lambda: value(tuner, "pins") == [0, 1])
    assert value(tuner, "columns") == [
        [["same", "the "], ["gone", "red hot sun"]],
        [["same", "the "], ["come", "cold grey moon"]],
    ]
    for at in (0, 1, 2, 0, 1):  # in a row: nobody waits for the panel to say that it has heard
        hear(tuner, pin=at)
    until(lambda: value(tuner, "pins") == [2, 0, 1])
    assert value(tuner, "columns")[0] == [["same", "the red sun"]]
    assert "".join(text for _, text in value(tuner, "columns")[1]) == "the red hot sun"


def test_write_to_cell_is_the_whole_cell(open_tuner):
    """What the page gets is the line that asks this, without --tune, and the prompt below it."""
    tuner = open_tuner("--tune -o story --temperature 0.5 -p min_p=0.1 --no-raise-error", "Hi\nthere")
    hear(tuner, write=setting("Ho\n{{ x }}", stop="\\n", max_tokens="20"), ticket=3)
    line = r"%%complete --max-tokens 20 --stop \n -p min_p=0.1 -o story --no-raise-error"
    assert tuner.said == [{"written": f"{line}\nHo\n{{{{ x }}}}", "ticket": 3}]


def test_the_menu_of_models_is_the_endpoints(open_tuner, server):
    """Models are asked of the endpoint when the menu is wanted, and an error is one line."""
    tuner = open_tuner(
        "", "Hi", answer({"data": [{"id": "base-7b"}, {"id": "a\nb"}]}), answer({}, status="404 Not Found")
    )
    hear(tuner, models="")
    until(lambda: value(tuner, "models") == {"profile": "", "names": ["base-7b", "a b"]})
    assert (server.heard[0].method, server.heard[0].path) == ("GET", "/v1/models")
    hear(tuner, models="")
    until(lambda: value(tuner, "failed"))
    assert "404" in value(tuner, "line")


def test_another_profile_answers(open_tuner, server):
    """A profile that is chosen in the panel is asked, with its own model, and the menus say what stands for default."""
    tuner = open_tuner("", "Hi", said(" a"))
    assert value(tuner, "usual") == [server.base_url, "m"]
    run(tuner, profile="local", max_tokens="2")
    assert tuner.completion.model == "pocket"
    assert server.heard == []
    assert value(tuner, "usual") == [server.base_url, "pocket"]
    assert value(tuner, "code") == "%%complete --max-tokens 2 --profile local"


def test_what_is_sent_without_a_knob_is_known(open_tuner, server, shell):
    """A parameter of the settings, and the suffix after a hole, are sent, shown as such, and not on the line."""
    shell.run_line_magic("config", "CompletionsMagics.parameters = {'temperature': 0.3}")
    tuner = open_tuner("", "Hi {{fill}} there", said(" a"))
    assert value(tuner, "inherited") == {"temperature": "0.3", "suffix": " there", "stream": "true"}
    run(tuner, "Hi", temperature="0.5")
    assert server.heard[0].json["temperature"] == 0.5
    assert value(tuner, "inherited") == {"stream": "true"}


def test_updates_are_at_most_20_a_second_and_grow_with_the_text(open_tuner):
    """However fast text comes, the page hears of it 20 times a second, and each full page of it once."""
    tuner = open_tuner("", "Hi", endless)
    hear(tuner, run=setting(), by="page")
    until(lambda: value(tuner, "run_0")["choices"] == 1)
    with tuner._lock:  # the first message is of its own accord, and has gone
        before = len(tuner.sent)
    has_page = lambda: any(name.startswith("page_0_0_") for _, state in list(tuner.sent) for name in state)  # noqa: E731
    until(lambda: len(tuner.sent) > before + 40 and has_page())
    sent = [at for at, _ in tuner.sent[before:]]
    hear(tuner, stop=True)
    assert len(sent) - 1 <= 20 * (sent[-1] - sent[0])
    pages = [name for _, state in tuner.sent for name in state if name.startswith("page_0_0_")]
    assert len(pages) == len(set(pages)) > 0
    whole = "".join(value(tuner, name) for name in pages) + value(tuner, "pane_0_0")[1]
    assert whole == tuner.completion.text


@pytest.mark.parametrize(
    "content",
    [{}, {"run": 1}, {"run": {"knobs": {"n": 1}, "prompt": "x"}, "by": "p"}, {"restore": 9}, {"star": -1}, {"pin": "x"}, {"pin": 7},
     {"write": {}, "ticket": 1}, {"run": setting(nothing="1"), "by": 4}, {"models": 3}, {"edit": None, "by": ""}],
)  # fmt: skip
def test_messages_that_mean_nothing_change_nothing(open_tuner, server, content):
    """A message of another shape, or about what is not there, breaks nothing and asks nothing."""
    tuner = open_tuner("", "Hi", said(" a"))
    hear(tuner, **content)
    assert server.heard == []
    run(tuner)
    assert tuner.completion.text == " a"


def test_text_from_a_model_is_inert(open_tuner):
    """Controls and HTML of a text are signs, in the page's values and in the record."""
    tuner = open_tuner("", "Hi", said("<img src=x onerror=hacked=1>\x1b[31m\u202e"))
    run(tuner)
    assert value(tuner, "pane_0_0")[1] == "<img src=x onerror=hacked=1>␛[31m<U+202E>"
    assert "<img" not in tuner.html()
    assert "\x1b" not in tuner.plain()


def test_before_anything_has_come_the_record_says_so(open_tuner):
    """A panel that has not run is no empty output: it says so, and what is set; later it says what went wrong."""
    tuner = open_tuner("--temperature 0.5", "Hi", answer({"error": {"message": "no"}}, status="401 Unauthorized"))
    assert tuner.plain() == "nothing has come yet\ntemperature: 0.5"
    run(tuner, temperature="0.5")
    assert "401" in tuner.plain()
    assert "401" in tuner.html()


def test_close_ends_the_thread(open_tuner):
    """A tuner that is closed while text comes leaves no thread."""
    tuner = open_tuner("", "Hi", endless)
    hear(tuner, run=setting(), by="page")
    until(lambda: value(tuner, "run_0")["choices"] == 1)
    tuner.close()
    until(lambda: threads() == [])


# From a line


def test_in_a_terminal_it_runs_once_and_says_what_was_set(shell, server, capsys):
    """Without a page the cell is an ordinary one, and below the answer stands what was set."""
    server.scripts = [said(" there")]
    result = shell.run_cell("%%complete --tune -o story --temperature 0.5\nHi")
    result.raise_error()
    assert shell.user_ns["story"].text == " there"
    assert capsys.readouterr().out.endswith(" there\n(m · complete)\ntemperature: 0.5\n")
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "code", ["get_ipython().run_line_magic('complete', '--tune Hi')", "%%complete --tune --sweep n=1,2\nHi"]
)
def test_a_panel_needs_a_cell_of_one_request(shell, server, code):
    """On a line by itself, or with a sweep, one line says that this is no place for a panel."""
    assert "--tune" in str(shell.run_cell(code).error_in_exec)
    assert server.heard == []


def test_a_dry_run_opens_no_panel(shell, server):
    """--dry-run shows the request and nothing else."""
    shown = shell.run_cell("%%complete --tune --dry-run\nHi").result
    assert '"prompt": "Hi"' in repr(shown)
    assert server.heard == []


# In a file


def test_a_notebook_that_runs_without_a_person_is_the_same_every_time(tmp_path):
    """The cell runs once, binds, and leaves the record and what was set: the same bytes, and no widget."""
    cells = [
        "%load_ext completions_magic",
        "%%complete --tune -o story --max-tokens 8 --seed 3 --stop '\\n'\nOnce upon a time",
        "print(story.text, _.text == story.text)",
    ]
    runs = []
    for _ in range(2):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()
        assert "widget" not in json.dumps(notebook)
        runs.append([cell.outputs for cell in notebook.cells[1:]])
    assert runs[0] == runs[1]
    [shown], [printed] = runs[0]
    text, known = printed["text"].rsplit(" ", 1)
    assert known == "True\n"
    assert shown["data"]["text/plain"].startswith(text)
    assert shown["data"]["text/plain"].endswith("max_tokens: 8\nstop: \\n\nseed: 3")
    assert "max_tokens</td>" in shown["data"]["text/html"]
    assert shown["metadata"]["completions_magic"]["parameters"]["seed"] == 3


def test_a_failure_without_a_person_fails_the_cell(tmp_path):
    """Headless, what cannot be asked is the cell's own error, as without --tune."""
    cells = ["%load_ext completions_magic", "%%complete --tune\n{{ nobody }}"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(CellExecutionError, match="no variable 'nobody'"):
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()


# In JupyterLab and Notebook 7


class Words(ScriptedServer):
    """A server whose answer is told by the prompt: words, silence after one, a refusal, or what is hostile.

    `left` are the requests that the client hung up on.
    """

    def __post_init__(self):
        self.left = []
        self.scripts = [self.say]
        super().__post_init__()

    def say(self, connection) -> None:
        """Answer a request."""
        heard = self.current
        if heard.method == "GET":
            connection.sendall(answer({"data": [{"id": "base-7b"}, {"id": "other"}]}))
            return
        prompt = heard.json["prompt"]
        if "refuse" in prompt:
            connection.sendall(answer({"error": {"message": "<b>not</b> today"}}, status="400 Bad Request"))
            return
        texts = (
            HOSTILE if "hostile" in prompt else [" it", " was", f" {heard.json.get('temperature', 'usual')}", " warm"]
        )
        connection.sendall(stream_head() + b"".join(piece(event(text)) for text in texts))
        if "silence" in prompt and not prompt.endswith("no more"):
            self.wait_until_gone(connection)
            self.left.append(heard.json)
            return
        connection.sendall(piece(event(reason="stop")) + piece(DONE) + END)

    def bodies(self, prompt: str) -> list[dict]:
        """Return what was asked with this prompt."""
        return [heard.json for heard in self.heard if heard.method == "POST" and heard.json["prompt"] == prompt]


HOSTILE = [
    "<img src=x onerror=hacked=1>",
    "</pre><script>hacked=1</script>",
    "\x1b[31mred",
    "\u202eabc",
    " $x$ **y** $z$",
]
SETUP = "%load_ext completions_magic\n%config CompletionsMagics.base_url = '{}'\n%config CompletionsMagics.model = 'm'"
CELLS = {
    "slide": "%%complete --tune\nSlide",
    "stop": "%%complete --tune -o stopped\nStop in silence",
    "auto": "%%complete --tune\nAuto",
    "error": "%%complete --tune\nError",
    "pins": "%%complete --tune\nPins",
    "star": "%%complete --tune -o starred\nStar",
    "shown": "print(globals().get('starred'))",
    "copy": "%%complete --tune --seed 5\nCopy",
    "leak": "%%complete --tune\nLeak",
    "hostile": "%%complete --tune --temperature 0.5\nhostile",
    "again": "%%complete --tune -o again\nAgain in silence",
    "ids": "%%complete --tune --prompt '[5, 6]'\n\n",
    "knobs": "%%complete --tune --stop '\\n' --stop END --user ada\nKnobs",
}


@pytest.fixture(scope="module")
def words():
    """Give a server of words."""
    words = Words()
    yield words
    words.close()


def saved_output(front_end: FrontEnd, page: Page, name: str) -> dict:
    """Save the notebook; return what the file holds of the panel's output."""
    front_end.save(page)
    written = (front_end.folder / name).read_text("utf-8")
    assert "widget" not in written
    (output,) = json.loads(written)["cells"][1]["outputs"]
    assert sorted(output["data"]) == ["text/html", "text/plain"]
    return {kind: "".join(lines) for kind, lines in output["data"].items()}


def until_saved(front_end: FrontEnd, page: Page, name: str, begin: str) -> None:
    """Wait until the panel's output as the file has it begins so: it comes to the page after the text on screen."""
    end = time.monotonic() + 30
    while not (text := saved_output(front_end, page, name)["text/plain"]).startswith(begin):
        assert time.monotonic() < end, text
        page.wait_for_timeout(100)


@pytest.mark.parametrize("kind", ["lab", "notebook"])
def test_from_a_feeling_to_a_line_of_code(kind, tmp_path, words):
    """Tuned, saved, reloaded, written to the cell and run: the same body reaches the server, and no panel is left."""
    with contextlib.ExitStack() as stack:
        front_end = FrontEnd(tmp_path, kind)
        stack.callback(front_end.close)
        browser = stack.enter_context(open_browser())
        front_end.write("tune.ipynb", SETUP.format(words.base_url), f"%%complete --tune -o x\nFrom {kind}")
        page = front_end.open(browser, "tune.ipynb")
        front_end.run_all(page)
        shown = page.locator(".completions-tuner")
        expect(text(shown)).to_have_text(" it was usual warm")
        turn(page, shown, "temperature", "ArrowLeft", 2)
        shown.get_by_label("stop", exact=True).fill("\\n\\n")
        prompt = f"From {kind}, \"quoted\" \\n {{{{ 'x' }}}}\n\n  and 'on'\n"
        shown.get_by_label("Prompt").fill(prompt)
        page.keyboard.press("Control+Enter")
        expect(text(shown)).to_have_text(" it was 0.9 warm")

        # The file holds the last run's record, and what was set; a page that is loaded later has the panel again.
        record = " it was 0.9 warm\n(m · complete)\ntemperature: 0.9\nstop: \\n\\n\nprompt: From"
        until_saved(front_end, page, "tune.ipynb", record)
        page.reload()
        front_end.wait_until_open(page)
        expect(text(shown)).to_have_text(" it was 0.9 warm")
        expect(shown.get_by_label("Prompt")).to_have_value(prompt)
        expect(shown.get_by_role("textbox", name="temperature")).to_have_value("0.9")

        # The line in the cell asks the same.
        press(shown, "Write to cell")
        expect(shown.get_by_role("status")).to_contain_text("Written to the cell")
        source = "window.jupyterapp.shell.currentWidget.content.widgets[1].model.sharedModel.getSource()"
        assert page.evaluate(source) == f"%%complete --temperature 0.9 --stop \\n\\n -o x\n{prompt}"
        front_end.run_all(page)
        expect(page.locator(".jp-OutputArea-executeResult")).to_contain_text("it was 0.9 warm")
        expect(shown).to_have_count(0)
        tuned, ran = words.bodies(prompt)
        assert json.dumps(tuned) == json.dumps(ran)
        assert tuned == {"model": "m", "prompt": prompt, "temperature": 0.9, "stop": "\n\n", "stream": True}
        saved_output(front_end, page, "tune.ipynb")


@pytest.fixture(scope="module")
def page(tmp_path_factory, words):
    """One JupyterLab with a panel in each of CELLS, all run."""
    lab = FrontEnd(tmp_path_factory.mktemp("lab"))
    lab.write("tuner.ipynb", SETUP.format(words.base_url), *CELLS.values())
    try:
        with open_browser() as browser:
            page = lab.open(browser, "tuner.ipynb")
            page.evaluate("window.hacked = undefined")
            lab.run_all(page)
            page.lab = lab
            yield page
    finally:
        lab.close()


def cell(page: Page, name: str) -> Locator:
    """Return the cell of that name."""
    return page.locator(".jp-Notebook .jp-Cell").nth(1 + list(CELLS).index(name))


def panel(page: Page, name: str) -> Locator:
    """Return the panel in the cell of that name."""
    found = cell(page, name).locator(".completions-tuner")
    found.scroll_into_view_if_needed()
    return found


def run_cell(page: Page, found: Locator) -> None:
    """Run a cell."""
    found.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def press(shown: Locator, name: str) -> None:
    """Press the button of that name."""
    shown.get_by_role("button", name=name, exact=True).click()


def turn(page: Page, shown: Locator, name: str, key: str, times: int = 1) -> None:
    """Turn a slider by keyboard."""
    shown.get_by_role("slider", name=name, exact=True).focus()
    for _ in range(times):
        page.keyboard.press(key)


def text(shown: Locator) -> Locator:
    """Return where the text is."""
    return shown.locator(".tuner-result")


def test_a_slider_sends_its_parameter_and_no_other(page, words):
    """The panel begins with what the line says; a slider turned by keyboard is sent, and what was not touched is not."""
    shown = panel(page, "slide")
    expect(text(shown)).to_have_text(" it was usual warm")
    turn(page, shown, "temperature", "ArrowLeft", 6)
    press(shown, "Run")
    expect(text(shown)).to_have_text(" it was 0.7 warm")
    asked = {"model": "m", "prompt": "Slide", "stream": True}
    assert words.bodies("Slide") == [asked, {**asked, "temperature": 0.7}]
    press(shown, "temperature: server's default")
    page.keyboard.press("Control+Enter")
    expect(text(shown)).to_have_text(" it was usual warm")
    assert words.bodies("Slide")[-1] == asked


def test_stop_hangs_up_on_a_silent_server(page, words):
    """Stop is there while text comes; the server sees the client gone, and what has come is bound."""
    shown = panel(page, "stop")
    expect(text(shown)).to_have_text(" it was usual warm")
    press(shown, "Stop")
    until(lambda: words.bodies("Stop in silence")[0] in words.left)
    expect(shown.locator(".tuner-foot")).to_contain_text("stopped: incomplete")
    expect(shown.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    expect(shown.get_by_role("button", name="Star run 1")).to_have_attribute("aria-pressed", "true")


# The page's own timers keep their order, however busy the machine is.
DRAG = """async (slider, values) => {
  for (const value of values) {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((next) => setTimeout(next, 60));
  }
}"""


def test_auto_run_asks_by_itself_and_ends_what_is_in_flight(page, words):
    """One request follows the last of several changes; the one before it is ended at the server too."""
    shown = panel(page, "auto")
    shown.get_by_label("Prompt").fill("Auto in silence")
    shown.get_by_role("switch", name="Auto-run").check()
    expect(text(shown)).to_have_text(" it was usual warm")
    until(lambda: len(words.bodies("Auto in silence")) == 1)
    shown.get_by_role("slider", name="temperature").evaluate(DRAG, [1.05, 1.1, 1.15, 1.2])
    expect(text(shown)).to_have_text(" it was 1.2 warm")
    assert shown.locator(".tuner-card").count() == 3  # those of runs that left no text are there, hidden
    until(lambda: words.bodies("Auto in silence")[0] in words.left)
    shown.get_by_label("Prompt").fill("Auto is done")
    expect(shown.locator(".tuner-foot")).to_contain_text(" · complete")  # the one before it is incomplete
    until(lambda: len(words.left) > 1 and words.left[-1]["temperature"] == 1.2)
    assert len(words.bodies("Auto in silence")) == 2
    assert [body["temperature"] for body in words.bodies("Auto is done")] == [1.2]


def test_an_error_is_words_in_the_panel(page):
    """What the endpoint refuses, and what a knob does not take, is said as text; the panel lives on."""
    shown = panel(page, "error")
    shown.get_by_label("Prompt").fill("refuse this")
    press(shown, "Run")
    expect(shown.get_by_role("status")).to_contain_text("<b>not</b> today")
    shown.get_by_role("textbox", name="temperature").fill("warm")
    expect(shown.locator(".tuner-problem").filter(has_text="'warm'")).to_be_visible()
    press(shown, "Run")
    expect(shown.get_by_role("status")).to_contain_text("temperature takes a number, 0 to 2, not 'warm'")
    shown.get_by_role("textbox", name="temperature").fill("")
    shown.get_by_label("Prompt").fill("Error no more")
    press(shown, "Run")
    expect(text(shown)).to_have_text(" it was usual warm")
    expect(shown.locator(".tuner-problem:visible")).to_have_count(0)


def test_pinned_runs_stand_beside_each_other(page):
    """Two pinned runs are compared word by word; a click on a card puts its knobs back."""
    shown = panel(page, "pins")
    turn(page, shown, "temperature", "ArrowRight", 10)
    press(shown, "Run")
    expect(shown.locator(".tuner-card")).to_have_count(2)
    expect(text(shown)).to_have_text(" it was 1.5 warm")
    press(shown, "Pin run 1")
    press(shown, "Pin run 2")
    columns = shown.locator(".tuner-column")
    expect(columns.nth(0).locator("del")).to_have_text("usual")
    expect(columns.nth(1).locator("ins")).to_have_text("1.5")
    expect(shown.locator(".tuner-card").first.locator("strong")).to_have_text("temperature 1.5")
    shown.locator(".tuner-card").last.locator(".tuner-glimpse").click()
    expect(text(shown)).to_have_text(" it was usual warm")
    expect(shown.get_by_role("textbox", name="temperature")).to_have_value("")
    press(shown, "Pin run 1")
    expect(columns).to_have_count(0)


def test_every_run_is_bound_and_a_star_binds_one_again(page):
    """-o holds the last run, and the one that a star was put on."""
    shown = panel(page, "star")
    turn(page, shown, "temperature", "Home")
    press(shown, "Run")
    expect(text(shown)).to_have_text(" it was 0 warm")
    expect(shown.get_by_role("button", name="Star run 2")).to_have_attribute("aria-pressed", "true")
    run_cell(page, cell(page, "shown"))
    expect(cell(page, "shown").locator(".jp-OutputArea-output")).to_have_text(" it was 0 warm\n")
    press(shown, "Star run 1")
    expect(shown.get_by_role("status")).to_have_text("starred holds run 1")
    run_cell(page, cell(page, "shown"))
    expect(cell(page, "shown").locator(".jp-OutputArea-output")).to_have_text(" it was usual warm\n")


def test_where_the_cell_is_another_by_now_the_line_is_copied(page):
    """A cell that is no %%complete cell any more is not overwritten: its text goes to the clipboard, or else into a field."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = panel(page, "copy")
    cell(page, "copy").locator(".cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.type("mine = 1")
    press(shown, "Write to cell")
    expect(shown.get_by_role("status")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "%%complete --seed 5\nCopy"
    expect(cell(page, "copy").locator(".cm-content")).to_have_text("mine = 1")
    page.context.clear_permissions()
    page.context.grant_permissions(["geolocation"])  # and no other
    press(shown, "Write to cell")
    expect(shown.get_by_label("the cell, to copy")).to_have_value("%%complete --seed 5\nCopy")
    expect(shown.get_by_label("the cell, to copy")).to_be_focused()


def test_no_key_is_a_command_for_the_notebook(page):
    """Keys that would add, delete or change cells do nothing of the kind, wherever in the panel the focus is."""
    shown = panel(page, "leak")
    look = "window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type)"
    before = page.evaluate(look)
    for target in (
        shown.get_by_role("slider").first,
        shown.get_by_role("button", name="Run"),
        shown.locator(".tuner-cards"),
    ):
        target.first.focus()
        for key in ["b", "a", "m", "y", "x", "d", "d", "c", "v", "z", "Shift+M", "1", "0", "0"]:
            page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert page.evaluate(look) == before


def test_hostile_text_stays_text(page):
    """HTML, escapes, controls of direction, Markdown and mathematics are read as they are written, everywhere."""
    shown = panel(page, "hostile")
    expect(shown.locator(".tuner-card")).to_have_count(1)
    press(shown, "Run")
    expect(shown.locator(".tuner-card")).to_have_count(2)
    expect(shown.locator(".tuner-foot")).to_contain_text(" · complete")
    press(shown, "Pin run 1")
    press(shown, "Pin run 2")
    expect(shown.locator(".tuner-column")).to_have_count(2)
    for place in (".tuner-result", ".tuner-card:first-child .tuner-glimpse", ".tuner-column:first-child"):
        said = shown.locator(place).inner_text()
        assert "<img src=x onerror=hacked=1></pre><script>hacked=1</script>" in said
        assert "␛[31mred<U+202E>abc $x$ **y** $z$" in said
    assert shown.locator("img, script, mjx-container").count() == 0
    assert page.evaluate("window.hacked") is None


def test_knobs_show_what_the_line_said(page, words):
    """Stop sequences are escapes a line each, what is rare is open where it is set, menus come from the endpoint."""
    shown = panel(page, "knobs")
    expect(shown.get_by_label("stop", exact=True)).to_have_value("\\n\nEND")
    expect(shown.get_by_label("user", exact=True)).to_have_value("ada")
    press(shown, "new seed")
    seed = int(shown.get_by_label("seed", exact=True).input_value())
    shown.get_by_label("echo", exact=True).select_option("true")
    shown.get_by_label("model", exact=True).focus()
    expect(shown.get_by_label("model", exact=True).locator("option")).to_have_text(["default (m)", "base-7b", "other"])
    shown.get_by_label("model", exact=True).select_option("other")
    press(shown, "Run")
    expect(shown.locator(".tuner-card")).to_have_count(2)
    until(lambda: len(words.bodies("Knobs")) == 2)
    asked = {
        "model": "other",
        "prompt": "Knobs",
        "stop": ["\n", "END"],
        "echo": True,
        "stream": True,
        "seed": seed,
        "user": "ada",
    }
    assert words.bodies("Knobs")[-1] == asked


def test_a_cell_that_runs_again_ends_what_its_panel_asked(page, words):
    """The request of the panel before is ended at the server, and nothing of it is bound later."""
    found = cell(page, "again")
    expect(text(panel(page, "again"))).to_have_text(" it was usual warm")
    found.locator(".cm-content").click()
    page.keyboard.press("Control+End")
    page.keyboard.type(" no more")
    page.keyboard.press("Control+Enter")
    until(
        lambda: (
            words.bodies("Again in silence") == [body for body in words.left if body["prompt"] == "Again in silence"]
        )
    )
    expect(panel(page, "again").get_by_label("Prompt")).to_have_value("Again in silence no more")


def test_a_prompt_that_is_no_text_is_shown_and_sent(page, words):
    """Token ids on the line stand in the panel to be read, and are sent at every run."""
    shown = panel(page, "ids")
    expect(shown.get_by_label("Prompt")).to_have_value("[5, 6]")
    assert shown.get_by_label("Prompt").is_editable() is False
    press(shown, "Run")
    expect(shown.locator(".tuner-card")).to_have_count(2)
    until(lambda: len(words.bodies([5, 6])) == 2)
    expect(shown.locator(".tuner-code")).to_have_text('%%complete --prompt "[5, 6]"')


def test_a_press_that_the_output_is_renewed_under_counts(page):
    """What is rendered anew between press and release takes the view along, and the click is made of them; one only."""
    shown = panel(page, "knobs")
    seed = shown.get_by_label("seed", exact=True)
    shown.get_by_role("button", name="new seed").hover()
    renew = "view => { const slot = view.parentNode; slot.replaceWith(slot.cloneNode(false)); }"
    seen = [seed.input_value()]
    for is_renewed in (False, True, False):
        page.mouse.down()
        if is_renewed:
            shown.evaluate(renew)
            expect(shown).to_be_visible()
        page.mouse.up()
        expect(seed).not_to_have_value(seen[-1])
        seen.append(seed.input_value())
        page.wait_for_timeout(100)
        assert seed.input_value() == seen[-1]


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(page, theme):
    """Names, roles, contrast and focus order are in order in the light and the dark theme."""
    panel(page, "pins")
    page.lab.change_theme(page, theme)
    assert faults(page, ".completions-tuner") == []


def test_it_fits_into_a_narrow_window(page):
    """At 700 pixels nothing is cut off: the text goes below the knobs."""
    page.lab.resize(page, 700)
    shown = panel(page, "slide")
    sizes = shown.evaluate(
        "view => [view.scrollWidth - view.clientWidth, view.parentNode.scrollWidth - view.parentNode.clientWidth]"
    )
    knobs, right = (shown.locator(part).bounding_box() for part in (".tuner-knobs", ".tuner-right"))
    page.lab.resize(page, 1100)
    assert max(sizes) <= 0
    assert right["y"] >= knobs["y"] + knobs["height"] - 1


def test_without_a_kernel_the_record_is_there_to_be_read(page):
    """When the kernel goes the panel says so and keeps its text; reopened, the notebook shows the record."""
    page.lab.save(page)
    shown = panel(page, "pins")
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(shown.get_by_role("status")).to_contain_text("The kernel is gone")
    expect(text(shown)).to_have_text(" it was usual warm")
    expect(shown.get_by_role("button", name="Run", exact=True)).to_be_disabled()
    again = page.lab.open(page.context.browser, "tuner.ipynb", has_kernel=False)
    output = again.locator(".jp-Notebook .jp-Cell").nth(1 + list(CELLS).index("pins")).locator(".jp-OutputArea-output")
    expect(output).to_contain_text("it was 1.5 warm")
    expect(output.locator("td").first).to_have_text("temperature")
    again.close()
