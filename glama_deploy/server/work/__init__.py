"""The work of a server: its engine, the waiting line, and pictures from bytes to bytes."""
