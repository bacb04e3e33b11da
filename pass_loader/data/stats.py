"""`pass-pack stats`: what a pack holds, as numbers and pictures, on one page."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import recipes
from ..errors import PackError
from ..pack.cores import usable_cores
from ..pack.layout import MANIFEST, make_directory, write_durably
from ..pack.reader import Pack
from .samples import Samples
from .stats_index import EXTREMES, PASSES_BYTES, index_numbers
from .stats_metadata import TABLE_BYTES, metadata_numbers
from .stats_page import CONTACT, page_of
from .stats_pictures import COLOURS, DISTANCE, SAMPLINGS, Pictures, alike, drawn, perceptual_hash
from .stats_plots import check_matplotlib, plots_of

SAMPLE = 2000
PAGE, NUMBERS = "index.html", "report.json"
PLOTS = ("sizes", "aspect-ratios", "bytes", "density", "qualities", "brightness", "contrast", "dates", "places")
_FORMAT = 1  # of report.json
_LEAST_CONTRAST = 0.02  # of pictures whose hashes are compared
_GROUPS, _MEMBERS = 6, 4  # of pictures that look alike, on the page
_MOST_DAMAGED = 100  # that are listed
_REMOTE_WORKERS = 16  # they wait for the store


def stats(
    pack: str | Path | Pack,
    out: str | Path,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write a report on the live pictures of a pack into the directory `out`, and return its numbers.

    out: gets index.html, which needs no other file, report.json with the numbers, and the plots as PNG. The same pack,
    sample and seed give the same numbers.
    sample: how many pictures are decoded, drawn at random by `seed`; what needs pixels is said of these alone. Numbers
    of sizes, bytes, codecs, classes, equal bytes and metadata are of all.
    workers: threads that decode; None: one a core, and at least 16 where the pack lies in a store. progress: called
    with bytes read, work_bytes() in all.

    Pictures that look alike are looked for within the sample where imagehash is installed. Damaged pictures are
    named in the report. Raises ImportError without matplotlib, PackError for a pack without live pictures, with a
    damaged index or table, or as `out`, ShardError where a store fails.
    """
    check_matplotlib()
    if sample < 1 or seed < 0:
        raise ValueError(f"sample is {sample} and seed {seed}: want at least 1 and 0")
    pack = pack if isinstance(pack, Pack) else Pack(pack)
    if len(pack) == 0:
        raise PackError(f"{pack.place} has no live picture to report on")
    folder = Path(out)
    if (folder / MANIFEST).exists():
        raise PackError(f"{folder} is a pack: give a directory of its own for the report")
    make_directory(folder, exist_ok=True)
    step = progress or (lambda _: None)

    samples = Samples(pack, recipes.evaluate())  # any recipe: no view is rendered
    pictures = Pictures(samples, workers or max(usable_cores(), 1 if pack.remote is None else _REMOTE_WORKERS))
    numbers = index_numbers(pack, step) | metadata_numbers(pack, step)
    chosen = drawn(samples, sample, seed)
    numbers |= _measured(pictures, chosen, step)
    ok = [record for record in chosen.tolist() if record not in pictures.damaged]
    numbers["contact_sheet"] = ok[:CONTACT]
    numbers = {
        "format": _FORMAT,
        "pack": {
            "name": _name_of(pack), "pack_id": pack.pack_id, "revision": pack.revision,
            "generation": pack.generation, "records": pack.records, "live": len(pack), "removed": len(pack.removed),
            "shards": len(pack.shards), "codec": pack.manifest.get("codec", "jpeg"),
        },
        "sample": {"seed": seed, "drawn": len(chosen), "measured": len(ok), "damaged": len(chosen) - len(ok)},
        **numbers,
    }  # fmt: skip
    shown = _records_shown(numbers)
    thumbnails = pictures.thumbnails(shown)
    damaged = sorted(pictures.damaged.values(), key=lambda one: one.record)
    numbers["damaged"] = [dataclasses.asdict(one) for one in damaged[:_MOST_DAMAGED]]
    numbers["pictures"] = {str(record): _said(samples, record) for record in sorted(shown)}
    plots = plots_of(numbers)
    _write(folder, numbers, plots, page_of(numbers, plots, thumbnails))
    return numbers


def _name_of(pack: Pack) -> str:
    return Path(pack.known_place).name


def work_bytes(pack: Pack, sample: int = SAMPLE, seed: int = 0) -> int:
    """Return how many bytes `stats` will report as progress."""
    chosen = drawn(Samples(pack, recipes.evaluate()), sample, seed)
    return pack.records * (PASSES_BYTES + TABLE_BYTES) + int(pack.column("length")[chosen].sum())


