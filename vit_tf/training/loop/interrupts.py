"""Ctrl-C, SIGTERM and a closed terminal as requests to stop training between two batches."""

import os
import signal
import threading
from contextlib import contextmanager

from vit_tf.terminal import write_stderr

HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows has none
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANG_UP)))
SHOW_CURSOR = "\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """A stop of the run was requested, and its state was saved."""


class Interrupts:
    """Counts signals: the first sets `requested` to True, a second Ctrl-C or SIGTERM ends the process.

    Python runs signal handlers between two of its instructions, and a training step may take minutes. So a
    thread reads from the pipe (the wake-up file descriptor) into which each signal is written at once.
    """

    def __init__(self):
        self.requested = False

    @contextmanager
    def listening(self):
        """A scope that handles signals in this way, and restores the handlers before it.

        Python handles signals in its main thread alone: in other threads the scope does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        thread = threading.Thread(target=self.listen, args=(reader,), daemon=True)
        thread.start()
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # set by nohup
        handlers = {number: signal.signal(number, lambda *_: None) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(writer)  # ends the thread
            thread.join()
            os.close(reader)

    def listen(self, reader):
        while received := os.read(reader, 1):
            if received[0] not in SIGNALS:
                continue
            if self.requested and received[0] == HANG_UP:  # may come twice: from the system and the shell
                continue
            if self.requested:
                # The progress bar has hidden the cursor and cannot show it again.
                write_stderr(f"{SHOW_CURSOR}\nexited\n")
                os._exit(128 + received[0])
            self.requested = True
            write_stderr("\nstopping after this batch; a second signal exits immediately\n")
