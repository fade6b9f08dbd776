"""The tree of tokens: pure, against completions made by hand, by chance, and by the embedded endpoint."""

import math
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions_magic import Client, Completion
from completions_magic.errors import ConfigurationError
from completions_magic.schema import Choice, CompletionRequest, Logprobs
from completions_magic.tree import TokenTree

relaxed = settings(deadline=None)

ALLOWED = {
    "ul": {"style"},
    "li": set(),
    "details": {"open"},
    "summary": set(),
    "pre": {"style"},
    "code": {"style"},
    "span": {"style", "title"},
    "p": {"style"},
}
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</details></pre><script>",
    "\x1b[31m",
    "\u202eabc",
    '" onload="x',
    "\r\n",
    "&lt;",
]


def completion(
    tokens, *, text=None, tops=None, scores=None, offsets=None, reason="length", prompt="Once", **parameters
) -> Completion:
    """Return a completion of `tokens`, each with probability one half unless `scores` says otherwise."""
    text = "".join(tokens) if text is None else text
    scores = [math.log(0.5)] * len(tokens) if scores is None else scores
    tops = [{}] * len(tokens) if tops is None else tops
    logprobs = Logprobs(list(tokens), scores, tops, offsets or [])
    request = CompletionRequest.build(prompt, model="m", logprobs=5, **parameters)
    return Completion(id="c", model="m", choices=[Choice(text, 0, reason, logprobs)], request=request)


def chunk(*tokens, reason=None, **more) -> Completion:
    """Return a streamed chunk of `tokens`."""
    return completion(tokens, reason=reason, **more)


def api_name(piece: bytes) -> str:
    """Return a token's bytes as the API writes them."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


@st.composite
def cut_texts(draw):
    """Return a text, its bytes cut anywhere, and where the text of each piece begins, as the embedded endpoint says."""
    text = draw(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), min_size=1, max_size=12))
    data = text.encode()
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=8))})
    pieces = [data[start:end] for start, end in pairwise(cuts)]
    return text, pieces, [len(data[:start].decode("utf-8", "ignore")) for start in cuts[:-1]]


class Reader(HTMLParser):
    """Reads HTML that holds nothing but what is allowed, and is nested as it should be."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        """Allow a tag, or fail."""
        assert {name for name, _ in attrs} <= ALLOWED[tag], (tag, attrs)
        self.open.append(tag)

    def handle_endtag(self, tag):
        """Check the nesting."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep the text."""
        self.text += data