def _measured(pictures: Pictures, chosen: np.ndarray, progress: Callable[[int], None]) -> dict[str, Any]:
    """Return what the sample says: qualities, colours, brightness, contrast, its extremes, and what looks alike."""
    hash_of = perceptual_hash()
    found = pictures.measure(np.sort(chosen), hash_of, progress)
    jpegs = found[found["quality"] > 0]
    return {
        "qualities": {
            "jpegs": len(jpegs),
            "pictures": np.bincount(jpegs["quality"], minlength=101)[1:].tolist(),
            "median": int(np.median(jpegs["quality"])) if len(jpegs) else None,
            "samplings": _named(SAMPLINGS, jpegs["sampling"]),
            "progressive": int(found["progressive"].sum()),
            "exif_rotated": int(found["rotated"].sum()),
        },
        "colours": _named(COLOURS, found["colour"]),
        "brightness": _shares(found["brightness"], 1.0),
        "contrast": _shares(found["contrast"], 0.5),
        "sample_extremes": {
            "darkest": _ranked(found, "brightness", 1),
            "brightest": _ranked(found, "brightness", -1),
            "plainest": _ranked(found, "contrast", 1),
        },
        "alike": None if hash_of is None else _alike(pictures, found),
    }  # fmt: skip


def _ranked(found: np.ndarray, measure: str, sign: int) -> list[list[Any]]:
    """Return [record, value] of the pictures with the least values, or the largest where sign is -1."""
    first = found[np.argsort(sign * found[measure], kind="stable")[:EXTREMES]]
    return [[record, round(float(value), 4)] for record, value in zip(first["record"].tolist(), first[measure])]


def _named(names: tuple[str, ...], numbers: np.ndarray) -> dict[str, int]:
    counts = np.bincount(numbers, minlength=len(names)).tolist()
    return {name: count for name, count in zip(names, counts) if count}


def _shares(values: np.ndarray, up_to: float) -> dict[str, Any]:
    """Return a histogram of 50 bins over [0, up_to] and the median."""
    bins = np.clip((values * (50 / up_to)).astype(np.int64), 0, 49)
    counts = np.bincount(bins, minlength=50).tolist()
    return {"up_to": up_to, "pictures": counts, "median": round(float(np.median(values)), 4) if len(values) else None}


def _alike(pictures: Pictures, found: np.ndarray) -> dict[str, Any]:
    """Return groups of pictures of the sample that look alike and differ in bytes: of equal ones the first counts.

    Pictures that are nearly of one colour are left out: their hashes say nothing.
    """
    pack = pictures.samples.parts[0].pack
    found = found[found["contrast"] >= _LEAST_CONTRAST]
    bytes_ = np.stack([pack.column(name)[found["record"]].astype(np.int64) for name in ("crc32c", "length")], 1)
    first = np.sort(np.unique(bytes_, axis=0, return_index=True)[1])
    records, hashes = found["record"][first], found["hash"][first]
    groups = alike(hashes)
    return {
        "hash": "imagehash.phash, 64 bits",
        "most_different_bits": DISTANCE,
        "least_contrast": _LEAST_CONTRAST,
        "groups": len(groups),
        "pictures": sum(map(len, groups)),
        "largest": [
            {"pictures": len(group), "records": records[group[:_MEMBERS]].tolist()} for group in groups[:_GROUPS]
        ],
    }


def _records_shown(numbers: dict[str, Any]) -> list[int]:
    shown = list(numbers["contact_sheet"])
    for records in numbers["extremes"].values():
        shown += records
    for ranked in numbers["sample_extremes"].values():
        shown += [record for record, _ in ranked]
    for name in ("equal_bytes", "alike"):
        for group in (numbers[name] or {"largest": []})["largest"]:
            shown += group["records"]
    return list(dict.fromkeys(shown))


def _said(samples: Samples, record: int) -> dict[str, Any]:
    height, width = samples.pack.size_of(record)
    length = int(samples.parts[0].pack.column("length")[record])
    return {"id": samples.id_of(record), "height_px": height, "width_px": width, "record_bytes": length}


def _write(folder: Path, numbers: dict[str, Any], plots: dict[str, Any], page: str) -> None:
    """Write all files; delete plots of an earlier report that this one does not have."""
    for name in PLOTS:
        path = folder / f"{name}.png"
        if name in plots:
            write_durably(path, plots[name].png)
        else:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    write_durably(folder / NUMBERS, (json.dumps(numbers, indent=1, allow_nan=False) + "\n").encode())
    write_durably(folder / PAGE, page.encode())
