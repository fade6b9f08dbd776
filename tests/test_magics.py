"""The magics in a shell of this process, against a scripted server."""

import json
import re
import threading
import traceback

import pytest
from conftest import DONE, HELLO, ScriptedServer, answer, event, eventually, piece, stream, stream_head

from completions_magic import Completion, CompletionsError

KEY = "sk-7Qw9Zr2Lk5Xv8Bn1Mc4Jd6Hf3Gs0Ty"
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\x7f\b"

HOSTILE = {
    "json": '{"a": {"b": [1, {"c": "}}"}]}, "d": "{x}", "e": null}',
    "latex": r"\begin{align} \frac{a}{b} &= \sqrt{{x+1}} \\ $x_{i}$ \end{align} % {{\em so}}",
    "shell": 'for f in *.txt; do echo "${f%%.*}" $HOME $(ls) `pwd` {a,b} | tee >(cat) 2>&1; done',
    "here document": "cat <<EOF\n$x {x} {{x}\nEOF\na << b <<= c",
    "jinja": "{% for x in xs %}{{ x|upper }}{{ x + 1 }}{{ f(x) }}{{ 7*7 }}{% endfor %}{# note #}{{}}{{ }}{{{ x }",
    "c": 'int main(void) { int a[2][2] = {{1, 2}, {3, 4}}; printf("%d\\n", a[0][0]); return 0; }',
    "format": "%s %d %(x)s {0} {x!r:>10} $x ${x} #{x} @x",
    "doctest": ">>> print(1)\n1\n    >>> for x in xs:\n    ...     x\nno >>> here",
    "merge conflict": "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> branch",
    "ipython prompts": "In [1]: x = 1\n   ...: y\nOut[1]: 2\n\nIn [2]: y",
    "quoted mail": "> > a\n>> b\n>>> c\n... d",
    "comment markers": "# NBVAL_IGNORE_OUTPUT\n# coding: latin-1\n#!/bin/sh\nx",
    "cell magic": "%%bash\necho hi\n%%complete -o other\n%time x",
    "shell escapes": "!ls\n!!ls\nfiles = !ls\n%cd /\n/print 1\n,f a b\n;f a b",
    "question": "?",
    "questions": "print?\nprint??\n?print\nWhy?",
    "semicolon": "x = 1;",
    "backslashes": "C:\\new\\table\\ \\u0041 \\x41 \\\\ \\\nnext \\",
    "quotes": "'\"'''\"\"\"`´’“”",
    "indented": "    def f():\n\treturn 1\n  x",
    "trailing blanks": "x   \n\t \ny\t  ",
    "blank lines": "\n\n  x\n\n",
    "html": '<script>alert("&amp;")</script><!-- --> ]]>',
    "markdown": "# x\n\n| a | b |\n|---|---|\n```python\n1\n```\n---\n",
    "yaml": "---\na: &x [*x, !!python/object:os.system {}]\n...",
    "accents": "e\u0301 \u00e9 \ufb01 \uff45 \u212b \u1e9e \u0130",
    "emoji": "👩‍👩‍👧 🏳️‍🌈 👍🏽 \U0001f600",
    "right to left": "שלום عليكم \u202eabc\u202c \u200f(x)\u2067y\u2069",
    "cjk": "日本語、中文。한국어",
    "zero width": "\ufeffa\u200bb\u00adc\u2060d",
    "carriage returns": "a\r\nb\r\n\r\nc\rd",
    "line separators": "a\x0bb\x0cc\x1cd\x85e\u2028f\u2029g",
    "controls": "a\x1b[31mb\x07c\x08d\x7f",
    "long": "word " * 20_000,
}


def controls(text: str) -> str:
    """Return the characters of `text` that drive a terminal, reorder a line or cannot be encoded."""
    return "".join(re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text))


def holds_piece(text: str, key: str = KEY) -> bool:
    """Say whether ten characters in a row of `key` are in `text`."""
    return any(key[start : start + 10] in text for start in range(len(key) - 9))


# What is sent


@pytest.mark.parametrize("prompt", HOSTILE.values(), ids=HOSTILE)
def test_a_prompt_arrives_as_it_was_written(cells, prompt):
    """The request holds the text of the cell to the byte, and beside it only what was asked for."""
    cells.names["x"] = "no"
    assert cells.ask(prompt).success
    assert [heard.json for heard in cells.heard] == [{"model": "m", "prompt": prompt, "stream": True}]
    assert (cells.heard[0].method, cells.heard[0].path) == ("POST", "/v1/completions")


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("--max-tokens 5", {"max_tokens": 5}),
        ("--max_tokens=0", {"max_tokens": 0}),
        ("--temperature 0.5", {"temperature": 0.5}),
        ("--temperature 2", {"temperature": 2}),
        ("--top-p 0.25", {"top_p": 0.25}),
        ("-n 2", {"n": 2}),
        ("--n 128", {"n": 128}),
        ("--stop END", {"stop": "END"}),
        ("--stop a --stop 'b c' --stop \"d\" --stop=e", {"stop": ["a", "b c", "d", "e"]}),
        (r"--stop \n", {"stop": "\n"}),
        (r"--stop '\n\t\\ \u00e9'", {"stop": "\n\t\\ é"}),
        ("--stop $ends", {"stop": ["x", "y"]}),
        ("--stop '$ends'", {"stop": "$ends"}),
        (r'--suffix "\n the end"', {"suffix": "\n the end"}),
        ("--echo", {"echo": True}),
        ("--no-echo", {"echo": False}),
        ("--no-stream", {"stream": False}),
        ("--seed -9223372036854775808", {"seed": -(2**63)}),
        ("--logprobs 0", {"logprobs": 0}),
        ("--presence-penalty -2", {"presence_penalty": -2}),
        ("--frequency-penalty 0.1", {"frequency_penalty": 0.1}),
        ("""--logit-bias '{"50": -100}'""", {"logit_bias": {"50": -100}}),
        ("--logit-bias $bias", {"logit_bias": {"50": 1}}),
        ("--user 'Ada L.'", {"user": "Ada L."}),
        ("""--stream-options '{"include_usage": true}'""", {"stream_options": {"include_usage": True}}),
        ("-p top_k=40", {"top_k": 40}),
        ("-p guided='{\"a\": [1, null]}' -p mode=fast", {"guided": {"a": [1, None]}, "mode": "fast"}),
        ("-p note=a=b", {"note": "a=b"}),
        ("-p seed=7", {"seed": 7}),
        ("-p min_p=null", {"min_p": None}),
        ("--max-tokens $five --temperature $half", {"max_tokens": 5, "temperature": 0.5}),
    ],
)
def test_an_option_sends_itself_and_nothing_else(cells, options, sent):
    """An option is one field of the body; what is not set is not sent."""
    cells.names.update(ends=["x", "y"], bias={50: 1}, five=5, half=0.5)
    assert cells.ask("Hi", options).success
    assert cells.heard[0].json == {"model": "m", "prompt": "Hi", "stream": True, **sent}


