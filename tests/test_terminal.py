"""The magics in a real terminal: IPython at a pseudo-terminal, typed at as a person would."""

import os
import re
import subprocess
import sys
import threading
import time

import pexpect
import pytest
from conftest import DONE, answer, event, eventually, piece, stream, stream_head
from test_magics import HOSTILE

HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])
CTRL_C = "\x03"
AT_ONCE = 20
"""Seconds on the busiest machine; who does not hear waits for a silent server for a minute."""
# What a terminal carries as it is typed: of the controls only line ends, and no tabs, which would complete.
TYPEABLE = {name: prompt for name, prompt in HOSTILE.items() if re.fullmatch("[^\x00-\x09\x0b-\x1f\x7f-\x9f]*", prompt)}


class Terminal:
    """An IPython at a pseudo-terminal; `number` is that of the prompt it shows."""

    def __init__(self, folder, columns=200):
        # Another terminal's size, which its shell may have left in the environment, is not this one's.
        foreign = re.compile(r"OPENAI_.*|COMPLETIONS_.*|LINES|COLUMNS")
        alone = {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)}
        places = {"IPYTHONDIR": str(folder / "ipython"), "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder)}
        plain = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self._process = pexpect.spawn(
            sys.executable,
            ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=nocolor", "--no-term-title"],
            env={**alone, **places, **plain},
            cwd=str(folder),
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(60, columns),
            timeout=60,
        )
        self.number = 1
        self.expect("In [1]:")
        self.run("%load_ext completions_magic")

    def expect(self, text):
        """Wait until `text` is shown; return what was shown before it."""
        self._process.expect_exact(text)
        return self._process.before

    def send(self, text):
        """Type `text`."""
        self._process.send(text)

    def paste(self, cell):
        """Paste `cell`, with the empty lines that end one of several lines, and run it with Esc, Enter."""
        end = "\n\n" if "\n" in cell else ""
        self.send(f"\x1b[200~{cell}{end}\x1b[201~\x1b\r")
        # From here on what is shown is the cell's output: editing ends with this.
        self.expect("\x1b[?2004l")

    def finish(self):
        """Return what the cell shows until the next prompt."""
        shown = self.expect("\x1b[?2004h")
        self.number += 1
        self.expect(f"In [{self.number}]:")
        return shown.replace("\r", "")

    def run(self, cell):
        """Run `cell`; return what it shows."""
        self.paste(cell)
        return self.finish()

    def close(self):
        """Leave IPython; return its exit status."""
        self.send("exit\r")
        self._process.expect(pexpect.EOF)
        self._process.wait()
        self._process.close()
        return self._process.exitstatus


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """Return a terminal with the extension loaded."""
    terminal = Terminal(tmp_path_factory.mktemp("terminal"))
    yield terminal
    terminal.close()


@pytest.fixture
def cell(server):
    """Return what makes a cell that asks the scripted server."""
    server.scripts = [HELLO]
    return lambda options="", prompt="Hi": f"%%complete -m m --base-url {server.base_url} {options}\n{prompt}"


@pytest.mark.parametrize("prompt", ["Say\nhello", "Say\n  hello"], ids=["flush", "indented"])
def test_a_typed_prompt_arrives_without_the_lines_that_end_it(terminal, server, cell, prompt):
    """Typed line by line, the cell ends with two empty lines, which are no part of the prompt."""
    for line in cell(prompt=prompt).split("\n"):
        terminal.send(f"{line}\r")
        terminal.expect("...:")
    terminal.send("\r")
    terminal.expect("...:")
    terminal.send("\r")
    terminal.expect("\x1b[?2004l")
    assert terminal.finish().startswith("Hello\n")
    assert server.heard[0].json == {"model": "m", "prompt": prompt, "stream": True}


@pytest.mark.parametrize("prompt", TYPEABLE.values(), ids=TYPEABLE)
def test_a_prompt_arrives_from_a_terminal_as_it_was_pasted(terminal, server, cell, prompt):
    """A pasted cell arrives at the server to the byte."""
    assert "Hello" in terminal.run(cell(prompt=prompt))
    assert [heard.json for heard in server.heard] == [{"model": "m", "prompt": prompt, "stream": True}]


def test_text_shows_while_it_comes(terminal, server, cell):
    """The first word is on screen while the server has not yet said the second; the record is not shown twice."""
    go = threading.Event()

    def script(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        go.wait(60)
        connection.sendall(piece(event("lo", reason="stop")) + piece(DONE))

    server.scripts = [script]
    terminal.paste(cell("-o it"))
    terminal.expect("Hel")
    go.set()
    shown = terminal.finish()
    assert re.fullmatch(r"lo\n\(m · .+\)\n\n", shown)


def test_the_completion_is_in_the_variable_and_in_out(terminal, cell):
    """-o, _ and Out[n] hold the completion of a cell."""
    number = terminal.number
    terminal.run(cell("-o it"))
    shown = terminal.run(f"print([it.text, _.text, Out[{number}].text, it.finished])")
    assert shown.startswith("['Hello', 'Hello', 'Hello', True]")


def test_all_choices_grow_at_once(terminal, server, cell):
    """Both choices are on screen before either has ended; afterwards each is there whole, once, without a control."""
    go = threading.Event()

    def script(connection):
        for text, index in [("first ", 0), ("second ", 1), ("half\n", 0), ("half", 1)]:
            connection.sendall((stream_head() if text == "first " else b"") + piece(event(text, index=index)))
        go.wait(60)
        connection.sendall(piece(event(" one", reason="stop")) + piece(event(" two", index=1, reason="stop")))
        connection.sendall(piece(DONE))

    server.scripts = [script]
    terminal.paste(cell("-n 2 -o it"))
    terminal.expect("first half")
    terminal.expect("second half")
    go.set()
    shown = terminal.finish().rpartition("\x1b")[2]
    assert "[1/2] first half\n one  <complete>\n[2/2] second half two  <complete>\n(m" in shown
    assert terminal.run("print(it.texts)").startswith("['first half\\n one', 'second half two']\n")


def test_an_interrupt_keeps_every_choice(terminal, server, cell):
    """Ctrl-C while several choices grow leaves the terminal in order, and each choice as far as it came."""

    def script(connection):
        connection.sendall(stream_head() + piece(event("one")) + piece(event("two", index=1)))
        server.wait_until_gone(connection)

    server.scripts = [script]
    terminal.paste(cell("-n 2 -o it"))
    terminal.expect("two")
    terminal.send(CTRL_C)
    shown = terminal.finish()
    assert server.gone.wait(20)
    assert "[1/2] one" in shown
    assert "[2/2] two" in shown
    assert "\x1b[?25h" in shown
    assert "Traceback" not in shown


def test_many_choices_are_a_line_each(terminal, server, cell):
    """Choices that have no room for a pane each are a line each, and all of them are whole in the end."""
    go = threading.Event()

    def script(connection):
        connection.sendall(stream_head() + b"".join(piece(event(f"text {at}", index=at)) for at in range(40)))
        go.wait(60)
        connection.sendall(b"".join(piece(event(" end", index=at, reason="stop")) for at in range(40)) + piece(DONE))

    server.scripts = [script]
    terminal.paste(cell("-n 40"))
    terminal.expect("[40/40] text 39")
    go.set()
    shown = terminal.finish().rpartition("\x1b")[2]
    assert [f"[{at + 1}/40] text {at} end  <complete>" in shown for at in range(40)] == [True] * 40


def test_where_there_is_no_terminal_each_choice_is_plain_text(server, tmp_path):
    """Into a file or a pipe goes no control sequence, and no choice within another."""
    server.scripts = [
        stream([event("a"), event("x", index=1), event("b", reason="stop"), event("y", index=1, reason="stop"), DONE])
    ]
    cell = f"get_ipython().run_cell_magic('complete', '-m m -n 2 --view text --base-url {server.base_url}', 'Hi')"
    start = [sys.executable, "-m", "IPython", "--colors=nocolor", "-c", f"%load_ext completions_magic\n{cell}"]
    shown = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True).stdout
    assert shown.startswith("ab\n[2/2]xy\n(m")
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown) == []


