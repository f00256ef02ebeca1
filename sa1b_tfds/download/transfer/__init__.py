"""The parts of a download, from one HTTP request up to what a run reports: see `download/download.py`."""
