"""The embedded endpoint in process: every parameter of the completions API acts as documented."""

import itertools
import json
import math
from functools import cache

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions_magic.local.app import BODY_LIMIT, App
from completions_magic.local.model import CONTEXT_LENGTH, NAME, pocket

briefly = settings(max_examples=80, deadline=None, database=None, derandomize=True)

STORY = "Once upon a time there was a fox"
TRANSLATION = "Translate English to French:\n\nsister => la sœur\nwindow => la fenêtre\nto write =>"
PARIS = "Q: What is the capital of France?\nA: Paris."


def post(path, content):
    """POST `content`, JSON or bytes, to the application; return the response."""
    with httpx.Client(transport=httpx.WSGITransport(App(aliases=["davinci-002"])), base_url="http://localhost") as http:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        return http.post(path, content=content, headers={"Content-Type": "application/json"})


def request(**body):
    """POST a completion request of the pocket model; return the response."""
    return post("/v1/completions", {"model": NAME, "prompt": STORY, "seed": 1, **body})


def complete(**body):
    """Return the answer of a completion request, checked against the specification."""
    response = request(**body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    check_completion(answer)
    check_usage(answer["usage"])
    assert all(choice["finish_reason"] in ("stop", "length") for choice in answer["choices"])
    return answer


def choice_of(**body):
    """Return the only choice of the answer."""
    (choice,) = complete(**body)["choices"]
    return choice


def text_of(**body):
    """Return the text of the only choice of the answer."""
    return choice_of(**body)["text"]


def stream(**body):
    """Return the chunks of a streamed answer, checked against the specification."""
    response = request(stream=True, **body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, nothing = response.content.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events]
    for chunk in chunks:
        check_completion(chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    return chunks


def joined(chunks):
    """Return the choices that streamed chunks add up to, by index."""
    choices = {}
    for piece in (piece for chunk in chunks for piece in chunk["choices"]):
        whole = choices.setdefault(
            piece["index"], {"text": "", "index": piece["index"], "logprobs": None, "finish_reason": None}
        )
        assert whole["finish_reason"] is None, "a choice goes on after its end"
        whole["text"] += piece["text"]
        whole["finish_reason"] = piece["finish_reason"]
        if piece["logprobs"] is not None:
            whole["logprobs"] = whole["logprobs"] or {name: [] for name in piece["logprobs"]}
            for name, values in piece["logprobs"].items():
                whole["logprobs"][name] += values
    return [choices[index] for index in sorted(choices)]


def check_completion(answer):
    """Check an answer or a chunk against CreateCompletionResponse of the public specification."""
    assert set(answer) <= {
        "id",
        "object",
        "created",
        "model",
        "choices",
        "system_fingerprint",
        "usage",
        "logprobs_mode",
    }
    assert isinstance(answer["id"], str)
    assert answer["object"] == "text_completion"
    assert type(answer["created"]) is int
    assert isinstance(answer["model"], str)
    assert isinstance(answer["system_fingerprint"], str)
    for choice in answer["choices"]:
        assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
        assert isinstance(choice["text"], str)
        assert type(choice["index"]) is int
        assert choice["finish_reason"] in ("stop", "length", None)
        if choice["logprobs"] is not None:
            check_logprobs(choice["logprobs"])


def check_logprobs(logprobs):
    """Check the four lists: of one length, of the right types."""
    assert set(logprobs) == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert len({len(values) for values in logprobs.values()}) == 1
    assert all(isinstance(token, str) for token in logprobs["tokens"])
    assert all(type(offset) is int for offset in logprobs["text_offset"])
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])
    for token, score, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert (score is None) == (top is None)
        if top is not None:
            assert score <= 0
            assert top[token] == score
            assert all(value <= 0 for value in top.values())


def check_usage(usage):
    """Check that the three counts are there and add up."""
    assert set(usage) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert all(type(count) is int for count in usage.values())
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def check_error(response, status, param, *words):
    """Check that a response is an error object of the public specification, without a trace or a path."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert list(response.json()) == ["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    assert isinstance(error["code"], str | None)
    assert error["param"] == param
    assert len(error["message"]) < 500
    for word in words:
        assert word in error["message"]
    for leak in ("Traceback", "completions_magic", ".py", "Error("):
        assert leak not in error["message"]


def tokenize(text):
    """Return the token ids of `text`, as the endpoint says them."""
    return post("/tokenize", {"prompt": text}).json()["tokens"]


def token_id(text):
    """Return the id of the one token that `text` is."""
    (token,) = tokenize(text)
    return token


# --- The shape of an answer


def test_the_documented_request_has_the_documented_answer():
    """The first example of the documentation gets an answer of the documented shape."""
    answer = complete(prompt="Write a tagline for an AI company:", max_tokens=50, temperature=0.7)
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == NAME
    assert answer["choices"][0]["index"] == 0
    assert answer["choices"][0]["text"].strip()
    assert answer["created"] > 1_700_000_000


def test_every_answer_has_its_own_id():
    """Two answers to one request are told apart."""
    assert len({complete()["id"] for _ in range(5)}) == 5


def test_an_alias_is_answered_under_its_own_name():
    """A further name of the model works like the model's own, and comes back in the answer."""
    response = post("/v1/completions", {"model": "davinci-002", "prompt": STORY, "seed": 1})
    assert response.json()["model"] == "davinci-002"
    assert response.json()["choices"][0]["text"] == text_of()


