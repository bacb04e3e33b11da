"""timm's training script: `python examples/with_timm_script.py PACK TIMM CONFIG`. Its train.py, and this loader.

TIMM is a clone of timm's repository, where train.py lies, CONFIG a YAML file of its options. Two functions of timm,
which train.py imports, are replaced: create_dataset by one that names the pack, create_loader by one that makes this
loader, with the recipe of the transform that timm makes of the options. Mixup stays timm's own, on batches. `val_split`
in CONFIG names a pack for evaluation, or is empty.
"""

from __future__ import annotations

import inspect
import runpy
import sys
from pathlib import Path
from typing import Any

from command_line import arguments

import pass_loader


def create_dataset(name: str, root: str, split: str = "", is_training: bool = False, **_: Any) -> str:
    """Return the path of a pack, in place of a dataset of folders."""
    return root if is_training else split


def create_loader(
    dataset: str, input_size: Any, batch_size: int, is_training: bool = False, num_workers: int = 1,
    pin_memory: bool = False, num_aug_repeats: int = 0, **options: Any,
) -> pass_loader.DataLoader[Any]:  # fmt: skip
    """Return a loader of (pictures, labels) in place of timm's. num_workers: threads."""
    from timm.data import create_transform  # of the clone

    if options.get("num_aug_splits") or options.get("input_size_choices"):
        raise SystemExit("error: --aug-splits and --train-img-sizes are not for this loader: leave them out")
    known = inspect.signature(create_transform).parameters
    transform = create_transform(
        input_size, is_training=is_training, **{name: given for name, given in options.items() if name in known}
    )
    return pass_loader.DataLoader(
        pass_loader.ShardDataset(dataset, pass_loader.Recipe.from_timm(transform), seed=0), batch_size,
        shuffle=is_training, drop_last=is_training, num_workers=num_workers, pin_memory=pin_memory,
        repeats=num_aug_repeats or 1,
    )  # fmt: skip


def main() -> None:
    pack, clone, config = arguments(__doc__, "timm", "config")
    sys.path.insert(0, clone)
    from timm import data as theirs

    theirs.create_dataset, theirs.create_loader = create_dataset, create_loader
    sys.argv = ["train.py", "--config", config, "--data-dir", pack, "--no-prefetcher"]
    runpy.run_path(str(Path(clone, "train.py")), run_name="__main__")


if __name__ == "__main__":
    main()
