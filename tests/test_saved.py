"""Saved notebooks: run without a browser, written to a file, and read back in the forms that people publish."""

import hashlib
import json
import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup, Tag
from markdown_it import MarkdownIt
from nbclient import NotebookClient
from nbconvert import HTMLExporter, LatexExporter, MarkdownExporter

from completions_magic import Client

HOSTILE = """\
<script>alert(1)</script><img src="https://evil.invalid/a.png" onerror="alert(2)">
</pre></td></table></div><style>@import "https://evil.invalid/a.css"</style>
<a href="javascript:alert(3)">x</a> [x](javascript:alert(4)) ![x](https://evil.invalid/b.png)
$5 and $6 $$x^2$$ \\(y\\) \\begin{verbatim} \\end{verbatim} \\input{/etc/hosts} %{}~^_# &amp; &lt;b&gt; &#10;

    four blanks, after an empty line

# a title

| a | b |
|---|---|
```
fence"""
CELLS = {
    "one": "%%complete -o one --seed 1 --max-tokens 24\nOnce upon a time",
    "many": "%%complete -o many -n 3 --seed 2 --max-tokens 24\nOnce upon a time",
    "scored": "%%complete -o scored --logprobs 3 --seed 3 --max-tokens 24\nRoses are red",
    "prompts": '%%complete -o prompts --prompt \'["Once", "Roses"]\' -n 2 --seed 4\n\n',
    "led": "%%complete -o led --raw --echo --seed 5\n\n\n  Two empty lines and two blanks lead.\n\nOne is within.",
    "led_scored": "%%complete -o led_scored --raw --echo --logprobs 1 --seed 6\n\n\n  Two empty lines and two blanks lead.",
    "hostile": f"%%complete -o hostile --raw --echo --seed 7\n{HOSTILE}",
    "hostile_many": f"%%complete -o hostile_many -n 2 --raw --echo --seed 8\n{HOSTILE}",
    "hostile_scored": f"%%complete -o hostile_scored --raw --echo --logprobs 2 --seed 9\n{HOSTILE}",
}
SETUP = "%load_ext completions_magic\n%config CompletionsMagics.profile = 'local'"
LAST = f"""
import json, pathlib
held = {{name: globals()[name].to_dict() for name in {list(CELLS)}}}
size = pathlib.Path("answers.json").write_text(json.dumps(held), "utf-8")
"""

each = pytest.mark.parametrize("name", CELLS)


