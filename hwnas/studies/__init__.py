"""Verbs that look at a run, or train beside it."""
