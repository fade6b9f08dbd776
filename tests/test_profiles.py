"""Profiles: the built-in ones, the two files, the environment, and what a base URL and a key may be."""

import os
import stat
from pathlib import Path

import pytest

from completions_magic import Client, Profile
from completions_magic.errors import ProfileError
from completions_magic.profiles import (
    BUILT_IN,
    LOCAL,
    choose_profile,
    clean_base_url,
    find_profile,
    is_loopback,
    is_trusted,
    origin,
    read_profiles,
    trust,
    user_folder,
)

KEY = "sk-Zq7Xw9Rt2Lm4Kp8Vn3Bd6Hs1Wf5"


def write_beside(text):
    """Write completions.toml beside the notebook, where the tests run."""
    Path("completions.toml").write_text(text)


def write_own(text):
    """Write profiles.toml into the user's configuration folder."""
    user_folder().mkdir(parents=True, exist_ok=True)
    (user_folder() / "profiles.toml").write_text(text)


@pytest.fixture(params=[write_own, write_beside], ids=["profiles.toml", "completions.toml"])
def write(request):
    """Give a function that writes one of the two files."""
    return request.param


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    """Set the key that profiles of these tests name."""
    monkeypatch.setenv("LAB_KEY", KEY)


# ---------------------------------------------------------------- the built-in profiles


@pytest.mark.parametrize(
    ("name", "base_url", "api_key_env", "model"),
    [
        ("local", "local", None, "pocket"),
        ("3xcoder", "https://api.3xcoder.com/v1", "OPENAI_API_KEY", "gpt-3.5-turbo-instruct"),
        ("openai", "https://api.openai.com/v1", "OPENAI_API_KEY", "gpt-3.5-turbo-instruct"),
        ("llama.cpp", "http://127.0.0.1:8080/v1", None, "default"),
        ("vllm", "http://127.0.0.1:8000/v1", None, None),
        ("ollama", "http://127.0.0.1:11434/v1", None, None),
        ("lmstudio", "http://127.0.0.1:1234/v1", None, None),
    ],
)
def test_the_usual_endpoints_have_a_name(name, base_url, api_key_env, model):
    """Each built-in profile has its usual address, its key's variable and its model."""
    profile = find_profile(name)
    assert (profile.name, profile.base_url, profile.api_key_env, profile.model) == (name, base_url, api_key_env, model)


def test_without_files_there_are_the_built_in_profiles():
    """Files that are not there hold no profiles."""
    assert read_profiles() == (BUILT_IN, [])


def test_a_name_that_is_none_lists_the_near_ones():
    """The error names what was meant, and all that there are."""
    with pytest.raises(ProfileError, match=r"openay.*did you mean openai.*lmstudio"):
        find_profile("openay")


@pytest.mark.parametrize("name", ["3xcoder", "openai"])
def test_a_hosted_endpoint_asks_for_its_key(name):
    """Without the variable the error names it."""
    with pytest.raises(ProfileError, match="OPENAI_API_KEY"):
        Client(name)


def test_a_profile_never_holds_a_key(monkeypatch):
    """What a profile shows is the name of the variable."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in repr(find_profile("openai"))


def test_a_model_that_nobody_names_is_asked_for():
    """An endpoint without a usual model says how to name one."""
    with Client("vllm") as client, pytest.raises(ProfileError, match="--model"):
        client.request("a")


# ---------------------------------------------------------------- precedence


def test_with_nothing_given_the_endpoint_is_the_embedded_one(monkeypatch):
    """A key alone, without its base URL, changes nothing."""
    assert choose_profile() == BUILT_IN[LOCAL]
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert choose_profile() == BUILT_IN[LOCAL]


@pytest.mark.parametrize(("key", "variable"), [(KEY, "OPENAI_API_KEY"), (None, None), ("  ", None)])
def test_the_environment_names_an_endpoint(monkeypatch, key, variable):
    """OPENAI_BASE_URL counts with and without OPENAI_API_KEY; a blank key is none."""
    monkeypatch.setenv("OPENAI_BASE_URL", " https://lab.invalid/v1/ ")
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    profile = choose_profile()
    assert (profile.base_url, profile.api_key_env) == ("https://lab.invalid/v1", variable)


def test_a_blank_base_url_in_the_environment_is_none(monkeypatch):
    """An empty variable counts as not set."""
    monkeypatch.setenv("OPENAI_BASE_URL", "  ")
    assert choose_profile() == BUILT_IN[LOCAL]


def test_a_name_comes_before_the_environment(monkeypatch):
    """A profile that is named is the one that is used."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://lab.invalid/v1")
    assert choose_profile("vllm") == BUILT_IN["vllm"]


