"""Keeps what runs as it should be: snapshot, decide, act."""
