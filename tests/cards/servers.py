"""Real servers on this machine, each in a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from conftest import eventually
from ports import port_to_bind_later

FOREIGN = Path(sys.prefix).parent / ".venv-foreign" / "bin"
"""The environment that `make cards` makes: with what none of our own code needs."""
PATIENCE = 120.0
ALONE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # as long as that is not said, it asks another machine for prices
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # it listens on this machine alone
}


@contextlib.contextmanager
def running(name: str, command: Sequence[str | Path], port: int, folder: Path) -> Iterator[str]:
    """Start a server; give its base URL once it lists its models, and stop it afterwards."""
    base_url = f"http://127.0.0.1:{port}/v1"
    log = folder / f"{name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, env={**os.environ, **ALONE}, cwd=folder, stdout=said, stderr=said)
    try:
        if not eventually(lambda: process.poll() is not None or lists_models(base_url), PATIENCE) or process.poll():
            raise SystemExit(f"{name} does not start:\n{log.read_text()[-2000:]}")
        yield base_url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def lists_models(base_url: str) -> bool:
    """Say whether a server answers."""
    try:
        with urllib.request.urlopen(f"{base_url}/models", timeout=5) as answer:
            return bool(json.load(answer)["data"])
    except (OSError, ValueError):
        return False


def embedded(folder: Path):
    """Start our own endpoint; give its base URL."""
    port = port_to_bind_later()
    command = [sys.executable, "-m", "completions_magic", "serve", "--port", str(port)]
    return running("embedded", command, port, folder)


def llama_cpp_python(folder: Path):
    """Start llama-cpp-python's server on a tiny model with random weights; give its base URL."""
    port = port_to_bind_later()
    model = folder / "random.gguf"
    subprocess.run([FOREIGN / "python", Path(__file__).parent / "random_model.py", model], check=True)
    options = {"--model": model, "--model_alias": "random", "--n_ctx": "512", "--host": "127.0.0.1", "--port": port}
    words = [str(word) for option in options.items() for word in option]
    return running("llama-cpp-python", [FOREIGN / "python", "-m", "llama_cpp.server", *words], port, folder)


def litellm(folder: Path, behind: dict[str, str]):
    """Start litellm's proxy before other servers, each a base URL by the name of its model; give its base URL."""
    port = port_to_bind_later()
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"text-completion-openai/{model}",
                "api_base": base_url,
                "api_key": "none",
            },
        }
        for model, base_url in behind.items()
    ]
    config = folder / "litellm.json"
    config.write_text(json.dumps({"model_list": models}))
    options = ["--config", config, "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    return running("litellm", [FOREIGN / "litellm", *options], port, folder)
