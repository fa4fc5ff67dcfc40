"""The HTTP surface: Starlette routes over a small interface (`Service`), without Ray.

service.py   what the routes need from a replica
body.py      request bodies -> images, with every size bounded while reading
routes.py    the application: paths, answers, errors
"""

from serve_app.http.routes import build_app
from serve_app.http.service import Classification, Service

__all__ = ["Classification", "Service", "build_app"]
