"""The command line: one file per verb. Results go to stdout, messages to stderr."""
