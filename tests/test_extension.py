"""Loading and unloading, and which setting counts."""

import atexit
import json
import subprocess
import sys

import pytest
from conftest import DONE, ScriptedServer, answer, event, stream
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from completions_magic import load_ipython_extension, unload_ipython_extension

HELLO = stream([event("Hello", reason="stop"), DONE])
HEAVY = {
    "anywidget",
    "asyncio.sslproto",
    "httpcore",
    "httpx",
    "ipywidgets",
    "msgspec",
    "numpy",
    "pandas",
    "platformdirs",
}

IN_A_NEW_PROCESS = """
import json, os, sys, threading
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
shell.run_cell("%who")
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
before = set(sys.modules), threading.active_count(), len(os.listdir("/dev/fd"))
shell.run_cell(CELL).raise_error()
after = set(sys.modules), threading.active_count(), len(os.listdir("/dev/fd"))
print(json.dumps({
    "modules": sorted(after[0] - before[0]),
    "sockets": [event for event in seen if event.startswith("socket.")],
    "threads": after[1] - before[1],
    "files": after[2] - before[2],
}))
"""


@pytest.fixture
def bare():
    """Return a shell without the extension, and with neither history nor colours."""
    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    config = Config(HistoryManager={"enabled": False}, InteractiveShell={"colors": "nocolor"})
    shell = InteractiveShell.instance(config=config)
    yield shell
    InteractiveShell.clear_instance()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"] = main


@pytest.fixture
def shell(bare):
    """Return a shell with the extension."""
    load_ipython_extension(bare)
    yield bare
    unload_ipython_extension(bare)


def traces(shell):
    """Return all that loading could leave in a shell."""
    return {
        "magics": {kind: sorted(known) for kind, known in shell.magics_manager.magics.items()},
        "user magics": sorted(vars(shell.magics_manager.user_magics)),
        "settings": [type(one).__name__ for one in shell.configurables],
        "callbacks": {name: list(known) for name, known in shell.events.callbacks.items()},
        "matchers": list(shell.Completer.matchers),
        "names": sorted(shell.user_ns),
    }


def in_a_new_process(cell):
    """Return what running `cell` does to a new process: new modules, sockets, threads, open files."""
    code = IN_A_NEW_PROCESS.replace("CELL", repr(cell))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


# Loading


def test_loading_opens_nothing_and_imports_nothing_heavy():
    """%load_ext leaves HTTP, widgets and JSON decoders where they are, and opens no socket, thread or file."""
    done = in_a_new_process("%load_ext completions_magic")
    assert "completions_magic" in done["modules"]
    assert HEAVY.isdisjoint(done["modules"])
    assert (done["sockets"], done["threads"], done["files"]) == ([], 0, 0)


def test_ordinary_cells_stay_light():
    """With the extension loaded, Python and Tab completion of Python import nothing heavy."""
    cell = "%load_ext completions_magic\n1 + 1\nget_ipython().complete('complete_nothi')\nget_ipython().complete('pri')"
    done = in_a_new_process(cell)
    assert HEAVY.isdisjoint(done["modules"])
    assert done["sockets"] == []


def test_the_built_in_model_needs_no_socket():
    """A completion of the embedded endpoint opens no socket and leaves no thread or file."""
    done = in_a_new_process("%load_ext completions_magic\na = %complete --seed 1 Once upon")
    assert "httpx" in done["modules"]
    assert (done["sockets"], done["threads"], done["files"]) == ([], 0, 0)


def test_importing_the_package_imports_nothing_heavy():
    """`import completions_magic` by itself costs next to nothing."""
    assert HEAVY.isdisjoint(in_a_new_process("import completions_magic")["modules"])


def test_loading_unloading_and_reloading_print_nothing(bare, capfd):
    """No line is printed by any of the three."""
    for line in ("load_ext", "reload_ext", "unload_ext", "load_ext", "unload_ext"):
        bare.run_cell(f"%{line} completions_magic").raise_error()
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_loading_twice_is_loading_once(shell):
    """A second load adds nothing."""
    once = traces(shell)
    load_ipython_extension(shell)
    assert traces(shell) == once


def test_unloading_takes_everything_back(bare):
    """After %unload_ext the shell is what it was, however often it was loaded."""
    before = traces(bare)
    # As %load_ext, %reload_ext and %unload_ext do, which are themselves loaded at their first use.
    extensions = bare.extension_manager
    for _ in range(2):
        assert extensions.load_extension("completions_magic") is None
        extensions.reload_extension("completions_magic")
        extensions.reload_extension("completions_magic")
        assert extensions.unload_extension("completions_magic") is None
    assert traces(bare) == before


def test_unloading_twice_is_unloading_once(bare):
    """A second unload, or one before any load, does nothing."""
    before = traces(bare)
    unload_ipython_extension(bare)
    load_ipython_extension(bare)
    unload_ipython_extension(bare)
    unload_ipython_extension(bare)
    assert traces(bare) == before


