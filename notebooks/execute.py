"""Run the notebooks and save them with their outputs; doing it again changes no byte.

`execute.py [--check] [NAME…]`: with --check nothing is saved, and a byte that would change is an error.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path) -> str:
    """Run one notebook in its own folder; return it as it would be saved."""
    notebook = nbformat.read(path, as_version=4)
    settings = {"record_timing": False, "store_widget_state": False, "coalesce_streams": True}
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": FOLDER}}, **settings).execute()
    # The version of the Python that ran it is none of the notebook's business.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.writes(notebook) + "\n"


def cassettes() -> dict[Path, bytes]:
    """Return what is on the cassettes."""
    return {path: path.read_bytes() for path in FOLDER.glob("cassettes/*.jsonl")}


def main(arguments: list[str]) -> int:
    """Run the named notebooks, or all; return the exit status."""
    check = "--check" in arguments
    before = cassettes()
    names = [name for name in arguments if name != "--check"] or sorted(path.name for path in FOLDER.glob("*.ipynb"))
    changed = []
    for name in names:
        path = FOLDER / name
        text = execute(path)
        if text != path.read_text("utf-8"):
            changed.append(name)
            if not check:
                path.write_text(text, "utf-8")
        print(f"{name}: {'changed' if name in changed else 'the same'}")
    if cassettes() != before:
        changed.append("a cassette")
        print("a cassette: changed")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