def test_the_models_are_listed():
    """GET /v1/models names the model and its aliases, as the specification says; each has a page of its own."""
    with httpx.Client(transport=httpx.WSGITransport(App(aliases=["other/name"])), base_url="http://localhost") as http:
        listed = http.get("/v1/models").json()
        assert listed["object"] == "list"
        assert [model["id"] for model in listed["data"]] == [NAME, "other/name"]
        for model in listed["data"]:
            assert set(model) == {"id", "object", "created", "owned_by"}
            assert model["object"] == "model"
            assert type(model["created"]) is int
            assert http.get(f"/v1/models/{model['id']}").json() == model


def test_the_fingerprint_is_the_models():
    """It says by which model and settings an answer was made."""
    assert complete()["system_fingerprint"] == pocket().fingerprint


# --- max_tokens, temperature, top_p, seed, n


def test_sixteen_tokens_are_the_default():
    """Without max_tokens an answer has at most sixteen tokens, and says that it was cut off."""
    answer = complete(logit_bias={"0": -100})
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("wanted", [1, 2, 40])
def test_max_tokens_is_the_most(wanted):
    """An answer that does not end by itself has exactly max_tokens tokens."""
    answer = complete(max_tokens=wanted, logprobs=0, logit_bias={"0": -100})
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == wanted
    assert answer["usage"]["completion_tokens"] == wanted
    assert answer["choices"][0]["finish_reason"] == "length"


def test_an_answer_that_is_over_ends_with_stop():
    """Where the text ends before max_tokens the finish_reason is stop."""
    choice = choice_of(prompt="Q: What is the capital of France?\nA:", temperature=0)
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == " Paris."


def test_a_longer_answer_begins_as_the_shorter():
    """max_tokens changes where an answer ends, nothing else."""
    assert text_of(max_tokens=60).startswith(text_of(max_tokens=10))


def test_temperature_zero_needs_no_seed():
    """Greedy answers are always the same."""
    assert len({text_of(temperature=0, seed=seed) for seed in (None, 1, 2)}) == 1


def test_temperature_widens_the_choice():
    """The warmer, the more different answers, and the less likely ones."""
    colours = {
        temperature: [choice_of(temperature=temperature, seed=seed, logprobs=0) for seed in range(12)]
        for temperature in (0.2, 1, 2)
    }
    means = {temperature: sum(map(mean_logprob, choices)) for temperature, choices in colours.items()}
    different = {temperature: len({choice["text"] for choice in choices}) for temperature, choices in colours.items()}
    assert means[0.2] > means[1] > means[2]
    assert different[0.2] < different[2] == 12


def test_top_p_zero_is_greedy():
    """The smallest nucleus is the likeliest token alone."""
    assert text_of(top_p=0, temperature=1.5) == text_of(temperature=0)


def test_top_p_draws_from_the_nucleus_alone():
    """Every token is among the likeliest that hold top_p."""
    logprobs = choice_of(top_p=0.5, max_tokens=60, logprobs=5000)["logprobs"]
    for score, top in zip(logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        likelier = sum(math.exp(value) for value in top.values() if value > score)
        assert likelier < 0.5 * sum(map(math.exp, top.values())) + 1e-9


def test_the_same_seed_gives_the_same_answer():
    """A seed makes an answer repeatable, the largest and the smallest too."""
    for seed in (0, 7, 2**63 - 1, -(2**63)):
        assert text_of(seed=seed, max_tokens=30) == text_of(seed=seed, max_tokens=30)


def test_without_a_seed_answers_differ():
    """No seed means chance."""
    assert len({text_of(seed=None, max_tokens=30) for _ in range(10)}) > 3


def test_n_choices_are_different_samples():
    """Each of the n choices is a sample of its own, in the order of their index."""
    choices = complete(n=20, max_tokens=30)["choices"]
    assert [choice["index"] for choice in choices] == list(range(20))
    assert len({choice["text"] for choice in choices}) > 10


def test_more_choices_do_not_change_the_first():
    """A choice is the same whether others grow beside it or not."""
    assert complete(n=5)["choices"][:2] == complete(n=2)["choices"]


def test_the_prompt_is_not_changed():
    """Blanks and line ends at the ends of a prompt count: nothing is stripped."""
    answers = [complete(prompt=prompt, echo=True, max_tokens=1)["choices"][0]["text"] for prompt in ("a", " a\n\n ")]
    assert answers[1].startswith(" a\n\n ")
    assert tokenize("a") != tokenize("a ")


# --- stop


TALKS = [STORY, TRANSLATION]
TALKING = {"max_tokens": 70, "seed": 4, "logit_bias": {"0": -100}}


@cache
def unstopped(prompt):
    """Return what `stopped` gives without a stop text."""
    return text_of(prompt=prompt, **TALKING)


def stopped(prompt, stop):
    """Return the text and the finish_reason of the same answer, ended by `stop`."""
    choice = choice_of(prompt=prompt, stop=stop, **TALKING)
    return choice["text"], choice["finish_reason"]


@st.composite
def stops(draw):
    """Cut one to four stop texts out of the answers below."""
    text = unstopped(draw(st.sampled_from(TALKS)))
    chosen = []
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text) - 1))
        chosen.append(text[start : start + draw(st.integers(1, 12))])
    return chosen


