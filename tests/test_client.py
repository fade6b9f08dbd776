"""The client over a real socket."""

from conftest import DONE, event, stream


def test_a_stream_arrives_chunk_by_chunk_and_its_sum_is_the_answer(server):
    """The sum of the chunks is the completion."""
    server.scripts = [stream([event("Hel"), event("lo"), event(reason="stop"), DONE])]
    with server.client() as client:
        chunks = list(client.stream("Say hello", max_tokens=5))
    assert [chunk.text for chunk in chunks] == ["Hel", "lo", ""]
    assert sum(chunks[1:], chunks[0]).text == "Hello"
    assert server.heard[0].json == {"model": "m", "prompt": "Say hello", "max_tokens": 5, "stream": True}
