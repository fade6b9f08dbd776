"""The embedded endpoint: a small real language model behind the completions API."""
