"""Verbs that analyse a run, or train further in its folder."""
