"""An HTTP service that classifies images: `vit-tf serve`, or an ASGI application for a server of yours."""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.deploy.service.app import create_app
    from vit_tf.deploy.service.settings import ServiceSettings

__all__ = ["ServiceSettings", "create_app"]
__getattr__, __dir__ = lazy_exports(__name__)
