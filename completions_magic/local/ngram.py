"""Interpolated modified Kneser-Ney: what a text teaches about the token after the last few.

Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling" (1998), section 3.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from .distribution import Base
from .vocabulary import END_OF_TEXT

ORDER = 4

Context = tuple[int, ...]
Counts = dict[Context, dict[int, int]]
Followers = tuple[tuple[int, ...], tuple[float, ...], float]
"""The tokens that a context has seen, their discounted probabilities, and the weight left to shorter contexts."""


class NGram:
    """Discounted probabilities of every context of up to `order` - 1 tokens."""

    def __init__(self, documents: Iterable[Sequence[int]], size: int, *, order: int = ORDER) -> None:
        self.order = order
        counts = _count(documents, order)
        self._levels = [_discounted(counted) for counted in counts[1:]]
        self.base = _base(counts[0][()], size)

    def followers(self, context: Sequence[int]) -> tuple[dict[int, float], float]:
        """Return the probabilities of the tokens seen after `context`, and the weight left to `base`.

        The two together sum to one: a token's probability is its entry, if any, plus the weight times its base.
        """
        longest = self.order - 1
        padded = (END_OF_TEXT,) * max(0, longest - len(context)) + tuple(context[-longest:])
        seen: dict[int, float] = {}
        weight = 1.0
        for length in range(longest, 0, -1):
            known = self._levels[length - 1].get(padded[longest - length :])
            if known is None:
                continue
            tokens, probabilities, left = known
            for token, probability in zip(tokens, probabilities, strict=True):
                seen[token] = seen.get(token, 0.0) + weight * probability
            weight *= left
        return seen, weight


def _count(documents: Iterable[Sequence[int]], order: int) -> list[Counts]:
    """Return the counts by length of context: tokens for the longest, different left neighbours for the others."""
    counts: list[Counts] = [{} for _ in range(order)]
    longest: Counts = defaultdict(dict)
    for document in documents:
        tokens = (END_OF_TEXT,) * (order - 1) + (*document, END_OF_TEXT)
        for at in range(order - 1, len(tokens)):
            counted = longest[tokens[at - order + 1 : at]]
            counted[tokens[at]] = counted.get(tokens[at], 0) + 1
    counts[-1] = longest
    for length in range(order - 1, 0, -1):
        shorter: Counts = defaultdict(dict)
        for context, followers in counts[length].items():
            counted = shorter[context[1:]]
            for token in followers:
                counted[token] = counted.get(token, 0) + 1
        counts[length - 1] = shorter
    return counts


def _discounted(counts: Counts) -> dict[Context, Followers]:
    discounts = _discounts(counts)
    # Most contexts have seen one token once: equal counts share one tuple, which is most of the memory.
    shared: dict[tuple[int, ...], tuple[tuple[float, ...], float]] = {}
    level: dict[Context, Followers] = {}
    for context, followers in counts.items():
        often = tuple(followers.values())
        if often not in shared:
            total = sum(often)
            kept = tuple((count - discounts[min(count, 3)]) / total for count in often)
            shared[often] = kept, sum(discounts[min(count, 3)] for count in often) / total
        level[context] = tuple(followers), *shared[often]
    return level


def _discounts(counts: Counts) -> tuple[float, float, float, float]:
    """Return the discounts of the counts 0, 1, 2, and 3 or more, as Chen and Goodman estimate them."""
    often = Counter(min(count, 5) for followers in counts.values() for count in followers.values())
    once, twice, thrice, four = (max(1, often[times]) for times in range(1, 5))
    ratio = once / (once + 2 * twice)
    wanted = (1 - 2 * ratio * twice / once, 2 - 3 * ratio * thrice / twice, 3 - 4 * ratio * four / thrice)
    one, two, three = (min(max(discount, 0.05), count - 0.05) for count, discount in enumerate(wanted, 1))
    return 0.0, one, two, three


def _base(counts: dict[int, int], size: int) -> Base:
    discounts = _discounts({(): counts})
    total = sum(counts.values())
    left = sum(discounts[min(count, 3)] for count in counts.values()) / total
    often = [counts.get(token, 0) for token in range(size)]
    return Base([(count - discounts[min(count, 3)]) / total + left / size for count in often])
