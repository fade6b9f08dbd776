"""The magics in a real kernel: run by nbclient as a file, and by a front end with a person before it."""

import json
import re
import threading
import time

import nbformat
import pytest
from conftest import DONE, ScriptedServer, answer, event, eventually, piece, stream, stream_head
from kernel import Kernel, about, of
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from test_magics import HOSTILE

HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])
REFUSED = answer({"error": {"message": "no model\n'm'"}}, status="404 Not Found")
KEY = "sk-7Qw9Zr2Lk5Xv8Bn1Mc4Jd6Hf3Gs0Ty"
WIDGET = "application/vnd.jupyter.widget-view+json"
SOON = 10.0
"""Seconds: the promise is two, the rest is for a busy machine; the server is silent for longer, as is its client."""


def _kinds(said):
    return [message["msg_type"] for message in said if message["msg_type"] not in ("status", "execute_input")]


def _text(message):
    return json.dumps(message["content"], ensure_ascii=False)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """Return a kernel with the extension."""
    kernel = Kernel(tmp_path_factory.mktemp("kernel"))
    yield kernel
    kernel.close()


@pytest.fixture
def cell(server):
    """Return what makes a cell that asks the scripted server."""
    server.scripts = [HELLO]
    return lambda options="", prompt="Hi": f"%%complete -m m --base-url {server.base_url} {options}\n{prompt}"


def a_word_and_then_silence(server):
    """Return a script that sends one event and then waits for the client to go."""

    def script(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        server.wait_until_gone(connection)

    return script


# As a file


def execute(cells):
    """Run `cells` in a kernel of their own; return the notebook and the error that stopped it, if one did."""
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in ["%load_ext completions_magic", *cells]])
    try:
        NotebookClient(notebook, kernel_name="python3", timeout=60).execute()
    except CellExecutionError as error:
        return notebook, error
    return notebook, None


@pytest.fixture(scope="module")
def saved():
    """Return an executed notebook of hostile prompts, and what the server heard."""
    server = ScriptedServer([HELLO])
    begin = f"%%complete -m m --base-url {server.base_url}"
    options = ["", "-o it", "--no-stream", "-n 2", "--as text", "--logprobs 1", "--view auto"]
    cells = [f"{begin} {options[number % len(options)]}\n{prompt}" for number, prompt in enumerate(HOSTILE.values())]
    notebook, error = execute([*cells, f"{begin} -q\nHi", f"it = %complete {begin[10:]} Hi"])
    server.close()
    assert error is None
    return notebook, server.heard


def test_prompts_arrive_from_a_kernel_as_they_were_written(saved):
    """The text of each cell of a notebook arrives at the server to the byte."""
    assert [heard.json["prompt"] for heard in saved[1]] == [*HOSTILE.values(), "Hi", "Hi"]


def test_a_saved_notebook_holds_one_result_a_cell(saved):
    """Each %%complete cell leaves one execute_result of plain text and HTML; a quiet one and an expression none."""
    *shown, quiet, expression = saved[0].cells[1:]
    for cell in shown:
        assert [output.output_type for output in cell.outputs] == ["execute_result"]
        assert set(cell.outputs[0].data) == {"text/plain", "text/html"}
        assert "Hello" in cell.outputs[0].data["text/plain"]
        assert "Hello" in cell.outputs[0].data["text/html"]
    assert (quiet.outputs, expression.outputs) == ([], [])


def test_a_saved_notebook_is_valid_and_holds_no_widget(saved):
    """A notebook that was run as a file validates, and nothing in it needs a kernel to be shown."""
    notebook = saved[0]
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert "widget" not in json.dumps([cell.outputs for cell in notebook.cells])


