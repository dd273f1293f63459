"""`make gpu-check`: build, compare and measure engines on this machine's GPU, and write a report to send."""