def read(html: str) -> str:
    """Return the text of `html`; fail where it is not inert and well nested."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader.text


# Reading a completion


@relaxed
@given(cut_texts())
def test_the_branch_that_came_is_the_completion_that_came(cut):
    """The tree gives back the text, the tokens and the offsets that it was made of, wherever the bytes are cut."""
    text, pieces, offsets = cut
    original = completion([api_name(piece) for piece in pieces], text=text, offsets=offsets)
    tree = TokenTree(original)
    again = tree.completion(tree.nodes[1])
    assert (again.text, again.choices[0].logprobs.tokens) == (text, original.choices[0].logprobs.tokens)
    assert [tree.text_before(node) + node.text for node in tree.nodes[1:]] == [
        text[:end] for end in [*again.choices[0].logprobs.text_offset[1:], len(text)]
    ]
    if "".join(original.choices[0].logprobs.tokens) != text:
        assert again.choices[0].logprobs.text_offset == offsets


@relaxed
@given(cut_texts(), st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=4))
def test_an_alternative_is_choosable_when_its_bytes_make_whole_characters(cut, others):
    """What can be chosen after the bytes so far is valid UTF-8 with them, and adds exactly the rest of the text."""
    text, pieces, offsets = cut
    names = {api_name(other): -1.0 for other in others}
    tree = TokenTree(
        completion([api_name(piece) for piece in pieces], text=text, tops=[names] * len(pieces), offsets=offsets)
    )
    for at, node in enumerate(tree.nodes[1:]):
        choosable = tree.choosable(node)
        for other in others:
            try:
                whole = (b"".join(pieces[:at]) + other).decode()
            except UnicodeDecodeError:
                assert api_name(other) not in choosable
            else:
                assert tree.text_before(node) + choosable[api_name(other)] == whole


@pytest.mark.parametrize("offsets", [[0, 2, 4], [7, 9, 11], []])
def test_offsets_may_count_from_anywhere(offsets):
    """Servers count offsets from the completion's or the prompt's start; the tokens are the same."""
    tree = TokenTree(completion(["ab", "cd", "ef"], offsets=offsets))
    assert [node.text for node in tree.nodes[1:]] == ["ab", "cd", "ef"]


@relaxed
@given(st.lists(st.integers(-3, 9), min_size=1, max_size=5), st.booleans())
def test_no_offsets_lose_or_double_text(offsets, echo):
    """Whatever a server says of where its tokens begin, the nodes make up the text."""
    tokens = ["bytes:\\xe6"] * len(offsets)
    tree = TokenTree(completion(tokens, text="Once more", offsets=offsets, echo=echo))
    assert tree.completion(tree.nodes[1]).text == "Once more"


def test_tokens_of_a_stop_sequence_add_no_text():
    """A server cuts the stop sequence from the text and may leave its tokens: they are empty at the end."""
    tree = TokenTree(completion(["ab", "c\n", "\n"], text="abc"))
    assert [node.text for node in tree.nodes[1:]] == ["ab", "c", ""]
    assert tree.completion(tree.nodes[1]).text == "abc"


def test_alternatives_are_sorted_and_hold_the_token_itself():
    """Whatever order a server sends, the likeliest comes first; the token is there; no score is NaN or infinite."""
    tops = [{"x": -3.0, "y": -1.0, "z": math.nan, "w": -math.inf}]
    node = TokenTree(completion(["a"], tops=tops, scores=[-2.0])).nodes[1]
    assert list(node.alternatives.items()) == [("y", -1.0), ("a", -2.0), ("x", -3.0), ("w", -9999.0)]


def test_the_first_choice_with_log_probabilities_counts():
    """Of several choices it is the first that has log-probabilities, or the one that is asked for."""
    one = completion(["a"])
    one.choices = [Choice("none"), *one.choices, *completion(["b"]).choices]
    assert [TokenTree(one).nodes[1].text, TokenTree(one, 2).nodes[1].text] == ["a", "b"]
    with pytest.raises(ConfigurationError, match="no choice 3"):
        TokenTree(one, 3)
    with pytest.raises(ConfigurationError, match="--logprobs 5"):
        TokenTree(one, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (completion([]), "ask for them with --logprobs 5"),
        (completion(["a"], prompt=["one", "two"]), "a single text"),
        (completion(["a"], prompt=[1, 2]), "a single text"),
        (Completion(choices=completion(["a"]).choices), "does not know its request"),
        (completion(["token_id:5"], text="five"), "do not make up its text"),
    ],
)
def test_what_no_tree_can_be_made_of_is_refused_in_words(given, said):
    """Without log-probabilities, one prompt, a request, or tokens that fit the text, the error says which."""
    with pytest.raises(ConfigurationError, match=said):
        TokenTree(given)


# Branching


def test_choosing_an_alternative_adds_one_branch():
    """A branch leaves at the node, has the alternative's text and probability, and is found again."""
    tops = [{}, {" b": -1.0, " c": -2.0}, {}]
    tree = TokenTree(completion(["a", " b", " d"], tops=tops))
    node = tree.nodes[2]
    other = tree.branch(node, " c")
    assert (other.text, other.logprob, other.alternatives) == (" c", -2.0, node.alternatives)
    assert other.parent is node.parent
    assert tree.branch(node, " c") is other
    assert tree.branch(other, " b") is node
    assert [[step.text for step in tree.path(one)] for one in (node, other)] == [["a", " b"], ["a", " c"]]


@pytest.mark.parametrize("end", ["<|endoftext|>", "</s>", "", "\ufffd", "bytes:\\xe6", "never offered"])
def test_the_end_of_the_text_and_parts_of_characters_cannot_be_chosen(end):
    """They are shown among the alternatives, and refused in words."""
    tree = TokenTree(completion(["a"], tops=[{end: -1.0} if end != "never offered" else {}]))
    assert end not in tree.choosable(tree.nodes[1])
    with pytest.raises(ConfigurationError, match="no text can go on"):
        tree.branch(tree.nodes[1], end)


def test_chunks_grow_a_branch():
    """Tokens and text of each chunk follow the last; text without log-probabilities is kept; so is the reason."""
    tree = TokenTree(completion(["a", "b"], tops=[{"x": -1.0}, {}]))
    start = tree.branch(tree.nodes[1], "x")
    last = tree.extend(start, chunk("1", "2"))
    last = tree.extend(last, Completion(choices=[Choice("three")]))
    last = tree.extend(last, Completion(choices=[]))
    last = tree.extend(last, Completion(choices=[Choice("", 5, "stop", Logprobs())]))
    whole = tree.completion(start)
    assert (whole.text, whole.choices[0].finish_reason) == ("x12three", "stop")
    assert whole.choices[0].logprobs.tokens == ["x", "1", "2", "three"]
    assert whole.choices[0].logprobs.token_logprobs[3] is None
    assert whole.request is tree.request
    assert tree.completion(tree.nodes[1]).text == "ab"
    assert tree.end(start) is last


