"""The token view: its messages against a scripted server, and the whole in a real JupyterLab on the embedded endpoint."""

import atexit
import contextlib
import json
import pickle
import re
import sys
import threading
import time

import nbformat
import pytest
from conftest import DONE, answer, event, piece, stream, stream_head
from frontend import FrontEnd, faults, open_browser
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from playwright.sync_api import Locator, Page, expect
from traitlets.config import Config

from completions_magic import Client, Completion
from completions_magic.errors import CompletionsError, ConfigurationError
from completions_magic.schema import Choice, CompletionRequest, Logprobs
from completions_magic.tokens import TokenView
from completions_magic.tree import TokenTree

THEMES = ("JupyterLab Light", "JupyterLab Dark")
PROMPT = "Once upon a time"


# Messages, without a browser


class CountedView(TokenView):
    """A view that keeps what it sends."""

    def __init__(self, *settings, **more) -> None:
        self.sent = []
        super().__init__(*settings, **more)

    def send_state(self, key=None):
        """Keep the time and the state that is sent."""
        self.sent.append((time.monotonic(), self.get_state(key)))
        super().send_state(key)


def scored(*tokens: str, tops=None, prompt: str = PROMPT) -> Completion:
    """Return a completion of `tokens`, each with the alternatives ` x` and ` y`."""
    tops = tops or [{token: -1.0, " x": -2.0, " y": -3.0} for token in tokens]
    logprobs = Logprobs(list(tokens), [-1.0] * len(tokens), tops, [])
    request = CompletionRequest.build(prompt, model="m", max_tokens=9, logprobs=2)
    return Completion(model="m", choices=[Choice("".join(tokens), 0, "length", logprobs)], request=request)


def token_event(token: str, reason: str | None = None) -> bytes:
    """Return an event of one token with its log-probability."""
    logprobs = {"tokens": [token], "token_logprobs": [-1.0], "top_logprobs": [{token: -1.0}], "text_offset": [0]}
    return event(choices=[{"text": token, "index": 0, "finish_reason": reason, "logprobs": logprobs}])


def choose(view: TokenView, node: int, alternative: int) -> None:
    """Send what the page sends when a person chooses an alternative."""
    view._handle_custom_msg({"choose": {"node": node, "alternative": alternative}}, [])


def say(view: TokenView, content: object) -> None:
    """Send another message of the page."""
    view._handle_custom_msg(content, [])


