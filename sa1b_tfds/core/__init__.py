"""What knows nothing of SA-1B.

Files that appear whole, processes and their pool, problems, what a run prints, optional imports.
"""
