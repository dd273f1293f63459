"""The machine and its limits: processors, control groups, processes and privacy."""
