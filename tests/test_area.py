"""The live area and the record in a real JupyterLab and a real Notebook 7, against a scripted server."""

import json
import queue
import random
import re
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import nbformat
import pytest
from conftest import DONE, END, answer, event, eventually, piece, stream, stream_head
from frontend import FrontEnd, faults, open_browser
from nbformat.sign import NotebookNotary
from playwright.sync_api import Page

ROOT = Path(__file__).parents[1]
NEWEST, OLD = "python3", "ipykernel-6.31.0"
THEMES = ("JupyterLab Light", "JupyterLab Dark")
WORDS = re.findall(r" \w+", " the old keeper looked at the sea and wrote a letter to the moon about small boats")

AREA = ".completions-area"
RECORD = ".jp-OutputArea-executeResult .jp-RenderedHTMLCommon"
TEXTS = "[...document.querySelectorAll('.completions-text')].map(text => text.textContent)"
OUTPUTS = "[...document.querySelectorAll('.jp-Notebook .jp-OutputArea-output')].map(output => output.innerText)"


class Pen:
    """A streamed answer that a test writes event by event; a script for the server."""

    def __init__(self) -> None:
        self._events: queue.Queue[bytes | None] = queue.Queue()

    def __call__(self, connection: socket.socket) -> None:
        """Send what is written, until the end."""
        connection.sendall(stream_head())
        for written in iter(self._events.get, None):
            connection.sendall(piece(written))
        connection.sendall(piece(DONE) + END)

    def write(self, text: str = "", **more) -> None:
        """Send one event."""
        self._events.put(event(text, **more))

    def end(self, reason: str = "stop") -> None:
        """Send the finish_reason of the first choice, and end the answer."""
        self.write(reason=reason)
        self.leave()

    def leave(self) -> None:
        """End the answer."""
        self._events.put(None)


@pytest.fixture(scope="module")
def browser():
    """Start a Chromium without a window."""
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def front_ends(tmp_path_factory):
    """Start a JupyterLab and a Notebook 7; give them by kind."""
    with ExitStack() as stack:
        started = {kind: FrontEnd(tmp_path_factory.mktemp(kind), kind) for kind in ("lab", "notebook")}
        for front_end in started.values():
            stack.callback(front_end.close)
        yield started


@pytest.fixture(params=["lab", "notebook"])
def front_end(request, front_ends) -> FrontEnd:
    """Each front end."""
    return front_ends[request.param]


only_lab = pytest.mark.parametrize("front_end", ["lab"], indirect=True)


@pytest.fixture(scope="module")
def old_kernel(front_ends, tmp_path_factory) -> str:
    """Install ipykernel 6.31.0, which hears nothing on its shell channel while a cell runs; return its kernel's name."""
    folder = tmp_path_factory.mktemp("old")
    pins = [
        pin for pin in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not pin.startswith("ipykernel=")
    ]
    (folder / "constraints.txt").write_text("\n".join(pins))
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--constraint", folder / "constraints.txt", "ipykernel==6.31.0", ROOT], check=True)
    for front_end in front_ends.values():
        front_end.add_kernel(OLD, python)
    return OLD


@pytest.fixture
def pen(server) -> Pen:
    """Return the server's answer, to be written by the test."""
    pen = Pen()
    server.scripts = [pen]
    return pen


@pytest.fixture(scope="module")
def spare_pages() -> list[Page]:
    """Return where a JupyterLab page waits for the next test: to load one takes seconds."""
    return []


@pytest.fixture
def open_page(request, browser, front_end, spare_pages, tmp_path):
    """Return what opens a notebook of the front end; where a test fails, a picture of each page is kept."""
    pages: list[Page] = []

    def open_page(name: str, *, anew: bool = False, has_kernel: bool = True) -> Page:
        if front_end.kind == "lab" and spare_pages and not anew:
            page = spare_pages.pop()
            front_end.show(page, name, has_kernel=has_kernel)
        else:
            page = front_end.open(browser, name, has_kernel=has_kernel)
        pages.append(page)
        return page

    failures = request.session.testsfailed
    yield open_page
    failed = request.session.testsfailed > failures
    for number, page in enumerate(pages):
        if failed:
            page.screenshot(path=tmp_path / f"page-{number}.png")
        if front_end.kind == "lab" and not failed and not spare_pages:
            front_end.leave(page)
            spare_pages.append(page)
        else:
            page.close()
    front_end.end_kernels()


