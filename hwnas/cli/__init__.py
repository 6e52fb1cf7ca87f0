"""The command line: one file per verb; stdout is the result, stderr is talk."""
