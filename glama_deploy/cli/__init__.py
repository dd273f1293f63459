"""The commands. Each one parses its options, calls the library, and prints."""
