"""Foundations without torch: errors, registries, configuration, named RNG streams, safe files."""
