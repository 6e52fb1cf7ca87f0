"""Foundations without torch: errors, registries, config loading, named RNG streams, safe files."""
