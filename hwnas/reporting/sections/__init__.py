"""Sections of the report, each with its data and its template."""