@briefly
@given(st.sampled_from(TALKS), st.integers(0, 400), st.integers(1, 25))
def test_the_text_ends_before_the_stop_text(prompt, start, length):
    """Wherever the stop text begins and however many tokens it spans, the answer ends exactly before it."""
    whole = unstopped(prompt)
    start %= len(whole)
    stop = whole[start : start + length]
    assert stopped(prompt, stop) == (whole[: whole.index(stop)], "stop")


@briefly
@given(stops())
def test_the_first_of_several_stop_texts_ends_the_text(chosen):
    """The answer is the text up to one of the stop texts, and holds none of them, whichever answer they are from."""
    for prompt in TALKS:
        whole = unstopped(prompt)
        text, reason = stopped(prompt, chosen)
        assert whole.startswith(text)
        assert not any(stop in text for stop in chosen)
        if any(stop in whole for stop in chosen):
            assert reason == "stop"
            assert any(whole.startswith(stop, len(text)) for stop in chosen)
        else:
            assert (text, reason) == (whole, "length")


@briefly
@given(stops())
def test_nothing_of_a_stop_text_is_streamed(chosen):
    """What is streamed is never taken back: it adds up to the answer that ends before the stop text."""
    for prompt in TALKS:
        (choice,) = joined(stream(prompt=prompt, stop=chosen, **TALKING))
        assert (choice["text"], choice["finish_reason"]) == stopped(prompt, chosen)


def test_a_stop_text_may_be_one_text_or_a_list_of_four():
    """The two ways to write one stop text are the same; others that do not occur change nothing."""
    stop = unstopped(STORY)[20:24]
    assert stopped(STORY, stop) == stopped(STORY, [stop]) == stopped(STORY, ["\x00", stop, "§§", "never"])


def test_a_beginning_of_a_stop_text_that_does_not_come_is_text():
    """What was held back is given out in the end."""
    stop = unstopped(STORY)[-5:] + "and something else"
    assert stopped(STORY, stop) == (unstopped(STORY), "length")


def test_a_stop_text_that_comes_first_leaves_nothing():
    """An answer that begins with the stop text is empty, and says stop."""
    assert stopped(STORY, unstopped(STORY)[:3]) == ("", "stop")


def test_a_stop_text_in_the_prompt_does_not_count():
    """With echo the prompt is whole; only the completion is looked through."""
    choice = choice_of(stop="Once", echo=True)
    assert choice["text"] == STORY + text_of()


def test_a_stop_text_ends_one_choice_not_the_others():
    """Each choice ends by itself."""
    whole = complete(n=4, max_tokens=30)["choices"]
    stop = whole[2]["text"][5:15]
    ended = complete(n=4, max_tokens=30, stop=stop)["choices"]
    for before, after in zip(whole, ended, strict=True):
        assert after["text"] == before["text"].partition(stop)[0]


def test_the_log_probabilities_end_where_the_text_ends():
    """With a stop text the tokens listed are those that have a part in the text."""
    stop = unstopped(STORY)[40:50]
    choice = choice_of(prompt=STORY, stop=stop, logprobs=0, **TALKING)
    assert "".join(choice["logprobs"]["tokens"]).startswith(choice["text"])
    assert choice["logprobs"]["text_offset"][-1] < len(choice["text"])


# --- echo and logprobs


def test_echo_gives_the_prompt_back_before_the_completion():
    """The text is prompt and completion, both untouched."""
    assert text_of(echo=True) == STORY + text_of()
    assert text_of(echo=False) == text_of()


def test_echo_alone_scores_a_text():
    """With max_tokens 0 the answer is the prompt and the probability of each of its tokens but the first."""
    answer = complete(prompt=PARIS, echo=True, logprobs=0, max_tokens=0)
    (choice,) = answer["choices"]
    assert choice["text"] == PARIS
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert None not in choice["logprobs"]["token_logprobs"][1:]
    assert "".join(choice["logprobs"]["tokens"]) == PARIS
    assert answer["usage"]["completion_tokens"] == 0


def test_echoed_scores_are_the_models():
    """The log-probability of a prompt's token is what the model says after the tokens before it."""
    model = pocket()
    tokens = model.vocabulary.encode(PARIS)
    expected = [model.distribution(model.read(tokens[:at])).logprob(tokens[at]) for at in range(1, len(tokens))]
    logprobs = choice_of(prompt=PARIS, echo=True, logprobs=0, max_tokens=0)["logprobs"]
    assert logprobs["token_logprobs"][1:] == expected