def test_best_of_is_not_streamed(cells):
    """The API never streams best_of, so no stream is asked for."""
    cells.server.scripts = [answer({"choices": [{"text": "x", "index": 0, "finish_reason": "stop"}]})]
    assert cells.ask("Hi", "--best-of 3").success
    assert cells.heard[0].json == {"model": "m", "prompt": "Hi", "best_of": 3}


@pytest.mark.parametrize(
    ("value", "prompt"),
    [
        ("$name", "Ada"),
        ("$texts", ["a", "b"]),
        ("$tokens", [1, 2, 3]),
        ("'[[1, 2], [3]]'", [[1, 2], [3]]),
        ("'a {{ name }} b'", "a {{ name }} b"),
        ("''", ""),
    ],
)
def test_a_prompt_on_the_line_is_a_text_a_list_or_token_ids(cells, value, prompt):
    """--prompt takes a value or $name, as it is; the cell's text is then empty."""
    cells.names.update(name="Ada", texts=["a", "b"], tokens=[1, 2, 3])
    assert cells.ask("\n", f"--prompt {value}").success
    assert cells.heard[0].json["prompt"] == prompt


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ("Dear {{ name }},", "Dear Ada,"),
        ("{{name}}{{ row.real }}{{ rows[-1] }}{{ table['a b'] }}{{ table[\"k\"] }}", "Ada3.0z12"),
        ("{{ trap }} {{ name }}", "{{ name }} {{fill}} $name Ada"),
    ],
)
def test_a_path_in_braces_is_replaced_once(cells, body, prompt):
    """A name, an attribute, an index or a key becomes its value, and the value is not looked at again."""
    cells.names.update(name="Ada", row=3.0, rows="xyz", table={"a b": 1, "k": 2}, trap="{{ name }} {{fill}} $name")
    assert cells.ask(body).success
    assert cells.heard[0].json == {"model": "m", "prompt": prompt, "stream": True}


def test_raw_sends_braces_as_they_stand(cells):
    """With --raw nothing in the body is special."""
    cells.names["name"] = "Ada"
    assert cells.ask("{{ name }} {{fill}} {{ nobody }}", "--raw").success
    assert cells.heard[0].json["prompt"] == "{{ name }} {{fill}} {{ nobody }}"


def test_the_text_after_the_hole_is_the_suffix(cells):
    """{{fill}} parts the body into prompt and suffix."""
    assert cells.ask("def f():\n    {{fill}}\n    return x\n").success
    assert cells.heard[0].json == {
        "model": "m",
        "prompt": "def f():\n    ",
        "suffix": "\n    return x\n",
        "stream": True,
    }


def test_code_that_runs_the_magic_sends_its_own_text(cells):
    """A call from code sends the text that it was given, without the newline that IPython appends."""
    cells.server.scripts = [HELLO]
    cells.run(
        f"get_ipython().run_cell_magic('complete', '{cells.where}', '>>> Hi\\n')\n"
        f"get_ipython().run_cell_magic('complete', '{cells.where}', '>>> Hi\\n\\n')"
    ).raise_error()
    assert [heard.json["prompt"] for heard in cells.heard] == [">>> Hi", ">>> Hi\n"]


def test_a_callback_between_cells_sends_its_own_text(cells):
    """A call with the line of the cell before, from a button say, does not send that cell's text again."""
    cells.ask("The first")
    cells.shell.run_cell_magic("complete", f"{cells.where} ", "The second\n")
    assert [heard.json["prompt"] for heard in cells.heard] == ["The first", "The second"]


def test_a_silent_cell_sends_its_own_text(cells):
    """A cell that a front end runs silently does not send the text of the cell before."""
    cells.ask("The first")
    cells.run(f"%%complete {cells.where} \nThe second", silent=True)
    assert [heard.json["prompt"] for heard in cells.heard] == ["The first", "The second"]


def test_a_function_s_own_variables_are_seen_first(cells):
    """Within a function `{{ name }}` and `$name` are what Python would take: its own variables, then the notebook's."""
    cells.run("word, top = 'zoo', 0.5")
    cells.run(
        "def ask(word):\n"
        f"    answer = %complete {cells.where} --top-p $top --suffix $word a {{{{ word }}}}\n"
        "    return answer\n"
        "ask('bakery')"
    ).raise_error()
    assert [cells.heard[-1].json[name] for name in ("prompt", "suffix", "top_p")] == ["a bakery", "bakery", 0.5]


def test_a_dry_run_sends_nothing_and_shows_no_key(cells, monkeypatch, capsys):
    """--dry-run shows the request as it would be sent, with a mask for the key."""
    monkeypatch.setenv("LAB_KEY", KEY)
    result = cells.ask("Say hello", "--dry-run --api-key-env LAB_KEY --max-tokens 5")
    shown = capsys.readouterr().out
    assert cells.heard == []
    assert f"POST {cells.server.base_url}/completions" in shown
    assert '"prompt": "Say hello"' in shown
    assert '"max_tokens": 5' in shown
    assert "Authorization: Bearer" in shown
    assert not holds_piece(shown + repr(result.result) + repr(vars(result.result)))


# What is bound


