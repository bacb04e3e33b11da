"""Private memory of this process: anonymous (RssAnon), which the kernel cannot take back."""

from __future__ import annotations

import re
import threading
from pathlib import Path

_LOOKED_S = 0.02  # between two looks


def private_bytes() -> int:
    """Return how much there is now."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Peak:
    """The most that there was while it was entered: `most`, in bytes."""

    def __enter__(self) -> Peak:
        self.most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_LOOKED_S):
            self.most = max(self.most, private_bytes())
