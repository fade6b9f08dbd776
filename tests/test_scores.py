"""Candidates scored: exact sums, honest boundaries, refusals instead of chance, and rows like any others."""

import contextlib
import json
import math
import threading

import numpy as np
import pandas as pd
import polars as pl
import pytest
from conftest import ScriptedServer, answer
from test_batch import Echo, interrupt

from completions_magic import Client
from completions_magic.errors import ConfigurationError, Interrupted, OptionError, PromptError, ScoringError

CITIES = [" Paris", " Rome", " Cairo"]


def letters(prompt, *, generated="!", values=None, **changes):
    """Return an echoed answer with a token a letter; each letter's log-probability is minus its place."""
    tokens = [*prompt, generated]
    logprobs = {
        "tokens": tokens,
        "token_logprobs": values or [None, *(-float(at) for at in range(1, len(tokens)))],
        "top_logprobs": None,
        "text_offset": list(range(len(tokens))),
    }
    choice = {"text": prompt + generated, "index": 0, "finish_reason": "length", "logprobs": logprobs, **changes}
    return {"choices": [choice], "usage": {"prompt_tokens": len(prompt), "completion_tokens": 1, "total_tokens": 5}}


class Letters(Echo):
    """A server that echoes with a token a letter; `reply` makes another answer of a prompt."""

    reply = staticmethod(letters)

    def _talk(self, connection):
        with contextlib.suppress(OSError), connection:
            while (heard := self._read(connection)) is not None:
                with self.counting:
                    self.heard.append(heard)
                    number = len(self.heard)
                if number in self.on_request:
                    self.on_request[number]()
                if "fail" in heard.json["prompt"]:
                    connection.sendall(answer({"error": {"message": "no"}}, status="400 Bad Request"))
                else:
                    connection.sendall(answer(self.reply(heard.json["prompt"])))


@pytest.fixture
def server():
    """Give a server that scores letters."""
    server = Letters()
    yield server
    server.close()


def score(cells, server, options, body):
    """Run a scoring cell; return what it bound."""
    cells.run(f"%%complete -m m --base-url {server.base_url} -o scores {options}\n{body}").raise_error()
    return cells.names["scores"]


def step_by_step(client, context, candidate):
    """Return the log-probability of a candidate from as many requests as it has tokens, each for one of them."""
    echoed = client.complete(context + candidate, max_tokens=0, echo=True, logprobs=1).choices[0].logprobs
    total, text = 0.0, ""
    for token in echoed.tokens:
        if len(text) >= len(context):
            known = client.complete(text, max_tokens=1, logprobs=100, temperature=0).choices[0].logprobs.top_logprobs[0]
            alone = client.complete(text + token, max_tokens=0, echo=True, logprobs=1).choices[0].logprobs
            assert known.get(token, alone.token_logprobs[-1]) == pytest.approx(alone.token_logprobs[-1], abs=1e-9)
            total += alone.token_logprobs[-1]
        text += token
    return total


@pytest.mark.parametrize("candidate", [" Paris.", " Rome.", " a river in the north"])
def test_a_score_is_the_sum_of_what_the_model_says_step_by_step(candidate):
    """On a real model: the score of a candidate is that of its tokens, asked for one at a time."""
    client, context = Client(), "Q: What is the capital of France?\nA:"
    found = client.score(context, [candidate])[0].scores[0]
    assert found.logprob == pytest.approx(step_by_step(client, context, candidate), abs=1e-9)
    assert found.per_byte == pytest.approx(found.logprob / len(candidate))
    assert found.pmi == pytest.approx(found.logprob - step_by_step(client, "Answer:", candidate), abs=1e-9)


def test_the_model_knows_its_capitals():
    """The best of the candidates is the right one, in each row, by every measure."""
    contexts = [f"The capital of {country} is" for country in ("France", "Italy", "Egypt")]
    scores = Client().score(contexts, CITIES)
    for measure in ("logprob", "per_token", "per_byte", "pmi"):
        assert scores.best_by(measure) == CITIES


def test_a_cell_scores_candidates(cells, server):
    """Sums, counts and differences are those of the tokens behind the context; what is generated does not count."""
    cells.names["ends"] = ["xy", "é"]
    scores = score(cells, server, "--score ends --score-context ab", "abc")
    first, second = scores[0].scores
    assert (first.logprob, first.per_token, first.per_byte, first.pmi) == (-7, -3.5, -3.5, -7 + 5)
    assert (second.logprob, second.per_token, second.per_byte, second.pmi) == (-3, -3, -1.5, -1)
    assert scores.best == ["é"]
    body = server.heard[0].json
    assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)
    assert "stream" not in body
    assert sorted(heard.json["prompt"] for heard in server.heard) == ["abcxy", "abcé", "abxy", "abé"]


