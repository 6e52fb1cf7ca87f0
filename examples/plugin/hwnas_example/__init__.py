"""Variants for hwnas: one module each, named in the entry points of pyproject.toml."""
