"""Ctrl-C, SIGTERM and the end of the terminal as a request to stop the training between two batches."""

import os
import signal
import threading
from contextlib import contextmanager

from vit_tf.terminal import tell

HANG_UP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows has none
SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANG_UP)))
SHOW_CURSOR = "\x1b[?25h"


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has saved its state."""


class Interrupts:
    """Counts signals: after the first `requested` is True, a second Ctrl-C or SIGTERM ends the process.

    Python runs its handlers between two of its own instructions, which may be minutes away while a
    training step runs. So a thread listens at the pipe that the system's handler writes to at once.
    """

    def __init__(self):
        self.requested = False

    @contextmanager
    def listening(self):
        """Listens inside, and gives the handlers that were there before back at the end.

        Python hears signals in its main thread alone: elsewhere this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        thread = threading.Thread(target=self.listen, args=(reader,), daemon=True)
        thread.start()
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # by nohup
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
            if self.requested and received[0] == HANG_UP:  # may come twice, from the system and the shell
                continue
            if self.requested:
                # The progress bar has hidden the cursor, and gets no chance to bring it back.
                tell(f"{SHOW_CURSOR}\nleft at once\n")
                os._exit(128 + received[0])
            self.requested = True
            tell("\nstopping after this batch; once more leaves at once\n")