def test_rows_are_scored_behind_their_columns(cells, server):
    """With -i a row a context; the candidates are one list for all, or a column with each row's own."""
    frame = pd.DataFrame({"x": ["a", "bb"], "ends": [["p", "qq"], ["r"]]}, index=["i", "j"])
    cells.names |= {"source": frame, "labels": ["no", "yes"]}
    scores = score(cells, server, "-i source --score ends --score-context ''", "{{ x }}:")
    assert [[one.candidate for one in row.scores] for row in scores] == [["p", "qq"], ["r"]]
    assert [one.pmi for row in scores for one in row.scores] == [None] * 3
    shared = score(cells, server, "-i source --score labels --as frame", "{{ x }}:")
    assert list(shared.columns) == ["x", "ends", "best", "no", "yes", "error"]
    assert list(shared.index) == ["i", "j"]
    assert shared.no.tolist() == [-2 - 3, -3 - 4]
    long = score(cells, server, "-i source --score labels", "{{ x }}:").to_frame(long=True)
    assert long.tokens.tolist() == [2, 3, 2, 3]
    assert list(long.index) == ["i", "i", "j", "j"]


def test_rows_with_candidates_of_their_own_have_numbered_columns(cells, server):
    """Where rows differ in their candidates, a column is for the first of each, the second, and so on."""
    cells.names["source"] = {"x": ["a", "b"], "ends": [["p", "qq"], ["r"]]}
    frame = score(cells, server, "-i source --score ends --as frame", "{{ x }}:")
    assert list(frame.columns) == ["x", "ends", "best", "score_0", "score_1", "error"]
    assert frame.score_0.tolist() == [-2, -2]
    assert frame.score_1.isna().tolist() == [False, True]


def test_no_column_of_the_frame_is_lost_to_a_candidate(cells, server):
    """A candidate may be called as the columns beside it are: it is told apart from them, and from the others."""
    cells.names |= {"source": {"x": ["a"], "score_x": [1]}, "labels": ["best", "error", "x", "score_best"]}
    scores = score(cells, server, "-i source --score labels", "{{ x }}:")
    frame = scores.to_frame()
    names = ["score_score_x", "score_best", "score_score_best", "score_error"]
    assert list(frame.columns) == ["x", "score_x", "best", names[2], names[3], names[0], names[1], "error"]
    assert frame.best.tolist() == scores.best == ["x"]
    assert frame[names[0]].tolist() == [-2]
    assert frame[names[1]].tolist() == [-65]
    assert frame.error.tolist() == [None]
    assert list(scores.to_frame(long=True).candidate) == cells.names["labels"]


def test_a_polars_frame_gives_a_polars_frame(cells, server):
    """A frame of the same kind comes back."""
    cells.names |= {"source": pl.DataFrame({"x": ["a"]}), "labels": ["no", "yes"]}
    frame = score(cells, server, "-i source --score labels --as frame", "{{ x }}")
    assert isinstance(frame, pl.DataFrame)
    assert frame["best"].to_list() == ["no"]


def test_a_row_that_fails_leaves_the_others(cells, server):
    """A refusal, a missing value and candidates that are none are errors of their rows."""
    rows = [
        {"x": "a", "ends": ["b"]},
        {"x": "fail", "ends": ["b"]},
        {"x": None, "ends": ["b"]},
        {"x": "a", "ends": "b"},
    ]
    cells.names["source"] = rows
    scores = score(cells, server, "-i source --score ends", "{{ x }}-")
    assert scores.best == ["b", None, None, None]
    assert [type(row.error).__name__ for row in scores] == [
        "NoneType",
        "BadRequestError",
        "PromptError",
        "PromptError",
    ]
    assert "3 failed" in scores.plain()
    cells.names["source"] = rows[1:]
    result = cells.run(f"%%complete -m m --base-url {server.base_url} -i source --score ends\n{{{{ x }}}}")
    assert type(result.error_in_exec).__name__ == "BadRequestError"


def chat_shaped(prompt):
    """Return log-probabilities in the shape of chat completions."""
    content = [{"token": sign, "logprob": -float(at)} for at, sign in enumerate(prompt + "!")]
    return letters(prompt, logprobs={"content": content})


