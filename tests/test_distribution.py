"""The probabilities of the next token, and what is drawn from them."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from completions_magic.local.distribution import Base, Distribution
from completions_magic.local.model import corpus, pocket
from completions_magic.local.vocabulary import END_OF_TEXT

thoroughly = settings(max_examples=200, deadline=None, database=None, derandomize=True)
briefly = settings(max_examples=60, deadline=None, database=None, derandomize=True)

CONTEXTS = {
    "the start": "",
    "a question": "Q: What is the capital of France?\nA:",
    "a finished answer": "Q: What is the capital of France?\nA: Paris.",
    "a tagline": "Write a tagline for an AI company:",
    "a story": "Once upon a time there was a",
    "a common word": "the",
    "half a number": "3.1",
    "code": "def add(a, b):\n    return a",
    "a translation": "Translate English to French:\n\nsea => la",
    "nothing known": "\x01\x02\x7f 数学 \U0001f9ee",
    "itself again and again": "blip blop " * 40,
    "half a character": "na\u00efv\u00e9 \u0444",
}


def distribution(context):
    """Return the model's distribution after the text `context`."""
    model = pocket()
    return model.distribution(model.read(model.vocabulary.encode(context)))


def listed(found):
    """Return the probability of every token, by id."""
    return [found.probability(token) for token in range(len(found.base.probabilities))]


def powered(probabilities, temperature):
    """Return p^(1/T), normalised, as the definition says it."""
    logs = [math.log(p) / temperature if p > 0 else -math.inf for p in probabilities]
    weights = [math.exp(log - max(logs)) for log in logs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def nucleus(probabilities, top_p):
    """Return the smallest likeliest set that holds `top_p`, normalised; of equal tokens the smallest ids."""
    kept = [0.0] * len(probabilities)
    mass = 0.0
    for token in sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token)):
        kept[token] = probabilities[token]
        mass += probabilities[token]
        if mass >= top_p:
            break
    return [p / mass for p in kept]


def surprise(draws, expected):
    """Return how far the counts are from what is expected, in standard deviations, by a chi-square test.

    Tokens that are expected fewer than ten times share a bin. Wilson and Hilferty (1931): the cube root of
    chi-square over its degrees of freedom is nearly normal.
    """
    total = sum(draws.values())
    assert all(expected[token] > 0 for token in draws)
    statistic, bins, rare, rare_seen = 0.0, 0, 0.0, 0
    for token in sorted(range(len(expected)), key=expected.__getitem__):
        rare += expected[token] * total
        rare_seen += draws.get(token, 0)
        if rare >= 10:
            statistic += (rare_seen - rare) ** 2 / rare
            bins += 1
            rare, rare_seen = 0.0, 0
    freedom = bins - 1
    if not freedom:
        return 0.0  # a single token holds everything: being drawn is all that is expected of it
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)


class Impatient(Random):
    """Random numbers, but not without end: more than a thousand of them for one token are a failure."""

    def __init__(self, seed):
        super().__init__(seed)
        self.left = 1000

    def random(self):
        """Return the next number."""
        self.left -= 1
        assert self.left >= 0, "the draw does not come to an end"
        return super().random()


@st.composite
def distributions(draw):
    """Make a small distribution: some tokens seen, maybe all or none, and the others by their base."""
    size = draw(st.integers(2, 10))
    weights = st.lists(st.integers(1, 60), min_size=size, max_size=size)
    base = draw(weights)
    base = [weight / sum(base) for weight in base]
    known = draw(st.sets(st.integers(0, size - 1)))
    unseen = math.fsum(base[token] for token in range(size) if token not in known)
    heavy = draw(weights)
    total = sum(heavy[token] for token in known) + 10 * unseen
    return Distribution(Base(base), {token: heavy[token] / total for token in sorted(known)}, 10 / total)


small = distributions()


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_the_probabilities_of_all_tokens_sum_to_one(context):
    """In every context each token of the vocabulary has a probability above zero, and all of them sum to one."""
    probabilities = listed(distribution(context))
    assert len(probabilities) == len(pocket().vocabulary)
    assert min(probabilities) > 0
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12)


@briefly
@given(st.lists(st.integers(0, 4095), max_size=12))
def test_they_sum_to_one_after_any_tokens(tokens):
    """Even after tokens that no text ever had in a row, the probabilities sum to one."""
    model = pocket()
    assert math.fsum(listed(model.distribution(model.read(tokens)))) == pytest.approx(1, abs=1e-12)


