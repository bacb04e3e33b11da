"""The slots of all random decisions, read from where they are declared: enums in csrc, purposes of a batch's draws in
pass_loader. A slot that is new there and not known here is an error."""

from __future__ import annotations

import ast
import functools
import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ENUM = re.compile(r"enum (\w*Slot) : uint32_t \{(.*?)\};", re.S)
_CONSTANT = re.compile(r"(k\w+) = (0x[0-9a-fA-F]+|\d+)(?: << (\d+))?$")


@functools.cache
def declared() -> dict[str, dict[str, int]]:
    """Return the constants of each file in csrc that declares slots, by their names. Raises ValueError for one that
    cannot be read."""
    found = {}
    for path in sorted((ROOT / "csrc").glob("*.[ch]*")):
        text = re.sub(r"//.*", "", path.read_text())
        for enum, body in _ENUM.findall(text):
            constants = {}
            for part in filter(None, map(str.strip, body.split(","))):
                match = _CONSTANT.match(part)
                if not match:
                    raise ValueError(f"{path.name}, {enum}: cannot read {part!r}")
                constants[match[1]] = int(match[2], 0) << int(match[3] or 0)
            found[path.name] = constants
    return found


@functools.cache
def purposes() -> dict[str, int]:
    """Return the purposes of a batch's draws: the first arguments of all calls of `BatchKey.uniforms`."""
    found = {}
    for path in sorted((ROOT / "pass_loader").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "uniforms":
                name = ast.unparse(node.args[0])
                module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                found[f"{path.stem} {name}"] = int(getattr(module, name))
    return found


@functools.cache
def slots() -> dict[str, int]:
    """Return a slot for each decision, of runs of slots the first ones, by its name.

    Raises ValueError for constants that are not known here, and for decisions that share a slot.
    """
    files = dict(declared())
    found = _of_views(files.pop("plan.cpp")) | _of_steps(files.pop("plan_steps.cpp"))
    found |= {f"{_name(key)} {number}": first + number
              for key, first in files.pop("masks.cpp").items() for number in range(3)}  # fmt: skip
    if files:
        raise ValueError(f"{', '.join(files)} in csrc: slots that benchmarks/proof/slots.py does not know")
    batch = re.search(r"kBatchSlots = (0x[0-9a-fA-F]+);", (ROOT / "csrc/draws.h").read_text())
    assert batch
    found |= {f"batch, {name} {number}": int(batch[1], 0) + (purpose << 24) + number
              for name, purpose in purposes().items() for number in range(3)}  # fmt: skip
    if len(set(found.values())) < len(found):
        raise ValueError("two decisions have one slot")
    return found


def _name(constant: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r" \1", constant[1:]).lower()


def _of_views(constants: dict[str, int]) -> dict[str, int]:
    own = dict(constants)
    first, tries = own.pop("kCropTry"), own.pop("kCropTries")
    return {f"crop try {number}": first + number for number in range(tries)} | {
        _name(key): slot for key, slot in own.items()
    }


def _of_steps(constants: dict[str, int]) -> dict[str, int]:
    """Two steps in each of the first two groups, before the crop and after it, and one that erases."""
    own = dict(constants)
    groups = {"": own.pop("kFirstGroup"), "before the crop, ": own.pop("kFirstBefore")}
    of_group, group, step, of_step = (own.pop(f"k{key}") for key in ("GroupSlots", "Group", "FirstStep", "StepSlots"))
    runs, value = own.pop("kRuns"), own.pop("kValue")
    erase, of_erase, tries, place, values = (own.pop(f"k{key}") for key in (
        "FirstErase", "EraseSlots", "EraseTries", "ErasePlace", "EraseValues"))  # fmt: skip
    if own:
        raise ValueError(f"csrc/plan_steps.cpp: {', '.join(own)}: not known to benchmarks/proof/slots.py")
    found = {}
    for where, first in groups.items():
        for number in range(2):
            found[f"{where}group {number}"] = first + of_group * number + group
            for which in range(2):
                at = first + of_group * number + step + of_step * which
                name = f"{where}group {number}, step {which}"
                found[f"{name}: runs"] = at + runs
                found |= {f"{name}: value {part}": at + value + part for part in range(of_step - value)}
    at = erase + of_erase * (groups[""] + step)
    found |= {f"erase, try {number}": at + number for number in range(tries)}
    return found | {"erase, place": at + place, "erase, colour 0": at + values, "erase, colour 1": at + values + 1}
