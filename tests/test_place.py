"""Where a key is kept: in a .env file, in the system's keyring, in a person's memory; and what may read it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DONE, answer, event, stream
from kernel import Kernel
from test_terminal import Terminal

from completions_magic import Client, Profile
from completions_magic.errors import ProfileError
from completions_magic.place import Place
from completions_magic.profiles import choose_profile, find_profile, trust, user_folder

KEY = "sk-Zq7Xw9Rt2Lm4Kp8Vn3Bd6Hs1Wf5"
HELLO = stream([event("Hel"), event("lo"), event(reason="stop"), DONE])
WRONG = answer({"error": {"message": "no"}}, status="401 Unauthorized")


def shows(text):
    """Say whether any ten characters of the key are in `text`."""
    return any(KEY[at : at + 10] in text for at in range(len(KEY) - 9))


def write_env(text=f"LAB_KEY={KEY}\n", path=".env"):
    """Write a .env file, by default beside the notebook."""
    Path(path).write_bytes(text.encode())


def keys(server):
    """Return the Authorization headers that the server heard."""
    return [heard.headers.get("authorization") for heard in server.heard]


def refusal(place, base_url="http://127.0.0.1:9/v1"):
    """Return the message of the error that a key's place comes to, after checking that it shows no key."""
    with pytest.raises(ProfileError) as caught:
        Client(choose_profile(base_url=base_url, api_key_from=place, model="m"))
    error = caught.value
    assert not shows(f"{error} {error!r} {error.__cause__!r} {error.__context__!r}")
    return str(error)


# -- a .env file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"LAB_KEY={KEY}\n",
        f"LAB_KEY = '{KEY}'",
        f'export LAB_KEY="{KEY}"\r\nOTHER=1\r\n',
        f"\ufeffLAB_KEY={KEY} # mine\n",
        f"# a comment\nOTHER\nLAB_KEY=old\n  LAB_KEY={KEY}\n",
    ],
)
def test_a_key_is_read_from_a_file_that_a_line_names(cells, text):
    """--api-key-from .env:NAME sends the key that the file has under the name, in the usual spellings."""
    write_env(text)
    assert cells.ask("Hi", "--api-key-from .env:LAB_KEY").success
    assert keys(cells.server) == [f"Bearer {KEY}"]


@pytest.mark.parametrize("path", ["secrets/lab.env", "secrets/.env.local", "{home}/.env", "~/.env"])
def test_the_file_may_be_elsewhere(server, tmp_path, monkeypatch, path):
    """Any path to a file that is called as .env files are, from the home folder too."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = path.format(home=tmp_path / "home")
    real = Path(path).expanduser()
    real.parent.mkdir()
    write_env(path=real)
    server.scripts = [HELLO]
    with Client(Profile("lab", server.base_url, model="m", api_key_from=f"{path}:LAB_KEY")) as client:
        client.complete("Hi")
    assert keys(server) == [f"Bearer {KEY}"]


def test_nothing_of_the_file_gets_into_the_environment(cells):
    """Neither the key nor its neighbours are variables afterwards, for programs that cells start would see them."""
    write_env(f"NEIGHBOUR=1\nLAB_KEY={KEY}\n")
    assert cells.ask("Hi", "--api-key-from .env:LAB_KEY").success
    assert keys(cells.server) == [f"Bearer {KEY}"]
    assert {"NEIGHBOUR", "LAB_KEY"} & set(os.environ) == set()
    assert not any(shows(value) for value in os.environ.values())


def test_a_file_names_no_other_variable(server, monkeypatch):
    """What looks like a variable in a value is text: a file cannot draw another key out of the environment."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_env("LAB_KEY=${OPENAI_API_KEY}\n")
    server.scripts = [HELLO]
    with Client(Profile("lab", server.base_url, model="m", api_key_from=".env:LAB_KEY")) as client:
        client.complete("Hi")
    assert keys(server) == ["Bearer ${OPENAI_API_KEY}"]