def test_they_sum_to_one_all_along_real_documents():
    """At every place of every hundredth document the probabilities sum to one."""
    model = pocket()
    for document in corpus()[::100]:
        reading = model.read([])
        for token in model.vocabulary.encode(document)[:20]:
            assert math.fsum(listed(model.distribution(reading))) == pytest.approx(1, abs=1e-12)
            reading.read(token)


@thoroughly
@given(small)
def test_a_log_probability_is_the_natural_logarithm(found):
    """The two scales agree."""
    for token, probability in enumerate(listed(found)):
        assert found.logprob(token) == math.log(probability)


def test_the_log_probability_of_the_impossible_is_a_number():
    """JSON has no infinity: what cannot occur has -9999."""
    found = distribution("Hello").without(END_OF_TEXT)
    assert found.probability(END_OF_TEXT) == 0
    assert found.logprob(END_OF_TEXT) == -9999


@thoroughly
@given(small)
def test_descending_names_every_token_once_the_likeliest_first(found):
    """The order is by probability, equal ones by token id."""
    pairs = list(found.descending())
    assert pairs == sorted(((p, token) for token, p in enumerate(listed(found))), key=lambda pair: (-pair[0], pair[1]))


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_descending_holds_for_the_model_too(context):
    """The likeliest token comes first and the whole vocabulary follows."""
    found = distribution(context)
    pairs = list(found.descending())
    assert pairs == sorted(((p, token) for token, p in enumerate(listed(found))), key=lambda pair: (-pair[0], pair[1]))


@thoroughly
@given(small, st.integers(0, 12))
def test_top_is_the_beginning_of_descending(found, count):
    """The likeliest tokens, with log-probabilities."""
    assert found.top(count) == [(token, math.log(p)) for p, token in list(found.descending())[:count]]


def test_top_leaves_out_what_cannot_occur():
    """A token without probability is nobody's alternative."""
    found = distribution("Hello").without(END_OF_TEXT)
    assert END_OF_TEXT not in [token for token, _ in found.top(5000)]


@thoroughly
@given(small, st.data())
def test_without_a_token_is_the_conditional_distribution(found, data):
    """The others keep their proportions and fill the whole."""
    before = listed(found)
    token = data.draw(st.integers(0, len(before) - 1))
    expected = [0.0 if other == token else p / (1 - before[token]) for other, p in enumerate(before)]
    assert listed(found.without(token)) == pytest.approx(expected, rel=1e-9)
    assert listed(found) == before


@thoroughly
@given(small, st.data())
def test_a_bias_is_added_to_the_log_probability(found, data):
    """A token of bias b has exactly its probability times exp(b), renormalised."""
    before = listed(found)
    biases = st.floats(-100, 100) | st.sampled_from([-100.0, 0.0, 100.0])
    bias = data.draw(st.dictionaries(st.integers(0, len(before) - 1), biases))
    logs = [math.log(p) + bias.get(token, 0.0) for token, p in enumerate(before)]
    expected = powered([math.exp(log - max(logs)) for log in logs], 1)
    assert listed(found.biased(bias)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert listed(found) == before


@thoroughly
@example(
    Distribution(Base([9 / 35, 8 / 35, 9 / 35, 9 / 35]), {0: 0.5, 1: 0.25}, 0.25 * 35 / 18), -100.0
)  # the sum rounds
@given(small, st.sampled_from([-100.0, -50.0, -1.0, 0.0, 1.0, 100.0]))
def test_the_same_bias_for_every_token_changes_nothing(found, bias):
    """Only differences between log-probabilities count."""
    before = listed(found)
    assert listed(found.biased(dict.fromkeys(range(len(before)), bias))) == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("bias", [-100.0, -30.0, 0.0, 100.0])
def test_a_draw_ends_whatever_the_bias(bias):
    """A bias on every token there is does not make the draw endless."""
    found = distribution("Once upon a time").biased(dict.fromkeys(range(len(pocket().vocabulary)), bias))
    random = Impatient(1)
    assert found.sampler(1.0, 1.0).draw(random) in range(len(pocket().vocabulary))


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_a_biased_distribution_of_the_model_sums_to_one(context):
    """After a ban, a nudge and a wish the probabilities still sum to one."""
    found = distribution(context)
    likeliest = found.argmax()
    biased = found.biased({11: 3.5, 300: -2.0, 4000: 8.0, likeliest: -100.0})
    assert math.fsum(listed(biased)) == pytest.approx(1, abs=1e-9)
    assert biased.probability(likeliest) < 1e-30


@thoroughly
@given(small)
def test_temperature_zero_takes_the_likeliest_token(found):
    """Greedy means: whatever the random numbers, the likeliest; of equal ones the smallest id."""
    before = listed(found)
    expected = before.index(max(before))
    assert found.argmax() == expected
    assert {found.sampler(0, top_p).draw(Random(seed)) for top_p in (0, 0.5, 1) for seed in range(5)} == {expected}


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-300, 5e-324])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_temperature_of_nearly_zero_is_nearly_greedy(temperature, top_p):
    """The smallest temperatures neither fail nor wander."""
    found = distribution("Q: What is the capital of France?\nA:")
    sampler = found.sampler(temperature, top_p)
    random = Random(1)
    assert {sampler.draw(random) for _ in range(100)} == {found.argmax()}


