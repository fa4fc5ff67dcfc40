"""The OpenAPI document of every HTTP route, made from the models, errors and limits that the code itself uses.

document.py     the document, and its schemas by name
operations.py   a path and a method: what comes in, what goes out
parameters.py   queries, headers, names in paths
responses.py    answers, and which error has which status where
inference.py    schemas of an inference request and its answer, from pydantic's and the model's signature
answers.py      schemas of the other answers
schema.py       what a schema is put together of
"""

from serve_app.http.openapi.document import document

__all__ = ["document"]
