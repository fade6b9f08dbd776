"""From the body of a cell to a prompt."""

import contextlib
import re
from types import SimpleNamespace

import pytest
from conftest import HELLO, Cells, ScriptedServer, new_shell
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from IPython.core.error import UsageError

from completions_magic.errors import PromptError
from completions_magic.prompt import render

relaxed = settings(deadline=None)

NAMES = {
    "name": "Ada",
    "number": 3,
    "text": "two\nlines",
    "items": ["zero", "one", {"deep": "down"}],
    "table": {"a b": "key", "0": "text zero", 0: "number zero", "_id": 7, "it's": "quoted"},
    "thing": SimpleNamespace(colour="red", parts=[SimpleNamespace(size="small")], _private="no"),
    "größe": "groß",
    "_hidden": "no",
    "braces": "{{ name }} and {{fill}}",
    "empty": "",
    "nothing": None,
}


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ("Hello {{ name }}!", "Hello Ada!"),
        ("{{name}}{{ name }}{{\tname  }}", "AdaAdaAda"),
        ("{{ number }}", "3"),
        ("{{ text }}", "two\nlines"),
        ("{{ items[0] }} {{ items[-2] }}", "zero one"),
        ('{{ items[2]["deep"] }}', "down"),
        ("{{ items[2]['deep'] }}", "down"),
        ('{{ table["a b"] }}', "key"),
        ('{{ table["it\'s"] }}', "quoted"),
        ('{{ table["0"] }}, {{ table[0] }}', "text zero, number zero"),
        ("{{ thing.colour }} {{ thing.parts[0].size }}", "red small"),
        ("{{ größe }}", "groß"),
        ("{{ empty }}", ""),
        ("{{ nothing }}", "None"),
        ("{{{ name }}}", "{Ada}"),
        ("a{{ name }}b\n  {{ name }}\n", "aAdab\n  Ada\n"),
    ],
)
def test_a_path_in_double_braces_is_replaced(body, prompt):
    """Names, attributes, whole-number indices and quoted keys are looked up, and all around them stays."""
    assert render(body, NAMES) == (prompt, None)


LITERAL = {
    "single braces": "{name} {{}} {} { name } {{name} {name}}",
    "JSON": '{"a": {"b": [{"c": 1}]}, "name": {}}',
    "LaTeX": r"\frac{1}{2} $\sqrt{{2}}$ \textbf{{\em x}} {{1}}",
    "C": "int a[2][2] = {{1, 2}, {3, 4}}; struct s x = {{0}}; if (a) {{ return; }}",
    "shell": "echo ${name} $name $(name) `name` ${#name} !ls %env",
    "Python": "f'{name!r} {{}}' + '%s' % name; d = {{'a': 1}}; {{ name for name in x }}",
    "Jinja statement": "{% for name in names %}{# name #}{% endfor %}",
    "Jinja filter": "{{ name|upper }} {{ name | default('x') }}",
    "Jinja sum": "{{ 7*7 }} {{ 1 }} {{ name + name }} {{ -number }}",
    "call": "{{ name() }} {{ name.upper() }} {{ thing.__class__() }}",
    "format specification": "{{ number:>10 }} {{ name!r }} {{ name:s }}",
    "slice": "{{ name[1:] }} {{ name[x] }} {{ name[] }} {{ name[1.5] }} {{ name[0][x] }}",
    "blanks in a path": "{{ name . upper }} {{ items [0] }} {{ na me }}",
    "line end in braces": "{{\nname\n}} {{ name\n}}",
    "open": "{{ name } {{ name {{ {{ items[0 }}",
    "backslashes": r"\n \t \\ \{{ 1 }} \u0041",
    "quotes": "'\"`{{ \"name\" }} {{ 'x' }}",
    "blanks": "  \t leading and trailing \n\n\n  ",
    "controls": "\x00\x1b[31m\r\n\x0b\x0c\u2028\u0085",
    "fill in other braces": "{fill} <fill> {{ fill() }} [fill]",
    "doctest": ">>> name\n>>>>>>> name\nIn [1]: name",
}


@pytest.mark.parametrize("body", LITERAL.values(), ids=LITERAL)
def test_everything_else_is_literal(body):
    """JSON, LaTeX, shell, Jinja, C and Python go out byte for byte, whether names of theirs exist or not."""
    assert render(body, NAMES) == (body, None)
    assert render(body, {}) == (body, None)


@relaxed
@given(
    st.text()
    | st.lists(st.sampled_from(["{", "}", "{{", "}}", " ", "1", "name", ".", "[0]", "\n", "|", "("])).map("".join)
)
@example("{{" * 50)
@example("{{ " + "a." * 50)
def test_a_body_without_a_path_in_double_braces_is_literal(body):
    """Any text that holds no `{{ path }}` is the prompt, character by character."""
    if not re.search(r"\{\{[ \t]*[^\W\d][^{}]*\}\}", body):
        assert render(body, NAMES) == (body, None)


