"""Profiles: named endpoints, and where the key of each comes from.

A profile never holds a key, only where it is kept. Profiles come from the built-in table, then `profiles.toml` in
the user's configuration folder, then `completions.toml` beside the notebook; the last one found by a name counts.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from .errors import ProfileError, nearest, shorten
from .key import ApiKey
from .place import FORMS, Place
from .schema import KNOBS

LOCAL = "local"
"""The base URL, and the name, of the embedded endpoint."""

NOTEBOOK_FILE = "completions.toml"
BESIDE = (Path(NOTEBOOK_FILE), NOTEBOOK_FILE)
LONGEST_URL = 2000
LONGEST_LABEL = 63
"""Characters between two points of a host's name."""
TRUSTED = "trusted"
"""The file of consents in the user's configuration folder."""


@dataclass(frozen=True)
class Profile:
    """A named endpoint: `base_url` up to and including `/v1`, the key's variable, the model, default parameters.

    `source` says where the profile was read; `allow_http` lets a key go to another machine without TLS;
    `api_key_from` names another place of the key: `.env:NAME`, `keyring:NAME` or `prompt`.
    """

    name: str
    base_url: str
    api_key_env: str | None = None
    model: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    allow_http: bool = False
    source: str = "built in"
    api_key_from: str | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a key belongs to."""
        return self.base_url if self.base_url == LOCAL else origin(self.base_url)

    @property
    def place(self) -> Place | None:
        """Where the key is kept, or None where the profile names no place."""
        if self.api_key_from is not None:
            return Place.read(self.api_key_from)
        return None if self.api_key_env is None else Place("variable", self.api_key_env)

    def key(self) -> ApiKey | None:
        """Return the key from its place, or None where the profile names none.

        Raises ProfileError when there is none, or when a file beside a notebook names a place whose key the person
        has not yet agreed to send to its base URL.
        """
        place = self.place
        if place is None:
            return None
        if self.source == NOTEBOOK_FILE and not is_trusted(self):
            raise ProfileError(
                f"{NOTEBOOK_FILE} wants to send {place} to {self.origin}: "
                f"agree once with %completions trust {self.name}",
                endpoint=self.name,
            )
        return place.key(self.name, self.origin)


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
        if not host or re.fullmatch(r"[\d.]+", host) or "[" in parts.netloc:
            ip_address(host)
        elif not all(0 < len(label) <= LONGEST_LABEL for label in host.removesuffix(".").split(".")):
            return None
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
            "--allow-http, or allow_http = true in a profile",
            endpoint=profile.name,
        )


def read_profiles() -> tuple[dict[str, Profile], list[ProfileError]]:
    """Return all profiles by name, and what is wrong with those, or with the files, that cannot be read."""
    own, damage = _read_file(*_own())
    beside, more = _read_file(*BESIDE)
    return {**BUILT_IN, **own, **beside}, [*damage.values(), *more.values()]


def known_profiles() -> dict[str, Profile]:
    """Return all profiles that can be read, by name."""
    return read_profiles()[0]


def find_profile(name: str) -> Profile:
    """Return the profile called `name`; raise ProfileError with the nearest names, or where it cannot be read.

    What a file that is no TOML names is not known: only where another one counts before it does that not matter.
    """
    for file in (BESIDE, _own()):
        profiles, damage = _read_file(*file)
        error = damage.get(name) or (damage.get(None) if name != LOCAL else None)
        if error is not None:
            raise error
        if name in profiles:
            return profiles[name]
    known = known_profiles()
    if name not in known:
        raise ProfileError(f"there is no profile {name!r}{nearest(name, known)}: there are {', '.join(known)}")
    return known[name]


def choose_profile(
    name: str | None = None,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    api_key_from: str | None = None,
    allow_http: bool = False,
    model: str | None = None,
) -> Profile:
    """Return the profile that these choices, then the environment, then the embedded endpoint come to.

    A key goes with its own origin: with another `base_url` the profile's key, model and parameters are dropped, and
    only `api_key_env` or `api_key_from` name a key for it. Raises ProfileError for what is no such choice, and where
    a key is named for an address that only a file beside the notebook names.
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
    if api_key_env is not None or api_key_from is not None:
        check_place(api_key_env, api_key_from)
        if profile.source == NOTEBOOK_FILE and base_url is None:
            # The person named a key, but the address is the file's: it may be another than they think.
            raise ProfileError(
                f"the address of {profile.name} is named by {NOTEBOOK_FILE}: "
                f"say --base-url {profile.base_url} too, if that is where the key shall go",
                endpoint=profile.name,
            )
        profile = replace(profile, api_key_env=api_key_env, api_key_from=api_key_from, source="option")
    if allow_http:
        profile = replace(profile, allow_http=True)
    return profile if model is None else replace(profile, model=model)


def check_place(api_key_env: str | None, api_key_from: str | None) -> None:
    """Raise ProfileError, without showing it, when what should name a key's place does not."""
    if api_key_env is not None and api_key_from is not None:
        raise ProfileError("--api-key-env and --api-key-from name two keys: use one")
    if api_key_env is not None:
        check_variable(api_key_env)
    if api_key_from is not None:
        Place.read(api_key_from)


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
    api_key_from: str | None = None
    model: str | None = None
    parameters: dict[str, Any] = {}
    allow_http: bool = False


def _own() -> tuple[Path, str]:
    return user_folder() / "profiles.toml", "profiles.toml"


def _read_file(path: Path, source: str) -> tuple[dict[str, Profile], dict[str | None, ProfileError]]:
    """Return the `[profiles.NAME]` tables of a TOML file, and by name what is wrong with the others.

    What is wrong with the whole file goes by None; a file that is not there holds nothing.
    """
    profiles: dict[str, Profile] = {}
    damage: dict[str | None, ProfileError] = {}
    try:
        text = path.read_text("utf-8")
        import tomllib  # here, since few have such a file

        entries = msgspec.convert(tomllib.loads(text).get("profiles", {}), dict[str, Any])
    except FileNotFoundError:
        entries = {}
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        entries, damage[None] = {}, ProfileError(f"{path}: {error}")
    for name, entry in entries.items():
        try:
            profiles[name] = _profile(name, entry, source)
        except ProfileError as error:
            damage[name] = error
    return profiles, damage


def _profile(name: str, table: object, source: str) -> Profile:
    if name == LOCAL:
        raise ProfileError(f"{source}: the profile {LOCAL!r} is the embedded endpoint: choose another name")
    try:
        entry = msgspec.convert(table, _Entry)
    except msgspec.ValidationError as error:
        raise ProfileError(f"{source}: {name!r}: {error}") from None
    try:
        check_place(entry.api_key_env, None)
    except ProfileError:
        raise ProfileError(
            f"{source}: api_key_env of {name!r} takes the name of an environment variable, not a key"
        ) from None
    try:
        check_place(None, entry.api_key_from)
    except ProfileError:
        raise ProfileError(f"{source}: api_key_from of {name!r} takes {FORMS}, not a key") from None
    if entry.api_key_env is not None and entry.api_key_from is not None:
        raise ProfileError(f"{source}: {name!r} sets api_key_env and api_key_from: one of them names its key")
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
    import platformdirs

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
    return f"{profile.origin} {profile.place.exact if profile.place else None}"
