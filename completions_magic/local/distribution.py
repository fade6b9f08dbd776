"""The probabilities of the next token, held sparsely and exactly.

Of some 4,000 tokens a context has seen a few hundred at most. All others have the probability `rest * base[t]`,
and a power of such a product is again such a product: p^(1/T) = rest^(1/T) * base[t]^(1/T). So temperature,
nucleus and draw are exact without touching every token.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from random import Random


class Base:
    """What is left to a token that its context has never seen: one probability a token, summing to one."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities = probabilities
        self.highest = max(probabilities)
        self.order = sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token))
        self.powers = lru_cache(maxsize=64)(self._powers)

    def _powers(self, exponent: float) -> tuple[list[float], list[float]]:
        """Return (p / highest) ** exponent of every token, and the running sum of that."""
        powers = [(probability / self.highest) ** exponent for probability in self.probabilities]
        return powers, list(accumulate(powers))


class Distribution:
    """A probability for each token: `seen[token]`, or `rest * base[token]` where a token is not in `seen`."""

    def __init__(self, base: Base, seen: dict[int, float], rest: float) -> None:
        self.base = base
        self.seen = seen
        self.rest = rest

    def probability(self, token: int) -> float:
        """Return the probability of `token`."""
        known = self.seen.get(token)
        return self.rest * self.base.probabilities[token] if known is None else known

    def logprob(self, token: int) -> float:
        """Return the natural logarithm of the probability of `token`; -9999 where it cannot occur."""
        probability = self.probability(token)
        return math.log(probability) if probability > 0 else -9999.0

    def descending(self) -> Iterator[tuple[float, int]]:
        """Yield (probability, token) of every token, the likeliest first, equal ones by token id."""
        rest, base, seen = self.rest, self.base, self.seen
        known = sorted((-probability, token) for token, probability in seen.items())
        unseen = ((-rest * base.probabilities[token], token) for token in base.order if token not in seen)
        for probability, token in heapq.merge(known, unseen):
            yield -probability, token

    def top(self, count: int) -> list[tuple[int, float]]:
        """Return the `count` likeliest tokens with their log-probabilities."""
        pairs = zip(range(count), self.descending(), strict=False)
        return [(token, math.log(probability)) for _, (probability, token) in pairs if probability > 0]

    def without(self, token: int) -> Distribution:
        """Return the distribution given that the next token is not `token`."""
        left = 1.0 - self.probability(token)
        seen = {known: probability / left for known, probability in self.seen.items()}
        return Distribution(self.base, {**seen, token: 0.0}, self.rest / left)

    def biased(self, bias: Mapping[int, float]) -> Distribution:
        """Return the distribution with `bias[token]` added to the log-probability of its tokens, renormalised."""
        if not bias:
            return self
        size = len(self.base.probabilities)
        highest = max(bias.values()) if len(bias) == size else max(0.0, *bias.values())
        seen = {token: probability * math.exp(-highest) for token, probability in self.seen.items()}
        for token, added in bias.items():
            seen[token] = self.probability(token) * math.exp(added - highest)
        total = sum(seen.values())
        free = 0.0 if len(seen) == size else 1.0 - math.fsum(self.base.probabilities[token] for token in seen)
        rest = 0.0 if len(seen) == size else self.rest * math.exp(-highest)
        total += rest * max(0.0, free)
        if total <= 0.0:
            return self
        return Distribution(self.base, {token: weight / total for token, weight in seen.items()}, rest / total)

    def argmax(self) -> int:
        """Return the likeliest token; of equal ones the smallest id."""
        return next(self.descending())[1]

    def sampler(self, temperature: float, top_p: float) -> Sampler:
        """Return what draws from this distribution at `temperature` (0 is greedy), within the nucleus `top_p`."""
        if temperature == 0:
            return Sampler([self.argmax()], [1.0])
        if top_p < 1:
            return self._nucleus(temperature, top_p)
        highest = max(max(self.seen.values(), default=0.0), self.rest * self.base.highest)
        exponent = 1.0 / temperature
        powers, sums = self.base.powers(exponent)
        scale = (self.rest * self.base.highest / highest) ** exponent
        tokens = list(self.seen)
        weights = [(probability / highest) ** exponent for probability in self.seen.values()]
        free = max(0.0, sums[-1] - math.fsum(powers[token] for token in tokens))
        return Sampler(tokens, weights, self.seen, sums, scale * free)

    def _nucleus(self, temperature: float, top_p: float) -> Sampler:
        # As vLLM does it: the temperature first, then the smallest set that holds top_p.
        exponent = 1.0 / temperature
        ordered = self.descending()
        first, token = next(ordered)
        highest = max(first, 1e-300)
        powers, sums = self.base.powers(exponent)
        scale = (self.rest * self.base.highest / highest) ** exponent
        total = math.fsum((probability / highest) ** exponent for probability in self.seen.values())
        total += scale * max(0.0, sums[-1] - math.fsum(powers[known] for known in self.seen))
        tokens, weights, mass = [token], [(first / highest) ** exponent], (first / highest) ** exponent
        while mass < top_p * total:
            following = next(ordered, None)
            if following is None:
                break
            weight = (following[0] / highest) ** exponent
            tokens.append(following[1])
            weights.append(weight)
            mass += weight
        return Sampler(tokens, weights)


class Sampler:
    """Draws tokens: from `tokens` by their `weights`, and with the weight `unseen` from the base's running `sums`."""

    def __init__(
        self,
        tokens: list[int],
        weights: list[float],
        seen: Mapping[int, float] | None = None,
        sums: list[float] | None = None,
        unseen: float = 0.0,
    ) -> None:
        self._tokens = tokens
        self._cumulated = list(accumulate(weights))
        self._seen = seen or {}
        self._sums = sums or []
        self._known = self._cumulated[-1] if weights else 0.0
        self._total = self._known + unseen

    def draw(self, random: Random) -> int:
        """Return one token; the same `random` state gives the same token."""
        point = random.random() * self._total
        if point < self._known or not self._sums:
            return self._tokens[min(bisect_right(self._cumulated, point), len(self._tokens) - 1)]
        while True:
            # Rejection leaves exactly the unseen tokens; together they hold nearly all of the base's mass.
            token = bisect_right(self._sums, random.random() * self._sums[-1])
            if token < len(self._sums) and token not in self._seen:
                return token
