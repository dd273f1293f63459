"""What is measured against what. `glama-bench` is in bench, subjects, machine and results; the rest are scripts."""
