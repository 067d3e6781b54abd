"""Does it pay, on this machine and these shapes? `python -m benchmarks`, then `python -m benchmarks.report`."""