def test_the_completion_is_bound_and_is_the_result(cells, capsys):
    """-o, _ and Out[n] hold the completion, which is shown once."""
    assert cells.ask("Hi", "-o greeting").success
    shown = capsys.readouterr().out
    greeting = cells.names["greeting"]
    assert isinstance(greeting, Completion)
    assert (greeting.text, greeting.finished) == ("Hello", True)
    assert cells.names["_"] == cells.names["Out"][1] == greeting
    assert shown.count("Hello") == 1


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        ("text", " two\nlines ", " two\nlines "),
        ("texts", "one", ["one"]),
        ("lines", "\n- a\n\n- b\n", ["- a", "- b"]),
        ("json", 'Sure:\n```json\n{"a": [1, true]}\n```', {"a": [1, True]}),
        ("json", " 12", 12),
        ("number", "about 1,234 goats", 1234),
        ("number", "-0.5e1 degrees", -5.0),
    ],
)
def test_another_form_is_bound_instead(cells, form, text, value):
    """--as binds the answer in another form, of the type that it spells."""
    cells.server.scripts = [stream([event(text, reason="stop"), DONE])]
    assert cells.ask("Hi", f"-o it --as {form}").success
    assert cells.names["it"] == value
    assert type(cells.names["it"]) is type(value)


def test_a_frame_has_a_row_a_choice(cells):
    """--as frame binds a DataFrame of all choices."""
    cells.server.scripts = [stream([event("a", reason="stop"), event("b", index=1, reason="length"), DONE])]
    assert cells.ask("Hi", "-n 2 -o it --as frame").success
    assert cells.names["it"]["text"].to_dict() == {0: "a", 1: "b"}
    assert cells.names["it"]["finish_reason"].to_dict() == {0: "stop", 1: "length"}


def test_the_completion_itself_is_bound_as_such(cells):
    """--as completion is what -o does by itself."""
    assert cells.ask("Hi", "-o it --as completion").success
    assert cells.names["it"].text == "Hello"


def test_each_named_group_is_bound(cells):
    """--extract binds what each named group of the first match holds, beside -o."""
    cells.server.scripts = [stream([event("On 1999-12-31 and 2000-01-01", reason="stop"), DONE])]
    assert cells.ask("Hi", r'-o it --extract "(?P<year>\d{4})-(?P<month>\d\d)"').success
    assert (cells.names["year"], cells.names["month"]) == ("1999", "12")
    assert cells.names["it"].text.startswith("On")


@pytest.mark.parametrize("options", ["--as json", "--as number", r"--extract '(?P<year>\d{4})'"])
def test_an_answer_that_does_not_convert_is_bound_as_it_is(cells, options, capsys):
    """The cell fails with one line, and the completion is bound all the same."""
    cells.server.scripts = [stream([event("no such thing", reason="stop"), DONE])]
    result = cells.ask("Hi", f"-o it {options}")
    assert isinstance(result.error_in_exec, CompletionsError)
    assert cells.names["it"].text == cells.names["_"].text == "no such thing"
    assert "year" not in cells.names
    assert "no such thing" in capsys.readouterr().out


def test_a_line_returns_its_value(cells):
    """%complete is an expression: it returns the answer in the form asked for, and sends its line verbatim."""
    line = f'{cells.where} --as text Say "hello" -o it\'s -- {{x}} $x #1'
    cells.run(f"value = %complete {line}\nlength = len(value)").raise_error()
    assert (cells.names["value"], cells.names["length"]) == ("Hello", 5)
    assert cells.heard[0].json["prompt"] == 'Say "hello" -o it\'s -- {x} $x #1'


def test_a_line_alone_is_the_cells_result(cells):
    """%complete at the end of a cell is shown as any expression is."""
    result = cells.run(f"%complete {cells.where} -- --not-an-option")
    assert result.result.text == cells.names["_"].text == "Hello"
    assert cells.heard[0].json["prompt"] == "--not-an-option"


def test_a_line_in_a_loop_shows_nothing(cells, capsys):
    """%complete in a loop is an expression like another: only what the loop prints is shown."""
    cells.run(f"for name in 'ab':\n    got = %complete {cells.where} Hi {{{{ name }}}}").raise_error()
    assert capsys.readouterr().out == ""
    assert [heard.json["prompt"] for heard in cells.heard] == ["Hi a", "Hi b"]


def test_quiet_shows_nothing_and_binds(cells, capsys):
    """With --quiet the answer is in the variable, _ and Out[n], and nowhere on screen."""
    assert cells.ask("Hi", "-q -o it").success
    assert capsys.readouterr().out == ""
    assert cells.names["it"].text == cells.names["_"].text == cells.names["Out"][1].text == "Hello"


def test_a_semicolon_at_the_prompts_end_hides_nothing(cells, capsys):
    """Text that ends in a semicolon is no Python statement: its answer is shown and kept."""
    cells.ask("int x = 1;")
    assert "Hello" in capsys.readouterr().out
    assert cells.names["_"].text == "Hello"


# In the background


def test_a_background_answer_is_bound_when_it_has_ended(cells):
    """--bg returns while the server still thinks; wait returns the answer, which is bound by then."""
    go = threading.Event()

    def think(connection):
        go.wait(10)
        connection.sendall(HELLO)

    cells.server.scripts = [think]
    background = cells.ask("Hi", "--bg -o it").result
    assert not background.done
    assert "it" not in cells.names
    with pytest.raises(TimeoutError):
        background.wait(0.01)
    go.set()
    assert background.wait(10).text == cells.names["it"].text == "Hello"
    assert background.done


def _a_word_and_then_silence(server):
    def script(connection):
        connection.sendall(stream_head() + piece(event("Hel")))
        server.wait_until_gone(connection)

    return script


def test_a_stopped_background_answer_is_bound_as_such(cells):
    """Stop ends the answer and the connection; what had come is bound and returned with finish_reason stopped."""
    cells.server.scripts = [_a_word_and_then_silence(cells.server)]
    background = cells.ask("Hi", "--bg -o it").result
    assert eventually(lambda: background._stream.partial.text)
    background.stop()
    waited = background.wait(5)
    assert cells.server.gone.wait(10)
    assert (cells.names["it"].text, cells.names["it"].choices[0].finish_reason) == ("Hel", "stopped")
    assert waited == cells.names["it"]


def test_stopping_before_anything_came_keeps_a_good_variable(cells):
    """A background answer that is stopped with no text yet leaves the variable as it was."""
    cells.server.scripts = [cells.server.wait_until_gone]
    cells.names["it"] = "good"
    background = cells.ask("Hi", "--bg -o it").result
    assert eventually(lambda: cells.heard)
    background.stop()
    background.wait(5)
    assert cells.names["it"] == "good"


