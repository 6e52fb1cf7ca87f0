"""Sections of the report that stand in files of their own."""
