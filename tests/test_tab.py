"""Tab on the `%%complete` line, asked of a shell's own completer."""

import atexit
import sys

import pytest
from conftest import DONE, event, stream
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from completions_magic import load_ipython_extension, unload_ipython_extension


@pytest.fixture
def shell():
    """Return a shell with the extension, and neither history nor colours."""
    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    config = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})
    shell = InteractiveShell.instance(config=config)
    load_ipython_extension(shell)
    yield shell
    unload_ipython_extension(shell)
    InteractiveShell.clear_instance()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"] = main


def tab(shell, text):
    """Return what `text`, with the cursor at its `|`, can become at a press of Tab."""
    cell, cursor = text.replace("|", ""), text.index("|")
    with provisionalcompleter():
        found = list(shell.Completer.completions(cell, cursor))
    return [cell[: one.start] + one.text + cell[one.end :] for one in found]


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("%%complete --max-t|", ["%%complete --max-tokens"]),
        ("%%complete -o x --temp|", ["%%complete -o x --temperature"]),
        ("%%complete --no-r|", ["%%complete --no-raise-error"]),
        ("%%complete --pro|\nOnce upon", ["%%complete --profile\nOnce upon", "%%complete --prompt\nOnce upon"]),
        ("%%complete --ech| -n 2\nHi", ["%%complete --echo -n 2\nHi"]),
        ("%complete --see|", ["%complete --seed"]),
        ("answer = %complete --see|", ["answer = %complete --seed"]),
    ],
)
def test_a_flag_is_completed(shell, typed, becomes):
    """The options that begin as typed are offered, and nothing else; the rest of the cell stays."""
    assert sorted(tab(shell, typed)) == becomes


def test_a_dash_offers_every_option(shell):
    """After a dash all options are offered, those of the API by the API's names."""
    offered = tab(shell, "%%complete -|")
    for flag in ("--model", "--max-tokens", "--logit-bias", "--extract", "--dry-run", "--bg", "--no-stream"):
        assert f"%%complete {flag}" in offered


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("%%complete --as |", ["completion", "frame", "json", "lines", "number", "text", "texts"]),
        ("%%complete --as te|", ["text", "texts"]),
        ("%%complete --profile 3|", ["3xcoder"]),
        ("%%complete --profile l|", ["llama.cpp", "lmstudio", "local"]),
        ("%%complete --model po|", ["pocket"]),
        ("%%complete -m gpt|", ["gpt-3.5-turbo-instruct"]),
        ("%%complete -o sto|", ["story", "stories"]),
        ("%%complete --out sto|", ["story", "stories"]),
        ("%%complete --prompt $sto|", ["$story", "$stories"]),
        ("%%complete --stop $it|", ["$items"]),
        ("%%complete -n 2 --max_tokens $five|", ["$five"]),
        ("%%complete --temperature |", ["1"]),
    ],
)
def test_a_value_is_completed(shell, typed, becomes):
    """Forms, profiles, models, variables and defaults are offered where such a value is wanted, and nothing else."""
    shell.user_ns.update(story="a", stories=["b"], items=[1], five=5, _stored="c")
    begin = typed[:-1] if typed.endswith(" |") else typed.rpartition(" ")[0] + " "
    assert sorted(tab(shell, typed)) == sorted(f"{begin}{word}" for word in becomes)


def test_profiles_beside_the_notebook_are_offered(shell, tmp_path):
    """A profile of completions.toml, and its model, are completed as the built-in ones are."""
    (tmp_path / "completions.toml").write_text('[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "base-7b"')
    assert tab(shell, "%%complete --profile la|") == ["%%complete --profile lab"]
    assert tab(shell, "%%complete -m ba|") == ["%%complete -m base-7b"]


def test_the_model_that_answered_last_is_offered(shell, server):
    """A model that an endpoint named in its last answer is completed; nobody is asked for it."""
    server.scripts = [stream([event("Hi", reason="stop", model="base-7b-v2"), DONE])]
    assert shell.run_cell(f"%%complete -q -m m --base-url {server.base_url}\nHi").success
    assert tab(shell, "%%complete --model bas|") == ["%%complete --model base-7b-v2"]
    assert len(server.heard) == 1


def test_no_model_name_is_offered_that_would_break_the_line(shell, server):
    """What a server calls its model enters a cell only as one printable word."""
    server.scripts = [stream([event("Hi", reason="stop", model="base\n!echo hi"), DONE])]
    assert shell.run_cell(f"%%complete -q -m m --base-url {server.base_url}\nHi").success
    assert [text for text in tab(shell, "%%complete --model bas|") if "echo" in text] == []


@pytest.mark.parametrize(
    "typed",
    [
        "%%complete -o x\n--max|",
        "%%complete\nOnce --temp|",
        "print(--max|",
        "note('%complete --max|",
        "%%bash --max|",
        "complete --max|",
    ],
)
def test_nothing_is_offered_elsewhere(shell, typed):
    """Options are offered on the magic's own line and nowhere else."""
    assert [text for text in tab(shell, typed) if "--max-tokens" in text or "--temperature" in text] == []


def test_other_completions_stay(shell):
    """Loading takes no completion of Python or of IPython's own magics away."""
    shell.user_ns["story"] = "a"
    assert "story.upper" in tab(shell, "story.upp|")
    assert "%%complete" in tab(shell, "%%compl|")
    assert "%completions" in tab(shell, "%completio|")


def test_a_damaged_file_of_profiles_disturbs_nobody(shell, tmp_path, capfd):
    """With a completions.toml that cannot be read Tab still completes all else, other profiles too, and prints nothing."""
    (tmp_path / "completions.toml").write_text("[profiles")
    assert "%%complete --profile vllm" in tab(shell, "%%complete --profile |")
    assert tab(shell, "%%complete --max-t|") == ["%%complete --max-tokens"]
    assert tab(shell, "%%complete --as fr|") == ["%%complete --as frame"]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_unloading_ends_it(shell):
    """After %unload_ext no option is offered any more."""
    unload_ipython_extension(shell)
    assert [text for text in tab(shell, "%%complete --max|") if "--max-tokens" in text] == []
