"""`python -m serve_app`: the `serve-app` command."""

from serve_app.cli import main

main(prog_name="serve-app")