def test_a_base_url_comes_before_the_environment_and_drops_its_key(monkeypatch):
    """The key belongs to the origin in the environment."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://lab.invalid/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    profile = choose_profile(base_url="https://other.invalid/v1")
    assert (profile.base_url, profile.api_key_env) == ("https://other.invalid/v1", None)


OTHER_ORIGINS = [
    "https://lab.invalid:8443/v1",
    "http://lab.invalid/v1",
    "https://lab.invalid.evil.invalid/v1",
    "https://evil.invalid/lab.invalid/v1",
    "https://api.lab.invalid/v1",
    "https://lab.invalid./v1",
    "http://127.0.0.1:8000/v1",
]


@pytest.mark.parametrize("base_url", OTHER_ORIGINS)
def test_another_origin_drops_key_model_and_parameters(base_url):
    """Scheme, host and port are what a key belongs to."""
    write_own(
        '[profiles.lab]\nbase_url = "https://lab.invalid/v1"\napi_key_env = "LAB_KEY"\nmodel = "m"\n'
        "allow_http = true\nparameters = { temperature = 0 }"
    )
    profile = choose_profile("lab", base_url=base_url)
    assert (profile.base_url, profile.api_key_env, profile.model) == (base_url, None, None)
    assert (dict(profile.parameters), profile.allow_http, profile.key()) == ({}, False, None)


@pytest.mark.parametrize(
    "base_url",
    ["https://lab.invalid/v2", "https://lab.invalid:443/v1", "https://LAB.invalid/v1", "HTTPS://lab.invalid/v1/"],
)
def test_another_path_of_the_same_origin_keeps_the_key(base_url):
    """The default port and capitals make no other origin."""
    write_own('[profiles.lab]\nbase_url = "https://lab.invalid/v1"\napi_key_env = "LAB_KEY"\nmodel = "m"')
    profile = choose_profile("lab", base_url=base_url)
    assert (profile.api_key_env, profile.model, profile.key().reveal()) == ("LAB_KEY", "m", KEY)


def test_a_base_url_may_be_the_embedded_endpoint(monkeypatch):
    """`local` is an address too, and no key goes with it."""
    monkeypatch.setenv("OPENAI_BASE_URL", "https://lab.invalid/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert choose_profile(base_url="local") == BUILT_IN[LOCAL]


def test_a_variable_that_is_named_goes_with_the_base_url_that_is_named():
    """The two together are a consent."""
    profile = choose_profile(base_url="https://other.invalid/v1", api_key_env="LAB_KEY")
    assert profile.key().reveal() == KEY


def test_a_model_that_is_named_comes_before_the_profiles_model():
    """The option wins."""
    assert choose_profile("openai", model="davinci-002").model == "davinci-002"


def test_parameters_that_are_given_come_before_the_profiles_parameters():
    """The profile's are defaults; None takes one back."""
    profile = Profile("lab", "http://127.0.0.1:1/v1", model="m", parameters={"temperature": 0, "max_tokens": 9})
    with Client(profile) as client:
        assert client.request("a").body() == {"model": "m", "prompt": "a", "max_tokens": 9, "temperature": 0}
        assert client.request("a", temperature=1, max_tokens=None).body() == {
            "model": "m",
            "prompt": "a",
            "temperature": 1,
        }


# ---------------------------------------------------------------- the two files

ENTRY = """
[profiles.lab]
base_url = "http://127.0.0.1:9/v1/"
model = "m"
allow_http = true
[profiles.lab.parameters]
temperature = 0.5
stop = ["\\n"]
"""


def test_a_file_names_endpoints(write):
    """Base URL, model, consent and default parameters are read."""
    write(ENTRY)
    profile = find_profile("lab")
    assert (profile.base_url, profile.model, profile.allow_http) == ("http://127.0.0.1:9/v1", "m", True)
    assert (profile.api_key_env, dict(profile.parameters)) == (None, {"temperature": 0.5, "stop": ["\n"]})


def test_the_file_beside_the_notebook_comes_last():
    """It counts before the user's own file, and both before the built-in profiles."""
    write_own('[profiles.vllm]\nbase_url = "http://127.0.0.1:1/v1"\n[profiles.lab]\nbase_url = "http://127.0.0.1:2/v1"')
    write_beside('[profiles.lab]\nbase_url = "http://127.0.0.1:3/v1"')
    assert [find_profile(name).base_url for name in ("vllm", "lab")] == [
        "http://127.0.0.1:1/v1",
        "http://127.0.0.1:3/v1",
    ]


