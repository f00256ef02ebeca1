"""TensorFlow without the lines that it prints about CUDA, oneDNN and its graph.

They are of no use to who runs a command, and stand around what the command says. An error is an
exception in Python as well, so nothing is lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

_FUNCTION = re.compile(r"\{\{.*?\}\} ")  # of the graph, before an error's own text
_PYTHON_ERROR = re.compile(r"\w+: (.*?)\nTraceback \(most recent call last\)", re.DOTALL)


def import_tensorflow() -> None:
    """Imports TensorFlow; what is printed meanwhile is shown only if that fails.

    A level set in the environment, TF_CPP_MIN_LOG_LEVEL, stays as it is, and then all is printed.
    """
    if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # for what is printed after the import
    sys.stderr.flush()
    with tempfile.TemporaryFile() as printed:
        kept = os.dup(2)
        os.dup2(printed.fileno(), 2)  # the lines come from C++, before its logging is set up
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            printed.seek(0)
            os.write(kept, printed.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """Raises a RuntimeError of one line in place of TensorFlow's error, which quotes the graph.

    A Python error in a dataset arrives with its traceback as text; only what it says is kept.
    """
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        text = _FUNCTION.sub("", error.message)
        found = _PYTHON_ERROR.match(text)
        raise RuntimeError(found[1] if found else text.partition("\n")[0]) from error
