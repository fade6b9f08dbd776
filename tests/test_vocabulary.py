"""The tokens: byte pairs learned from text."""

import re
from collections import Counter
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions_magic.local.model import SIZE, pocket
from completions_magic.local.vocabulary import END_OF_TEXT, Vocabulary, learn_merges, split

thoroughly = settings(max_examples=300, deadline=None, database=None, derandomize=True)

AWKWARD = [
    "",
    " ",
    "\n",
    "\n\n\n",
    "\r\n",
    "\t\tx",
    " \n x \n ",
    "a  b   c",
    "no newline at the end ",
    "2026-08-21T23:59:59.999Z",
    "snake_case __dunder__ _",
    "{{ name }} {{fill}} {x} $x !ls %env",
    "Zürich, œuvre, ñandú, Straße",
    "e\u0301 and é",
    "日本語のテキスト",
    "שלום עולם \u202eRTL\u202c",
    "٣٤٥ ²³ ½ Ⅻ",
    "👩\u200d👩\u200d👧 🇫🇷 🤷🏽",
    "\x00\x01\x7f\ufeff\ufffd\uffff\U0010ffff",
    "\u2028\u2029\u0085\u00a0\u3000",
    "<|endoftext|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]

texts = st.text() | st.text("ab c_1\n\t.é日") | st.lists(st.sampled_from(AWKWARD)).map("".join)
small_texts = st.lists(st.text("aab c", max_size=12), max_size=4)


def learn_slowly(documents, size):
    """Learn merges as the definition says it: count every pair anew before each merge."""
    words = Counter(word for document in documents for word in split(document))
    tokens = {word: [byte + 1 for byte in word.encode()] for word in words}
    merges = []
    while len(merges) < size - 257:
        counts = Counter()
        for word, often in words.items():
            for pair in pairwise(tokens[word]):
                counts[pair] += often
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        tokens = {word: merge(listed, best, 256 + len(merges)) for word, listed in tokens.items()}
    return merges


def merge(tokens, pair, joined):
    """Replace each `pair`, from the left, by the one token `joined`."""
    merged = []
    rest = list(tokens)
    while rest:
        if tuple(rest[:2]) == pair:
            merged.append(joined)
            del rest[:2]
        else:
            merged.append(rest.pop(0))
    return merged


@pytest.mark.parametrize("text", AWKWARD)
def test_an_awkward_text_comes_back_from_its_tokens(text):
    """Decoding the tokens of a text gives its UTF-8 bytes back."""
    vocabulary = pocket().vocabulary
    assert vocabulary.decode(vocabulary.encode(text)) == text.encode()


@thoroughly
@given(texts)
def test_any_text_comes_back_from_its_tokens(text):
    """Decoding the tokens of a text gives its UTF-8 bytes back, whatever the text."""
    vocabulary = pocket().vocabulary
    assert vocabulary.decode(vocabulary.encode(text)) == text.encode()


@thoroughly
@given(texts)
def test_any_text_comes_back_without_a_single_merge(text):
    """The 256 bytes alone can hold every text: one token a byte."""
    assert Vocabulary([]).encode(text) == [byte + 1 for byte in text.encode()]


@thoroughly
@given(texts)
def test_the_words_of_a_text_joined_are_the_text(text):
    """Splitting loses nothing and adds nothing."""
    words = split(text)
    assert "".join(words) == text
    assert all(words)


@thoroughly
@given(texts)
def test_no_token_crosses_a_word(text):
    """Every end of a word is the end of a token."""
    vocabulary = pocket().vocabulary
    ends = set(accumulate(len(vocabulary.pieces[token]) for token in vocabulary.encode(text)))
    assert set(accumulate(len(word.encode()) for word in split(text))) <= ends


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Say hello to it", ["Say", " hello", " to", " it"]),
        ("1984", ["1", "9", "8", "4"]),
        ("in 19", ["in", " ", "1", "9"]),
        ("Well, no!!", ["Well", ",", " no", "!!"]),
        ("a_b", ["a", "_", "b"]),
        ("one\n\ntwo", ["one", "\n\n", "two"]),
        ("Zürich 日本", ["Zürich", " 日本"]),
        ("end ", ["end", " "]),
        ("a   b", ["a", "   ", "b"]),
        ("\n    return x", ["\n", "    ", "return", " x"]),
    ],
)
def test_a_word_takes_one_blank_along_and_digits_stand_alone(text, words):
    """A word takes the one blank before it along; digits, and several blanks, stand alone."""
    assert split(text) == words


