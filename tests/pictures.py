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
PAUSE_AFTER, PAUSE_SECONDS = 320, 4
"""The chunks after which the stream holds still for its picture."""

CELLS = (
    "%load_ext completions_magic\n%config CompletionsMagics.base_url = '{base_url}'\n%config CompletionsMagics.model = 'pocket'",
    "%%complete -o openings -n 6 --max-tokens 120 --seed 4\nOnce upon a time",
    "%%complete -o rhyme --logprobs 5 --max-tokens 24 --seed 3\nRoses are red",
    "%%complete -n 3 --temperature 0.8 --max-tokens 24 --seed 1\nWrite a tagline for an AI company:",
    "%%complete -q -o tale --logprobs 6 --max-tokens 60 --seed 5\nOnce upon a time there was a",
    "%completions tokens tale",
    "%%complete -q -o word --logprobs 12 --max-tokens 24 --seed 5\nOnce upon a time there was a",
    "%completions distribution word",
    '%%complete --tune -o story --max-tokens 48 --seed 4 --stop "\\n\\n"\nOnce upon a time',
)
BRANCHES = ((0, 1), (9, 1))
"""The tokens of the tale that are replaced, and by which of their alternatives."""


def relay(server: ScriptedServer, connection: socket.socket) -> None:
    """Answer with the embedded model's text, at the speed of a large one."""
    asked = server.current.json
    prompt = asked.pop("prompt")
    connection.sendall(stream_head())
    for number, chunk in enumerate(Client().stream(prompt, **{**asked, "model": "pocket"}), 1):
        connection.sendall(piece(b"data: " + msgspec.json.encode(chunk.to_dict()) + b"\n\n"))
        time.sleep(PAUSE_SECONDS if number == PAUSE_AFTER else SECONDS_A_CHUNK)
    connection.sendall(piece(DONE) + END)


def shoot(page: Page, within: str, name: str) -> None:
    """Take a picture of the first cell that holds what a selector names."""
    page.locator(".jp-Cell", has=page.locator(within)).first.screenshot(path=PICTURES / name)


def take(front_end: FrontEnd, theme: str, page: Page) -> None:
    """Run the cells; take the board while it grows, then the records."""
    front_end.command(page, "Run All Cells", "Run")
    page.mouse.move(1, 1)
    page.wait_for_function("document.querySelectorAll('.completions-pane').length == 6", timeout=60_000)
    page.wait_for_function("document.querySelector('.completions-progress')?.value >= 310", timeout=60_000)
    page.wait_for_timeout(1000)
    shoot(page, ".completions-area", f"board-{theme}.png")
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-executeResult').length == 3", timeout=90_000)
    page.get_by_text("Roses are red").first.scroll_into_view_if_needed()
    page.wait_for_timeout(300)
    shoot(page, "span[title]", f"record-{theme}.png")
    take_tokens(page, theme)
    take_distribution(page, theme)
    take_tuner(page, theme)


def take_tokens(page: Page, theme: str) -> None:
    """Go on from another token, twice, and take the token view."""
    view = page.locator(".completions-tokens")
    view.scroll_into_view_if_needed()
    for at, which in BRANCHES:
        view.locator(".tokens-token").nth(at).click()
        view.locator("button.tokens-bar:enabled").nth(which).click()
        view.locator(".tokens-stop").wait_for(state="visible")
        view.locator(".tokens-stop").wait_for(state="hidden")
    view.locator(".tokens-token").nth(BRANCHES[-1][0]).click()
    page.wait_for_timeout(300)
    shoot(page, ".completions-tokens", f"tokens-{theme}.png")


def take_distribution(page: Page, theme: str) -> None:
    """Cool a distribution, leave out its unlikely tokens, and take it."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    view = page.locator(".completions-distribution")
    view.scroll_into_view_if_needed()
    for name, key, times in (("temperature", "ArrowLeft", 8), ("min_p", "ArrowRight", 10)):
        view.get_by_role("slider", name=name, exact=True).focus()
        for _ in range(times):
            page.keyboard.press(key)
    page.mouse.move(1, 1)
    page.wait_for_timeout(500)
    shoot(page, ".completions-distribution", f"distribution-{theme}.png")
    page.set_viewport_size({"width": 1080, "height": 1000})


def take_tuner(page: Page, theme: str) -> None:
    """Turn two knobs, pin the first run and the last, and take the panel."""
    page.set_viewport_size({"width": 1280, "height": 1400})
    panel = page.locator(".completions-tuner")
    panel.scroll_into_view_if_needed()
    for knob, key in (("temperature", "ArrowLeft"), ("top_p", "ArrowLeft")):
        panel.locator(".tuner-stop:enabled").wait_for(state="detached")
        panel.get_by_role("slider", name=knob, exact=True).focus()
        for _ in range(6):
            page.keyboard.press(key)
        panel.get_by_role("button", name="Run", exact=True).click()
        page.wait_for_timeout(300)
    panel.locator(".tuner-stop:enabled").wait_for(state="detached")
    panel.get_by_role("button", name="Pin run 1").click()
    panel.get_by_role("button", name="Pin run 3").click()
    panel.locator(".tuner-column").nth(1).wait_for()
    page.mouse.move(1, 1)
    page.wait_for_timeout(500)
    shoot(page, ".completions-tuner", f"tuner-{theme}.png")
    page.set_viewport_size({"width": 1080, "height": 1000})


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
            take(front_end, theme, front_end.open(browser, "pictures.ipynb", width=1080, height=1000))
            front_end.close()
            server.close()


if __name__ == "__main__":
    main()
