"""From a completion to the value that a variable takes."""

import contextlib
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from completions_magic.binding import FORMS, check_name, check_pattern, convert, extract
from completions_magic.errors import ConversionError, OptionError
from completions_magic.schema import Choice, Completion

relaxed = settings(deadline=None)


def said(*texts):
    """Return a completion with these texts."""
    return Completion(choices=[Choice(text, at, "stop") for at, text in enumerate(texts)])


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["answer", "_", "_x", "x2", "Größe", "match", "type_"])
def test_a_plain_name_may_be_bound(name):
    """An identifier that hides nothing is taken as it is."""
    assert check_name(name, {}) == name


@pytest.mark.parametrize(
    "name",
    ["", "2x", "a b", "a.b", "a[0]", "a-b", "x=1", "a\n", "$x", "for", "None", "True", "async", "__", "__x__", "__x"],
)
def test_what_is_no_name_is_refused(name):
    """No keyword, no path, no expression and no name of Python's own can be bound."""
    with pytest.raises(OptionError, match=r"^-o "):
        check_name(name, {})


@pytest.mark.parametrize("name", ["print", "list", "input", "ValueError", "id"])
def test_hiding_a_builtin_takes_consent(name):
    """A builtin's name is refused until the person has assigned it."""
    with pytest.raises(OptionError, match=f"hide Python's {name}"):
        check_name(name, {})
    assert check_name(name, {name: 1}) == name


def test_hiding_a_module_takes_consent():
    """A module's name is refused until the person has deleted or assigned it."""
    with pytest.raises(OptionError, match="hide the module np"):
        check_name("np", {"np": pytest})
    assert check_name("np", {"np": 1}) == "np"


@pytest.fixture
def shell():
    """Return an IPython shell with the magics loaded, which writes no history."""
    shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "completions_magic")
    return shell


@pytest.mark.parametrize("name", ["open", "get_ipython"])
def test_what_ipython_puts_among_the_variables_is_not_consent(shell, name):
    """A fresh shell holds builtins that the person has not assigned: hiding them takes consent as well."""
    assert name in shell.user_ns
    result = shell.run_cell(f"%%complete -o {name} --dry-run\nSay hello")
    assert isinstance(result.error_in_exec, OptionError)


def test_a_person_who_assigned_a_builtin_has_consented(shell):
    """What the notebook itself calls `open` may be replaced."""
    shell.run_cell("open = 1")
    assert shell.run_cell("%%complete -o open --dry-run\nSay hello").success


def test_the_option_that_gave_the_name_is_named():
    """The message says which option to mend."""
    with pytest.raises(OptionError, match=r"^--extract takes a variable's name, not 'class'"):
        check_name("class", {}, "--extract")


def test_a_long_name_is_not_repeated_at_length():
    """The message stays short."""
    with pytest.raises(OptionError) as caught:
        check_name("a " * 5000, {})
    assert len(str(caught.value)) < 120


# -- forms -------------------------------------------------------------------------------------------------------------


def test_the_forms_are_the_documented_ones():
    """`--as` takes these words and no other."""
    assert list(FORMS) == ["completion", "text", "texts", "lines", "json", "number", "frame"]


def test_completion_text_and_texts_are_the_answer_as_it_is():
    """Nothing is stripped and nothing is copied."""
    completion = said(" Hello\n", "Hi")
    assert convert(completion, "completion") is completion
    assert convert(completion, "text") == " Hello\n"
    assert convert(completion, "texts") == [" Hello\n", "Hi"]


def test_lines_are_those_that_say_something():
    """Blank lines are left out; blanks within a line stay."""
    assert convert(said("\n1. one \r\n\n  2. two\n \n"), "lines") == ["1. one ", "  2. two"]
    assert convert(said("\n \n"), "lines") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "é"]}', {"a": [1, 2.5, None, True, "é"]}),
        (" \n[1, 2]\n", [1, 2]),
        ("[]", []),
        ("12", 12),
        ('"text"', "text"),
        ("null", None),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('Here you are: {"a": 1}. Anything else?', {"a": 1}),
        ('Use [square] brackets: {"a": [1]}', {"a": [1]}),
        ("2 cities: [1, 2]", [1, 2]),
        ('Not [1, 2 but {"a": 1}', {"a": 1}),
        ('true to form: {"a": 1}', {"a": 1}),
        ('{"a": "}"}', {"a": "}"}),
    ],
)
def test_json_is_read_with_or_without_words_around_it(text, value):
    """A sentence or a fence around the value does not matter."""
    assert convert(said(text), "json") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no value here",
        '{"a": 1',
        '[{"a": 1}, {"b": 2',
        '{"first": {"a": 1}, "second": {"b"',
        '[{"a": 1}, {"b": tru',
        '[{"a": 1}, -',
        '[{"a": 1}, "cut off',
        '[{"a": 1}, "\\u12',
        "{'a': 1}",
        pytest.param("[" * 5000, id="deep lists"),
        pytest.param("See " + "[" * 5000, id="deep lists after a word"),
        pytest.param('{"a":' * 5000, id="deep objects"),
    ],
)
def test_what_is_no_json_is_an_error(text):
    """A text without a value, or with one that was cut off, gives no part of it."""
    with pytest.raises(ConversionError, match=r"^--as json: ") as caught:
        convert(said(text), "json")
    assert caught.value.partial.text == text
    assert len(str(caught.value)) < 300