def test_branches_are_listed_after_the_one_that_they_left():
    """The list is the order in which one reads an indented tree, and names belong to whole branches."""
    tops = [dict.fromkeys("abcdxyz", -1.0)] * 3
    tree = TokenTree(completion(["a", "b", "c"], tops=tops))
    _, first, second, third = tree.nodes
    late = tree.branch(third, "z")
    early = tree.branch(first, "x")
    last = tree.extend(early, chunk("d", tops=tops[:1]))
    inner = tree.branch(last, "y")
    assert list(tree.branches()) == [(0, first), (1, early), (2, inner), (1, late)]
    tree.name(last, "early")
    tree.name(third, "trunk")
    assert [node.name for _, node in tree.branches()] == ["trunk", "early", "", ""]
    assert [tree.head(node) for node in (second, last, inner)] == [first, early, inner]


def test_log_probability_and_perplexity_are_those_of_the_whole_branch():
    """The sum of the tokens' log-probabilities, and exp of minus their mean; tokens without one do not count."""
    tree = TokenTree(completion(["a", "b", "c"], scores=[None, -1.0, -2.0]))
    assert tree.logprob(tree.nodes[1]) == -3.0
    assert tree.perplexity(tree.nodes[1]) == pytest.approx(math.exp(1.5))
    assert TokenTree(completion(["a"], scores=[-9999.0])).perplexity(tree.nodes[1]) != 0
    unknown = TokenTree(completion(["a"], scores=[None]))
    assert (unknown.logprob(unknown.nodes[1]), unknown.perplexity(unknown.nodes[1])) == (None, None)


def test_a_perplexity_beyond_numbers_is_infinite():
    """A token that cannot occur makes the perplexity infinite and breaks nothing."""
    tree = TokenTree(completion(["a"], scores=[-9999.0]))
    assert tree.perplexity(tree.nodes[1]) == math.inf
    assert "inf" in tree.plain()


# Going on


def test_the_request_goes_on_after_the_node():
    """The text so far is in the prompt, the tokens so far are off max_tokens, and one choice is streamed."""
    parameters = {"max_tokens": 10, "n": 3, "best_of": 4, "seed": 7, "temperature": 0.5, "stop": ["."], "top_k": 9}
    tree = TokenTree(completion(["a", " b", " c"], **parameters))
    request = tree.request_from(tree.nodes[2])
    assert request.body() == {
        "model": "m", "prompt": "Oncea b", "max_tokens": 8, "temperature": 0.5, "n": 1, "stop": ["."], "stream": True,
        "seed": 7, "logprobs": 5, "top_k": 9,
    }  # fmt: skip


@pytest.mark.parametrize(("asked", "left"), [({}, 14), ({"max_tokens": 2}, 1), ({"max_tokens": 0}, 1)])
def test_at_least_one_token_is_asked_for(asked, left):
    """Unset means the API's 16; where none is left, one is asked for."""
    tree = TokenTree(completion(["a", " b"], **asked))
    assert tree.request_from(tree.nodes[2]).parameters.max_tokens == left


def test_an_echoed_prompt_can_be_changed_too():
    """With echo the prompt's tokens are nodes; what comes from inside it has the prompt's text so far."""
    tops = [None, {" upon": -1.0, " more": -2.0}, {}, {}]
    tokens, scores = ["Once", " upon", " a", " time"], [None, -1.0, -1.0, -1.0]
    tree = TokenTree(completion(tokens, tops=tops, scores=scores, prompt="Once upon", echo=True, max_tokens=2))
    inside = tree.request_from(tree.branch(tree.nodes[2], " more"))
    assert (inside.prompt, inside.parameters.max_tokens) == ("Once more", 2)
    after = tree.request_from(tree.nodes[3])
    assert (after.prompt, after.parameters.max_tokens) == ("Once upon a", 1)
    assert "echo" not in after.body()