def until(condition, seconds: float = 30.0) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def threads() -> list[str]:
    """Return the names of the view's threads that live."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("completions-tokens")]


@pytest.fixture
def make_view(server):
    """Return what makes a view of three tokens that goes on at the scripted server; it is closed in the end."""
    views = []
    client = server.client()

    def make_view(*scripts, bind=None) -> CountedView:
        server.scripts = list(scripts)
        views.append(CountedView(scored(" a", " b", " c"), client, bind))
        return views[-1]

    yield make_view
    for view in views:
        view.close()
    until(lambda: threads() == [])
    client.close()


def endless(connection):
    """Send a token every few milliseconds, until the client hangs up."""
    connection.sendall(stream_head())
    while True:
        connection.sendall(piece(token_event(" z")))
        time.sleep(0.003)


def silent(connection):
    """Send two tokens and then nothing."""
    connection.sendall(stream_head() + piece(token_event(" 1")) + piece(token_event(" 2")))
    while connection.recv(1024):
        pass


def test_a_choice_streams_into_a_branch(make_view, server):
    """The alternative and what the server says after it are the current branch; the first stays as it was."""
    view = make_view(stream([token_event(" 1"), token_event(" 2", "stop"), DONE]))
    choose(view, 2, 1)
    until(lambda: view.get_state("streaming")["streaming"] is None)
    assert server.heard[0].json["prompt"] == f"{PROMPT} a x"
    assert (view.completion.text, view.completion.choices[0].finish_reason) == (" a x 1 2", "stop")
    assert view.tree.completion(view.tree.nodes[3]).text == " a b c"
    choose(view, 4, 0)
    assert view.completion.text == " a b c"
    choose(view, 2, 1)
    assert view.completion.text == " a x 1 2"
    assert len(server.heard) == 1


def test_stop_keeps_what_has_come(make_view):
    """Stop ends the stream at once; the branch keeps its tokens, and the last can be gone on from."""
    view = make_view(silent, stream([token_event(" 3", "stop"), DONE]))
    choose(view, 2, 1)
    until(lambda: view.completion.text == " a x 1 2")
    say(view, {"stop": True})
    assert view.get_state("streaming")["streaming"] is None
    assert view.completion.choices[0].finish_reason == "stopped"
    until(lambda: threads() == [])
    choose(view, len(view.tree.nodes) - 1, 0)
    until(lambda: view.get_state("streaming")["streaming"] is None)
    assert view.completion.text == " a x 1 2 3"


def test_a_second_choice_ends_the_first(make_view, server):
    """Nothing of the first answer comes into the tree after the second was chosen, and both threads end."""
    view = make_view(endless, stream([token_event(" 1", "stop"), DONE]))
    choose(view, 2, 1)
    until(lambda: len(view.tree.nodes) > 50)
    choose(view, 2, 2)
    first = len(view.tree.completion(view.tree.nodes[4]).choices[0].logprobs.tokens)
    until(lambda: threads() == [])
    assert view.completion.text == " a y 1"
    assert len(view.tree.completion(view.tree.nodes[4]).choices[0].logprobs.tokens) == first
    assert view.tree.end(view.tree.nodes[4]).finish_reason == "stopped"


def full_pages(view: CountedView) -> list[str]:
    """Return the names of the full pages that were sent, each as often as it was."""
    states = [state for _, state in list(view.sent)]
    return [name for state in states for name, rows in state.items() if name.startswith("page_") and len(rows) == 32]


def test_updates_are_at_most_20_a_second_and_grow_with_the_text(make_view):
    """However fast tokens come, the page hears of them 20 times a second, and each full page of them once."""
    view = make_view(endless)
    choose(view, 2, 1)
    before = len(view.sent)
    until(lambda: len(view.sent) > before + 25 and len(full_pages(view)) > 1)
    sent = [at for at, _ in view.sent[before:]]
    say(view, {"stop": True})
    assert len(sent) - 1 <= 20 * (sent[-1] - sent[0])
    full = full_pages(view)
    assert len(full) == len(set(full)) > 1
    state = view.get_state()
    pages = [rows for name, rows in state.items() if re.fullmatch(r"page_\d+", name)]
    assert sum(map(len, pages)) == state["count"] == len(view.tree.nodes)


def test_an_error_is_one_line_and_the_view_lives_on(make_view):
    """What the server refuses is said in words; another choice works."""
    refusal = answer({"error": {"message": "no such\nthing"}}, status="400 Bad Request")
    view = make_view(refusal, stream([token_event(" 1", "stop"), DONE]))
    choose(view, 2, 1)
    until(lambda: view.get_state("failed")["failed"])
    line = view.get_state("line")["line"]
    assert "400" in line
    assert "no such thing" in line
    choose(view, 2, 2)
    until(lambda: view.completion.text == " a y 1")
    assert view.get_state(["line", "failed"]) == {"line": "", "failed": False}


def test_what_came_before_a_cut_is_kept(make_view):
    """An answer that breaks off leaves its tokens in a branch that says so."""
    view = make_view(lambda connection: connection.sendall(stream_head() + piece(token_event(" 1"))))
    choose(view, 2, 1)
    until(lambda: view.get_state("failed")["failed"])
    assert (view.completion.text, view.completion.choices[0].finish_reason) == (" a x 1", "error")


def test_binding_is_the_callers(make_view):
    """The name and the branch go to `bind`; what it raises is one line."""
    bound = {}

    def bind(name, completion):
        if not name.isidentifier():
            raise ConfigurationError("that is no name")
        bound[name] = completion

    view = make_view(bind=bind)
    say(view, {"bind": {"name": "story"}})
    assert bound["story"].text == " a b c"
    say(view, {"bind": {"name": "1 2"}})
    assert view.get_state(["line", "failed"]) == {"line": "that is no name", "failed": True}


@pytest.mark.parametrize(
    "content",
    [None, [], "stop", {}, {"choose": 1}, {"choose": {"node": 99, "alternative": 0}}, {"walk": {"node": "1"}},
     {"choose": {"node": 1, "alternative": 99}}, {"bind": {"name": "x"}}, {"name": {"node": 1}}],
)  # fmt: skip
def test_messages_that_mean_nothing_change_nothing(make_view, content):
    """A message of another shape, or about what is not there, breaks nothing."""
    view = make_view()
    say(view, content)
    assert view.completion.text == " a b c"
    assert len(view.tree.nodes) == 4


def test_close_ends_the_thread(make_view):
    """A view that is closed while tokens come leaves no thread."""
    view = make_view(endless)
    choose(view, 2, 1)
    until(lambda: len(view.tree.nodes) > 10)
    view.close()
    until(lambda: threads() == [])


def test_a_completion_without_log_probabilities_is_refused():
    """The error says how to ask for them, and leaves nothing behind."""
    plain = Completion(choices=[Choice("a")], request=CompletionRequest.build("a", model="m"))
    with pytest.raises(ConfigurationError, match="--logprobs 5"):
        TokenView(plain, Client())


# From a completion


def test_a_completion_remembers_who_made_it(server):
    """The client that made a completion goes on with it; copies and files do not know it, and it does not count."""
    server.scripts = [stream([token_event(" a"), token_event(" b", "stop"), DONE])]
    with server.client() as client:
        made = client.complete("Hi", logprobs=1, stream=True)
        other = made + Completion()
        view = made.tokens()
        choose(view, 1, 0)
        assert view.completion.tokens().completion.text == " a b"
        view.close()
        assert other == made
        assert "client" not in repr(made).lower()
        for copied in (pickle.loads(pickle.dumps(made)), other):
            with pytest.raises(ConfigurationError, match=r"tokens\(client\)"):
                copied.tokens()
        assert other.tokens(client).completion.text == " a b"


@pytest.fixture
def shell(server):
    """Return a shell with the extension loaded, whose cells ask the scripted server."""
    main = sys.modules["__main__"]
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "completions_magic")
    shell.run_line_magic("config", f"CompletionsMagics.base_url = '{server.base_url}'")
    shell.run_line_magic("config", "CompletionsMagics.model = 'm'")
    yield shell
    shell.run_line_magic("unload_ext", "completions_magic")
    InteractiveShell.clear_instance()
    atexit.unregister(shell.atexit_operations)
    sys.modules["__main__"] = main


def test_the_magic_opens_the_last_completion_or_a_named_one(shell, server):
    """%completions tokens shows the last, or the one that a variable holds, and binds branches under checked names."""
    server.scripts = [stream([token_event(f" {word}", "stop"), DONE]) for word in "ab"]
    for name in ("first", "second"):
        shell.run_cell_magic("complete", f"-q -o {name} --logprobs 1", "Hi")
    assert shell.run_line_magic("completions", "tokens").completion.text == " b"
    view = shell.run_line_magic("completions", "tokens first")
    assert view.completion.text == " a"
    say(view, {"bind": {"name": "branch"}})
    assert shell.user_ns["branch"].text == " a"
    say(view, {"bind": {"name": "print"}})
    assert "would hide Python's print" in view.get_state("line")["line"]
    assert "print" not in shell.user_ns


@pytest.mark.parametrize("line", ["tokens", "tokens nothing", "tokens word", "tokens plain"])
def test_what_has_no_tokens_is_refused_in_one_line(shell, line):
    """Without a completion, or without its log-probabilities, one line says what to run."""
    request = CompletionRequest.build("Hi", model="m")
    plain = Completion(choices=[Choice("a")], request=request).remember(Client())
    shell.user_ns.update(word="no completion", plain=plain)
    with pytest.raises(CompletionsError, match="--logprobs 5") as caught:
        shell.run_line_magic("completions", line)
    assert "\n" not in str(caught.value)


# In a file


def test_a_notebook_that_runs_without_a_person_is_the_same_every_time(tmp_path):
    """The output is the static tree, the same bytes in every run, and no widget is in the file."""
    made = f"made = completions_magic.Client().complete({PROMPT!r}, max_tokens=5, seed=3, logprobs=2)"
    cells = [f"import completions_magic\n{made}", "made.tokens()", "made.tokens()"]
    runs = []
    for _ in range(2):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()
        assert "widgets" not in notebook.metadata
        assert "widget" not in json.dumps([cell.outputs for cell in notebook.cells])
        runs.append([cell.outputs[0]["data"] for cell in notebook.cells[1:]])
    assert runs[0] == runs[1]
    one, two = (re.search('class="([^ ]+) ', data["text/html"])[1] for data in runs[0])
    assert re.fullmatch("completions-tokens-[0-9a-f]{12}-0", one)
    assert two == f"{one[:-1]}1"


SLOT_CELLS = (
    "%load_ext completions_magic",
    f"%%complete -q -o made --logprobs 3 --seed 3 --max-tokens 8\n{PROMPT}",
    "%completions tokens made",
    "print('alive')",
)
BLANKS = """() => {
  window.blanks = 0;
  const look = () => {
    window.blanks += !document.querySelector(".jp-Notebook .completions-tokens");
    requestAnimationFrame(look);
  };
  look();
}"""


def saved(front_end: FrontEnd, page: Page) -> str:
    """Save the notebook; return the output of the token view, as the file has it."""
    front_end.save(page)
    text = (front_end.folder / "slot.ipynb").read_text("utf-8")
    assert "widget" not in text
    (output,) = json.loads(text)["cells"][2]["outputs"]
    assert sorted(output["data"]) == ["text/html", "text/plain"]
    return "".join(output["data"]["text/html"]) + "".join(output["data"]["text/plain"])


def branch_at(page: Page, at: int) -> None:
    """Choose the first alternative that is not taken at a token, and wait until its branch has ended."""
    shown = page.locator(".completions-tokens")
    count = shown.locator(".tokens-branch").count()
    shown.locator(".tokens-token").nth(at).click()
    shown.locator("button.tokens-bar:enabled:not([aria-current])").first.click()
    expect(shown.locator(".tokens-branch")).to_have_count(count + 1)
    expect(shown.locator(".tokens-stop")).to_be_hidden()


def until_saved(front_end: FrontEnd, page: Page, branches: int) -> str:
    """Return the output as the file has it, once it has that many branches besides the first."""
    end = time.monotonic() + 30
    while (text := saved(front_end, page)).count("instead of") != 2 * branches:
        assert time.monotonic() < end, text
        page.wait_for_timeout(100)
    return text


@pytest.mark.parametrize("kind", ["lab", "notebook"])
def test_no_widget_is_left_behind(kind, tmp_path):
    """The saved output is the tree as it is, through branches, a second run, a reload, and without a kernel."""
    with contextlib.ExitStack() as stack:
        front_end = FrontEnd(tmp_path, kind)
        stack.callback(front_end.close)
        browser = stack.enter_context(open_browser())
        front_end.write("slot.ipynb", *SLOT_CELLS)
        page = front_end.open(browser, "slot.ipynb")
        front_end.run_all(page)
        shown = page.locator(".completions-tokens")
        expect(shown).to_be_visible()
        first = until_saved(front_end, page, 0)

        # A branch: the output is written anew, and the view does not leave the page for a frame, nor does focus.
        page.evaluate(BLANKS)
        branch_at(page, 3)
        until_saved(front_end, page, 1)
        expect(shown.locator(".tokens-token").nth(3)).to_be_focused()
        assert page.evaluate("window.blanks") == 0

        # No key is a command for the notebook.
        look = "window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.type)"
        before = page.evaluate(look)
        for target in (".tokens-token[tabindex='0']", "button.tokens-bar:enabled", ".tokens-branch"):
            shown.locator(target).first.focus()
            for key in ["b", "a", "m", "y", "x", "d", "d", "c", "v"]:
                page.keyboard.press(key)
        page.wait_for_timeout(200)
        assert page.evaluate(look) == before

        # The same cells again are the same bytes.
        front_end.run_all(page)
        expect(shown.locator(".tokens-branch")).to_have_count(1)
        assert until_saved(front_end, page, 0) == first

        # A page that was loaded later has the view, and its branches come into the file.
        page.reload()
        front_end.wait_until_open(page)
        expect(shown).to_be_visible()
        branch_at(page, 2)
        text = until_saved(front_end, page, 1)
        assert page.locator(".jp-OutputArea-executeResult .jupyter-widgets").count() == 0

        # Without a kernel the tree is there to be read.
        front_end.end_kernels()
        page.close()
        page = front_end.open(browser, "slot.ipynb", has_kernel=False)
        expect(page.locator(".jp-OutputArea-output details")).to_have_count(2)
        assert shown_without_blanks(page) in without_blanks(text)


def without_blanks(text: str) -> str:
    """Return `text` without its blanks."""
    return "".join(text.split())


def shown_without_blanks(page: Page) -> str:
    """Return the heading of the second branch, as it is on the page."""
    return without_blanks(page.locator(".jp-OutputArea-output summary").nth(1).inner_text())


# In JupyterLab


SETUP = f"""
import itertools, json, pathlib, time
import httpx
import completions_magic
from completions_magic.schema import Choice, Completion, CompletionRequest, Logprobs
from completions_magic.tokens import TokenView

