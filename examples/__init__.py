"""Bots and clients that a reader can run."""
