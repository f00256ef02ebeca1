"""TensorFlow without the lines that its libraries print about CUDA, oneDNN and themselves.

They are of no use to who runs a command, and stand before what the command says. An error is an
exception in Python as well, so nothing is lost.
"""

from __future__ import annotations

import os
import sys
import tempfile


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