def test_a_key_that_changes_in_the_file_is_the_new_one(cells):
    """The file is read when a cell runs."""
    for key in (KEY, KEY[::-1]):
        write_env(f"LAB_KEY={key}")
        assert cells.ask("Hi", "--api-key-from .env:LAB_KEY").success
    assert keys(cells.server) == [f"Bearer {KEY}", f"Bearer {KEY[::-1]}"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file .env"),
        (f"OTHER_KEY={KEY}", ".env does not name LAB_KEY"),
        ("LAB_KEY=", "is empty"),
        ("LAB_KEY", "is empty"),
        (f"LAB_KEY='{KEY} {KEY}'", "LAB_KEY of .env holds blanks"),
        (f"LAB_KEY={KEY}é", "LAB_KEY of .env holds blanks"),
        ("x" * 2**21, "too large"),
    ],
    ids=["no file", "no name", "empty", "bare", "blanks", "no ASCII", "large"],
)
def test_a_file_without_the_key_is_said_in_one_line(text, words):
    """The error names the file and the name, and shows nothing of what the file holds."""
    if text is not None:
        write_env(text)
    assert words in refusal(".env:LAB_KEY")


def test_a_folder_or_other_bytes_in_its_place_are_said(tmp_path):
    """What is no file, and what is no text, are one line too."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".env").mkdir()
    assert "there is no file a/.env" in refusal("a/.env:LAB_KEY")
    Path(".env").write_bytes(b"LAB_KEY=\xff\xfe" + KEY.encode())
    assert "holds blanks" in refusal(".env:LAB_KEY")


# -- what is no place --------------------------------------------------------------------------------------------------

NO_PLACES = [
    KEY,
    f".env:{KEY}",
    f"{KEY}:LAB_KEY",
    f"keyring:{KEY}",
    f"file:{KEY}",
    f"prompt:{KEY}",
    "hf_ZqXwRtLmKpVnBdHsWfGjNcTyUaEoIr",
    ".env:hf_ZqXwRtLmKpVnBdHsWfGjNcTyUaEoIr",
    "$OPENAI_API_KEY",
    "OPENAI_API_KEY",
    ".env",
    ".env:",
    "id_rsa:LAB_KEY",
    "/etc/passwd:ROOT",
    ".env\n:LAB_KEY",
    "keyring:",
    "",
]


@pytest.mark.parametrize("text", NO_PLACES)
def test_a_key_in_place_of_its_place_is_refused_unseen(cells, capsys, text):
    """On a line, in a setting and in a file the error says what is taken, and does not show what was given."""
    write_env()
    quoted = text.replace("\n", "\\n")
    with pytest.raises(ProfileError) as caught:
        Place.read(text)
    (user_folder()).mkdir(parents=True)
    (user_folder() / "profiles.toml").write_text(
        f'[profiles.lab]\nbase_url = "{cells.server.base_url}"\napi_key_from = "{quoted}"\n'
    )
    with pytest.raises(ProfileError, match="api_key_from of 'lab'") as read:
        find_profile("lab")
    if "\n" not in text:
        result = cells.ask("Hi", f"--api-key-from '{text}'")
        assert isinstance(result.error_in_exec, ProfileError)
    shown = f"{caught.value} {read.value} {capsys.readouterr().out}"
    assert "keyring:NAME" in shown
    assert len(text) < 20 or text not in shown
    assert not shows(shown)
    assert "hf_" not in shown
    assert cells.heard == []


def test_two_places_are_one_too_many(cells):
    """A line, and a profile, name one key."""
    write_env()
    result = cells.ask("Hi", "--api-key-env LAB_KEY --api-key-from .env:LAB_KEY")
    assert "use one" in str(result.error_in_exec)
    Path("completions.toml").write_text(
        '[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "A"\napi_key_from = "prompt"\n'
    )
    with pytest.raises(ProfileError, match="one of them"):
        find_profile("lab")


def test_a_setting_names_a_place_for_its_own_address(cells):
    """%config CompletionsMagics.api_key_from goes with base_url there, and not to an address on a line."""
    write_env()
    settings = {"base_url": cells.server.base_url, "api_key_from": ".env:LAB_KEY", "model": "m"}
    for name, value in settings.items():
        cells.run(f"%config CompletionsMagics.{name} = '{value}'").raise_error()
    cells.run("%%complete\nHi").raise_error()
    cells.ask("Hi").raise_error()  # the same address, but here the line names it, and no key
    assert keys(cells.server) == [f"Bearer {KEY}", None]


def test_profiles_are_listed_with_the_place_of_their_key(cells, capsys):
    """%completions profiles says where a key is, and nothing of it."""
    write_env()
    user_folder().mkdir(parents=True)
    table = '[profiles.{0}]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_from = "{1}"\n'
    places = {"filed": ".env:LAB_KEY", "kept": "keyring:lab", "typed": "prompt"}
    (user_folder() / "profiles.toml").write_text("".join(table.format(*pair) for pair in places.items()))
    cells.run("%completions profiles").raise_error()
    shown = capsys.readouterr().out
    for words in ("key in LAB_KEY of .env", "key in lab of the system's keyring", "key in what you type"):
        assert words in shown
    assert not shows(shown)


# -- consent -----------------------------------------------------------------------------------------------------------

BESIDE = '[profiles.lab]\nbase_url = "{}"\nmodel = "m"\napi_key_from = "{}"\n'


@pytest.mark.parametrize("place", [".env:LAB_KEY", "~/.env:LAB_KEY", "keyring:lab", "prompt"])
def test_a_project_reads_no_place_before_consent(cells, capsys, place):
    """completions.toml names a key in vain until %completions trust; the error names the place and the origin."""
    write_env()
    Path("completions.toml").write_text(BESIDE.format(cells.server.base_url, place))
    result = cells.run("%%complete --profile lab\nHi")
    assert "%completions trust lab" in str(result.error_in_exec)
    assert cells.server.origin in str(result.error_in_exec)
    assert cells.heard == []
    cells.run("%completions trust lab").raise_error()
    assert f"may be sent to {cells.server.origin}" in capsys.readouterr().out
    after = cells.run("%%complete --profile lab\nHi")
    assert "trust" not in str(after.error_in_exec)
    assert keys(cells.server) == ([f"Bearer {KEY}"] if place == ".env:LAB_KEY" else [])


def test_consent_is_for_one_file(server, tmp_path, monkeypatch):
    """The same words in another folder, or a link that leads elsewhere since, take another consent."""
    server.scripts = [HELLO]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        write_env()
        Path("completions.toml").write_text(BESIDE.format(server.base_url, ".env:LAB_KEY"))
        with pytest.raises(ProfileError, match="trust"):
            find_profile("lab").key()
        trust(find_profile("lab"))
        assert find_profile("lab").key().reveal() == KEY
    Path(".env").unlink()
    write_env(path=tmp_path / "other.env")
    Path(".env").symlink_to(tmp_path / "other.env")
    with pytest.raises(ProfileError, match="trust"):
        find_profile("lab").key()


@pytest.mark.parametrize("option", ["--api-key-from .env:LAB_KEY", "--api-key-env LAB_KEY"])
def test_a_key_that_is_named_goes_to_no_address_that_only_a_project_names(cells, monkeypatch, option):
    """A name such as openai may be a project's own: with a key on the line the address is to be there too."""
    monkeypatch.setenv("LAB_KEY", KEY)
    write_env()
    Path("completions.toml").write_text(f'[profiles.openai]\nbase_url = "{cells.server.base_url}"\nmodel = "m"\n')
    result = cells.run(f"%%complete --profile openai {option}\nHi")
    assert f"--base-url {cells.server.base_url}" in str(result.error_in_exec)
    assert cells.heard == []
    cells.run(f"%%complete --profile openai --base-url {cells.server.base_url} {option}\nHi").raise_error()
    assert keys(cells.server) == [f"Bearer {KEY}"]


