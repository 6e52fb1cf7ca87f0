"""Sections of the report: what each of them shows, and its template."""
