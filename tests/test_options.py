"""The grammar of the line."""

import json
import re
import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from completions_magic.errors import OptionError
from completions_magic.options import OPTIONS, help_markdown, help_rows, help_text, parse
from completions_magic.schema import KNOBS

relaxed = settings(deadline=None)


def read(line, names=None):
    """Return the options of a `%%complete` line."""
    return parse(line, names or {})[0]


def parameters(line, names=None):
    """Return the sampling parameters that a line sets."""
    return read(line, names).parameters


def refused(line, names=None, **more):
    """Return the message with which a line is refused."""
    with pytest.raises(OptionError) as caught:
        parse(line, names or {}, **more)
    return caught.value.message


def test_an_empty_line_sets_nothing():
    """Unset means not sent."""
    options = read("  ")
    assert (options.parameters, options.extra) == ({}, {})
    assert (options.model, options.prompt, options.out, options.form, options.timeout) == (None,) * 5
    assert options.raise_error


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--max-tokens 5", {"max_tokens": 5}),
        ("--max-tokens=5", {"max_tokens": 5}),
        ("--max_tokens 5", {"max_tokens": 5}),
        ("  --max_tokens=5\t", {"max_tokens": 5}),
        ("--temperature 0.7", {"temperature": 0.7}),
        ("--temperature 0", {"temperature": 0}),
        ("--temperature .7", {"temperature": 0.7}),
        ("--top-p 0.5", {"top_p": 0.5}),
        ("-n 3", {"n": 3}),
        ("--n 3", {"n": 3}),
        ("--n=3", {"n": 3}),
        ("--stop END", {"stop": "END"}),
        ("--stop END --stop FIN", {"stop": ["END", "FIN"]}),
        ("--suffix ''", {"suffix": ""}),
        ("--suffix=", {"suffix": ""}),
        ("--suffix=a=b", {"suffix": "a=b"}),
        ("--echo", {"echo": True}),
        ("--no-echo", {"echo": False}),
        ("--no_echo", {"echo": False}),
        ("--stream", {"stream": True}),
        ("--no-stream", {"stream": False}),
        ("--seed -1", {"seed": -1}),
        ("--logprobs 0", {"logprobs": 0}),
        ("--best-of 2", {"best_of": 2}),
        ("--presence-penalty -1.5", {"presence_penalty": -1.5}),
        ("--frequency-penalty=-2", {"frequency_penalty": -2}),
        ("""--logit-bias '{"50": -100}'""", {"logit_bias": {"50": -100}}),
        ("--user ada", {"user": "ada"}),
        ("""--stream-options '{"include_usage": true}'""", {"stream_options": {"include_usage": True}}),
        ("-n 2 --echo --max-tokens 0 --logprobs 5", {"n": 2, "echo": True, "max_tokens": 0, "logprobs": 5}),
    ],
)
def test_each_parameter_is_read_under_the_name_of_the_api(line, expected):
    """Hyphen and underscore, blank and equals sign are one; values have the parameter's type."""
    assert parameters(line) == expected


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("-m tiny", "model", "tiny"),
        ("--model 'a b'", "model", "a b"),
        ("-o answer", "out", "answer"),
        ("--out=answer", "out", "answer"),
        ("--as json", "form", "json"),
        ("--extract '(?P<x>\\d+)'", "extract", "(?P<x>\\d+)"),
        ("-q", "quiet", True),
        ("--quiet", "quiet", True),
        ("--raw", "raw", True),
        ("--profile vllm", "profile", "vllm"),
        ("--base-url http://127.0.0.1:1/v1", "base_url", "http://127.0.0.1:1/v1"),
        ("--api_key_env MY_KEY", "api_key_env", "MY_KEY"),
        ("--timeout 1.5", "timeout", 1.5),
        ("--retries 0", "retries", 0),
        ("--bg", "background", True),
        ("--dry-run", "dry_run", True),
        ("--no-raise-error", "raise_error", False),
        ("-h", "help", True),
        ("--help", "help", True),
        ("--prompt 'Say hello'", "prompt", "Say hello"),
        ("""--prompt '["a", "b"]'""", "prompt", ["a", "b"]),
        ("--prompt '[1, 2]'", "prompt", [1, 2]),
        ("--prompt ''", "prompt", ""),
        ("--prompt 12", "prompt", "12"),
        ("""--prompt '{"a": 1}'""", "prompt", '{"a": 1}'),
    ],
)
def test_each_other_option_is_read(line, name, value):
    """Short and long flags set what the table says."""
    assert getattr(read(line), name) == value


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("'a b'", "a b"),
        ('"a b"', "a b"),
        ("a' 'b", "a b"),
        ("a\\ b", "a b"),
        ("'it'\"'\"'s'", "it's"),
        ('"say \\"hi\\""', 'say "hi"'),
        ("it\\'s", "it's"),
        ("''", ""),
        ("'\"'", '"'),
        ("'  '", "  "),
        ("'-n'", "-n"),
        ("'--echo'", "--echo"),
        ("-5", "-5"),
        ("[a,b]", "[a,b]"),
        ("'[1'", "[1"),
        ("é🎈", "é🎈"),
        ("{x}", "{x}"),
        ("{{", "{{"),
    ],
)
def test_quotes_are_those_of_a_shell(written, value):
    """Single and double quotes and backslashes make one word of many."""
    assert read(f"--prompt {written} -n 2").prompt == value
    assert read(f"--prompt={written} -n 2").prompt == value


