"""The words of the API: the table of sampling parameters, the request, and the sum of chunks."""

import copy
import json
import pickle
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions_magic.errors import ConfigurationError, DecodeError, PromptError
from completions_magic.record import record
from completions_magic.schema import (
    KNOBS,
    Choice,
    Completion,
    CompletionRequest,
    Logprobs,
    SamplingParameters,
    Usage,
    read_models,
)

relaxed = settings(deadline=None)

# The seed's own table: name, default, lowest and highest value.
SEED = [
    ("max_tokens", 16, 0, None),
    ("temperature", 1, 0, 2),
    ("top_p", 1, 0, 1),
    ("n", 1, 1, 128),
    ("stream", False, None, None),
    ("stop", None, None, None),
    ("suffix", None, None, None),
    ("echo", False, None, None),
]

# The rest of the public specification.
WIDER = [
    ("seed", None, -(2**63), 2**63 - 1),
    ("logprobs", None, 0, None),
    ("best_of", 1, 0, 20),
    ("presence_penalty", 0, -2, 2),
    ("frequency_penalty", 0, -2, 2),
    ("logit_bias", None, None, None),
    ("user", None, None, None),
    ("stream_options", None, None, None),
]

GOOD = {
    "max_tokens": 5,
    "temperature": 0.5,
    "top_p": 0.9,
    "n": 2,
    "stop": ["END", "\n"],
    "suffix": "the end",
    "echo": True,
    "stream": False,
    "seed": -1,
    "logprobs": 3,
    "best_of": 4,
    "presence_penalty": -1.5,
    "frequency_penalty": 2,
    "logit_bias": {"50256": -100},
    "user": "ada",
    "stream_options": {"include_usage": True},
}


def body(**parameters):
    """Return the decoded body of a request."""
    return json.loads(CompletionRequest.build("Say hello", **parameters).encode())


@pytest.mark.parametrize(("name", "default", "low", "high"), [*SEED, *WIDER])
def test_the_table_states_the_default_and_the_range_of_every_parameter(name, default, low, high):
    """Each parameter of the specification is in the table, with the API's default and range."""
    knob = KNOBS[name]
    assert (knob.default, knob.low, knob.high) == (default, low, high)
    assert knob.description


def test_the_table_holds_nothing_else():
    """No parameter is in the table that the specification does not know."""
    assert set(KNOBS) == set(SamplingParameters.__struct_fields__) == {row[0] for row in [*SEED, *WIDER]}


@pytest.mark.parametrize("name", GOOD)
def test_a_parameter_is_sent_under_its_own_name_as_it_was_given(name):
    """A parameter reaches the body with the value that was set, and nothing else comes with it."""
    assert body(**{name: GOOD[name]}) == {"prompt": "Say hello", name: GOOD[name]}


@relaxed
@given(st.sets(st.sampled_from(sorted(GOOD))))
def test_what_is_not_set_is_not_sent(names):
    """The body holds the parameters that were set, whichever they are, and no other."""
    assert set(body(**{name: GOOD[name] for name in names})) == {"prompt", *names}


@pytest.mark.parametrize("name", GOOD)
def test_none_counts_as_not_set(name):
    """A parameter of None is not sent as null: several servers refuse that, or crash."""
    assert body(**{name: None}) == {"prompt": "Say hello"}