def test_nothing_from_a_server_drives_the_panes(terminal, server, cell):
    """Escape sequences in one of several choices arrive at the terminal as signs, in the panes and in the record."""
    server.scripts = [
        stream(
            [event("a\x1b]0;owned\x07\x1b[2J\x9b31m\u202ec", index=1, reason="stop"), event("b", reason="stop"), DONE]
        )
    ]
    shown = terminal.run(cell("-n 2"))
    assert "owned" in shown
    assert not re.search("\x1b]0|\x07|\x1b\\[2J|\x9b|\u202e", shown)


def test_the_token_view_of_a_terminal_is_the_static_tree(terminal):
    """Where no page can be interactive, the tokens' tree is plain text, shown once."""
    terminal.run(
        "import completions_magic as cm; made = cm.Client().complete('Once', max_tokens=3, logprobs=2, seed=1)"
    )
    shown = terminal.run("made.tokens()")
    assert "the first answer\n     upon a time\n    (pocket" in shown
    assert shown.count("the first answer") == 1
    assert "perplexity" in shown


def test_quiet_shows_nothing(terminal, cell):
    """With --quiet nothing is on screen, and the variable holds the answer."""
    assert terminal.run(cell("-q -o silent")).strip() == ""
    assert terminal.run("print(silent.text)").startswith("Hello\n")


