"""Write a tiny model of the llama family with random weights, as a GGUF file: `random_model.py FILE`."""

import string
import sys

import gguf
import numpy as np

WIDTH, HEADS, LAYERS, HIDDEN, CONTEXT = 64, 4, 2, 128, 512
SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
STORY = ("a", "and", "at", "day", "dog", "in", "it", "moon", "of", "on", "once", "red", "sea", "the", "time", "was")
WORDS = tuple(f"\u2581{word}" for word in STORY)
LETTERS = ("\u2581", *string.ascii_letters, *".,:;!?'-0123456789")
VOCABULARY = (*SPECIAL, *BYTES, *WORDS, *LETTERS)
SPREAD = 0.6


def write(path: str) -> None:
    """Write the model; every run writes the same bytes."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    add_vocabulary(writer)
    for name, tensor in tensors(np.random.default_rng(1)):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter) -> None:
    """Add the tokens: those of bytes stand for what is neither a word nor a letter."""
    kind = gguf.TokenType
    writer.add_tokenizer_model("llama")
    writer.add_token_list(VOCABULARY)
    writer.add_token_scores([-float(at) for at in range(len(VOCABULARY))])
    writer.add_token_types(
        [kind.UNKNOWN, kind.CONTROL, kind.CONTROL]
        + [kind.BYTE] * len(BYTES)
        + [kind.NORMAL] * (len(WORDS) + len(LETTERS))
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def tensors(random: np.random.Generator):
    """Yield the name and the values of every tensor."""
    count = len(VOCABULARY)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, SPREAD, shape).astype(np.float32)

    yield "token_embd.weight", weights(count, WIDTH)
    output = weights(count, WIDTH)
    output[: len(SPECIAL) + len(BYTES)] = 0  # so that it speaks in words and letters
    yield "output.weight", output
    yield "output_norm.weight", np.ones(WIDTH, np.float32)
    for at in range(LAYERS):
        for name, shape in {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (WIDTH, WIDTH),
            "attn_v": (WIDTH, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }.items():
            yield f"blk.{at}.{name}.weight", weights(*shape)
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{at}.{name}.weight", np.ones(WIDTH, np.float32)


if __name__ == "__main__":
    write(sys.argv[1])
