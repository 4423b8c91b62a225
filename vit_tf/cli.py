"""What the commands share: how they end."""

import os
import signal
import sys


def run(main):
    """Calls `main()` and exits as a command should.

    Exit codes: 0 done, 2 the user's mistake or a machine's (one line on stderr, no traceback),
    130 interrupted. With VIT_TF_TRACEBACK=1 in the environment errors show where they came from.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends a run as Ctrl-C does
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get("VIT_TF_TRACEBACK") == "1":
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