def test_an_interrupt_keeps_what_had_arrived(terminal, server, cell):
    """Ctrl-C in a silent stream ends the cell at once with one line; the partial answer is bound as interrupted."""

    def script(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        server.wait_until_gone(connection)

    server.scripts = [script]
    terminal.paste(cell("-o it"))
    terminal.expect("Hel")
    start = time.monotonic()
    terminal.send(CTRL_C)
    shown = terminal.finish()
    assert time.monotonic() - start < AT_ONCE
    assert server.gone.wait(20)
    assert "incomplete" in shown
    assert shown.count("Interrupted") == 1
    assert "Traceback" not in shown
    shown = terminal.run("print([it.text, it.choices[0].finish_reason, _.text])")
    assert shown.startswith("['Hel', 'interrupted', 'Hel']")


def test_an_interrupt_before_the_answer_keeps_a_good_variable(terminal, server, cell):
    """Ctrl-C while the server is silent ends the cell at once, and the variable is what it was."""
    server.scripts = [server.wait_until_gone]
    terminal.run("it = 'good'")
    terminal.paste(cell("-o it"))
    assert eventually(lambda: server.heard, 30)
    start = time.monotonic()
    terminal.send(CTRL_C)
    terminal.finish()
    assert time.monotonic() - start < AT_ONCE
    assert server.gone.wait(20)
    assert terminal.run("print(it)").startswith("good\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [("--temprature 1", "--temperature"), ("-n 0", "1 to 128"), ("--retries 0", "no model 'm'")],
)
def test_a_failure_is_one_line(terminal, server, cell, options, words):
    """What is wrong is one line of type and message, without a traceback."""
    server.scripts = [answer({"error": {"message": "no model 'm'"}}, status="404 Not Found")]
    shown = terminal.run(cell(options)).rstrip("\n")
    assert re.fullmatch(r"\w+Error: [^\n]+", shown)
    assert words in shown


@pytest.mark.parametrize(
    "script",
    [
        stream([event("a\x1b]0;owned\x07\x1b[2Jb\x9b31m\u202ec", reason="stop"), DONE]),
        answer({"error": {"message": "a\x1b]0;owned\x07\x1b[2Jb\x9b31m\u202ec"}}, status="400 Bad Request"),
        stream([event("Hi"), b'data: {"error": {"message": "a\\u001b]0;owned\\u0007b\\u009b31m\\u202ec\\ud800"}}\n\n']),
    ],
    ids=["text", "error", "error in the stream"],
)
def test_nothing_from_a_server_drives_the_terminal(terminal, server, cell, script):
    """Escape sequences and marks that reorder a line arrive at the terminal as signs."""
    server.scripts = [script]
    shown = terminal.run(cell())
    assert "owned" in shown
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown) == []


def test_tab_completes_an_option(terminal, server, cell):
    """Tab after --max-t completes the option, and the cell that it makes works."""
    first, _, prompt = cell().partition("\n")
    terminal.send(f"{first} --max-t\t")
    terminal.expect("okens")
    terminal.send(f" 5\r{prompt}\r\r\r")
    terminal.expect("\x1b[?2004l")
    terminal.finish()
    assert server.heard[0].json["max_tokens"] == 5


def test_a_background_answer_lets_the_terminal_go_on(terminal, server):
    """--bg gives the prompt back while the server still thinks, and binds the answer when it has ended."""
    go = threading.Event()

    def script(connection):
        go.wait(60)
        connection.sendall(HELLO)

    server.scripts = [script]
    terminal.run(f"background = %complete -m m --base-url {server.base_url} --bg -o late Hi")
    assert terminal.run("print(background.done)").startswith("False\n")
    go.set()
    assert terminal.run("print(background.wait(60).text, late.text)").startswith("Hello Hello\n")


def test_the_terminal_ends_while_an_answer_is_under_way(server, cell, tmp_path):
    """Leaving IPython does not wait for a silent server, and ends without an error."""
    server.scripts = [server.wait_until_gone]
    terminal = Terminal(tmp_path)
    terminal.run(cell("--bg -o late"))
    assert eventually(lambda: server.heard, 30)
    start = time.monotonic()
    status = terminal.close()
    assert time.monotonic() - start < AT_ONCE
    assert server.gone.wait(20)
    assert status == 0


@pytest.mark.parametrize("columns", [200, 40])
def test_a_batch_in_a_terminal_says_what_its_rows_wait_for(tmp_path, server, cell, columns):
    """On its one line, which is written over itself and is never wider than the terminal."""
    server.scripts = [answer(b"", status="429 Slow", headers="Retry-After: 2\r\n"), HELLO]
    terminal = Terminal(tmp_path, columns)
    terminal.run("rows = list('abc')")
    shown = terminal.run(cell("-i rows -o batch --concurrency 1", "{{ row }}"))
    terminal.close()
    lines = shown.partition("\n")[0].split("\x1b[K")
    assert any(line.startswith("0 of 3 rows · 429: trying again in 2 s") for line in lines)
    assert lines[-1] == ""
    assert "trying" not in lines[-2]
    assert max(map(len, lines)) < columns
