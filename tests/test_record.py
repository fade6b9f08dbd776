"""The record of a completion: inert text, the same everywhere."""

import copy
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from completions_magic.inert import inert, one_line
from completions_magic.record import footer, html, plain, provenance, record
from completions_magic.schema import Choice, Completion, CompletionRequest, Logprobs, Usage

relaxed = settings(deadline=None)

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": "<img src=x onerror=alert(1)>",
    "end of pre": "</pre></td></table><script>alert(1)</script><pre>",
    "attribute": "\" onmouseover='alert(1)' x=\"",
    "comment": "<!-- --><![CDATA[ <?php ?>",
    "entities": "&lt;script&gt; &#60; &amp;amp;",
    "Markdown": "![x](https://example.org/x.png) <https://example.org> `a` **b**",
    "Markdown table": "a | b\n--|--\n\n1 | 2\n\n\n# head",
    "mathematics": "$5 and $6, \\(x\\), $$y$$",
    "blank lines first": "\n\n\nHello",
    "indented": "    code\n\tand a tab  \n  ",
    "templates": "{x} $x {{7*7}} {% if %} !ls %env",
    "ANSI": "\x1b[31mred\x1b]0;title\x07\x1b[2J",
    "C1": "\x9b31m\x90\x9d",
    "overwriting": "safe\rrm -rf",
    "backspaces": "safe\b\b\b\brm",
    "bidi": "\u202egnp.\u202c \u2066x\u2069 \u200f \u061c",
    "NUL and DEL": "a\x00b\x7fc",
    "surrogates": "half \ud83c and \udf88",
    "emoji": "🎈 👩‍🔬 é ﬁ",
}

signs = (
    st.characters()
    | st.sampled_from("\r\n\t<>&\"'\x1b\x9b\u202e\ud83c\udf88")
    | st.sampled_from(sorted(HOSTILE.values()))
)
texts = st.lists(signs, max_size=12).map("".join)


class Page(HTMLParser):
    """An HTML page as a browser reads it: its tags, the attributes on them, and the text of every <pre>."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.pres, self.rest = set(), [], [], ""
        self._inside = self._begins = False
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note a tag, and where a <pre> begins."""
        self.tags.add(tag)
        self.attributes += attrs
        self._begins = tag == "pre"
        if self._begins:
            self.pres.append("")
            self._inside = True

    def handle_endtag(self, tag):
        """Note where a <pre> ends."""
        if tag == "pre":
            self._inside = False

    def handle_data(self, data):
        """Collect text; a browser drops one line end right after <pre>, and none after another tag."""
        if not self._inside:
            self.rest += data
            return
        self.pres[-1] += data.removeprefix("\n") if self._begins else data
        self._begins = False

    def handle_comment(self, data):
        """Refuse what the record never writes."""
        raise AssertionError(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


# -- inert text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text,\n\ttabbed", "plain text,\n\ttabbed"),
        ("two\r\nlines", "two\nlines"),
        ("over\rwritten", "over␍written"),
        ("\x1b[31mred", "␛[31mred"),
        ("\x00\x07\x08\x0b\x0c", "␀␇␈␋␌"),
        ("\x7f", "␡"),
        ("\x85\x9b", "<U+0085><U+009B>"),
        ("\u202eback", "<U+202E>back"),
        ("\u200e\u200f\u061c", "<U+200E><U+200F><U+061C>"),
        ("\u2066\u2069", "<U+2066><U+2069>"),
        ("\ud83c.\udf88", "\ufffd.\ufffd"),
        ("é 🎈 👩‍🔬 ﬁ \u2028", "é 🎈 👩‍🔬 ﬁ \u2028"),
    ],
)
def test_controls_become_visible_signs(text, shown):
    """What drives a terminal or reorders a line is shown; everything else stays."""
    assert inert(text) == shown


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
def test_no_control_is_left_out(code):
    """Every C0, C1 and bidi control but line end and tab is replaced."""
    assert (chr(code) in inert(f"a{chr(code)}b")) is (chr(code) in "\n\t")


@relaxed
@given(texts)
@example("\r\r\n\n")
def test_inert_text_stays_what_it_is(text):
    """Inert text can be encoded, holds no control, and is not changed again."""
    shown = inert(text)
    shown.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert inert(shown) == shown


@relaxed
@given(texts, st.integers(1, 40))
def test_one_line_is_one_inert_line_of_at_most_its_limit(text, limit):
    """Any text comes down to one line that can be encoded, and says where it was cut."""
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert inert(line) == line
    line.encode()