@pytest.mark.parametrize("line", ["--suffix 'a", '--suffix "a', "--suffix 'a\"", "--suffix a'b c", '-o "x\\"'])
def test_an_open_quote_is_an_error_in_words(line):
    """The message shows where the quote opens."""
    assert "is not closed" in refused(line)


@pytest.mark.parametrize("flag", ["--stop", "--suffix"])
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("\\n", "\n"),
        ('"\\n"', "\n"),
        ("'\\n'", "\n"),
        ("'\\n\\n'", "\n\n"),
        ("'a\\tb'", "a\tb"),
        ("'\\\\n'", "\\n"),
        ("'\\\\\\n'", "\\\n"),
        ("'\\u0041'", "A"),
        ("'\\u2028'", "\u2028"),
        ("'\\ud83c\\udf88'", "🎈"),
        ("'\\d \\x41 \\u12'", "\\d \\x41 \\u12"),
        ("'C:\\\\new'", "C:\\new"),
    ],
)
def test_escapes_are_read_in_stop_and_suffix(flag, written, value):
    r"""`\n`, `\t`, `\\` and `\uXXXX` are what they look like, quoted or not; other backslashes are themselves."""
    assert parameters(f"{flag} {written}") == {flag[2:]: value}


@pytest.mark.parametrize("flag", ["--prompt", "--model", "--user", "--extract"])
def test_escapes_are_read_nowhere_else(flag):
    """A backslash in any other value is itself."""
    options = read(f"{flag} 'a\\nb\\u0041'")
    assert (options.parameters.get("user") or getattr(options, flag[2:], None)) == "a\\nb\\u0041"


def quoted(text):
    """Return `text` as `shlex.quote` writes it, with quotes also where it would need none: it may be a flag."""
    written = shlex.quote(text)
    return f"'{text}'" if written == text else written


words = st.text() | st.text("\\'\"$ \n-[]{}=n", max_size=12)


@relaxed
@given(words)
@example("[" * 100_000)
@example("$x")
@example("-n")
@example("\ud83c")
def test_any_text_survives_shell_quoting_through_prompt(text):
    """What a shell's quotes hold is what `--prompt` reads; a JSON list in them is a list of prompts."""
    prompt = read(f"-n 2 --prompt {quoted(text)} --echo", {"x": "no"}).prompt
    assert prompt == text or (isinstance(prompt, list) and prompt == json.loads(text))


@relaxed
@given(words)
@example("$x")
def test_any_text_survives_shell_quoting_through_suffix(text):
    """With its backslashes doubled, for the escapes, any text is a suffix."""
    written = quoted(text.replace("\\", "\\\\"))
    assert parameters(f"-n 2 --suffix {written} --echo", {"x": "no"}) == {"n": 2, "suffix": text, "echo": True}
    assert parameters(f"--suffix={written}", {"x": "no"}) == {"suffix": text}


