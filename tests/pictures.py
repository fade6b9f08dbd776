"""Take the pictures that the README shows: `python tests/pictures.py`; then open them and judge them."""

import socket
import tempfile
import time
from pathlib import Path

import msgspec
import nbformat
from conftest import DONE, END, ScriptedServer, piece, stream_head
from frontend import FrontEnd, open_browser
from playwright.sync_api import Page

from completions_magic import Client

PICTURES = Path(__file__).parents[1] / "notebooks" / "pictures"
SECONDS_A_CHUNK = 0.012

CELLS = (
    "%load_ext completions_magic\n%config CompletionsMagics.base_url = '{base_url}'\n%config CompletionsMagics.model = 'pocket'",
    "%%complete -o openings -n 6 --max-tokens 120 --seed 4\nOnce upon a time",
    "%%complete -o rhyme --logprobs 5 --max-tokens 24 --seed 3\nRoses are red",
    "%%complete -n 3 --temperature 0.8 --max-tokens 24 --seed 1\nWrite a tagline for an AI company:",
)


def relay(server: ScriptedServer, connection: socket.socket) -> None:
    """Answer with the embedded model's text, at the speed of a large one."""
    asked = server.heard[-1].json
    prompt = asked.pop("prompt")
    connection.sendall(stream_head())
    for chunk in Client().stream(prompt, **{**asked, "model": "pocket"}):
        connection.sendall(piece(b"data: " + msgspec.json.encode(chunk.to_dict()) + b"\n\n"))
        time.sleep(SECONDS_A_CHUNK)
    connection.sendall(piece(DONE) + END)


def shoot(page: Page, name: str) -> None:
    """Take a picture of the notebook's cells."""
    page.locator(".jp-Notebook").first.screenshot(path=PICTURES / name)


def take(front_end: FrontEnd, theme: str, page: Page) -> None:
    """Run the cells; take the board while it grows, then the records."""
    front_end.command(page, "Run All Cells", "Run")
    page.wait_for_function("document.querySelectorAll('.completions-pane').length == 6", timeout=60_000)
    page.wait_for_function("document.querySelector('.completions-progress')?.value > 300", timeout=60_000)
    shoot(page, f"board-{theme}.png")
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-executeResult').length == 3", timeout=90_000)
    page.get_by_text("Roses are red").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    page.locator(".jp-Cell", has_text="Roses are red").first.screenshot(path=PICTURES / f"record-{theme}.png")


def main() -> None:
    """Take every picture in the light and in the dark theme."""
    PICTURES.mkdir(exist_ok=True)
    with open_browser() as browser:
        for theme in ("light", "dark"):
            server = ScriptedServer()
            server.scripts = [lambda connection, server=server: relay(server, connection)]
            folder = Path(tempfile.mkdtemp())
            cells = [nbformat.v4.new_code_cell(cell.replace("{base_url}", server.base_url)) for cell in CELLS]
            kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
            nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "pictures.ipynb")
            front_end = FrontEnd(folder, theme=f"JupyterLab {theme.title()}")
            take(front_end, theme, front_end.open(browser, "pictures.ipynb", width=1080, height=760))
            front_end.close()
            server.close()


if __name__ == "__main__":
    main()
