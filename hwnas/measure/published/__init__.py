"""Tables and networks from published latencies: one file per source."""
