"""The functions behind `import hwnas` and the command line: one per verb.

The words of a command joined by `_` are the name of its function (`hwnas table diff` is
`hwnas.table_diff`). Arguments and options of the command are parameters of the function. `--format
json` prints `to_dict()` of the result. `hwnas/__init__.py` lists the names and imports them when
first used.
"""
