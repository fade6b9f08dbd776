"""The embedded language model, and the text that it learns from."""

import json
import math
import os
import subprocess
import sys
from importlib import resources
from random import Random

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from completions_magic.local.app import App
from completions_magic.local.continuation import Settings, draw, infill, score
from completions_magic.local.model import LanguageModel, corpus, pocket
from completions_magic.local.vocabulary import END_OF_TEXT

briefly = settings(max_examples=60, deadline=None, database=None, derandomize=True)
tokens = st.lists(st.integers(0, 4095) | st.integers(300, 400), max_size=20)

FOLDER = resources.files("completions_magic.local") / "corpus"
FILES = sorted(entry.name for entry in FOLDER.iterdir() if entry.name.endswith(".txt"))


def documents(name):
    """Return the documents of one file of the corpus."""
    return (FOLDER / name).read_text("utf-8").rstrip("\n").split("\n%\n")


def listed(found):
    """Return the probability of every token, by id."""
    return [found.probability(token) for token in range(len(found.base.probabilities))]


def after(text):
    """Return the pocket model's distribution after `text`."""
    model = pocket()
    return model.distribution(model.read(model.vocabulary.encode(text)))


def generate(prompt, seed=1, **chosen):
    """Return the steps of one continuation of `prompt`."""
    model = pocket()
    reading = model.read(model.vocabulary.encode(prompt))
    return list(draw(model, reading, Settings(**{"max_tokens": 30, **chosen}), Random(seed)))


def text_of(steps):
    """Return the text of `steps`."""
    return pocket().vocabulary.decode(step.token for step in steps).decode(errors="replace")


@pytest.fixture(scope="module")
def ask():
    """Ask the embedded endpoint, in this process, and give the text back."""
    with httpx.Client(transport=httpx.WSGITransport(App()), base_url="http://app.invalid") as client:

        def ask(prompt, **chosen):
            answer = client.post("/v1/completions", json={"model": "pocket", "prompt": prompt, **chosen}).json()
            return answer["choices"][0]["text"]

        yield ask


# --- The same again


PROGRAM = """
from random import Random
from completions_magic.local.continuation import Settings, draw
from completions_magic.local.model import pocket

model = pocket()
print(model.fingerprint)
for prompt in ("Once upon a time", "Write a tagline for an AI company:"):
    reading = model.read(model.vocabulary.encode(prompt))
    for step in draw(model, reading, Settings(max_tokens=40), Random(5)):
        print(step.token, step.logprob)
"""