@pytest.mark.parametrize("name", [row[0] for row in [*SEED, *WIDER] if row[2] is not None])
def test_both_ends_of_a_range_are_inside_it(name):
    """The lowest and the highest value are accepted."""
    knob = KNOBS[name]
    assert knob.check(knob.low) == knob.low
    if knob.high is not None:
        assert knob.check(knob.high) == knob.high


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_tokens", -1, "max_tokens takes an integer, at least 0, not -1"),
        ("temperature", -0.01, "temperature takes a number, 0 to 2, not -0.01"),
        ("temperature", 2.01, "temperature takes a number, 0 to 2, not 2.01"),
        ("top_p", 1.5, "top_p takes a number, 0 to 1, not 1.5"),
        ("n", 0, "n takes an integer, 1 to 128, not 0"),
        ("n", 129, "n takes an integer, 1 to 128, not 129"),
        ("best_of", 21, "best_of takes an integer, 0 to 20, not 21"),
        ("logprobs", -1, "logprobs takes an integer, at least 0, not -1"),
        ("presence_penalty", -2.5, "presence_penalty takes a number, -2 to 2, not -2.5"),
        ("frequency_penalty", 3, "frequency_penalty takes a number, -2 to 2, not 3"),
        ("seed", 2**63, f"seed takes an integer, any 64-bit integer, not {2**63}"),
        ("stop", [], "stop takes text, or a list of one to four texts, not []"),
        ("stop", list("abcde"), "stop takes text, or a list of one to four texts, not "),
        ("logit_bias", {"5": 101}, "logit_bias takes a JSON object of token ids to numbers from -100 to 100, not "),
    ],
)
def test_a_value_out_of_range_is_refused_in_words(name, value, words):
    """The message names the parameter, what it takes and what it was given."""
    with pytest.raises(ConfigurationError) as caught:
        CompletionRequest.build("x", **{name: value})
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", "many"),
        ("temperature", "hot"),
        ("temperature", False),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("echo", 1),
        ("stream", "yes"),
        ("suffix", 3),
        ("stop", 5),
        ("stop", [1]),
        ("logit_bias", [1]),
        ("logit_bias", {"5": float("nan")}),
        ("stream_options", True),
    ],
)
def test_a_value_of_another_type_is_refused_in_words(name, value):
    """The message names the parameter and what it takes."""
    with pytest.raises(ConfigurationError, match=f"^{name} takes {KNOBS[name].kind}.*, not "):
        CompletionRequest.build("x", **{name: value})


def test_a_number_is_sent_as_it_was_written():
    """An integer given for a number stays one: 1 is not sent as 1.0."""
    assert CompletionRequest.build("x", temperature=1).encode() == b'{"prompt":"x","temperature":1}'


def test_numbers_of_other_libraries_are_numbers():
    """A value out of a data frame is as good as Python's own."""
    frame = pd.DataFrame({"n": [3], "temperature": [0.25]})
    sent = body(n=frame["n"].iloc[0], temperature=frame["temperature"].iloc[0])
    assert (sent["n"], sent["temperature"]) == (3, 0.25)


def test_token_ids_of_a_bias_may_be_numbers():
    """The keys of `logit_bias` are sent as text, as the API wants them."""
    assert body(logit_bias={50256: -100})["logit_bias"] == {"50256": -100}


@pytest.mark.parametrize(
    "prompt", ["Say hello", "", ["one", "two"], [""], [1, 2, 3], [[1, 2], [3]], "naïve ☃ 🎈", "\x00 \r\n \u2028"]
)
def test_each_shape_of_prompt_is_sent_as_it_is(prompt):
    """A text, a list of texts, token ids and lists of token ids arrive unchanged."""
    request = CompletionRequest.build(prompt)
    assert json.loads(request.encode())["prompt"] == prompt


@pytest.mark.parametrize(
    ("prompt", "sent"),
    [
        (("one", "two"), ["one", "two"]),
        ((text for text in ("one", "two")), ["one", "two"]),
        (range(3), [0, 1, 2]),
        (((1, 2), (3,)), [[1, 2], [3]]),
        (pd.Series(["one", "two"]), ["one", "two"]),
        (pd.Series([1, 2]), [1, 2]),
    ],
)
def test_any_iterable_of_a_shape_is_that_shape(prompt, sent):
    """Tuples, generators and columns are lists to the API."""
    assert CompletionRequest.build(prompt).prompt == sent


@pytest.mark.parametrize(
    "prompt", [None, 5, b"bytes", {"a": 1}, [], (), ["a", 1], [[]], [[1], ["a"]], [1.5], [True], [None], [["a"]]]
)
def test_a_prompt_of_another_shape_is_refused(prompt):
    """What is no prompt is refused before anything is sent."""
    with pytest.raises(PromptError, match="prompt"):
        CompletionRequest.build(prompt)


