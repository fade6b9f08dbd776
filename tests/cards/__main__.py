"""Start real servers, print the card of each, and stop them."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

from completions_magic import Client
from completions_magic.doctor import examine

from .servers import FOREIGN, embedded, litellm, llama_cpp_python


def main() -> None:
    """Print the cards; they are kept in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["XDG_CONFIG_HOME"] = place
        with (
            embedded(folder) as pocket,
            llama_cpp_python(folder) as random,
            litellm(folder, {"pocket": pocket, "random": random}) as proxy,
        ):
            show(f"completions-magic {version('completions-magic')}, completions-magic serve", pocket, "pocket")
            show(f"llama-cpp-python {foreign('llama_cpp_python')}, a model with random weights", random, "random")
            show(f"litellm {foreign('litellm')} before completions-magic serve", proxy, "pocket")
            show(f"litellm {foreign('litellm')} before llama-cpp-python", proxy, "random")


def show(title: str, base_url: str, model: str) -> None:
    """Examine an endpoint and print its card."""
    with Client(base_url=base_url, model=model) as client:
        print(f"\n{title}\n{examine(client).plain()}", flush=True)


def foreign(package: str) -> str:
    """Return the version of a package in the other environment."""
    [folder] = FOREIGN.parent.glob(f"lib/*/site-packages/{package}-*.dist-info")
    return folder.name.removesuffix(".dist-info").partition("-")[2]


if __name__ == "__main__":
    main()
