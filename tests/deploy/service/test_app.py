import asyncio
import base64
import re

import pytest
from hypothesis import given
from support.damage import BUDGET, BYTE_EDITS, damaged_bytes
from support.service import LABELS, finish, image_bytes, noise_bytes, until

from vit_tf.deploy.predictor import Predictor
from vit_tf.deploy.service import ServiceSettings

RED = ("a.png", image_bytes("red"))


def post(client, *files, **options):
    """Posts files, each (name, bytes)."""
    return client.post("/predict", files=[("file", file) for file in files], **options)


def test_predict(make_client):
    async def main():
        client = make_client()
        blue = ("b.jpg", image_bytes("blue", format="JPEG"))
        response = await post(client, RED, blue)
        assert response.status_code == 200
        first, second = response.json()["results"]
        assert (first["image"], second["image"]) == ("a.png", "b.jpg")
        assert [each["label"] for each in first["predictions"]] == list(LABELS)  # red first
        assert first["predictions"][0]["logit"] == 1 and second["predictions"][0]["label"] == "blue"
        texts = [base64.b64encode(data).decode() for _, data in (RED, blue)]
        other = (await client.post("/predict?top=1", json={"images": texts})).json()["results"]
        assert [result["image"] for result in other] == [None, None]
        assert [result["predictions"] for result in other] == [
            first["predictions"][:1],
            second["predictions"][:1],
        ]

    finish(main())


@pytest.mark.parametrize("kind", ["normalized", "uint8"])
def test_the_predictions_are_those_of_the_predictor(tmp_path, make_client, kind):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from support.exported import write_folder

    predictor = Predictor(write_folder(tmp_path / "out", input_kind=kind), "onnxruntime", threads=1)

    async def main():
        client = make_client(predictor)
        files = [(f"{size}.png", noise_bytes(*size)) for size in [(9, 7), (40, 30), (5, 50)]]
        results = (await post(client, *files, params={"top": 2})).json()["results"]
        expected = predictor.predict([data for _, data in files], top=2)
        for result, predictions in zip(results, expected, strict=True):
            answers = [(each["label"], each["probability"]) for each in result["predictions"]]
            assert answers == [(label, pytest.approx(p, abs=1e-6)) for label, p in predictions]
        client.service.warm_up()
        health = (await client.get("/health")).json()
        assert health["model"] == {"model": "linear", "precision": "float32", "runtime": "onnxruntime"}

    finish(main())


def test_concurrent_requests_share_batches(make_client, predictor):
    async def main():
        client = make_client(max_wait_ms=1000)
        predictor.gate.clear()
        tasks = [asyncio.ensure_future(post(client, RED)) for _ in range(9)]
        await until(lambda: client.service.num_submitted == 9)
        predictor.gate.set()
        return {response.status_code for response in await asyncio.gather(*tasks)}

    assert finish(main()) == {200}
    assert sum(predictor.batches) == 9 and len(predictor.batches) <= 4 and max(predictor.batches) == 4


def test_a_full_queue_refuses(make_client, predictor):
    async def main():
        client = make_client(queue=4)
        predictor.gate.clear()
        tasks = [asyncio.ensure_future(post(client, RED)) for _ in range(3)]
        await until(lambda: client.service.images.taken == 3)
        two = await post(client, RED, RED)
        tasks.append(asyncio.ensure_future(post(client, RED)))
        await until(lambda: client.service.images.taken == 4)
        one = await post(client, RED)
        for refused in (one, two):
            assert refused.status_code == 503 and refused.headers["retry-after"] == "1"
            assert "busy" in refused.json()["detail"]
        health = await client.get("/health")
        assert health.status_code == 200  # monitors are answered
        predictor.gate.set()
        assert {task.status_code for task in await asyncio.gather(*tasks)} == {200}
        assert (client.service.images.taken, client.service.held.taken) == (0, 0)
        assert (await post(client, RED)).status_code == 200

    finish(main())


def test_the_bytes_of_all_bodies_are_limited(make_client, predictor):
    async def main():
        client = make_client(max_body=4000, queue=64)
        file = ("a.png", noise_bytes(34, 34))
        assert 3500 < len(file[1]) < 3800
        predictor.gate.clear()
        tasks = [asyncio.ensure_future(post(client, file)) for _ in range(8)]
        await until(lambda: client.service.num_submitted == 8)
        assert (await post(client, file, file)).status_code == 413
        busy = await post(client, file)
        predictor.gate.set()
        assert {task.status_code for task in await asyncio.gather(*tasks)} == {200}
        return busy.status_code

    assert finish(main()) == 503


def test_bodies_are_limited(make_client):
    async def chunks(count):
        for _ in range(count):
            yield bytes(1000)

    async def main():
        client = make_client(max_body=4000)
        response = await client.post("/predict", content=bytes(4001))
        assert response.status_code == 413 and "connection" not in response.headers
        response = await client.post("/predict", content=chunks(5))  # without Content-Length
        assert response.status_code == 413 and response.headers["connection"] == "close"
        response = await client.post("/predict", content=b"", headers={"content-length": "9" * 17})
        assert response.status_code == 413 and response.headers["connection"] == "close"

    finish(main())


