"""Operators to a model file of one runtime, untrained, for timing."""
