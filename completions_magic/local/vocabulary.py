"""Byte-pair tokens: learned from text, every byte representable.

Byte-pair encoding as in Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units"
(2016), over the UTF-8 bytes of words, as GPT-2 does it.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

END_OF_TEXT = 0
"""The token that begins and ends every document; it has no text."""

# A word takes the one blank before it along; digits stand alone, so that numbers are made of few tokens; several
# blanks stand alone, so that a line of code begins with the same token at any depth.
# Nothing is longer than 64 characters: the time to encode a text grows with its length, and not with the square.
WORDS = re.compile(r" ?[^\W\d_]{1,64}|\d| ?[^\s\w]{1,64}| ?_{1,64}|\n{1,64}|[^\S\n]{1,64}(?=\S)|\s{1,64}| ")


class Vocabulary:
    """A list of byte strings, the tokens: end of text, the 256 bytes, then the merges in the order learned."""

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        self.pieces: list[bytes] = [b""] + [bytes([byte]) for byte in range(256)]
        self._ranks: dict[tuple[int, int], int] = {}
        for left, right in merges:
            self._ranks[left, right] = len(self.pieces)
            self.pieces.append(self.pieces[left] + self.pieces[right])
        self._word = lru_cache(maxsize=65_536)(self._merge)

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`; decoding them gives its UTF-8 bytes back."""
        return [token for word in split(text) for token in self._word(word)]

    def decode(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes that `tokens` stand for."""
        return b"".join(self.pieces[token] for token in tokens)

    def _merge(self, word: str) -> tuple[int, ...]:
        tokens = [byte + 1 for byte in word.encode()]
        while len(tokens) > 1:
            pairs = pairwise(tokens)
            rank, at = min((self._ranks.get(pair, len(self.pieces)), at) for at, pair in enumerate(pairs))
            if rank == len(self.pieces):
                break
            tokens[at : at + 2] = [rank]
        return tuple(tokens)


def split(text: str) -> list[str]:
    """Split `text` into the words that no token crosses; joined they are `text` again."""
    return WORDS.findall(text)


def learn_merges(texts: Iterable[str], size: int) -> list[tuple[int, int]]:
    """Learn merges until the vocabulary has `size` tokens: always the most frequent pair, then the smallest."""
    pairs = _Pairs(Counter(word for text in texts for word in split(text)))
    heap = [(-count, pair) for pair, count in pairs.counts.items()]
    heapq.heapify(heap)
    merges: list[tuple[int, int]] = []
    while heap and len(merges) < size - 257:
        count, pair = heapq.heappop(heap)
        now = pairs.counts[pair]
        if now != -count:
            if now > 0:
                heapq.heappush(heap, (-now, pair))
            continue
        merges.append(pair)
        for grown in pairs.join(pair, 256 + len(merges)):
            heapq.heappush(heap, (-pairs.counts[grown], grown))
    return merges


class _Pairs:
    """How often each pair of neighbouring tokens occurs, and in which words."""

    def __init__(self, words: Counter[str]) -> None:
        self.counts: Counter[tuple[int, int]] = Counter()
        self._words = [[byte + 1 for byte in word.encode()] for word in words]
        self._weights = list(words.values())
        self._homes: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for at, word in enumerate(self._words):
            for pair in pairwise(word):
                self.counts[pair] += self._weights[at]
                self._homes[pair].add(at)

    def join(self, pair: tuple[int, int], token: int) -> set[tuple[int, int]]:
        """Replace `pair` by `token` in every word that holds it; return the pairs that are new."""
        new = set()
        for at in self._homes.pop(pair):
            for old in pairwise(self._words[at]):
                self.counts[old] -= self._weights[at]
            self._words[at] = _join(self._words[at], pair, token)
            for other in pairwise(self._words[at]):
                self.counts[other] += self._weights[at]
                self._homes[other].add(at)
                if token in other:
                    new.add(other)
        return new


def _join(word: list[int], pair: tuple[int, int], token: int) -> list[int]:
    joined: list[int] = []
    at = 0
    while at < len(word):
        if word[at] == pair[0] and word[at + 1 : at + 2] == [pair[1]]:
            joined.append(token)
            at += 2
        else:
            joined.append(word[at])
            at += 1
    return joined