def test_a_slow_body_is_refused(make_client):
    async def slow():
        yield b"--B"
        await asyncio.sleep(10)

    async def main():
        response = await make_client(body_seconds=0.05).post("/predict", content=slow())
        assert response.status_code == 408 and "0.05 s" in response.json()["detail"]

    finish(main())


def test_images_are_limited(make_client):
    async def main():
        client = make_client(max_pixels=10_000, queue=4)
        response = await post(client, RED, ("b.png", image_bytes(size=(101, 100))))
        assert response.status_code == 413
        assert "image 1 ('b.png') has 101x100 pixels: expected at most 10,000" in response.json()["detail"]
        for data in (b"", b"<html>", RED[1][:-30], b"%PDF"):
            response = await post(client, ("x\r\n\x1b[31m.png", data))
            assert response.status_code == 422
            assert (
                response.json()["detail"].startswith("image 0 (") and response.json()["detail"].isprintable()
            )
        assert (await post(client, *[RED] * 5)).status_code == 413

    finish(main())


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "9" * 5000, ""])
def test_top_is_checked(make_client, top):
    async def main():
        response = await post(make_client(), RED, params={"top": top})
        assert response.status_code == 422 and response.json()["detail"].startswith("top: ")
        assert len(response.text) < 400

    finish(main())


def test_other_requests(make_client):
    async def main():
        client = make_client()
        for path, status in {"/predict": 405, "/": 404, "/docs": 404, "/openapi.json": 200}.items():
            assert (await client.get(path)).status_code == status

    finish(main())


def test_an_error_of_the_model(make_client, predictor, caplog):
    async def main():
        client = make_client()
        predictor.error = RuntimeError("secret")
        response = await post(client, RED)
        assert response.status_code == 500 and "secret" not in response.text
        predictor.error = None
        assert (await post(client, RED)).status_code == 200

    finish(main())
    assert "secret" in caplog.text


def test_outputs_that_are_not_finite(make_client, monkeypatch, caplog):
    def fail(*_):
        raise ValueError("the outputs must be finite")

    async def main():
        client = make_client()
        monkeypatch.setattr(client.service, "decode", fail)
        response = await post(client, RED)
        assert response.status_code == 500 and "the model failed" in response.json()["detail"]
        assert b'vit_tf_requests_total{path="/predict",status="500"} 1.0' in client.service.metrics.text()

    finish(main())
    assert "the outputs must be finite" in caplog.text


def test_metrics_and_health(make_client):
    async def main():
        client = make_client()
        await post(client, RED, RED)
        await post(client, ("a", b"a"))
        await client.get("/a/b")
        text = (await client.get("/metrics")).text
        for line in (
            'vit_tf_requests_total{path="/predict",status="200"} 1.0',
            'vit_tf_requests_total{path="/predict",status="422"} 1.0',
            'vit_tf_requests_total{path="other",status="404"} 1.0',
            "vit_tf_images_total 2.0",
            "vit_tf_images_in_progress 0.0",
            "vit_tf_request_seconds_count 1.0",
            "vit_tf_batch_images_sum 2.0",
            'vit_tf_model_info{model="fake",precision="float32",runtime="none"} 1.0',
        ):
            assert re.search(f"^{re.escape(line)}$", text, re.M), line
        assert (await client.get("/health")).json() == {
            "status": "ok",
            "model": {"model": "fake", "precision": "float32", "runtime": "none"},
        }
        client.service.is_stopping = True
        response = await client.get("/health")
        assert response.status_code == 503 and response.headers["connection"] == "close"
        assert (await post(client, RED)).status_code == 200

    finish(main())


def test_warm_up(make_client, predictor):
    make_client().service.warm_up()
    assert predictor.batches == [1, 4]


def test_damaged_requests(make_client):
    """Whatever the bytes are, the answer is predictions or a refusal of one line."""
    client = make_client(max_pixels=10_000)
    request = client.build_request("POST", "/predict", files=[("file", RED), ("file", RED)])
    body = request.read()

    @BUDGET
    @given(BYTE_EDITS)
    def check(edits):
        data = damaged_bytes(body, edits)
        response = loop.run_until_complete(
            client.post("/predict", content=data, headers={"content-type": request.headers["content-type"]})
        )
        assert response.status_code in (200, 400, 413, 422)
        if response.status_code != 200:
            assert len(response.json()["detail"]) <= 300

    loop = asyncio.new_event_loop()
    check()
    loop.close()
    assert (client.service.images.taken, client.service.held.taken) == (0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"max_wait_ms": -1},
        {"queue": 3, "batch_size": 4},
        {"max_body": 0},
        {"max_pixels": 0},
        {"body_seconds": 0},
        {"threads": 0},
    ],
    ids=str,
)
def test_settings_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ServiceSettings(**options)
