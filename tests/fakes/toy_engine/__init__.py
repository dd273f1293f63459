"""An engine that nobody wrote: it shows how much an engine needs (tests/test_catalogue.py)."""
