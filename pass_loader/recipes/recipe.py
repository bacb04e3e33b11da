"""Recipes: the views of a sample as ranges and probabilities, without decisions. presets.py has the presets."""

from __future__ import annotations

import dataclasses
import itertools
import numbers
import operator
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL

from .. import _C
from .batches import BATCHES, BatchStructure
from .masks import Masks
from .steps import OPS, Then, rows_of
from .window import Window

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# PIL's Resampling values
_INTERPOLATION = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5, "random": 255}
_ABSENT = (1.0, 0.0)  # an empty range: the native side takes the step for absent
_JITTER_STEPS = ("brightness", "contrast", "saturation", "hue")
_RESIZE_ORDER = {13: 0, 12: 1}
_UNUSUAL = (
    "window",
    "resize_short",
    "via",
    "box_of",
    "blur_kernel",
    "decided_with",
    "mean",
    "std",
)  # printed where some view has not the default
_LINE = 120  # characters of a printed line
Range = tuple[float, float]
ChannelValues = float | tuple[float, ...]  # one number for all channels, or one a channel
Size = int | tuple[int, int]


def installed_pillow() -> int:
    """Return 12 or 13: the Pillow whose order of resize passes the installed one has. Older ones and Pillow-SIMD are
    12."""
    return 13 if int(PIL.__version__.split(".")[0]) >= 13 else 12


@dataclass(frozen=True)
class ViewSpec:
    """One view of a recipe. Steps run in this order: crop, resize, flip, jitter, grayscale, blur, solarize.

    Numbers named after a step are its probability. Ranges are (low, high), drawn uniformly.

    window: the view is a window of the picture in place of a random resized crop. scale and ratio are not used.
    resize_short: for evaluation. The whole picture is resized so that its short side has so many pixels, and the view
        is its centre: torchvision's Resize and CenterCrop. scale and ratio are not used.
    via: a first resize of the crop box, before the one to `size` (gram-teacher crops).
    box_of: the number of an earlier view whose crop box and flip this one shares.
    blur_kernel: 0 is PIL's GaussianBlur; an odd number is torchvision's with so many taps.
    then: further steps (Step) and choices between them (Choice), which run after solarize in this order. Published
        policies are functions that return such rows: recipes.rand_augment and others.
    before: the same, on the whole picture before the crop. They cost as many pixels as the picture has. Views of one
        box (box_of) share them.
    alternatives: whole specs that may stand in for this one, each with its probability: ((spec, 0.5),).
    decided_with: the number of an earlier view whose choice among its alternatives is this view's too.
    mean, std: as those of Recipe, which they stand in for in this view.
    """

    size: Size  # pixels: a side, or (height, width)
    scale: Range = (0.08, 1.0)  # share of the picture's area, torchvision's RandomResizedCrop
    ratio: Range = (3 / 4, 4 / 3)  # width / height, log-uniform
    interpolation: str = "bilinear"  # one of PIL's filters; "random": bilinear or bicubic, drawn
    flip: float = 0.5
    jitter: float = 0.0
    brightness: Range | None = None  # factors; None: this step is absent
    contrast: Range | None = None
    saturation: Range | None = None
    hue: Range | None = None  # turns
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: Range = (0.1, 2.0)  # pixels of the view; PIL calls it radius
    solarize: float = 0.0
    solarize_threshold: int = 128
    resize_short: int | None = None
    via: Size | None = None
    box_of: int | None = None
    blur_kernel: int = 0
    then: tuple[Then, ...] = ()
    window: Window | None = None
    before: tuple[Then, ...] = ()
    alternatives: tuple[tuple[ViewSpec, float], ...] = ()
    decided_with: int | None = None
    mean: ChannelValues | None = None
    std: ChannelValues | None = None

    def __post_init__(self) -> None:
        for name in ("size", "via"):
            if getattr(self, name) is not None:
                _sides(name, getattr(self, name))
        for name in ("scale", "ratio", "blur_sigma", *_JITTER_STEPS):
            object.__setattr__(self, name, _range(name, getattr(self, name)))
        object.__setattr__(self, "then", tuple(self.then))
        object.__setattr__(self, "before", tuple(self.before))
        object.__setattr__(self, "alternatives", tuple((spec, float(share)) for spec, share in self.alternatives))
        for name in ("mean", "std"):
            if isinstance(getattr(self, name), Iterable):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_alternatives()
        if self.jitter and not any(getattr(self, name) for name in _JITTER_STEPS):
            ranges = "brightness, contrast, saturation or hue, each (low, high)"
            raise ValueError(f"jitter={self.jitter} has nothing to do: give it {ranges}")

    def _before(self) -> tuple[Then, ...]:
        """Return the steps before the crop, and the colour of the window's padding as one."""
        return (*(self.window._before() if self.window else ()), *self.before)

    def _check_alternatives(self) -> None:
        for spec, share in self.alternatives:
            if spec.alternatives or spec.decided_with is not None or spec.mean is not None or spec.std is not None:
                raise ValueError("an alternative has alternatives, decided_with, mean or std: these are of the view")
            if not 0 <= share <= 1:
                raise ValueError(f"an alternative's probability is {share!r}, want [0, 1]")
        if sum(share for _, share in self.alternatives) > 1 + 1e-9:
            raise ValueError(f"the alternatives' probabilities {[share for _, share in self.alternatives]} exceed 1")

    @property
    def _sides(self) -> tuple[int, int]:
        return _sides("size", self.size)

    @property
    def height(self) -> int:
        return self._sides[0]

    @property
    def width(self) -> int:
        return self._sides[1]

    def _row(self) -> dict[str, Any]:
        """Return the fields of csrc/recipe.h that a view decides, by name."""
        if self.interpolation not in _INTERPOLATION:
            raise ValueError(f"interpolation is {self.interpolation!r}, want one of {', '.join(_INTERPOLATION)}")
        if self.window is not None and self.resize_short:
            raise ValueError("resize_short and window: give Window(resize=...) alone")
        via_height, via_width = _sides("via", self.via or 0)
        row = {
            "out_height": self.height,
            "out_width": self.width,
            "flip_probability": self.flip,
            "jitter_probability": self.jitter,
            "grayscale_probability": self.grayscale,
            "blur_probability": self.blur,
            "blur_kernel": self.blur_kernel,
            "solarize_probability": self.solarize,
            "solarize_threshold": self.solarize_threshold,
            "interpolation": _INTERPOLATION[self.interpolation],
            "resize_short": self.resize_short or 0,
            "via_height": via_height,
            "via_width": via_width,
            "box_of": -1 if self.box_of is None else self.box_of,
            "decided_with": 0 if self.decided_with is None else self.decided_with + 1,
        }
        for name in ("scale", "ratio", "blur_sigma", *_JITTER_STEPS):
            row[f"{name}_min"], row[f"{name}_max"] = getattr(self, name) or _ABSENT
        return row if self.window is None else {**row, **self.window._row()}


