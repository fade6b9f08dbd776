"""What servers of this API do wrong, and what must come of it by every way in."""
