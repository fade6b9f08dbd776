"""The canonical line: it is read back as what was written, whatever the values are."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from completions_magic.grid import Axis
from completions_magic.line import escape, quote, write_line
from completions_magic.options import Options, next_word, parse, unescape
from completions_magic.schema import KNOBS, CompletionRequest, SamplingParameters

HOSTILE = list("\\\"' ntru0$-=\n\t\u2028{}[]")
text = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(HOSTILE)), max_size=12)
field = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)
biases = st.dictionaries(st.integers(0, 5000).map(str), st.floats(-100, 100) | st.integers(-100, 100), max_size=3)
parameters = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(0, 10**6),
        "temperature": st.floats(0, 2) | st.integers(0, 2),
        "top_p": st.floats(0, 1),
        "n": st.integers(1, 128),
        "stop": text | st.lists(text, min_size=1, max_size=4),
        "suffix": text,
        "echo": st.booleans(),
        "stream": st.booleans(),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "logprobs": st.integers(0, 20),
        "best_of": st.integers(0, 20),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "logit_bias": biases,
        "user": text,
        "stream_options": st.dictionaries(text, field, max_size=2),
    },
)
extras = st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: key not in (*KNOBS, "model", "prompt")),
    field,
    max_size=2,
)


def body(options: Options) -> str:
    """Return the body that some options ask with, as JSON."""
    parameters = SamplingParameters(**options.parameters)
    return json.dumps(CompletionRequest(prompt="x", parameters=parameters, extra=options.extra).body())


@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
@given(parameters, extras)
def test_a_line_is_read_back_as_the_request_that_it_was_written_from(parameters, extras):
    """Whatever the parameters and other fields are, one line spells them, and asks the same to the byte."""
    options = Options(parameters={name: KNOBS[name].convert(value) for name, value in parameters.items()}, extra=extras)
    line = write_line(options)
    assert len(f"%%complete {line}".splitlines()) == 1
    back, _ = parse(line, {})
    assert back == options
    assert body(back) == body(options)


@settings(max_examples=500, deadline=None)
@given(text)
def test_a_quoted_text_is_one_word_and_an_escaped_one_is_itself_again(text):
    """What is quoted is read as one word, what is escaped is read as it was."""
    if text:
        word = next_word(quote(escape(text)), 0)
        assert (unescape(word.text), word.end) == (text, len(quote(escape(text))))
    assert unescape(escape(text)) == text


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (Options(), ""),
        (Options(parameters={"temperature": 0.7, "max_tokens": 20}, out="story"), "--max-tokens 20 --temperature 0.7 -o story"),
        (Options(parameters={"temperature": 1, "top_p": 1.0, "n": 3, "seed": 2**62}), f"--temperature 1 --top-p 1.0 -n 3 --seed {2**62}"),
        (Options(parameters={"stop": "\n\n"}), r"--stop \n\n"),
        (Options(parameters={"stop": ["\n", "The end"]}), r'--stop \n --stop "The end"'),
        (Options(parameters={"suffix": 'say "it"'}), """--suffix 'say "it"'"""),
        (Options(parameters={"echo": True, "stream": False}), "--echo --no-stream"),
        (Options(parameters={"logit_bias": {"50": -100}}), """--logit-bias '{"50": -100}'"""),
        (Options(extra={"min_p": 0.1, "grammar": "yes", "version": "5"}), """-p min_p=0.1 -p grammar=yes -p 'version="5"'"""),
        (Options(model="a model", raw=True, quiet=True, raise_error=False), '-m "a model" --raw -q --no-raise-error'),
        (Options(budget={"tokens": 500}, max_rps=2.5), "--max-rps 2.5 --budget tokens=500"),
        (
            Options(sweep=[Axis("temperature", (0.0, 0.5)), Axis("model", ("base-7b", "other"))]),
            "--sweep temperature=0.0,0.5 --sweep model=base-7b,other",
        ),
        (Options(prompt=[1, 2], form="text", timeout=3.0), '--prompt "[1, 2]" --as text --timeout 3'),
    ],
)  # fmt: skip
def test_the_line_is_the_one_that_a_person_would_write(options, line):
    """Short flags, the table's order, quotes only where they are needed, and nothing that holds anyway."""
    assert write_line(options) == line
    assert parse(line, {})[0] == options


def test_a_variable_that_was_named_stands_there_itself():
    """A line that named a variable is written with its value, so that it means the same later."""
    options, _ = parse("--stop $ends --temperature $warm", {"ends": ["\n", "END"], "warm": 0.5})
    assert write_line(options) == r"--temperature 0.5 --stop \n --stop END"
