"""Who looks at what a cell shows."""

from __future__ import annotations

from typing import Any


def is_watched(kernel: Any) -> bool:
    """Say whether a person's front end runs the cell: those that execute notebooks in a file allow no input."""
    content = kernel.get_parent("shell").get("content", {})
    return bool(content.get("allow_stdin", False))