@pytest.mark.parametrize("prompt", [STORY, TRANSLATION, PARIS])
def test_a_generated_token_scores_as_an_echoed_one(prompt):
    """Generating a text and scoring it afterwards gives the same log-probabilities."""
    made = choice_of(prompt=prompt, echo=True, logprobs=2, max_tokens=20, temperature=0.7)
    ids = [*tokenize(prompt), *(token_id(token) for token in made["logprobs"]["tokens"][len(tokenize(prompt)) :])]
    scored = choice_of(prompt=ids, echo=True, logprobs=2, max_tokens=0)
    assert scored["text"] == made["text"]
    assert scored["logprobs"]["token_logprobs"][1:] == pytest.approx(made["logprobs"]["token_logprobs"][1:], abs=1e-9)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 20])
def test_logprobs_lists_the_likeliest_and_the_chosen(count):
    """There are `count` alternatives, and one more where the chosen token is not among them."""
    logprobs = choice_of(logprobs=count, max_tokens=40, temperature=1.5)["logprobs"]
    for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True):
        others = [value for other, value in top.items() if other != token]
        assert len(top) in ({count, count + 1} if count else {1})
        assert len(top) == count or top[token] <= min(others, default=0)


def test_the_alternatives_are_the_models_likeliest():
    """The five alternatives are the five likeliest tokens of the vocabulary, with their log-probabilities."""
    top = choice_of(prompt=PARIS, echo=True, logprobs=5, max_tokens=0)["logprobs"]["top_logprobs"]
    model = pocket()
    tokens = model.vocabulary.encode(PARIS)
    for at in range(1, len(tokens)):
        likeliest = model.distribution(model.read(tokens[:at])).top(5)
        assert {value for _, value in likeliest} <= set(top[at].values())


def test_log_probabilities_are_declared_as_the_models_own():
    """An answer with log-probabilities says in vLLM's word that they are raw; others say nothing."""
    assert complete(logprobs=0)["logprobs_mode"] == "raw_logprobs"
    assert {chunk["logprobs_mode"] for chunk in stream(logprobs=0)} == {"raw_logprobs"}
    assert "logprobs_mode" not in complete()


def test_no_logprobs_are_null():
    """Without the parameter the key is there, and null."""
    assert choice_of()["logprobs"] is None
    assert choice_of(logprobs=None)["logprobs"] is None


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", [STORY, TRANSLATION, "", "日本語 é"])
def test_text_offset_says_where_a_token_begins(prompt, echo):
    """At each token's offset the text goes on with it; offsets count characters, from the prompt's start if echoed."""
    choice = choice_of(prompt=prompt, echo=echo, logprobs=1, max_tokens=30)
    text = choice["text"] if echo else prompt + choice["text"]
    start = 0 if echo else len(prompt)
    offsets = choice["logprobs"]["text_offset"]
    if not echo:
        offsets = [offset + start for offset in offsets]
    assert offsets[0] == start
    for token, offset in zip(choice["logprobs"]["tokens"], offsets, strict=True):
        if not token.startswith("bytes:"):
            assert text.startswith(token, offset)


def test_text_offset_holds_for_tokens_that_are_no_text():
    """Bytes that make no character count as the characters that stand for them in the text."""
    choice = choice_of(prompt=[256, 98, 129, 98], echo=True, logprobs=0, max_tokens=0)
    assert choice["text"] == "\ufffda\ufffda"
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]


def test_a_part_of_a_character_is_written_as_bytes():
    """A token that is no whole character is named by its bytes, and the text holds whole characters only."""
    pieces = [byte + 1 for byte in "œ".encode()]
    choice = choice_of(prompt=[*pieces, 98], echo=True, logprobs=0, max_tokens=0)
    assert choice["text"] == "œa"
    assert choice["logprobs"]["tokens"] == ["bytes:\\xc5", "bytes:\\x93", "a"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1]


def test_only_whole_characters_are_text():
    """The text is the bytes of all tokens read as UTF-8, streamed and whole, however a character is cut into tokens."""
    bias = {str(byte + 1): 100 for byte in "œ日".encode()}
    body = {"max_tokens": 60, "logprobs": 0, "temperature": 2, "frequency_penalty": 2, "logit_bias": bias}
    choice = choice_of(**body)
    spelled = [bytes.fromhex(token.removeprefix("bytes:\\x")) for token in choice["logprobs"]["tokens"]]
    assert choice["text"] == b"".join(spelled).decode(errors="replace")
    assert set(choice["text"]) > {"\ufffd"}
    assert joined(stream(**body)) == [choice]


def text_of_chunk(chunk):
    """Return the text of the choices of one chunk."""
    return "".join(choice["text"] for choice in chunk["choices"])


# --- logit_bias and penalties


def test_a_bias_of_minus_100_bans_a_token():
    """The banned token does not occur, however likely it was."""
    the = token_id(" the")
    free = choice_of(max_tokens=200, logprobs=0)["logprobs"]["tokens"]
    bound = choice_of(max_tokens=200, logprobs=0, logit_bias={str(the): -100})["logprobs"]["tokens"]
    assert " the" in free
    assert " the" not in bound


def test_a_bias_of_100_forces_a_token():
    """Nothing else is drawn."""
    assert text_of(logit_bias={str(token_id(" cat")): 100}) == " cat" * 16


