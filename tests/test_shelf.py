"""What outgrows memory: rows on a shelf, places in an index, counts in a tally."""

import copy
import pickle
import threading
import tracemalloc

import pytest

from completions_magic.shelf import Index, Place, Shelf, Tally


def test_a_shelf_is_a_list():
    """Elements come back by number, from the end, as a slice and in order, done or not."""
    shelf = Shelf()
    for number in range(10):
        shelf.append({"number": number})
        if number % 2:
            shelf[number] = {"number": number, "done": True}
    assert len(shelf) == 10
    assert [element["number"] for element in shelf] == list(range(10))
    assert (shelf[3], shelf[-1], shelf[2:4]) == (
        {"number": 3, "done": True},
        {"number": 9, "done": True},
        [{"number": 2}, {"number": 3, "done": True}],
    )
    with pytest.raises(IndexError, match="10 rows, and 10 is none"):
        shelf[10]


def test_a_shelf_is_copied_and_pickled_as_a_list():
    """So that a batch can be kept, whatever its rows came from."""
    shelf = Shelf()
    shelf.append("a")
    shelf.append("b")
    shelf[0] = "done"
    assert pickle.loads(pickle.dumps(shelf)) == copy.deepcopy(shelf) == ["done", "b"]


def test_what_cannot_be_pickled_stays_on_the_shelf():
    """A lock among a row's columns is there when it is asked for."""
    shelf, lock = Shelf(), threading.Lock()
    shelf.append(lock)
    shelf[0] = lock
    assert shelf[0] is lock


def test_an_element_may_be_done_while_it_is_asked_for():
    """From another thread: it is on disk then, where it was in memory when it was looked for."""
    shelf = Shelf()
    shelf.append("not done")
    finishing = threading.Thread(target=shelf.__setitem__, args=(0, "done"))

    class Kept(dict):
        def __contains__(self, number):
            found = super().__contains__(number)
            finishing.start()
            finishing.join(0.2)
            return found

    shelf._kept = Kept(shelf._kept)
    assert shelf[0] in ("not done", "done")
    finishing.join()
    shelf._kept = dict(shelf._kept)
    assert shelf[0] == "done"


def test_what_is_done_leaves_the_memory():
    """Twenty times as many elements take no more of Python's memory."""
    peaks = []
    for count in (100, 2000):
        tracemalloc.start()
        shelf = Shelf()
        for number in range(count):
            shelf.append("x" * 1000)
            shelf[number] = "y" * 1000
        peaks.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        assert list(shelf) == ["y" * 1000] * count
    assert peaks[1] < 2 * peaks[0] + 10_000


def test_a_whole_answer_is_not_replaced_by_one_that_was_cut():
    """The last whole place of a call counts, and places are known by key and call."""
    index = Index()
    cut, first, second = Place(1, 0, 5, cut=True), Place(2, 5, 5, cut=False), Place(3, 10, 5, cut=False)
    for place in (cut, first, Place(9, 90, 5, cut=True)):
        index.put(b"key", 1, place)
    assert index.places(b"key") == {1: first}
    index.put(b"key", 1, second)
    index.put(b"key", 2, cut)
    assert index.places(b"key") == {1: second, 2: cut}
    assert index.places(b"other") == {}
    assert (len(index), index.whole) == (2, 1)
    assert index.last(5) == [second]
    index.clear()
    assert not index


def test_a_tally_counts_each_key():
    """The ordinal of each is its own."""
    tally = Tally()
    assert [tally.add(key) for key in (b"a", b"b", b"a", b"a")] == [1, 1, 2, 3]
