"""What the documents that resemble a text, and the text itself, say about its next token.

A few tokens of context do not tell what a text is about. So every earlier place with the same last tokens votes
for the token that followed there, the more the longer its match and the more its document has in common with
the text read so far. It is a cache in the sense of Kuhn and De Mori, "A Cache-Based Natural Language Model for
Speech Recognition" (1990), over all documents, weighted as in retrieval by inverse document frequency.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence

from .vocabulary import END_OF_TEXT

LONGEST = 8
"""The longest match, in tokens, that counts."""
GAIN = 4.0
"""What one more token of match multiplies a vote by."""
PLACES = 600
"""The most places asked for one token, those in the documents most alike."""
OWN = 0.1
"""How much the text resembles a document that it is the beginning of, before the power below."""
FLOOR = 0.02
POWER = 3
COMMON = 1.5
"""Tokens whose inverse document frequency is below this say nothing of a document's subject."""
WEIGHTS = (0.0, 0.55, 0.7, 0.85, 0.92, 0.95, 0.97)
"""The weight of the votes beside the n-grams, by the length of the longest match."""
SETTINGS = (LONGEST, GAIN, PLACES, OWN, FLOOR, POWER, COMMON, WEIGHTS)


class Recall:
    """An index of documents: where each pair of tokens stands, and which documents hold a token."""

    def __init__(self, documents: Sequence[Sequence[int]]) -> None:
        self.stream: list[int] = []
        self.home: list[int] = []
        self.places: defaultdict[int | tuple[int, int], list[int]] = defaultdict(list)
        holders: defaultdict[int, list[int]] = defaultdict(list)
        for number, document in enumerate(documents):
            for token in (END_OF_TEXT, END_OF_TEXT, *document, END_OF_TEXT):
                self._index(token, number)
            for token in set(document):
                holders[token].append(number)
        rarity = {token: math.log(len(documents) / len(held)) for token, held in holders.items()}
        self.subjects = {token: (rarity[token] ** 2, held) for token, held in holders.items() if rarity[token] > COMMON}

    def _index(self, token: int, number: int) -> None:
        at = len(self.stream)
        if at >= 2:
            self.places[self.stream[-2], self.stream[-1]].append(at)
            self.places[self.stream[-1]].append(at)
        self.stream.append(token)
        self.home.append(number)


class Reading:
    """A text being read token by token, and what its past and the documents like it vote for next."""

    def __init__(self, recall: Recall) -> None:
        self._recall = recall
        self.tokens: list[int] = []
        self._relevance: defaultdict[int, float] = defaultdict(float)
        self._known: set[int] = set()
        self._own: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def copy(self) -> Reading:
        """Return a reading at the same place that goes on by itself."""
        twin = Reading(self._recall)
        twin.tokens = self.tokens.copy()
        twin._relevance = self._relevance.copy()
        twin._known = self._known.copy()
        twin._own = defaultdict(list, {pair: places.copy() for pair, places in self._own.items()})
        return twin

    def read(self, token: int) -> None:
        """Go on by one token."""
        if len(self.tokens) >= 2:
            self._own[self.tokens[-2], self.tokens[-1]].append(len(self.tokens))
        self.tokens.append(token)
        if token in self._known:
            return
        self._known.add(token)
        score, holders = self._recall.subjects.get(token, (0.0, ()))
        for document in holders:
            self._relevance[document] += score

    def votes(self) -> tuple[dict[int, float], float]:
        """Return the share of each token in the votes, and the weight that they deserve; both empty without a match."""
        recall, tokens = self._recall, self.tokens
        past = [END_OF_TEXT, END_OF_TEXT, *tokens[-LONGEST:]]
        pair = past[-2], past[-1]
        found = recall.places.get(pair) or recall.places.get(past[-1], [])
        best = max(self._relevance.values(), default=0.0) or 1.0
        votes: dict[int, float] = {}
        longest = 0
        if len(found) > PLACES:
            found = heapq.nlargest(PLACES, found, key=lambda at: self._relevance.get(recall.home[at], 0.0))
        for at in found:
            match = _match(recall.stream, at, past)
            longest = max(longest, match)
            resemblance = FLOOR + self._relevance.get(recall.home[at], 0.0) / best
            vote = GAIN**match * resemblance**POWER
            votes[recall.stream[at]] = votes.get(recall.stream[at], 0.0) + vote
        for at in self._own.get(pair, [])[-PLACES:]:
            match = _match(tokens, at, past)
            longest = max(longest, match)
            votes[tokens[at]] = votes.get(tokens[at], 0.0) + GAIN**match * OWN**POWER
        total = sum(votes.values())
        weight = WEIGHTS[min(longest, len(WEIGHTS) - 1)]
        return {token: vote / total for token, vote in votes.items()}, weight


def _match(stream: Sequence[int], at: int, past: Sequence[int]) -> int:
    """Return how many tokens before place `at` of `stream` equal the last ones of `past`."""
    match = 0
    while match < LONGEST and match < len(past) and match < at and stream[at - 1 - match] == past[-1 - match]:
        match += 1
    return match
