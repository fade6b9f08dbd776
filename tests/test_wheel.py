"""The wheel, in an environment that has nothing else."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CELL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "completions_magic")
shell.run_cell("%%complete -o answer --temperature 0\\nThe capital of France is").raise_error()
print(repr(shell.user_ns["answer"].text))
import completions_magic.area
print(completions_magic.area.Area(["1"], print).get_state("labels"))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """Build the wheel, install it into a new environment, and return that environment's Python."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    constraints = ["--constraint", ROOT / "constraints.txt"]
    subprocess.run([*pip, "--python", python, "install", *constraints, wheel], check=True)
    return python


def test_the_installed_wheel_completes_a_cell(python, tmp_path):
    """The wheel holds the model's text and the widget's files, and depends on what it uses."""
    done = subprocess.run([python, "-c", CELL], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "' Paris" in done.stdout
    assert done.stdout.endswith("{'labels': ['1']}\n")


def test_the_installed_wheel_has_its_command_and_its_licences(python):
    """The command line is installed, and both licences travel with the files that they are for."""
    shown = subprocess.run([python.parent / "completions-magic", "--help"], capture_output=True, text=True, check=True)
    assert "serve" in shown.stdout
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    assert len(list(site.glob("completions_magic-*.dist-info/licenses/**/LICENSE"))) == 2
    assert (site / "completions_magic" / "py.typed").exists()
