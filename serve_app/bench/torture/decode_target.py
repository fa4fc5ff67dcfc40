"""What atheris calls, as a program: `python -m serve_app.bench.torture.decode_target CORPUS [libFuzzer's options]`.

Pillow's Python and ours are instrumented as they are imported. Pillow's C code is not: bytes reach it by mutations
that are guided by what Python makes of them.
"""

import importlib
import sys

import atheris  # of the extra `torture`

with atheris.instrument_imports(include=["PIL", "serve_app"]):
    from serve_app.bench.torture.decode_fuzz import check, decoder
    from serve_app.decode_worker import PLUGINS

    for plugin in PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")


def main() -> None:
    decode = decoder()
    atheris.Setup(sys.argv, lambda data: check(decode, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
