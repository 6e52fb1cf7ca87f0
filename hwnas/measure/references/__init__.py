"""Reference networks: published networks that are timed together with the winner of a search."""