@relaxed
@given(st.lists(words, min_size=1, max_size=4))
def test_any_texts_survive_shell_quoting_through_stop(texts):
    """So are up to four of them stop sequences."""
    line = " ".join("--stop " + quoted(text.replace("\\", "\\\\")) for text in texts)
    assert parameters(line) == {"stop": texts if len(texts) > 1 else texts[0]}


# -- variables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value", "expected"),
    [
        ("--max-tokens $x", 5, {"max_tokens": 5}),
        ("--max-tokens=$x", 5, {"max_tokens": 5}),
        ("--max-tokens $x", "5", {"max_tokens": 5}),
        ("--temperature $x", 0.5, {"temperature": 0.5}),
        ("--stop $x", "a\\nb", {"stop": "a\\nb"}),
        ("--stop $x", ["a", "b"], {"stop": ["a", "b"]}),
        ("--stop $x", ("a", "b"), {"stop": ["a", "b"]}),
        ("--stop $x --stop c", ["a", "b"], {"stop": ["a", "b", "c"]}),
        ("--stop c --stop $x", ["a", "b"], {"stop": ["c", "a", "b"]}),
        ("--suffix $x", " $x \\n", {"suffix": " $x \\n"}),
        ("--logit-bias $x", {50: -1.5}, {"logit_bias": {"50": -1.5}}),
    ],
)
def test_a_value_that_is_a_name_after_a_dollar_is_the_object_of_that_name(line, value, expected):
    """`$x` is the variable `x`, taken as it is: no escape in it is read."""
    assert parameters(line, {"x": value}) == expected


@pytest.mark.parametrize("value", [["a", "b"], [1, 2], ("a",), "[1, 2]", "a\\nb", 5, None])
def test_the_prompt_may_be_any_object(value):
    """`--prompt $x` hands the object on: a text is a text, even where it looks like JSON."""
    assert read("--prompt $x", {"x": value}).prompt is value


def test_a_field_of_the_body_may_be_any_object():
    """In `-p KEY=$x` the value is the object too."""
    assert read("-p tags=$x", {"x": ["a", "b"]}).extra == {"tags": ["a", "b"]}


@pytest.mark.parametrize("written", ["'$x'", '"$x"', "$x.y", "$x[0]", "a$x", "$", "$1", "$x$x", "${x}"])
def test_only_a_bare_name_after_a_dollar_is_a_variable(written):
    """Quoted, or with anything beside it, a dollar is a dollar."""
    assert parameters(f"--suffix {written}", {"x": "value"}) == {"suffix": shlex.split(written)[0]}


def test_a_quoted_field_is_text():
    """In quotes a dollar is a dollar, in `-p` too."""
    assert read("-p 'tags=$x'", {"x": ["a", "b"]}).extra == {"tags": "$x"}


def test_an_unknown_variable_is_an_error_with_near_names():
    """The message names the option and the nearest variable."""
    assert refused("--stop $sotp", {"stops": 1}) == "--stop: there is no variable 'sotp' (did you mean stops?)"


@pytest.mark.parametrize(
    "line", ["--model $x", "-o $x", "--as $x", "--profile $x", "--base-url $x", "--extract $x", "--api-key-env $x"]
)
@pytest.mark.parametrize("value", [5, None, ["a"], {"a": 1}], ids=repr)
def test_an_option_that_takes_text_refuses_another_object(line, value):
    """The message names the option."""
    assert refused(line, {"x": value}).startswith(("--model", "--out", "--as", "--profile", "--base", "--ex", "--api"))


