"""Links -> whole tars on a disk: `download`, `unpack`, `verify`, and tars read as they arrive.

`links` reads the links file, `transfer/` fetches one file, `download` runs many, and `check` says
whether a file is a whole tar.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.download.links import read_links, select

__all__ = ["read_links", "select"]
