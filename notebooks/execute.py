"""Run the notebooks and save them with their outputs, so that doing it again changes no byte."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path) -> None:
    """Run one notebook in its own folder and save it."""
    notebook = nbformat.read(path, as_version=4)
    settings = {"record_timing": False, "store_widget_state": False}
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": FOLDER}}, **settings).execute()
    # The version of the Python that ran it is none of the notebook's business.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.name for path in FOLDER.glob("*.ipynb")):
        execute(FOLDER / name)
        print(f"executed {name}")
