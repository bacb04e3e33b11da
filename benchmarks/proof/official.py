"""The official pipeline fed with our plans: torchvision's ImageFolder and functions on PIL, torch's DataLoader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.utils.data import DataLoader, DistributedSampler

from benchmarks.torchvision_cpu import torchvision  # noqa: F401  (declares operators)
from pass_loader import ShardDataset
from pass_loader.recipes import Recipe

from torchvision.datasets import ImageFolder  # noqa: E402
from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms import functional as F  # noqa: E402

_INTERPOLATION = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}


def transformed(picture: Image.Image, plan: np.void, recipe: Recipe) -> torch.Tensor:
    """Make one view, (3, height, width) float32, by the functions that the official transforms call.

    What those draw is in the plan. MoCo-v2's script flips last, the others after the crop.
    """
    box = (int(plan["crop_y"]), int(plan["crop_x"]), int(plan["crop_height"]), int(plan["crop_width"]))
    size = [int(plan["resize_height"]), int(plan["resize_width"])]
    view = F.resized_crop(picture, *box, size, _INTERPOLATION[int(plan["interpolation"])])
    if plan["flip"] and recipe.name != "mocov2":
        view = F.hflip(view)
    for step in plan["jitter_order"]:
        if step == 0:
            view = F.adjust_brightness(view, float(plan["brightness"]))
        elif step == 1:
            view = F.adjust_contrast(view, float(plan["contrast"]))
        elif step == 2:
            view = F.adjust_saturation(view, float(plan["saturation"]))
        elif step == 3:
            view = F.adjust_hue(view, float(plan["hue"]))
    if plan["grayscale"]:
        view = F.rgb_to_grayscale(view, num_output_channels=3)
    if plan["blur_sigma"] > 0:
        view = view.filter(ImageFilter.GaussianBlur(radius=float(plan["blur_sigma"])))
    if plan["solarize_threshold"] >= 0:
        view = ImageOps.solarize(view, int(plan["solarize_threshold"]))
    if plan["flip"] and recipe.name == "mocov2":
        view = F.hflip(view)
    return F.normalize(F.to_tensor(view), recipe.mean, recipe.std)


class PlannedFolder(ImageFolder):
    """An ImageFolder whose transform takes its random numbers from the plans of a pack of the same files."""

    def __init__(self, root: str, dataset: ShardDataset):
        super().__init__(root)
        self.planned, self.epoch = dataset, 0
        names = [path[len(root) + 1 :].rsplit(".", 1)[0] for path, _ in self.samples]
        if names != [dataset.id_of(record) for record in range(len(dataset))]:
            raise ValueError(f"{dataset.pack.path} and {root} hold different pictures, or have them in another order")

    def __getitem__(self, index: int) -> Any:
        path, label = self.samples[index]
        picture = self.loader(path)
        plans = self.planned.plan(index, epoch=self.epoch)
        recipe = self.planned.recipe
        views = [transformed(picture, plan, recipe) for plan in plans]
        if recipe.batch == "views":
            return views
        return (views[0] if recipe.batch == "view_labels" else views), label


class OfficialLoader:
    """What an official script makes: a DistributedSampler of one rank and torch's DataLoader.

    The loader has a generator of its own: without one it takes a number from torch's global stream at the start of each
    epoch, which MAE's masks come from too, and ours takes none.
    """

    def __init__(self, root: str, dataset: ShardDataset, batch_size: int):
        self.folder = PlannedFolder(root, dataset)
        self.sampler = DistributedSampler(self.folder, num_replicas=1, rank=0, shuffle=True)
        own = torch.Generator()
        self.loader: DataLoader[Any] = DataLoader(
            self.folder, batch_size, sampler=self.sampler, drop_last=True, generator=own
        )

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)
        self.folder.epoch = epoch

    def __iter__(self) -> Any:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)
