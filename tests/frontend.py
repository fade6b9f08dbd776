"""A real JupyterLab or Notebook 7 in a real Chromium, with none of the person's own settings."""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
RUNNING = "() => document.querySelectorAll('.jp-InputArea-prompt').length && ![...document.querySelectorAll('.jp-InputArea-prompt')].some(prompt => prompt.textContent.includes('*'))"


def find_chromium() -> str:
    """Return the path of a Chrome or Chromium; raise in words where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"):
        path = shutil.which(name)
        if path:
            return path
    raise RuntimeError("the tests need Chrome or Chromium: apt-get install chromium, or any from its maker")


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start a Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        browser.close()


class FrontEnd:
    """A Jupyter server of its own on a free port; `folder` is its root."""

    def __init__(self, folder: Path, kind: str = "lab", theme: str = "JupyterLab Light") -> None:
        self.folder = folder
        self.kind = kind
        self._token = secrets.token_hex(8)
        home = folder / ".home"
        settings = home / "lab" / "user-settings"
        for name, values in {**SETTINGS, "@jupyterlab/apputils-extension/themes": {"theme": theme}}.items():
            path = settings / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        places = {
            "JUPYTER_CONFIG_DIR": home / "config",
            "JUPYTER_DATA_DIR": home / "data",
            "JUPYTER_RUNTIME_DIR": home / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": settings,
            "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
            "IPYTHONDIR": home / "ipython",
        }
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyter",
                kind,
                "--no-browser",
                "--ip=127.0.0.1",
                "--port=0",
                "--allow-root",
                f"--IdentityProvider.token={self._token}",
                f"--ServerApp.root_dir={folder}",
            ],
            env={**os.environ, **{name: str(path) for name, path in places.items()}},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        for line in self._process.stderr:
            self.log.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.port = int(found[1])
                break
        else:
            raise RuntimeError("".join(self.log))

    def open(self, browser: Browser, name: str, *, width: int = 1100, height: int = 900) -> Page:
        """Open a notebook and wait until its kernel is there."""
        page = browser.new_page(viewport={"width": width, "height": height})
        route = "lab/tree" if self.kind == "lab" else "notebooks"
        page.goto(f"http://127.0.0.1:{self.port}/{route}/{name}?token={self._token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
        page.wait_for_timeout(500)
        return page

    def run_all(self, page: Page) -> None:
        """Run every cell, and wait until none is running."""
        self.command(page, "Run All Cells", "Run")
        page.wait_for_timeout(300)
        page.wait_for_function(RUNNING, timeout=90_000)

    def command(self, page: Page, item: str, menu: str) -> None:
        """Choose a menu's item."""
        page.get_by_role("menuitem", name=menu, exact=True).first.click()
        page.get_by_role("menuitem", name=item, exact=True).first.click()

    def close(self) -> None:
        """Stop the server and its kernels."""
        self._process.terminate()
        self._process.wait(20)
        self._process.stderr.close()
