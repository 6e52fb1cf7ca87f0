"""Latency tables: from raw samples to rows per operator, and to estimates of networks."""