@pytest.fixture
def open_cells(request, front_end, server, open_page) -> Callable[..., Page]:
    """Return what opens a new notebook whose cells ask the scripted server, and runs them all."""

    def open_cells(*cells: str, kernel: str = NEWEST, anew: bool = False) -> Page:
        name = f"{request.node.originalname}.ipynb"
        setup = f"%load_ext completions_magic\n%config CompletionsMagics.base_url = '{server.base_url}'"
        front_end.write(name, f"{setup}\n%config CompletionsMagics.model = 'm'", *cells, kernel=kernel)
        page = open_page(name, anew=anew)
        front_end.start_all(page)
        return page

    return open_cells


def until(page: Page, condition: str, argument: object = None) -> None:
    """Wait until a condition in JavaScript holds, of `argument` where it is a function."""
    page.wait_for_function(condition, arg=argument)


def until_texts(page: Page, *texts: str) -> None:
    """Wait until the area's panes hold these texts, to the character."""
    until(page, f"texts => JSON.stringify({TEXTS}) === JSON.stringify(texts)", list(texts))


def until_said(page: Page, words: str) -> None:
    """Wait until an output of the notebook holds these words."""
    until(page, f"words => {OUTPUTS}.some(output => output.includes(words))", words)


def outputs(page: Page) -> list[str]:
    """Return the notebook's outputs as they read on screen."""
    return page.evaluate(OUTPUTS)


def prompts(page: Page) -> list[str]:
    """Return what stands before the code cells, such as `[1]:`."""
    return page.locator(".jp-CodeCell .jp-InputArea-prompt").all_text_contents()


def stop_button(page: Page):
    """Return the area's Stop button."""
    return page.get_by_role("button", name="Stop", exact=True)


# Streaming


def test_text_grows_on_screen_while_the_cell_runs(front_end, open_cells, pen):
    """Each piece is on screen before the next is sent, and the cell runs until the last."""
    page = open_cells("%%complete\nOnce")
    pen.write(" upon")
    until_texts(page, " upon")
    pen.write(" a\ntime")
    until_texts(page, " upon a\ntime")
    assert prompts(page) == ["[1]:", "[*]:"]
    pen.end()
    front_end.wait_until_done(page)
    assert prompts(page) == ["[1]:", "[2]:"]


@only_lab
def test_a_long_text_is_complete_to_the_character(open_cells, pen):
    """A text of many pages arrives whole, however it is cut."""
    generator = random.Random(0)
    pieces = ["".join(generator.choices("ab \n<&😀é", k=generator.randrange(1, 40))) for _ in range(300)]
    page = open_cells("%%complete\nOnce")
    for text in pieces:
        pen.write(text)
    until_texts(page, "".join(pieces))
    pen.end()


def test_one_record_takes_the_place_of_the_area(front_end, open_cells, pen):
    """The text is on screen in every frame of the swap; afterwards there is one output and no widget."""
    page = open_cells("%%complete\nOnce")
    pen.write(" upon a time")
    until_texts(page, " upon a time")
    page.evaluate("""() => {
      window.blanks = 0;
      const look = () => {
        window.blanks += !document.querySelector(".jp-Notebook").textContent.includes(" upon a time");
        requestAnimationFrame(look);
      };
      look();
    }""")
    pen.end()
    front_end.wait_until_done(page)
    assert outputs(page) == [" upon a time\n\nm · complete"]
    assert page.locator(AREA).count() == 0
    assert page.locator(".jupyter-widgets").count() == 0
    assert page.evaluate("window.blanks") == 0


# The board