def test_a_background_failure_is_raised_by_wait(cells):
    """An error in the background is kept for wait; what had come is bound."""
    cells.server.scripts = [stream([event("Hel"), b'data: {"error": {"message": "worker died"}}\n\n'])]
    background = cells.ask("Hi", "--bg -o it").result
    with pytest.raises(CompletionsError, match="worker died"):
        background.wait(5)
    assert (cells.names["it"].text, cells.names["it"].choices[0].finish_reason) == ("Hel", "error")


# What goes wrong on this side


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--max-token 5", ["--max-token", "--max-tokens"]),
        ("--temprature 1", ["--temprature", "--temperature"]),
        ("temperature 1", ["temperature", "--temperature"]),
        ("--zzz", ["--zzz"]),
        ("Hello", ["Hello", "below"]),
        ("--temperature 2.1", ["--temperature", "0 to 2", "2.1"]),
        ("--temperature warm", ["--temperature", "0 to 2", "warm"]),
        ("--temperature NaN", ["--temperature", "0 to 2"]),
        ("--temperature true", ["--temperature", "0 to 2"]),
        ("--top-p 1.5", ["--top-p", "0 to 1", "1.5"]),
        ("-n 0", ["--n", "1 to 128"]),
        ("--max-tokens -1", ["--max-tokens", "at least 0", "-1"]),
        ("--max-tokens 1.5", ["--max-tokens", "integer", "1.5"]),
        ("--presence-penalty 3", ["--presence-penalty", "-2 to 2", "3"]),
        ("--best-of 21", ["--best-of", "0 to 20", "21"]),
        ("--seed 9223372036854775808", ["--seed", "64-bit"]),
        ("""--logit-bias '{"50": 101}'""", ["--logit-bias", "-100 to 100"]),
        ("--stop a --stop b --stop c --stop d --stop e", ["--stop", "one to four"]),
        ("-p temperature=9", ["temperature", "0 to 2", "9"]),
        ("--timeout 0", ["--timeout", "0"]),
        ("--retries -1", ["--retries", "-1"]),
        ("--max-tokens 5 --max-tokens 6", ["--max-tokens", "twice"]),
        ("--max-tokens 5 --max_tokens=5", ["--max-tokens", "twice"]),
        ("--echo --no-echo", ["echo", "twice"]),
        ("--temperature 1 -p temperature=0", ["temperature", "twice"]),
        ("-p temperature=0 --temperature 1", ["temperature", "twice"]),
        ("-p a=1 -p a=2", ["a", "twice"]),
        ("-m a", ["--model", "twice"]),
        ("--stop 'a b", ["'a b", "not closed"]),
        ("--max-tokens", ["--max-tokens", "value"]),
        ("--user --echo", ["--user", "value"]),
        ("--echo=yes", ["--echo", "no value"]),
        ("-p novalue", ["-p", "KEY=VALUE", "novalue"]),
        ("--as xml", ["--as", "json", "xml"]),
        ("--as jsn", ["--as", "did you mean json"]),
        ("--view widgt", ["widgt", "did you mean widget"]),
        ("--user $nobody", ["--user", "nobody"]),
        ("--user $nmae", ["nmae", "name"]),
        ("--profile 3xcodr", ["3xcodr", "3xcoder"]),
        ("--api-key sk-123", ["--api-key-env"]),
        ("--suffix x --prompt y", ["--prompt", "two prompts"]),
    ],
)
def test_an_option_that_is_not_right_is_said_in_one_line(cells, capsys, options, words):
    """What is wrong with the line is said with the flag and what it takes; nothing is sent or bound."""
    cells.names["name"] = "Ada"
    result = cells.ask("Hi", f"-o it {options}")
    _is_one_clear_line(result, capsys, words)
    assert cells.heard == []
    assert "it" not in cells.names


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("Dear {{ nmae }}", ["nmae", "did you mean name", "--raw"]),
        ("Dear {{ nobody }}", ["nobody", "--raw"]),
        ("{{ name.uper }}", ["uper", "did you mean upper"]),
        ("{{ table['kez'] }}", ["kez", "did you mean key"]),
        ("{{ name[9] }}", ["name[9]"]),
        ("{{ _private }}", ["_private", "underscore"]),
        ("{{ name.__class__ }}", ["__class__", "underscore"]),
        ("{{fill}} and {{fill}}", ["{{fill}}", "2"]),
        ("  \n ", ["empty"]),
    ],
)
def test_a_prompt_that_is_not_right_is_said_in_one_line(cells, capsys, body, words):
    """What is wrong with the text is said with the nearest names; nothing is sent or bound."""
    cells.names.update(name="Ada", table={"key": 1}, _private=1)
    result = cells.ask(body, "-o it")
    _is_one_clear_line(result, capsys, words)
    assert cells.heard == []
    assert "it" not in cells.names


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-o 1x", ["-o", "1x"]),
        ("-o class", ["-o", "class"]),
        ("-o 'a b'", ["-o", "a b"]),
        ("-o a.b", ["-o", "a.b"]),
        ("-o __name__", ["-o", "__name__"]),
        ("-o print", ["-o", "print", "hide"]),
        ("-o json", ["-o", "module json"]),
        ("--extract '(?P<print>x)'", ["--extract", "print"]),
        ("--extract '(?P<__x>x)'", ["--extract", "__x"]),
        ("--extract '(x)'", ["--extract", "named group"]),
        ("--extract '(?P<x>'", ["--extract"]),
    ],
)
def test_a_name_that_cannot_be_bound_is_said_in_one_line(cells, capsys, options, words):
    """No keyword, dunder, builtin or module is bound; nothing is sent."""
    cells.names["json"] = json
    result = cells.ask("Hi", options)
    _is_one_clear_line(result, capsys, words)
    assert cells.heard == []
    assert cells.names["json"] is json


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--profile vllm", ["vllm", "model", "--model"]),
        ("--profile 3xcoder", ["3xcoder", "OPENAI_API_KEY"]),
        ("--base-url http://127.0.0.1:1/v1 -m m --api-key-env LAB_KEY", ["LAB_KEY"]),
        ("--base-url 127.0.0.1:8000/v1 -m m", ["base URL", "http://127.0.0.1:8000/v1"]),
        ("--base-url http://me:secret@127.0.0.1/v1 -m m", ["password"]),
    ],
)
def test_an_endpoint_that_is_not_usable_is_said_in_one_line(cells, capsys, options, words):
    """A missing model or key is said with what names it, and nothing is bound."""
    result = cells.run(f"%%complete -o it {options}\nHi")
    message = _is_one_clear_line(result, capsys, words)
    assert "secret" not in message
    assert "it" not in cells.names


