"""The errors a client may see.

    RequestError
    ├── EmptyBody            400  no bytes came
    ├── BadParameter         400  a query parameter is wrong
    ├── BadMultipart         400  the multipart body is damaged or holds something else than files
    ├── MalformedRequest     400  an inference request is no JSON, or not what the protocol says
    ├── BadTensor            400  a tensor's name, datatype, shape and data do not agree
    ├── BadEncoding          400  the body is not in the content encoding that its header names
    ├── Unauthorized         401  no token, or one that is not known here
    ├── ModelNotFound        404  no model of that name is served
    ├── BodyTooLarge         413  an image, or the whole request, has too many bytes
    ├── TooManyImages        413  more files in one request than allowed
    ├── TooManyPixels        413  the header promises more pixels than allowed; nothing was decoded
    ├── UnsupportedImage     415  the bytes are no image of a kind we read
    ├── UnreadableImage      422  the right kind, but damaged or cut short
    ├── RateLimited          429  more requests than its token may send
    ├── NotReady             503  the model is not warmed up, the replica stops, or a process to decode in was lost
    ├── Overloaded           503  the answer would come after its deadline; refused at the door
    ├── QueueFull            503  as many images wait as may; refused at the door
    ├── DeviceStalled        503  the device hangs; the replica is being replaced
    └── DeadlineExceeded     504  the deadline passed before the image reached the device

A class stands for a condition that a client can act on. Status and code are on the class, the
message is written for the client and holds nothing internal. Whatever else is raised while a
request is answered is a bug: the client gets `INTERNAL_CODE` and a request id, the log the traceback.
"""

from typing import ClassVar

INTERNAL_CODE = "internal_error"


class RequestError(Exception):
    """What went wrong, in words for the client; and, where it helps, after how many seconds to try again.

    Arguments are positional: they must survive pickling.
    """

    status: ClassVar[int]
    code: ClassVar[str]

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class EmptyBody(RequestError):
    status, code = 400, "empty_body"


class BadParameter(RequestError):
    status, code = 400, "bad_parameter"


class BadMultipart(RequestError):
    status, code = 400, "bad_multipart"


class MalformedRequest(RequestError):
    status, code = 400, "malformed_request"


class BadTensor(RequestError):
    status, code = 400, "bad_tensor"


class BadEncoding(RequestError):
    status, code = 400, "bad_encoding"


class Unauthorized(RequestError):
    status, code = 401, "unauthorized"


class ModelNotFound(RequestError):
    status, code = 404, "model_not_found"


class BodyTooLarge(RequestError):
    status, code = 413, "body_too_large"


class TooManyImages(RequestError):
    status, code = 413, "too_many_images"


class TooManyPixels(RequestError):
    status, code = 413, "too_many_pixels"


class UnsupportedImage(RequestError):
    status, code = 415, "unsupported_image"


class UnreadableImage(RequestError):
    status, code = 422, "unreadable_image"


class RateLimited(RequestError):
    status, code = 429, "rate_limited"


class NotReady(RequestError):
    status, code = 503, "not_ready"


class Overloaded(RequestError):
    status, code = 503, "overloaded"


class QueueFull(RequestError):
    status, code = 503, "queue_full"


class DeviceStalled(RequestError):
    status, code = 503, "device_stalled"


class DeadlineExceeded(RequestError):
    status, code = 504, "deadline_exceeded"
