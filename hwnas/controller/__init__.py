"""The controller: the search loop around a searcher. It does not depend on any searcher."""
