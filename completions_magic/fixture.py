"""A pytest plugin: the fixture `completions_cassette` gives each test a cassette of its own.

The file is `cassettes/<test file>/<test>.jsonl` beside the test file. Nothing is asked of an endpoint unless
`pytest --completions-record MODE`, or COMPLETIONS_RECORD, says so.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .cassette import Cassette


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--completions-record`."""
    parser.getgroup("completions_magic").addoption(
        "--completions-record",
        metavar="MODE",
        default=None,
        help="what tests may ask and write: none (the default), once, new_episodes, all",
    )


@pytest.fixture
def completions_cassette(request: pytest.FixtureRequest) -> Iterator[Cassette]:
    """Give this test's cassette: `Client(cassette=completions_cassette)`."""
    from .cassette import Cassette

    record = request.config.getoption("--completions-record") or os.environ.get("COMPLETIONS_RECORD") or "none"
    test = ".".join(request.node.nodeid.split("::")[1:])  # with its class: another may have a test of this name
    name = re.sub(r"[^\w.\[\]-]+", "_", test)
    if name != test:
        name += "-" + hashlib.sha256(test.encode()).hexdigest()[:6]  # two that differ in such signs are two
    cassette = Cassette(request.path.parent / "cassettes" / request.path.stem / f"{name}.jsonl", record=record)
    yield cassette
    cassette.close()
