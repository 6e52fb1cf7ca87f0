"""Reads published latencies.

`convert` makes tables (one module per format), `networks` reads latencies of whole networks.
"""
