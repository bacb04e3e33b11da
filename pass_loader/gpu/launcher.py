"""The thread that queues batches on a GPU when their decoding ends, while the consumer works."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import Any, Protocol

from .. import _C

_LOG = logging.getLogger(__name__)
LOOK_S = 0.05  # how often a wait for decoding looks whether the thread shall end


class Launches(Protocol):
    """What the thread needs of batches.DeviceRenderer."""

    stream: Any

    def launch_decoded(self) -> _C.PendingBatch | None: ...


class Launcher:
    """Calls `launch_decoded` of a renderer whenever something may have been decoded. Knows it weakly, and ends with it.

    It only makes batches come earlier: whoever waits for a batch launches it where this thread has not.
    """

    def __init__(self, renderer: Launches):
        self._renderer = weakref.ref(renderer)
        weakref.finalize(renderer, self.stop).atexit = False  # at exit: _end_all
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._has_news = self._stopped = False
        self._thread = threading.Thread(target=self._run, name="pass-loader-launch", daemon=True)
        self._thread.start()
        _RUNNING.add(self)

    def wake(self) -> None:
        """Tell that something new is decoded, or may be launched now."""
        with self._changed:
            self._has_news = True
            self._changed.notify()

    def stop(self) -> None:
        """Let the thread end soon. A forked process, which has no such thread, does nothing."""
        if os.getpid() == self._process:
            self._stopped = True
            self.wake()

    def join(self) -> None:
        if os.getpid() == self._process and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            renderer = self._renderer()
            if renderer is not None:
                renderer.stream.enter_thread()
            del renderer
        except Exception as error:
            _LOG.warning("batches are queued by `next` alone: %s", error)
            return
        while self._wait_for_news():
            while (pending := self._launch()) is not None:
                while pending.wait(LOOK_S) is None:
                    if self._stopped:
                        return
                del pending

    def _wait_for_news(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._has_news or self._stopped)
            self._has_news = False
        return not self._stopped

    def _launch(self) -> _C.PendingBatch | None:
        """Launch what is decoded. Returns what to wait for, without a reference to the renderer."""
        renderer = None if self._stopped else self._renderer()
        return None if renderer is None else renderer.launch_decoded()


_RUNNING: weakref.WeakSet[Launcher] = weakref.WeakSet()


@atexit.register  # after _C's, and so called before it lets no thread take the GIL any more
def _end_all() -> None:
    launchers = [*_RUNNING]
    for launcher in launchers:
        launcher.stop()
    for launcher in launchers:
        launcher.join()
