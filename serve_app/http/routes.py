"""The application: every path of the service, over a `Service`."""

from starlette.applications import Starlette
from starlette.middleware import Middleware

from serve_app.http import classify, docs, errors, infer, models, page
from serve_app.http.access import Access
from serve_app.service import Service


def build_app(service: Service) -> Starlette:
    """The ASGI application of one replica."""
    app = Starlette(
        routes=[
            *classify.routes(service),
            *infer.routes(service),
            *models.routes(service),
            *page.routes(),
            *docs.routes(service),
        ],
        exception_handlers=dict(errors.HANDLERS),
        middleware=[Middleware(Access, service)],
    )
    # Behind TLS a redirect to the path without its last slash would name http, and behind a proxy another host.
    app.router.redirect_slashes = False
    app.router.default = page.with_last_slash(app.router.default)
    return app
