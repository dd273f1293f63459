"""Scripts that measure quality."""