def test_unloading_closes_the_connection(shell, server):
    """A kept connection is closed by %unload_ext."""

    def answer_and_listen(connection):
        connection.sendall(answer({"choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}]}))
        server.wait_until_gone(connection)

    server.scripts = [answer_and_listen]
    shell.run_cell(f"%%complete -m m --no-stream --base-url {server.base_url}\nHi").raise_error()
    assert not server.gone.is_set()
    unload_ipython_extension(shell)
    assert server.gone.wait(5)


def test_unloaded_magics_are_gone_and_reloaded_ones_work(bare, server, capsys):
    """%%complete is unknown before loading and after unloading, and works after reloading."""
    server.scripts = [HELLO]
    cell = f"%%complete -o it -m m --base-url {server.base_url}\nHi"
    worked = []
    for line in (
        "lsmagic",
        "load_ext completions_magic",
        "reload_ext completions_magic",
        "unload_ext completions_magic",
    ):
        bare.run_cell(f"%{line}").raise_error()
        result = bare.run_cell(cell)
        worked.append(result.success)
        assert result.success or isinstance(result.error_in_exec, UsageError)
    assert worked == [False, True, True, False]
    assert "complete" in capsys.readouterr().err


def test_the_settings_are_listed_with_what_they_mean(shell, capsys):
    """%config CompletionsMagics shows every setting and its help."""
    shell.run_cell("%config CompletionsMagics").raise_error()
    shown = capsys.readouterr().out
    for name in ("profile", "base_url", "api_key_env", "model", "parameters", "timeout", "retries"):
        assert f"CompletionsMagics.{name}=" in shown
    assert "longest silence" in shown


def test_settings_may_come_from_a_configuration_file():
    """What c.CompletionsMagics says before loading counts from the first cell."""
    code = """
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
settings = {"HistoryManager": {"enabled": False}, "CompletionsMagics": {"model": "base-7b", "parameters": {"n": 2}}}
shell = InteractiveShell.instance(config=Config(settings))
shell.run_cell("%load_ext completions_magic").raise_error()
print(shell.run_cell("%complete --dry-run Hi").result.request.body())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "{'model': 'base-7b', 'prompt': 'Hi', 'n': 2, 'stream': True}"


# Which setting counts: option > profile > %config > environment > local


@pytest.fixture
def lab(shell, server, monkeypatch, tmp_path):
    """Return what runs a cell, after saying a profile, a %config and an environment that all ask one server.

    The path of a request tells which base URL counted, its Authorization header which key.
    """
    folder = tmp_path / "config" / "completions-magic"
    folder.mkdir(parents=True)
    (folder / "profiles.toml").write_text(
        f'[profiles.lab]\nbase_url = "{server.origin}/profile/v1"\napi_key_env = "KEY_OF_PROFILE"\n'
        'model = "of-profile"\nparameters = { temperature = 0.2, top_p = 0.2 }\n'
        f'[profiles.bare]\nbase_url = "{server.origin}/bare/v1"\n'
    )
    for name in ("OPTION", "PROFILE", "CONFIG", "ENVIRONMENT"):
        monkeypatch.setenv(f"KEY_OF_{name}", f"key-of-{name.lower()}")
    server.scripts = [HELLO]

    def run(options, *, config=(), environment=False):
        for setting in config:
            shell.run_cell(f"%config CompletionsMagics.{setting}").raise_error()
        if environment:
            monkeypatch.setenv("OPENAI_BASE_URL", f"{server.origin}/environment/v1")
            monkeypatch.setenv("OPENAI_API_KEY", "key-of-environment")
        shell.run_cell(f"%%complete -o it {options}\nHi").raise_error()
        return server.heard[-1] if server.heard else None

    return run


@pytest.mark.parametrize("highest", ["option", "profile", "config", "environment"])
def test_an_endpoint_is_an_option_then_a_profile_then_config_then_the_environment(lab, server, highest):
    """Of all base URLs that are said, the one said closest to the cell counts."""
    order = ["option", "profile", "config", "environment"]
    said = order[order.index(highest) :]
    line = [f"--base-url {server.origin}/option/v1"] * ("option" in said) + ["--profile lab"] * ("profile" in said)
    config = [f"base_url = '{server.origin}/config/v1'"] * ("config" in said)
    heard = lab(" ".join(["-m m", *line]), config=config, environment=True)
    assert heard.path == f"/{highest}/v1/completions"


def test_with_nothing_said_the_built_in_model_answers(lab, shell):
    """No option, profile, %config or environment: the embedded endpoint, and no server hears of it."""
    assert lab("") is None
    assert shell.user_ns["it"].model == "pocket"


def test_a_profile_may_be_said_by_config(lab):
    """%config CompletionsMagics.profile counts before the environment."""
    heard = lab("", config=["profile = 'lab'"], environment=True)
    assert heard.path == "/profile/v1/completions"
    assert heard.json["model"] == "of-profile"


def test_a_profile_on_the_line_counts_before_one_of_config(lab):
    """--profile counts before %config CompletionsMagics.profile and base_url."""
    config = ["profile = 'lab'", "base_url = 'http://127.0.0.1:9/v1'"]
    assert lab("--profile bare -m m", config=config).path == "/bare/v1/completions"


@pytest.mark.parametrize(
    ("options", "model"),
    [("--profile lab -m of-option", "of-option"), ("--profile lab", "of-profile"), ("--profile bare", "of-config")],
)
def test_a_model_is_an_option_then_the_profiles_then_configs(lab, options, model):
    """A profile's own model is asked before the one that %config names for all."""
    assert lab(options, config=["model = 'of-config'"]).json["model"] == model


@pytest.mark.parametrize(
    ("options", "temperature"),
    [("--profile lab --temperature 0.1", 0.1), ("--profile lab", 0.2), ("--profile bare", 0.3)],
)
def test_a_parameter_is_an_option_then_the_profiles_then_configs(lab, options, temperature):
    """A profile's own parameters count before those that %config sets for all."""
    body = lab(f"-m m {options}", config=["parameters = {'temperature': 0.3, 'seed': 3}"]).json
    assert (body["temperature"], body["seed"]) == (temperature, 3)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ("--profile lab --api-key-env KEY_OF_OPTION", "option"),
        ("--profile lab", "profile"),
        ("", "config"),
    ],
)
def test_a_key_is_an_options_then_the_profiles_then_configs(lab, server, options, key):
    """A profile's own key goes to it, and not the one that %config names for its own base URL."""
    config = [f"base_url = '{server.origin}/config/v1'", "api_key_env = 'KEY_OF_CONFIG'"]
    heard = lab(f"-m m {options}", config=config, environment=True)
    assert heard.headers["authorization"] == f"Bearer key-of-{key}"


def test_the_environments_key_goes_to_the_environments_endpoint(lab):
    """OPENAI_API_KEY is sent to OPENAI_BASE_URL."""
    assert lab("-m m", environment=True).headers["authorization"] == "Bearer key-of-environment"


@pytest.mark.parametrize(
    ("options", "config"),
    [
        ("", ()),
        ("--profile lab", ()),
        ("", ["profile = 'lab'"]),
        ("", ["base_url = '{origin}/config/v1'", "api_key_env = 'KEY_OF_CONFIG'"]),
        ("", ["profile = 'lab'", "api_key_env = 'KEY_OF_CONFIG'"]),
    ],
    ids=["environment", "profile", "profile of config", "config", "config for a profile"],
)
def test_no_key_goes_to_another_base_url_of_the_line(lab, server, options, config):
    """A key goes to the origin that it was named for; a base URL on the line takes its own --api-key-env."""
    other = ScriptedServer([HELLO])
    said = [setting.format(origin=server.origin) for setting in config]
    lab(f"-m m {options} --base-url {other.base_url}", config=said, environment=True)
    assert "authorization" not in other.heard[0].headers
    assert server.heard == []
    other.close()


def test_configs_key_stays_away_from_another_profile(lab):
    """The key that %config names for its base URL is not sent to a profile that names none."""
    config = ["base_url = 'http://127.0.0.1:9/v1'", "api_key_env = 'KEY_OF_CONFIG'"]
    assert "authorization" not in lab("--profile bare -m m", config=config).headers


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [("stream = false", {"stream": False}), ("best_of = 3", {"best_of": 3})],
)
def test_a_profile_decides_whether_it_is_streamed(shell, server, tmp_path, parameters, sent):
    """A profile that says stream = false, or sets what is never streamed, is not asked for a stream."""
    (tmp_path / "completions.toml").write_text(
        f'[profiles.whole]\nbase_url = "{server.base_url}"\nmodel = "m"\nparameters = {{ {parameters} }}\n'
    )
    server.scripts = [answer({"choices": [{"text": "Hi", "index": 0, "finish_reason": "stop"}]})]
    shell.run_cell("%%complete --profile whole\nHi").raise_error()
    assert server.heard[0].json == {"model": "m", "prompt": "Hi", **sent}


def test_retries_are_an_options_then_configs(shell, server):
    """%config CompletionsMagics.retries holds for every cell, and --retries for this one."""
    server.scripts = [answer(b"", status="503 Service Unavailable")]
    shell.run_cell("%config CompletionsMagics.retries = 0").raise_error()
    shell.run_cell(f"%%complete -m m --base-url {server.base_url}\nHi")
    assert len(server.heard) == 1
    shell.run_cell(f"%%complete -m m --base-url {server.base_url} --retries 1\nHi")
    assert len(server.heard) == 3


def test_a_timeout_is_an_options_then_configs(shell, server):
    """%config CompletionsMagics.timeout holds for every cell, and --timeout for this one; the error says it."""
    server.scripts = [server.wait_until_gone]
    shell.run_cell("%config CompletionsMagics.timeout = 0.25").raise_error()
    cell = f"%%complete -m m --retries 0 --base-url {server.base_url}"
    assert "0.25 s" in str(shell.run_cell(f"{cell}\nHi").error_in_exec)
    assert "0.125 s" in str(shell.run_cell(f"{cell} --timeout 0.125\nHi").error_in_exec)