def test_another_process_draws_the_same_tokens():
    """The same seed gives the same text with the same log-probabilities, whatever the hash seed of the process."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    (first, errors), (second, _) = (program.communicate() for program in programs)
    assert errors == ""
    assert len(first.splitlines()) > 20
    assert first == second
    assert first.startswith(pocket().fingerprint)


@pytest.mark.parametrize("temperature", [0, 0.7, 1, 2])
def test_the_same_seed_gives_the_same_tokens(temperature):
    """A continuation depends on its prompt, its settings and its seed."""
    one, two = ([step.token for step in generate("Dear customer,", 3, temperature=temperature)] for _ in range(2))
    assert one == two


def test_other_seeds_give_other_texts():
    """Twenty seeds do not all say the same."""
    assert len({text_of(generate("Once upon a time", seed)) for seed in range(20)}) > 10


def test_a_fingerprint_stands_for_text_and_size():
    """It changes with what the model has learned, and only then."""
    learned = [LanguageModel(*given, size=300) for given in ([["a b"]], [["a b"]], [["a c"]])]
    same, again, other = (model.fingerprint for model in learned)
    assert same == again
    assert same != other
    assert same != LanguageModel(["a b"], size=301).fingerprint


# --- Honest probabilities


@briefly
@given(tokens, st.integers(0, 20))
def test_a_probability_depends_on_nothing_but_the_tokens_read(read, cut):
    """Read at once, read in two parts, or read by a copy: the next token has the same probabilities."""
    model = pocket()
    expected = listed(model.distribution(model.read(read)))
    reading = model.read(read[:cut])
    model.distribution(reading)
    twin = reading.copy()
    for token in read[cut:]:
        twin.read(token)
    assert listed(model.distribution(twin)) == expected


@briefly
@given(tokens, tokens)
def test_a_copy_goes_on_by_itself(read, more):
    """What a copy reads does not change the original, neither now nor when it goes on itself."""
    model = pocket()
    reading = model.read(read)
    expected = listed(model.distribution(reading))
    twin = reading.copy()
    for token in more:
        twin.read(token)
    assert reading.tokens == read
    assert listed(model.distribution(reading)) == expected
    for token in more:
        reading.read(token)
    assert listed(model.distribution(reading)) == listed(model.distribution(model.read(read + more)))


def test_reading_teaches_the_model_nothing():
    """A text read by one reader is unknown to the next."""
    expected = listed(after("blip"))
    after("blip blop " * 50)
    assert listed(after("blip")) == expected


@pytest.mark.parametrize(
    "prompt",
    ["Once upon a time", "Write a tagline for an AI company:", "Q: What is the capital of France?\nA: Paris.", ""],
)
@pytest.mark.parametrize("temperature", [0, 0.7, 1.5])
def test_a_log_probability_is_the_models_own(prompt, temperature):
    """It is what the model says after the tokens before it: before temperature, and wherever the text began."""
    model = pocket()
    read = model.vocabulary.encode(prompt)
    for step in generate(prompt, temperature=temperature):
        found = model.distribution(model.read(read))
        assert step.logprob == pytest.approx(found.logprob(step.token), abs=1e-9)
        read.append(step.token)


def test_a_bias_and_a_penalty_do_not_touch_the_log_probability():
    """They change what is drawn, not what the model says about it."""
    model = pocket()
    read = model.vocabulary.encode("Once upon a time there was a")
    steps = generate("Once upon a time there was a", logit_bias={300: 30.0}, presence_penalty=2, frequency_penalty=2)
    assert steps[0].token == 300
    for step in steps:
        assert step.logprob == pytest.approx(model.distribution(model.read(read)).logprob(step.token), abs=1e-9)
        read.append(step.token)


def test_scoring_says_what_reading_says():
    """The score of a text is the probability of each token after those before it; the first has none."""
    model = pocket()
    read = model.vocabulary.encode("The capital of France is Paris.")
    steps = score(model, read)
    assert [step.token for step in steps] == read
    assert steps[0].logprob is None
    for at, step in enumerate(steps[1:], 1):
        assert step.logprob == model.distribution(model.read(read[:at])).logprob(read[at])


def test_a_document_of_the_corpus_is_likelier_than_its_words_in_disorder():
    """The model has learned the order of words."""
    model = pocket()
    for document in corpus()[::150]:
        words = document.split(" ")
        shuffled = Random(1).sample(words, len(words))
        if len(words) > 8:
            real, disorder = (
                sum(step.logprob for step in score(model, model.vocabulary.encode(text))[1:])
                for text in (document, " ".join(shuffled))
            )
            assert real > disorder


def test_a_text_repeats_what_it_has_just_said():
    """A pattern that stands in the prompt alone goes on: few examples are enough."""
    (token,) = pocket().vocabulary.encode(" +")
    assert after("zorp + quax\nzorp + quax\nzorp").probability(token) > 10 * after("zorp").probability(token)


def test_a_text_ends():
    """Most questions are answered, and then the text is over: the end of the text is a token like others."""
    found = after("Q: What is the capital of France?\nA: Paris.")
    assert found.probability(END_OF_TEXT) > 0.3


def test_an_answer_is_never_nothing_at_all():
    """Even where the text is most likely over, the first token is not its end."""
    prompt = "Q: What is the capital of France?\nA: Paris."
    assert all(generate(prompt, seed) for seed in range(30))
    assert generate(prompt, temperature=0)


@briefly
@given(tokens)
def test_the_ngrams_leave_the_rest_to_their_base(read):
    """What the contexts have seen and the weight left to the base together are one."""
    followers, weight = pocket()._ngram.followers(read)
    assert math.fsum(followers.values()) + weight == pytest.approx(1, abs=1e-12)
    assert 0 <= weight <= 1


@briefly
@given(tokens)
def test_the_votes_are_shares(read):
    """The shares of the votes sum to one; without a vote they have no weight."""
    votes, weight = pocket().read(read).votes()
    assert 0 <= weight < 1
    assert math.fsum(votes.values()) == pytest.approx(1 if votes else 0, abs=1e-12)
    assert votes or not weight


@pytest.mark.parametrize("learned", [["a"], ["ab ab ab", "ab"], ["é" * 50], ["", "x"]], ids=repr)
def test_a_tiny_text_makes_a_model_too(learned):
    """Even from one letter the probabilities sum to one, over the whole vocabulary."""
    model = LanguageModel(learned, size=270)
    for text in ("", "a", "ab ab", "zzz", "é"):
        probabilities = listed(model.distribution(model.read(model.vocabulary.encode(text))))
        assert len(probabilities) == len(model.vocabulary)
        assert min(probabilities) > 0
        assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12)


def test_an_infill_ends_where_the_suffix_follows_well():
    """The place to cut is chosen for the suffix: it is likelier there than at the end of a text made without it."""
    model = pocket()
    read = model.vocabulary.encode("Q: What is the capital of France?\nA:")
    suffix = model.vocabulary.encode("\n\nQ: What is the capital of Italy?")
    chosen = Settings(max_tokens=12, suffix=model.vocabulary.decode(suffix).decode())

    def fit(make, seed):
        """Return the log-probability of the suffix after a middle."""
        middle = [step.token for step in make(model, model.read(read), chosen, Random(seed))]
        steps = score(model, [*read, *middle, *suffix])
        return sum(step.logprob for step in steps[-len(suffix) :])

    assert sum(fit(infill, seed) for seed in range(8)) > sum(fit(draw, seed) for seed in range(8))


# --- The text


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_corpus_is_well_formed(name):
    """UTF-8 without a mark, lines that end in LF alone and in no blank, one line end at the end of the file."""
    content = (FOLDER / name).read_bytes()
    text = content.decode("utf-8", errors="strict")
    assert not text.startswith("\ufeff")
    assert not set(text) & set("\r\x00\x0b\x0c\x85\u2028\u2029\ufffd")
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert [line for line in text.split("\n") if line != line.rstrip()] == []


@pytest.mark.parametrize("name", FILES)
def test_documents_are_separated_by_a_percent_sign(name):
    """A line of one % stands between two documents, none is empty, none begins or ends with an empty line."""
    listed = documents(name)
    assert len(listed) > 20
    assert [document for document in listed if document != document.strip("\n") or not document.strip()] == []
    assert [document for document in listed if "%" in document.split("\n")] == []


def test_the_corpus_is_what_the_model_learns():
    """All files, in the order of their names, and at least 200 kB of them."""
    assert corpus() == [document for name in FILES for document in documents(name)]
    assert sum(len(document.encode()) for document in corpus()) > 200_000


def test_the_corpus_says_whose_it_is():
    """The texts are our own and dedicated to the public domain."""
    assert "CC0 1.0" in (FOLDER / "LICENSE").read_text("utf-8")


@pytest.mark.parametrize("document", [one for one in documents("records.txt") if one.startswith("{")])
def test_a_json_document_is_json(document):
    """A document of records that begins as a JSON object is one, whole."""
    assert isinstance(json.loads(document), dict)


def test_an_answer_in_json_is_json():
    """What follows `JSON:` on a line of the records is JSON."""
    lines = [line for one in documents("records.txt") for line in one.split("\n") if line.startswith("JSON: ")]
    assert len(lines) > 5
    for line in lines:
        json.loads(line.removeprefix("JSON: "))


@pytest.mark.parametrize("start", ["def ", "class ", "import ", "from ", '"""', "Write a Python function "])
def test_a_python_document_compiles(start):
    """A document that begins as Python does is Python; so is what follows the wish for a Python function."""
    chosen = [one for one in documents("code.txt") if one.startswith(start)]
    assert chosen
    for document in chosen:
        source = document.partition("\n")[2] if start.startswith("Write") else document
        compile(source, "code.txt", "exec")


