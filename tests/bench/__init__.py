"""Benches: each module measures one promise, side by side in one run. `python -m tests.bench NAME --json`."""
