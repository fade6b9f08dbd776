"""`completions-magic verify`: notebooks run anew, and what is said of every completion."""

import json
import subprocess
import sys

import nbformat
import pytest
from conftest import answer
from nbformat.v4 import new_code_cell, new_notebook

from completions_magic.errors import ConfigurationError
from completions_magic.verify import run

LOAD = "%load_ext completions_magic"


def whole(text="Hello", **more):
    """Return an unstreamed completion."""
    choices = [{"text": text, "index": 0, "finish_reason": "stop"}]
    return answer({"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices, **more})


class Notebook:
    """A notebook that was run against a scripted server, its cassette beside it."""

    def __init__(self, folder, server):
        self.path = folder / "paper.ipynb"
        self.cassette = folder / "t.jsonl"
        self.server = server
        self.where = f"-m m --base-url {server.base_url} --no-stream --cassette t.jsonl"

    def save(self, *cells):
        """Run `cells` and save them with their outputs."""
        from nbclient import NotebookClient

        notebook = new_notebook(cells=[new_code_cell(source) for source in cells])
        NotebookClient(notebook, resources={"metadata": {"path": str(self.path.parent)}}, allow_errors=True).execute()
        nbformat.write(notebook, self.path)

    def edit(self, change):
        """Change the saved notebook as a person would."""
        notebook = nbformat.read(self.path, as_version=4)
        change(notebook.cells)
        nbformat.write(notebook, self.path)

    def verify(self, capfd, **options):
        """Return what verify says of the notebook, a line a completion, and its exit code."""
        capfd.readouterr()
        before = [path.read_bytes() for path in (self.path, self.cassette) if path.exists()]
        code = run([str(self.path)], **options)
        assert [path.read_bytes() for path in (self.path, self.cassette) if path.exists()] == before
        return capfd.readouterr().out.replace(f"{self.path} ", "").splitlines(), code


@pytest.fixture
def notebook(tmp_path, server):
    """Give a notebook to run and verify."""
    server.scripts = [whole()]
    return Notebook(tmp_path, server)


def test_a_notebook_that_replays_to_the_same_is_identical(notebook, capfd):
    """Without its server every completion is what was saved, quiet and bound ones too, and nothing is written."""
    ask = f"%%complete {notebook.where}"
    notebook.save(
        LOAD,
        f"{ask}\nOne",
        f"{ask} -q -o quiet\nTwo",
        f"a = %complete {notebook.where} Three\nb = %complete {notebook.where} Four\nb",
        "quiet",
        "1 / 0",
    )
    notebook.server.close()
    asked = len(notebook.server.heard)
    assert notebook.verify(capfd) == ([f"[{cell}] identical" for cell in (2, 3, 4, 4)], 0)
    assert len(notebook.server.heard) == asked == 4


def test_every_way_to_differ_is_named(notebook, capfd):
    """Other text, a changed parameter, a changed prompt, nothing recorded and a cell that fails, each of its cell."""
    ask = f"%%complete {notebook.where}"
    notebook.save(LOAD, *(f"{ask} --temperature 0.5\n{prompt}" for prompt in ("One", "Two", "Three", "Four", "Five")))

    def change(cells):
        cells[1].outputs[0].data["text/plain"] = "Hallo\n(m · complete)"
        cells[2].source = cells[2].source.replace("0.5", "0.75")
        cells[3].source = cells[3].source.replace("Three", "Drei")
        cells[4].source = cells[4].source.replace("Four", "{{ four }}")
        cells.append(new_code_cell(f"{ask}\nSix"))

    notebook.edit(change)
    said, code = notebook.verify(capfd)
    assert said[:5] == [
        "[2] other text: [-Hallo-]{+Hello+}",
        "(m · complete)",
        "[3] request changed: temperature is 0.75, was 0.5",
        "[4] request changed: the prompt or the model",
        said[4],
    ]
    assert said[4].startswith("[5] failed: PromptError: ")
    assert said[5] == "[6] identical"
    assert said[6].startswith("[7] not recorded: the cassette t.jsonl does not hold this request (record mode none)")
    assert (len(said), code) == (7, 1)
    assert len(notebook.server.heard) == 5


def test_live_asks_the_endpoint_too_and_says_what_drifted(notebook, capfd):
    """The replay is identical; what the endpoint says now is told beside it, and nothing is written."""
    notebook.server.scripts = [whole(system_fingerprint="fp1")]
    notebook.save(LOAD, f"%%complete {notebook.where}\nOne")
    assert notebook.verify(capfd, live=True) == (["[2] identical", "[2, live] identical"], 0)
    notebook.server.scripts = [whole(system_fingerprint="fp2")]
    drifted = "[2, live] server drifted: system_fingerprint is fp2, was fp1"
    assert notebook.verify(capfd, live=True) == (["[2] identical", drifted], 1)
    notebook.server.scripts = [whole("Hallo", system_fingerprint="fp1")]
    said, code = notebook.verify(capfd, live=True)
    assert (said[1], code) == ("[2, live] other text: [-Hello-]{+Hallo+}", 1)
    notebook.server.scripts = [answer({"error": "no such model"}, status="404 Not Found")]
    said, code = notebook.verify(capfd, live=True)
    assert (said[0], said[1].partition(": ")[0], code) == ("[2] identical", "[2, live] failed", 1)


def test_a_notebook_whose_extension_does_not_load_is_not_identical(notebook, capfd):
    """Cells that fail before they ask anything are told, so that nothing passes unseen."""
    notebook.save(LOAD, f"%%complete {notebook.where}\nOne")

    def change(cells):
        cells[0].source = "%load_ext no_such_extension"

    notebook.edit(change)
    said, code = notebook.verify(capfd)
    assert [line.split(":")[0] for line in said] == ["[1] failed", "[2] failed"]
    assert code == 1


def test_samples_are_told_apart(notebook, capfd):
    """Identical requests of one notebook are each compared with their own recording."""
    notebook.server.scripts = [whole("one"), whole("two")]
    notebook.save(LOAD, *[f"%%complete {notebook.where}\nOnce"] * 2)
    assert notebook.verify(capfd) == (["[2] identical", "[3] identical"], 0)
    notebook.edit(lambda cells: cells.pop(1))
    assert notebook.verify(capfd) == (["[2] other text: [-two-]{+one+}", "(m · complete)"], 1)


BAD = {
    "missing": None,
    "text": "print(1)",
    "object": "{}",
    "list": "[]",
    "broken": '{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":[{"cell_type":"x"}]}',
    "kernel": json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": {"name": "no-such", "display_name": "x", "language": "python"}},
            "cells": [],
        }
    ),
}


