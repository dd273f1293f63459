"""The metrics of the evaluation, and the weight files that some of them need."""