def test_a_bias_on_the_end_of_the_text_decides_its_length():
    """Banned, a text goes on up to max_tokens; forced, it ends after the one token that every answer has."""
    assert complete(max_tokens=200, logit_bias={"0": -100})["usage"]["completion_tokens"] == 200
    ended = complete(max_tokens=200, logit_bias={"0": 100})
    assert ended["usage"]["completion_tokens"] == 1
    assert ended["choices"][0]["finish_reason"] == "stop"


def test_only_two_answers_are_left():
    """Two forced tokens are drawn in proportion to their own probabilities: a closed question."""
    yes, no = token_id(" yes"), token_id(" no")
    answers = complete(n=40, max_tokens=1, logit_bias={str(yes): 100, str(no): 100})["choices"]
    assert {choice["text"] for choice in answers} <= {" yes", " no"}


@pytest.mark.parametrize(
    ("presence", "frequency"), [(0, 0), (2, 0), (0, 2), (1, 0.5), (-2, 0), (0, -2), (0.3, -0.3), (2, 2)]
)
def test_penalties_are_taken_from_the_log_probabilities(presence, frequency):
    """At temperature 0 each token is the best after presence, and frequency times its count so far, are taken off."""
    choice = choice_of(
        temperature=0,
        max_tokens=25,
        logprobs=5000,
        logit_bias={"0": -100},
        presence_penalty=presence,
        frequency_penalty=frequency,
    )
    tokens, tops = choice["logprobs"]["tokens"], choice["logprobs"]["top_logprobs"]
    for at, top in enumerate(tops):
        counts = {token: tokens[:at].count(token) for token in tokens[:at]}
        values = {
            token: value - (presence if token in counts else 0) - frequency * counts.get(token, 0)
            for token, value in top.items()
            if token != "<|endoftext|>"
        }
        assert values[tokens[at]] == pytest.approx(max(values.values()), abs=1e-9)


def test_penalties_change_how_much_a_text_repeats():
    """Above 0 fewer tokens occur again, below 0 more."""

    def different(**penalties):
        """Return how many different tokens ten texts have on average."""
        choices = complete(n=10, max_tokens=80, logprobs=0, logit_bias={"0": -100}, **penalties)["choices"]
        return sum(len(set(choice["logprobs"]["tokens"])) for choice in choices)

    for name in ("presence_penalty", "frequency_penalty"):
        assert different(**{name: 2}) > different() > different(**{name: -2})


# --- best_of


def mean_logprob(choice):
    """Return the log-probability per token."""
    return sum(choice["logprobs"]["token_logprobs"]) / len(choice["logprobs"]["token_logprobs"])


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_best_of_returns_the_likeliest_per_token(n, seed):
    """Of `best_of` samples those n come back that have the highest mean log-probability, the best first."""
    samples = complete(n=6, max_tokens=25, logprobs=0, seed=seed)["choices"]
    best = sorted(samples, key=mean_logprob, reverse=True)[:n]
    answer = complete(n=n, best_of=6, max_tokens=25, logprobs=0, seed=seed)
    assert [choice["text"] for choice in answer["choices"]] == [choice["text"] for choice in best]
    assert [choice["index"] for choice in answer["choices"]] == list(range(n))


@pytest.mark.parametrize("seed", range(6))
def test_echo_does_not_change_what_is_best(seed):
    """The prompt's tokens have no part in the choice of the best completion."""
    body = {"prompt": "Q: What is the capital of France?\nA:", "best_of": 8, "max_tokens": 25, "seed": seed}
    assert text_of(**body, echo=True) == body["prompt"] + text_of(**body)


def test_best_of_shows_log_probabilities_only_when_asked():
    """The choice is made by them, but they are shown on request."""
    assert choice_of(best_of=3)["logprobs"] is None
    assert choice_of(best_of=3, logprobs=1)["logprobs"] is not None


def test_best_of_is_for_each_prompt():
    """With several prompts each has its n best, grouped."""
    prompts = ["Q: What is the capital of France?\nA:", "Q: What is the capital of Italy?\nA:"]
    choices = complete(prompt=prompts, n=2, best_of=4, temperature=0.2)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"].split(".")[0] for choice in choices] == [" Paris", " Paris", " Rome", " Rome"]


# --- suffix


def test_a_suffix_follows_better_than_without():
    """Prompt, completion and suffix together score better when the suffix was known."""
    prompt, suffix = "Once upon a time there was a", " and the king was very happy."
    score = {None: 0.0, suffix: 0.0}
    for seed in range(10):
        for known in score:
            middle = text_of(prompt=prompt, suffix=known, seed=seed, max_tokens=12)
            start = prompt + middle
            scored = choice_of(prompt=start + suffix, echo=True, logprobs=0, max_tokens=0)["logprobs"]
            score[known] += sum(
                value
                for value, offset in zip(scored["token_logprobs"], scored["text_offset"], strict=True)
                if offset >= len(start)
            )
    assert score[suffix] > score[None]


def test_the_suffix_is_not_part_of_the_answer():
    """It is where the answer leads to; the person has it already. With echo the prompt comes first, as always."""
    suffix = "\n\nQ: What is the capital of Italy?"
    plain = choice_of(prompt="Q: What is the capital of France?\nA:", suffix=suffix, max_tokens=20)
    assert not plain["text"].endswith(suffix)
    assert " Paris" in plain["text"]
    echoed = text_of(prompt="Q: What is the capital of France?\nA:", suffix=suffix, max_tokens=20, echo=True)
    assert echoed == "Q: What is the capital of France?\nA:" + plain["text"]


