"""Who looks at what a cell shows, and whether there is someone to answer."""

from __future__ import annotations

import sys
from typing import Any


def is_watched(kernel: Any) -> bool:
    """Say whether a person's front end runs the cell: those that execute notebooks in a file allow no input."""
    content = kernel.get_parent("shell").get("content", {})
    return bool(content.get("allow_stdin", False))


def can_be_asked() -> bool:
    """Say whether someone can type an answer now: before a cell that a front end runs, or at a terminal."""
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is not None:
        return is_watched(kernel)
    return sys.stdin is not None and sys.stdin.isatty()
