"""The last part of a packing, when all tasks are done: what only all of them together decide, and what that makes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from ..errors import PackError
from .decision import drop_repeated
from .destination import Destination, delete_others
from .finish import Finish
from .metadata import Metadata
from .own_columns import OwnColumns
from .plan import Plan
from .points import written_by
from .report import Refusals, Report
from .running import Running
from .shards import Shard
from .task import Note, refused_path
from .workplace import complete


def merge_tasks(out: Destination, plan: Plan, notes: list[Note], how: Running) -> Report:
    """Make the pack of what the tasks have left. Hold the destination. notes: of all tasks, in order."""
    finish, report = decide(out, plan, notes, Running(how.workers))
    shards, pack_id = finish.tables(report, how)
    written_by(out.folder, pack_id, (Shard.load(out.folder, name).rows for name in finish.names))
    delete_others(out, {name for shard in shards for name in (shard["tar"], shard["table"])})
    complete(out, asdict(report), finish.manifest(shards, pack_id, report), plan.inputs)
    return report


def decide(out: Destination, plan: Plan, notes: list[Note], how: Running) -> tuple[Finish, Report]:
    """Decide what takes all tasks: which pictures stay, classes and columns. Arguments as of `merge_tasks`."""
    out.close()
    drop_repeated(out, plan.options, plan.inputs, [name for note in notes for name in note.shards], how.threads)
    report = Report(without_metadata=None if plan.metadata is None else 0, checked_md5=plan.checked_md5)
    own = OwnColumns()
    with_pictures = _collect(out, notes, report, own)
    if not with_pictures:
        raise PackError(f"no picture could be packed:\n{report}")
    foreign = {int(source): stamp for note in notes for source, stamp in note.foreign.items()}
    table = Metadata(*plan.metadata, plan.options.gps) if plan.metadata is not None else None
    return Finish(out, plan, with_pictures, own, foreign, table), report


def _collect(out: Destination, notes: list[Note], report: Report, own: OwnColumns) -> list[str]:
    """Put what was refused into the report and refused.jsonl, and what sources say into `own`.

    Returns the names of the shards with pictures.
    """
    root = out.folder
    refusals = Refusals(root)
    beside: Counter[str] = Counter()
    apart: Counter[str] = Counter()
    found = []
    for task, note in enumerate(notes):
        beside.update(note.beside)
        out.bring(refused_path(root, task).name)
        refusals.add_file(refused_path(root, task))
        for name in note.shards:
            shard = Shard.load(root, name)
            refusals.add(shard.refused)
            report.same_id += shard.same_id
            apart.update(shard.ids_apart)
            own.merge(shard.own)
            if len(shard):
                found.append(name)
    report.beside, report.ids_apart = dict(beside), dict(+apart)
    refusals.save(report)
    return found
