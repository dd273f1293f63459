"""Stand-ins for other people's software."""