@relaxed
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ).filter(lambda value: isinstance(value, (list, dict)))
)
def test_any_json_survives_a_fence(value):
    """Whatever value a model writes between backquotes is the value bound."""
    assert convert(said(f"Sure!\n```json\n{json.dumps(value)}\n```\n"), "json") == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        (" 42\n", 42),
        ("The answer is 42.", 42),
        ("-7 degrees", -7),
        ("+3", 3),
        ("3.14", 3.14),
        (".5", 0.5),
        ("6.02e23", 6.02e23),
        ("1e-3", 0.001),
        ("1,234,567", 1234567),
        ("1,234.5", 1234.5),
        ("$1,000, or less", 1000),
        ("12, 13 and 14", 12),
    ],
)
def test_the_first_number_of_a_text_is_read(text, number):
    """Whole numbers are int, others float; commas between thousands are understood."""
    value = convert(said(text), "number")
    assert value == number
    assert type(value) is type(number)


@pytest.mark.parametrize("text", ["", "none", "forty-two", ".", "-", ","])
def test_what_is_no_number_is_an_error(text):
    """A text without a number is an error that holds the completion."""
    with pytest.raises(ConversionError, match=r"^--as number: there is no number") as caught:
        convert(said(text), "number")
    assert caught.value.partial == said(text)


@relaxed
@given(st.text(), st.sampled_from(["text", "texts", "lines", "json", "number"]))
@example("1" * 5000, "number")
@example("1" * 5000, "json")
@example("1e999", "number")
@example("\u0663", "number")
def test_no_text_raises_anything_but_a_conversion_error(text, form):
    """Whatever a model says, a form gives a value or says what is missing."""
    with contextlib.suppress(ConversionError):
        convert(said(text), form)


def test_a_frame_has_one_row_a_choice():
    """`--as frame` is the completion's own frame."""
    assert convert(said("a", "b"), "frame")["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize("form", ["json", "number"])
def test_an_answer_without_choices_has_no_value(form):
    """Nothing is converted to nothing, and no IndexError comes of it."""
    with pytest.raises(ConversionError):
        convert(Completion(), form)


@pytest.mark.parametrize("text", ["__import__('os').system('x')", "{{7*7}}", "!ls", "lambda: 1", "[x for x in ()]"])
def test_an_answer_is_never_evaluated(text):
    """Code in an answer stays text."""
    assert convert(said(text), "text") == text
    with pytest.raises(ConversionError):
        convert(said(text), "json")


# -- extract -----------------------------------------------------------------------------------------------------------


def test_each_named_group_of_the_first_match_is_a_variable():
    """Groups without a name are not bound."""
    pattern = check_pattern(r"(?P<name>\w+) (is) (?P<age>\d+)", {})
    assert extract(said("Ada is 36, Alan is 41"), pattern) == {"name": "Ada", "age": "36"}


def test_a_group_that_took_no_part_is_none():
    """An optional group that matched nothing is None."""
    assert extract(said("a"), check_pattern("(?P<x>a)|(?P<y>b)", {})) == {"x": "a", "y": None}


def test_a_pattern_that_matches_nothing_is_an_error():
    """The message shows pattern and text, and the completion is kept."""
    with pytest.raises(ConversionError, match=r"^--extract .* matches nothing in 'Hello'") as caught:
        extract(said("Hello"), check_pattern(r"(?P<x>\d)", {}))
    assert caught.value.partial.text == "Hello"


@pytest.mark.parametrize(
    "pattern", ["(", "(?P<x>", "(?P<1>a)", "(?P<x>a)(?P<x>b)", "[", "(?P<x>a{99999999999999999999})", "(?P<x>*)"]
)
def test_a_pattern_that_is_none_is_refused(pattern):
    """A regular expression that does not compile is an error in words, before anything is sent."""
    with pytest.raises(OptionError, match=r"^--extract: "):
        check_pattern(pattern, {})


@pytest.mark.parametrize("pattern", ["", r"\d+", r"(\d+)", "(?:a)"])
def test_a_pattern_without_a_named_group_is_refused(pattern):
    """There would be nothing to bind."""
    with pytest.raises(OptionError, match="named group"):
        check_pattern(pattern, {})


@pytest.mark.parametrize("name", ["print", "__x", "class", "np"])
def test_a_group_obeys_the_rules_of_names(name):
    """`--extract` hides no builtin and no module either."""
    with pytest.raises(OptionError, match=r"^--extract "):
        check_pattern(f"(?P<fine>a)(?P<{name}>b)", {"np": pytest})
