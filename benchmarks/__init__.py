"""Honest tables: each row is checked before it is timed, and both contenders run in turn in one process."""
