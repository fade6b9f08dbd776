"""Every byte that a whole notebook run wrote, searched for the key in every form that programs write it in."""

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

import nbformat
import pytest
from conftest import DONE, ScriptedServer, answer, event, stream
from kernel import Kernel
from nbclient import NotebookClient
from nbconvert import HTMLExporter

KEY = 'sk-4Nt6"Yc9/Ph3+Wd5Rj8&Qm2Vx7Kb0Fg1Ua='
"""No other test's: what runs beside this one is in what `ps` says of all processes, with their environments."""
LOGPROBS = {"tokens": ["Hi"], "token_logprobs": [-0.1], "top_logprobs": [{"Hi": -0.1, "Ho": -2}], "text_offset": [0]}


def forms():
    """Return every piece of ten characters of the key, in each form, as bytes."""
    written = {KEY, quote(KEY, safe=""), quote(KEY), json.dumps(KEY)[1:-1], json.dumps(json.dumps(KEY))[3:-3]}
    for ahead in range(3):
        coded = base64.b64encode(b" " * ahead + KEY.encode() + b"  ").decode()[4:-4]
        written |= {coded, coded.replace("+", "-").replace("/", "_")}
    written |= {KEY.encode().hex(), repr(KEY)[1:-1], KEY.replace("&", "&amp;").replace('"', "&quot;")}
    return {form[at : at + 10].encode() for form in written for at in range(len(form) - 9)}


def echo(server):
    """Return a script that tells the caller what it heard of the key, in many forms; a known user gets an answer."""

    def script(connection):
        heard = server.current
        key = heard.headers.get("authorization", "no key")
        coded = base64.b64encode(key.encode()).decode()
        said = f"{key} {quote(key)} {json.dumps(key)} {coded} {key[3:17]}"
        body = heard.json if heard.body else {}
        if "user" in body:
            connection.sendall(stream([event("Hel"), event("lo", reason="stop"), DONE]))
        elif "seed" in body:
            status = {1: "401 Unauthorized", 2: "400 Bad Request"}.get(body["seed"], "500 Oops")
            connection.sendall(answer({"error": {"message": said, "param": said}}, status=status))
        elif body.get("stream"):
            pieces = [said[at : at + 7] for at in range(0, len(said), 7)]
            events = [event(text, model=said) for text in pieces]
            connection.sendall(stream([*events, event(reason="stop", system_fingerprint=said), DONE]))
        else:
            choice = {"text": f"Hi {said}", "index": 0, "finish_reason": "stop", "logprobs": LOGPROBS}
            headers = f"X-Request-Id: {key}\r\nSet-Cookie: key={key}\r\nConnection: close\r\n"
            connection.sendall(answer({"choices": [choice], "model": said, "echo": [said]}, headers=headers))

    return script


