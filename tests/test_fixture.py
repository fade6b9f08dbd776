"""The pytest fixture `completions_cassette`, in a pytest run of its own."""

import os
import subprocess
import sys

import pytest
from conftest import answer

TESTS = """
import os
import pytest
from completions_magic import Client

def ask(cassette, prompt="P"):
    with Client(base_url=os.environ["WHERE"], model="m", cassette=cassette) as client:
        return client.complete(prompt).text

def test_one(completions_cassette):
    assert ask(completions_cassette).startswith("text ")

class TestClass:
    def test_one(self, completions_cassette):
        assert ask(completions_cassette).startswith("text ")

@pytest.mark.parametrize("word", ["a/b", "../../x", "é c"])
def test_many(completions_cassette, word):
    assert ask(completions_cassette, word) == ask(completions_cassette, word + "!")
"""


@pytest.fixture
def suite(tmp_path, server):
    """Give a function that runs a suite of five tests and returns its output and exit code."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_mine.py").write_text(TESTS)
    choices = [{"text": "text x", "index": 0, "finish_reason": "stop"}]
    server.scripts = [answer({"model": "m", "choices": choices})]

    def run(*arguments, **environment):
        program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "tests"]
        where = {"WHERE": server.base_url, "PYTEST_ADDOPTS": "", **environment}
        done = subprocess.run(
            program, cwd=tmp_path, env={**os.environ, **where}, capture_output=True, text=True, check=False
        )
        return done.stdout, done.returncode

    return run


def cassettes(folder):
    """Return the cassettes of the suite's one file, by name."""
    return {path.name: path.read_bytes() for path in (folder / "tests" / "cassettes" / "test_mine").iterdir()}


def test_a_suite_records_once_and_replays_for_ever(suite, server, tmp_path):
    """Without the option nothing is asked; with it each test records beside its file; then the server may go."""
    out, code = suite()
    assert (
        "CassetteError: the cassette test_one.jsonl does not hold this request (record mode none): it is not there"
        in out
    )
    assert (code, server.heard) == (1, [])
    assert not (tmp_path / "tests" / "cassettes").exists()
    out, code = suite("--completions-record", "new_episodes")
    assert ("5 passed" in out, code, len(server.heard)) == (True, 0, 8)
    recorded = cassettes(tmp_path)
    assert len(recorded) == 5
    assert {"test_one.jsonl", "TestClass.test_one.jsonl"} < set(recorded)
    server.close()
    out, code = suite()
    assert ("5 passed" in out, code) == (True, 0)
    assert cassettes(tmp_path) == recorded


def test_the_environment_chooses_where_the_option_does_not(suite, server):
    """COMPLETIONS_RECORD records; the option comes before it; a mode that there is not is refused in words."""
    assert suite(COMPLETIONS_RECORD="once")[1] == 0
    assert len(server.heard) == 8
    out, code = suite("--completions-record", "nome", COMPLETIONS_RECORD="all")
    assert "a record mode is none, once, new_episodes, all, not 'nome' (did you mean none?)" in out
    assert (code, len(server.heard)) == (1, 8)
