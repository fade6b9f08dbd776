"""What the README says is what the code does."""

import re
import tomllib
from pathlib import Path

import completions_magic
from completions_magic.options import help_markdown

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_table_of_options_is_the_parsers_own():
    """The table in the README is generated; when this fails, put what it says between the two comments."""
    table = re.search(r"<!-- options -->\n(.*?)<!-- /options -->", README, re.DOTALL)[1]
    assert table == f"\n{help_markdown()}\n\n"


def test_every_file_that_the_readme_links_to_is_there():
    """No link in the README leads nowhere."""
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_public_names_are_these():
    """A name is added to the package's face on purpose or not at all."""
    assert sorted(completions_magic.__all__) == [
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
    assert all(getattr(completions_magic, name) for name in completions_magic.__all__)


def test_the_floors_in_contributing_are_those_that_are_checked():
    """The picture of the structure and the linter's contract name the same modules."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    checked = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    present = {
        path.stem for path in (ROOT / "completions_magic").iterdir() if path.suffix == ".py" or path.name == "local"
    }
    assert checked == present - {"__init__"}