def test_every_byte_is_a_token():
    """Bytes that are no text can be tokens too, so nothing is ever unknown."""
    vocabulary = pocket().vocabulary
    assert [vocabulary.decode([byte + 1]) for byte in range(256)] == [bytes([byte]) for byte in range(256)]


def test_the_end_of_text_has_no_text():
    """The token that ends a document adds nothing to it, and no text is encoded as it."""
    vocabulary = pocket().vocabulary
    assert vocabulary.decode([END_OF_TEXT]) == b""
    assert END_OF_TEXT not in vocabulary.encode("<|endoftext|>\x00")


def test_the_vocabulary_has_the_promised_size():
    """It holds as many tokens as it was asked for, each another byte string."""
    vocabulary = pocket().vocabulary
    assert len(vocabulary) == SIZE
    assert len(set(vocabulary.pieces)) == SIZE


def test_merges_apply_in_the_order_learned():
    """The merge that was learned first wins, wherever it stands in the word."""
    a, b, c = (byte + 1 for byte in b"abc")
    vocabulary = Vocabulary([(b, c), (a, b), (258, c), (a, 257)])
    assert vocabulary.pieces[257:] == [b"bc", b"ab", b"abc", b"abc"]
    assert vocabulary.encode("abc") == [260]
    assert vocabulary.encode("ab") == [258]
    assert vocabulary.encode("abab") == [258, 258]
    assert vocabulary.encode("cab") == [c, 258]


@thoroughly
@given(small_texts, st.text("aab c", max_size=30))
def test_encoding_is_merging_in_order(documents, text):
    """The tokens of a word are what is left when each merge in turn has been applied from the left."""
    merges = learn_merges(documents, 290)
    expected = []
    for word in split(text):
        tokens = [byte + 1 for byte in word.encode()]
        for at, pair in enumerate(merges):
            tokens = merge(tokens, pair, 257 + at)
        expected += tokens
    assert Vocabulary(merges).encode(text) == expected


@thoroughly
@given(small_texts, st.integers(257, 300))
def test_learning_always_takes_the_most_frequent_pair_then_the_smallest(documents, size):
    """The quick bookkeeping finds the same merges as counting everything anew before each."""
    assert learn_merges(documents, size) == learn_slowly(documents, size)


@pytest.mark.parametrize(
    ("documents", "size", "merges"),
    [
        ([], 300, []),
        (["ab ab cd"], 257, []),
        (["ab"], 300, [(98, 99)]),
        (["cd cd ab"], 258, [(100, 101)]),
        (["ab", "cd"], 258, [(98, 99)]),
        (["aaaa"], 300, [(98, 98), (257, 257)]),
    ],
    ids=["nothing", "no room", "one pair", "most frequent", "smallest", "overlapping"],
)
def test_learning_stops_at_the_size_or_when_no_pair_is_left(documents, size, merges):
    """There are no more merges than fit, and none without a pair."""
    assert learn_merges(documents, size) == merges


def test_learning_knows_no_order_of_documents():
    """The same documents in another order teach the same merges."""
    documents = ["The cat sat on the mat.", "The dog ate the hat.", "A cat and a dog."]
    assert learn_merges(documents, 300) == learn_merges(documents[::-1], 300)


def test_encoding_does_not_depend_on_what_was_encoded_before():
    """A fresh vocabulary and one that has read a lot agree."""
    documents = ["the theme of the thesis is there", "a tea for the team"]
    fresh, used = (Vocabulary(learn_merges(documents, 280)) for _ in range(2))
    for text in AWKWARD:
        used.encode(text)
    assert fresh.encode(documents[0]) == used.encode(documents[0])


def test_frequent_words_are_one_token():
    """What the texts say all the time costs one token, with its blank."""
    vocabulary = pocket().vocabulary
    words = [" the", " and", " is", "Write", "Review", " capital"]
    assert [len(vocabulary.encode(word)) for word in words] == [1] * len(words)


def test_a_token_is_inside_one_word():
    """No merge was learned across a blank, a line end or a digit."""
    several = [piece for piece in pocket().vocabulary.pieces[257:] if re.search(rb"[^ \n] |\n[^\n]|[0-9]", piece)]
    assert several == []
