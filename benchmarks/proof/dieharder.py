"""The generator's words before dieharder (Brown's suite, a package of Debian), in each order in which plans use them.

`python -m benchmarks.proof.dieharder --page docs/proof.md`; the exit status is 1 where a test rejects.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.pages import write_between

from .generator import ORDERS, write_words
from .slots import slots
from .statistics import Outcome, holm

# Numbers of dieharder's tests: birthdays, runs, and of NIST's monobit, runs, serial (words of 1 to 16 bits).
TESTS = (0, 15, 100, 101, 102)
_FIELDS = (8, 16, 64, 128)  # test, its variant, p-values that it looks at, its p-value


def assessed(order: str, test: int) -> list[Outcome]:
    """Return what one of dieharder's tests says of the words of an order, each test of another part of them.

    A p-value too near 1 counts as one too near 0. Raises RuntimeError where dieharder fails.
    """
    fields = [part for field in _FIELDS for part in ("-D", str(field))]
    process = subprocess.Popen(["dieharder", "-g", "200", "-d", str(test), "-c", ",", *fields], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdin and process.stdout
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(write_words, order, process.stdin.buffer, test << 32)
        said = process.stdout.read()
        process.stdout.close()
        status = process.wait()
        written.result()
    lines = [[part.strip() for part in line.split(",")] for line in said.splitlines() if line.count(",") == 3]
    if status or not lines:
        raise RuntimeError(f"dieharder, test {test} of {order}: exit status {status}, said {said!r}")
    return [Outcome(f"{name} {variant}, {order} fastest", 2 * min(float(p), 1 - float(p)))
            for name, variant, _, p in lines]  # fmt: skip


def table(found: dict[str, list[Outcome]], rejected: list[Outcome]) -> str:
    """Return the page's table: a row for each order."""
    lines = ["| what runs fastest | tests | smallest p | rejected (Holm, 0.001) |", "|---|---|---|---|"]
    for order, outcomes in found.items():
        least = min(outcomes, key=lambda outcome: outcome.p)
        own = sum(outcome in rejected for outcome in outcomes)
        lines.append(f"| {order} | {len(outcomes)} | {least.p:.2g} ({least.what.partition(',')[0]}) | {own} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    parser.add_argument("--tests", type=int, nargs="+", default=TESTS, help="numbers of `dieharder -l`")
    parser.add_argument("--page", type=Path, help="a page whose table is written anew")
    options = parser.parse_args(arguments)
    if not shutil.which("dieharder"):
        raise SystemExit("dieharder is not installed: it is in Debian's package of that name")
    slots()  # imports modules, which several threads must not do at once
    found: dict[str, list[Outcome]] = {order: [] for order in options.orders}
    jobs = list(itertools.product(options.orders, options.tests))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for (order, _), outcomes in zip(jobs, pool.map(assessed, *zip(*jobs))):
            found[order] += outcomes
    rejected = holm([outcome for outcomes in found.values() for outcome in outcomes])
    text = table(found, rejected) + (
        f"\n\ndieharder {_version()}; its tests {', '.join(map(str, options.tests))}, with its own numbers of words."
    )
    print(text)
    for outcome in rejected:
        print(f"rejected: {outcome.what}, p {outcome.p:.2g}")
    if options.page and not rejected:
        write_between(options.page, "benchmarks/proof/dieharder.py", text)
    return bool(rejected)


def _version() -> str:
    said = subprocess.run(["dieharder", "-l"], capture_output=True, text=True).stdout
    return said.partition("version ")[2].partition(" ")[0]


if __name__ == "__main__":
    sys.exit(main())