def test_a_file_without_profiles_is_no_failure(write):
    """An empty file holds none."""
    write("")
    assert read_profiles() == (BUILT_IN, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profiles.lab", ""),
        ("[profiles.lab]\nbase_url = 3", "base_url"),
        ("[profiles.lab]\nmodel = 'm'", "base_url"),
        ("[profiles.lab]\nbase_url = 'http://127.0.0.1:9/v1'\ntemprature = 1", "temprature"),
        ("[profiles.lab]\nbase_url = 'http://127.0.0.1:9/v1'\nparameters = { temprature = 1 }", "temperature"),
        ("[profiles.lab]\nbase_url = 'http://127.0.0.1:9/v1'\nallow_http = 'yes'", "allow_http"),
        ("[profiles.lab]\nbase_url = 'ftp://127.0.0.1/v1'", "ftp"),
        ("[profiles.local]\nbase_url = 'http://127.0.0.1:9/v1'", "local"),
        ("profiles = 3", "object"),
        ("profiles = []", "object"),
        ("x = " + "[" * 100_000, ""),
    ],
    ids=[
        "no TOML",
        "a type",
        "no base_url",
        "a field",
        "a parameter",
        "a switch",
        "a base URL",
        "local",
        "a number",
        "a list",
        "deep",
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_reason(write, text, said):
    """A mistake in a file is a ProfileError that says where, and what; the other profiles are there."""
    write(text)
    known, [error] = read_profiles()
    assert known == BUILT_IN
    path = "completions.toml" if write is write_beside else "profiles.toml"
    assert path in str(error)
    assert said in str(error)
    assert len(str(error)) <= 2000


def test_a_mistake_in_one_profile_leaves_the_others_of_its_file(write):
    """Only who asks for that one is told."""
    write('[profiles.typo]\nbase_ulr = "http://127.0.0.1:9/v1"\n[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"')
    assert find_profile("lab").base_url == "http://127.0.0.1:9/v1"
    assert find_profile("openai") == BUILT_IN["openai"]
    with pytest.raises(ProfileError, match=r"profiles\.toml|completions\.toml") as caught:
        find_profile("typo")
    assert "'typo': Object contains unknown field `base_ulr`" in str(caught.value)


def test_what_a_file_names_that_is_no_toml_is_not_taken_from_elsewhere():
    """It may name another address for a built-in profile; what counts before it, and `local`, do not ask it."""
    write_own("[profiles.openai\n")
    write_beside('[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"')
    assert find_profile("lab").source == "completions.toml"
    assert find_profile("local") == BUILT_IN[LOCAL]
    for name in ("openai", "nobody"):
        with pytest.raises(ProfileError, match=r"profiles\.toml: .*\(at line 1, column 17\)"):
            find_profile(name)
    write_beside("[profiles.lab\n")
    with pytest.raises(ProfileError, match=r"^completions\.toml: .*\(at line 1, column 14\)"):
        find_profile("lab")


def test_a_file_of_other_bytes_is_named(write):
    """What is no UTF-8 is no TOML."""
    write("")
    path = Path("completions.toml") if write is write_beside else user_folder() / "profiles.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match=path.name):
        find_profile("lab")


def test_a_folder_by_the_name_of_a_file_is_named():
    """What cannot be opened is an error, not a missing file."""
    Path("completions.toml").mkdir()
    with pytest.raises(ProfileError, match=r"completions\.toml"):
        find_profile("lab")


def test_a_broken_file_does_not_matter_where_no_profile_is_named():
    """Neither the embedded endpoint nor a base URL needs the files."""
    write_beside("[profiles.lab")
    assert choose_profile() == BUILT_IN[LOCAL]
    assert choose_profile(base_url="http://127.0.0.1:9/v1").base_url == "http://127.0.0.1:9/v1"


# ---------------------------------------------------------------- keys are named, never given

VALUES = [
    KEY,
    "sk-proj-abc_DEF-123456789",
    "hf_ZqXwRtLmKpVnBdHsWfGjNcTyUaEoIr",
    "gsk_Zq7Xw9Rt2Lm4Kp8Vn3Bd6Hs1Wf5Gj3Nc0",
    "Bearer sk-1234567890",
    "$OPENAI_API_KEY",
    "",
    "x" * 200,
]


@pytest.mark.parametrize("value", VALUES)
def test_a_key_in_place_of_its_variables_name_is_refused_unseen(write, value):
    """api_key_env in a file names a variable; the error says so without showing what was there."""
    write(f'[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "{value}"')
    with pytest.raises(ProfileError) as caught:
        Client("lab")
    assert not value or value not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("value", VALUES)
def test_a_key_in_place_of_the_options_variable_is_refused_unseen(value):
    """--api-key-env takes a name; the error does not show what was given."""
    with pytest.raises(ProfileError) as caught:
        Client(choose_profile(base_url="http://127.0.0.1:9/v1", api_key_env=value, model="m"))
    assert not value or value not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("field", ["api_key", "key", "token", "headers"])
def test_a_file_takes_no_key_by_value(write, field):
    """A field for a key's value does not exist, and the error does not show the value."""
    write(f'[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"\n{field} = "{KEY}"')
    with pytest.raises(ProfileError, match=field) as caught:
        find_profile("lab")
    assert KEY not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"


# ---------------------------------------------------------------- trust

BESIDE = '[profiles.lab]\nbase_url = "https://lab.invalid/v1"\napi_key_env = "LAB_KEY"\nmodel = "m"'


def test_a_file_beside_a_notebook_names_a_key_only_after_consent():
    """The error names the variable, the origin and the command; after it the key is used."""
    write_beside(BESIDE)
    with pytest.raises(ProfileError, match=r"LAB_KEY to https://lab\.invalid.*%completions trust lab"):
        Client("lab")
    trust(find_profile("lab"))
    Client("lab").close()
    assert find_profile("lab").key().reveal() == KEY


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("https://lab.invalid", "https://evil.invalid"),
        ("https://lab.invalid", "https://lab.invalid:8443"),
        ("https://lab.invalid", "http://lab.invalid"),
        ("LAB_KEY", "OPENAI_API_KEY"),
    ],
)
def test_consent_is_for_one_variable_and_one_origin(monkeypatch, old, new):
    """Another host, port, scheme or variable takes another consent."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_beside(BESIDE)
    trust(find_profile("lab"))
    write_beside(BESIDE.replace(old, new))
    assert not is_trusted(find_profile("lab"))
    with pytest.raises(ProfileError, match="trust"):
        find_profile("lab").key()


def test_consent_holds_for_another_model_of_the_same_origin():
    """What is agreed to is where the key goes, not what is asked there."""
    write_beside(BESIDE)
    trust(find_profile("lab"))
    write_beside(BESIDE.replace('"m"', '"n"').replace("/v1", "/v2"))
    assert find_profile("lab").key().reveal() == KEY


@pytest.mark.parametrize("changes", [{"model": "n"}, {"base_url": "https://lab.invalid/v2"}])
def test_an_option_beside_an_untrusted_profile_is_no_consent(changes):
    """A model, or another path of the same origin, says nothing about the key."""
    write_beside(BESIDE)
    with pytest.raises(ProfileError, match="trust"):
        choose_profile("lab", **changes).key()


def test_a_built_in_name_in_a_file_beside_a_notebook_takes_consent_too(monkeypatch):
    """A notebook's folder cannot send the key of `openai` elsewhere."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_beside('[profiles.openai]\nbase_url = "https://evil.invalid/v1"\napi_key_env = "OPENAI_API_KEY"')
    with pytest.raises(ProfileError, match=r"evil\.invalid"):
        Client("openai")


