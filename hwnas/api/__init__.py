"""The functions behind `import hwnas` and behind the command line: one per verb.

A command's words joined by `_` name its function (`hwnas table diff` is `hwnas.table_diff`); its
arguments and options are the function's parameters. What `--format json` prints is `to_dict()` of
what the function returns. `hwnas/__init__.py` lists the names and imports them when they are used.
"""
