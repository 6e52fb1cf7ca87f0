"""Parts of `benchmarks/quickstart.py`."""