# -- plain http --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", ["--allow-http", "%config"])
def test_a_key_goes_without_tls_only_where_that_is_said(cells, allow):
    """To another machine over plain http takes --allow-http, or the setting beside the setting's address."""
    write_env()
    line = "%%complete -m m --base-url http://192.0.2.1/v1 --api-key-from .env:LAB_KEY --dry-run"
    assert "--allow-http" in str(cells.run(f"{line}\nHi").error_in_exec)
    if allow == "%config":
        settings = {"base_url": "'http://192.0.2.1/v1'", "api_key_from": "'.env:LAB_KEY'", "allow_http": True}
        for name, value in settings.items():
            cells.run(f"%config CompletionsMagics.{name} = {value}").raise_error()
        assert "--allow-http" in str(cells.run(f"{line}\nHi").error_in_exec)
        cells.run("%%complete -m m --dry-run\nHi").raise_error()
    else:
        cells.run(f"{line} --allow-http\nHi").raise_error()


# -- the system's keyring ----------------------------------------------------------------------------------------------

BACKEND = """
import json, pathlib
from keyring.backend import KeyringBackend

FILE = pathlib.Path(__file__).with_name("kept.json")

class Kept(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        return json.loads(FILE.read_text()).get(f"{service} {username}") if FILE.exists() else None

    def set_password(self, service, username, password):
        FILE.write_text(json.dumps({f"{service} {username}": password}))
"""
ASK = """
import sys
{before}
from completions_magic import Client, Profile
from completions_magic.errors import CompletionsError
try:
    print(Client(Profile("lab", sys.argv[1], model="m", api_key_from="keyring:lab")).complete("Hi").text)
except CompletionsError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


def ask_with_keyring(base_url, backend, before=""):
    """Return what a program prints that takes its key from the keyring of this backend."""
    command = [sys.executable, "-c", ASK.format(before=before), base_url]
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": backend, "PYTHONPATH": "."}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout


def test_a_key_is_read_from_the_systems_keyring(server):
    """What `python -m keyring set completions-magic NAME` stored is sent."""
    Path("kept.py").write_text(BACKEND)
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "kept.Kept", "PYTHONPATH": "."}
    store = [sys.executable, "-m", "keyring", "set", "completions-magic", "lab"]
    subprocess.run(store, input=KEY, text=True, check=True, env=environment, capture_output=True, timeout=60)
    server.scripts = [HELLO]
    assert ask_with_keyring(server.base_url, "kept.Kept") == "Hello\n"
    assert keys(server) == [f"Bearer {KEY}"]


@pytest.mark.parametrize(
    ("backend", "before", "words"),
    [
        ("keyring.backends.null.Keyring", "", "python -m keyring set completions-magic lab"),
        ("keyring.backends.fail.Keyring", "", "the system's keyring cannot be read: No recommended backend"),
        ("keyring.backends.null.Keyring", "sys.modules['keyring'] = None", "pip install 'completions-magic[keyring]'"),
    ],
    ids=["no such key", "no keyring", "no package"],
)
def test_a_keyring_without_the_key_is_said_in_one_line(server, backend, before, words):
    """The line names the next step: the command that stores it, or that installs what is missing."""
    said = ask_with_keyring(server.base_url, backend, before)
    assert said.startswith("ProfileError: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert server.heard == []


# -- a typed key -------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(tmp_path):
    """Return a kernel with the extension."""
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.close()


def type_key(kernel, request, key):
    """Answer the kernel's question with a key; return the question, and what was said about the cell."""
    question = kernel.client.get_stdin_msg(timeout=20)["content"]
    kernel.client.input(key)
    return question, *kernel.finish(request)


