"""Tables and networks from latencies that others published: one file per source."""
