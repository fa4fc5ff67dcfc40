"""The builder that a config file names: `import_path: serve_app.app:build_app`."""

# Ray validates `args` only if the annotation below is a class: never import annotations from
# __future__ in this file.

from ray.serve import Application

from serve_app import tokens, weights
from serve_app.classifier import Classifier
from serve_app.config import Args


def build_app(args: Args) -> Application:
    """The application for the YAML's `args:`.

    Ray calls it before it touches a replica: what is refused here leaves the old version serving, whatever
    `max_surge_percent` says, and the reason in `serve status`. Raises pydantic's ValidationError for an unknown
    key, WeightsError for weights that are here and cannot be served, and ConfigError for tokens likewise.
    """
    application: Application = Classifier.bind(deployable(args))  # type: ignore[attr-defined] # @serve.deployment adds it
    return application


def deployable(args: Args) -> Args:
    """Checked, and with the hash of the weights as they are now, where they are here.

    A replica of the same version may start weeks later: its network is to be that of the others, or it does not
    start. A card beside the file (labels, geometry) is not in the hash; one in a safetensors file is.
    """
    tokens.check(args.tokens_file)
    return args.model_copy(update={"weights_sha256": weights.check(args)})
