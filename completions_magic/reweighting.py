"""The distribution of a token under other sampling parameters, from its log-probabilities and no new request.

The order is vLLM's, and the embedded endpoint's as far as it goes: the temperature, p^(1/T) normalised; then min_p,
which keeps what has this part of the likeliest's probability; then top_k, the likeliest k; then top_p, the smallest
set of the likeliest that holds this much of what is left. Of equal tokens the one listed first counts as the likelier.

A server lists the likeliest tokens only. What is known of all the others is the mass that is left to them, that none
is likelier than the least likely of the likeliest listed, and that a vocabulary has an end. How far a temperature
moves their mass depends on how they share it: least where a few hold it all and most where all hold the same, or the
other way round below temperature 1. Between these two lies the truth, so every result is an interval; it is a point
where all tokens are listed or a filter leaves the others out. `static/reweighting.js` does the same in the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from .errors import ConfigurationError

IMPOSSIBLE = -9999.0
"""The log-probability of what cannot occur, as the API writes it."""
LARGEST_VOCABULARY = 2**18
"""Taken for the number of tokens where nobody says it: no larger vocabulary is in wide use."""
WHOLE = 1e-9
"""A list whose probabilities sum to one this closely is the whole vocabulary."""
EDGE = 1 - 1e-12
"""A token exactly at the edge of a filter is within, whichever way its last digit was rounded."""
NOTHING = 1e-12
"""A remainder that is one of rounding: its square root would be a million times as much."""
LEAST = -690.0
"""The difference of log-probabilities at which a probability is as good as nothing, and still a number."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Sampling:
    """The parameters that turn a distribution into another; as they stand here they change nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0

    def __post_init__(self) -> None:
        sound = {
            "temperature": 0 <= self.temperature < math.inf,
            "top_p": 0 <= self.top_p <= 1,
            "top_k": self.top_k is None or (isinstance(self.top_k, int) and self.top_k >= 1),
            "min_p": 0 <= self.min_p <= 1,
        }
        for name in [name for name, is_sound in sound.items() if not is_sound]:
            raise ConfigurationError(f"{name} cannot be {getattr(self, name)!r}")

    def __str__(self) -> str:
        filters = {"top_p": (self.top_p, 1), "top_k": (self.top_k, None), "min_p": (self.min_p, 0)}
        used = [f"{name} {value:g}" for name, (value, off) in filters.items() if value is not None and value != off]
        return ", ".join([f"temperature {self.temperature:g}", *used])


@dataclass(frozen=True)
class Listed:
    """What a server said of one token: the log-probabilities of some tokens, the likeliest first.

    The first `likeliest` of them are the likeliest of all; behind them may stand one that was drawn although it is
    none of these. `vocabulary` is the most tokens that there can be.
    """

    tokens: Sequence[str]
    logprobs: Sequence[float]
    likeliest: int
    vocabulary: int = LARGEST_VOCABULARY

    @classmethod
    def of(
        cls, logprobs: Mapping[str, float], *, likeliest: int | None = None, vocabulary: int = LARGEST_VOCABULARY
    ) -> Listed:
        """Sort what is a number, equal ones as they stand; `likeliest` is how many are the likeliest of all."""
        known = {token: min(score, 0.0) for token, score in logprobs.items() if not math.isnan(score)}
        if not known:
            raise ConfigurationError("there are no log-probabilities to reweigh")
        tokens = sorted(known, key=lambda token: -known[token])
        scores = [max(known[token], IMPOSSIBLE) for token in tokens]
        whole = cls(tokens, scores, len(scores), vocabulary)
        return replace(whole, likeliest=max(1, likeliest)) if likeliest is not None and whole.outside else whole

    @property
    def outside(self) -> float:
        """The probability of all tokens that are not listed; the error of rounding where the list claims too much."""
        left = abs(1.0 - total(math.exp(score) for score in self.logprobs))
        return 0.0 if left < WHOLE or len(self.logprobs) >= self.vocabulary else left


@dataclass(frozen=True)
class Reweighed:
    """A distribution after sampling parameters: probabilities from the least to the most that they can be.

    `shares` has one for each listed token, in their order; (0, 0) is left out. `others` is that of all tokens which are
    not listed, together; `entropy` is in bits, and `left` the number of tokens that can still be drawn.
    """

    tokens: Sequence[str]
    shares: Sequence[Interval]
    others: Interval
    entropy: Interval
    left: tuple[int, int]

    @property
    def is_exact(self) -> bool:
        """True where every probability is a point."""
        return all(high - low < WHOLE for low, high in (*self.shares, self.others))

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each token that is left; raises ConfigurationError where it is not determined."""
        if not self.is_exact:
            raise ConfigurationError("the probabilities are not determined: ask for more with --logprobs, or use top_k")
        return {token: high for token, (_, high) in zip(self.tokens, self.shares, strict=True) if high > 0}