def marked(prompt):
    """Return tokens that begin with a mark which the text does not have."""
    tokens = ["<s>", *prompt, "!"]
    logprobs = {"tokens": tokens, "token_logprobs": [None, *(-float(at) for at in range(len(prompt) + 1))]}
    return letters(prompt, logprobs=logprobs)


@pytest.mark.parametrize("reply", [letters, chat_shaped, marked])
def test_every_shape_of_log_probabilities_gives_the_same(server, reply):
    """The API's own, that of chat completions, and one with a mark of the beginning."""
    server.reply = reply
    with server.client() as client:
        assert client.score("abc", ["xy"])[0].scores[0].logprob == -7


REFUSALS = {
    "does not echo the prompt": lambda prompt: letters(prompt, text="!"),
    "gives no log-probabilities": lambda prompt: letters(prompt, logprobs=None),
    "gives log-probabilities only of what it generates": lambda prompt: letters(
        prompt, logprobs={"tokens": ["!"], "token_logprobs": [-1.0], "text_offset": [len(prompt)]}
    ),
    "without their log-probabilities": lambda prompt: letters(prompt, values=[None] * (len(prompt) + 1)),
}


@pytest.mark.parametrize("said", REFUSALS)
def test_an_endpoint_without_prompt_logprobs_is_refused(cells, server, said):
    """Whatever it leaves out, it is one line that names it, nothing more is asked, and nothing is bound."""
    server.reply = REFUSALS[said]
    cells.names |= {"rows": [str(number) for number in range(50)], "labels": ["no", "yes"]}
    line = f"%%complete -m m --base-url {server.base_url} -i rows --score labels --concurrency 1 -o scores"
    result = cells.run(f"{line}\n{{{{ row }}}}: ")
    assert isinstance(result.error_in_exec, ScoringError)
    assert said in str(result.error_in_exec)
    assert "--profile local" in str(result.error_in_exec)
    assert len(server.heard) <= 2
    assert "scores" not in cells.names


def spanning(prompt):
    """Return tokens as a vocabulary has them in which a blank belongs to the word behind it."""
    tokens = ["a", " b"] if prompt == "a b" else ["a", " ", *prompt[2:]]
    values = [None, *(-10.0 * at for at in range(1, len(tokens)))]
    logprobs = {"tokens": [*tokens, "!"], "token_logprobs": [*values, -1.0]}
    return letters(prompt, logprobs=logprobs)


def test_a_token_that_spans_the_boundary_counts_for_all_candidates(server):
    """`a ` and `b` are read as `a`, ` b`: the others are counted from the same place, so that sums can be compared."""
    server.reply = spanning
    with server.client() as client:
        together, apart = client.score("a ", ["b", "c"], unconditional="")[0].scores
    assert (together.logprob, together.likelihood.tokens, together.likelihood.bytes) == (-10, 1, 2)
    assert (apart.logprob, apart.likelihood.tokens, apart.likelihood.bytes) == (-10 - 20, 2, 2)


def test_the_same_cell_asks_only_for_what_is_missing(cells, server):
    """With a journal nothing is asked twice, and the unconditional context once a candidate."""
    cells.names |= {"rows": ["a", "b"], "labels": ["no", "yes"]}
    first = score(cells, server, "-i rows --score labels --journal x.jsonl", "{{ row }}")
    assert len(server.heard) == 6
    cells.names["rows"] = ["a", "b", "c"]
    again = score(cells, server, "-i rows --score labels --journal x.jsonl", "{{ row }}")
    assert len(server.heard) == 8
    assert [row.scores for row in again][:2] == [row.scores for row in first]


def test_an_interrupt_keeps_what_came(cells, server):
    """Rows whose candidates have all come are scored, the others say that they were not done."""
    cells.names |= {"rows": [str(number) for number in range(500)], "labels": ["no"]}
    over = threading.Event()
    server.on_request[30] = lambda: (interrupt(), over.wait(20))
    line = f"%%complete -m m --base-url {server.base_url} -i rows --score labels --concurrency 1 -o scores"
    result = cells.run(f"{line}\n{{{{ row }}}}")
    over.set()
    assert isinstance(result.error_in_exec, Interrupted)
    # Of the 29 that were answered the first was the candidate without a row.
    assert cells.names["scores"].best == ["no"] * 28 + [None] * 472
    assert len(cells.names["scores"].missing) == 472
    assert "not done: interrupted" in cells.names["scores"].plain()


