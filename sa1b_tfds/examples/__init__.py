"""A (jpeg, json) pair -> a checked `Example`, and every form in which one is stored.

`annotations` and `jpeg` check a pair, `records` and `array_records` store an example, `parts` and
`random_access` read examples from tars or prepared data, `write_tars` writes users' own.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.examples.parts import find_parts, read_examples

__all__ = ["find_parts", "read_examples"]