def test_a_suffix_knows_its_max_tokens():
    """With a suffix there are at most max_tokens tokens too."""
    for wanted in (1, 3, 30):
        assert complete(suffix=" the end.", max_tokens=wanted)["usage"]["completion_tokens"] <= wanted


# --- Prompts


def test_choices_are_grouped_by_prompt():
    """Prompts times n choices, the index runs on from prompt to prompt."""
    prompts = [f"Q: What is the capital of {country}?\nA:" for country in ("France", "Italy", "Japan")]
    choices = complete(prompt=prompts, n=2, temperature=0)["choices"]
    assert [choice["index"] for choice in choices] == list(range(6))
    assert [choice["text"].split(".")[0] for choice in choices] == [
        " Paris",
        " Paris",
        " Rome",
        " Rome",
        " Tokyo",
        " Tokyo",
    ]


def test_token_ids_are_a_prompt():
    """A prompt may be given by its token ids: the answer is the same."""
    ids = tokenize(STORY)
    assert text_of(prompt=ids) == text_of()
    assert text_of(prompt=ids, echo=True) == text_of(echo=True)
    assert complete(prompt=[ids, ids])["choices"] == complete(prompt=[STORY, STORY])["choices"]


def test_a_list_of_one_is_one_prompt():
    """A text, and a list that holds it, are the same prompt."""
    assert complete(prompt=[STORY])["choices"] == complete()["choices"]


@pytest.mark.parametrize("prompt", [None, ""])
def test_without_a_prompt_a_new_document_begins(prompt):
    """No prompt means the beginning of a document, as the specification says."""
    answer = complete(prompt=prompt, echo=True, logprobs=1)
    assert answer["usage"]["prompt_tokens"] == 0
    assert answer["choices"][0]["text"]


def test_usage_counts_every_prompt_and_every_choice():
    """Prompt tokens are counted once a prompt, completion tokens in all choices."""
    prompts = [STORY, PARIS]
    answer = complete(prompt=prompts, n=3, logprobs=0)
    assert answer["usage"]["prompt_tokens"] == sum(len(tokenize(prompt)) for prompt in prompts)
    assert answer["usage"]["completion_tokens"] == sum(
        len(choice["logprobs"]["tokens"]) for choice in answer["choices"]
    )


# --- Streaming


