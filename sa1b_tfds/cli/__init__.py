"""The commands of `sa1b`, one per file: options, printing and exit codes. Functions do the work.

Exit codes: 0 if everything asked for is there; 1 if something is missing, which is reported; 2 if
the options make no sense; 130 after Ctrl-C; 141 if nobody reads the output any more.
"""
