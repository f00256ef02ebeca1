"""The parts of a download, from one HTTP request to what a run reports; used by `download.py`."""
