"""The version, and the only place where it stands: the build reads it without importing torch."""

__version__ = "0.1.0"
