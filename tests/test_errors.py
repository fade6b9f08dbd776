"""One tree of failures: kinds, fields, and one line for a person."""

import copy
import pickle
import re

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from completions_magic import errors
from completions_magic.errors import (
    AnswerError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BudgetError,
    CassetteError,
    CompletionsError,
    ConfigurationError,
    ConversionError,
    DecodeError,
    Interrupted,
    NotFoundError,
    OptionError,
    PermissionDeniedError,
    ProfileError,
    PromptError,
    RateLimitError,
    RedirectError,
    ScoringError,
    ServerError,
    StreamError,
    TooLargeError,
    WorkerError,
    nearest,
    shorten,
    status_error,
)
from completions_magic.schema import Choice, Completion

TREE = [
    (ConfigurationError, CompletionsError, "config"),
    (OptionError, ConfigurationError, "config"),
    (PromptError, ConfigurationError, "config"),
    (ProfileError, ConfigurationError, "config"),
    (ConversionError, ConfigurationError, "config"),
    (ScoringError, ConfigurationError, "config"),
    (CassetteError, ConfigurationError, "config"),
    (BudgetError, ConfigurationError, "config"),
    (APIConnectionError, CompletionsError, "connect"),
    (APITimeoutError, APIConnectionError, "timeout"),
    (RedirectError, APIConnectionError, "redirect"),
    (APIStatusError, CompletionsError, "status"),
    (BadRequestError, APIStatusError, "bad_request"),
    (AuthenticationError, APIStatusError, "auth"),
    (PermissionDeniedError, APIStatusError, "permission"),
    (NotFoundError, APIStatusError, "not_found"),
    (RateLimitError, APIStatusError, "rate_limit"),
    (ServerError, APIStatusError, "server"),
    (StreamError, CompletionsError, "protocol"),
    (DecodeError, StreamError, "decode"),
    (TooLargeError, StreamError, "too_large"),
    (AnswerError, StreamError, "api"),
    (WorkerError, CompletionsError, "worker"),
]
KINDS = {
    *("config", "connect", "tls", "timeout", "redirect", "protocol", "decode", "too_large", "api", "bad_request"),
    *("auth", "permission", "not_found", "rate_limit", "server", "status"),
    *("worker", "cassette"),
}


def descendants(kind):
    """Return every class below `kind`."""
    return {below for child in kind.__subclasses__() for below in (child, *descendants(child))}


@pytest.mark.parametrize(("error", "parent", "kind"), TREE)
def test_every_failure_has_its_place_and_its_kind(error, parent, kind):
    """The tree and the kinds are what the documentation draws."""
    assert error.__bases__ == (parent,)
    assert error("no").kind == kind
    assert kind in KINDS


def test_there_is_no_other_failure():
    """No class of the tree is left out of its drawing, and all are exceptions that `except Exception` catches."""
    assert {error for error in descendants(CompletionsError) if error.__module__ == errors.__name__} == {
        row[0] for row in TREE
    }
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    assert drawn == [row[0].__name__ for row in TREE]
    assert issubclass(CompletionsError, Exception)


def test_the_documented_kinds_are_all_there_are():
    """The vocabulary in the documentation is the tree's, and `tls` and `cassette`, which some errors of a class are."""
    listed = re.search(r"one of: ([\w, \n]+)\.", CompletionsError.__doc__)[1]
    assert set(re.findall(r"\w+", listed)) == KINDS
    assert {row[2] for row in TREE} | {"tls", "cassette"} == KINDS


@pytest.mark.parametrize("error", [row[0] for row in TREE])
def test_what_is_not_known_of_a_failure_is_none(error):
    """Status, request id, endpoint and the partial completion are there on every failure."""
    failure = error("no")
    assert (failure.status, failure.request_id, failure.endpoint, failure.partial) == (None, None, None, None)
    assert str(failure) == failure.message == "no"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, PermissionDeniedError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (405, APIStatusError),
        (408, ServerError),
        (409, ServerError),
        (413, BadRequestError),
        (418, APIStatusError),
        (422, BadRequestError),
        (429, RateLimitError),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
        (529, ServerError),
        (599, ServerError),
    ],
)
def test_a_status_has_its_failure(status, error):
    """Each HTTP status comes to the class that the documentation says."""
    assert status_error(status) is error


