"""Checkpoint files of every supported format, read by content and without running code from the file."""
