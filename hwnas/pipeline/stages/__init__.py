"""The stages of a run: one file each, which never import each other."""
