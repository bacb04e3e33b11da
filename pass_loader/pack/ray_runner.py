"""Tasks on a Ray cluster: started, and started again where their worker or node was lost.

A task is a call of a function whose arguments say all; it may run twice without harm. Of Ray, Core alone is used.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import PackError
from ..version import __version__

RUNNERS = ("local", "ray")
_RETRIES = 10  # of a task whose worker or node was lost
_REACHED_S = 5  # in which a cluster's address must answer
_LOOKED_S = 10  # after which the cluster's nodes are looked at again, at the latest


def run_on_ray(
    function: Callable[..., Any],
    calls: Sequence[tuple[Any, ...]],
    *,
    address: str | None = None,
    cpus: int = 1,
    done: Callable[[int], None] = lambda _: None,
) -> list[Any]:
    """Call an importable function with each of these arguments on a Ray cluster; return what the calls returned.

    address: of the cluster; None: what RAY_ADDRESS names, or one that runs on this machine, or one that is started
    here. A cluster that the program is connected to is used as it is. cpus: how many a call asks for. Where no node has
    so many, the calls wait for one that does, as a cluster may grow, and a warning says so. At most twice as many calls
    as the cluster has room for are handed to it at a time. done: called with the place of each call that has returned.
    Raises what a call raised, and PackError where Ray is missing, is not reached, or lost a call too often. Calls that
    run then end with the connection; on one that the program had before, by themselves.
    """
    ray = _imported()
    results = [None] * len(calls)
    waiting = iter(enumerate(calls))
    running: dict[Any, int] = {}
    with _connected(ray, address):
        call = ray.remote(num_cpus=cpus, max_retries=_RETRIES)(_call)
        try:
            while True:
                room = 2 * max(1, _at_a_time(ray, cpus))
                for place, arguments in itertools.islice(waiting, max(0, room - len(running))):
                    running[call.remote(__version__, function, arguments)] = place
                if not running:
                    return results
                for reference in ray.wait([*running], num_returns=1, timeout=_LOOKED_S)[0]:
                    place = running[reference]
                    results[place] = ray.get(reference)
                    del running[reference]
                    done(place)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except ray.exceptions.RayError as error:
            raise PackError(
                f"Ray gave a task up ({type(error).__name__}: {error}): a task is begun {_RETRIES + 1} times at most. "
                "See why its workers or nodes were lost; the same command goes on"
            ) from None
        # Nothing is cancelled: Ray (2.60, task_manager.cc) aborts the program where a call ends while it is cancelled.


@contextlib.contextmanager
def connected(runner: str, address: str | None) -> Iterator[None]:
    """Stay connected to a cluster, for several calls of `run_on_ray`; nothing where the runner is another one."""
    if runner != "ray":
        yield
        return
    with _connected(_imported(), address):
        yield


def _at_a_time(ray: Any, cpus: int) -> int:
    """Return how many calls of so many CPUs the nodes can run at a time; warn where no node can run any."""
    have = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if max(have, default=0) < cpus:
        warnings.warn(
            f"a task asks for {cpus} CPUs (--workers), and the largest node of the Ray cluster has "
            f"{max(have, default=0)}: the tasks wait until a larger one joins. Stopped, and begun again with fewer "
            "workers, the command goes on",
            stacklevel=2,
        )
    return sum(cpus_here // cpus for cpus_here in have)


def _call(version: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    if version != __version__:
        raise PackError(
            f"pass-loader is {__version__} on {socket.gethostname()}, and {version} where the command runs: install "
            "the same on every node"
        )
    return function(*arguments)


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise PackError("Ray is not installed: `pip install 'pass-loader[ray]'`, on every node") from None
    return ray


def _check_reached(address: str | None) -> None:
    """Raise PackError where nothing listens at an address HOST:PORT: Ray would wait for minutes."""
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_S).close()
    except (OSError, OverflowError) as error:
        raise PackError(
            f"no Ray cluster is reached at {address}: {getattr(error, 'strerror', None) or error}. `ray status` there "
            "tells its address, HOST:6379 as a rule"
        ) from None


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    _check_reached(os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read where a cluster is started
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise PackError(f"no Ray cluster is reached at {address or 'the default address'}: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()
