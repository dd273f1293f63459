"""Text from elsewhere: escapes, excerpts and plain YAML."""
