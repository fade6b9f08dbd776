"""A model that an endpoint does not know: the error names it and what is listed near it, and costs one look."""

import threading
import time
from contextlib import closing

import pytest
from conftest import ScriptedServer, answer, says

from completions_magic import Client, Profile
from completions_magic.errors import NotFoundError
from completions_magic.pace import Pace

KEY = "sk-0123456789+abcdefghij/klmnopqrst="
LISTED = ["base-7b", "base-13b", "other/chat", "zeta"]
UNKNOWN = answer({"error": {"message": "The model `base7b` does not exist", "code": 404}}, status="404 Not Found")


def listed(*names):
    """Return a list of models as an endpoint gives it."""
    return answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


class Models(ScriptedServer):
    """Refuses every completion with `refusal`, and lists models with `listing`."""

    def __init__(self, refusal=UNKNOWN, listing=None):
        self.refusal = refusal
        self.listing = listed(*LISTED) if listing is None else listing
        super().__init__()

    def script(self, heard):
        """Answer by the method."""
        return self.refusal if heard.method == "POST" else self.listing

    @property
    def looks(self):
        """What was asked beside completions."""
        return [heard for heard in self.heard if heard.method != "POST"]

    def asker(self, **settings):
        """Return a client that asks for a model which is not there."""
        return self.client(**{"model": "base7b", **settings})


@pytest.fixture
def models():
    """Give a server that lists models and knows none that is asked."""
    with closing(Models()) as server:
        yield server


def failure(client):
    """Return what asking raises."""
    with pytest.raises(NotFoundError) as caught:
        client.complete("Say")
    return caught.value


def test_the_error_of_an_unknown_model_names_those_that_are_near(models):
    """The whole line: what the endpoint said, the near names, and where all of them are."""
    with models.asker(api_key=KEY) as client:
        error = failure(client)
    assert str(error) == (
        f"{models.base_url} answered 404 Not Found: The model `base7b` does not exist "
        "(did you mean base-7b or base-13b?) (%completions models lists what it has)"
    )
    [look] = models.looks
    assert (look.method, look.path, look.body) == ("GET", "/v1/models", b"")
    assert look.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("asked", "there", "meant"),
    [
        ("llama", ["meta/llama-3", "zeta"], "meta/llama-3"),
        ("llama-3", ["meta-organisation-of-long-name/llama-3"], "meta-organisation-of-long-name/llama-3"),
        (
            "google/llama-3",
            ["meta-organisation/llama-3", "google/gemma-3"],
            "meta-organisation/llama-3 or google/gemma-3",
        ),
        ("llama3", ["llama3:8b-instruct-q4_K_M"], "llama3:8b-instruct-q4_K_M"),
        (
            "llama3",
            ["zeta", "llama3:70b", "llama3:8b", "llama3:1b", "llama3:2b"],
            "llama3:70b or llama3:8b or llama3:1b",
        ),
        ("library/llama3:latest", ["llama3:8b-instruct-q4_K_M"], "llama3:8b-instruct-q4_K_M"),
        ("BASE-7B", ["base-7b"], "base-7b"),
        ("llama-3", ["llama-2", "meta/llama-3"], "meta/llama-3 or llama-2"),
        ("zzz/", ["other/", "a:b"], None),
    ],
)
def test_organisation_tag_and_case_make_no_other_name(models, asked, there, meant):
    """What people leave out of a name, or get wrong around it, does not keep it from being near."""
    models.refusal = answer({"error": "no such model"}, status="404 Not Found")
    models.listing = listed(*there)
    with models.asker(model=asked) as client:
        said = str(failure(client))
    hint = "" if meant is None else f" (did you mean {meant}?)"
    assert f"no such model: {asked!r}{hint} (%completions models" in said


def by_stream(models, cells):
    """Ask as a program that streams."""
    with models.asker() as client, pytest.raises(NotFoundError) as caught:
        list(client.stream("Say"))
    return [caught.value]


def by_magic(models, cells):
    """Ask as a cell."""
    return [cells.run(f"%%complete -m base7b --base-url {models.base_url}\nSay").error_in_exec]


def by_rows(models, cells):
    """Ask as a cell over rows."""
    cells.names["rows"] = ["a", "b", "c"]
    cells.run(f"%%complete -m base7b --base-url {models.base_url} -i rows -o batch\n{{{{ row }}}}")
    return [row.error for row in cells.names["batch"].failures]


def by_batch(models, cells):
    """Ask for many rows at once as a program."""
    with models.asker() as client:
        return [row.error for row in client.complete_many([str(number) for number in range(200)]).failures]