@pytest.mark.parametrize("prompt", ["half \ud83d", ["fine", "half \ude00"]])
def test_half_a_surrogate_pair_in_a_prompt_is_refused(prompt):
    """Text that cannot be encoded is a PromptError that says where it is."""
    with pytest.raises(PromptError, match="at character 5"):
        CompletionRequest.build(prompt)


def test_a_field_that_the_table_does_not_know_is_passed_on():
    """Any other body field is sent as it is, since servers have more of them."""
    assert body(top_k=40, guided={"regex": "a+"}, min_p=0) == {
        "prompt": "Say hello",
        "top_k": 40,
        "guided": {"regex": "a+"},
        "min_p": 0,
    }


endless = []
endless.append(endless)


@pytest.mark.parametrize("value", [object, float("nan"), float("inf"), "\ud83d", {1j: 2}, endless], ids=repr)
def test_a_field_that_json_cannot_say_is_refused(value):
    """A value without a JSON form is an error of this side, and never turned into null."""
    with pytest.raises(ConfigurationError, match="JSON"):
        CompletionRequest.build("x", other=value).encode()


@pytest.mark.parametrize(
    ("prompt", "n", "choices"), [("a", None, 1), ("a", 3, 3), (["a", "b"], 3, 6), ([1, 2, 3], 2, 2), ([[1], [2]], 2, 4)]
)
def test_the_server_is_asked_for_prompts_times_n_choices(prompt, n, choices):
    """Token ids are one prompt; lists of them, and lists of texts, are as many as they are long."""
    assert CompletionRequest.build(prompt, n=n).choices == choices


def test_two_equal_requests_are_equal():
    """Requests compare by what they send."""
    assert CompletionRequest.build("x", n=2, top_k=1) == CompletionRequest.build("x", n=2, top_k=1)
    assert CompletionRequest.build("x", n=2) != CompletionRequest.build("x", n=3)


ANSWER = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1700000000,
    "model": "m",
    "choices": [
        {
            "text": "Hello",
            "index": 0,
            "logprobs": {
                "tokens": ["Hel", "lo"],
                "token_logprobs": [None, -0.5],
                "top_logprobs": [None, {"lo": -0.5}],
                "text_offset": [0, 3],
                "token_ids": [7, 8],
            },
            "finish_reason": "stop",
            "stop_reason": 128,
        },
        {"text": "Hi", "index": 1, "logprobs": None, "finish_reason": "length"},
    ],
    "system_fingerprint": "fp",
    "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "cached": {"tokens": 1}},
    "kv_transfer_params": None,
    "provider": {"name": "p"},
}


def test_an_answer_is_read_into_attributes():
    """Every field of the API is an attribute."""
    completion = Completion.from_dict(ANSWER)
    assert (completion.id, completion.created, completion.model) == ("cmpl-1", 1700000000, "m")
    assert completion.system_fingerprint == "fp"
    assert completion.text == str(completion) == "Hello"
    assert completion.texts == ["Hello", "Hi"]
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "length"]
    assert completion.choices[0].logprobs.token_logprobs == [None, -0.5]
    assert completion.usage.total_tokens == 5


def test_fields_that_the_api_does_not_name_are_kept():
    """Unknown fields of the answer, a choice, its logprobs and the usage are in `extra`, and written back."""
    completion = Completion.from_dict(ANSWER)
    assert completion.extra == {"kv_transfer_params": None, "provider": {"name": "p"}}
    assert completion.choices[0].extra == {"stop_reason": 128}
    assert completion.choices[0].logprobs.extra == {"token_ids": [7, 8]}
    assert completion.usage.extra == {"cached": {"tokens": 1}}
    assert completion.to_dict() == ANSWER


SCORES = {"tokens": [" a"], "token_logprobs": [-1], "top_logprobs": [{" a": -1.0}], "text_offset": [3]}