_FIELDS = ", ".join(field.name for field in dataclasses.fields(ViewSpec))


@dataclass(frozen=True)
class Recipe:
    """All views of a sample, how they are normalised and the structure of a batch.

    batch: what a loader gives, one of BATCHES:
        "views": the list of views, each a tensor (N, 3, height, width); "views_labels": (list, labels);
        "index_views_labels": [positions of the pack's records, list, labels] (solo-learn);
        "views_labels_masks": (list, labels, list of bool masks (N, rows, columns), one a view) (iBOT);
        "view_labels": (the only view, labels); "view_labels_masks": the same and a dict of MAE's masks;
        "view_mask_labels": [the only view, its mask (N, rows, columns), labels] (SimMIM); "views_mask_labels": ([all
        views, the first one's mask], labels) (BEiT); "views_flags": [list, whether the first view that has alternatives
        shows its own spec (N,) bool] (Mugs); "capi": CAPI's dict;
        "view_heatmap_labels": ([the only view, its heatmap (N, 1, height, width)], labels), of a dataset with heatmaps;
        "pair_labels", "pair_index": (both views one after the other on the channels (N, 6, height, width), labels or
        records); "dinov2": the dict of DINOv2's and DINOv3's collate; "ijepa": ([views, labels], encoder masks,
        predictor masks); "vissl": VISSL's dict of lists with data_valid and data_idx; "views_labels_companions":
        (list, labels, dict of which view of each sample shows a companion, and which: data.companions.companions_dict).
    channels: 3, or 1 for gray: pictures become gray as by PIL's convert("L") when they are decoded, and views are
        (N, 1, height, width). With 3 a gray picture has three equal channels.
    mean, std: one number for all channels, or one for each; kept as one for each.
    masks: how masks are drawn, for the batches that have some: IBOTMasks, StratifiedMasks, StratifiedInverseBlocks,
        MultiBlockMasks, RandomMasks, CoarseMasks, BlockMasks, InverseBlockMasks.
    pillow: 12 or 13. Pillow 13 runs the two passes of some resizes in the other order, which moves about a tenth of
        such a view's values, nearly all by one level. The default is what the installed Pillow does, decided when the
        recipe is made; name it where a run must be repeated on machines with another Pillow.
    companion: the probability that one view of a sample, drawn evenly among all, takes its pixels from a companion of
        the record, where the dataset has one (ShardDataset's `companions`).
    """

    name: str
    views: tuple[ViewSpec, ...]
    mean: ChannelValues = IMAGENET_MEAN
    std: ChannelValues = IMAGENET_STD
    batch: str = "views_labels"
    masks: Masks | None = None
    source: str = ""
    pillow: int = field(default_factory=installed_pillow)
    companion: float = 0.0
    channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        _check_batch(self)
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels!r}, want 3, or 1 for gray")
        mean, std = (_a_channel(values, self.channels) for values in (self.mean, self.std))
        if len(mean) != self.channels or len(std) != self.channels or not all(s > 0 for s in std):
            want = "three numbers each" if self.channels == 3 else "one number each, as channels is 1"
            raise ValueError(f"mean {self.mean} and std {self.std}: want {want}, std above 0")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "std", std)
        if self.pillow not in _RESIZE_ORDER:
            raise ValueError(f"pillow is {self.pillow!r}, want 12 or 13")
        if not 0 <= self.companion <= 1:
            raise ValueError(f"companion is {self.companion!r}, want a probability")
        if self.companion and self.structure.heatmaps:
            raise ValueError("companion: a heatmap goes with the original's picture, and a companion has none")
        if self.companion and any(view.box_of is not None for view in self.views):
            raise ValueError("companion: views that share a crop box (box_of) must be of one picture")
        self._check_norms()
        if any(view.box_of is not None and view.before != self.views[view.box_of].before for view in self.views
               if view.box_of is None or 0 <= view.box_of < len(self.views)):  # fmt: skip
            raise ValueError(
                "box_of: views of one box are cut from one picture and have the same steps before the crop"
            )
        steps = self.step_rows()
        if steps is not None and self.structure.heatmaps:
            raise ValueError("then: a heatmap goes with a view that is cropped, resized and flipped, and no more")
        _C.check_recipe(self.rows(), steps)

    @classmethod
    def from_torchvision(cls, transform: Any, *, name: str | None = None, batch: str | None = None) -> Recipe:
        """Make a recipe from a transform object that a script already has. torchvision is not needed.

        transform: a Compose of one view's steps (torchvision's transforms or transforms.v2, taking PIL pictures), a
            list of such transforms, one a view, or an object of several views: DINO's DataAugmentationDINO, MoCo's
            TwoCropsTransform, SwAV's MultiCropDataset, or another one that returns a list of its transforms' results.
        name: the recipe's; the transform's class unless given.
        batch: as in Recipe; "views" for SwAV's dataset and "views_labels" for all others unless given.

        The views have the same distribution as the transform's, and the same bytes on PIL pictures for the same drawn
        numbers (v2's ToDtype differs in the last bit: docs/from-torchvision.md). An object that is not torchvision's
        is known by what it does to small pictures; the random states of Python, numpy and torch stay as they are.
        Raises ValueError that names the step for which no recipe does that, and the way to write the views by hand.

        >>> Recipe.from_torchvision(DataAugmentationDINO((0.4, 1.0), (0.05, 0.4), 8))
        """
        from .from_torchvision import translate, with_way_out  # imports PIL.Image

        with with_way_out():
            read = translate(transform)
            recipe = cls(
                name or read.name, tuple(map(_spec_of, read.views)), mean=read.mean, std=read.std, batch=read.batch,
                source=f"from_torchvision({read.name})",
            )  # fmt: skip
        return dataclasses.replace(recipe, batch=batch) if batch else recipe

    @classmethod
    def from_timm(cls, transform: Any, *, name: str | None = None, batch: str = "view_labels") -> Recipe:
        """Make a recipe from what timm's create_transform returns, for training or evaluation. timm is not needed.

        transform: a Compose, or with separate=True the tuple of three. It must normalize: use_prefetcher=False, which
        is create_transform's default. name, batch and what is raised: as in from_torchvision.

        >>> Recipe.from_timm(create_transform(224, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25))
        """
        from .from_torchvision import timms, with_way_out

        with with_way_out():
            whole = timms(transform)
        return cls.from_torchvision(whole, name=name or "create_transform", batch=batch)

    def _check_norms(self) -> None:
        for number, (mean, std) in enumerate(self.norms()):
            if len(mean) != self.channels or len(std) != self.channels or not all(one > 0 for one in std):
                raise ValueError(f"view {number}: mean {mean} and std {std}: want as many as channels, std above 0")

    @property
    def structure(self) -> BatchStructure:
        """What a batch consists of."""
        return BATCHES[self.batch]

    def rows(self) -> np.ndarray:
        """Return the views, then their alternatives, as rows of a structured dtype: the form in which a recipe crosses
        into C++."""
        found = [view._row() for view in self.views]
        for number, view in enumerate(self.views):
            bounds = itertools.accumulate(share for _, share in view.alternatives)
            for (spec, _), bound in zip(view.alternatives, bounds):
                found.append({**spec._row(), "instead_of": number + 1, "instead_below": min(bound, 1.0)})
        rows = np.zeros(len(found), dtype=_C.view_spec_dtype)  # padding too: states hold a digest of the bytes
        rows["resize_order"] = _RESIZE_ORDER[self.pillow]
        for index, row in enumerate(found):
            for name, value in row.items():
                rows[name][index] = value
        return rows

    def _specs(self) -> list[ViewSpec]:
        """Return the specs of `rows`."""
        return [*self.views, *(spec for view in self.views for spec, _ in view.alternatives)]

    def row_bytes(self) -> bytes:
        """Return `rows` as bytes that stay the same from version to version: states and comparisons hold them.

        Fields that were added after resize_short and box_of are in it where some view uses them, those after the
        paddings too.
        """
        rows = self.rows()
        known = rows.view(np.uint8).reshape(len(rows), -1)
        fields: Any = _C.view_spec_dtype.fields
        ends = [fields[name][1] + 4 for name in ("box_of", "pad_bottom")]
        first, windows, last = np.split(known, ends, axis=1)
        later = known[:, ends[0] :] if last.any() else windows
        return first.tobytes() + (later.tobytes() if later.any() else b"")

    def step_rows(self) -> np.ndarray | None:
        """Return the views' further steps as rows of a structured dtype, as `rows`; None where there are none."""
        return rows_of([(view._before(), view.then) for view in self._specs()], self.channels)

    @property
    def erases(self) -> bool:
        """Whether a step runs after normalisation."""
        rows = self.step_rows()
        return rows is not None and bool((rows["op"] == OPS["erase"]).any())

    @property
    def plan_dtype(self) -> np.dtype[Any]:
        """The type of a plan's row: pass_loader.plan_dtype, and where views have further steps the field "steps" after
        it, so many as the longest row of them."""
        return _C.plan_dtype(_C.check_recipe(self.rows(), self.step_rows()))

    def roles(self) -> list[str]:
        """Return the role of each view: "gram" (a gram teacher's) where it has another view's box, "local" where it is
        smaller than the first view, else "global"."""
        first = self.views[0].height * self.views[0].width
        return [
            "gram" if view.box_of is not None else "local" if view.height * view.width < first else "global"
            for view in self.views
        ]

    @property
    def norms_differ(self) -> bool:
        """Whether some views have a mean or std of their own."""
        return any(view.mean is not None or view.std is not None for view in self.views)

    def norms(self) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """Return mean and std of each view, one number a channel."""

        def of(own: ChannelValues | None, shared: ChannelValues) -> tuple[float, ...]:
            return _a_channel(shared if own is None else own, self.channels)

        return [(of(view.mean, self.mean), of(view.std, self.std)) for view in self.views]

    def normalize_table(self, view: int = 0) -> np.ndarray:
        """Return (channels, 256) float32: what each byte of each channel becomes in this view.

        torchvision's ToTensor then Normalize, in their float32 steps: x / 255, minus mean, divided by std.
        """
        scaled = np.arange(256, dtype=np.float32) / np.float32(255)
        mean, std = (np.array(values, dtype=np.float32)[:, None] for values in self.norms()[view])
        with np.errstate(over="ignore"):  # infinite beyond float32's range, as torch has it
            return np.ascontiguousarray((scaled[None] - mean) / std)

    def override(self, views: Iterable[int] | None = None, **fields: Any) -> Recipe:
        """Return a recipe with some fields of its views changed, in all views or in those whose indices are given.

        >>> dino().override(views=[1], solarize=0.0)
        """
        chosen = range(len(self.views)) if views is None else list(views)
        for index in chosen:
            if not -len(self.views) <= index < len(self.views):
                raise ValueError(f"views={chosen}: there is no view {index}, {self.name} has {len(self.views)}")
        if unknown := {*fields} - {field.name for field in dataclasses.fields(ViewSpec)}:
            raise ValueError(f"a view has no field {', '.join(sorted(unknown))}; it has {_FIELDS}")
        changed = list(self.views)
        for index in chosen:
            changed[index] = dataclasses.replace(changed[index], **fields)
        return dataclasses.replace(self, views=tuple(changed))

    def __str__(self) -> str:
        columns = [
            f.name for f in dataclasses.fields(ViewSpec)
            if f.name not in ("then", "before", "alternatives")
            and (f.name not in _UNUSUAL or any(getattr(view, f.name) != f.default for view in self.views))
        ]  # fmt: skip
        groups: list[tuple[ViewSpec, list[int]]] = []
        for index, view in enumerate(self.views):
            if groups and groups[-1][0] == view:
                groups[-1][1].append(index)
            else:
                groups.append((view, [index]))
        shown: list[tuple[str, ViewSpec]] = []
        for view, places in groups:
            head = f"{places[0]}" if len(places) == 1 else f"{places[0]}-{places[-1]}"
            shown += [(head, view), *((f"{head} p {share:.4g}", spec) for spec, share in view.alternatives)]
        heads = ["view", *(head for head, _ in shown)]
        table = [heads] + [[name] + [_show(getattr(view, name)) for _, view in shown] for name in columns]
        widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table]
        lines.insert(0, f"{self.name}: {len(self.views)} views, batch {self.batch}   {self.source}")
        for head, view in shown:
            for when, steps in (("before the crop", view.before), ("then", view.then)):
                for one, count in _runs(steps):
                    text = f"view {head} {when}: " + (f"{count} times " if count > 1 else "") + str(one)
                    lines += textwrap.wrap(text, _LINE, subsequent_indent="    ", break_on_hyphens=False)
        if self.masks is not None:
            lines.append(f"masks {self.masks}")
        if self.companion:
            lines.append(f"companion {_show(self.companion)}: so often one view, drawn evenly, is of a companion")
        gray = "one channel, " if self.channels == 1 else ""
        lines.append(f"{gray}mean {_show(self.mean)}, std {_show(self.std)}; resize as Pillow {self.pillow}")
        return "\n".join(lines)