@only_lab
def test_every_pane_gets_its_own_text_and_finish_reason(front_end, open_cells, pen):
    """Chunks of twelve choices in any order end up in their own panes, and in their own rows of the record."""
    generator = random.Random(1)
    words = {index: [f"{index}:", *generator.choices(WORDS, k=30)] for index in range(12)}
    reasons = {index: ("stop", "length", "content_filter", f"odd {index}")[index % 4] for index in range(12)}
    said = {"stop": "complete", "length": "reached max_tokens", "content_filter": "cut by the server's content filter"}
    page = open_cells("""%%complete -n 4 --prompt '["a", "b", "c"]'\n\n""")
    order = [index for index in words for _ in words[index]]
    generator.shuffle(order)
    left = {index: iter(texts) for index, texts in words.items()}
    for index in order:
        pen.write(next(left[index]), index=index)
    for index, reason in reasons.items():
        pen.write(index=index, reason=reason)
    texts = ["".join(words[index]) for index in range(12)]
    until_texts(page, *texts)
    names = [f"prompt {prompt} · {number}/4" for prompt in (1, 2, 3) for number in (1, 2, 3, 4)]
    ends = [said.get(reason, reason) for reason in reasons.values()]
    until(page, "document.querySelectorAll('.completions-reason:not(:empty)').length === 12")
    assert page.locator(".completions-label").all_text_contents() == names
    assert page.locator(".completions-reason").all_text_contents() == ends
    pen.leave()
    front_end.wait_until_done(page)
    rows = page.evaluate(
        f"[...document.querySelectorAll('{RECORD} tr')].map(row => [...row.cells].map(cell => cell.innerText))"
    )
    assert rows == [list(row) for row in zip(names, texts, ends, strict=True)]


@only_lab
def test_many_choices_are_a_line_each_that_opens(open_cells, pen):
    """Twenty-four choices are one line each; a click, Enter and Space open one, and it stays open as it grows."""
    page = open_cells("%%complete -n 24\nOnce")
    for index in range(24):
        pen.write(f"line {index}\n" * 5, index=index)
    until(page, f"{TEXTS}.filter(text => text.includes('line')).length === 24")
    panes, heads = page.locator(".completions-pane"), page.locator(".completions-head")
    assert max(panes.evaluate_all("panes => panes.map(pane => pane.offsetHeight)")) < 32
    assert "line 7" in heads.nth(7).inner_text()
    heads.nth(0).click()
    heads.nth(1).press("Enter")
    heads.nth(2).press("Space")
    pen.write("more", index=1)
    until(page, f"{TEXTS}[1].endsWith('more')")
    opened = panes.evaluate_all("panes => panes.map(pane => pane.querySelector('pre').offsetHeight > 60)")
    assert opened == [True] * 3 + [False] * 21
    assert heads.evaluate_all("heads => heads.map(head => head.ariaExpanded === 'true')") == opened
    heads.nth(1).press("Enter")
    assert not page.locator(".completions-text").nth(1).is_visible()
    pen.leave()


# Stop and interrupt


@pytest.mark.parametrize("kernel", [NEWEST, OLD])
def test_stop_ends_the_cell_on_a_silent_server(request, front_end, server, open_cells, kernel):
    """In the middle of a stream and before its start Stop ends the cell at once; the next cells run."""
    if kernel == OLD:
        request.getfixturevalue("old_kernel")

    def falls_silent(connection):
        connection.sendall(stream_head() + piece(event("Half a")))
        server.wait_until_gone(connection)

    server.scripts = [falls_silent, server.wait_until_gone]
    page = open_cells(
        "%%complete -o part\nOnce",
        "print('first', part.choices[0].finish_reason, repr(part.text))",
        "%%complete -o none\nOnce",
        "print('second', none.finished, repr(none.text))",
        kernel=kernel,
        anew=kernel == OLD,
    )
    until_texts(page, "Half a")
    seconds = [press_stop(page, "first stopped 'Half a'")]
    assert server.gone.wait(20)
    server.gone.clear()
    until(page, "document.querySelector('.completions-area')?.innerText.includes('0 of 16 tokens')")
    assert eventually(lambda: len(server.heard) == 2, 20)
    seconds.append(press_stop(page, "second False ''"))
    assert server.gone.wait(20)
    print(f"{front_end.kind}, {kernel}: Stop took {seconds[0]:.2f} s and {seconds[1]:.2f} s")
    assert max(seconds) < 15  # without Stop it takes a minute; with it a few tenths, and more where much else runs
    front_end.wait_until_done(page)
    assert outputs(page)[0] == "Half a\n\nm · stopped: incomplete"
    assert page.locator(AREA).count() == 0