USUAL = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "system_fingerprint": "fp"}
USUAL_CHOICE = {"text": "a", "index": 0, "finish_reason": None, "logprobs": SCORES}
ODD = {
    "id": ["", None, 5],
    "object": ["", None, "error", "text_completion.chunk"],
    "created": [None, 1.0, 1.5, 2**70, True, "today"],
    "model": [None, 7],
    "usage": [None, {"prompt_tokens": 1}, {"prompt_tokens": None}, {"total_tokens": 2.0}, {"cost": 1}, {}, []],
    "system_fingerprint": ["", None],
    "extra": [{"a": 1}, {}],
    "request": [None, {"prompt": "x"}],
    "timings": [{"predicted_ms": 5}],
    "choices": [[], None, {}, [USUAL_CHOICE, {"text": "b", "index": 1}], [5]],
}
ODD_CHOICE = {
    "text": ["", None, 5, "\u2028", "\U0001f600"],
    "index": [1, None, 2.0, True, -1, "0"],
    "finish_reason": ["stop", "", 3],
    "logprobs": [None, {**SCORES, "top_logprobs": None}, {**SCORES, "bytes": [1]}, {"extra": {"a": 1}}, {}, 5],
    "extra": [{"a": 1}, {}],
    "stop_reason": [None],
}


def changed(usual, odd):
    """Return `usual` with each of its fields left out, and with each odd field."""
    yield from ({name: value for name, value in usual.items() if name != absent} for absent in usual)
    yield from ({**usual, name: value} for name, values in odd.items() for value in values)


CHUNKS = [
    {**USUAL, "choices": [USUAL_CHOICE]},
    *({"choices": [USUAL_CHOICE], **named} for named in changed(USUAL, ODD)),
    *({**USUAL, "choices": [one]} for one in changed(USUAL_CHOICE, ODD_CHOICE)),
    USUAL,
    {},
]


@pytest.mark.parametrize("chunk", CHUNKS, ids=json.dumps)
def test_chunks_that_are_read_together_are_what_each_is_by_itself(chunk):
    """Whatever fields a chunk has, reading it among others gives what reading it alone does, or leaves it to that."""
    plain = {"choices": [{"text": "b"}]}
    together = Completion.from_chunks([json.dumps(one).encode() for one in (plain, chunk, plain)])
    if together is not None:
        assert list(map(repr_of, together)) == [repr_of(Completion.from_dict(one)) for one in (plain, chunk, plain)]
        assert together[1].object == "text_completion"
        assert together[1].choices


def test_usual_chunks_are_read_together():
    """A chunk with every field that the API names, and one with only some, are not left to be read alone."""
    usual = {**USUAL, "choices": [USUAL_CHOICE], "usage": None}
    assert Completion.from_chunks([json.dumps(usual).encode(), b'{"choices":[{"text":"b"}]}']) is not None


def repr_of(completion):
    """Return all that a completion holds, with the types of its values."""
    return repr([getattr(completion, name) for name in completion.__struct_fields__ if name != "choices"]) + "".join(
        repr([getattr(choice, name) for name in choice.__struct_fields__]) for choice in completion.choices
    )


@pytest.mark.parametrize(
    "odd", [b'{"choices":[{"text":"\\ud83d"}]}', b'{"choices":[{"text":"\xff"}]}', b"[DONE]", b"", b"{}{}"]
)
def test_what_is_no_plain_json_is_left_to_be_read_alone(odd):
    """Halves of characters, bytes that are no UTF-8, the end, nothing, and two values are not read among others."""
    plain = b'{"choices":[{"text":"a"}]}'
    assert [one.text for one in Completion.from_chunks([plain, plain])] == ["a", "a"]
    assert Completion.from_chunks([plain, odd, plain]) is None


def test_unknown_fields_survive_the_sum():
    """Adding chunks loses none of the fields that the API does not name."""
    assert Completion.sum([Completion.from_dict(ANSWER)]).to_dict() == ANSWER