def test_the_users_own_file_needs_no_consent():
    """Whoever wrote it is the person."""
    write_own(BESIDE)
    assert find_profile("lab").key().reveal() == KEY


def test_a_profile_without_a_key_needs_no_consent():
    """There is nothing to agree to."""
    write_beside('[profiles.lab]\nbase_url = "https://lab.invalid/v1"')
    assert find_profile("lab").key() is None


@pytest.fixture
def umask():
    """Set the usual mask, which lets others read, whatever it is where the tests run."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def mode(path):
    """Return a path's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_the_list_of_consents_is_for_the_person_alone():
    """The file is made 0600 and its folder 0700."""
    write_beside(BESIDE)
    trust(find_profile("lab"))
    assert [oct(mode(path)) for path in (user_folder(), user_folder() / "trusted")] == ["0o700", "0o600"]


@pytest.mark.usefixtures("umask")
def test_a_list_of_consents_that_others_may_change_does_not_count():
    """A looser file is tightened or refused: what others can write is no consent."""
    write_beside(BESIDE)
    profile = find_profile("lab")
    trust(profile)
    path = user_folder() / "trusted"
    path.chmod(0o666)
    assert not is_trusted(profile) or mode(path) == 0o600


@pytest.mark.usefixtures("umask")
def test_a_list_of_consents_that_is_looser_is_tightened():
    """Adding to an older file makes it the person's alone."""
    user_folder().mkdir(parents=True)
    path = user_folder() / "trusted"
    path.touch(0o644)
    write_beside(BESIDE)
    trust(find_profile("lab"))
    assert oct(mode(path)) == "0o600"
    assert is_trusted(find_profile("lab"))


