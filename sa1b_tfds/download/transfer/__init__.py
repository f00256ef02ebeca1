"""The parts of a download, from an HTTP request to a run's report: see `download/download.py`."""