def press_stop(page: Page, words: str) -> float:
    """Press Stop; return the seconds until the next cell has said `words`."""
    started = time.monotonic()
    stop_button(page).click()
    until_said(page, words)
    return time.monotonic() - started


def test_an_interrupt_keeps_the_text_and_stops_the_rest(front_end, open_cells, pen):
    """After Interrupt Kernel the text is in the record, one line says what happened, and no later cell runs."""
    page = open_cells("%%complete -o part\nOnce", "print('later')")
    pen.write("Half a")
    until_texts(page, "Half a")
    front_end.command(page, "Interrupt Kernel", "Kernel")
    front_end.wait_until_done(page)
    assert outputs(page) == ["Half a\n\nm · interrupted: incomplete", "Interrupted: what had arrived is kept"]
    assert prompts(page) == ["[1]:", "[2]:", "[ ]:"]


def test_a_restart_shows_that_the_kernel_is_gone(front_end, open_cells, pen):
    """After a restart in the middle the area says so, keeps its text and offers no Stop."""
    page = open_cells("%%complete\nOnce")
    pen.write("Half a")
    until_texts(page, "Half a")
    front_end.command(page, "Restart Kernel…", "Kernel")
    with page.expect_response("**/restart?*"):
        page.locator(".jp-Dialog .jp-mod-accept").click()
    until_said(page, "The kernel is gone")
    assert page.evaluate(TEXTS) == ["Half a"]
    assert not stop_button(page).is_visible()


# Other views, and other times


@only_lab
def test_a_second_view_of_the_output_is_whole(open_cells, pen):
    """A view that is made in the middle shows what came before it, and goes on."""
    page = open_cells("%%complete\nOnce")
    pen.write("before" * 200)
    until_texts(page, "before" * 200)
    page.locator(".completions-text").click(button="right")
    page.get_by_role("menuitem", name="Create New View for Cell Output").click()
    until_texts(page, "before" * 200, "before" * 200)
    pen.write(" after")
    until_texts(page, "before" * 200 + " after", "before" * 200 + " after")
    pen.end()


def test_a_reopened_notebook_shows_its_record_without_a_kernel(request, front_end, server, open_cells, open_page):
    """The saved file holds the record and no trace of a widget, and shows as text where nothing can run."""
    texts = [event("Roses\n\nare", index=0), event(" red", index=1)]
    server.scripts = [stream([*texts, event(index=0, reason="stop"), event(index=1, reason="length"), DONE])]
    page = open_cells("%%complete -n 2\nOnce")
    front_end.wait_until_done(page)
    said = outputs(page)
    assert [output.split() for output in said] == [
        ["1/2", "Roses", "are", "complete", "2/2", "red", "reached", "max_tokens", "m"]
    ]
    front_end.save(page)
    path = front_end.folder / f"{request.node.originalname}.ipynb"
    assert "widget" not in path.read_text("utf-8")
    for trusted in (True, False):
        page = open_page(reopened(front_end, path, trusted=trusted), anew=True, has_kernel=False)
        page.locator(".jp-Dialog .jp-mod-reject").click()
        until(page, "!document.querySelector('.jp-Dialog')")
        cells = page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.trusted)")
        assert cells == [trusted, trusted]
        until(page, f"said => JSON.stringify({OUTPUTS}) === JSON.stringify(said)", said)


