"""Profiling: combines tables, builders and devices; independent of run folders."""
