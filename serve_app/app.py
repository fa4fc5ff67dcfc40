"""The builder that a config file names: `import_path: serve_app.app:build_app`."""

# Ray validates `args` only if the annotation below is a class: never import annotations from
# __future__ in this file.

from ray.serve import Application

from serve_app.classifier import Classifier
from serve_app.config import Args


def build_app(args: Args) -> Application:
    """The application for the YAML's `args:`. Raises pydantic's ValidationError for an unknown key."""
    application: Application = Classifier.bind(args)  # type: ignore[attr-defined] # @serve.deployment adds it
    return application