def test_the_kind_of_object_survives_the_sum():
    """A server that calls its answer something else is quoted, not corrected."""
    chunk = Completion(object="text_completion.chunk", choices=[Choice("a", 0, "stop")])
    assert Completion.sum([chunk]) == chunk


def test_missing_and_null_fields_are_taken_as_unknown():
    """Real servers leave out, or send null for, every field at times."""
    null = dict.fromkeys(["id", "created", "model", "usage", "system_fingerprint", "object"])
    choice = dict.fromkeys(["text", "index", "logprobs", "finish_reason"])
    expected = Completion(choices=[Choice("", 0, None, None)])
    assert Completion.from_dict({**null, "choices": [choice]}) == Completion.from_dict({"choices": [{}]}) == expected


@pytest.mark.parametrize("choices", ["text", {"0": {}}, [None], ["text"], 5])
def test_choices_of_another_shape_are_a_decode_error(choices):
    """Choices that are no list of objects are refused, not guessed at."""
    with pytest.raises(DecodeError, match="choices"):
        Completion.from_dict({"choices": choices})


@pytest.mark.parametrize("created", [float("inf"), float("nan"), "yesterday", [1], {}])
def test_a_date_that_is_none_is_taken_as_unknown(created):
    """A strange `created` costs the date, not the answer."""
    completion = Completion.from_dict({"created": created, "choices": [{"text": "Hello"}]})
    assert (completion.created, completion.text) == (0, "Hello")


@pytest.mark.parametrize(
    "odd",
    [
        {"tokens": [None, 5], "token_logprobs": ["-0.5", None], "top_logprobs": ["x", [1]], "text_offset": ["0", None]},
        {"tokens": ["Hel", "lo"], "token_logprobs": [-0.5], "top_logprobs": [{"lo": None}, {"lo": "x"}]},
        {"tokens": {"0": "Hello"}, "token_logprobs": 5, "top_logprobs": "x", "text_offset": None},
        {"content": [{"token": "Hello", "logprob": -0.5}]},
        [],
        "x",
        5,
    ],
)
def test_logprobs_of_another_shape_cost_no_more_than_themselves(odd):
    """What a server sends as logprobs never stands in the way of the text, the record or the frame."""
    completion = Completion.from_dict({"choices": [{"text": "Hello", "logprobs": odd}]})
    assert Completion.sum([completion, completion]).text == "HelloHello"
    assert completion.to_frame()["text"].tolist() == ["Hello"]
    assert set(record(completion)) == {"text/plain", "text/html"}


@pytest.mark.parametrize(
    ("reasons", "finished"),
    [
        ([], False),
        (["stop"], True),
        (["length", "content_filter"], True),
        (["stop", None], False),
        ([""], False),
        (["interrupted"], False),
        (["stopped"], False),
        (["stop", "error"], False),
    ],
)
def test_finished_is_true_only_when_the_server_ended_every_choice(reasons, finished):
    """A choice without a finish_reason, or with one of ours, makes the completion unfinished."""
    assert Completion(choices=[Choice("a", at, reason) for at, reason in enumerate(reasons)]).finished is finished


def test_an_answer_without_choices_has_an_empty_text():
    """`text` and `texts` of nothing are nothing, and no IndexError."""
    assert (Completion().text, Completion().texts) == ("", [])


# -- sums ------------------------------------------------------------------------------------------------------------

tokens = st.tuples(
    st.text(max_size=3),
    st.none() | st.floats(-9, 0),
    st.none() | st.dictionaries(st.text(max_size=3), st.floats(-9, 0), max_size=2),
    st.integers(0, 99),
)


def scored(entries):
    """Return logprobs of `entries`: tokens, their log-probabilities, the alternatives, the offsets."""
    return Logprobs(*(list(column) for column in zip(*entries, strict=True))) if entries else Logprobs()


