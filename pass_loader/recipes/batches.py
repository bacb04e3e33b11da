"""The structures of a batch: one row for each, which recipes check and loaders build from."""

from __future__ import annotations

from dataclasses import dataclass

from .masks import BlockMasks, CoarseMasks, IBOTMasks, InverseBlockMasks, MultiBlockMasks, RandomMasks, StratifiedMasks


@dataclass(frozen=True)
class BatchStructure:
    """What a batch consists of. loading.structures makes each part by its name.

    parts: of a batch, in their order; a single part stands for itself.
    item: parts of one sample, for torch's own DataLoader, whose default collation gives the batch's structure. What a
        batch has beside that (masks, dicts) comes from pass_loader.DataLoader alone.
    as_list: the parts form a list, as in the official script; else a tuple.
    views: how many views the recipe has; None: any number.
    masks: the class of the recipe's masks.
    on_channels: both views of a sample lie one after the other on the channels, and are of one size.
    heatmaps: the dataset has heatmaps.
    """

    parts: tuple[str, ...]
    item: tuple[str, ...] = ("views", "labels")
    as_list: bool = False
    views: int | None = None
    masks: type = type(None)
    on_channels: bool = False
    heatmaps: bool = False


BATCHES: dict[str, BatchStructure] = {
    "views": BatchStructure(("views",), item=("views",)),
    "views_labels": BatchStructure(("views", "labels")),
    "index_views_labels": BatchStructure(
        ("records", "views", "labels"), item=("records", "views", "labels"), as_list=True
    ),
    "views_labels_masks": BatchStructure(("views", "labels", "ibot_masks"), masks=IBOTMasks),
    "view_labels": BatchStructure(("view", "labels"), item=("view", "labels"), views=1),
    "view_labels_masks": BatchStructure(("view", "labels", "mae_masks"), views=1, masks=RandomMasks),
    "view_heatmap_labels": BatchStructure(
        ("view_and_heatmap", "labels"), item=("view_and_heatmap", "labels"), views=1, heatmaps=True
    ),
    "pair_labels": BatchStructure(("pair", "labels"), item=("pair", "labels"), views=2, on_channels=True),
    "pair_index": BatchStructure(("pair", "records"), item=("pair", "records"), views=2, on_channels=True),
    "dinov2": BatchStructure(("dinov2",), masks=StratifiedMasks),
    "view_mask_labels": BatchStructure(("view", "coarse_mask", "labels"), as_list=True, views=1, masks=CoarseMasks),
    "views_mask_labels": BatchStructure(("views_and_mask", "labels"), masks=BlockMasks),
    "views_flags": BatchStructure(("views", "flags"), as_list=True),
    "capi": BatchStructure(("capi",), views=1, masks=InverseBlockMasks),
    "ijepa": BatchStructure(("ijepa",), views=1, masks=MultiBlockMasks),
    "vissl": BatchStructure(("vissl",)),
    "views_labels_companions": BatchStructure(("views", "labels", "companions")),
}