def reweigh(listed: Listed | Mapping[str, float], sampling: Sampling | None = None, /, **parameters: Any) -> Reweighed:
    """Return the distribution under `sampling`, or under the parameters by name: temperature, top_p, top_k, min_p."""
    listed = listed if isinstance(listed, Listed) else Listed.of(listed)
    sampling = sampling or Sampling(**parameters)
    pool = _Pool(listed, sampling)
    pool.apply_min_p(sampling.min_p)
    # All on the likeliest: of equal tokens one only.
    pool.apply_top_k(1 if sampling.temperature == 0 else sampling.top_k)
    pool.apply_top_p(sampling.top_p)
    return pool.result(listed)


class _Pool:
    """Tokens in the running, with weights relative to the likeliest's.

    `sure` of `head` are in at any rate, the rest of it if the others hold as much as they can. `strays` are listed
    tokens below the likeliest; `drawable` says whether they are in for certain. The others and the strays together
    weigh `low` to `high`, none of them more than `cap`, and there are `count` others at most.
    """

    def __init__(self, listed: Listed, sampling: Sampling) -> None:
        self.heat = sampling.temperature or 1.0
        scores = [score - listed.logprobs[0] for score in listed.logprobs]
        kept = [at for at, score in enumerate(listed.logprobs) if score > IMPOSSIBLE or at == 0]
        border = sum(at < listed.likeliest for at in kept)
        weights = [math.exp(scores[at] / self.heat) for at in kept]
        self.head, self.strays, self.drawable = weights[:border], weights[border:], True
        self.sure = len(self.head)
        lowest = max(scores[kept[border - 1]], LEAST)
        self.cap = max(math.exp(lowest / self.heat), math.exp(LEAST))
        self.outside = listed.outside / math.exp(listed.logprobs[0]) if listed.logprobs[0] > LEAST else 0.0
        self.count = 0.0
        strays = total(self.strays)
        self.low = self.high = strays
        if self.outside:
            cap = math.exp(lowest)
            self.count = float(max(listed.vocabulary - len(listed.logprobs), math.ceil(self.outside / cap)))
            ends = (self._gathered(cap), self._spread(self.count))
            self.low, self.high = strays + min(ends), strays + max(ends)

    def _gathered(self, cap: float) -> float:
        """Return what the others weigh where as few as possible hold all."""
        full = math.floor(self.outside / cap)
        last = max(0.0, self.outside - full * cap)
        return full * self.cap + (math.exp(math.log(last) / self.heat) if last > NOTHING else 0.0)

    def _spread(self, count: float) -> float:
        """Return what the others weigh where `count` tokens hold the same."""
        return count * math.exp(math.log(self.outside / count) / self.heat)

    def _drop_others(self) -> None:
        self.strays, self.low, self.high, self.count = [], 0.0, 0.0, 0.0

    def apply_min_p(self, min_p: float) -> None:
        """Keep what weighs at least `min_p` of the likeliest."""
        if min_p <= 0:
            return
        edge = min_p * EDGE
        self.head = [weight for weight in self.head if weight >= edge]
        self.sure = len(self.head)
        if self.cap < edge:
            self._drop_others()
            return
        self.strays = [weight for weight in self.strays if weight >= edge]
        strays = total(self.strays)
        if not self.outside:
            self.low = self.high = strays
            return
        # Only so many of the others can be as likely as that.
        least = math.exp(max(self.heat * math.log(edge), LEAST))
        self.count = min(self.count, float(math.floor(self.outside / least)))
        most = self.high if self.count else 0.0
        if self.count and self.heat > 1:
            most = min(most, strays + self._spread(self.count))
        self.low, self.high = strays, min(max(strays, most), strays + self.count * self.cap)

    def apply_top_k(self, top_k: int | None) -> None:
        """Keep the likeliest `top_k`."""
        if top_k is None:
            return
        room = top_k - len(self.head)
        if room <= 0:
            self.head = self.head[:top_k]
            self.sure = len(self.head)
            self._drop_others()
        elif room < self.count + len(self.strays):
            self.drawable = self.drawable and not self.strays
            self.low, self.high = 0.0, min(self.high, room * self.cap)
            self.count = min(self.count, float(room))

    def apply_top_p(self, top_p: float) -> None:
        """Keep the smallest set of the likeliest that holds `top_p`."""
        if top_p >= 1:
            return
        sums = list(accumulate(self.head))
        least, most = (top_p * EDGE * (sums[-1] + others) for others in (self.low, self.high))
        self.sure = _reaching(sums, least)
        if sums[-1] >= most:
            self.head = self.head[: _reaching(sums, most)]
            self._drop_others()
            return
        self.drawable = self.drawable and not self.strays
        self.low = max(0.0, least - sums[-1])
        self.high = min(self.high, most - sums[-1] + self.cap)

    def result(self, listed: Listed) -> Reweighed:
        """Return what is left, normalised."""
        sums = list(accumulate(self.head))
        least, most = sums[self.sure - 1] + self.low, sums[-1] + self.high
        shares = [(weight / most, weight / least) for weight in self.head[: self.sure]]
        shares += [(0.0, weight / mass) for weight, mass in zip(self.head[self.sure :], sums[self.sure :], strict=True)]
        strays = [
            (weight / most, weight / least) if self.drawable else (0.0, weight / (sums[-1] + weight))
            for weight in self.strays
        ]
        known = total(self.strays)
        others = (
            (max(0.0, self.low - known) / least, max(0.0, self.high - known) / most)
            if self.drawable
            else (max(0.0, self.low / least - total(high for _, high in strays)), self.high / most)
        )
        gone = [(0.0, 0.0)] * len(listed.logprobs)
        shares = [*[*shares, *gone][: listed.likeliest], *strays, *gone]
        return Reweighed(listed.tokens, shares[: len(gone)], others, self._entropy(), self._left())

    def _entropy(self) -> Interval:
        """Return the entropy in bits: least where few others hold as little as they can, most where all hold much."""
        few = math.floor(self.low / self.cap)
        last = max(0.0, self.low - few * self.cap)
        many = self.count + len(self.strays)
        return (
            _bits(self.head[: self.sure], [(few, self.cap), (1, last)]),
            _bits(self.head, [(many, self.high / many)] if many and self.high else []),
        )

    def _left(self) -> tuple[int, int]:
        certain = len(self.strays) if self.drawable else 0
        least = max(certain, math.ceil(self.low / self.cap * EDGE))
        return self.sure + least, len(self.head) + int(self.count if self.high else 0) + len(self.strays)


def total(numbers: Iterable[float]) -> float:
    """Return the sum, added up from the first to the last, as JavaScript does it."""
    found = 0.0
    for number in numbers:
        found += number
    return found


def _reaching(sums: Sequence[float], mass: float) -> int:
    """Return how many of the first it takes to hold `mass`; all of them where that is not enough."""
    return next((at + 1 for at, held in enumerate(sums) if held >= mass), len(sums))


def _bits(weights: Sequence[float], groups: Sequence[tuple[float, float]]) -> float:
    """Return the entropy of `weights` and of groups of equal ones, each a number and a weight."""
    groups = [
        *((1, weight) for weight in weights if weight > 0),
        *((many, weight) for many, weight in groups if weight > 0),
    ]
    mass = total(many * weight for many, weight in groups)
    return max(0.0, total(-many * weight / mass * math.log2(weight / mass) for many, weight in groups))