@relaxed
@given(st.text())
def test_a_raw_body_is_literal_whatever_it_holds(body):
    """`--raw` replaces nothing and knows no hole."""
    body = f"{body}{{{{ name }}}}{{{{fill}}}}{{{{ missing }}}}"
    assert render(body, NAMES, raw=True) == (body, None)


@relaxed
@given(st.text(), st.text(), st.text())
@example("{{ name }}", "{{ name }}", "{{fill}}")
@example("{{", "name", "}}")
def test_values_are_never_scanned_again(before, value, after):
    """What a variable holds arrives as it is: braces in it replace nothing and mark no hole."""
    names = {"first": before, "value": value, "last": after}
    assert render("{{ first }}{{ value }}{{ last }}", names) == (before + value + after, None)


def test_values_do_not_make_a_path_with_the_text_around_them():
    """Braces from a value and braces from the body do not meet."""
    assert render("{{ open }} name }}", {"open": "{{", "name": "no"}) == ("{{ name }}", None)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{{ nmae }}", "no variable 'nmae' (did you mean name"),
        ("{{ missing }}", "no variable 'missing'"),
        ("{{ thing.color }}", "no .color (did you mean colour?)"),
        ("{{ thing.parts[3] }}", "no [3]"),
        ("{{ items[-9] }}", "no [-9]"),
        ('{{ table["ab"] }}', 'no ["ab"] (did you mean a b?)'),
        ('{{ items["zero"] }}', 'no ["zero"]'),
        ("{{ number[0] }}", "no [0]"),
        ("{{ nothing.colour }}", "no .colour"),
    ],
)
def test_what_does_not_exist_is_an_error_with_near_names(body, words):
    """The message shows the path, what is missing and the nearest names."""
    with pytest.raises(PromptError, match=re.escape(words)) as caught:
        render(body, NAMES)
    assert caught.value.message.startswith(body)


@pytest.mark.parametrize(
    "body",
    [
        "{{ _hidden }}",
        "{{ __builtins__ }}",
        "{{ thing._private }}",
        "{{ name.__class__ }}",
        "{{ name.__class__.__mro__[1] }}",
        "{{ items[2].__init__ }}",
        "{{ thing.parts[0].__dict__ }}",
        "{{ _ }}",
    ],
)
def test_names_that_begin_with_an_underscore_are_refused(body):
    """No private name and no special attribute is looked up, whether it exists or not."""
    with pytest.raises(PromptError, match="underscore"):
        render(body, NAMES)
    with pytest.raises(PromptError):
        render(body, {**NAMES, "__builtins__": {}})


def test_near_names_hold_no_private_ones():
    """A message proposes nothing that would be refused."""
    with pytest.raises(PromptError) as caught:
        render("{{ thing.private }}", NAMES)
    assert "_private" not in str(caught.value)


def test_an_attribute_is_not_a_key_and_a_key_not_an_attribute():
    """Each step looks in one place."""
    for body in ("{{ items[2].deep }}", '{{ thing["colour"] }}'):
        with pytest.raises(PromptError):
            render(body, NAMES)


@pytest.mark.parametrize("body", ["{{ name%s }}", "{{ missing%s }}", "{{ name._x%s }}"])
def test_a_long_path_is_not_repeated_at_length(body):
    """The message stays short."""
    with pytest.raises(PromptError) as caught:
        render(body % (".upper" * 500), NAMES)
    assert len(str(caught.value)) < 300


def test_a_value_is_looked_up_where_it_stands_and_nowhere_else():
    """A body without braces asks for no name at all."""

    class Names(dict):
        def __contains__(self, name):
            raise AssertionError(name)

        __getitem__ = get = __contains__

    assert render("no braces", Names()) == ("no braces", None)


# -- the hole ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "prompt", "suffix"),
    [
        ("before {{fill}} after", "before ", " after"),
        ("{{ fill }}after", "", "after"),
        ("before{{fill}}", "before", ""),
        ("{{fill}}", "", ""),
        ("{{ name }}{{fill}}{{ number }}\n", "Ada", "3\n"),
        ("{{ braces }}{{fill}}{{ braces }}", "{{ name }} and {{fill}}", "{{ name }} and {{fill}}"),
    ],
)
def test_text_after_the_hole_is_the_suffix(body, prompt, suffix):
    """`{{fill}}` parts the body in prompt and suffix; names are replaced in both, and blanks stay."""
    assert render(body, NAMES) == (prompt, suffix)


def test_two_holes_are_refused():
    """A prompt has one suffix."""
    with pytest.raises(PromptError, match=re.escape("{{fill}} marks one hole, and there are 3")):
        render("{{fill}} {{ fill }} {{fill}}", NAMES)


