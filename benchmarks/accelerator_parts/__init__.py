"""Parts of `benchmarks/accelerators.py`."""