def test_what_is_no_notebook_is_said_in_words(tmp_path):
    """A file that cannot be run as a notebook is one line, which names it."""
    for name, content in BAD.items():
        path = tmp_path / f"{name}.ipynb"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigurationError) as raised:
            run([str(path)])
        assert str(raised.value).startswith(f"{path} "), name
        assert "\n" not in str(raised.value), name


def test_the_command_prints_a_line_a_completion(notebook):
    """Over several notebooks one that differs decides the exit code; one without completions is named."""
    notebook.save(LOAD, f"%%complete {notebook.where}\nOne")
    notebook.cassette.unlink()
    empty = notebook.path.with_name("empty.ipynb")
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), empty)
    program = [sys.executable, "-m", "completions_magic", "verify", str(notebook.path), str(empty)]
    done = subprocess.run([*program, "missing.ipynb"], capture_output=True, text=True, check=False)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{notebook.path} [2] not recorded: the cassette t.jsonl does not hold this request")
    assert second == f"{empty}: no completions"
    assert done.stderr.startswith("completions-magic: missing.ipynb cannot be read as a notebook: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.returncode == 1


def test_a_sweep_and_rows_count_as_one(notebook, capfd):
    """The whole output of the cell is compared: untouched it is identical, edited it is not."""
    sweep = f"%%complete {notebook.where} --sweep temperature=0,1 -o s\nHi"
    rows = f"%%complete {notebook.where} -i $rows -o b\nHi {{{{ row }}}}"
    notebook.save(LOAD, sweep, "rows = ['a', 'b']", rows)
    assert notebook.verify(capfd) == (["[2] identical", "[4] identical"], 0)

    def tamper(cells):
        for cell in (cells[1], cells[3]):
            data = cell.outputs[0].data
            data["text/plain"] = data["text/plain"].replace("Hello", "Adieu", 1)

    notebook.edit(tamper)
    said, code = notebook.verify(capfd)
    assert code == 1
    verdicts = [line.split(":")[0] for line in said if line.startswith(("[2]", "[4]"))]
    assert verdicts[0] == "[2] other text"
    assert "[4] other text" in verdicts


def test_no_endpoint_is_asked_where_there_is_no_cassette(notebook, capfd):
    """Only the embedded endpoint may be asked: anything else may cost."""
    notebook.save(LOAD, f"%%complete -m m --base-url {notebook.server.base_url} --no-stream\nHi")
    heard = len(notebook.server.heard)
    said, code = notebook.verify(capfd)
    assert code == 1
    assert "COMPLETIONS_RECORD is none and there is no cassette" in said[0]
    assert len(notebook.server.heard) == heard