# --- First prompts: what a person may type first


COMPANIES = [
    "an AI company",
    "a bakery",
    "a coffee shop",
    "a dentist",
    "an airline",
    "a bank",
    "a law firm",
    "a toy shop",
    "a company that sells umbrellas",
    "a startup that makes quantum submarines",
]
FIRST_PROMPTS = [
    *(f"Write a tagline for {company}:" for company in COMPANIES),
    "Write a tagline for an ice cream shop",
    "Write a slogan for an electric car:",
    "Q: What is the capital of France?\nA:",
    "Q: Why is the sky blue?\nA:",
    "Q: Who wrote Hamlet?\nA:",
    "Q: How many legs does a spider have?\nA:",
    "Question: What is two plus two?\nAnswer:",
    "The capital of Italy is",
    "What is the capital of Spain?",
    "What is 2 + 2?",
    "Once upon a time",
    "Once upon a time there was a dragon who",
    "It was a dark and stormy night",
    "Write a short story about a robot.",
    "Recipe: Tomato soup\n\nIngredients:\n",
    "Recipe: Chocolate cake",
    "How do I make pancakes?",
    "Translate English to French:\n\nsea otter => loutre de mer\npeppermint => menthe poivrée\ncheese =>",
    "English: dog\nGerman:",
    'def add(a, b):\n    """Return the sum of a and b."""\n',
    'def fibonacci(n):\n    """',
    "import math\n\ndef area(radius):",
    "# Sort the list of names",
    "function add(a, b) {",
    "SELECT name FROM users WHERE",
    "<html>",
    "Review: The soup was cold and the waiter was rude.\nSentiment:",
    "Classify the sentiment of this review: The hotel was quiet and clean.",
    "Dear customer,\n\n",
    "Write a thank you letter to my grandmother.",
    "Write a poem about the sea:",
    "Roses are red,",
    "Write a haiku about autumn.",
    "User: Hello! Who are you?\nAssistant:",
    '{"name": "Ada", "age":',
    "name,age\nAda,36\n",
    "Extract the names as JSON: Ada and Ben met in Paris.\nJSON:",
    "A packing list for a week by the sea:\n-",
    "Ten ideas for a birthday party:",
    "Monday, Tuesday, Wednesday,",
    "Correct the spelling: I beleive in teh future.",
    "Explain gravity to a child.",
    "Tell me a joke.",
    "Say hello",
    "Hello",
    "asdf jkl qwertz",
    "日本の首都は",
    "...",
]