PROMPTS = {
    "text": lambda: STORY,
    "ids": lambda: tokenize(STORY),
    "list": lambda: [STORY, TRANSLATION],
    "list of ids": lambda: [tokenize(STORY), tokenize(TRANSLATION)],
    "list of one": lambda: [STORY],
    "list of one ids": lambda: [tokenize(STORY)],
}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("logprobs", [None, 0, 3])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("form", PROMPTS)
def test_a_streamed_answer_is_the_whole_answer(form, echo, logprobs, n):
    """In every combination the chunks add up to the answer that is not streamed, usage included."""
    body = {"prompt": PROMPTS[form](), "echo": echo, "logprobs": logprobs, "n": n, "max_tokens": 12}
    whole = complete(**body)
    chunks = stream(**body, stream_options={"include_usage": True})
    assert joined(chunks) == whole["choices"]
    assert chunks[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize(
    "body",
    [
        {"suffix": " and then he went home.", "max_tokens": 30},
        {"stop": [" the", "."], "max_tokens": 60, "n": 3, "logprobs": 1},
        {"prompt": TRANSLATION, "max_tokens": 60, "logprobs": 1},
        {"max_tokens": 0, "echo": True, "logprobs": 2},
        {"max_tokens": 0, "echo": True},
        {"prompt": "", "temperature": 2, "max_tokens": 60, "logprobs": 5},
        {"logit_bias": {str(byte): 20 for byte in range(100, 257)}, "max_tokens": 40, "logprobs": 0},
        {"presence_penalty": 1.5, "frequency_penalty": -1, "top_p": 0.8, "max_tokens": 40},
    ],
)
def test_a_streamed_answer_is_the_whole_answer_with_every_parameter(body):
    """Other parameters too act the same streamed and whole, broken characters included."""
    assert joined(stream(**body)) == complete(**body)["choices"]


def test_tokens_are_streamed_one_by_one():
    """A chunk holds little: about one token, not the answer at once."""
    chunks = stream(max_tokens=40)
    assert len(chunks) > 30
    assert max(len(text_of_chunk(chunk)) for chunk in chunks) < 20


def test_choices_are_streamed_side_by_side():
    """The choices of one request grow in turn, not one after the other."""
    order = [choice["index"] for chunk in stream(n=3, max_tokens=10) for choice in chunk["choices"]]
    assert order[:6] == [0, 1, 2, 0, 1, 2]


def test_the_first_chunk_does_not_wait_for_the_last():
    """The first chunk of a very long answer comes before most of it is made; closing the stream ends it."""
    body = {"model": NAME, "prompt": STORY, "max_tokens": 16_000, "n": 128, "stream": True, "logit_bias": {"0": -100}}
    with (
        httpx.Client(transport=httpx.WSGITransport(App()), base_url="http://localhost") as http,
        http.stream("POST", "/v1/completions", json=body) as response,
    ):
        first = next(response.iter_lines())
    assert json.loads(first.removeprefix("data: "))["choices"][0]["text"]


def test_every_choice_ends_once():
    """Each choice states its finish_reason in its last chunk alone."""
    chunks = stream(n=3, max_tokens=10)
    assert [choice["finish_reason"] for choice in joined(chunks)] == ["length"] * 3


def test_usage_is_streamed_on_request_only():
    """Asked for it, the last chunk has no choices and the usage, all others a null; otherwise there is none."""
    *pieces, last = stream(stream_options={"include_usage": True})
    assert last["choices"] == []
    check_usage(last["usage"])
    assert all(piece["choices"] and piece["usage"] is None for piece in pieces)
    for options in ({}, {"stream_options": {"include_usage": False}}, {"stream_options": None}):
        assert not any("usage" in piece for piece in stream(**options))


# --- Requests that are refused, and such that are not


NAMES = ["max_tokens", "temperature", "top_p", "n", "stop", "suffix", "echo", "stream", "stream_options", "seed"]
NAMES += ["logprobs", "best_of", "presence_penalty", "frequency_penalty", "logit_bias", "user"]


@pytest.mark.parametrize(
    "body",
    [{name: None} for name in NAMES]
    + [
        {"temperature": 0},
        {"temperature": 2},
        {"temperature": 0.5},
        {"top_p": 0},
        {"top_p": 1},
        {"n": 1},
        {"n": 128, "max_tokens": 1},
        {"best_of": 20, "max_tokens": 1},
        {"best_of": 0},
        {"best_of": 1},
        {"best_of": 2, "n": 2},
        {"logprobs": 0},
        {"logprobs": 5},
        {"presence_penalty": -2},
        {"presence_penalty": 2},
        {"frequency_penalty": -2},
        {"frequency_penalty": 2},
        {"logit_bias": {}},
        {"logit_bias": {"4095": 1.5}},
        {"stop": "\n"},
        {"stop": ["a", "b", "c", "d"]},
        {"suffix": "test."},
        {"suffix": ""},
        {"user": "user-1234"},
        {"seed": -(2**63)},
        {"max_tokens": CONTEXT_LENGTH - 16, "stop": [" ", ".", "\n", "a"]},
    ],
    ids=str,
)
def test_what_the_specification_allows_is_answered(body):
    """Every value within its range is taken; a null counts as not set."""
    complete(**body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "16"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": CONTEXT_LENGTH}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": [1]}, "n"),
        ({"best_of": 21}, "best_of"),
        ({"best_of": -1}, "best_of"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": 5}, "stream_options"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {"include_usage": "maybe"}, "stream": True}, "stream_options"),
        ({"stop": 5}, "stop"),
        ({"stop": []}, "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"suffix": 5}, "suffix"),
        ({"suffix": "\ud800"}, "suffix"),
        ({"echo": "true"}, "echo"),
        ({"echo": 1}, "echo"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": "5"}, "logprobs"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": {"5": -101}}, "logit_bias"),
        ({"logit_bias": {"5": "much"}}, "logit_bias"),
        ({"logit_bias": {"5": float("nan")}}, "logit_bias"),
        ({"logit_bias": {"the": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"4096": 1}}, "logit_bias"),
        ({"logit_bias": [5]}, "logit_bias"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"user": 5}, "user"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": True}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt"),
        ({"prompt": [5, "a"]}, "prompt"),
        ({"prompt": [[5], "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [None]}, "prompt"),
        ({"prompt": [5.5]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [4096]}, "prompt"),
        ({"prompt": [[5], [10**30]]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["fine", "not \udfff"]}, "prompt"),
        ({"prompt": ["x"] * 3000}, "prompt"),
        ({"temprature": 1}, "temprature"),
        ({"messages": []}, "messages"),
        ({"model": None}, "model"),
        ({"model": 5}, "model"),
    ],
    ids=lambda value: str(value)[:50].encode("ascii", "backslashreplace").decode(),
)
def test_a_bad_request_is_refused_and_the_parameter_is_named(body, param):
    """What is out of range, of another type, unknown or impossible together gets 400 with the parameter's name."""
    check_error(request(**body), 400, param)


def test_an_unknown_parameter_whose_name_is_no_text_is_refused():
    """Half a surrogate pair cannot be repeated in an answer; the request is refused all the same."""
    response = request(**{"\ud800": 1})
    check_error(response, 400, response.json()["error"]["param"])


def test_a_missing_model_is_refused():
    """The model is required."""
    check_error(post("/v1/completions", {"prompt": "x"}), 400, "model")


def test_a_prompt_that_is_too_long_is_refused():
    """Prompt and completion together fit the context, or the answer is 400 with OpenAI's code."""
    response = request(prompt=[5] * (CONTEXT_LENGTH - 15), max_tokens=16)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "name", ["gpt-9", "", "x" * 5000, "<b>", "\ud800"], ids=["other", "empty", "long", "tag", "half"]
)
def test_an_unknown_model_is_404_and_the_models_are_named(name):
    """A wrong model name is answered with the names that there are."""
    response = request(model=name)
    check_error(response, 404, "model", NAME, "davinci-002")
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/completions", 405),
        ("PUT", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/models", 405),
        ("POST", f"/v1/models/{NAME}", 405),
        ("GET", "/tokenize", 405),
        ("GET", "/detokenize", 405),
        ("OPTIONS", "/v1/completions", 405),
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("POST", "/completions", 404),
        ("POST", "/v1/completions/", 404),
        ("POST", "/v1/chat/completions", 404),
        ("POST", "/v1/" + "x" * 3000, 404),
        ("GET", "/v1/../../etc/passwd", 404),
        ("GET", "/%00%ff", 404),
    ],
    ids=lambda value: str(value)[:30],
)
def test_another_route_or_method_is_refused(method, path, status):
    """A wrong method is 405, an unknown route 404, both as error objects."""
    with httpx.Client(transport=httpx.WSGITransport(App()), base_url="http://localhost") as http:
        check_error(http.request(method, path, content=b"{}"), status, None)


