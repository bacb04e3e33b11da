"""Shows the progress of long work."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm


class ProgressBar:
    """Shows bytes done: a bar on a terminal, a line every ten seconds elsewhere. Called from several threads."""

    def __init__(self, total: int, verb: str):
        self.total, self.verb, self.done = total, verb, 0
        self.began = self.told = time.monotonic()
        terminal = sys.stderr.isatty()
        self.bar: Any = None
        if terminal:
            self.bar = tqdm(total=total, unit="B", unit_scale=True, desc=verb)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, count: int) -> None:
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.told >= 10:
            self.told = time.monotonic()
            rate = self.done / (self.told - self.began)
            left = max(0, self.total - self.done) / rate if rate else 0
            print(
                f"{self.verb} {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB, {rate / 1e6:.0f} MB/s, "
                f"{left // 60:.0f} min {left % 60:.0f} s left",
                file=sys.stderr,
            )
