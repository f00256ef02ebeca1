"""The commands of `sa1b`, one a file: options, printing, exit code; the work is in functions.

Exit codes: 0 all that was asked for is there; 1 something is not, and it was said what; 2 the
options make no sense; 130 interrupted; 141 nobody reads the output any more.
"""
