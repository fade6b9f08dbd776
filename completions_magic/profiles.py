"""Profiles: named endpoints, and where the key of each comes from.

A profile never holds a key, only the name of the environment variable that does. Profiles come from the built-in
table, then `profiles.toml` in the user's configuration folder, then `completions.toml` beside the notebook; the
last one found by a name counts.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec
import platformdirs

from .errors import ProfileError, nearest, shorten
from .key import ApiKey, problem_of
from .schema import KNOBS

LOCAL = "local"
"""The base URL, and the name, of the embedded endpoint."""

NOTEBOOK_FILE = "completions.toml"
LONGEST_URL = 2000
TRUSTED = "trusted"
"""The file of consents in the user's configuration folder."""


@dataclass(frozen=True)
class Profile:
    """A named endpoint: `base_url` up to and including `/v1`, the key's variable, the model, default parameters.

    `source` says where the profile was read; `allow_http` lets a key go to another machine without TLS.
    """

    name: str
    base_url: str
    api_key_env: str | None = None
    model: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    allow_http: bool = False
    source: str = "built in"

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a key belongs to."""
        return self.base_url if self.base_url == LOCAL else origin(self.base_url)

    def key(self) -> ApiKey | None:
        """Return the key from the profile's variable, or None where the profile names none.

        Raises ProfileError when the variable is empty, when the key would travel in the clear, or when a file
        beside a notebook names a key that the person has not yet agreed to send there.
        """
        if self.api_key_env is None:
            return None
        if self.source == NOTEBOOK_FILE and not is_trusted(self):
            raise ProfileError(
                f"{NOTEBOOK_FILE} wants to send {self.api_key_env} to {self.origin}: "
                f"agree once with %completions trust {self.name}",
                endpoint=self.name,
            )
        if not os.environ.get(self.api_key_env, "").strip():
            raise ProfileError(
                f"{self.name} needs a key: set the environment variable {self.api_key_env}", endpoint=self.name
            )
        problem = problem_of(os.environ[self.api_key_env])
        if problem:
            raise ProfileError(f"the key in {self.api_key_env} {problem}", endpoint=self.name)
        return ApiKey(os.environ[self.api_key_env])


BUILT_IN = {
    profile.name: profile
    for profile in (
        Profile(LOCAL, LOCAL, model="pocket"),
        Profile("3xcoder", "https://api.3xcoder.com/v1", "OPENAI_API_KEY", "gpt-3.5-turbo-instruct"),
        Profile("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "gpt-3.5-turbo-instruct"),
        Profile("llama.cpp", "http://127.0.0.1:8080/v1", model="default"),
        Profile("vllm", "http://127.0.0.1:8000/v1"),
        Profile("ollama", "http://127.0.0.1:11434/v1"),
        Profile("lmstudio", "http://127.0.0.1:1234/v1"),
    )
}


def clean_base_url(base_url: str) -> str:
    """Return `base_url` without a slash at the end or the route; raise ProfileError where it is no base URL."""
    if base_url == LOCAL:
        return base_url
    parts = _split(base_url)
    if parts is None:
        raise ProfileError(f"{shorten(base_url, 80)!r} is no base URL: it looks like http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ProfileError("the base URL holds a user name or password: name the key's variable instead")
    return parts._replace(netloc=parts.netloc.lower()).geturl().rstrip("/").removesuffix("/completions").rstrip("/")


def _split(base_url: str) -> SplitResult | None:
    """Return the parts of a base URL; None where it is none, or where its parts would be read in two ways."""
    # Printable ASCII without what begins a query or a fragment; a name in other letters is written as xn--….
    if len(base_url) > LONGEST_URL or not re.fullmatch(r"https?://[!-~]+", base_url, re.IGNORECASE):
        return None
    if re.search(r"[?#\\<>\"^`{|}]", base_url):
        return None
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        _ = parts.port
        if not host or re.fullmatch(r"[\d.]+", host) or ":" in host:
            ip_address(host)
    except ValueError:
        return None
    return parts


def origin(base_url: str) -> str:
    """Return scheme, host and port of `base_url`."""
    parts = urlsplit(base_url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


def is_loopback(base_url: str) -> bool:
    """Say whether `base_url` is on this machine."""
    host = urlsplit(base_url).hostname or ""
    if base_url == LOCAL or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_in_the_clear(profile: Profile) -> None:
    """Raise ProfileError when a key would go to another machine over plain http without the profile's consent."""
    if profile.base_url.startswith("http://") and not is_loopback(profile.base_url) and not profile.allow_http:
        raise ProfileError(
            f"{profile.base_url} has no TLS, so the key would travel in the clear: use https, "
            "or set allow_http = true in a profile",
            endpoint=profile.name,
        )