def reopened(front_end: FrontEnd, path: Path, *, trusted: bool) -> str:
    """Save a notebook again with a kernel that is not installed, signed or not as the person's own; return its name."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata = {"kernelspec": {"name": "gone", "display_name": "gone", "language": "gone"}}
    name = f"{path.stem}-{trusted}.ipynb"
    nbformat.write(notebook, front_end.folder / name)
    notary = NotebookNotary(data_dir=str(front_end.data))
    (notary.sign if trusted else notary.unsign)(notebook)
    notary.store.close()
    return name


# Hostile texts

SHOWN = {
    """<img src="https://evil.invalid/a.png" onerror="window.owned = 'img'">""": None,
    """<script>window.owned = "script"</script><script src="https://evil.invalid/a.js"></script>""": None,
    """<a href="javascript:window.owned = 'a'">x</a> [x](javascript:window.owned='b') ![x](https://evil.invalid/b.png)""": None,
    """<iframe srcdoc="<script>parent.owned = 'iframe'</script>"></iframe><object data="https://evil.invalid/o">""": None,
    """<svg onload="window.owned = 'svg'"></svg><details open ontoggle="window.owned = 'details'">x</details>""": None,
    """" onmouseover="window.owned = 'event'" x=' onfocus='window.owned = 1' autofocus tabindex=1 ' >""": None,
    """</pre></td></table></div><style>@import "https://evil.invalid/a.css"; body { display: none }</style>""": None,
    r"""$5 and $6 $$x^2$$ \(y\) \[z\] \begin{align}a\end{align} &amp; &lt;b&gt; &#10;""": None,
    "\x1b[31mred\x1b[0m \x1b[2J\x1b[1A\r\x08": "␛[31mred␛[0m ␛[2J␛[1A␍␈",
    "\x1b]8;;https://evil.invalid/osc\x07link\x1b]8;;\x07 \x1b]0;title\x07": "␛]8;;https://evil.invalid/osc␇link␛]8;;␇ ␛]0;title␇",
    "\u202eabc\u202c \u2066x\u2069 \x9b31m": "<U+202E>abc<U+202C> <U+2066>x<U+2069> <U+009B>31m",
}
HOSTILE = "\n".join(SHOWN)
HARMLESS = "\n".join(shown or raw for raw, shown in SHOWN.items())
ELEMENTS = "img, script, iframe, object, svg, style, link, details, mjx-container, .MathJax, [onmouseover], [onfocus], [href^=javascript]"


REASON = '<img src="https://evil.invalid/'


def one_line(text: str) -> str:
    """Return `text` with every run of blanks as one."""
    return " ".join(text.split())