@st.composite
def answers_in_chunks(draw):
    """Draw an answer and its chunks: one choice's in their order, those of different choices in any."""
    pieces = st.tuples(st.text(max_size=4), st.lists(tokens, max_size=2))
    choices = draw(
        st.dictionaries(st.integers(0, 200), st.lists(pieces, min_size=1, max_size=4), min_size=1, max_size=3)
    )
    with_scores = draw(st.booleans())
    reasons = {index: draw(st.sampled_from(["stop", "length", "content_filter"])) for index in choices}
    usage = draw(st.none() | st.builds(Usage, st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)))
    order = draw(st.permutations([index for index, parts in choices.items() for _ in parts]))
    named = {"id": "cmpl-1", "created": 1, "model": "m"}
    left = {index: list(parts) for index, parts in choices.items()}
    chunks = []
    for index in order:
        text, entries = left[index].pop(0)
        reason = None if left[index] else reasons[index]
        choice = Choice(text, index, reason, scored(entries) if with_scores else None)
        chunks.append(Completion(**named, choices=[choice]))
    if usage is not None:
        chunks.append(Completion(**named, choices=[], usage=usage))
    whole = Completion(
        **named,
        choices=[
            Choice(
                "".join(text for text, _ in choices[index]),
                index,
                reasons[index],
                scored([entry for _, entries in choices[index] for entry in entries]) if with_scores else None,
            )
            for index in sorted(choices)
        ],
        usage=usage,
    )
    return whole, chunks


@relaxed
@given(answers_in_chunks())
def test_the_sum_of_the_chunks_is_the_answer_in_any_interleaving(case):
    """Texts and logprobs are joined by choice index, whatever order the choices' chunks come in."""
    whole, chunks = case
    assert Completion.sum(chunks) == whole


@relaxed
@given(answers_in_chunks(), st.data())
def test_it_does_not_matter_how_a_sum_is_grouped(case, data):
    """Adding two parts gives what adding all chunks gives, and changes neither part."""
    whole, chunks = case
    cut = data.draw(st.integers(1, len(chunks)))
    left, right = Completion.sum(chunks[:cut]), Completion.sum(chunks[cut:])
    before = copy.deepcopy((left, right))
    assert (left + right if cut < len(chunks) else left) == whole
    assert (left, right) == before


@relaxed
@given(answers_in_chunks())
def test_adding_changes_no_chunk(case):
    """A chunk that was handed on stays what it was."""
    _, chunks = case
    before = copy.deepcopy(chunks)
    Completion.sum(chunks)
    assert chunks == before


@relaxed
@given(answers_in_chunks())
def test_an_answer_survives_being_written_and_read(case):
    """`to_dict`, JSON and `from_dict` give the same answer back."""
    whole, _ = case
    again = Completion.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again == whole
    assert (again.choices, again.usage) == (whole.choices, whole.usage)


def test_usage_of_zero_does_not_replace_what_is_known():
    """Some servers send 0/0/0 in every chunk."""
    zero, real = Usage(0, 0, 0), Usage(1, 2, 3)
    choice = Choice("a", 0, "stop")
    for usages in ([zero, real, zero], [zero, zero, real], [real, zero, None]):
        assert Completion.sum(Completion(choices=[choice], usage=usage) for usage in usages).usage == real


def test_a_later_chunk_fills_in_what_an_earlier_one_left_out():
    """Identity comes from whichever chunk has it: a first chunk may lack all of it."""
    bare = Completion(choices=[Choice("Hel")])
    named = Completion("cmpl-1", "text_completion", 1, "m", [Choice("lo", 0, "stop")], None, "fp", {"provider": "p"})
    total = bare + named
    assert total == Completion(
        "cmpl-1", "text_completion", 1, "m", [Choice("Hello", 0, "stop")], None, "fp", {"provider": "p"}
    )


def test_the_request_of_a_chunk_is_the_request_of_the_sum():
    """What was asked is known of the whole answer when it is known of a part."""
    request = CompletionRequest.build("x", model="m")
    chunk = Completion(choices=[Choice("a")], request=request)
    assert Completion.sum([chunk, Completion(choices=[Choice("b")])]).request == request


# -- the object ------------------------------------------------------------------------------------------------------


