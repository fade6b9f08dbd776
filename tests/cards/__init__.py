"""The capability cards of real servers."""