@briefly
@given(small, st.sampled_from([0.7, 1.0, 1.6]), st.floats(0, 1))
def test_the_nucleus_is_the_smallest_set_that_holds_top_p(found, temperature, top_p):
    """Exactly its tokens are drawn: the temperature is applied first, then the likeliest are taken up to `top_p`."""
    probabilities = powered(listed(found), temperature)
    border = 0.0
    for p in sorted(probabilities, reverse=True):
        border += p
        assume(abs(border - top_p) > 1e-9)
    expected = {token for token, p in enumerate(nucleus(probabilities, top_p)) if p > 0}
    assume(min(probabilities[token] for token in expected) > 0.004)
    sampler = found.sampler(temperature, top_p)
    random = Random(1)
    assert {sampler.draw(random) for _ in range(6000)} == expected


def test_the_nucleus_takes_equal_tokens_by_their_id():
    """Where several tokens are equal, the smallest ids are in."""
    found = Distribution(Base([0.25] * 4), {}, 1.0)
    sampler = found.sampler(1.0, 0.4)
    random = Random(1)
    assert {sampler.draw(random) for _ in range(500)} == {0, 1}


def test_the_same_random_state_draws_the_same_token():
    """A draw depends on nothing but the distribution and the random numbers."""
    found = distribution("Once upon a time")
    for temperature, top_p in [(1.0, 1.0), (0.7, 0.9), (2.0, 1.0)]:
        one, two = (found.sampler(temperature, top_p) for _ in range(2))
        random, again = Random(7), Random(7)
        assert [one.draw(random) for _ in range(200)] == [two.draw(again) for _ in range(200)]


KNOB_POSITIONS = [(1.0, 1.0), (0.7, 1.0), (0.3, 1.0), (2.0, 1.0), (1.0, 0.9), (0.7, 0.5), (1.5, 0.95), (2.0, 0.8)]
DRAWN_FROM = ["the start", "a story", "a finished answer", "a common word", "nothing known"]
DRAWS = 25_000  # times 8 positions, times 5 contexts: a million


@pytest.mark.parametrize(("temperature", "top_p"), KNOB_POSITIONS)
@pytest.mark.parametrize("context", DRAWN_FROM)
def test_a_million_draws_have_the_stated_probabilities(context, temperature, top_p):
    """What is drawn is p^(1/T), normalised, within the nucleus; the seed is fixed, so is the verdict."""
    assert DRAWS * len(KNOB_POSITIONS) * len(DRAWN_FROM) == 1_000_000
    found = distribution(CONTEXTS[context])
    expected = nucleus(powered(listed(found), temperature), top_p)
    sampler = found.sampler(temperature, top_p)
    random = Random(2026)
    draws = Counter(sampler.draw(random) for _ in range(DRAWS))
    assert abs(surprise(draws, expected)) < 4


def test_biased_draws_have_the_stated_probabilities():
    """A bias shows in what is drawn, exactly."""
    found = distribution("Once upon a time").biased(
        {11: 4.0, 300: 2.0, distribution("Once upon a time").argmax(): -3.0}
    )
    random = Random(2026)
    sampler = found.sampler(1.0, 1.0)
    draws = Counter(sampler.draw(random) for _ in range(DRAWS))
    assert abs(surprise(draws, listed(found))) < 4


def test_the_chi_square_test_notices_a_small_error():
    """The test above is sharp: a temperature that is a twentieth off would not pass."""
    found = distribution(CONTEXTS["a story"])
    random = Random(2026)
    sampler = found.sampler(1.05, 1.0)
    draws = Counter(sampler.draw(random) for _ in range(DRAWS))
    assert surprise(draws, powered(listed(found), 1.0)) > 4
