"""Whole jobs of users, from file to file, against what they use today (`glama-bench --jobs`)."""
