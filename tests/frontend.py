"""A real JupyterLab or Notebook 7 in a real Chromium, with none of the person's own settings."""

import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import nbformat
from axe_playwright_python.sync_playwright import Axe
from conftest import eventually
from playwright.sync_api import Browser, Page, expect, sync_playwright
from ports import port_to_bind_later

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A name that does not exist is not looked for on the network, which may take its time to say so.
    "--host-resolver-rules=MAP *.invalid ~NOTFOUND",
]
PATIENCE_MS = 30_000
"""What takes longer is taken for what never comes: on a busy machine little is done within the usual five seconds."""
expect.set_options(timeout=PATIENCE_MS)
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # A notebook is saved when a test says so, and at no other time.
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
FOREIGN = re.compile(r"(OPENAI|COMPLETIONS|JUPYTER|IPYTHON)\w*|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE)
"""Variables of the person who runs the tests that the servers and their kernels must not see."""

# The indicator reads idle before the notebook has a kernel to run cells on, and a Run All is lost until then.
READY = """async () => {
  const panel = window.jupyterapp?.shell.currentWidget;
  if (!panel?.sessionContext) return false;
  await panel.context.ready;
  await panel.sessionContext.ready;
  const kernel = panel.sessionContext.session?.kernel;
  await kernel?.info;
  return kernel?.connectionStatus === "connected" && kernel.status === "idle";
}"""
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(prompt => prompt.textContent)"


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


def faults(page: Page, selector: str) -> list[str]:
    """Return what axe finds within a selector that keeps someone from reading or using it."""
    page.wait_for_selector("#jupyterlab-splash", state="detached")
    # JupyterLab's body has no height and hides what overflows: axe takes all of the page for hidden, and skips most rules.
    page.evaluate("document.body.style.overflow = 'visible'")
    found = Axe().run(page, context=selector).response
    page.evaluate("document.body.style.overflow = ''")
    assert "color-contrast" in {rule["id"] for rule in found["passes"]}, "axe takes the place for hidden"
    return [
        f"{fault['id']} ({fault['impact']}): {node['html'][:200]}: {node['failureSummary']}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


class FrontEnd:
    """A Jupyter server of its own on a free port; `folder` is its root."""

    def __init__(self, folder: Path, kind: str = "lab", theme: str = "JupyterLab Light") -> None:
        self.folder = folder
        self.kind = kind
        self._home = folder / ".home"
        self.data = self._home / "data"
        self._token = secrets.token_hex(8)
        for name, values in SETTINGS.items():
            self._set(name, values)
        self._set_theme(theme)
        self._theme = theme
        # Kernels listen in this folder, whose name fits the address of a socket, and not on ports, which another
        # program could get between the server's choice and the kernel's start.
        self._runtime = tempfile.TemporaryDirectory(prefix="jupyter-", dir="/tmp")
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
            "XDG_CONFIG_HOME": "xdg",
        }
        own = {name: value for name, value in os.environ.items() if not FOREIGN.fullmatch(name)}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                {"lab": "jupyterlab", "notebook": "notebook"}[kind],
                "--no-browser",
                "--ip=127.0.0.1",
                f"--port={port_to_bind_later()}",
                "--allow-root",
                "--expose-app-in-browser",
                f"--IdentityProvider.token={self._token}",
                f"--ServerApp.root_dir={folder}",
                "--KernelManager.transport=ipc",
            ],
            env={
                **own,
                **{name: str(self._home / place) for name, place in places.items()},
                "JUPYTER_RUNTIME_DIR": self._runtime.name,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        for line in self._process.stderr:
            self.log.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.origin = f"http://127.0.0.1:{found[1]}"
                break
        else:
            raise RuntimeError("".join(self.log))
        if not eventually(self._listens):  # it says so before it does
            raise RuntimeError("".join(self.log))
        # A pipe that nobody reads stops the server when it is full.
        self._reader = threading.Thread(target=lambda: self.log.extend(self._process.stderr), daemon=True)
        self._reader.start()

    def add_kernel(self, name: str, python: Path) -> None:
        """Offer the ipykernel of another environment, whose interpreter is `python`, under `name`."""
        folder = self.data / "kernels" / name
        folder.mkdir(parents=True)
        start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": start, "display_name": name, "language": "python"}
        (folder / "kernel.json").write_text(json.dumps(spec))

    def write(self, name: str, *cells: str, kernel: str = "python3") -> Path:
        """Save a notebook of code cells that runs on `kernel`; return its path."""
        metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells], metadata=metadata
        )
        nbformat.write(notebook, self.folder / name)
        return self.folder / name

    def open(
        self, browser: Browser, name: str, *, width: int = 1100, height: int = 900, has_kernel: bool = True
    ) -> Page:
        """Open a notebook in a page of its own, and wait until its kernel, if it has one, takes cells."""
        self._set_theme(self._theme)
        page = browser.new_page(viewport={"width": width, "height": height})
        route = "lab/tree" if self.kind == "lab" else "notebooks"
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{self.origin}/{route}/{name}?token={self._token}&reset", timeout=90_000)
        self.wait_until_open(page, has_kernel=has_kernel)
        return page

    def show(self, page: Page, name: str, *, has_kernel: bool = True) -> None:
        """Open a notebook in a JupyterLab page that is open already."""
        page.evaluate("path => window.jupyterapp.commands.execute('docmanager:open', {path})", name)
        page.wait_for_function("path => window.jupyterapp.shell.currentWidget?.context?.path === path", arg=name)
        self.wait_until_open(page, has_kernel=has_kernel)

    def leave(self, page: Page) -> None:
        """Close what a JupyterLab page has open, without saving it."""
        page.evaluate("() => [...window.jupyterapp.shell.widgets('main')].forEach(widget => widget.dispose())")

    def wait_until_open(self, page: Page, *, has_kernel: bool = True) -> None:
        """Wait until the page shows its notebook, and its kernel, if it has one, takes cells."""
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
        if has_kernel:
            page.wait_for_function(READY, timeout=90_000)

    def start_all(self, page: Page) -> None:
        """Run every cell, and wait until the first has begun."""
        before = page.evaluate(PROMPTS)[0]
        self.command(page, "Run All Cells", "Run")
        page.wait_for_function(f"before => {PROMPTS}[0] !== before", arg=before)

    def run_all(self, page: Page) -> None:
        """Run every cell, and wait until none is running."""
        self.start_all(page)
        self.wait_until_done(page)

    def wait_until_done(self, page: Page) -> None:
        """Wait until no cell is running or going to."""
        page.wait_for_function(f"!{PROMPTS}.some(prompt => prompt.includes('*'))", timeout=90_000)

    def command(self, page: Page, item: str, menu: str) -> None:
        """Choose a menu's item."""
        page.get_by_role("menuitem", name=menu, exact=True).first.click()
        page.locator(".lm-Menu-itemLabel").get_by_text(item, exact=True).click()

    def save(self, page: Page) -> None:
        """Save the notebook, and wait until it is."""
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def resize(self, page: Page, width: int) -> None:
        """Give the window another width, and wait until JupyterLab has laid itself out in it."""
        page.set_viewport_size({"width": width, "height": 900})
        laid_out = "width => Math.abs(document.querySelector('#main').getBoundingClientRect().width - width) < 2"
        page.wait_for_function(laid_out, arg=width)
        # The notebook is laid out after what holds it: it is as wide as its dock.
        page.wait_for_function("""() => {
          const [panel, dock] = [".jp-NotebookPanel:not(.lm-mod-hidden)", "#jp-main-dock-panel, #main-panel"].map(
            (selector) => document.querySelector(selector)?.getBoundingClientRect());
          return panel && (!dock || panel.right <= dock.right + 1 && panel.width > dock.width - 50);
        }""")

    def change_theme(self, page: Page, theme: str) -> None:
        """Change the theme of a page that is open."""
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
        page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme)

    def end_kernels(self) -> None:
        """End every kernel and the sessions that use them."""
        for session in json.load(self._ask("GET", "sessions")):
            self._ask("DELETE", f"sessions/{session['id']}").close()

    def close(self) -> None:
        """Stop the server and its kernels."""
        self._process.terminate()
        try:
            self._process.wait(30)  # a busy machine ends its kernels slowly
        except subprocess.TimeoutExpired:
            # Some servers wait for ever for a kernel that has ended; what they have started ends with them.
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stderr.close()
        self._runtime.cleanup()

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", urlsplit(self.origin).port)):
            return True
        return False

    def _ask(self, method: str, route: str):
        headers = {"Authorization": f"token {self._token}"}
        return urlopen(Request(f"{self.origin}/api/{route}", headers=headers, method=method), timeout=60)

    def _set(self, name: str, values: dict) -> None:
        path = self._home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def _set_theme(self, theme: str) -> None:
        self._set("@jupyterlab/apputils-extension/themes", {"theme": theme})