def test_one_line_joins_lines_with_blanks_and_marks_its_cut():
    """Line ends become blanks; an ellipsis stands for what is left out."""
    assert one_line("a\r\n  b\tc\n") == "a b c"
    assert one_line("abcdef", 4) == "abc…"


# -- the record --------------------------------------------------------------------------------------------------------


def ended(*said, reason="stop", **more):
    """Return a completion with these texts."""
    return Completion(model="m", choices=[Choice(text, at, reason) for at, text in enumerate(said)], **more)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("count", [1, 2])
def test_hostile_text_is_shown_as_text(text, count):
    """Whatever a model writes, a page shows those very characters, in a <pre>, and makes nothing of them."""
    completion = ended(*[text] * count)
    page = Page(html(completion))
    assert page.pres == [inert(text)] * count
    assert page.tags <= {"pre", "p", "code", "table", "tr", "td", "span"}
    assert {name for name, _ in page.attributes} <= {"style", "title"}
    assert plain(completion).count(inert(text)) == count


@pytest.mark.parametrize("field", ["model", "finish_reason"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("count", [1, 2])
def test_the_other_fields_are_inert_too(field, text, count):
    """A server's name of the model and its reasons are shown on one line, as text."""
    completion = ended(*["Hello"] * count)
    if field == "model":
        completion.model = text
    else:
        for choice in completion.choices:
            choice.finish_reason = text
    page = Page(html(completion))
    assert page.pres == ["Hello"] * count
    assert page.tags <= {"pre", "p", "code", "table", "tr", "td"}
    assert inert(plain(completion)) == plain(completion)
    assert len(plain(completion).splitlines()) == count + 1


@relaxed
@given(tokens=st.lists(st.tuples(texts, st.none() | st.floats(-99, 0)), min_size=1, max_size=5), scored=st.booleans())
@example(tokens=[("two\r", -1.0), ("\nlines", -1.0)], scored=True)
@example(tokens=[("\n", -1.0), ("\n", None), ("", -1.0)], scored=True)
def test_the_page_and_the_plain_text_read_the_same(tokens, scored):
    """With log-probabilities or without, the text of the page is the text of the terminal."""
    text = "".join(token for token, _ in tokens)
    logprobs = Logprobs([token for token, _ in tokens], [score for _, score in tokens], [], []) if scored else None
    completion = Completion(choices=[Choice(text, 0, "stop", logprobs)])
    assert Page(html(completion)).pres == [inert(text)]
    assert plain(completion).startswith(inert(text) + "\n(")


@pytest.mark.parametrize("offsets", [[], [0, 2, 4, 5], [9, 11, 13, 14]])
def test_the_tokens_of_a_stop_sequence_do_not_take_the_tint_away(offsets):
    """A server may list tokens that it has cut from the text: those before them are tinted, and no text is lost."""
    logprobs = Logprobs([" a", " b", "\n", "\n"], [-1.0, -2.0, -0.1, -0.1], [], offsets)
    page = html(Completion(choices=[Choice(" a b", 0, "stop", logprobs)]))
    assert re.findall('<span title="[^"]+"[^>]*>([^<]*)</span>', page) == [" a", " b"]
    assert Page(page).pres == [" a b"]


@pytest.mark.parametrize("prompt", ["Say hello", "\n\nQ: x\r\n", *HOSTILE.values()])
def test_an_echoed_prompt_reads_as_it_was_written(prompt):
    """The page sets the prompt apart from what follows it, and changes no character of either."""
    request = CompletionRequest.build(prompt.replace("\ud83c", "").replace("\udf88", ""), echo=True)
    text = f"{request.prompt} and hello"
    assert Page(html(ended(text, request=request))).pres == [inert(text)]


@pytest.mark.parametrize("score", [-9999.0, float("-inf"), float("nan"), 0.0, 0.5, None])
def test_any_log_probability_can_be_shown(score):
    """Servers send -9999 and -Infinity for what cannot be: the record stands."""
    alternatives = None if score is None else {"Hello": score, "Bye": score}
    logprobs = Logprobs(["Hello"], [score], [alternatives], [0])
    shown = record(Completion(choices=[Choice("Hello", 0, "stop", logprobs)]))
    assert Page(shown["text/html"]).pres == ["Hello"]
    assert shown["text/plain"].startswith("Hello\n(")


@pytest.mark.parametrize("token", HOSTILE.values(), ids=HOSTILE)
def test_the_tooltip_of_a_token_is_text(token):
    """Hostile alternatives of a token open no attribute and no tag."""
    logprobs = Logprobs(["Hello"], [-1.0], [{"Hello": -1.0, token: -2.0}], [0])
    page = Page(html(Completion(choices=[Choice("Hello", 0, "stop", logprobs)])))
    assert {name for name, _ in page.attributes} <= {"style", "title"}
    assert page.tags <= {"pre", "span", "p", "code"}
    assert all(inert(value) == value for _, value in page.attributes)


@relaxed
@given(texts, texts, texts, st.booleans())
def test_a_record_can_always_be_encoded(text, model, reason, twice):
    """The kernel's client cannot send lone surrogates: none is in any part of the record."""
    completion = ended(*[text] * (1 + twice), reason=reason)
    completion.model = model
    assert all(part.encode() for part in record(completion).values())


def test_every_choice_is_shown_with_its_number_and_its_end():
    """Several choices are told apart by number, and each says how it ended."""
    completion = Completion(choices=[Choice("one", 0, "stop"), Choice("two", 1, "length")])
    first, second, _ = plain(completion).splitlines()
    assert re.fullmatch(r"\[1/2\] one .*<.+>", first)
    assert re.fullmatch(r"\[2/2\] two .*<reached max_tokens>", second)
    page = Page(html(completion))
    assert page.pres == ["one", "two"]
    assert "2/2" in page.rest
    assert "reached max_tokens" in page.rest


@pytest.mark.parametrize("reason", ["interrupted", "stopped", "error"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_incomplete_answer_says_so(reason, count):
    """What was interrupted, stopped or failed is marked as incomplete wherever it is shown."""
    completion = ended(*["Hel"] * count, reason=reason)
    assert plain(completion).count("incomplete") == count
    assert html(completion).count("incomplete") == count


@pytest.mark.parametrize("reason", [None, ""])
def test_an_answer_without_a_finish_reason_says_so(reason):
    """No end that the server did not state is made up."""
    assert "no finish_reason" in plain(ended("Hel", reason=reason))


def test_nothing_is_shown_as_nothing():
    """An answer without choices says that nothing arrived."""
    assert "nothing arrived" in plain(Completion())
    assert "nothing arrived" in html(Completion())


@pytest.mark.parametrize(
    ("text", "count", "words"),
    [("", 0, "0 tokens"), ("Hello", 1, "1 token"), ("Hello", 1234567, "1,234,567 tokens")],
)
def test_the_footer_counts_the_tokens(text, count, words):
    """Model, tokens and end are one line below the text."""
    line = footer(ended(text, usage=Usage(2, count, 2 + count)))
    assert words in line.split(" · ")
    assert line.startswith("m · ")


def test_the_footer_does_not_say_that_a_text_has_no_tokens():
    """Some servers write a usage of zeros into every chunk of a stream: that is no count."""
    assert "token" not in footer(ended("Hello", usage=Usage(0, 0, 0)))


def test_the_footer_says_what_a_server_left_out():
    """Three choices asked for and one given is said; a request that was met is not remarked on."""
    request = CompletionRequest.build("x", n=3)
    assert "asked for 3 choices, got 1" in footer(ended("a", request=request))
    assert "asked" not in footer(ended("a", "b", "c", request=request))
    assert "asked" not in footer(ended("a"))


def test_a_record_depends_on_the_completion_alone():
    """Two equal answers have one record, byte for byte."""
    completion = ended("Hello", "Hi", usage=Usage(1, 2, 3), request=CompletionRequest.build("x", n=2))
    assert record(completion) == record(copy.deepcopy(completion))


def test_ipython_shows_the_record_and_nothing_else():
    """As a cell's result a completion is plain text and HTML; there is no Markdown, LaTeX or script."""
    completion = ended("**Hello** $x$")
    shown, _ = DisplayFormatter().format(completion)
    assert shown == record(completion)
    assert set(shown) == {"text/plain", "text/html"}


def test_where_a_completion_came_from_can_be_kept():
    """The provenance is JSON, the same for the same request, and another for another."""
    completion = ended("Hello", request=CompletionRequest.build("x", model="m", temperature=0.5, top_k=3))
    kept = json.loads(json.dumps(provenance(completion)))["completions_magic"]
    assert kept["model"] == "m"
    assert kept["parameters"] == {"temperature": 0.5, "top_k": 3}
    assert provenance(completion) == provenance(copy.deepcopy(completion))
    other = ended("Hello", request=CompletionRequest.build("y", model="m", temperature=0.5, top_k=3))
    assert provenance(completion) != provenance(other)
