"""The lines of docs/clusters.md for batch systems, run as they stand there: the pack that one machine makes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pass_loader.cli.main import main
from pass_loader.pack import build, convert

from ..helpers.corpus import jpeg, noise
from ..helpers.trees import contents, tar_of

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
TASK_BYTES = 6000  # a tar is a task
# A command is run by the test, which costs no new Python: arguments go there, and what it prints comes back.
PASS_PACK = """#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/{port}
printf '%s\\n' $# "$@" >&3
read -r status <&3
cat <&3
exit "$status"
"""
# Runs a job at once. A job that it waits for must be one that has come to its end.
SBATCH = """#!/bin/bash
jobs="$(dirname "$0")/jobs"
touch "$jobs"
while [ $# -gt 0 ]; do
    case "$1" in
    --array=*) array="${1#*=}" ;;
    --dependency=after*:*) grep -qx "${1##*:}" "$jobs" || exit 1 ;;
    --parsable) parsable=1 ;;
    --wrap) wrap="$2"; shift ;;
    --requeue | --wait | --cpus-per-task=*) ;;
    *) exit 1 ;;
    esac
    shift
done
if [ -n "$array" ]; then
    export SLURM_ARRAY_TASK_COUNT=$((${array#*-} - ${array%-*} + 1))
    for SLURM_ARRAY_TASK_ID in $(seq "${array%-*}" "${array#*-}"); do
        export SLURM_ARRAY_TASK_ID
        bash -c "$wrap" >&2 || exit 1
    done
else
    bash -c "$wrap" >&2 || exit 1
fi
echo "job$(wc -l < "$jobs")" >> "$jobs"
[ -z "$parsable" ] || tail -1 "$jobs"
"""
PARALLEL = """#!/bin/bash
while [[ $1 == --* ]]; do shift 2; done
exec xargs -P 2 -I'{}' "$@"
"""
SSH = """#!/bin/bash
shift
exec sh -c "$*"
"""


@contextlib.contextmanager
def commands(folder: Path) -> Iterator[socket.socket]:
    """Make a folder of stand-ins; gives the socket at which `pass-pack` asks."""
    scripts = {"sbatch": SBATCH, "ssh": SSH}
    if shutil.which("parallel") is None:
        scripts["parallel"] = PARALLEL
    with socket.create_server(("127.0.0.1", 0)) as server:
        scripts["pass-pack"] = PASS_PACK.replace("{port}", str(server.getsockname()[1]))
        folder.mkdir()
        for name, script in scripts.items():
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        yield server


def answer(server: socket.socket) -> list[str]:
    """Run a command of `pass-pack`; return its arguments."""
    connection, _ = server.accept()
    with connection, connection.makefile("rw") as stream:
        given = [next(stream).rstrip("\n") for _ in range(int(next(stream)))]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            status = main(given)
        stream.write(f"{status}\n{printed.getvalue()}")
    return given


def run(shell: str, root: Path, **variables: str) -> list[list[str]]:
    """Run lines of the page; return the commands of `pass-pack` that they consist of."""
    shell = shell.replace("/data/", f"{root}/")
    shell = re.sub(r"(pass-pack plan .*?)( \||$)", rf"\1 --task-bytes {TASK_BYTES}\2", shell, flags=re.M)
    asked = []
    with commands(root / "bin") as server:
        server.settimeout(0.05)
        path = os.pathsep.join([str(root / "bin"), os.environ["PATH"]])
        with subprocess.Popen(["bash", "-ec", shell], env={**os.environ, "PATH": path, **variables}) as lines:
            while lines.poll() is None:
                with contextlib.suppress(TimeoutError):
                    asked.append(answer(server))
        assert lines.returncode == 0
    shutil.rmtree(root / "bin")
    return asked


def lines_of(title: str, kind: str = "bash") -> str:
    """Return the lines of a section of the page."""
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert section is not None
    (found,) = re.findall(rf"```{kind}\n(.*?)```", section[1], re.S)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with tars, more than an array has jobs, and the pack of them that one machine makes."""
    (tmp_path / "tars").mkdir()
    for number in range(18):
        tar_of(tmp_path / "tars" / f"{number:02d}.tar", {f"{number}.jpg": jpeg(noise(16, 16, number))})
    build(sorted((tmp_path / "tars").iterdir()), tmp_path / "built", task_bytes=TASK_BYTES)
    return tmp_path


def check(root: Path, asked: list[list[str]]) -> None:
    """Every command is there, and the pack is the one of one machine. Kills: a task that no line runs."""
    assert [given[0] for given in asked] == ["plan", *["shard"] * (len(asked) - 2), "merge"] and len(asked) > 4
    assert contents(root / "pack") == contents(root / "built")


def test_slurm(root: Path) -> None:
    """Also with the tables as a job of its own between the tasks and the merge."""
    lines = lines_of("Slurm")
    check(root, run(lines, root))
    shutil.rmtree(root / "pack")
    tables = re.search(r"`(pass-pack merge [^`]*TASK_COUNT)`", " ".join(PAGE.split()))
    assert tables is not None
    begun, merge = lines.rsplit("sbatch", 1)
    asked = run(f"{begun}sbatch --array=0-2 --wrap '{tables[1]}'\nsbatch{merge}", root)
    assert [given[0] for given in asked[-4:]] == ["merge"] * 4
    check(root, [*asked[:-4], asked[-1]])


def test_commands_that_read_a_pack(root: Path) -> None:
    (root / "built").rename(root / "pack")
    asked = run(lines_of("Commands that read a pack"), root)
    assert [given[0] for given in asked] == ["convert"] * 17 + ["verify"] * 17
    convert(root / "pack", root / "want", "dct")
    assert contents(root / "pack-dct") == contents(root / "want")


def test_kubernetes(root: Path) -> None:
    job = lines_of("Kubernetes", "yaml")
    (count,), (shell,) = re.findall(r"completions: (\d+)", job), re.findall(r'command: \[sh, -c, "(.*)"\]', job)
    asked = run("pass-pack plan /data/tars/*.tar --out /data/pack", root)
    for index in range(int(count)):
        asked += run(shell, root, JOB_COMPLETION_INDEX=str(index))
    check(root, [*asked, *run("pass-pack merge /data/pack", root)])


def test_parallel(root: Path) -> None:
    check(root, run(lines_of("GNU parallel"), root))