def run(folder: Path) -> nbformat.NotebookNode:
    """Run the cells in a kernel of their own, save the notebook in `folder`, and return what the file holds."""
    cells = [
        nbformat.v4.new_code_cell(cell, id=f"cell-{number}")
        for number, cell in enumerate([SETUP, *CELLS.values(), LAST])
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, kernel_name="python3", resources=resources, record_timing=False, timeout=60).execute()
    nbformat.write(notebook, folder / "saved.ipynb")
    return nbformat.read(folder / "saved.ipynb", as_version=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run the notebook twice; return the two folders that hold it."""
    folders = [tmp_path_factory.mktemp("saved") for _ in range(2)]
    with pytest.MonkeyPatch.context() as environment:
        for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "XDG_CONFIG_HOME"):
            environment.setenv(name, str(folders[0] / name))
        for folder in folders:
            run(folder)
    return folders


@pytest.fixture(scope="module")
def notebook(folders) -> nbformat.NotebookNode:
    """Return the saved notebook."""
    return nbformat.read(folders[0] / "saved.ipynb", as_version=4)


@pytest.fixture(scope="module")
def answers(folders) -> dict[str, dict]:
    """Return the completions as the kernel held them, by variable."""
    return json.loads((folders[0] / "answers.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def page(notebook) -> BeautifulSoup:
    """Return the notebook as nbconvert's HTML."""
    return BeautifulSoup(HTMLExporter().from_notebook_node(notebook)[0], "html.parser")


@pytest.fixture(scope="module")
def markdown(notebook) -> str:
    """Return the outputs as nbconvert's Markdown."""
    return MarkdownExporter(exclude_input=True).from_notebook_node(notebook)[0]


@pytest.fixture(scope="module")
def latex(notebook) -> str:
    """Return the notebook as nbconvert's LaTeX."""
    return LatexExporter().from_notebook_node(notebook)[0]


def output(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """Return the one output of the cell that bound `name`."""
    [found] = notebook.cells[1 + list(CELLS).index(name)].outputs
    return found


def texts(answers: dict[str, dict], name: str) -> list[str]:
    """Return the text of every choice."""
    return [choice["text"] for choice in answers[name]["choices"]]


def shown(records: BeautifulSoup) -> list[str]:
    """Return what a browser shows in each <pre>: it drops one line end right after the tag."""
    return [
        pre.get_text() if isinstance(pre.contents[0], Tag) else pre.get_text().removeprefix("\n")
        for pre in records.find_all("pre")
    ]


def live(record: BeautifulSoup) -> list[str]:
    """Return the elements and attributes of a record that could run, or ask for, anything."""
    elements = record.find_all(
        ["script", "style", "link", "img", "iframe", "object", "embed", "svg", "form", "a", "base", "meta"]
    )
    held = [
        f"{tag.name} {name}"
        for tag in record.find_all()
        for name in tag.attrs
        if name not in ("style", "title", "class")
    ]
    return [str(element) for element in elements] + held + [tag["style"] for tag in record.select("[style*='url']")]


def test_the_file_is_a_valid_notebook(notebook):
    """The file follows nbformat's schema and holds neither an error nor a widget."""
    nbformat.validate(notebook)
    assert [output.output_type for cell in notebook.cells for output in cell.outputs] == ["execute_result"] * len(CELLS)
    assert all(set(output(notebook, name).data) == {"text/plain", "text/html"} for name in CELLS)
    assert "widgets" not in notebook.metadata


def test_running_again_changes_no_byte(folders):
    """Two runs with the same seeds give the same file."""
    assert (folders[0] / "saved.ipynb").read_bytes() == (folders[1] / "saved.ipynb").read_bytes()


@each
def test_the_cells_are_what_they_are_meant_to_be(answers, name):
    """Every text has something to show, and an echoed one begins as its prompt does."""
    assert all(text.strip() for text in texts(answers, name))
    if "--echo" in CELLS[name]:
        assert all(text.startswith(CELLS[name].partition("\n")[2]) for text in texts(answers, name))


@each
def test_the_output_says_where_it_comes_from(notebook, answers, name):
    """The metadata holds the hash of the request's bytes, its parameters, the model and its fingerprint."""
    kept = output(notebook, name).metadata["completions_magic"]
    prompt = ["Once", "Roses"] if name == "prompts" else CELLS[name].partition("\n")[2]
    line = CELLS[name].partition("\n")[0]
    numbers = re.findall(r"-(seed|max-tokens|logprobs|n) (\d+)", line)
    asked = {option.replace("-", "_"): int(value) for option, value in numbers}
    asked |= {"stream": True, **({"echo": True} if "--echo" in line else {})}
    request = Client("local").request(prompt, **asked)
    assert kept == {
        "model": answers[name]["model"],
        "system_fingerprint": answers[name]["system_fingerprint"],
        "parameters": asked,
        "request_sha256": hashlib.sha256(request.encode()).hexdigest(),
    }
    assert kept["system_fingerprint"]


@each
def test_the_plain_text_is_whole(notebook, answers, name):
    """The text/plain output holds the text of every choice, as it came."""
    plain = output(notebook, name).data["text/plain"]
    assert all(text in plain for text in texts(answers, name))


def test_tooltips_hold_percentages(page):
    """Each line of a token's tooltip ends in a percentage as a person writes it."""
    titles = [span["title"] for span in page.select(".jp-RenderedHTML span[title]")]
    odd = [
        line
        for title in titles
        for line in title.split("\n")
        if not re.search(r"  \d+(\.\d+)?(e-\d+)?%$|  no probability$", line)
    ]
    assert titles
    assert odd == []


@each
def test_html_shows_the_whole_text(page, answers, name):
    """In nbconvert's HTML every choice is a <pre> that shows its text to the character."""
    records = page.select(".jp-RenderedHTML")
    assert len(records) == len(CELLS)
    assert shown(records[list(CELLS).index(name)]) == texts(answers, name)


def test_html_holds_nothing_live(page):
    """No script, link, picture or handler of the HTML comes from a record."""
    assert [live(record) for record in page.select(".jp-RenderedHTML")] == [[]] * len(CELLS)


def test_html_shows_no_mathematics(page):
    """No dollar sign or bracket that MathJax would take for a formula stands outside a <pre>."""
    for record in page.select(".jp-RenderedHTML"):
        for pre in record.find_all("pre"):
            pre.extract()
        assert not re.search(r"[$\\]", record.get_text())


def test_markdown_shows_the_whole_text(markdown, answers):
    """Where Markdown is shown with its HTML, every text is there to the character, and nothing in it is live."""
    page = BeautifulSoup(MarkdownIt("commonmark").render(markdown), "html.parser")
    assert shown(page) == [text for name in CELLS for text in texts(answers, name)]
    assert live(page) == []


@each
def test_latex_holds_the_whole_text(latex, answers, name):
    """In nbconvert's LaTeX every text is there, but for the blanks at which it breaks lines, and no command is."""
    read = re.sub(r"\\text(backslash|asciitilde)\{\}|\\([#$%&_{}])|\\(\^)\{\}", unescape, latex)
    assert all("".join(text.split()) in "".join(read.split()) for text in texts(answers, name))
    assert "\\input{/etc" not in latex


def unescape(match: re.Match[str]) -> str:
    """Return the sign that LaTeX shows for an escape."""
    return {"backslash": "\\", "asciitilde": "~"}.get(match[1]) or match[2] or match[3]