@pytest.mark.parametrize("flag", [f"--{name.replace('_', '-')}" for name in KNOBS if KNOBS[name].type is not bool])
@pytest.mark.parametrize("value", [int, None, 2.5j, b"x", float("nan"), [[]]], ids=repr)
def test_a_parameter_refuses_an_object_of_another_type(flag, value):
    """Whatever a variable holds, the message names the option and says what it takes."""
    assert re.match(f"{flag} takes .*, not ", refused(f"{flag} $x", {"x": value}))


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--temperature 2.5", "--temperature takes a number, 0 to 2, not 2.5"),
        ("--temperature -1", "--temperature takes a number, 0 to 2, not -1"),
        ("--temperature NaN", "--temperature takes a number, 0 to 2, not nan"),
        ("--temperature hot", "--temperature takes a number, 0 to 2, not 'hot'"),
        ("--top_p 7", "--top-p takes a number, 0 to 1, not 7"),
        ("-n 0", "--n takes an integer, 1 to 128, not 0"),
        ("-n 129", "--n takes an integer, 1 to 128, not 129"),
        ("-n 1.5", "--n takes an integer, 1 to 128, not 1.5"),
        ("-n true", "--n takes an integer, 1 to 128, not True"),
        ("--max-tokens -1", "--max-tokens takes an integer, at least 0, not -1"),
        ("--max-tokens=", "--max-tokens takes an integer, at least 0, not ''"),
        ("--best-of 21", "--best-of takes an integer, 0 to 20, not 21"),
        ("--logit-bias 5", "--logit-bias takes a JSON object of token ids to numbers from -100 to 100, not 5"),
        ("--stop a --stop b --stop c --stop d --stop e", "--stop takes text, or a list of one to four texts, not "),
        ("-p temperature=3", "-p temperature takes a number, 0 to 2, not 3"),
        ("--timeout 0", "--timeout takes seconds above 0, not '0'"),
        ("--timeout never", "--timeout takes seconds above 0, not 'never'"),
        ("--timeout nan", "--timeout takes seconds above 0, not 'nan'"),
        ("--retries -1", "--retries takes a whole number, not '-1'"),
        ("--retries 1.5", "--retries takes a whole number, not '1.5'"),
        ("--as josn", "--as takes completion, text, texts, lines, json, number, frame, not 'josn' (did you mean json"),
    ],
)
def test_a_value_out_of_range_is_refused_in_words_that_name_the_flag(line, words):
    """The range is checked before anything is sent."""
    assert refused(line).startswith(words)


def test_a_number_of_retries_is_whole_in_a_variable_too():
    """Nothing is rounded in silence."""
    assert refused("--retries $x", {"x": 2.7}).startswith("--retries takes a whole number")


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("--temprature 1", "--temperature"),
        ("--max-token 5", "--max-tokens"),
        ("--max_token=5", "--max-tokens"),
        ("--temp 1", None),
        ("--mod x", "--model"),
        ("--no-strem", "--no-stream"),
        ("--dryrun", "--dry-run"),
        ("--xyzzy", None),
        ("-x", None),
        ("--", None),
        ("---n 3", "--n"),
        ("-N 3", None),
        ("-temperature 1", "--temperature"),
    ],
)
def test_an_unknown_option_is_an_error_with_the_nearest(line, flag):
    """Nothing is abbreviated and nothing is guessed."""
    message = refused(line)
    assert message.startswith("unknown option -")
    assert flag is None or re.search(rf"did you mean .*{flag}\b", message)


@pytest.mark.parametrize("line", ["hello", "temperature 0.5", "-n 3 hello", "--echo true", "'a prompt'", "n=3"])
def test_a_word_that_is_no_option_is_an_error(line):
    """The prompt stands below the line, never on it."""
    assert "is no option" in refused(line)


def test_an_option_without_its_dashes_is_recognised():
    """The message proposes the option that was meant."""
    assert "did you mean --max-tokens?" in refused("max_tokens 5")


ONCE = [option for option in OPTIONS if not option.repeats and option.name != "help"]


@pytest.mark.parametrize("option", ONCE, ids=lambda option: option.flags[-1])
def test_an_option_given_twice_is_an_error(option):
    """No value is overwritten in silence, under another spelling neither."""
    good = {
        "logit_bias": "{}",
        "stream_options": "{}",
        "form": "text",
        "record": "none",
        "budget": "tokens=1",
        "score_by": "pmi",
    }.get(option.name, "1")
    value = "" if option.value is None else f" '{good}'"
    assert "given twice" in refused(f"{option.flags[0]}{value} {option.flags[-1]}{value}")


