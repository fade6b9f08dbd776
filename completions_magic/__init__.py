"""Text completions in notebooks: `%load_ext completions_magic`, then `%%complete`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cassette import Cassette
    from .client import Client, Stream
    from .errors import CompletionsError
    from .pace import Pace, no_waits
    from .profiles import Profile
    from .schema import Choice, Completion, CompletionRequest, Logprobs, Usage

# Loading the extension must cost next to nothing, so each name is imported when it is first used.
_HOMES = {
    "Cassette": "cassette",
    "Choice": "schema",
    "Client": "client",
    "Completion": "schema",
    "CompletionRequest": "schema",
    "CompletionsError": "errors",
    "Logprobs": "schema",
    "Pace": "pace",
    "Profile": "profiles",
    "Stream": "client",
    "Usage": "schema",
    "no_waits": "pace",
}

__all__ = [
    "Cassette",
    "Choice",
    "Client",
    "Completion",
    "CompletionRequest",
    "CompletionsError",
    "Logprobs",
    "Pace",
    "Profile",
    "Stream",
    "Usage",
    "load_ipython_extension",
    "no_waits",
    "unload_ipython_extension",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'completions_magic' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def load_ipython_extension(shell: Any) -> None:
    """Add `%%complete`, `%complete` and `%completions` to an IPython shell; twice is once."""
    from .extension import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Take everything back that loading added."""
    from .extension import unload

    unload(shell)