def test_a_model_that_there_is_not_is_said_with_those_that_there_are(cells, capsys):
    """The embedded endpoint refuses an unknown model with the list of its own."""
    _is_one_clear_line(cells.run("%%complete -m no-such-model\nHi"), capsys, ["404", "no-such-model", "pocket"])


def test_an_endpoint_that_cannot_be_reached_is_said_with_its_address(cells, capsys, tmp_path, closed_port):
    """Where nobody listens, the one line holds the address, and the name where it has one."""
    address = f"http://127.0.0.1:{closed_port}/v1"
    (tmp_path / "completions.toml").write_text(f'[profiles.lab]\nbase_url = "{address}"\nmodel = "m"\n')
    result = cells.run(f"%%complete -m m --retries 0 --base-url {address}\nHi")
    _is_one_clear_line(result, capsys, [address, "reached"])
    result = cells.run("%%complete --retries 0 --profile lab\nHi")
    _is_one_clear_line(result, capsys, ["lab", address, "reached"])


def _is_one_clear_line(result, capsys, words):
    """Assert that the cell failed with one line of type and message that holds all `words`; return it."""
    error = result.error_in_exec
    assert isinstance(error, CompletionsError)
    assert capsys.readouterr().out == f"{type(error).__name__}: {error}\n"
    assert len(str(error).splitlines()) == 1
    assert len(str(error).encode()) <= 2000
    assert [word for word in words if word not in str(error)] == []
    return str(error)


# What goes wrong on the server's side

REFUSALS = {
    "401": (
        answer({"error": {"message": "no such key"}}, status="401 Unauthorized"),
        ["401", "no such key", "LAB_KEY"],
    ),
    "404": (answer({"error": {"message": "no model 'm'"}}, status="404 Not Found"), ["404", "no model 'm'", "models"]),
    "422": (answer({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}, status="422 X"), ["422", "n: too big"]),
    "429": (answer({"error": "slow down"}, status="429 Too Many Requests"), ["429", "slow down"]),
    "500 with a page": (
        answer(b"<html><title>Oh\nno</title></html>", status="500 X", kind="text/html"),
        ["500", "HTML", "Oh no"],
    ),
    "503 in lines": (answer(b"line 1\nline 2\r\n", status="503 X", kind="text/plain"), ["503", "line 1 line 2"]),
    "a redirect": (answer(b"", status="301 X", headers="Location: /elsewhere\r\n"), ["redirects", "/elsewhere"]),
    "a page": (answer(b"<!doctype html><p>Welcome", kind="text/html"), ["HTML", "/v1"]),
    "no JSON": (answer(b"Welcome\nto my server"), ["not JSON"]),
    "other JSON": (answer({"hello": "world"}), ["without choices"]),
    "a list": (answer(b"[1]"), ["no completion"]),
    "no choice": (answer({"choices": []}), ["without any choice"]),
    "nothing": (answer(b""), ["empty answer"]),
    "an empty stream": (stream([]), ["empty answer"]),
    "only its end": (stream([DONE]), ["without any choice"]),
    "an error alone": (stream([b'data: {"error": {"message": "worker\\ndied"}}\n\n']), ["error", "worker died"]),
    "a closed connection": (lambda connection: connection.close(), ["without an answer"]),
}


@pytest.mark.parametrize(("script", "words"), REFUSALS.values(), ids=REFUSALS)
def test_an_answer_that_is_none_is_said_in_one_line(cells, monkeypatch, capsys, script, words):
    """Whatever a server sends instead of a completion fails the cell with one line, and a good variable stays."""
    monkeypatch.setenv("LAB_KEY", KEY)
    cells.names["it"] = "good"
    cells.server.scripts = [script]
    result = cells.ask("Hi", "-o it --retries 0 --api-key-env LAB_KEY")
    _is_one_clear_line(result, capsys, [cells.server.base_url, *words])
    assert cells.names["it"] == "good"


FAILURES = {
    "an error in the stream": (
        stream([event("Hel"), b'data: {"error": {"message": "worker died"}}\n\n']),
        "worker died",
    ),
    "a page in the stream": (stream([event("Hel"), b"data: <html>\n\n"]), "not JSON"),
    "a stream without an end": (stream([event("Hel")]), "cut"),
    "a cut stream": (stream_head() + piece(event("Hel")), "cut"),
    "a cut body": (answer(event("Hel")).replace(b"Content-Length: ", b"Content-Length: 9"), "cut"),
}


@pytest.mark.parametrize(("script", "word"), FAILURES.values(), ids=FAILURES)
def test_a_failure_binds_and_shows_what_had_arrived(cells, capsys, script, word):
    """Text that came before the failure is shown and bound as incomplete; then the cell fails, after one request."""
    cells.names["it"] = "good"

    def send(connection):
        connection.sendall(script)

    cells.server.scripts = [send]
    error = cells.ask("Hi", "-o it").error_in_exec
    shown = capsys.readouterr().out
    assert isinstance(error, CompletionsError)
    assert word in str(error)
    for partial in (error.partial, cells.names["it"], cells.names["_"]):
        assert (partial.text, partial.choices[0].finish_reason, partial.finished) == ("Hel", "error", False)
    assert shown.startswith("Hel\n")
    assert "incomplete" in shown
    assert shown.endswith(f"\n{type(error).__name__}: {error}\n")
    assert len(cells.heard) == 1


def test_a_failure_keeps_the_text_of_every_choice(cells):
    """A partial answer counts as one when any of its choices holds text."""
    cells.server.scripts = [stream([event("", index=0), event("Hel", index=1)])]
    cells.names["it"] = "good"
    assert cells.ask("Hi", "-n 2 -o it").error_in_exec is not None
    assert cells.names["it"].texts == ["", "Hel"]


def test_a_failure_with_no_text_is_bound_to_a_new_name(cells):
    """A name that held nothing yet holds the empty answer, marked as incomplete."""
    cells.server.scripts = [stream([event("")])]
    assert cells.ask("Hi", "-o it").error_in_exec is not None
    assert (cells.names["it"].text, cells.names["it"].finished) == ("", False)