def full(error=ServerError):
    """Return a failure with every field set."""
    partial = Completion(choices=[Choice("Hel", 0, "error")])
    return error("no", kind="server", endpoint="vllm", status=503, request_id="r-1", partial=partial)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", [row[0] for row in TREE])
def test_a_failure_survives_copying_and_pickling(copied, error):
    """A failure from another process says everything that it said there."""
    failure = full(error)
    other = copied(failure)
    assert type(other) is error
    assert str(other) == "no"
    assert vars(other) == vars(failure)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_interrupt_survives_copying_and_pickling(copied):
    """An interrupt keeps what had arrived."""
    partial = Completion(choices=[Choice("Hel", 0, "interrupted")])
    assert copied(Interrupted(partial)).partial == partial


@pytest.mark.parametrize("message", ["x" * 100_000, "漢" * 100_000, "\n" * 100_000])
def test_a_message_is_short(message):
    """No message is longer than two thousand characters, whatever a server sends."""
    assert len(str(CompletionsError(message))) <= 2000
    assert len(CompletionsError(message)._render_traceback_()[0]) < 2100


def test_a_short_message_is_left_alone():
    """What fits is not cut."""
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"


@pytest.fixture
def shell():
    """Return an IPython shell that writes no history."""
    return InteractiveShell(config=Config(HistoryManager={"enabled": False}))


@pytest.mark.parametrize("mode", ["Plain", "Context", "Verbose", "Minimal"])
def test_a_failure_shows_as_one_line(shell, capsys, mode):
    """A notebook shows the class and the message, and no frame, in every mode of tracebacks."""
    shell.push({"error": full()})
    shell.run_line_magic("xmode", mode)
    capsys.readouterr()
    result = shell.run_cell("def deep():\n    raise error\n\ndeep()")
    assert result.error_in_exec.status == 503
    assert capsys.readouterr().out == "ServerError: no\n"


@pytest.mark.parametrize("message", ["two\nlines", "two\r\nlines", "two\u2028lines", "two\x0blines", "two\x85lines"])
@pytest.mark.parametrize("error", [CompletionsError, ServerError, OptionError])
def test_a_message_with_line_ends_shows_as_one_line_too(error, message):
    """Whatever is in the message, a person sees one line."""
    rendered = "\n".join(error(message)._render_traceback_())
    assert rendered.startswith(f"{error.__name__}: two")
    assert rendered.endswith("lines")
    assert len(rendered.splitlines()) == 1


@pytest.mark.parametrize("message", ["red \x1b[31m", "over\rwritten", "\u202eback", "bell \x07", "half \ud83c"])
def test_a_message_cannot_drive_a_terminal(message):
    """Escape sequences, overwriting, reversed text and halves of characters are shown as signs."""
    rendered = CompletionsError(message)._render_traceback_()[0]
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", rendered)


def test_an_interrupt_is_a_keyboard_interrupt():
    """It stops "Run all", and `except Exception` does not swallow it."""
    assert issubclass(Interrupted, KeyboardInterrupt)
    assert not issubclass(Interrupted, Exception)
    assert Interrupted().kind == "interrupted"


@pytest.mark.parametrize(
    ("partial", "line"),
    [
        (None, "Interrupted"),
        (Completion(), "Interrupted"),
        (Completion(choices=[Choice("Hel")]), "Interrupted: what had arrived is kept"),
    ],
)
def test_an_interrupt_shows_as_one_line(partial, line):
    """The line says whether anything was kept."""
    assert Interrupted(partial)._render_traceback_() == [line]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("temprature", " (did you mean temperature?)"),
        ("max_token", " (did you mean max_tokens?)"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_a_misspelt_word_gets_the_nearest(word, hint):
    """The nearest known word is named; nothing is where nothing is near."""
    assert nearest(word, ["temperature", "max_tokens", "stop"]) == hint