def test_a_typed_key_is_asked_for_once_and_kept_nowhere(server, tmp_path):
    """The question names the origin and hides what is typed; two cells use it, and no message or file holds it."""
    kernel = Kernel(tmp_path)
    server.scripts = [HELLO]
    cell = f"%%complete -m m --base-url {server.base_url} --api-key-from prompt\nHi"
    question, reply, _ = type_key(kernel, kernel.start(cell, watched=True), KEY)
    assert (question["password"], reply["status"]) == (True, "ok")
    assert f"sent to {server.origin} only" in question["prompt"]
    reply, _ = kernel.run(cell, watched=True)
    assert reply["status"] == "ok"
    kernel.run("%history\nprint(In, Out, dir())")
    kernel.close()
    assert keys(server) == [f"Bearer {KEY}"] * 2
    kept = [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(shows(text) for text in [*kept, repr(kernel.said)])


def test_a_mistyped_key_is_asked_for_again(kernel, server):
    """After a 401 the next cell asks once more, and says so; whether it asks for a wait too does not matter."""
    server.scripts = [WRONG.replace(b"\r\n", b"\r\nRetry-After: 5\r\n", 1), HELLO]
    cell = f"%%complete -m m --base-url {server.base_url} --api-key-from prompt\nHi"
    _, reply, _ = type_key(kernel, kernel.start(cell, watched=True), KEY[::-1])
    assert "the key that you typed is forgotten" in reply["evalue"]
    _, reply, _ = type_key(kernel, kernel.start(cell, watched=True), KEY)
    assert reply["status"] == "ok"
    assert keys(server) == [f"Bearer {KEY[::-1]}", f"Bearer {KEY}"]


def test_a_typed_key_goes_to_no_other_origin(kernel, server):
    """Another address is another question."""
    server.scripts = [HELLO]
    cell = f"%%complete -m m --base-url http://127.0.0.1:{server.port}/v1 --api-key-from prompt\nHi"
    type_key(kernel, kernel.start(cell, watched=True), KEY)
    other = cell.replace("127.0.0.1", "localhost")
    question, _, _ = type_key(kernel, kernel.start(other, watched=True), KEY[::-1])
    assert f"http://localhost:{server.port}" in question["prompt"]
    assert keys(server) == [f"Bearer {KEY}", f"Bearer {KEY[::-1]}"]


def test_where_nobody_can_type_it_is_said_in_one_line(kernel, server):
    """A kernel whose front end allows no input says what else there is, and waits for nothing."""
    reply, _ = kernel.run(f"%%complete -m m --base-url {server.base_url} --api-key-from prompt\nHi")
    assert reply["ename"] == "ProfileError"
    assert "nobody is here to type it" in reply["evalue"]
    assert "--api-key-env" in reply["evalue"]
    assert len(reply["traceback"]) == 1
    assert server.heard == []


def test_a_program_without_a_terminal_is_asked_nothing():
    """Without a terminal there is no question, and no key is read from a pipe."""
    program = [sys.executable, "-m", "completions_magic", "doctor", "http://127.0.0.1:9/v1", "--api-key-from", "prompt"]
    done = subprocess.run(program, input=f"{KEY}\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "nobody is here to type it" in done.stderr


def test_a_key_typed_at_a_terminal_is_not_shown(tmp_path, server):
    """In IPython at a terminal the key does not appear while it is typed, nor afterwards."""
    server.scripts = [HELLO]
    terminal = Terminal(tmp_path)
    terminal.paste(f"%%complete -m m --base-url {server.base_url} --api-key-from prompt\nHi")
    shown = terminal.expect("only: ")
    terminal.send(f"{KEY}\r")
    shown += terminal.finish()
    assert terminal.close() == 0
    assert "Hello" in shown
    assert not shows(shown)
    assert keys(server) == [f"Bearer {KEY}"]


def test_who_only_replays_is_asked_nothing(cells, tmp_path):
    """With --record none no place is read: the cassette is enough."""
    write_env()
    cassette = f"--cassette {tmp_path / 'c.jsonl'}"
    cells.ask("Hi", f"--api-key-from .env:LAB_KEY {cassette}").raise_error()
    Path(".env").unlink()
    for place in (".env:LAB_KEY", "prompt", "keyring:lab"):
        cells.ask("Hi", f"--api-key-from {place} {cassette} --record none --sample 1").raise_error()
    assert len(cells.heard) == 1


def test_who_only_replays_before_a_person_is_asked_nothing(kernel, server):
    """A front end that could be asked is not: the cell ends by itself."""
    server.scripts = [HELLO]
    cell = f"%%complete -m m --base-url {server.base_url} --cassette c.jsonl {{}}\nHi"
    kernel.run(cell.format("-q"), watched=True)
    reply, _ = kernel.run(cell.format("--record none --sample 1 --api-key-from prompt"), watched=True)
    assert reply["status"] == "ok"
    assert len(server.heard) == 1
