"""What differs between two texts and between two requests, in words."""

import re

import pytest

from completions_magic.difference import LONGEST, compare, differing, distance, in_words, word_diff
from completions_magic.schema import Choice, Completion, CompletionRequest
from completions_magic.verdict import Answered, judge

WORD_DIFFS = [
    ("", "", ""),
    ("the same", "the same", "the same"),
    ("a red fox", "a blue fox", "a [-red-]{+blue+} fox"),
    ("a fox", "a red fox", "a {+red +}fox"),
    ("a red fox", "a fox", "a [-red -]fox"),
    ("", "new", "{+new+}"),
    ("old", "", "[-old-]"),
    ("don't", "do n't", "[-don-]{+do n+}'t"),
    ("a\nb", "a\n\nb", "a[-\n-]{+\n\n+}b"),
    ("ein Bär 熊", "ein Bär 猫", "ein Bär [-熊-]{+猫+}"),
]


def test_a_word_diff_marks_what_went_and_what_came():
    """Words that went stand in [-…-], those that came in {+…+}, and everything else as it is."""
    assert [word_diff(old, new) for old, new, _ in WORD_DIFFS] == [shown for _, _, shown in WORD_DIFFS]


def test_long_texts_are_not_compared_for_ever():
    """Beyond the limit both texts stand whole; nothing is lost."""
    old, new = "a " * LONGEST, "b " * LONGEST
    assert list(compare(old, new)) == [(old, new)]


def test_both_texts_can_be_read_back_from_a_word_diff():
    """Without the marks of the one the text of the other is left, to the byte."""
    old, new = "one two  three\nfour", "one 2 three\n\nfour five"
    diff = word_diff(old, new)
    assert re.sub(r"\[-.*?-\]|\{\+|\+\}", "", diff, flags=re.DOTALL) == new
    assert re.sub(r"\{\+.*?\+\}|\[-|-\]", "", diff, flags=re.DOTALL) == old


FIELDS = [
    ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ["b"]),
    ({"a": 1}, {"b": 1}, ["b", "a"]),
    ({"a": None}, {}, ["a"]),
    ({"a": True}, {"a": 1}, ["a"]),
    ({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 2}}, []),
]


def test_the_fields_that_differ_are_named():
    """A field counts where its JSON differs, or where only one of the two has it."""
    assert [differing(new, old) for new, old, _ in FIELDS] == [names for _, _, names in FIELDS]


THREE_OF_FIVE = "a is 1, recorded not set; b is 1, recorded not set; c is 1, recorded not set; and 2 more"
IN_WORDS = [
    ({"temperature": 0.5}, {"temperature": 1}, "temperature is 0.5, recorded 1"),
    ({"seed": 7}, {}, "seed is 7, recorded not set"),
    ({}, {"stop": ["a"]}, 'stop is not set, recorded ["a"]'),
    ({"cache": True}, {"cache": 1}, "cache is true, recorded 1"),
    ({"prompt": "Once upon"}, {"prompt": "Once"}, "prompt is 'Once upon', recorded 'Once'"),
    (
        {"prompt": "x" * 500 + "new end"},
        {"prompt": "x" * 500 + "old end"},
        f"prompt is '…{'x' * 12}new end', recorded '…{'x' * 12}old end'",
    ),
    (dict.fromkeys("abcde", 1), {}, THREE_OF_FIVE),
]


def test_what_differs_is_said_in_words():
    """Each field is named with what it is and what was recorded, a long text from shortly before its difference."""
    assert [in_words(new, old) for new, old, _ in IN_WORDS] == [said for _, _, said in IN_WORDS]


def test_the_nearest_request_is_that_with_the_fewest_changes():
    """Fewer fields that differ are nearer; among equals the prompt that is more alike."""
    wanted = {"prompt": "The cat sat on the mat", "seed": 1, "model": "m"}
    same_prompt = {"prompt": "The cat sat on the mat", "seed": 2, "model": "m"}
    like_it = {"prompt": "The cat sat on a mat", "seed": 1, "model": "m"}
    unlike = {"prompt": "Zebra!", "seed": 1, "model": "m"}
    far = {"prompt": "The cat sat on the mat", "seed": 2, "model": "x"}
    by_distance = sorted([far, unlike, like_it, same_prompt], key=lambda known: distance(wanted, known))
    assert by_distance == [same_prompt, like_it, unlike, far]


def answered(text="Hi", *, model="m", fingerprint="f", **asked):
    """Return what an output keeps of an answer."""
    completion = Completion(choices=[Choice(text, 0, "stop")], model=model, system_fingerprint=fingerprint)
    completion.request = CompletionRequest.build(**{"prompt": "P", "model": "m", **asked})
    return Answered.of(completion)


@pytest.mark.parametrize(
    ("new", "old", "said"),
    [
        (answered(), answered(), "identical"),
        (answered("Ho"), answered("Hi"), "other text: [-Hi-]{+Ho+}\n(m · complete)"),
        (answered(temperature=1.0), answered(temperature=0.5), "request changed: temperature is 1.0, was 0.5"),
        (answered(prompt="Q"), answered(), "request changed: the prompt or the model"),
        (answered(fingerprint="g"), answered(), "server drifted: system_fingerprint is g, was f"),
        (
            answered("Ho", fingerprint="g"),
            answered(),
            "server drifted: system_fingerprint is g, was f; [-Hi-]{+Ho+}\n(m · complete)",
        ),
        (answered(), None, "not recorded"),
    ],
    ids=["identical", "text", "parameter", "prompt", "fingerprint", "fingerprint and text", "unknown"],
)
def test_a_verdict_names_what_became_of_an_answer(new, old, said):
    """The request counts first, then the server, then the text; the detail says what differs."""
    assert str(judge(new, old)) == said


def test_a_verdict_drives_no_terminal():
    """What a model wrote is shown as text within a verdict too."""
    assert "\x1b" not in str(judge(answered("a \x1b[2J b"), answered("a b")))
