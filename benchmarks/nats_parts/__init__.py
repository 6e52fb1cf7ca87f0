"""Parts of the benchmarks on NATS-Bench topology."""
