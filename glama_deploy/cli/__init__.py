"""The commands: each parses, calls and prints; the logic is in the packages they call."""
