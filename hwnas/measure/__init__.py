"""Profiling: joins tables, builders and devices; independent of run folders."""