def known_profiles() -> dict[str, Profile]:
    """Return all profiles by name; raise ProfileError, with the file's name, where a file cannot be read."""
    beside = _read_file(Path(NOTEBOOK_FILE), NOTEBOOK_FILE)
    return {**BUILT_IN, **_read_file(user_folder() / "profiles.toml", "profiles.toml"), **beside}


def find_profile(name: str) -> Profile:
    """Return the profile called `name`; raise ProfileError with the nearest names."""
    profiles = known_profiles()
    if name not in profiles:
        raise ProfileError(f"there is no profile {name!r}{nearest(name, profiles)}: there are {', '.join(profiles)}")
    return profiles[name]


def choose_profile(
    name: str | None = None, *, base_url: str | None = None, api_key_env: str | None = None, model: str | None = None
) -> Profile:
    """Return the profile that these choices, then the environment, then the embedded endpoint come to.

    A key goes with its own origin: with another `base_url` the profile's variable, model and parameters are
    dropped, and only `api_key_env` names a key for it.
    """
    profile = find_profile(name) if name else _from_environment()
    if base_url is not None:
        base_url = clean_base_url(base_url)
        if base_url != LOCAL and (profile.base_url == LOCAL or origin(base_url) != profile.origin):
            profile = Profile(base_url, base_url, source="base URL")
        elif base_url == LOCAL:
            profile = BUILT_IN[LOCAL]
        else:
            profile = replace(profile, base_url=base_url)
    if api_key_env is not None:
        check_variable(api_key_env)
        # The person named the variable just now: that is the consent that a file beside a notebook lacks.
        profile = replace(profile, api_key_env=api_key_env, source="option")
    return profile if model is None else replace(profile, model=model)


def check_variable(name: str) -> None:
    """Raise ProfileError, without showing it, when `name` is no name of an environment variable."""
    # A key may look like a name; a name in small letters that no variable has is taken for one.
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,79}", name) or (name != name.upper() and name not in os.environ):
        raise ProfileError(
            "--api-key-env takes the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
        )


def _from_environment() -> Profile:
    base_url = os.environ.get("OPENAI_BASE_URL", "").strip()
    if not base_url:
        return BUILT_IN[LOCAL]
    key = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY", "").strip() else None
    return Profile("OPENAI_BASE_URL", clean_base_url(base_url), key, source="environment")


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    base_url: str
    api_key_env: str | None = None
    model: str | None = None
    parameters: dict[str, Any] = {}
    allow_http: bool = False


def _read_file(path: Path, source: str) -> dict[str, Profile]:
    """Read `[profiles.NAME]` tables from a TOML file; a file that is not there holds none."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
        entries = msgspec.convert(tables.get("profiles", {}), dict[str, _Entry])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ProfileError(f"{path}: {error}") from None
    return {name: _profile(name, entry, source) for name, entry in entries.items()}


def _profile(name: str, entry: _Entry, source: str) -> Profile:
    if name == LOCAL:
        raise ProfileError(f"{source}: the profile {LOCAL!r} is the embedded endpoint: choose another name")
    if entry.api_key_env is not None:
        try:
            check_variable(entry.api_key_env)
        except ProfileError:
            raise ProfileError(
                f"{source}: api_key_env of {name!r} takes the name of an environment variable, not a key"
            ) from None
    unknown = [parameter for parameter in entry.parameters if parameter not in KNOBS]
    if unknown:
        raise ProfileError(f"{source}: {name!r} sets {unknown[0]!r}, which is no parameter{nearest(unknown[0], KNOBS)}")
    fields = {field: getattr(entry, field) for field in entry.__struct_fields__ if field != "base_url"}
    try:
        return Profile(name, clean_base_url(entry.base_url), source=source, **fields)
    except ProfileError as error:
        raise ProfileError(f"{source}: {name!r}: {error}") from None


def user_folder() -> Path:
    """Return the user's configuration folder, which may not exist yet."""
    return platformdirs.user_config_path("completions-magic")


def is_trusted(profile: Profile) -> bool:
    """Say whether the person has agreed to send this profile's key to its origin."""
    path = user_folder() / TRUSTED
    try:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return False  # what others can write is nobody's consent
        return _trust_line(profile) in path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False


def trust(profile: Profile) -> None:
    """Remember that the person agreed to send this profile's key to its origin; the file is theirs alone."""
    folder = user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(stat.S_IRWXU)
    descriptor = os.open(folder / TRUSTED, os.O_WRONLY | os.O_CREAT | os.O_APPEND, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        (folder / TRUSTED).chmod(stat.S_IRUSR | stat.S_IWUSR)
        file.write(_trust_line(profile) + "\n")


def _trust_line(profile: Profile) -> str:
    return f"{profile.origin} {profile.api_key_env}"
