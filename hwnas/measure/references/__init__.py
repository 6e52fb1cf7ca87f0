"""Reference networks: published networks that are timed beside the winner of a search."""
