"""What knows nothing of SA-1B.

Files that appear whole, bytes in any storage, processes and their pool, problems, what a run
prints, optional imports.
"""
