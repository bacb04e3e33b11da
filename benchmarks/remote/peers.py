"""An epoch from a web server on loopback by other libraries and by ours: python -m benchmarks.remote.peers [--write]

Each library reads its own format, made of the same JPEGs, with an empty cache, in a random order as its experts would
ask for it, and gives batches of 32 of the same views: shorter side to 256, centre 224 x 224, float32, normalised. Two
worker processes of torch's DataLoader decode with Pillow and render with torchvision (litdata's is the loop's own
process, where it is faster); ours has two threads. Runs take turns, each in a process of its own; samples/s from the
first request to the last batch, median. The server stands in for S3 where a library takes nothing else. A library that
is not installed, or fails, is left out, with its error.
`--write` puts the table into docs/where-packs-lie.md.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..pages import write_between
from ..pictures import write_pack
from .server import counts, serving

PAGE = Path(__file__).parents[2] / "docs" / "where-packs-lie.md"
BATCH, WORKERS = 32, 2
SHARD_BYTES = 64 << 20  # of each format, its usual size
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@functools.cache
def _transform() -> Callable[[Any], Any]:
    from ..torchvision_cpu import torchvision

    steps = torchvision.transforms
    return steps.Compose(
        [
            steps.Resize(256),
            steps.CenterCrop(224),
            steps.ToTensor(),
            steps.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def rendered(jpeg: bytes) -> Any:
    """Return the view of a JPEG: (3, 224, 224) float32."""
    from PIL import Image

    return _transform()(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def _write_webdataset(jpegs: list[bytes], folder: Path) -> None:
    folder.mkdir()
    tar: tarfile.TarFile | None = None
    for number, jpeg in enumerate(jpegs):
        if tar is None or tar.offset > SHARD_BYTES:  # type: ignore[attr-defined]
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"{len(list(folder.iterdir())):06d}.tar", "w")
        member = tarfile.TarInfo(f"{number:08d}.jpg")
        member.size = len(jpeg)
        tar.addfile(member, io.BytesIO(jpeg))
    assert tar is not None
    tar.close()


def _webdataset(server: str, folder: Path, cache: Path) -> Iterable[Any]:
    import webdataset

    urls = [f"{server}webdataset/{path.name}" for path in sorted((folder / "webdataset").iterdir())]
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls)).shuffle(1000).to_tuple("jpg").map_tuple(rendered)
    return webdataset.WebLoader(dataset, batch_size=BATCH, num_workers=WORKERS)


def _write_mosaicml(jpegs: list[bytes], folder: Path) -> None:
    _transform()  # imports torchvision as it can be imported here, which streaming wants
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"jpeg": "bytes"}, size_limit=SHARD_BYTES) as writer:
        for jpeg in jpegs:
            writer.write({"jpeg": jpeg})


def _mosaicml(server: str, folder: Path, cache: Path) -> Iterable[Any]:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    class Views(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return rendered(super().__getitem__(at)["jpeg"])

    os.environ["S3_ENDPOINT_URL"] = server
    dataset = Views(remote="s3://mosaicml-streaming/", local=str(cache), shuffle=True, batch_size=BATCH)
    return DataLoader(dataset, batch_size=BATCH, num_workers=WORKERS)


def _write_litdata(jpegs: list[bytes], folder: Path) -> None:
    import litdata

    litdata.optimize(
        functools.partial(_one, jpegs), list(range(len(jpegs))), str(folder), chunk_bytes=SHARD_BYTES, num_workers=1
    )


def _one(jpegs: list[bytes], number: int) -> bytes:
    return jpegs[number]


def _litdata(server: str, folder: Path, cache: Path) -> Iterable[Any]:
    import litdata
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # its options reach boto3 alone
    options = {"endpoint_url": server, "aws_access_key_id": "id", "aws_secret_access_key": "secret"}
    dataset = litdata.StreamingDataset("s3://litdata", cache_dir=str(cache), shuffle=True, storage_options=options,
                                       transform=rendered)  # fmt: skip
    # Two workers are about half as fast as the loop's own process.
    return litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0)


def _write_ours(jpegs: list[bytes], folder: Path) -> None:
    """The pack is what all others are made of."""


def _ours(server: str, folder: Path, cache: Path) -> Iterable[Any]:
    from pass_loader import DataLoader, ShardDataset, recipes

    dataset = ShardDataset(f"{server}pack", recipes.evaluate(), cache=cache)
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS)


LIBRARIES: dict[str, tuple[Callable[[list[bytes], Path], None], Callable[[str, Path, Path], Iterable[Any]]]] = {
    "pass-loader": (_write_ours, _ours),
    "webdataset": (_write_webdataset, _webdataset),
    "mosaicml-streaming": (_write_mosaicml, _mosaicml),
    "litdata": (_write_litdata, _litdata),
}


def one(name: str, server: str, folder: Path) -> dict[str, float]:
    """Load an epoch with an empty cache."""
    import torch

    torch.set_num_threads(1)
    cache = Path(tempfile.mkdtemp(prefix="cache-", dir=folder))  # a name of its own: MDS finds shared memory by it
    _transform()
    before = counts(server)[1]
    began = time.perf_counter()
    samples = 0
    for batch in LIBRARIES[name][1](server, folder, cache):
        views = batch
        while isinstance(views, (list, tuple)):
            views = views[0]
        assert views.shape[1:] == (3, 224, 224) and views.dtype == torch.float32
        samples += len(views)
    took = time.perf_counter() - began
    shutil.rmtree(cache, ignore_errors=True)
    return {"rate": samples / took, "bytes": (counts(server)[1] - before) / samples, "samples": samples}


def _child(*arguments: object) -> str:
    command = [sys.executable, "-m", "benchmarks.remote.peers", "--one", *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **KEYS}, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        raise RuntimeError(lines[-1] if lines else f"exit status {done.returncode}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        name, folder, *server = given.one
        if server:
            print(json.dumps(one(name, server[0], Path(folder))))
        else:
            from pass_loader.pack import Pack

            pack = Pack(Path(folder) / "pack")
            reader = pack.open_reader()
            LIBRARIES[name][0]([reader.read(record) for record in range(pack.records)], Path(folder) / name)
        return
    with tempfile.TemporaryDirectory() as temporary:
        report(given, Path(temporary))


def report(given: argparse.Namespace, folder: Path) -> None:
    """Measure, and print the table."""
    write_pack(folder, given.pictures)
    found: dict[str, list[dict[str, float]]] = {}
    with serving(folder) as server:
        for name in LIBRARIES:
            try:
                _child(name, folder)
                found[name] = []
            except RuntimeError as error:
                print(f"{name} is left out: {error}", flush=True)
        for number in range(given.rounds):
            names = [*found]
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                try:
                    found[name].append(json.loads(_child(name, folder, server).splitlines()[-1]))
                    print(name, found[name][-1], flush=True)
                except RuntimeError as error:
                    print(f"{name}: a run failed: {error}", flush=True)
    lines = ["| library | samples/s | kB/sample |", "| --- | ---: | ---: |"]
    for name, runs in found.items():
        if not runs:
            print(f"{name} is left out: no run succeeded")
            continue
        rate, sent = (statistics.median(run[key] for run in runs) for key in ("rate", "bytes"))
        lines.append(f"| {name} | {rate:,.0f} | {sent / 1e3:,.0f} |")
    print("\n".join(lines))
    if given.write:
        write_between(PAGE, "remote peers", "\n".join(lines))


if __name__ == "__main__":
    main()