client = completions_magic.Client()
completion = client.complete({PROMPT!r}, max_tokens=12, seed=3, logprobs=5)

def bind(name, completion):
    globals()[name] = completion

def made(*tokens):
    tops = [{{token: -1.0, **dict.fromkeys(HOSTILE, -2.5)}} for token in tokens]
    request = CompletionRequest.build("Say", model="m", max_tokens=500, logprobs=5)
    logprobs = Logprobs(list(tokens), [-1.0] * len(tokens), tops, [])
    return Completion(choices=[Choice("".join(tokens), 0, "stop", logprobs)], request=request)

def asks(app):
    return completions_magic.Client(base_url="http://localhost:9/v1", model="m", transport=httpx.WSGITransport(app))

def slow(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    for at in itertools.count():
        logprobs = {{"tokens": [f" {{at}}"], "token_logprobs": [-1.0], "top_logprobs": [None], "text_offset": [0]}}
        choice = {{"text": f" {{at}}", "index": 0, "finish_reason": None, "logprobs": logprobs}}
        yield b"data: " + json.dumps({{"choices": [choice]}}).encode() + b"\\n\\n"
        time.sleep(0.02)

def broken(environ, start_response):
    start_response("400 Bad Request", [("Content-Type", "application/json")])
    return [json.dumps({{"error": {{"message": "<b>not</b> today"}}}}).encode()]
"""
HOSTILE = [
    "<img src=x onerror=hacked=1>", "</span><script>hacked=1</script>", "\x1b[31mred", "\u202eabc", "$x$ **y**", "\n\n",
]  # fmt: skip
PLAIN = "TokenView(completion, client, bind)"
CELLS = {
    "hover": PLAIN,
    "keys": PLAIN,
    "choose": f"first = {PLAIN}\nfirst",
    "late": "first",
    "walk": PLAIN,
    "leak": PLAIN,
    "slow": "TokenView(made(' a', ' b'), asks(slow))",
    "broken": "TokenView(made(' a', ' b'), asks(broken))",
    "hostile": "TokenView(made(*HOSTILE), client)",
    "busy": "while busy and not pathlib.Path('go').exists():\n    time.sleep(0.02)",
    "bound": "print(globals().get('story'))",
    "record": "first.tree",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """One JupyterLab with a view in each of CELLS, all run."""
    lab = FrontEnd(tmp_path_factory.mktemp("lab"))
    lab.write("tokens.ipynb", f"HOSTILE = {HOSTILE!r}\nbusy = False\n{SETUP}", *CELLS.values())
    try:
        with open_browser() as browser:
            page = lab.open(browser, "tokens.ipynb")
            page.evaluate("window.hacked = undefined")
            lab.run_all(page)
            page.lab = lab
            yield page
    finally:
        lab.close()


@pytest.fixture(scope="module")
def tree() -> TokenTree:
    """Return the tree of the completion that most views show."""
    with Client() as client:
        return TokenTree(client.complete(PROMPT, max_tokens=12, seed=3, logprobs=5))


def cell(page: Page, name: str) -> Locator:
    """Return the cell of that name."""
    return page.locator(".jp-Notebook .jp-Cell").nth(1 + list(CELLS).index(name))


def view(page: Page, name: str) -> Locator:
    """Return the view in the cell of that name."""
    found = cell(page, name).locator(".completions-tokens")
    found.scroll_into_view_if_needed()
    return found


def run(page: Page, name: str) -> None:
    """Run the cell of that name again."""
    cell(page, name).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def visible(token: str) -> str:
    """Return a token as a label shows it."""
    return token.replace(" ", "·").replace("\n", "↵")


def choice_at(tree: TokenTree, at: int) -> tuple[int, str]:
    """Return which alternative of a node is the first that can be chosen and is not the node itself."""
    node = tree.nodes[at]
    return next(
        (which, token)
        for which, token in enumerate(node.alternatives)
        if token in tree.choosable(node) and token != node.token
    )


def continued(tree: TokenTree, at: int, token: str) -> str:
    """Return the text of the branch that takes `token` at a node, as the endpoint goes on with it."""
    start = last = tree.branch(tree.nodes[at], token)
    if not start.children:
        with Client() as client:
            for chunk in client.send(tree.request_from(start)):
                last = tree.extend(last, chunk)
    return tree.completion(start).text


def test_hover_shows_the_alternatives(page, tree):
    """The pointer on a token shows its probability, the alternatives as bars, and the mass of all others."""
    shown = view(page, "hover")
    node = tree.nodes[3]
    shown.locator(".tokens-token").nth(2).hover()
    expect(shown.locator(".tokens-head .tokens-label")).to_have_text(visible(node.token))
    bars = shown.locator(".tokens-bar")
    expect(bars).to_have_count(len(node.alternatives) + 1)
    assert bars.locator(".tokens-label").all_text_contents() == [*map(visible, node.alternatives), "other tokens"]
    shares = [float(share.strip("<>%")) for share in bars.locator(".tokens-value").all_text_contents()]
    assert sum(shares) == pytest.approx(100, abs=0.5)
    expect(shown.locator(".tokens-bar[aria-current]")).to_contain_text(visible(node.token))


def test_a_pinned_token_stays_while_the_pointer_moves(page, tree):
    """A click keeps a token in the panel until Escape."""
    shown = view(page, "hover")
    label = shown.locator(".tokens-head .tokens-label")
    shown.locator(".tokens-token").nth(1).click()
    shown.locator(".tokens-token").nth(5).hover()
    page.wait_for_timeout(150)
    expect(label).to_have_text(visible(tree.nodes[2].token))
    page.keyboard.press("Escape")
    shown.locator(".tokens-token").nth(6).hover()
    expect(label).to_have_text(visible(tree.nodes[7].token))


def test_arrows_move_over_the_tokens(page, tree):
    """One token is in the Tab order; arrows, Home and End move, along the line and from line to line."""
    shown = view(page, "keys")
    label = shown.locator(".tokens-head .tokens-label")
    shown.locator(".tokens-token[tabindex='0']").focus()
    for key, at in [("End", 12), ("Home", 1), ("ArrowLeft", 1), ("ArrowRight", 2), ("ArrowRight", 3)]:
        page.keyboard.press(key)
        expect(label).to_have_text(visible(tree.nodes[at].token))
        expect(shown.locator(".tokens-token[tabindex='0']")).to_have_count(1)
    place = "document.activeElement.getClientRects()[0].top"
    tops = [page.evaluate(place)]
    for key in ("ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
        tops.append(page.evaluate(place))
    assert tops[1] > tops[0] == tops[2]


def test_the_text_goes_on_from_the_token_that_is_chosen(page, tree):
    """Enter leads to the alternatives and takes one; the text goes on, and focus is on the new token."""
    shown = view(page, "choose")
    which, token = choice_at(tree, 4)
    shown.locator(".tokens-token[tabindex='0']").focus()
    for key in ["Home", *["ArrowRight"] * 3, "Enter", *["ArrowDown"] * which, "Enter"]:
        page.keyboard.press(key)
    text = continued(tree, 4, token)
    expect(shown.locator(".tokens-text")).to_have_text(PROMPT + text)
    expect(shown.locator(".tokens-branch")).to_have_count(2)
    expect(shown.locator(".tokens-branch[aria-current]")).to_contain_text("max_tokens")
    expect(shown.locator(".tokens-token").nth(3)).to_be_focused()
    expect(shown.locator(".tokens-stop")).to_be_hidden()
    expect(shown.locator(".tokens-foot")).to_contain_text("log-probabilities before temperature")
    expect(shown.locator(".tokens-foot")).to_contain_text(
        f"perplexity {tree.perplexity(tree.end(tree.branch(tree.nodes[4], token))):.2f}"
    )
    # The same view again, opened after all that, shows the same.
    expect(view(page, "late").locator(".tokens-text")).to_have_text(PROMPT + text)
    run(page, "late")
    expect(view(page, "late").locator(".tokens-branch")).to_have_count(2)
    expect(view(page, "late").locator(".tokens-text")).to_have_text(PROMPT + text)


def test_branches_are_walked_named_and_bound(page, tree):
    """The list leads back; a branch takes a name, and a variable holds the branch on screen."""
    shown = view(page, "walk")
    which, token = choice_at(tree, 2)
    shown.locator(".tokens-token").nth(1).click()
    shown.locator("button.tokens-bar").nth(which).click()
    text = continued(tree, 2, token)
    expect(shown.locator(".tokens-text")).to_have_text(PROMPT + text)
    shown.get_by_label("Branch name").fill("the <i>other</i>")
    page.keyboard.press("Enter")
    expect(shown.locator(".tokens-name")).to_have_text("the <i>other</i>")
    shown.get_by_label("Variable").fill("story")
    shown.get_by_role("button", name="Bind").click()
    expect(shown.locator(".tokens-line")).to_have_text("story holds this branch")
    run(page, "bound")
    expect(cell(page, "bound").locator(".jp-OutputArea-output")).to_have_text(text.rstrip() + "\n")
    shown.locator(".tokens-branch").first.click()
    expect(shown.locator(".tokens-text")).to_have_text(PROMPT + tree.completion(tree.nodes[1]).text)
    expect(shown.get_by_label("Branch name")).to_have_value("")
    expect(shown.locator(".tokens-branch").first).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(shown.locator(".tokens-text")).to_have_text(PROMPT + text)


def test_no_key_is_a_command_for_the_notebook(page):
    """Keys that would add, delete or change cells do nothing of the kind, wherever in the view the focus is."""
    shown = view(page, "leak")
    cells = lambda: page.locator(".jp-Notebook .jp-Cell").evaluate_all("cells => cells.map(cell => cell.className)")  # noqa: E731
    before = len(cells())
    for target in (".tokens-token[tabindex='0']", "button.tokens-bar:enabled", "button.tokens-button:visible"):
        shown.locator(target).first.focus()
        for key in ["b", "a", "m", "y", "x", "d", "d", "c", "v", "z", "Shift+M", "1", "0", "0"]:
            page.keyboard.press(key)
    page.wait_for_timeout(200)
    assert len(cells()) == before
    assert not any("jp-MarkdownCell" in name for name in cells())


def test_stop_ends_the_stream_while_another_cell_runs(page):
    """Stop is there while tokens come, is heard although the kernel is busy, and what has come stays."""
    shown = view(page, "slow")
    shown.locator(".tokens-token").nth(1).click()
    shown.locator("button.tokens-bar").filter(has_text="$x$").first.click()
    expect(shown.locator(".tokens-text")).to_contain_text("4 5 6")
    cell(page, "busy").locator(".cm-content").click()
    page.keyboard.press("Control+Home")
    page.keyboard.type("busy = True\n")
    page.keyboard.press("Control+Enter")
    expect(cell(page, "busy").locator(".jp-InputArea-prompt")).to_have_text("[*]:")
    shown.scroll_into_view_if_needed()
    shown.get_by_role("button", name="Stop").click()
    expect(shown.locator(".tokens-branch[aria-current] .tokens-end")).to_have_text("stopped")
    expect(cell(page, "busy").locator(".jp-InputArea-prompt")).to_have_text("[*]:")
    kept = shown.locator(".tokens-text").text_content()
    page.wait_for_timeout(200)
    assert shown.locator(".tokens-text").text_content() == kept
    (page.lab.folder / "go").touch()
    page.lab.wait_until_done(page)


def test_a_failure_is_one_line_in_the_view(page):
    """What the endpoint refuses is said below the text, as text, and the tokens stay."""
    shown = view(page, "broken")
    shown.locator(".tokens-token").nth(1).click()
    shown.locator("button.tokens-bar").filter(has_text="$x$").first.click()
    expect(shown.locator(".tokens-line")).to_contain_text("<b>not</b> today")
    expect(shown.locator(".tokens-token")).to_have_count(2)
    shown.locator(".tokens-branch").first.click()
    expect(shown.locator(".tokens-text")).to_have_text("Say a b")


def test_hostile_tokens_stay_text(page):
    """HTML, escapes, controls of direction, Markdown and mathematics are read as they are written."""
    shown = view(page, "hostile")
    for at in range(len(HOSTILE)):
        shown.locator(".tokens-token").nth(at).click()
    shown.locator(".tokens-token").nth(2).click()
    text = shown.locator(".tokens-left").inner_text() + shown.locator(".tokens-panel").inner_text()
    assert "<img src=x onerror=hacked=1>" in text
    assert "␛[31mred" in text
    assert "<U+202E>abc" in text
    assert "$x$ **y**" in text
    assert not re.search("[\x1b\u202e]", text)
    assert shown.locator("img, script, strong, mjx-container").count() == 0
    assert page.evaluate("window.hacked") is None


def test_the_record_of_the_tree_is_left_in_the_notebook(page, tree):
    """Displayed, the tree is HTML that lists each branch, as the page shows it and as the file keeps it."""
    run(page, "record")
    record = cell(page, "record").locator(".jp-OutputArea-output")
    expect(record).to_contain_text("instead of")
    assert record.locator("details").count() == 2
    page.lab.save(page)
    saved = json.loads((page.lab.folder / "tokens.ipynb").read_text("utf-8"))
    output = saved["cells"][1 + list(CELLS).index("record")]["outputs"][0]
    assert "instead of" in "".join(output["data"]["text/plain"])


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(page, theme):
    """Names, roles, contrast and focus order are in order in the light and the dark theme."""
    page.lab.change_theme(page, theme)
    assert faults(page, ".completions-tokens") == []


def test_it_fits_into_a_narrow_window(page):
    """At 700 pixels nothing is cut off: the panel goes below the text."""
    page.lab.resize(page, 700)
    shown = view(page, "choose")
    sizes = shown.evaluate(
        "view => [view.scrollWidth - view.clientWidth, view.parentNode.scrollWidth - view.parentNode.clientWidth]"
    )
    text, panel = (shown.locator(part).bounding_box() for part in (".tokens-left", ".tokens-panel"))
    page.lab.resize(page, 1100)
    assert max(sizes) <= 0
    assert panel["y"] >= text["y"] + text["height"] - 1
