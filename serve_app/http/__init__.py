"""The HTTP surface: Starlette routes over a small interface (`Service`), without Ray.

routes.py     the application, all of it
access.py     who may call
door.py       what is refused by its headers, before Ray's own work for it
classify.py   POST /v1/classify
infer.py      the Open Inference Protocol: inference
models.py     ... and what server and model say of themselves
page.py       /, of static/
docs.py       /openapi.json and /docs; openapi/ makes the document
files.py      files served from memory
headers.py    headers that mean the same on every path
body.py       request bodies -> images, with every size bounded while reading; encoding.py: gzip, deflate
errors.py     errors -> answers
"""

from serve_app.http.door import judge
from serve_app.http.routes import build_app

__all__ = ["build_app", "judge"]
