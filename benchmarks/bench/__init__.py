"""glama-bench: contenders, the machine's limits, results and layer times."""