def _spec_of(fields: dict[str, Any]) -> ViewSpec:
    """Return the ViewSpec of fields, in which alternatives are fields too."""
    others = tuple((_spec_of(one), share) for one, share in fields.get("alternatives", ()))
    return ViewSpec(**{**fields, "alternatives": others})


def _check_batch(recipe: Recipe) -> None:
    """Raise ValueError where views and masks do not fit the batch's structure."""
    if recipe.batch not in BATCHES:
        raise ValueError(f"batch is {recipe.batch!r}, want one of {', '.join(BATCHES)}")
    want, views = recipe.structure, recipe.views
    if want.views is not None and len(views) != want.views:
        raise ValueError(f"batch {recipe.batch!r} is of {want.views} views, the recipe has {len(views)}")
    if want.on_channels and views[0]._sides != views[1]._sides:
        raise ValueError(f"batch {recipe.batch!r}: both views must have one size")
    if not isinstance(recipe.masks, want.masks):
        masks = "no masks" if want.masks is type(None) else want.masks.__name__
        raise ValueError(f"batch {recipe.batch!r} wants {masks}, the recipe has masks {recipe.masks}")


def _a_channel(values: ChannelValues, channels: int) -> tuple[float, ...]:
    return tuple(values) if isinstance(values, Iterable) else (values,) * channels


def _sides(name: str, size: Size) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Iterable) else (size, size)
    try:
        height, width = map(operator.index, sides)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {size!r}, want whole pixels: a side or (height, width)") from None
    return height, width


def _range(name: str, values: Any) -> Range | None:
    """Check a range of a view. None: the step is absent."""
    if values is None and name in _JITTER_STEPS:
        return None
    if isinstance(values, Iterable) and not isinstance(values, str):
        ends = tuple(values)
        if len(ends) == 2 and all(isinstance(end, numbers.Real) for end in ends):
            return ends
    hint = ""
    if isinstance(values, numbers.Real) and name in _JITTER_STEPS:
        strength = float(values)
        low, high = (-strength, strength) if name == "hue" else (max(0.0, 1 - strength), 1 + strength)
        hint = f"; ColorJitter({name}={strength:g}) of torchvision is ({low:g}, {high:g})"
    raise ValueError(f"{name} is {values!r}, want a range (low, high){hint}")


def _runs(then: tuple[Then, ...]) -> list[tuple[Then, int]]:
    """Return the further steps, equal neighbours as one with their number."""
    return [(one, len(list(same))) for one, same in itertools.groupby(then)]


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " ".join(_show(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
