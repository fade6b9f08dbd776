"""Where a key is kept: an environment variable, a `.env` file, the system's keyring, or a person's memory.

Only the place is ever written down, on a line or in a file; the key itself is read when a request needs it.
"""

from __future__ import annotations

import getpass
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .audience import can_be_asked
from .errors import Interrupted, ProfileError, shorten
from .key import ApiKey

SERVICE = "completions-magic"
"""What the system's keyring knows our keys under."""

FORMS = ".env:NAME (or another path to a .env file), keyring:NAME or prompt"
# The forms are narrow on purpose: a key that was put in their place by mistake has none of them, and is not shown.
FILE = re.compile(
    r"(?P<path>(?:[^\x00-\x1f]*[/\\])?(?:\.env(?:\.[\w-]+)?|[\w-]+\.env)):(?P<name>[A-Z_][A-Z0-9_]{0,79})"
)
KEYRING = re.compile(r"keyring:(?P<name>[\w.@-]{1,24})")
PROMPT = "prompt"
FILE_LIMIT = 2**20


@dataclass(frozen=True)
class Place:
    """Where one key is: `kind`, what it is called there, and the `.env` file where it is in one."""

    kind: Literal["variable", "file", "keyring", "prompt"]
    name: str = ""
    path: str = ""

    @classmethod
    def read(cls, text: str) -> Place:
        """Return the place that `text` names, in one of FORMS; raise ProfileError, which does not show it."""
        if text == PROMPT:
            return cls("prompt")
        if found := KEYRING.fullmatch(text):
            return cls("keyring", found["name"])
        if found := FILE.fullmatch(text):
            return cls("file", found["name"], found["path"])
        raise ProfileError(f"--api-key-from takes {FORMS}, not the key itself")

    def __str__(self) -> str:
        match self.kind:
            case "file":
                return f"{self.name} of {self.path}"
            case "keyring":
                return f"{self.name} of the system's keyring"
        return self.name or "what you type"

    @property
    def exact(self) -> str:
        """The place as a consent names it: another file of the same name is another place."""
        match self.kind:
            case "file":
                return f"{self._file().resolve()}:{self.name}"
            case "keyring":
                return f"keyring:{self.name}"
        return self.name or "prompt:"

    def key(self, endpoint: str, origin: str) -> ApiKey:
        """Return the key for the endpoint of that name at `origin`; raise ProfileError, with the next step.

        The typed one is asked for once a session. Nothing is put into the environment.
        """
        # No line here names a key, nor what holds one, in a variable: a traceback may print those.
        if self.kind == "prompt":
            if (endpoint, origin) not in _typed:
                _typed[endpoint, origin] = ApiKey(_ask(endpoint, origin), origin="the key that was typed")
            return _typed[endpoint, origin]
        read = {"variable": self._in_variable, "file": self._in_file, "keyring": self._in_keyring}[self.kind]
        return ApiKey(read(endpoint), origin=f"the key in {shorten(str(self), 200)}")

    def forget(self, endpoint: str, origin: str) -> bool:
        """Ask for a typed key again the next time; say whether there was one."""
        return self.kind == "prompt" and _typed.pop((endpoint, origin), None) is not None

    def _file(self) -> Path:
        try:
            return Path(self.path).expanduser()
        except RuntimeError:
            return Path(self.path)

    def _in_variable(self, endpoint: str) -> str:
        value = os.environ.get(self.name, "")
        if not value.strip():
            raise ProfileError(f"{endpoint} needs a key: set the environment variable {self.name}")
        return value

    def _in_file(self, endpoint: str) -> str:
        """Return what the file says under the name; ${OTHER} in it is text."""
        from dotenv import dotenv_values

        path = self._file()
        shown = shorten(self.path, 200)
        try:
            if not path.is_file():
                raise ProfileError(f"{endpoint} needs a key: there is no file {shown}, in which {self.name} should be")
            if path.stat().st_size > FILE_LIMIT:
                raise ProfileError(f"{shown} is too large for a .env file")
            # What is no UTF-8 is refused as a key, and not as an error that holds the file.
            with path.open(encoding="utf-8-sig", errors="replace") as file:
                names = dotenv_values(stream=file, interpolate=False)
        except OSError as error:
            raise ProfileError(f"{shown} cannot be read: {error.strerror}") from None
        if self.name not in names:
            del names  # a traceback may show what this frame holds
            raise ProfileError(f"{shown} does not name {self.name}")
        return names[self.name] or ""

    def _in_keyring(self, endpoint: str) -> str:
        try:
            import keyring
            from keyring.errors import KeyringError
        except ImportError:
            raise ProfileError(
                "a key in the system's keyring needs keyring: pip install 'completions-magic[keyring]'"
            ) from None
        try:
            held = keyring.get_password(SERVICE, self.name)
        except (KeyringError, OSError, RuntimeError) as error:
            raise ProfileError(f"the system's keyring cannot be read: {shorten(str(error), 200)}") from None
        if held is None:
            raise ProfileError(
                f"{endpoint} needs a key: python -m keyring set {SERVICE} {self.name} puts it into the keyring"
            )
        return held


_typed: dict[tuple[str, str], ApiKey] = {}
"""The keys that were typed in this process, by endpoint and origin; a mistyped one is forgotten at the first 401."""


def _ask(endpoint: str, origin: str) -> str:
    if not can_be_asked():
        raise ProfileError(
            f"{endpoint} asks for its key, and nobody is here to type it: run a cell in a notebook or a terminal, "
            "or name a variable with --api-key-env"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
            return getpass.getpass(f"Key for {endpoint}, sent to {origin} only: ")
    except (EOFError, OSError, NotImplementedError, getpass.GetPassWarning):
        raise ProfileError(f"no key was typed for {endpoint}") from None
    except KeyboardInterrupt:
        raise Interrupted from None