def test_an_unknown_model_has_no_page():
    """GET /v1/models/NAME of an unknown name is 404 and names the models."""
    with httpx.Client(transport=httpx.WSGITransport(App()), base_url="http://localhost") as http:
        check_error(http.get("/v1/models/gpt-9"), 404, "model", NAME)


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"hello",
        b"{'model': 'pocket'}",
        b'{"model": "pocket", "prompt": "\xff"}',
        b"[" * 100_000,
        b"[]",
        b'"text"',
        b"5",
        b"null",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_body_that_is_no_json_object_is_refused(path, content):
    """Broken JSON, broken UTF-8, endless nesting and JSON that is no object get 400, never a trace."""
    check_error(post(path, content), 400, None)


def test_a_body_beyond_the_limit_is_refused():
    """A body that is too large gets 413."""
    check_error(post("/v1/completions", b" " * (BODY_LIMIT + 1)), 413, None)


HOSTILE = [None, True, 0, 1, -1, 10**30, 0.5, 1e300, float("nan"), float("inf"), "", "a", "\x00", "\ud800", [], [5]]
HOSTILE += [
    ["a"],
    [None],
    [[]],
    [["\udfff"]],
    {},
    {"a": 1},
    {"5": 1},
    {"5": "a"},
    {"-5": 1},
    {"5": None},
    {"\ud800": 1},
]
HOSTILE += [{"include_usage": []}, {"a": {"a": {"a": []}}}]


@pytest.mark.parametrize("name", ["model", "prompt", *NAMES, "other", "messages", "\ud800"], ids=ascii)
def test_whatever_a_field_holds_the_request_is_answered_or_refused(name):
    """The answer is a completion, or an error object of 400 or 404; never a failure."""
    for value in HOSTILE:
        response = request(**{"max_tokens": 3, name: value})
        if response.status_code != 200:
            check_error(response, response.status_code, response.json()["error"]["param"])
            assert response.status_code in (400, 404)


# --- Token ids, as vLLM says them


def test_tokenize_counts_and_names_the_tokens():
    """POST /tokenize gives the ids, their count, and how many the context holds."""
    answer = post("/tokenize", {"prompt": STORY}).json()
    assert answer["tokens"] == pocket().vocabulary.encode(STORY)
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == CONTEXT_LENGTH


@briefly
@given(st.text())
def test_detokenize_undoes_tokenize(text):
    """Any text comes back from its tokens, the empty one too."""
    assert post("/detokenize", {"tokens": tokenize(text)}).json() == {"prompt": text}


@pytest.mark.parametrize("prompt", [None, 5, ["a"], {}, "\ud800"], ids=ascii)
def test_tokenize_takes_a_text(prompt):
    """Anything else is refused, and the field is named."""
    check_error(post("/tokenize", {"prompt": prompt}), 400, "prompt")


@pytest.mark.parametrize("tokens", [None, "text", 5, ["text"], [[5]], [5.5], [True], [-1], [4096], {}], ids=repr)
def test_detokenize_takes_token_ids(tokens):
    """Anything else is refused, and the field is named."""
    check_error(post("/detokenize", {"tokens": tokens}), 400, "tokens")


# --- Many at once


def test_answers_do_not_disturb_each_other():
    """Two streams read in turn give what each gives alone."""
    bodies = [{"prompt": STORY, "seed": 3, "max_tokens": 20}, {"prompt": TRANSLATION, "seed": 4, "max_tokens": 20}]
    expected = [text_of(**body) for body in bodies]
    with httpx.Client(transport=httpx.WSGITransport(App()), base_url="http://localhost") as http:
        full = [{"model": NAME, "stream": True, **body} for body in bodies]
        with (
            http.stream("POST", "/v1/completions", json=full[0]) as one,
            http.stream("POST", "/v1/completions", json=full[1]) as two,
        ):
            texts = ["", ""]
            for lines in itertools.zip_longest(one.iter_lines(), two.iter_lines(), fillvalue=""):
                for at, line in enumerate(lines):
                    if line.startswith("data: {"):
                        texts[at] += text_of_chunk(json.loads(line.removeprefix("data: ")))
    assert texts == expected
