import base64
import json

import pytest

from vit_tf.deploy.service.bodies import read_images
from vit_tf.deploy.service.refusals import Refusal

pytest.importorskip("python_multipart")
MULTIPART = "multipart/form-data; boundary=B"


def part(content, disposition='form-data; name="file"; filename="a.png"', headers=""):
    return b"--B\r\nContent-Disposition: %b\r\n%b\r\n%b\r\n" % (
        disposition.encode(),
        headers.encode(),
        content,
    )


def test_multipart():
    content = bytes(range(256)) * 3 + b"\r\n--A\r\n--"
    name = 'form-data; name="x"; filename="ü.jpg"'
    body = part(content, headers="Content-Type: image/png\r\n") + part(b"", name) + b"--B--\r\n"
    assert read_images(body, MULTIPART, 2) == [("a.png", content), ("ü.jpg", b"")]
    assert read_images(bytearray(body), MULTIPART, 2)[0].data == content


def test_json():
    body = json.dumps({"images": [base64.b64encode(b"abc").decode(), ""]}).encode()
    assert read_images(body, "application/json; charset=utf-8", 2) == [(None, b"abc"), (None, b"")]


LONG = "a" * 5000
REFUSED = {
    "no type": (b"abc", "", 415),
    "an image as body": (b"\x89PNG", "image/png", 415),
    "form": (b"a=b", "application/x-www-form-urlencoded", 415),
    "no boundary": (b"--B--", "multipart/form-data", 400),
    "empty boundary": (b"----", "multipart/form-data; boundary=", 400),
    "long boundary": (b"abc", f"multipart/form-data; boundary={LONG}", 400),
    "empty": (b"", MULTIPART, 400),
    "other boundary": (b"--C\r\n\r\n--C--\r\n", MULTIPART, 400),
    "no files": (b"--B--\r\n", MULTIPART, 400),
    "cut": (part(b"abc"), MULTIPART, 400),
    "field": (part(b"abc", 'form-data; name="url"') + b"--B--\r\n", MULTIPART, 400),
    "no disposition": (b"--B\r\nA: b\r\n\r\nabc\r\n--B--\r\n", MULTIPART, 400),
    "no header": (b"--B\r\n\r\nabc\r\n--B--\r\n", MULTIPART, 400),
    "long header": (part(b"abc", headers=f"A: {LONG}\r\n") + b"--B--\r\n", MULTIPART, 400),
    "many headers": (part(b"abc", headers="A: b\r\n" * 50) + b"--B--\r\n", MULTIPART, 400),
    "many files": (part(b"abc") * 4 + b"--B--\r\n", MULTIPART, 413),
    "not JSON": (b"{", "application/json", 400),
    "not text": (b"\xff\xfe{", "application/json", 400),
    "deep JSON": (b"[" * 100_000, "application/json", 413),
    "many values": (b'{"images": [' + b"{}," * 50 + b"{}]}", "application/json", 413),
    "list": (b'["YWJj"]', "application/json", 400),
    "no images": (b'{"images": []}', "application/json", 400),
    "one text": (b'{"images": "YWJj"}', "application/json", 400),
    "numbers": (b'{"images": [1]}', "application/json", 400),
    "long number": (b'{"images": ' + b"9" * 10_000 + b"}", "application/json", 400),
    "other keys": (b'{"images": ["YWJj"], "url": "x"}', "application/json", 400),
    "URL": (b'{"images": ["http://a/b.png"]}', "application/json", 400),
    "file": (b'{"images": ["file:///etc/passwd"]}', "application/json", 400),
    "not base64": (b'{"images": ["a b!"]}', "application/json", 400),
    "not ASCII": ('{"images": ["ü"]}'.encode(), "application/json", 400),
    "many base64": (b'{"images": ["YWJj", "YWJj", "YWJj", "YWJj"]}', "application/json", 413),
}


@pytest.mark.parametrize("body, kind, status", REFUSED.values(), ids=REFUSED)
def test_refused(body, kind, status):
    with pytest.raises(Refusal) as caught:
        read_images(body, kind, 3)
    assert caught.value.status == status
    assert len(str(caught.value)) <= 300 and str(caught.value).isprintable()
