"""Classify images over HTTP.

    vit-tf serve runs/pets                          # a run, or any weights: predicted by Keras
    vit-tf serve exported/ --port 8080              # a folder of `vit-tf export`: by its own runtime
    curl -F file=@cat.jpg 'http://127.0.0.1:8000/predict?top=3'

POST /predict takes image files as multipart/form-data, or {"images": ["<base64>", ...]} as JSON. GET /health
and GET /metrics (Prometheus) are for monitors. Concurrent requests go through the model in batches. A full
queue answers 503 with Retry-After. SIGTERM and Ctrl-C stop the service after all requests in progress have
been answered: the exit code is then 0.

The service has no encryption and no passwords: put a reverse proxy in front of it before other machines can
reach it.
"""

from vit_tf.checks import check_int, check_number, printable
from vit_tf.commands.options import add_model
from vit_tf.commands.runtime_options import check_runtime, import_runtime
from vit_tf.deploy.extras import require_modules

HELP = "classify images over HTTP"
MODULES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add_arguments(parser):
    def add(name, metavar, default, description):
        value = {} if default is None else {"default": default, "type": type(default)}
        parser.add_argument(name, metavar=metavar, help=description, **value)

    add("source", "SOURCE", None, "a folder of `vit-tf export`, or weights, see `vit-tf --help`")
    add_model(parser)
    add("--host", "ADDRESS", "127.0.0.1", "to listen on (127.0.0.1: this machine only)")
    add("--port", "N", 8000, "to listen on (8000); 0 takes a free one")
    add("--runtime", "R", "auto", "what computes: see `vit-tf predict --help`; default: auto")
    add("--batch-size", "N", 16, "the most images that the model takes at once (16)")
    add("--max-wait-ms", "MS", 5.0, "the most milliseconds that an image waits for others (5)")
    add("--queue", "N", 128, "the most images in the service (128); a request beyond gets status 503")
    add("--max-body", "MIB", 16.0, "the largest request in MiB (16)")
    add("--max-pixels", "MEGAPIXELS", 25.0, "the largest image in megapixels (25)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads that compute, and that decode; default: all cores"
    )


def run(args):
    settings = settings_of(args)
    require_modules(MODULES, "serve", "vit-tf serve")
    runtime = check_runtime(args.runtime, args.source, args.model)
    from vit_tf.deploy.service.server import address_of, bind, run_service

    bound = bind(args.host, args.port)  # an address in use is an error before the model is loaded
    import_runtime(runtime)
    from vit_tf.deploy.predictor import Predictor
    from vit_tf.deploy.service import create_app

    options = {"batch_size": args.batch_size, "threads": settings.threads, "variant": args.model}
    predictor = Predictor(args.source, args.runtime, **options)
    app = create_app(predictor, settings)
    app.state.service.warm_up()
    where = f"{address_of(bound)}, Ctrl-C stops"
    print(f"serving {printable(args.source)} by {predictor.runtime.name} at {where}", flush=True)
    run_service(app, bound)
    return 0


def settings_of(args):
    """Returns the `ServiceSettings` of the arguments; a ValueError names a wrong option."""
    from vit_tf.cores import num_cores
    from vit_tf.deploy.service import ServiceSettings

    check_int("--port", args.port, 0, 65535)
    for name in ("batch_size", "queue"):
        check_int(f"--{name.replace('_', '-')}", getattr(args, name), 1)
    check_int("--threads", args.threads, 1, optional=True)
    check_number("--max-wait-ms", args.max_wait_ms, "[0, 10000]")
    check_number("--max-body", args.max_body, "[0.001, 1024]")
    check_number("--max-pixels", args.max_pixels, "[0.001, 178]")
    return ServiceSettings(
        batch_size=args.batch_size,
        max_wait_ms=args.max_wait_ms,
        queue=args.queue,
        max_body=int(args.max_body * (1 << 20)),
        max_pixels=int(args.max_pixels * 1e6),
        threads=args.threads or num_cores(),
    )
