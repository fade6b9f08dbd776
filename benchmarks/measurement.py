"""One measurement, by the name of its module."""

from __future__ import annotations

import importlib

from server import Server
from table import Row


def measure(name: str) -> list[Row]:
    """Return its rows."""
    with Server() as server:
        return importlib.import_module(name).measure(server)