@pytest.mark.parametrize("ask", [by_stream, by_magic, by_rows, by_batch])
def test_every_way_in_names_them_for_one_look(models, cells, ask):
    """Each error says it, and however many rows ask, the endpoint is looked at once."""
    errors = ask(models, cells)
    assert errors
    assert all("(did you mean base-7b or base-13b?)" in str(error) for error in errors)
    assert len(models.looks) == 1


def test_each_unknown_model_is_looked_for_once(models):
    """A second unknown name is another look, the same name again is none."""
    models.refusal = answer({"error": "no such model"}, status="404 Not Found")
    with models.asker() as client:
        first = failure(client)
        client.model = "zeto"
        assert "no such model: 'zeto' (did you mean zeta?)" in str(failure(client))
        client.model = "base7b"
        assert str(failure(client)) == str(first)
    assert len(models.looks) == 2


def test_a_model_that_the_words_leave_out_is_named(models):
    """Which model it was about stands in the line, whether something is near it or not."""
    models.refusal = answer({"detail": "model not found"}, status="404 Not Found")
    with models.asker(model="nothing-like-it") as client:
        said = str(failure(client))
    assert "404 Not Found: model not found: 'nothing-like-it' (%completions" in said
    assert "did you mean" not in said


@pytest.mark.parametrize("words", ["base7b?", "no model 'base7b'.", '{"error": {"message": "base7b: unknown"}}'])
def test_words_that_hold_the_name_do_not_get_it_twice(models, words):
    """A name that stands in the endpoint's words is not repeated."""
    models.refusal = answer(words.encode(), status="404 Not Found", kind="text/plain")
    with models.asker() as client:
        said = str(failure(client))
    assert said.count("base7b") == 1
    assert "did you mean base-7b" in said


@pytest.mark.parametrize("name", ["base-7b", "base-7b/instruct", "base-7b:free", "base-7b.1"])
def test_names_that_the_endpoint_lists_by_itself_are_not_said_twice(models, name):
    """What stands in its words is left out; a longer name that begins the same is another one."""
    message = f"The model `base7b` does not exist; there is: {name}, zeta"
    models.refusal = answer({"error": {"message": message}}, status="404 Not Found")
    models.listing = listed("base-7b", "zeta")
    with models.asker() as client:
        assert ("did you mean base-7b" in str(failure(client))) == (name != "base-7b")


def test_the_embedded_endpoint_says_it_once():
    """It lists its models in its own words already."""
    with Client("local", model="poket") as client:
        said = str(failure(client))
    assert said.count("pocket") == 1
    assert "did you mean" not in said


def test_a_model_that_is_listed_gets_no_near_names(models):
    """What is wrong is something else then, and no other name would help."""
    with models.asker(model="base-7b") as client:
        assert "did you mean" not in str(failure(client))


ROUTES = {
    "FastAPI's": answer({"detail": "Not Found"}, status="404 Not Found"),
    "llama.cpp's": answer({"error": {"code": 404, "message": "File Not Found"}}, status="404 Not Found"),
    "a page": answer(b"<html><title>no model base7b</title></html>", status="404 Not Found", kind="text/html"),
    "Go's": answer(b"404 page not found", status="404 Not Found", kind="text/plain"),
    "nothing": answer(b"", status="404 Not Found"),
    "ours": answer({"error": "there is nothing at '/': POST /v1/completions, GET /v1/models"}, status="404 Not Found"),
}


@pytest.mark.parametrize("refusal", ROUTES.values(), ids=ROUTES)
def test_a_refusal_of_the_route_is_not_looked_into(models, refusal):
    """Where there are no completions there is one request, whatever the model is called."""
    models.refusal = refusal
    with models.asker() as client:
        assert str(failure(client)).count("(") == 1
    assert models.looks == []


@pytest.mark.parametrize("status", ["400 Bad Request", "403 Forbidden", "500 Oops"])
def test_only_a_404_is_looked_into(models, status):
    """Other refusals cost what they cost before."""
    models.refusal = answer({"error": "The model `base7b` does not exist"}, status=status)
    with models.asker(retries=0) as client, pytest.raises(Exception, match="does not exist"):
        client.complete("Say")
    assert models.looks == []


def test_nobody_looks_with_a_cassette(models, tmp_path):
    """A failure reads the same while it is recorded and when it is replayed: neither asks for models."""
    said = []
    for record in ("new_episodes", "all", "none", "new_episodes"):
        with models.asker(cassette=tmp_path / "tape.jsonl", record=record) as client:
            said.append(str(failure(client)))
    assert len(set(said)) == 1
    assert "base7b" in said[0]
    assert models.looks == []


