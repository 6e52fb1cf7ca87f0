"""Latency tables: from raw samples to rows per operator, and to validated forecasts of networks."""
