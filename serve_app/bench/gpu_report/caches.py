"""Empty folders for compiled code: the first to compile finds nothing, all after it find what it made."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@contextmanager
def empty() -> Iterator[None]:
    """What is started meanwhile keeps its compiled code there."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    with TemporaryDirectory(prefix="serve-app-compiled-", ignore_cleanup_errors=True) as folder:
        os.environ.update({name: str(Path(folder, name.lower())) for name in VARIABLES})
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
