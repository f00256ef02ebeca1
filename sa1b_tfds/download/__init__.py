"""Links -> whole tars on a disk: `download`, `unpack`, `verify`, and tars read as they arrive.

`links` reads the links file, `transfer/` fetches one file, `download` runs many, and `check` says
whether a file is a whole tar.
"""