CELLS = """
import logging; logging.basicConfig(filename="debug.log", level=logging.DEBUG, force=True)
---
%load_ext completions_magic
%config CompletionsMagics.base_url = "{base_url}"
%config CompletionsMagics.api_key_from = ".env:LAB_KEY"
%config CompletionsMagics.model = "m"
%config CompletionsMagics.retries = 0
---
%%complete -o it -n 2
Hi
---
%%complete -o whole --no-stream --logprobs 1 --cassette whole.jsonl
Hi
---
%%complete -o taped --user me --cassette taped.jsonl
Hi
---
%xmode Verbose
---
%%complete --seed 1
Hi
---
%%complete --seed 2 --no-raise-error
Hi
---
%%complete --dry-run
Hi
---
%%complete --bg -o later
Hi
---
later_ = _
later_.wait(10)
---
%%complete --sweep temperature=0,1 -o grid
Hi
---
rows = ["a", "b"]
---
%%complete -i rows -o batch --user me --journal rows.jsonl
{{{{ row }}}}
---
%%complete --tune
Hi
---
%completions doctor
---
%completions models
---
%completions profiles
---
%completions tokens whole
---
import httpx, pickle
from completions_magic import Client, Profile

class Broken(httpx.BaseTransport):
    def handle_request(self, request):
        raise ValueError(request.method)

profile = Profile("lab", "{base_url}", model="m", api_key_from=".env:LAB_KEY")
client = Client(profile, transport=Broken())
---
client.complete("Hi")
---
Client(profile, on_wait=lambda wait: 1 / 0, retries=1).complete("Hi", seed=3)
---
pickle.dumps(client.endpoint.key)
---
size = open("answers.pickle", "wb").write(pickle.dumps([it.to_dict(), whole.to_dict(), grid.points[0].completion.texts]))
---
client, vars(client), vars(client.endpoint), profile, profile.place, vars(profile.place), profile.key()
---
Client(Profile("lab", "{base_url}", model="m", api_key_from=".env:NO_KEY"))
---
Client(Profile("lab", "{base_url}", model="m", api_key_from=".env:BAD_KEY"))
---
%history -n
%whos
%completions history
%completions last
(In, Out, it.to_dict(), whole.to_dict(), vars(it), vars(grid.points[0].completion))
---
import os, subprocess
print(dict(os.environ), open("/proc/self/cmdline").read(), open("/proc/self/environ").read())
print(subprocess.run(["ps", "axeww"], capture_output=True, text=True).stdout if os.path.exists("/bin/ps") else "")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run the notebook in a kernel of its own; return its folder, the notebook and what the server heard."""
    folder = tmp_path_factory.mktemp("run")
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / ".env").write_text(f"LAB_KEY='{KEY}'\nBAD_KEY='{KEY} {KEY}'\n")
    (folder / ".env").symlink_to(secrets / ".env")
    server = ScriptedServer()
    server.scripts = [echo(server)]
    sources = CELLS.format(base_url=server.base_url).strip("\n").split("\n---\n")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    places = ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME")
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **{name: str(folder / name) for name in places}}
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=120,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
        ipython_hist_file=str(folder / "history.sqlite"),
    )
    with (folder / "kernel.log").open("wb") as log:
        client.execute(env=environment, stdout=log, stderr=log)
    nbformat.write(notebook, folder / "saved.ipynb")
    (folder / "saved.html").write_text(HTMLExporter().from_notebook_node(notebook)[0], "utf-8")
    server.close()
    return folder, notebook, server.heard


def written(folder: Path) -> dict[str, bytes]:
    """Return every file that the run wrote, by its path in the folder; what it read is none of them."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_key_was_used(run):
    """Every request carried the key, so that there was something to leak."""
    _, _, heard = run
    assert len(heard) > 15
    assert {request.headers["authorization"] for request in heard} == {f"Bearer {KEY}"}


def test_the_run_wrote_what_is_searched(run):
    """Notebook, page, cassettes, journal, card, kernel log, debug log and history are there, and hold the run."""
    folder, notebook, _ = run
    files = written(folder)
    names = "saved.ipynb saved.html kernel.log debug.log history.sqlite taped.jsonl rows.jsonl answers.pickle"
    assert set(names.split()) <= set(files)
    assert b"LAB_KEY" in files["history.sqlite"]
    assert any("/cards/" in name for name in files)
    assert b"send_request_headers" in files["debug.log"]
    errors = [output.ename for cell in notebook.cells for output in cell.get("outputs", []) if "ename" in output]
    assert {"AuthenticationError", "ValueError", "ZeroDivisionError", "TypeError", "ProfileError"} <= set(errors)
    text = files["saved.ipynb"].decode()
    assert "[key]" in text
    assert "holds blanks" in text
    assert ".env does not name NO_KEY" in text


def test_no_byte_holds_the_key(run):
    """Neither as it is, nor in base64, in a URL, in JSON or in HTML is a piece of ten characters of it in any file."""
    folder, _, _ = run
    pieces = forms()
    found = {
        name: sorted(piece for piece in pieces if piece in content)[:3] for name, content in written(folder).items()
    }
    assert {name: which for name, which in found.items() if which} == {}


def test_no_widget_is_told_the_key(server, tmp_path):
    """What a front end gets while text comes, and the state of every widget, holds no piece of it either."""
    (tmp_path / ".env").write_text(f"LAB_KEY='{KEY}'\n")
    server.scripts = [echo(server)]
    kernel = Kernel(tmp_path)
    where = f"-m m --base-url {server.base_url} --api-key-from .env:LAB_KEY --retries 0"
    for options in ("", "-n 2 --view widget", "--no-stream --logprobs 1 -o it", "--seed 1", "--tune -o tuned"):
        kernel.run(f"%%complete {where} {options}\nHi", watched=True)
    kernel.run("import time\nwhile 'tuned' not in globals(): time.sleep(0.01)")
    kernel.run("it.tokens()", watched=True)
    kernel.close()
    said = json.dumps(kernel.said, default=str).encode()
    assert said.count(b"comm_open") > 3
    assert b"[key]" in said
    assert {request.headers["authorization"] for request in server.heard} == {f"Bearer {KEY}"}
    assert [piece for piece in forms() if piece in said] == []
