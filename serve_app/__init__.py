"""Serve a ResNet on Ray: photos in over HTTP, classes out, batched from live traffic."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("serve-app")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"