def test_an_echoed_prompt_without_tokens_is_one_node():
    """Some servers echo the prompt's text and not its tokens: nothing of the text is lost."""
    tree = TokenTree(completion([" a", " b"], text="Once a b", offsets=[4, 6], prompt="Once", echo=True))
    assert [(node.text, node.logprob is None) for node in tree.nodes[1:]] == [
        ("Once", True),
        (" a", False),
        (" b", False),
    ]
    assert tree.request_from(tree.nodes[2]).prompt == "Once a"


def test_echo_that_the_server_ignored_is_no_echo():
    """Where the text does not begin with the prompt, the prompt stands before it."""
    tree = TokenTree(completion([" a"], prompt="Once", echo=True))
    assert tree.request_from(tree.nodes[1]).prompt == "Once a"


@pytest.mark.parametrize("echo", [False, True])
def test_the_embedded_endpoint_goes_on_from_any_token(echo):
    """The continuation of a branch is what the endpoint answers to the prompt with the branch's text in it."""
    with Client() as client:
        original = client.complete(
            "Une forêt à l'été, 日本", max_tokens=8, seed=3, logprobs=5, temperature=0, echo=echo
        )
        tree = TokenTree(original)
        assert tree.completion(tree.nodes[1]).choices == original.choices
        for node in tree.nodes[2:]:
            for other in list(tree.choosable(node))[:2]:
                start = last = tree.branch(node, other)
                if start.children:
                    continue
                request = tree.request_from(start)
                for part in client.send(request):
                    last = tree.extend(last, part)
                said = "Une forêt à l'été, 日本" * (not echo)
                asked = client.complete(request.prompt, max_tokens=request.parameters.max_tokens, seed=3, temperature=0)
                assert said + tree.completion(start).text == request.prompt + asked.text


# Records


@st.composite
def trees(draw):
    """Return a tree that has branched and grown at random, with hostile tokens and names."""
    token = st.sampled_from([*HOSTILE, " a", "b", "\n"])
    tokens = draw(st.lists(token, min_size=1, max_size=4))
    tops = {one: draw(st.floats(-9999, 0)) for one in draw(st.lists(token, max_size=4))}
    tree = TokenTree(completion(tokens, tops=[tops] * len(tokens)))
    for _ in range(draw(st.integers(0, 6))):
        node = draw(st.sampled_from(tree.nodes[1:]))
        choosable = list(tree.choosable(node))
        last = tree.branch(node, draw(st.sampled_from(choosable))) if choosable else node
        last = tree.extend(last, chunk(*draw(st.lists(token, max_size=3)), tops=[tops] * 3))
        tree.name(last, draw(st.sampled_from([*HOSTILE, "", "name"])))
    return tree


@relaxed
@given(trees())
def test_the_record_of_a_tree_is_inert_and_whole(tree):
    """Every branch is there from where it left another, in HTML of allowed tags and attributes only."""
    text = read(tree.html())
    plain = tree.plain()
    for shown in (text, plain):
        assert not any(sign in shown for sign in "\x1b\u202e\r")
    assert text.count("perplexity") >= sum(1 for _ in tree.branches())
    assert len([line for line in plain.splitlines() if line.lstrip().startswith("(m · ")]) == sum(
        1 for _ in tree.branches()
    )


def test_a_tree_can_be_left_in_a_notebook():
    """Its display is the record, as text and as HTML, with what the request was."""
    tree = TokenTree(completion(["a", " b"], tops=[{}, {" c": -1.0}], scores=[-0.5, -0.25]))
    tree.name(tree.branch(tree.nodes[2], " c"), "other")
    bundle, metadata = tree._repr_mimebundle_()
    assert bundle["text/plain"] == (
        "the first answer\n"
        "    a b\n"
        "    (m · reached max_tokens · log-probability -0.75 · perplexity 1.45)\n"
        "    other: ' c' (37%) instead of ' b' (78%) · in all: log-probability -1.50, perplexity 2.12\n"
        "         c\n"
        "        (m · no finish_reason · log-probability -1.00 · perplexity 2.72)"
    )
    assert "other: ' c' (37%)" in read(bundle["text/html"])
    assert metadata["completions_magic"]["model"] == "m"
    assert repr(tree) == "TokenTree(3 tokens, 2 branches)"


def test_branches_may_be_nested_deeper_than_calls():
    """A thousand branches, each from the last, are listed and recorded."""
    tree = TokenTree(completion(["a"], tops=[{"b": -1.0}]))
    node = tree.nodes[1]
    for _ in range(1100):
        node = tree.extend(tree.branch(node, "b"), chunk("a", tops=[{"b": -1.0}]))
    assert max(depth for depth, _ in tree.branches()) == 1100
    assert read(tree.html()).count("instead of") == 1100