def test_a_variable_called_fill_does_not_hide_the_hole():
    """`{{fill}}` is the hole, whatever the notebook holds."""
    assert render("a{{fill}}b", {"fill": "value"}) == ("a", "b")


@relaxed
@given(st.text(), st.text())
def test_no_character_is_lost_at_the_hole(before, after):
    """Prompt and suffix are exactly what stands before and after it."""
    names = {"before": before, "after": after}
    assert render("{{ before }}{{fill}}{{ after }}", names) == (before, after)


# -- from a cell to the server -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking():
    """Give the cells of one shell for all examples; what they ask is heard by a server."""
    with contextlib.closing(ScriptedServer([HELLO])) as server, new_shell() as shell:
        yield Cells(shell, server)


def sent(cells, body, options=""):
    """Return what the server heard of a cell with this body: nothing where it was refused, by IPython where it is empty."""
    cells.heard.clear()
    # Out of the history, whose outputs IPython thins out with a warning when there are a thousand.
    ran = cells.shell.run_cell(f"%%complete {cells.where} -q {options}\n{body}")
    assert ran.success == bool(cells.heard) == (ran.error_in_exec is None)
    assert ran.success or isinstance(ran.error_in_exec, PromptError if body else UsageError)
    return [heard.json for heard in cells.heard]


ODD = [
    *("{", "}", "{{", "}}", "{{fill", "{{ 1 }}", "{% if %}", "{}", "[0]", ".", "name", "$name", "${name}", "%s"),
    *(">>> ", "... ", "In [1]: ", "   ...: ", ">>>>>>> ", "%%", "%time ", "%%complete", "!ls", "?", "??", "; ", "#"),
    *("\\", "\\n", "\\u0041", '"', "'", '"""', "'''", "<b>", "&amp;", "é", "e\u0301", "\U0001f600", "\ufeff"),
    *(
        "\n",
        "\n\n",
        "\r\n",
        "\r",
        "\t",
        " ",
        "    ",
        "\x00",
        "\x0b",
        "\x0c",
        "\x1b[0m",
        "\x1c",
        "\x85",
        "\u2028",
        "\xa0",
    ),
]
cell_texts = st.text() | st.lists(st.sampled_from(ODD) | st.text(max_size=3), max_size=12).map("".join)
LIKE_A_PATH = re.compile(r"\{\{[ \t]*[^\W\d][^{}]*\}\}")


@relaxed
@given(body=cell_texts)
@example(body=">>> a\n... b\nIn [1]: c")
@example(body="{{ name }} {{fill}} {{fill}} {{ _ }}\n")
def test_a_raw_cell_arrives_at_the_server_to_the_byte(asking, body):
    """Whatever is typed is the prompt that the server hears; blanks alone are refused, and nothing is sent."""
    assert [heard["prompt"] for heard in sent(asking, body, "--raw")] == ([body] if body.strip() else [])


PATHS = {
    "{{ first }}": lambda first, _: first,
    "{{second}}": lambda _, second: second,
    '{{\tboth["a key"]  }}': lambda first, _: first,
    "{{ both.second }}": lambda _, second: second,
    "{{ pair[0] }}": lambda first, _: first,
    "{{ pair[-1] }}": lambda _, second: second,
    "{{ number }}": lambda *_: "7",
}
HOLES = ["{{fill}}", "{{ fill }}"]


class Both(dict):
    """Has a key and an attribute."""

    def __init__(self, first, second):
        super().__init__({"a key": first})
        self.second = second


@relaxed
@given(parts=st.lists(cell_texts | st.sampled_from([*PATHS, *HOLES]), max_size=6), first=cell_texts, second=cell_texts)
@example(parts=["{{", "{{ first }}", "}}"], first="{{ second }}", second="no")
@example(parts=["{{ first }}", "{{second}}"], first="{{ sec", second="ond }}")
@example(parts=["{{ first }}", "{{fill}}", "{{second}}"], first="{{fill}}", second="\n\n")
@example(parts=["{{ first }}"], first="", second="")
def test_a_cell_arrives_with_its_variables_replaced_to_the_byte(asking, parts, first, second):
    """Literal text and values stand at the server as they stood here; what follows the hole is the suffix."""
    body = "".join(parts)
    assume(len(LIKE_A_PATH.findall(body)) == sum(part in PATHS or part in HOLES for part in parts))
    holes = [place for place, part in enumerate(parts) if part in HOLES]
    asking.names.update(first=first, second=second, both=Both(first, second), pair=(first, second), number=7)
    values = [PATHS[part](first, second) if part in PATHS else part for part in parts]
    end = holes[0] if holes else len(parts)
    wanted = {"prompt": "".join(values[:end])} | ({"suffix": "".join(values[end + 1 :])} if holes else {})
    heard = [{name: said[name] for name in ("prompt", "suffix") if name in said} for said in sent(asking, body)]
    assert heard == ([wanted] if body.strip() and len(holes) < 2 else [])
