"""Converts operators to untrained model files of one runtime, for timing."""