def test_the_list_of_consents_holds_no_key():
    """The origin and the variable's name are all that it takes."""
    write_beside(BESIDE)
    trust(find_profile("lab"))
    content = (user_folder() / "trusted").read_text()
    assert KEY not in content
    assert "https://lab.invalid" in content
    assert "LAB_KEY" in content


# ---------------------------------------------------------------- base URLs


@pytest.mark.parametrize(
    ("written", "cleaned"),
    [
        ("https://lab.invalid/v1", "https://lab.invalid/v1"),
        ("https://lab.invalid/v1/", "https://lab.invalid/v1"),
        ("https://lab.invalid/v1/completions", "https://lab.invalid/v1"),
        ("https://lab.invalid/v1/completions/", "https://lab.invalid/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("local", "local"),
    ],
)
def test_a_base_url_is_cleaned(written, cleaned):
    """A slash at the end and the route are dropped."""
    assert clean_base_url(written) == cleaned


REFUSED = [
    "",
    "lab.invalid/v1",
    "lab.invalid:8000/v1",
    "//lab.invalid/v1",
    "/v1",
    "http://",
    "http:///v1",
    "https:lab.invalid/v1",
    "ftp://lab.invalid/v1",
    "file:///etc/passwd",
    "unix:///run/socket",
    "javascript:alert(1)",
    "https://lab.invalid/v1?key=1",
    "https://lab.invalid/v1?",
    "https://lab.invalid/v1#part",
    "https://lab.invalid/v1#",
    "https://lab.invalid:port/v1",
    "https://lab.invalid:99999/v1",
    "https://lab.invalid:-1/v1",
    "https://[::1/v1",
    "https://[lab]/v1",
    "https://[v1.lab]/v1",
    "https://lab..invalid/v1",
    "https://.lab.invalid/v1",
    "https://" + "x" * 64 + ".invalid/v1",
    "https://999.1.1.1/v1",
    "https://lab .invalid/v1",
    "https://lab.invalid/v 1",
    "https://lab.invalid/v1\n",
    "https://lab.\ninvalid/v1",
    "https://lab.invalid/\x00v1",
    "https://lab\\.invalid/v1",
    "https://-ü-.invalid/v1",
    "https://" + "x" * 70_000,
]


@pytest.mark.parametrize("base_url", REFUSED, ids=lambda base_url: repr(base_url[:30]))
def test_what_is_no_base_url_is_refused(base_url):
    """It is a ProfileError before anything is sent, not a surprise later, and short."""
    with pytest.raises(ProfileError) as caught, Client(base_url=base_url, model="m", retries=0) as client:
        client.complete("a")
    assert len(str(caught.value)) <= 2000


@pytest.mark.parametrize("base_url", ["https://user:sk-secret@lab.invalid/v1", "https://sk-secret@lab.invalid/v1"])
def test_a_base_url_with_a_name_or_a_password_is_refused_unseen(write, base_url):
    """A key in the address is a key in every log; the error does not show it."""
    write(f'[profiles.lab]\nbase_url = "{base_url}"')
    for ask in (lambda: find_profile("lab"), lambda: choose_profile(base_url=base_url)):
        with pytest.raises(ProfileError) as caught:
            ask()
        assert "secret" not in f"{caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_a_base_url_of_the_environment_is_checked_too(monkeypatch):
    """A mistake in OPENAI_BASE_URL is found when the endpoint is chosen."""
    monkeypatch.setenv("OPENAI_BASE_URL", "lab.invalid/v1")
    with pytest.raises(ProfileError):
        choose_profile()


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://lab.invalid/v1", "https://lab.invalid:443"),
        ("http://LAB.invalid/v1", "http://lab.invalid:80"),
        ("HTTP://lab.invalid:8000", "http://lab.invalid:8000"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(base_url, expected):
    """Two spellings of one place are one origin."""
    assert origin(base_url) == expected


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("local", True),
        ("http://localhost:1/v1", True),
        ("http://LOCALHOST/v1", True),
        ("http://127.0.0.1/v1", True),
        ("http://127.1.2.3/v1", True),
        ("http://[::1]/v1", True),
        ("http://0.0.0.0/v1", False),
        ("http://192.168.0.1/v1", False),
        ("http://localhost.invalid/v1", False),
        ("http://127.0.0.1.invalid/v1", False),
        ("http://lab.invalid/127.0.0.1", False),
    ],
)
def test_loopback_is_this_machine_and_no_other(base_url, expected):
    """Where a key may travel in the clear, and proxies do not count."""
    assert is_loopback(base_url) is expected