def test_completions_compare_by_what_the_server_said():
    """Two equal answers are equal, whoever asked; another text or an unknown field makes a difference."""
    one, same = Completion.from_dict(ANSWER), Completion.from_dict(ANSWER)
    same.request = CompletionRequest.build("x")
    assert one == same
    assert one != Completion.from_dict({**ANSWER, "provider": None})
    assert one != Completion.from_dict({**ANSWER, "choices": []})
    assert one != "Hello"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_a_completion_can_be_copied_and_pickled(copied):
    """The copy equals the original, request and unknown fields included."""
    completion = Completion.from_dict(ANSWER)
    completion.request = CompletionRequest.build(["a", "b"], model="m", temperature=0.5, top_k=3)
    other = copied(completion)
    assert other == completion
    assert other.request == completion.request
    assert other.request.encode() == completion.request.encode()


def test_a_deep_copy_shares_nothing():
    """Changing a deep copy leaves the original alone."""
    completion = Completion.from_dict(ANSWER)
    other = copy.deepcopy(completion)
    other.choices[0].text = "changed"
    other.extra["provider"]["name"] = "changed"
    assert completion.to_dict() == ANSWER


def test_two_answers_share_no_default():
    """An answer's lists and extras are its own."""
    Completion().choices.append(Choice())
    Completion().extra["a"] = 1
    assert (Completion().choices, Completion().extra) == ([], {})


def test_a_repr_is_one_short_line():
    """The repr shows the text, shortened, how it ended, and how many choices there are."""
    completion = Completion(choices=[Choice("line\n" * 999, 0, "length"), Choice("b", 1, "stop")])
    assert "\n" not in repr(completion)
    assert len(repr(completion)) < 140
    assert repr(completion).startswith("Completion('line\\n")
    assert repr(completion).endswith("choices=2, finish_reason='length')")


def test_a_frame_has_one_row_a_choice():
    """`to_frame` gives text, finish_reason, number of scored tokens and their sum, by index."""
    frame = Completion.from_dict(ANSWER).to_frame()
    assert list(frame.columns) == ["text", "finish_reason", "tokens", "logprob"]
    assert frame.index.name == "index"
    assert frame["text"].to_dict() == {0: "Hello", 1: "Hi"}
    assert frame["finish_reason"].to_dict() == {0: "stop", 1: "length"}
    assert frame.loc[0, ["tokens", "logprob"]].tolist() == [1, -0.5]
    assert frame.loc[1, ["tokens", "logprob"]].isna().all()


def test_a_frame_of_no_choices_is_empty():
    """An answer without choices has a frame with the same columns and no row."""
    frame = Completion().to_frame()
    assert (len(frame), list(frame.columns)) == (0, ["text", "finish_reason", "tokens", "logprob"])


def test_a_frame_without_pandas_says_what_to_install():
    """Where pandas is missing the error holds the command that brings it."""
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "from completions_magic.schema import Completion\n"
        "from completions_magic.errors import ConfigurationError\n"
        "try: Completion().to_frame()\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'completions-magic[frame]'" in done.stdout


@pytest.mark.parametrize(
    "listed",
    [
        {"object": "list", "data": [{"id": "a", "owned_by": "o", "created": 1}, {"id": "b"}]},
        {"data": [{"id": "a"}, {"id": "b", "created": None}]},
        {"models": [{"name": "a"}, {"name": "b"}]},
        ["a", "b"],
    ],
)
def test_models_are_read_in_every_shape(listed):
    """The lists of models that servers send are read."""
    assert [model.id for model in read_models(listed)] == ["a", "b"]


@pytest.mark.parametrize("listed", [None, 5, "a", {}, {"data": None}, {"error": "no"}])
def test_what_lists_no_models_is_a_decode_error(listed):
    """An answer that is no list of models is refused in words."""
    with pytest.raises(DecodeError, match="models"):
        read_models(listed)


def test_any_field_may_have_any_name():
    """A body field that is called as Python's own `self` and `cls` is passed on like any other."""
    body = CompletionRequest.build("x", cls=1, self=2).body()
    assert (body["cls"], body["self"]) == (1, 2)
