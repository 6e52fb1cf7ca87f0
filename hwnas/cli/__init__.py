"""The command line: one file per verb; results go to stdout, messages to stderr."""

import hwnas

if "doctor" not in getattr(hwnas, "__all__", ()):  # replaced, or removed with the other package
    raise SystemExit(
        "error: the package `hwnas` was changed by another package of this name (e.g. slimnet)\n"
        f"  found: {getattr(hwnas, '__file__', None) or 'no __init__.py'}\n"
        "  fix: pip uninstall slimnet, then pip install --force-reinstall --no-deps hwnas"
    )
