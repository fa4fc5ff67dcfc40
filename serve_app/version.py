"""Of this package, as it was installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("serve-app")
except PackageNotFoundError:  # run from a source tree that was not installed
    VERSION = "0+unknown"
