"""searchers: see ARCHITECTURE.md."""