def test_there_are_fifty_first_prompts():
    """The table below is as long as it claims to be, and holds no prompt twice."""
    assert len(set(FIRST_PROMPTS)) == len(FIRST_PROMPTS) >= 50


@pytest.mark.parametrize("prompt", FIRST_PROMPTS)
def test_a_first_prompt_has_an_answer(ask, prompt):
    """Whatever a person types first, at temperature 0.7 there is something to see, with each of five seeds."""
    assert all(ask(prompt, max_tokens=50, temperature=0.7, seed=seed).strip() for seed in range(5))


def test_the_seeds_own_prompt_gives_many_taglines(ask):
    """The prompt of the documentation is answered by a line, and by many different ones."""
    prompt = "Write a tagline for an AI company:"
    lines = [ask(prompt, max_tokens=50, temperature=0.7, seed=seed).strip() for seed in range(20)]
    assert all(len(line.split()) >= 3 for line in lines)
    assert len(set(lines)) >= 8


@pytest.mark.parametrize(
    ("prompt", "beginning"),
    [
        ("Q: What is the capital of France?\nA:", " Paris."),
        ("Q: What is the capital of Italy?\nA:", " Rome."),
        ("Q: What is the capital of Japan?\nA:", " Tokyo."),
        ("Q: What is the capital of Norway?\nA:", " Oslo."),
        ("The capital of France is", " Paris"),
        ("What is the capital of Spain?", "\nA: Madrid."),
        ("Q: How many legs does a spider have?\nA:", " Eight"),
        ("Q: What is 2 + 2?\nA:", " 4"),
        ("The opposite of hot is", " cold"),
        ("Monday, Tuesday, Wednesday,", " Thursday, Friday, Saturday"),
        ("1, 2, 3, 4,", " 5, 6, 7, 8"),
        ("Review: The soup was cold and the waiter was rude. Never again.\nSentiment:", " negative"),
        ("Review: I loved every minute of this film.\nSentiment:", " positive"),
        ("Review: The bread was warm and the butter was fresh. I loved it.\nSentiment:", " positive"),
        ("Translate English to French:\n\nsea => la mer\ncheese =>", " le fromage\n"),
        ("Translate English to French:\n\ndog => le chien\ncat =>", " le chat\n"),
        ('def add(a, b):\n    """Return the sum of a and b."""\n', "    return a + b"),
        ('def fibonacci(n):\n    """', 'Return the nth Fibonacci number."""\n'),
        ("Recipe: Tomato soup\n\nIngredients:\n", "- 6 ripe tomatoes\n- 1 onion\n"),
        ("Write a poem about the sea:", "\nThe sea is wide, the sea is deep,\n"),
        ("Once upon a time", " there was a "),
    ],
)
def test_a_known_prompt_has_the_known_answer(ask, prompt, beginning):
    """At temperature 0 what the corpus teaches comes back."""
    assert ask(prompt, max_tokens=24, temperature=0).startswith(beginning)


def test_a_finished_function_compiles(ask):
    """A function that the model knows is completed to code that runs."""
    start = 'def fibonacci(n):\n    """'
    scope = {}
    exec(compile(start + ask(start, max_tokens=80, temperature=0), "answer", "exec"), scope)
    assert [scope["fibonacci"](n) for n in range(8)] == [0, 1, 1, 2, 3, 5, 8, 13]
