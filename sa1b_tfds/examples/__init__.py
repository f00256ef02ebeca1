"""A (jpeg, json) pair -> a checked `Example`, and every form in which one is stored.

`example` says what one is. `annotations` and `jpeg` check a pair, `consistency` compares its
annotations with its masks; `records`, `record_files`, `record_ends` and `array_records` store
examples; `parts` reads them from tars or prepared data; `write_tars` and `own_pairs` write users'
own.
"""

from etils import epy as _epy

with _epy.lazy_api_imports(globals()):
    from sa1b_tfds.examples.example import Example
    from sa1b_tfds.examples.id_set import MissingIds
    from sa1b_tfds.examples.parts import find_parts, read_examples

__all__ = ["Example", "MissingIds", "find_parts", "read_examples"]
