"""The version: read by the build, and told to servers."""

__version__ = "0.1.0"