def test_a_failure_stops_the_notebook_with_one_line(server, cell):
    """A failed cell ends the run, and its error output has a name, a value and one line."""
    server.scripts = [HELLO, REFUSED]
    notebook, error = execute([cell(), cell(), "reached = True"])
    assert error is not None
    _, good, failed, never = notebook.cells
    assert [output.output_type for output in good.outputs] == ["execute_result"]
    assert [output.output_type for output in failed.outputs] == ["error"]
    output = failed.outputs[0]
    assert (error.ename, error.evalue) == (output.ename, output.evalue)
    assert output.ename == "NotFoundError"
    assert output.traceback == [f"NotFoundError: {output.evalue}"]
    assert len(output.evalue.splitlines()) == 1
    assert never.execution_count is None
    nbformat.validate(notebook)


# With a person before it


def test_the_live_area_gives_way_to_the_record(kernel, server, cell):
    """A watched cell shows one widget with the text as it comes, clears it, gives the record, and closes its comms."""
    go = threading.Event()

    def script(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        go.wait(10)
        connection.sendall(piece(event("lo", reason="stop")) + piece(DONE))

    server.scripts = [script]
    request = kernel.start(cell("-o it"), watched=True)
    kernel.hear(lambda message: message["msg_type"] == "comm_msg" and "Hel" in _text(message))
    go.set()
    reply, said = kernel.finish(request)
    assert reply["status"] == "ok"
    assert [kind for kind in _kinds(said) if not kind.startswith("comm_")] == [
        "display_data",
        "clear_output",
        "execute_result",
    ]
    area, record = of(said, "display_data")[0], of(said, "execute_result")[0]
    assert set(area["content"]["data"]) == {WIDGET}
    assert of(said, "clear_output")[0]["content"] == {"wait": True}
    assert set(record["content"]["data"]) == {"text/plain", "text/html"}
    assert "Hello" in record["content"]["data"]["text/plain"]
    opened = {message["content"]["comm_id"] for message in of(said, "comm_open")}
    closed = {message["content"]["comm_id"] for message in of(said, "comm_close")}
    assert area["content"]["data"][WIDGET]["model_id"] in closed
    assert opened == closed


def test_text_in_a_live_area_is_inert(kernel, server, cell):
    """No message of a watched cell holds an escape sequence, a mark that reorders, or half a character."""
    hostile = '"a\\u001b]0;owned\\u0007\\u202eb\\u009b2J\\ud800c"'
    body = f'data: {{"choices": [{{"index": 0, "text": {hostile}, "finish_reason": "stop"}}]}}\n\n'
    server.scripts = [stream([body.encode(), DONE])]
    _, said = kernel.run(cell(), watched=True)
    shown = of(said, "comm_msg") + of(said, "execute_result")
    assert any("owned" in _text(message) for message in of(said, "comm_msg"))
    for message in shown:
        _is_inert(message["content"].get("data"))


def _is_inert(value):
    """Assert that no text in `value` drives a terminal, reorders a line or cannot be encoded."""
    if isinstance(value, dict):
        for entry in (*value.keys(), *value.values()):
            _is_inert(entry)
    elif isinstance(value, list):
        for entry in value:
            _is_inert(entry)
    elif isinstance(value, str):
        assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", value) == []


@pytest.mark.parametrize(
    "script",
    [
        answer(b'{"error": {"message": "a\\u001b]0;owned\\u0007\\u202eb\\ud800c"}}', status="400 Bad Request"),
        stream([event("Hel"), b'data: {"error": {"message": "a\\u001b]0;owned\\u0007\\u202eb\\ud800c"}}\n\n']),
    ],
    ids=["refusal", "error in the stream"],
)
@pytest.mark.parametrize("watched", [False, True], ids=["as a file", "watched"])
def test_an_error_from_a_server_is_inert(kernel, server, cell, script, watched):
    """What a server says of an error reaches the front end as text that can be encoded and drives nothing."""
    server.scripts = [script]
    reply, said = kernel.run(cell(), watched=watched)
    assert reply["status"] == "error"
    error = of(said, "error")[0]["content"]
    assert "owned" in error["evalue"]
    _is_inert([error["ename"], error["evalue"], error["traceback"]])


@pytest.mark.parametrize("watched", [False, True], ids=["as a file", "watched"])
def test_a_failure_leaves_what_had_arrived_and_one_line(kernel, server, cell, watched):
    """A cut answer leaves its text, marked as incomplete, and an error of one line; a queued cell does not run."""
    server.scripts = [stream([event("Hel")])]
    first = kernel.start(cell("-o it"), watched=watched)
    second = kernel.start("reached = True")
    reply, said = kernel.finish(first)
    assert (reply["status"], reply["ename"]) == ("error", "StreamError")
    kept = [message for message in of(said, "display_data") if WIDGET not in message["content"]["data"]]
    assert len(kept) == 1
    assert kept[0]["content"]["data"]["text/plain"].startswith("Hel\n")
    assert "incomplete" in kept[0]["content"]["data"]["text/plain"]
    error = of(said, "error")[0]["content"]
    assert error["traceback"] == [f"StreamError: {error['evalue']}"]
    assert len(error["evalue"].splitlines()) == 1
    assert kernel.finish(second)[0]["status"] == "aborted"
    assert kernel.value("[it.text, it.choices[0].finish_reason, _.text]") == ["Hel", "error", "Hel"]


def _is_interrupted(kernel, server, request):
    """Press the button; assert that the cell ends within 2 s with one line, and the connection with it."""
    start = time.monotonic()
    kernel.interrupt()
    reply, said = kernel.finish(request)
    assert time.monotonic() - start < SOON
    assert reply["status"] == "error"
    error = of(said, "error")[0]["content"]
    assert len(error["traceback"]) == 1
    assert len(error["traceback"][0].splitlines()) == 1
    assert "nterrupt" in error["traceback"][0]
    assert server.gone.wait(SOON)
    return said


@pytest.mark.parametrize("options", ["-o it", "-o it --view text"], ids=["widget", "text"])
def test_an_interrupt_during_a_silent_stream_keeps_what_had_arrived(kernel, server, cell, options):
    """The cell ends within 2 s with one line, binds the partial answer as interrupted, and a queued cell stays."""
    server.scripts = [a_word_and_then_silence(server)]
    request = kernel.start(cell(options), watched=True)
    queued = kernel.start("reached = True")
    kernel.hear(lambda message: message["msg_type"] in ("comm_msg", "stream") and "Hel" in _text(message))
    said = _is_interrupted(kernel, server, request)
    assert kernel.finish(queued)[0]["status"] == "aborted"
    shown = "".join(_text(message) for message in said if message["msg_type"] in ("display_data", "stream"))
    assert "Hel" in shown
    assert "incomplete" in shown
    assert kernel.value("[it.text, it.choices[0].finish_reason, it.finished, _.text]") == [
        "Hel",
        "interrupted",
        False,
        "Hel",
    ]


@pytest.mark.parametrize("watched", [False, True], ids=["as a file", "watched"])
def test_an_interrupt_before_the_answer_keeps_a_good_variable(kernel, server, cell, watched):
    """While the server is silent an interrupt ends the cell within 2 s, and the variable is what it was."""
    server.scripts = [server.wait_until_gone]
    kernel.run("it = 'good'")
    request = kernel.start(cell("-o it"), watched=watched)
    assert eventually(lambda: server.heard)
    _is_interrupted(kernel, server, request)
    assert kernel.value("it") == "good"


def test_an_interrupt_ends_the_wait_before_a_retry(kernel, server, cell):
    """A wait that a server has asked for is said, and an interrupt ends it within 2 s."""

    def busy(connection):
        connection.sendall(answer(b"", status="503 X", headers="Retry-After: 50\r\n"))
        server.wait_until_gone(connection)

    server.scripts = [busy]
    request = kernel.start(cell(), watched=True)
    kernel.hear(lambda message: message["msg_type"] == "comm_msg" and "50 s" in _text(message))
    start = time.monotonic()
    kernel.interrupt()
    assert kernel.finish(request)[0]["status"] == "error"
    assert time.monotonic() - start < SOON
    assert len(server.heard) == 1


def test_the_live_area_of_a_batch_says_what_its_rows_wait_for(kernel, server, cell):
    """Eight workers that are refused are one short line, replaced; an interrupt ends the wait within 2 s."""
    server.scripts = [answer(b"", status="429 Slow", headers="Retry-After: 50\r\n")]
    kernel.run("rows = list('abcdefgh')")
    request = kernel.start(cell("-i rows", "{{ row }}"), watched=True)
    # Of fifty seconds some may have gone before the first look.
    waits = re.compile("0 of 8 rows · 429: trying again in (50|4[0-9]) s, 1 of 2")
    said = kernel.hear(lambda message: message["msg_type"] == "comm_msg" and waits.search(_text(message)))
    assert json.dumps(said["content"]).count("trying") == 1
    start = time.monotonic()
    kernel.interrupt()
    assert kernel.finish(request)[0]["status"] == "error"
    assert time.monotonic() - start < SOON


def test_stop_ends_the_answer_and_not_the_notebook(kernel, server, cell):
    """The Stop button ends a silent stream within 2 s; what had come is the result, and a queued cell runs."""
    server.scripts = [a_word_and_then_silence(server)]
    request = kernel.start(cell("-o it"), watched=True)
    queued = kernel.start("reached = 'reached'")
    kernel.hear(lambda message: message["msg_type"] == "comm_msg" and "Hel" in _text(message))
    area = next(message for message in kernel.said if about(message, request) and WIDGET in _text(message))
    start = time.monotonic()
    kernel.press_stop(area["content"]["data"][WIDGET]["model_id"])
    reply, said = kernel.finish(request)
    assert time.monotonic() - start < SOON
    assert server.gone.wait(SOON)
    assert reply["status"] == "ok"
    result = of(said, "execute_result")[0]["content"]["data"]["text/plain"]
    assert result.startswith("Hel\n")
    assert "incomplete" in result
    assert kernel.finish(queued)[0]["status"] == "ok"
    assert kernel.value("[it.text, it.choices[0].finish_reason, it.finished, reached]") == [
        "Hel",
        "stopped",
        False,
        "reached",
    ]


def test_a_sweep_grows_on_one_board_and_stop_keeps_what_is_done(kernel, server, cell):
    """A pane a point under its name, an error in its place; Stop ends the open points and asks for no more."""
    # The refusal of a model is followed by a look at those that there are.
    server.scripts = [HELLO, REFUSED, answer({"data": []}), a_word_and_then_silence(server)]
    request = kernel.start(cell("-o swept --sweep seed=1,2,3,4 --concurrency 1"), watched=True)
    queued = kernel.start("reached = 'reached'")
    kernel.hear(lambda message: message["msg_type"] == "comm_msg" and "pane_2" in _text(message))
    said = [message for message in kernel.said if about(message, request)]
    opened = next(m for m in of(said, "comm_open") if "labels" in m["content"]["data"]["state"])
    assert opened["content"]["data"]["state"]["labels"] == ["seed 1", "seed 2", "seed 3", "seed 4"]
    states = [_text(message) for message in of(said, "comm_msg")]
    assert any('"Hello"' in state for state in states)
    assert any("404 Not Found" in state for state in states)
    kernel.press_stop(opened["content"]["comm_id"])
    reply, said = kernel.finish(request)
    assert reply["status"] == "ok"
    assert server.gone.wait(SOON)
    shown = of(said, "execute_result")[0]["content"]["data"]
    assert "4 points · 2 completions · 1 failed" in shown["text/plain"]
    assert kernel.finish(queued)[0]["status"] == "ok"
    reasons = "[point.completion and point.completion.choices[0].finish_reason for point in swept]"
    assert kernel.value(reasons) == ["stop", None, "stopped", None]
    assert [heard.method for heard in server.heard] == ["POST", "POST", "GET", "POST"]


def test_stop_before_the_answer_keeps_a_good_variable(kernel, server, cell):
    """Stopped while the server is silent, a cell leaves the variable as it was."""
    server.scripts = [server.wait_until_gone]
    kernel.run("it = 'good'")
    request = kernel.start(cell("-o it"), watched=True)
    area = kernel.hear(lambda message: message["msg_type"] == "display_data")
    assert eventually(lambda: server.heard)
    kernel.press_stop(area["content"]["data"][WIDGET]["model_id"])
    kernel.finish(request)
    assert server.gone.wait(SOON)
    assert kernel.value("str(it)") == "good"


def test_a_background_answer_grows_in_its_place(kernel, server, cell):
    """--bg ends the cell at once; its output is updated in place and the variable bound while other cells run."""
    go = threading.Event()

    def script(connection):
        go.wait(10)
        connection.sendall(HELLO)

    server.scripts = [script]
    reply, said = kernel.run(cell("--bg -o late"), watched=True)
    assert reply["status"] == "ok"
    place = of(said, "display_data")[0]["content"]["transient"]["display_id"]
    assert kernel.value("'late' in globals()") is False
    go.set()
    update = kernel.hear(lambda message: message["msg_type"] == "update_display_data" and "Hello" in _text(message))
    assert update["content"]["transient"]["display_id"] == place
    kernel.run("background = Out[max(Out)]")
    assert kernel.value("[background.wait(5).text, late.text]") == ["Hello", "Hello"]


def test_nothing_is_left_after_many_answers(kernel, server, cell):
    """Two hundred answers and ten live areas, one of them failed, leave no thread, connection or widget behind."""
    state = (
        "[threading.active_count(), len(psutil.Process().net_connections()), len(ipywidgets.widgets.widget._instances)]"
    )
    kernel.run("import ipywidgets, psutil, threading")
    kernel.run(cell(), watched=True)
    before = kernel.value(state)
    kernel.run(f"for _ in range(200):\n    got = %complete -m m --base-url {server.base_url} Hi")
    for _ in range(9):
        kernel.run(cell(), watched=True)
    server.scripts = [lambda connection: connection.sendall(stream_head() + piece(event("Hel")))]
    kernel.run(cell(), watched=True)
    assert len(server.heard) == 211
    # One connection less is as it should be: the failed answer's was not kept.
    assert all(now <= then for now, then in zip(kernel.value(state), before, strict=True))


def test_the_front_end_can_complete_and_explain_the_line(kernel):
    """Tab offers options in a notebook's cell, and Shift-Tab shows their table."""
    kernel.client.complete("%%complete --max-t\nOnce", 18)
    content = kernel.client.get_shell_msg(timeout=20)["content"]
    assert content["matches"] == ["--max-tokens"]
    assert (content["cursor_start"], content["cursor_end"]) == (11, 18)
    kernel.client.inspect("%%complete", 10)
    content = kernel.client.get_shell_msg(timeout=20)["content"]
    assert "--max-tokens" in content["data"]["text/plain"]


def test_a_cell_that_runs_again_leaves_no_view_behind(kernel, server):
    """A token view of another answer takes the place of the one that the same cell made before, in the kernel too."""
    chunk = event("Hi", reason="stop").replace(
        b'"logprobs": null', b'"logprobs": {"tokens": ["Hi"], "token_logprobs": [-1]}'
    )
    server.scripts = [stream([chunk, DONE])]
    kernel.run("import comm")
    counts = []
    for prompt in ("One", "Two", "Three"):
        kernel.run(f"it = %complete -m m --base-url {server.base_url} --logprobs 1 {prompt}")
        kernel.run("it.tokens()", watched=True, cell_id="tokens")
        kernel.run("it.tokens(), it.tokens()", watched=True, cell_id="two")
        counts.append(kernel.value("len(comm.get_comm_manager().comms)"))
    assert counts == [3, 3, 3]


def test_an_area_that_is_collected_late_takes_no_button_from_another(kernel):
    """What was closed before is closed again when Python collects it: the area that is open still hears Stop."""
    handlers = "'comm_msg' in get_ipython().kernel.control_handlers"
    kernel.run("from completions_magic.area import Area\nold = Area([], print)\nold.close()")
    assert kernel.value(handlers) is False
    kernel.run("new = Area([], print)\ndel old\nimport gc; gc.collect()")
    assert kernel.value(handlers) is True
    kernel.run("new.close()")
    assert kernel.value(handlers) is False


def test_unloading_leaves_no_handler_in_the_kernel(server, cell, tmp_path):
    """After %unload_ext the kernel handles the messages that it handled before."""
    kernel = Kernel(tmp_path)
    handlers = "sorted(get_ipython().kernel.control_handlers)"
    before = kernel.value(handlers)
    kernel.run(cell(), watched=True)
    kernel.run("%unload_ext completions_magic")
    after = kernel.value(handlers)
    kernel.close()
    assert after == before


# Keys


def test_a_key_is_found_in_no_message_file_or_log(server, cell, tmp_path):
    """No ten characters of a key are in any message, saved notebook, history or debug log of a session that used it."""
    kernel = Kernel(tmp_path, LAB_KEY=KEY)
    refused = answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, status="401 Unauthorized")
    echoed = stream([event(f"your key is {KEY}", reason="stop", model=KEY), DONE])
    server.scripts = [HELLO, HELLO, refused, echoed, refused, HELLO, HELLO]
    cells = [
        "import logging; logging.basicConfig(filename='debug.log', level=logging.DEBUG, force=True)",
        "%config IPCompleter.use_jedi = False",
        cell("--api-key-env LAB_KEY -o it"),
        cell("--api-key-env LAB_KEY --no-stream"),
        "%xmode Verbose",
        cell("--api-key-env LAB_KEY"),
        cell("--api-key-env LAB_KEY -o echo"),
        cell("--api-key-env LAB_KEY --no-raise-error"),
        cell("--api-key-env LAB_KEY --dry-run"),
        cell("--api-key-env LAB_KEY --bg"),
        "_.wait(10)",
        f"import completions_magic as cm\nclient = cm.Client(base_url='{server.base_url}', api_key=os.environ['LAB_KEY'])",
        "client, vars(client), vars(client.endpoint), repr(client.endpoint.key)",
        "client.complete('Hi', model='m').to_dict()",
        "import pickle; pickle.dumps(client.endpoint.key)",
        "[vars(error) for error in [it, echo] if hasattr(error, '__dict__')]",
        "%completions profiles",
        "%completions last",
        "%config CompletionsMagics",
        "%history -n",
        "(In, Out, it, echo)",
    ]
    kernel.run("import os")
    notebook = new_notebook()
    for source in cells:
        _, said = kernel.run(source, watched=True)
        outputs = [nbformat.v4.output_from_msg(message) for message in said if message["msg_type"] in OUTPUTS]
        notebook.cells.append(new_code_cell(source, outputs=outputs))
    kernel.close()
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    assert {heard.headers.get("authorization") for heard in server.heard} == {f"Bearer {KEY}"}
    assert len(server.heard) == 7
    kept = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept["messages"] = json.dumps(kernel.said, default=str).encode()
    holding = [name for name, content in kept.items() if b"LAB_KEY" in content]
    assert {"messages", "saved.ipynb"} <= set(holding)
    assert any(name.endswith("history.sqlite") for name in holding)
    assert b"send_request_headers" in kept["debug.log"]
    pieces = [KEY[start : start + 10].encode() for start in range(len(KEY) - 9)]
    assert [name for name, content in kept.items() if any(part in content for part in pieces)] == []


OUTPUTS = ("display_data", "execute_result", "stream", "error")
