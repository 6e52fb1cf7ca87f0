"""Parts of benchmarks/latency_transfer.py."""