FAILED = {
    "404": UNKNOWN,
    "401": answer({"error": "no"}, status="401 Unauthorized"),
    "429": answer({"error": "no"}, status="429 Slow", headers="Retry-After: 50\r\n"),
    "HTML": answer(b"<html>", kind="text/html"),
    "hung up": says(),
    "cut": says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "nested too deep": answer(b"[" * 100_000),
    "2 MB": listed("base-7b", "x" * 2**21),
    "no names": answer({"data": [{"id": None}, 7]}),
}


@pytest.mark.parametrize("listing", FAILED.values(), ids=FAILED)
def test_a_look_that_fails_says_nothing(models, listing):
    """The refusal is told as it came, once and at once."""
    models.listing = listing
    began = time.monotonic()
    for looks in range(1, 6):
        with models.asker() as client:
            said = [str(failure(client)) for _ in range(3)]
        assert len(set(said)) == 1
        assert said[0].endswith("The model `base7b` does not exist (%completions models lists what it has)")
        assert len(models.looks) == looks
    assert time.monotonic() - began < 9  # where each look went on to its limit it would be ten


def trickle(connection):
    """Send a list of models one blank at a time, until the client goes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
    for _ in range(400):
        connection.sendall(b" ")
        time.sleep(0.05)


@pytest.mark.parametrize("slow", ["silent", "trickling"])
def test_a_look_takes_two_seconds_at_most(models, slow):
    """However the list comes, or does not, the error is there, and the server sees the hang-up."""
    models.listing = says(trickle if slow == "trickling" else models.wait_until_gone)
    with models.asker(timeout=60) as client:
        began = time.monotonic()
        assert "did you mean" not in str(failure(client))
    assert 1.9 < time.monotonic() - began < 10
    assert slow == "trickling" or models.gone.wait(5)


def test_a_look_through_a_proxy_takes_two_seconds_at_most(models, monkeypatch):
    """A proxy's connection has the same limit."""
    models.listing = says(models.wait_until_gone)
    monkeypatch.setenv("HTTP_PROXY", models.origin)
    with Client(base_url="http://models.invalid/v1", model="base7b") as client:
        began = time.monotonic()
        failure(client)
    assert 1.9 < time.monotonic() - began < 10
    assert models.looks[0].path == "http://models.invalid/v1/models"


def test_a_look_can_be_stopped(models):
    """Stop ends it in the middle, without an error."""
    looked = threading.Event()
    models.listing = says(lambda _: looked.set(), models.wait_until_gone)
    began = time.monotonic()
    for _ in range(5):
        with models.asker() as client:
            stream = client.stream("Say")
            reading = threading.Thread(target=list, args=(stream,))
            reading.start()
            assert looked.wait(10)
            stream.stop()
            reading.join(10)
        assert models.gone.wait(10)
        looked.clear()
        models.gone.clear()
    assert time.monotonic() - began < 9  # where each look went on to its limit it would be ten


def test_a_look_follows_no_redirect(models):
    """The key goes to no other origin, whatever the list of models says."""
    with closing(Models()) as other:
        models.listing = answer(b"", status="302 Found", headers=f"Location: {other.base_url}/models\r\n")
        with models.asker(api_key=KEY) as client:
            assert "did you mean" not in str(failure(client))
    assert other.heard == []


def test_a_key_among_the_models_is_masked(models):
    """An endpoint that calls a model as the key shows nothing of it."""
    models.refusal = answer({"error": f"no model {KEY[:9]}"}, status="404 Not Found")
    models.listing = listed(KEY[:14])
    with models.asker(api_key=KEY, model=KEY[:9]) as client:
        error = failure(client)
    assert KEY[:10] not in f"{error} {error!r} {vars(error)}"


def test_a_look_waits_for_no_pace_and_costs_no_budget(models):
    """A batch whose requests are counted and slow has the near names at once."""
    pace = Pace(max_rps=0.05, requests=1)
    began = time.monotonic()
    with models.asker() as client:
        [row] = client.complete_many(["a"], pace=pace)
    assert "did you mean" in str(row.error)
    assert time.monotonic() - began < 10
    assert pace.requests == 1


def test_a_profile_names_itself_and_not_its_models(models):
    """An endpoint whose name holds the word is no reason to look."""
    models.refusal = ROUTES["FastAPI's"]
    with Client(Profile("my model", models.base_url, None, "base7b")) as client:
        failure(client)
    assert models.looks == []