def test_quiet_shows_nothing_of_a_failure_but_its_line(cells, capsys):
    """With --quiet the partial answer is bound, and the error alone is shown."""
    cells.server.scripts = [stream([event("Hel")])]
    error = cells.ask("Hi", "-q -o it").error_in_exec
    assert capsys.readouterr().out == f"{type(error).__name__}: {error}\n"
    assert cells.names["it"].text == cells.names["_"].text == "Hel"


def test_an_empty_answer_is_no_silent_success(cells, capsys):
    """An answer that is complete and holds no text is bound to no name that holds a value without a word about it."""
    cells.server.scripts = [stream([event("", reason="stop"), DONE])]
    result = cells.run(f"it = %complete {cells.where} --as text Hi")
    captured = capsys.readouterr()
    assert result.error_in_exec is not None or "empty" in captured.out + captured.err


@pytest.mark.parametrize("script", [REFUSALS["404"][0], stream([event("Hel")])], ids=["refused", "cut"])
def test_an_error_is_shown_without_failing_the_cell(cells, capsys, script):
    """With --no-raise-error an error is one line on stderr and the cell succeeds."""
    cells.server.scripts = [script]
    assert cells.ask("Hi", "--no-raise-error -o it").success
    assert re.fullmatch(r"\w+Error: .+\n", capsys.readouterr().err)
    assert not cells.names["it"].finished


@pytest.mark.parametrize("options", ["--api-key-env NO_SUCH_KEY", "--profile nobody"])
def test_an_endpoint_that_is_not_usable_can_be_shown_without_failing_the_cell(cells, capsys, options):
    """With --no-raise-error a missing key or profile is one line on stderr and the cell succeeds, too."""
    cell = f"%%complete {cells.where} --no-raise-error {options}\nHi"
    assert cells.run(cell).success
    assert re.fullmatch(r"\w+Error: .+\n", capsys.readouterr().err)
    assert cells.heard == []


def test_a_line_that_does_not_raise_returns_what_had_arrived(cells):
    """%complete --no-raise-error returns the partial answer."""
    cells.server.scripts = [stream([event("Hel")])]
    cells.run(f"it = %complete {cells.where} --no-raise-error Hi").raise_error()
    assert (cells.names["it"].text, cells.names["it"].finished) == ("Hel", False)


@pytest.mark.parametrize(
    ("script", "options"), [(stream([event("Hel")]), ""), (HELLO, "--as json")], ids=["cut", "no JSON"]
)
def test_what_a_line_returns_of_a_failure_is_shown_once(cells, capsys, script, options):
    """By IPython, which shows what a line returns; bound to a name it is not shown, as that of a line that went well."""
    cells.server.scripts = [script]
    line = f"%complete {cells.where} --no-raise-error {options} Hi"
    cells.run(line).raise_error()
    assert capsys.readouterr().out.count("Hel") == 1
    cells.run(f"it = {line}").raise_error()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Error: " in shown.err
    assert cells.names["it"].text.startswith("Hel")


def test_a_request_is_sent_again_only_before_anything_arrived(cells, capsys):
    """A failing server is asked three times in all, and each time is said."""
    cells.server.scripts = [answer(b"", status="503 X"), answer(b"", status="503 X"), HELLO]
    assert cells.ask("Hi").success
    assert re.search("503.+1 of 2.+\n.+503.+2 of 2.+\n", capsys.readouterr().out)
    assert len({heard.body for heard in cells.heard}) == 1
    assert len(cells.heard) == 3


# What a server may not do


@pytest.mark.parametrize(
    "script",
    [
        stream([event(ESCAPES, reason="stop", model=ESCAPES), DONE]),
        stream([event(ESCAPES, reason=ESCAPES), DONE]),
        stream([event(ESCAPES), b"data: " + json.dumps({"error": {"message": ESCAPES}}).encode() + b"\n\n"]),
        answer({"error": {"message": ESCAPES}}, status="400 X"),
        answer(ESCAPES.encode(), status="500 X", kind="text/plain"),
        answer(b"<title>" + ESCAPES.encode() + b"</title>", status="502 X", kind="text/html"),
        answer({"hello": ESCAPES}),
        answer(ESCAPES.encode()),
    ],
    ids=[
        "text and model",
        "finish_reason",
        "error in the stream",
        "error",
        "error as text",
        "error as a page",
        "other JSON",
        "no JSON",
    ],
)
@pytest.mark.parametrize("options", ["-n 2", "--no-raise-error", "--as json"])
def test_nothing_from_a_server_drives_the_terminal(cells, capsys, script, options):
    """Escape sequences and marks that reorder a line are signs in whatever is shown."""
    cells.server.scripts = [script]
    cells.ask("Hi", f"--retries 0 {options}")
    captured = capsys.readouterr()
    assert controls(captured.out + captured.err) == ""
    assert "owned" in captured.out + captured.err


def test_half_a_character_becomes_a_sign_and_split_pairs_are_joined(cells, capsys):
    """Lone surrogates become U+FFFD; a pair that a server splits over two chunks is one character."""
    halves = [b'data: {"choices": [{"index": 0, "text": "\\ud83d"}]}\n\n']
    halves += [b'data: {"choices": [{"index": 0, "text": "\\ude00 \\ud800!", "finish_reason": "stop"}]}\n\n']
    cells.server.scripts = [stream([*halves, DONE])]
    assert cells.ask("Hi", "-o it").success
    assert cells.names["it"].text == "\U0001f600 \ufffd!"
    assert "\U0001f600 \ufffd!" in capsys.readouterr().out


@pytest.mark.parametrize(
    "body",
    [b'{"error": {"message": "no \\ud800 model"}}', b'{"error": "\\udfff", "detail": "no"}'],
    ids=["low", "high"],
)
def test_half_a_character_in_an_error_can_be_encoded(cells, body):
    """What a server says of an error can be written as UTF-8 whatever it holds."""
    cells.server.scripts = [answer(body, status="400 X")]
    assert str(cells.ask("Hi").error_in_exec).encode()


def test_an_answer_is_never_a_template_or_a_cell(cells, capsys):
    """Braces, dollars and magics in an answer stay text, also when the answer goes into the next prompt."""
    text = "{{ name }} {{7*7}} {name} $name !echo hi\n%env\n<script>"
    cells.server.scripts = [stream([event(text, reason="stop"), DONE])]
    cells.names["name"] = "no"
    assert cells.ask("Hi", "-o it").success
    assert text in capsys.readouterr().out
    assert cells.ask("{{ it }}").success
    assert cells.heard[1].json["prompt"] == text


