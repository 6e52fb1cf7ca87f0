"""Ranking quality of a score: rank correlation, bias per choice, and a summary in words."""