@pytest.mark.parametrize(
    "line",
    [
        "--echo --no-echo",
        "--n 2 -n 2",
        "--max-tokens 2 --max_tokens 2",
        "--temperature 1 -p temperature=0",
        "-p temperature=0 --temperature 1",
        "-p temperature=0 -p temperature=1",
        "-p top_k=1 -p top_k=2",
        "-p p=1 -p p=2",
        "--quiet -q",
    ],
)
def test_two_spellings_of_one_option_are_twice_the_same(line):
    """Negations, short flags and `-p` count as the option that they set."""
    assert "given twice" in refused(line)


@pytest.mark.parametrize(
    "line", ["--max-tokens", "-o", "-n", "--stop", "-p", "--model --echo", "--model -q", "--model --dry-run"]
)
def test_an_option_without_its_value_is_an_error(line):
    """A flag is not taken for the value of the one before it."""
    assert "wants a value" in refused(line)


@pytest.mark.parametrize(
    "line", ["--model --dry_run", "--suffix --max_tokens=5", "--user --max-tokens=5", "-o --no_echo"]
)
def test_a_flag_in_another_spelling_is_no_value_either(line):
    """Underscores and equals signs do not make a value of a flag."""
    assert "wants a value" in refused(line)


@pytest.mark.parametrize("line", ["--echo=true", "--quiet=1", "--no-stream=", "--raw=x"])
def test_a_switch_takes_no_value(line):
    """A switch is on, or absent."""
    assert "takes no value" in refused(line)


@pytest.mark.parametrize("flag", ["--api-key", "--api_key", "--key", "--token"])
@pytest.mark.parametrize("join", [" ", "="])
def test_there_is_no_option_for_a_key(flag, join):
    """The message says where a key belongs, and does not repeat it."""
    message = refused(f"{flag}{join}sk-0123456789abcdef")
    assert "--api-key-env" in message
    assert "0123456789" not in message


@relaxed
@given(st.text("-nopqm=$x'\"\\ \t{}[]1.", max_size=30), st.booleans())
def test_no_line_raises_anything_but_an_option_error(line, follows):
    """Whatever is typed, it is read or refused in a message that is short."""
    try:
        parse(line, {"x": 1}, prompt_follows=follows)
    except OptionError as error:
        assert 0 < len(str(error)) < 300  # noqa: PT017  # either outcome is right


# -- any other field ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "extra"),
    [
        ("top_k=40", {"top_k": 40}),
        ("min_p=0.1", {"min_p": 0.1}),
        ("flag=true", {"flag": True}),
        ("none=null", {"none": None}),
        ("word=abc", {"word": "abc"}),
        ("empty=", {"empty": ""}),
        ("url=a=b", {"url": "a=b"}),
        ("""'guided={"regex": "a+"}'""", {"guided": {"regex": "a+"}}),
        ("""'text="40"'""", {"text": "40"}),
        ("broken='{x'", {"broken": "{x"}),
        ("'words=two words'", {"words": "two words"}),
        ("top_k=1 -p min_p=0", {"top_k": 1, "min_p": 0}),
        ("Hyphen-ed=1", {"Hyphen-ed": 1}),
        (f"deep={'[' * 5000}", {"deep": "[" * 5000}),
        ("nan=NaN", {"nan": "NaN"}),
    ],
)
def test_any_other_field_of_the_body_can_be_set(written, extra):
    """`-p KEY=VALUE`: the value is JSON where it is JSON, else text; the key stays as it is written."""
    assert read(f"-p {written}").extra == extra


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [("-p timeout=5 --timeout 3", "timeout", 3), ("-p out=x -o y", "out", "y"), ("-q -p quiet=true", "quiet", True)],
)
def test_a_field_is_not_the_option_of_its_name(line, name, value):
    """A body may have fields that are called as options of ours: both are set."""
    options = read(line)
    assert getattr(options, name) == value
    assert list(options.extra) == [name]


def test_a_known_parameter_may_be_set_as_a_field():
    """`-p` with a parameter of the table sets that parameter, in its range and as JSON."""
    line = """-p temperature=0.5 -p echo=true -p user=ada -p 'stop=["a", "b"]' -p 'suffix="x"'"""
    assert parameters(line) == {"temperature": 0.5, "echo": True, "user": "ada", "stop": ["a", "b"], "suffix": "x"}


