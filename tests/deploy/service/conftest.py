import pytest
from support.service import FakePredictor


@pytest.fixture
def predictor():
    return FakePredictor()


@pytest.fixture
def make_client(predictor):
    """A function from a predictor, by default the fake one, and settings to an `httpx.AsyncClient`.

    The requests of the client reach the service without a socket.

    Its attribute `service` is the `Service`.
    """
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("fastapi")
    from vit_tf.deploy.service import ServiceSettings, create_app

    def make(served=predictor, **settings):
        app = create_app(served, ServiceSettings(**{"batch_size": 4, **settings}))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")
        client.service = app.state.service
        clients.append(client)
        return client

    clients = []
    yield make
    for client in clients:
        client.service.close()