def test_a_dry_run_shows_an_answer_in_the_prompt_as_signs(cells, capsys):
    """Text from a model stays inert when a prompt that holds it is shown."""
    cells.server.scripts = [stream([event(ESCAPES, reason="stop"), DONE])]
    cells.ask("Hi", "-q -o it")
    cells.ask("{{ it.text }}", "--dry-run")
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert controls(shown) == ""


# Keys

ECHOES = {
    "in the text": lambda key: stream([event(f"key {key}", reason="stop"), DONE]),
    "in two pieces of the text": lambda key: stream([event(f"key {key[:17]}"), event(key[17:], reason="stop"), DONE]),
    "in many pieces of the text": lambda key: stream([*(event(part) for part in re.findall(".{1,3}", key)), DONE]),
    "in the text, escaped": lambda key: stream(
        [b'data: {"choices": [{"index": 0, "text": "%s", "finish_reason": "stop"}]}\n\n' % _escaped(key), DONE]
    ),
    "in the model's name": lambda key: stream([event("Hi", reason="stop", model=key), DONE]),
    "in another field": lambda key: stream([event("Hi", reason="stop", note=key), DONE]),
    "in an error": lambda key: answer({"error": {"message": f"wrong key {key}"}}, status="401 Unauthorized"),
    "in half an error": lambda key: answer({"error": {"message": f"wrong key {key[:20]}…"}}, status="401 Unauthorized"),
    "in a page": lambda key: answer(f"<title>{key}</title>".encode(), status="403 X", kind="text/html"),
    "in a reason": lambda key: answer(b"", status=f"401 wrong {key}"),
    "in an error in the stream": lambda key: stream([event("Hi"), f'data: {{"error": "{key}"}}\n\n'.encode()]),
    "in a redirect": lambda key: answer(b"", status="307 X", headers=f"Location: http://127.0.0.2/?key={key}\r\n"),
    "in no JSON": lambda key: answer(f"your key is {key}".encode()),
    "in a broken status line": lambda key: lambda connection: connection.sendall(f"HTTP/9 {key}\r\n\r\n".encode()),
    "in a broken header": lambda key: (
        lambda connection: connection.sendall(f"HTTP/1.1 200 OK\r\n{key}\r\n\r\n".encode())
    ),
    "in a broken stream": lambda key: (
        lambda connection: connection.sendall(stream_head() + piece(event("Hi")) + f"{key}\r\n".encode())
    ),
}


def _escaped(key: str) -> bytes:
    return "".join(f"\\u{ord(sign):04x}" for sign in key).encode()


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_key_that_the_server_echoes_is_shown_nowhere(cells, monkeypatch, capfd, caplog, echo):
    """No piece of an echoed key is on screen, in a variable, in an error and what caused it, or in a debug log."""
    monkeypatch.setenv("LAB_KEY", KEY)
    cells.server.scripts = [echo(KEY)]
    cells.shell.run_line_magic("xmode", "Verbose")
    with caplog.at_level("DEBUG"):
        result = cells.ask("Hi", "-o it --retries 0 --api-key-env LAB_KEY")
    captured = capfd.readouterr()
    assert cells.heard[0].headers["authorization"] == f"Bearer {KEY}"
    found = {
        "screen": captured.out + captured.err,
        "variable": repr(cells.names.get("it")) + str(getattr(cells.names.get("it"), "to_dict", str)()),
        "error": "".join(traceback.format_exception(result.error_in_exec)) if result.error_in_exec else "",
        "log": caplog.text,
    }
    assert [place for place, text in found.items() if holds_piece(text)] == []


def test_a_prompt_that_holds_the_key_is_not_sent(cells, monkeypatch, capsys):
    """The active key in a prompt stays here."""
    monkeypatch.setenv("LAB_KEY", KEY)
    cells.names["key"] = KEY
    result = cells.ask("My key is {{ key }}", "--api-key-env LAB_KEY")
    message = _is_one_clear_line(result, capsys, ["key", "nothing was sent"])
    assert cells.heard == []
    assert not holds_piece(message)