@pytest.mark.parametrize("line", ["-p top_k", "-p =1", "-p ''", "-p model=x", "-p prompt=x"])
def test_what_is_no_field_is_refused(line):
    """A field has a name; model and prompt have options of their own."""
    assert refused(line).startswith("-p ")


# -- one line ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "prompt"),
    [
        ("Say hello", "Say hello"),
        ("-n 2 Say hello", "Say hello"),
        ("-n 2 --echo Don't stop", "Don't stop"),
        ('-n 2 "Hello," she said', '"Hello," she said'),
        ("--stop 'a b' it's {x} $x \\n 'open", "it's {x} $x \\n 'open"),
        ("Say -n 2 --echo", "Say -n 2 --echo"),
        ("n = 2", "n = 2"),
        ("- a list", "- a list"),
        ("-- --echo is a flag", "--echo is a flag"),
        ("-n 2 -- -5 degrees", "-5 degrees"),
        ("-n 2 --  two blanks", " two blanks"),
        ("-n 2 --", ""),
        ("Trailing blanks  ", "Trailing blanks  "),
        ("\u2014 a dash", "\u2014 a dash"),
        ("", ""),
        ("-n 2", ""),
    ],
)
def test_on_one_line_the_prompt_begins_at_the_first_word_that_is_no_option(line, prompt):
    """From there on nothing is read: no quote, no escape and no option. `--` ends the options by itself."""
    options, rest = parse(line, {"x": "no"}, prompt_follows=True)
    assert rest == prompt
    assert options.parameters.get("n") in (None, 2)


@pytest.mark.parametrize("line", ["--temprature 1 Hello", "-5 degrees", "-x Hello", "--no-such Hello"])
def test_on_one_line_an_unknown_option_is_an_error_too(line):
    """A word with dashes is not taken for a prompt by itself."""
    assert refused(line, prompt_follows=True).startswith("unknown option -")


@relaxed
@given(st.text().filter(lambda text: text == text.lstrip() and not text.startswith("-")))
def test_on_one_line_any_prompt_is_verbatim(text):
    """Whatever follows the options is the prompt, character by character."""
    assert parse(f"-n 2 --stop 'a b' {text}", {}, prompt_follows=True)[1] == text


@relaxed
@given(st.text())
def test_on_one_line_any_prompt_may_follow_two_dashes(text):
    """After `--` and one blank even blanks and dashes at its start are the prompt's own."""
    assert parse(f"-n 2 -- {text}", {}, prompt_follows=True)[1] == text


# -- the help ----------------------------------------------------------------------------------------------------------


def test_the_help_is_made_of_the_table():
    """Every option and every parameter, with its range, is in the help: once."""
    rows = help_rows()
    written = " ".join(flags for _, flags, _ in rows).replace("/", " ").split()
    for option in OPTIONS:
        assert all(written.count(flag) == 1 for flag in option.flags)
    for name, knob in KNOBS.items():
        row = next(row for row in rows if f"--{name.replace('_', '-')}" in re.split("[/ ]", row[1]))
        assert knob.description in row[2]
        assert knob.range in row[2] or "64-bit" in knob.range


@pytest.mark.parametrize("render", [help_text, help_markdown])
def test_the_help_shows_every_row(render):
    """The table is whole as plain text and as Markdown."""
    shown = render()
    for _, flags, text in help_rows():
        assert flags in shown
        assert text in shown


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('--logit-bias {"50": -100}', "logit_bias", {"50": -100}),
        ('-p stop=["a b","c"]', "stop", ["a b", "c"]),
        ('-p stop=["a"] --echo', "stop", ["a"]),
        ("--stop [a", "stop", "[a"),
        ('--stop {"a', "stop", None),
    ],
)
def test_json_needs_no_quotes_of_its_own(line, name, value):
    """A list or an object that begins a word is read to its end; what is no JSON is a word as ever."""
    if value is None:
        with pytest.raises(OptionError, match="not closed"):
            parse(line, {})
        return
    assert parse(line, {})[0].parameters[name] == value


def test_other_json_goes_through_as_it_is():
    """Prompts and other fields too."""
    options, _ = parse('--prompt ["a", "b"] -p meta={"a": [1, "x y"]}', {})
    assert (options.prompt, options.extra) == (["a", "b"], {"meta": {"a": [1, "x y"]}})
