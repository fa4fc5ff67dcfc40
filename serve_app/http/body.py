"""Request bodies -> encoded images; every size is checked while reading, nothing touches the disk."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from serve_app.config import Args
from serve_app.errors import BadMultipart, BodyTooLarge, EmptyBody, RequestError, TooManyImages

MAX_PART_HEADER_BYTES = 4096
MAX_NAME_LENGTH = 200
MAX_LENGTH_DIGITS = 18


@dataclass
class Upload:
    """One encoded image as it came. `name` is the client's file name, None for a raw body."""

    name: str | None
    data: bytearray
    too_large: bool = False
    """It passed `max_image_bytes`; what was read of it has been dropped."""


async def read_uploads(request: Request, limits: Args) -> list[Upload]:
    """The images of a request: its whole body, or the files of its multipart form.

    The content type decides only between these two; curl's default of
    application/x-www-form-urlencoded is a raw body like any other.

    Raises EmptyBody, BodyTooLarge, TooManyImages or BadMultipart.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        return [Upload(None, await _read_raw(request, limits.max_image_bytes))]
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadMultipart("the content type has no boundary: let your HTTP client write the header")
    return await _read_multipart(request, boundary, limits)


async def _read_raw(request: Request, max_bytes: int) -> bytearray:
    body = bytearray()
    async for chunk in bounded(request, max_bytes, _too_large("an image", max_bytes)):
        body += chunk
    if not body:
        raise EmptyBody("the body is empty: send an image, e.g. curl --data-binary @photo.jpg")
    return body


async def _read_multipart(request: Request, boundary: bytes, limits: Args) -> list[Upload]:
    collector = _Collector(limits)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        async for chunk in bounded(
            request, limits.max_request_bytes, _too_large("a request", limits.max_request_bytes)
        ):
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise BadMultipart("the multipart body is damaged or does not match its boundary") from None
    if not collector.complete:
        raise BadMultipart("the multipart body ends before its closing boundary")
    if not collector.uploads:
        raise EmptyBody("the form holds no file: send an image, e.g. curl -F file=@photo.jpg")
    return collector.uploads


async def bounded(request: Request, max_bytes: int, too_large: RequestError) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `too_large` by its declared length, or once it has more bytes."""
    declared = request.headers.get("content-length", "")
    # Cut, because Python refuses to convert thousands of digits; what is left is large enough.
    if declared.isdecimal() and int(declared[:MAX_LENGTH_DIGITS]) > max_bytes:
        raise type(too_large)(f"{too_large.message}; this body has {int(declared[:MAX_LENGTH_DIGITS]):,}")
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise too_large
        yield chunk


def _too_large(what: str, max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"{what} may have at most {max_bytes:,} bytes")


@dataclass
class _Collector:
    """Gathers python-multipart's events into uploads.

    A file that is too large fails alone, as an upload without data: its neighbours are answered.
    """

    limits: Args
    uploads: list[Upload] = field(default_factory=list)
    complete: bool = False
    _header_name: bytes = b""
    _header_value: bytes = b""
    _disposition: bytes = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value_part,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._header_name = self._header_value = self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._bound_headers()

    def _header_value_part(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._bound_headers()

    def _bound_headers(self) -> None:
        if len(self._header_name) + len(self._header_value) > MAX_PART_HEADER_BYTES:
            raise BadMultipart(f"a part's header has more than {MAX_PART_HEADER_BYTES} bytes")

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        filename = options.get(b"filename")
        if filename is None:
            raise BadMultipart("a form field is not a file: parameters such as top_k go into the URL's query")
        if len(self.uploads) == self.limits.max_images:
            raise TooManyImages(f"a request may hold at most {self.limits.max_images} images: send several requests")
        self.uploads.append(Upload(_file_name(filename), bytearray()))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        upload = self.uploads[-1]
        upload.too_large |= len(upload.data) + end - start > self.limits.max_image_bytes
        if upload.too_large:
            upload.data = bytearray()
        else:
            upload.data += data[start:end]  # in place: to copy what came before at every chunk is quadratic

    def _end(self) -> None:
        self.complete = True


def _file_name(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")[:MAX_NAME_LENGTH]