class Watch:
    """What a page does that hostile text could make it do: requests to anywhere else, and scripts that ran."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        self.origin = origin

    def check(self, within: str) -> None:
        """Assert that nothing within a selector has run or asked for anything; try first whether it would show."""
        self.page.mouse.move(400, 300)
        self.page.mouse.move(420, 500)
        self.page.evaluate("""() => {
          const canary = document.createElement("img");
          canary.setAttribute("onerror", "window.canary = true");
          canary.src = "https://canary.invalid/a.png";
          document.body.append(canary);
        }""")
        until(self.page, "window.canary")
        self.page.evaluate("() => { delete window.canary; document.body.lastChild.remove(); }")
        foreign = [url for url in self.requests if not url.startswith((self.origin, "data:", "blob:"))]
        self.requests.clear()
        assert foreign == ["https://canary.invalid/a.png"]
        assert self.page.evaluate("window.owned") is None
        assert [frame.url for frame in self.page.frames[1:]] == []
        assert self.page.locator(within).locator(ELEMENTS).count() == 0


def test_hostile_text_stays_text_in_the_area_and_in_the_record(front_end, open_cells, pen):
    """In prompt echo, completion, tokens, alternatives, model name and finish_reason nothing runs or is fetched."""
    page = open_cells(f"%%complete --raw --echo --logprobs 1\n{HOSTILE}")
    watch = Watch(page, front_end.origin)
    tokens = {"tokens": [HOSTILE, HOSTILE], "token_logprobs": [None, -1.0], "text_offset": [0, len(HOSTILE)]}
    logprobs = {**tokens, "top_logprobs": [None, {HOSTILE: -1.0, f"{HOSTILE}!": -2.0}]}
    choice = {"text": HOSTILE * 2, "index": 0, "logprobs": logprobs, "finish_reason": None}
    pen.write(model=HOSTILE, choices=[choice])
    pen.write(reason=HOSTILE)
    until_texts(page, HARMLESS * 2)
    until(page, "start => document.querySelector('.completions-reason').textContent.startsWith(start)", REASON)
    watch.check(AREA)
    pen.leave()
    front_end.wait_until_done(page)
    watch.check(".jp-OutputArea-output")
    record = page.locator(RECORD)
    assert record.text_content().startswith(HARMLESS * 2 + "<img src=")
    titles = record.locator("span[title]").evaluate_all("spans => spans.map(span => span.title)")
    assert len(titles) == 2
    assert all("<img·src=" in title and "␛[31mred" in title and "<U+202E>" in title for title in titles)


@only_lab
def test_hostile_text_stays_text_in_the_board_and_its_record(front_end, open_cells, pen):
    """In panes, folded panes, rows of the table and the footer nothing runs, is fetched or becomes mathematics."""
    formula = "from IPython.display import HTML, display\ndisplay(HTML('<p class=formula>$x^2$</p>'))"
    page = open_cells(f"%%complete -n {len(SHOWN)}\nOnce", formula)
    watch = Watch(page, front_end.origin)
    for index, line in enumerate(SHOWN):
        pen.write(HOSTILE, index=index, model="$5 and $6")
        pen.write(index=index, reason=line)
    until_texts(page, *[HARMLESS] * len(SHOWN))
    watch.check(AREA)
    assert one_line(HARMLESS)[-20:] in page.locator(".completions-glimpse").first.text_content()
    pen.leave()
    front_end.wait_until_done(page)
    page.wait_for_selector(".formula mjx-container")
    watch.check(RECORD)
    record = page.locator(RECORD)
    assert record.locator("td:nth-child(2)").all_text_contents() == [HARMLESS] * len(SHOWN)
    assert record.inner_text().endswith("\n$5 and $6")
    reasons = [reason.removesuffix("…") for reason in record.locator("td:last-child").all_text_contents()]
    assert [len(reason) > 15 for reason in reasons] == [True] * len(SHOWN)
    assert [
        one_line(line)[: len(reason)] for line, reason in zip(HARMLESS.split("\n"), reasons, strict=True)
    ] == reasons


def refusal(message: str) -> bytes:
    """Return a refusal in OpenAI's words."""
    return answer({"error": {"message": message}}, status="400 <img src=x onerror=window.owned=1>")


@only_lab
@pytest.mark.parametrize("lines", [slice(0, 4), slice(4, 8), slice(8, 11)], ids=["elements", "attributes", "controls"])
def test_hostile_text_stays_text_in_an_error(front_end, server, open_cells, lines):
    """What a server says in a refusal, on a page or in the middle of a stream is shown as one line of text."""
    hostile, harmless = "\n".join(list(SHOWN)[lines]), one_line("\n".join(HARMLESS.split("\n")[lines]))
    html = f"<html><title>{hostile}</title>".encode()
    cut = stream([event("part"), b"data: " + json.dumps({"error": {"message": hostile}}).encode() + b"\n\n"])
    server.scripts = [refusal(hostile), answer(html, status="404 Not Found", kind="text/html"), cut]
    page = open_cells("input()", *["%%complete --no-raise-error\nOnce"] * 2, "%%complete\nOnce")
    watch = Watch(page, front_end.origin)
    page.locator(".jp-Stdin-input").press("Enter")
    front_end.wait_until_done(page)
    watch.check(".jp-OutputArea-output")
    said = [one_line(output) for output in outputs(page)]
    assert said[-2] == "part m · failed: incomplete"
    errors = [error for error in said if "Error: " in error]
    assert [error.partition(":")[0] for error in errors] == ["BadRequestError", "NotFoundError", "AnswerError"]
    assert harmless[:150] in errors[0]
    assert harmless[:150] in errors[2]


# The keyboard, other eyes and ears


