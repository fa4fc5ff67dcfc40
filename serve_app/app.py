"""The builder that a config file names: `import_path: serve_app.app:build_app`."""

# Ray validates `args` only if the annotation below is a class: never import annotations from
# __future__ in this file.

from ray.serve import Application

from serve_app import weights
from serve_app.classifier import Classifier
from serve_app.config import Args


def build_app(args: Args) -> Application:
    """The application for the YAML's `args:`.

    Ray calls it before it touches a replica: what is refused here leaves the old version serving, whatever
    `max_surge_percent` says, and the reason in `serve status`. Raises pydantic's ValidationError for an unknown
    key, and WeightsError for weights that are here and cannot be served.
    """
    weights.check(args)
    application: Application = Classifier.bind(args)  # type: ignore[attr-defined] # @serve.deployment adds it
    return application