def test_a_budget_ends_it_with_what_is_done(cells, server):
    """Nothing fails, and what has no score says so."""
    cells.names |= {"rows": list("abc"), "labels": ["no"]}
    scores = score(cells, server, "-i rows --score labels --budget requests=2 --concurrency 1", "{{ row }}")
    assert scores.best == ["no", None, None]
    assert "2 not done: the budget is spent" in scores.plain()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--score nothing", "there is no 'nothing'"),
        ("--score labels --echo", "--echo is for what is generated"),
        ("--score labels -n 2", "--n is for what is generated"),
        ("--score labels --as json", "binds Scores"),
        ("--score labels --sweep seed=1,2", "do not go together"),
        ("--score labels --pack 2", "--pack does not go with --score"),
        ("--score labels --score-by luck", "--score-by takes logprob"),
        ("--score labels --score-by pmi --score-context ''", "pmi needs an unconditional context"),
        ("--score word", "a list of texts, not str"),
        ("--score empty", "not an empty list"),
        ("--score numbers", "not int 1"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_sent(cells, server, options, said):
    """The cell fails with one line."""
    cells.names |= {"labels": ["no", "yes"], "word": "no", "empty": [], "numbers": [1]}
    result = cells.run(f"%%complete -m m --base-url {server.base_url} {options}\nP")
    assert isinstance(result.error_in_exec, (OptionError, PromptError, ConfigurationError))
    assert said in str(result.error_in_exec)
    assert server.heard == []


@pytest.mark.parametrize(
    "kind", [list, tuple, iter, np.array, pd.Series, pl.Series, lambda texts: dict.fromkeys(texts).keys()]
)
def test_candidates_of_a_program_are_any_iterable_of_texts(server, kind):
    """Arrays, series and iterators too; or of such ones, one for each context."""
    with server.client() as client:
        shared = client.score(["a", "bb"], kind(["no", "x"]))
        own = client.score(["a", "bb"], pd.Series([kind(["no", "x"]), kind(["yes"])], index=["i", "j"]))
    assert [[one.candidate for one in row.scores] for row in shared] == [["no", "x"], ["no", "x"]]
    assert [[one.candidate for one in row.scores] for row in own] == [["no", "x"], ["yes"]]
    assert shared.best == ["x", "x"]


@pytest.mark.parametrize(
    ("contexts", "candidates", "said"),
    [
        (["a", "b", "c"], [["x"], ["y"]], "2 lists for 3 contexts"),
        (["a"], [["x"], ["y"]], "2 lists for 1 context"),
        (["a"], {"x": 1}, "give a column of them"),
        ({"a": ["b"]}, ["x"], "give a column of them"),
        (["a"], None, "a list of texts, not NoneType"),
        (pd.DataFrame({"a": ["b"]}), ["x"], "give a column of them"),
        (["a"], pd.DataFrame({"a": ["b"]}), "give a column of them"),
    ],
)
def test_candidates_that_fit_no_contexts_are_told(server, contexts, candidates, said):
    """In one line, before anything is sent: none is left out without a word."""
    with server.client() as client, pytest.raises(ConfigurationError, match=said):
        client.score(contexts, candidates)
    assert server.heard == []


def test_the_record_is_inert(cells, server):
    """Candidates and contexts from anywhere are text in the record, with their blanks."""
    hostile = "<img src=x onerror=alert(1)>"
    cells.names |= {"rows": [hostile], "labels": [hostile, " a"]}
    bundle = score(cells, server, "-i rows --score labels", "{{ row }}")._repr_mimebundle_()
    assert "<img" not in bundle["text/html"]
    assert "' a'" in bundle["text/plain"]
    assert bundle["text/plain"].splitlines()[-1] == "(1 row · 2 candidates scored · best by logprob · 20 tokens)"


def test_numbers_are_numbers():
    """A frame of scores can be computed with, as it is."""
    frame = Client().score(["The capital of France is"], CITIES).to_frame()
    assert math.isclose(frame[" Paris"].max(), frame[" Paris"][0])
    assert json.dumps(frame.best.tolist()) == '[" Paris"]'


def test_a_server_that_refuses_the_parameters_says_so_in_the_row(cells):
    """A 400 about echo and logprobs is the rows' error, in the server's words."""
    server = ScriptedServer([answer({"error": {"message": "echo is not supported"}}, status="400 Bad Request")])
    cells.names["labels"] = ["no"]
    result = cells.run(f"%%complete -m m --base-url {server.base_url} --score labels\nP")
    server.close()
    assert "echo is not supported" in str(result.error_in_exec)