@pytest.mark.parametrize(("front_end", "key"), [("lab", "Enter"), ("notebook", "Space")], indirect=["front_end"])
def test_stop_is_reached_by_tab_and_pressed_by_a_key(open_cells, pen, key):
    """From the cell a few presses of Tab lead to Stop, and a key presses it."""
    page = open_cells("%%complete -o part\nOnce", "print(part.choices[0].finish_reason)")
    pen.write("Half a")
    until_texts(page, "Half a")
    page.locator(".jp-CodeCell .jp-InputArea-prompt").nth(1).click()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Stop":
            break
    page.keyboard.press(key)
    until_said(page, "stopped\n")


def test_keys_pressed_in_the_area_change_no_cell(open_cells, pen):
    """The notebook's own shortcuts do nothing while the focus is in the area."""
    page = open_cells("%%complete\nOnce")
    pen.write("Half a")
    until_texts(page, "Half a")
    look = "window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type + cell.model.sharedModel.source)"
    before = page.evaluate(look)
    for place in (stop_button(page), page.locator(".completions-text")):
        place.focus()
        for key in ("a", "b", "m", "r", "x", "d", "d"):
            page.keyboard.press(key)
    assert page.evaluate(look) == before
    pen.end()


@only_lab
def test_the_area_and_the_record_can_be_read_by_everyone(front_end, open_cells, pen):
    """Axe finds nothing in the area, the folded board and the records, in the light and the dark theme."""
    page = open_cells("%%complete -n 12\nOnce")
    for index in range(12):
        pen.write("Once upon a time", index=index)
        pen.write(index=index, reason="stop")
    until_texts(page, *["Once upon a time"] * 12)
    page.locator(".completions-head").first.click()
    found = {theme: look_at(front_end, page, theme, AREA) for theme in THEMES}
    pen.leave()
    front_end.wait_until_done(page)
    found |= {f"{theme}, record": look_at(front_end, page, theme, RECORD) for theme in THEMES}
    assert found == {place: [] for place in found}


@only_lab
def test_a_single_text_and_its_heat_map_can_be_read_by_everyone(front_end, open_cells, pen):
    """Axe finds nothing in a single pane, and in a record tinted by probability."""
    page = open_cells("%%complete --logprobs 0\nOnce")
    logprobs = {"tokens": WORDS, "token_logprobs": [-0.5 * number for number in range(len(WORDS))]}
    choice = {"text": "".join(WORDS), "index": 0, "logprobs": {**logprobs, "top_logprobs": [], "text_offset": []}}
    pen.write(choices=[choice])
    until_texts(page, "".join(WORDS))
    found = {theme: look_at(front_end, page, theme, AREA) for theme in THEMES}
    pen.end()
    front_end.wait_until_done(page)
    found |= {f"{theme}, record": look_at(front_end, page, theme, RECORD) for theme in THEMES}
    assert found == {place: [] for place in found}


def look_at(front_end: FrontEnd, page: Page, theme: str, selector: str) -> list[str]:
    """Return what axe finds within a selector, in one theme."""
    front_end.change_theme(page, theme)
    return faults(page, selector)


@only_lab
def test_colours_follow_the_theme(front_end, open_cells, pen):
    """In the dark theme the area, its button and the record are light on dark, in the light theme dark on light."""
    page = open_cells("%%complete\nOnce")
    pen.write("Half a")
    until_texts(page, "Half a")
    places = (".completions-text", ".completions-meters", ".completions-stop")
    for theme, is_dark in zip(THEMES, (False, True), strict=True):
        front_end.change_theme(page, theme)
        assert {place: is_light_on_dark(page, place) for place in places} == dict.fromkeys(places, is_dark)
    pen.end()
    front_end.wait_until_done(page)
    assert is_light_on_dark(page, f"{RECORD} pre")
    front_end.change_theme(page, THEMES[0])
    assert not is_light_on_dark(page, f"{RECORD} pre")


def is_light_on_dark(page: Page, selector: str) -> bool:
    """Say whether an element's text is lighter than what is behind it."""
    return page.locator(selector).evaluate("""element => {
      const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0);
      let behind = element;
      while (/, 0\\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
      return light(getComputedStyle(element).color) > light(getComputedStyle(behind).backgroundColor);
    }""")