@pytest.mark.parametrize("value", [f"{KEY} x", f"{KEY}\n{KEY}", f"“{KEY}”", f'"{KEY}"', f"{KEY}é"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(cells, monkeypatch, capsys, value):
    """A key with blanks, line ends or smart quotes is refused in a line without it."""
    monkeypatch.setenv("LAB_KEY", value)
    message = _is_one_clear_line(cells.ask("Hi", "--api-key-env LAB_KEY"), capsys, ["LAB_KEY"])
    assert cells.heard == []
    assert not holds_piece(message)


def test_a_key_in_place_of_its_variable_is_refused_unseen(cells, capsys):
    """A key given where its variable's name belongs is not repeated."""
    message = _is_one_clear_line(cells.ask("Hi", f"--api-key-env {KEY}"), capsys, ["--api-key-env"])
    assert cells.heard == []
    assert not holds_piece(message)


# %completions


def test_last_is_the_last_completion(cells, capsys):
    """%completions last says when there is none, and then shows the last, also of a quiet cell."""
    assert cells.run("%completions last").result is None
    assert "no completion" in capsys.readouterr().out
    cells.ask("Hi", "-q")
    result = cells.run("%completions last")
    assert result.result.text == cells.names["_"].text == "Hello"
    assert "Hello" in capsys.readouterr().out


def test_a_failed_answer_is_the_last_completion(cells):
    """%completions last also shows what had arrived of an answer that failed."""
    cells.server.scripts = [stream([event("Hel")])]
    cells.ask("Hi")
    assert cells.run("%completions last").result.text == "Hel"


def test_profiles_lists_names_addresses_and_variables(cells, capsys, monkeypatch):
    """%completions profiles shows every profile with its address and its key's variable, and which one is used."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    cells.run("%config CompletionsMagics.profile = 'openai'\n%completions profiles").raise_error()
    shown = capsys.readouterr().out
    for profile in ("local", "3xcoder", "openai", "llama.cpp", "vllm", "ollama", "lmstudio"):
        assert profile in shown
    assert "https://api.3xcoder.com/v1" in shown
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("*")] == ["openai"]
    assert "OPENAI_API_KEY" in shown
    assert not holds_piece(shown)


def test_profiles_beside_the_notebook_are_listed(cells, capsys, tmp_path):
    """%completions profiles lists what completions.toml names, and says where it is from."""
    (tmp_path / "completions.toml").write_text('[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"\n')
    cells.run("%completions profiles").raise_error()
    line = next(line for line in capsys.readouterr().out.splitlines() if " lab " in line)
    assert "http://127.0.0.1:9/v1" in line
    assert "completions.toml" in line


def test_profiles_lists_those_that_can_be_read_and_says_which_file_cannot(cells, capsys, tmp_path):
    """One line for it, with its name and the place in it; the endpoint in use may be one that it names."""
    broken = '[profiles.lab]\nbase_url = "http://127.0.0.1:9/v1"\n[profiles.typo\n'
    (tmp_path / "completions.toml").write_text(broken)
    for setting, used in (("", ["local"]), ("lab", [])):
        cells.run(f"%config CompletionsMagics.profile = '{setting}'\n%completions profiles").raise_error()
        shown = capsys.readouterr()
        listed = [line.split() for line in shown.out.splitlines()]
        assert [words[1] for words in listed if words[0] == "*"] == used
        assert "vllm" in [word for words in listed for word in words]
        said = "completions.toml: Expected ']' at the end of a table declaration (at line 3, column 15)"
        assert shown.err.splitlines() == [said]


def test_the_embedded_endpoint_needs_no_file_of_profiles(cells, tmp_path):
    """A damaged one is nobody's business there."""
    (tmp_path / "completions.toml").write_text("[profiles")
    cells.run("%completions models local").raise_error()


def test_models_lists_what_the_endpoint_offers(cells, capsys):
    """%completions models asks the endpoint in use, and shows a model's name as inert text on one line."""
    cells.server.scripts = [answer({"data": [{"id": "base-7b"}, {"id": "b\n\x1b[2Jc"}]})]
    cells.run(f"%config CompletionsMagics.base_url = '{cells.server.base_url}'").raise_error()
    cells.run("%completions models").raise_error()
    first, second = capsys.readouterr().out.splitlines()
    assert first == "base-7b"
    assert controls(second) == ""
    assert (cells.heard[0].method, cells.heard[0].path) == ("GET", "/v1/models")


def test_models_of_an_address_are_listed(cells, capsys):
    """As the error of a line without a model says."""
    cells.server.scripts = [answer({"data": [{"id": "base-7b"}]})]
    url = cells.server.base_url
    said = str(cells.run(f"%%complete --base-url {url}\nHi").error_in_exec)
    command = said[said.index("%completions") :].removesuffix(" lists them")
    cells.run(command).raise_error()
    assert capsys.readouterr().out.splitlines()[-1] == "base-7b"
    assert len(cells.heard) == 1


def test_models_of_a_named_endpoint_are_listed(cells, capsys, tmp_path):
    """%completions models NAME asks that endpoint, whichever is in use."""
    cells.server.scripts = [answer({"data": [{"id": "base-7b"}]})]
    (tmp_path / "completions.toml").write_text(f'[profiles.lab]\nbase_url = "{cells.server.base_url}"\n')
    cells.run("%completions models lab").raise_error()
    cells.run("%completions models local").raise_error()
    assert capsys.readouterr().out.splitlines() == ["base-7b", "pocket"]
    assert [heard.path for heard in cells.heard] == ["/v1/models"]


def test_models_show_no_key_that_the_server_echoes(cells, capsys, monkeypatch):
    """A list of models that holds the key is shown without it."""
    monkeypatch.setenv("LAB_KEY", KEY)
    cells.server.scripts = [answer({"data": [{"id": f"model-of-{KEY}"}]})]
    cells.run(
        f"%config CompletionsMagics.base_url = '{cells.server.base_url}'\n%config CompletionsMagics.api_key_env = 'LAB_KEY'"
    ).raise_error()
    cells.run("%completions models").raise_error()
    assert cells.heard[0].headers["authorization"] == f"Bearer {KEY}"
    shown = capsys.readouterr().out
    assert "model-of-" in shown
    assert not holds_piece(shown)


def test_a_file_beside_the_notebook_gets_a_key_only_after_consent(cells, capsys, monkeypatch, tmp_path):
    """completions.toml names a key in vain until %completions trust, and another address needs consent again."""
    monkeypatch.setenv("LAB_KEY", KEY)
    cells.server.scripts = [HELLO]
    table = '[profiles.lab]\nbase_url = "{}"\nmodel = "m"\napi_key_env = "LAB_KEY"\n'
    beside = tmp_path / "completions.toml"
    beside.write_text(table.format(cells.server.base_url))
    _is_one_clear_line(
        cells.run("%%complete --profile lab\nHi"), capsys, ["%completions trust lab", cells.server.origin]
    )
    assert cells.heard == []
    assert cells.run("%completions trust lab").success
    assert "LAB_KEY" in capsys.readouterr().out
    assert cells.run("%%complete --profile lab\nHi").success
    assert cells.heard[0].headers["authorization"] == f"Bearer {KEY}"
    other = ScriptedServer([HELLO])
    beside.write_text(table.format(other.base_url))
    assert not cells.run("%%complete --profile lab\nHi").success
    assert other.heard == []
    other.close()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("profile", ["profile", "did you mean profiles"]),
        ("generate", ["generate", "models"]),
        ("trust", ["trust", "name"]),
        ("last one", ["last"]),
        ("models nobody", ["nobody"]),
        ("trust vllm", ["vllm", "no key"]),
    ],
)
def test_a_command_that_is_not_right_is_said_in_one_line(cells, capsys, line, words):
    """What is wrong with a %completions line is one line, with the commands that there are."""
    _is_one_clear_line(cells.run(f"%completions {line}"), capsys, words)


@pytest.mark.parametrize("cell", ["%%complete --help\nHi", "%complete --help", "%complete?", "%%complete?"])
def test_help_shows_the_table_of_options(cells, capsys, cell):
    """--help and ? show every option with its range, and ask nobody."""
    assert cells.run(cell).success
    shown = capsys.readouterr().out
    for words in ("--max-tokens", "--temperature", "0 to 2", "--extract", "--no-raise-error"):
        assert words in shown
