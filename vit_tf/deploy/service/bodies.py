"""The images in the body of a request: multipart files, or base64 in JSON."""

import base64
import json
from typing import NamedTuple

from vit_tf.checks import brief, shown
from vit_tf.deploy.service.refusals import Refusal

EXPECTED = 'send multipart/form-data with files, or JSON such as {"images": ["<base64 of a file>"]}'


class SentImage(NamedTuple):
    """The bytes of an image file in a request, and its name there or None."""

    name: str | None
    data: bytes | bytearray


def read_images(body, content_type, most):
    """Returns the images in a body.

    Args:
        body: the bytes of the body.
        content_type: the header of this name, or "".
        most: int, the largest number of images.

    Returns:
        A list of `SentImage`, which has at least one.

    Raises:
        Refusal: the body has another type, is damaged, or has no or too many images.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images = read_multipart(body, content_type, most)
    elif kind == "application/json":
        images = read_json_images(body, most)
    else:
        raise Refusal(415, f"the content type is {shown(kind)}: {EXPECTED}")
    if not images:
        raise Refusal(400, f"the request has no image: {EXPECTED}")
    require_few(len(images), most)
    return images


def require_few(count, most):
    if count > most:
        raise Refusal(413, f"the request has more than {most} images: send several requests")


def read_multipart(body, content_type, most):
    """Returns the files of a multipart/form-data body; other fields are refused."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    parts = Parts(parse_options_header, most)
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise Refusal(400, "the content type multipart/form-data lacks its boundary")
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refusal(400, f"the multipart body is damaged: {brief(error)}") from error
    if not parts.is_complete:
        raise Refusal(400, "the multipart body is damaged: its last boundary is missing")
    return parts.images


class Parts:
    """Collects the files of a multipart body from the events of python_multipart's parser.

    Args:
        parse_options: function from a Content-Disposition to (value, options).
        most: int, the largest number of files.
    """

    def __init__(self, parse_options, most):
        self.parse_options = parse_options
        self.most = most
        self.images = []
        self.is_complete = False

    def callbacks(self):
        names = ("part_begin", "part_data", "header_field", "header_value", "header_end")
        names += ("headers_finished", "end")
        return {f"on_{name}": getattr(self, name) for name in names}

    def part_begin(self):
        require_few(len(self.images) + 1, self.most)
        self.disposition = b""
        self.field, self.value = b"", b""

    def header_field(self, data, start, end):
        self.field += data[start:end]

    def header_value(self, data, start, end):
        self.value += data[start:end]

    def header_end(self):
        if self.field.lower() == b"content-disposition":
            self.disposition = self.value
        self.field, self.value = b"", b""

    def headers_finished(self):
        options = self.parse_options(self.disposition)[1]
        if b"filename" not in options:
            field = options.get(b"name", b"").decode("utf-8", "replace")
            raise Refusal(400, f"the field {shown(field)} is not a file: {EXPECTED}")
        name = options[b"filename"].decode("utf-8", "replace")
        self.images.append(SentImage(name, bytearray()))

    def part_data(self, data, start, end):
        self.images[-1].data.extend(memoryview(data)[start:end])

    def end(self):
        self.is_complete = True


def read_json_images(body, most):
    """Returns the images of a JSON body {"images": [base64, ...]}."""
    # Base64 has none of these characters, so that a body of many tiny values is refused before it is parsed:
    # its objects would take twenty times its bytes.
    if sum(body.count(sign) for sign in (b"[", b"{", b",", b":")) > most + 10:
        raise Refusal(413, f"the JSON body has more than {most} values: {EXPECTED}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {brief(error)}") from error
    texts = content.get("images") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, f'the JSON body is not {{"images": [text, ...]}}: {EXPECTED}')
    return [SentImage(None, decode_base64(text, i)) for i, text in enumerate(texts)]


def decode_base64(text, i):
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        hint = "a URL is not fetched" if ":" in text[:10] else brief(error)
        raise Refusal(400, f"images[{i}] is not base64: {hint}") from error
