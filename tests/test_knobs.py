"""The knobs of the panel: what they look like, and that every setting of them is a cell that asks the same."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_line import extras, parameters, text

from completions_magic.errors import OptionError, PromptError
from completions_magic.knobs import Original, Setting, faces, shown
from completions_magic.options import Options, parse
from completions_magic.prompt import render
from completions_magic.schema import KNOBS, CompletionRequest, SamplingParameters

NAMES = {"name": "a {{ name }} \\n", "list": ["x", 2]}
typed = text | st.sampled_from(
    ["", "0", "0.7", "-1", "1e3", "true", "[1]", '{"50": 1}', "\\n", "\\n\\nEND\nstop", "nan"]
)
knobs = st.dictionaries(st.sampled_from(list(KNOBS)), typed, max_size=6)
word = st.from_regex(r"[a-z0-9][a-z0-9./:-]{0,12}", fullmatch=True)
prompts = st.lists(
    text | st.sampled_from(["{{ name }}", "{{ list[1] }}", "{{fill}}", "{{ json }", "%%complete", "--stop x"]),
    max_size=5,
).map("".join)

cells = st.builds(
    lambda parameters, extra, raw: Original.of(
        Options(
            parameters={name: KNOBS[name].convert(value) for name, value in parameters.items()},
            extra=extra,
            raw=raw,
            out="story",
            tune=True,
        ),
        "before",
    ),
    parameters,
    extras,
    st.booleans(),
)


def asked(options: Options, body: str) -> str:
    """Return the body of the request that a line and a cell's text come to, as JSON, or why there is none."""
    try:
        prompt, suffix = render(body, NAMES, raw=options.raw)
    except PromptError as error:
        return str(error)
    hole = {} if suffix is None else {"suffix": suffix}
    parameters = SamplingParameters(**{**options.parameters, **hole})
    request = CompletionRequest(prompt=prompt, model=options.model, parameters=parameters, extra=options.extra)
    return json.dumps(request.body())


@settings(max_examples=10_000, suppress_health_check=list(HealthCheck), deadline=None)
@given(cells, knobs, prompts.filter(lambda prompt: prompt.count("{{fill}}") < 2), st.just("") | word)
def test_every_setting_is_written_as_a_cell_that_asks_the_same(original, knobs, prompt, model):
    """10,000 settings, with what the cell began with and what was typed since: written, read back, the same body."""
    texts = {**original.setting.knobs, **knobs}
    for name in original.problems(Setting(texts, prompt)):
        del texts[name]
    setting = Setting(texts, prompt, model)
    line, _, body = original.cell_for(setting).partition("\n")
    back, _ = parse(line.removeprefix("%%complete"), {})
    options = original.options_for(setting)
    assert body == prompt
    assert back == options
    assert (back.out, back.tune) == ("story", False)
    assert asked(back, body) == asked(options, prompt)


def test_a_knob_that_nobody_touched_is_not_set():
    """Only what the line sets is set, and what is taken off is off the line again."""
    original = Original.of(parse("--tune --temperature 0.5 -o x", {})[0], "Hi")
    assert original.setting == Setting({"temperature": "0.5"}, "Hi")
    assert original.cell_for(Setting({}, "Ho")) == "%%complete -o x\nHo"


def test_stop_sequences_are_escapes_a_line_each():
    r"""A stop sequence shows \n as people write it, and up to four of them are read, a line each."""
    original = Original.of(Options(), "Hi")
    assert shown("stop", ["\n\n", "The end"]) == "\\n\\n\nThe end"
    assert original.value("stop", "\\n\\n\nThe end") == ["\n\n", "The end"]
    assert original.value("stop", "a\\\\n") == "a\\n"
    assert "one to four" in original.problems(Setting({"stop": "1\n2\n3\n4\n5"}, ""))["stop"]


@pytest.mark.parametrize(
    ("name", "typed", "words"),
    [
        ("temperature", "3", "temperature takes a number, 0 to 2, not 3"),
        ("temperature", "warm", "temperature takes a number, 0 to 2, not 'warm'"),
        ("max_tokens", "1.5", "max_tokens takes an integer, at least 0, not 1.5"),
        ("seed", str(2**63), "seed takes an integer, any 64-bit integer, not"),
        ("logit_bias", "{", "logit_bias takes a JSON object"),
    ],
)
def test_what_a_knob_does_not_take_is_said_in_the_tables_words(name, typed, words):
    """The panel refuses what the line refuses, in the same words, and names the knob."""
    original = Original.of(Options(), "Hi")
    assert original.problems(Setting({name: typed}, "Hi"))[name].startswith(words)
    with pytest.raises(OptionError, match="takes"):
        original.options_for(Setting({name: typed}, "Hi"))


def test_another_profile_is_another_address():
    """The address and the key on the line belong to the profile that it began with, and to no other."""
    options, _ = parse("--base-url http://127.0.0.1:1/v1 --api-key-env KEY -m m", {})
    original = Original.of(options, "Hi")
    assert original.options_for(original.setting) == options
    other = original.options_for(Setting({}, "Hi", "", "local"))
    assert (other.profile, other.base_url, other.api_key_env, other.model) == ("local", None, None, None)


@pytest.mark.parametrize("prompt", ["two\nlines", "{{ literal }}", "[1, 2]"])
def test_a_prompt_on_the_line_becomes_the_text_of_the_cell(prompt):
    """What --prompt gave is asked to the byte, and can be edited."""
    original = Original.of(Options(prompt=prompt, tune=True), "")
    line, _, body = original.cell_for(original.setting).partition("\n")
    back, _ = parse(line.removeprefix("%%complete"), {})
    assert (body, back.prompt) == (prompt, None)
    assert render(body, {}, raw=back.raw) == (prompt, None)


def test_a_prompt_that_is_no_text_stays_on_the_line():
    """Token ids, lists and the empty text are no template: the line keeps them."""
    for prompt in ([1, 2], ["a", "b"], ""):
        original = Original.of(Options(prompt=prompt, tune=True), "")
        line, _, body = original.cell_for(original.setting).partition("\n")
        assert (parse(line.removeprefix("%%complete"), {})[0].prompt, body) == (prompt, "\n")


def test_every_parameter_of_the_table_has_a_knob():
    """A new parameter appears by itself, with its default, its help, and a slider where it is a number with bounds."""
    looks = {face["name"]: face for face in faces()}
    assert list(looks) == list(KNOBS)
    assert looks["temperature"]["slider"] == [0, 2, 0.05]
    assert looks["max_tokens"]["slider"] == [0, 256, 1]
    assert looks["presence_penalty"]["slider"] == [-2, 2, 0.1]
    assert all(looks[name]["slider"] for name in ("top_p", "n", "best_of", "logprobs", "frequency_penalty"))
    assert looks["seed"] == {**looks["seed"], "kind": "random", "slider": None}
    assert (looks["echo"]["kind"], looks["stop"]["kind"], looks["suffix"]["kind"]) == ("flag", "texts", "text")
    assert looks["max_tokens"]["default"] == "16"
    assert all(KNOBS[name].description in face["help"] for name, face in looks.items())
