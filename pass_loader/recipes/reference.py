"""The oracle: the same plans, executed by Pillow. Slow and obvious; imported by tests and benchmarks only.

Every step is the call that the official scripts reach through torchvision's transforms on PIL pictures.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from .recipe import _RESIZE_ORDER, Recipe, installed_pillow
from .steps import OP_NAMES, OPS

_PADDING: dict[int, Literal["edge", "reflect", "symmetric"]] = {2: "edge", 3: "reflect", 4: "symmetric"}
_TURNS = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


def decode(data: bytes, channels: int = 3) -> Image.Image:
    """Decode a picture as the official datasets do: no Exif rotation, truncated files refused.

    RGB, or L with 1 channel; gray of 16 bits stays in Pillow's mode "I;16".
    """
    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode == "I;16":
            return picture.copy()
        return picture.convert("RGB" if channels == 3 else "L")


def render(picture: Image.Image, plan: np.void) -> np.ndarray:
    """Execute one plan row on one decoded picture.

    picture: RGB, L or I;16, full resolution. Returns (out_height, out_width, 3 or 1) uint8, of I;16 uint16, before
    normalisation. Pillow has no other step than the first three for I;16.
    Order of steps: those in plan["steps"] that stand before the crop, crop, resize, flip, jitter, grayscale, blur,
    solarize, then the others in plan["steps"]. What erases is left to `erase`.
    """
    steps = plan["steps"] if "steps" in (plan.dtype.names or ()) else []
    ground: tuple[int, ...] = (0, 0, 0)
    for step in steps:
        if step["op"] == OPS["ground"]:
            ground = tuple(int(value) for value in step["fill"])
        elif step["op"] and step["before"]:
            picture = _further(picture, step)
    view = _crop_and_resize(picture, plan, ground=ground)
    if plan["flip"]:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for step in plan["jitter_order"]:
        if step == 0:
            view = ImageEnhance.Brightness(view).enhance(float(plan["brightness"]))
        elif step == 1:
            view = ImageEnhance.Contrast(view).enhance(float(plan["contrast"]))
        elif step == 2:
            view = ImageEnhance.Color(view).enhance(float(plan["saturation"]))
        elif step == 3:
            view = _shift_hue(view, float(plan["hue"]))
    if plan["grayscale"]:
        view = Image.merge(view.mode, [view.convert("L")] * len(view.getbands()))
    if plan["blur_sigma"] > 0 and plan["blur_kernel"]:
        view = _kernel_blur(view, int(plan["blur_kernel"]), float(plan["blur_sigma"]))
    elif plan["blur_sigma"] > 0:
        view = view.filter(ImageFilter.GaussianBlur(radius=float(plan["blur_sigma"])))
    if plan["solarize_threshold"] >= 0:
        view = ImageOps.solarize(view, threshold=int(plan["solarize_threshold"]))
    for step in steps:
        if step["op"] in (0, OPS["erase"]):
            break
        view = view if step["before"] else _further(view, step)
    return np.asarray(view).reshape(view.height, view.width, -1)


def _further(view: Image.Image, step: np.void) -> Image.Image:
    """Execute one further step. A gray view stays in mode L."""
    op = OP_NAMES[int(step["op"])]
    factor, level = float(step["factor"]), int(step["level"])
    if op in ("affine", "perspective"):
        fill = tuple(int(value) for value in step["fill"])
        resample = Image.Resampling(int(step["resample"]))
        method, count = (Image.Transform.AFFINE, 6) if op == "affine" else (Image.Transform.PERSPECTIVE, 8)
        matrix = [float(value) for value in step["matrix"][:count]]
        return view.transform(view.size, method, matrix, resample, fillcolor=fill[0] if view.mode == "L" else fill)
    if op == "solarize_add":
        return view.point([min(255, x + level) if x < 128 else x for x in range(256)] * len(view.getbands()))
    if op == "posterize" and level == 0:  # Pillow 13 raises
        return Image.new(view.mode, view.size)
    if op == "kernel_blur":
        return _kernel_blur(view, level, factor) if factor > 0 else view
    calls: dict[str, Callable[[], Image.Image]] = {
        "autocontrast": lambda: ImageOps.autocontrast(view),
        "equalize": lambda: ImageOps.equalize(view),
        "invert": lambda: ImageOps.invert(view),
        "posterize": lambda: ImageOps.posterize(view, level),
        "solarize": lambda: ImageOps.solarize(view, level),
        "brightness": lambda: ImageEnhance.Brightness(view).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(view).enhance(factor),
        "saturation": lambda: ImageEnhance.Color(view).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(view).enhance(factor),
        "hue": lambda: _shift_hue(view, factor),
        "grayscale": lambda: Image.merge(view.mode, [view.convert("L")] * len(view.getbands())),
        "blur": lambda: view.filter(ImageFilter.GaussianBlur(radius=factor)),
        "flip": lambda: ImageOps.mirror(view),
        "vertical_flip": lambda: ImageOps.flip(view),
        "quarter_turn": lambda: view.transpose(_TURNS[level]),
    }
    return calls[op]()


def render_sample(
    original: Image.Image, plans: np.ndarray, companion: Image.Image | None = None, view: int = -1
) -> list[np.ndarray]:
    """Render all views of a sample: number `view` shows its companion, all others the original; -1: all the original.

    As GenView's pipelines (xiaojieli0903/genview 38a6a78, mmpretrain/datasets/transforms/wrappers.py:81-103).
    """
    pictures = [companion if number == view else original for number in range(len(plans))]
    return [render(picture, plan) for picture, plan in zip(pictures, plans) if picture is not None]


def heatmap(picture: Image.Image, plan: np.void) -> np.ndarray:
    """Render a sample's second picture, L or I;16, by one plan row: same box, window and flip, nearest pixels.

    Returns (1, out_height, out_width) float32, as from ToTensor.
    """
    view = _crop_and_resize(picture, plan, Image.Resampling.NEAREST)
    if plan["flip"]:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.asarray(view)
    return pixels[None].astype(np.float32) / np.float32(65535 if pixels.dtype == np.uint16 else 255)


def _crop_and_resize(
    picture: Image.Image, plan: np.void, interpolation: Image.Resampling | None = None,
    ground: tuple[int, ...] = (0, 0, 0),
) -> Image.Image:  # fmt: skip
    x, y = int(plan["crop_x"]), int(plan["crop_y"])
    if interpolation is None:
        interpolation = Image.Resampling(int(plan["interpolation"]))
    view = picture.crop((x, y, x + int(plan["crop_width"]), y + int(plan["crop_height"])))
    order = int(plan["resize_order"])
    if plan["via_height"]:
        view = _resize(view, int(plan["via_height"]), int(plan["via_width"]), interpolation, order)
    view = _resize(view, int(plan["resize_height"]), int(plan["resize_width"]), interpolation, order)
    return _window(view, plan, ground)


def _window(view: Image.Image, plan: np.void, ground: tuple[int, ...]) -> Image.Image:
    """Cut the window out. Where it leaves the picture, it shows what torchvision's pad adds: a colour by Pillow, or one
    of numpy.pad's modes."""
    left, top = int(plan["offset_x"]), int(plan["offset_y"])
    width, height = int(plan["out_width"]), int(plan["out_height"])
    if plan["padding"] > 1:
        before = max(-top, 0), max(-left, 0)
        after = max(top + height - view.height, 0), max(left + width - view.width, 0)
        pixels = np.asarray(view)
        pads = [*zip(before, after), (0, 0)][: pixels.ndim]
        view = Image.fromarray(np.pad(pixels, pads, mode=_PADDING[int(plan["padding"])]))
        left, top = left + before[1], top + before[0]
    if any(ground) and plan["padding"]:
        whole = Image.new(view.mode, (width, height), ground[0] if view.mode == "L" else ground)
        whole.paste(view, (-left, -top))
        return whole
    return view.crop((left, top, left + width, top + height))


def _resize(
    view: Image.Image, height: int, width: int, interpolation: Image.Resampling, resize_order: int
) -> Image.Image:
    """Resize by Image.resize; where the plan wants another Pillow's order of passes, by two passes."""
    if _RESIZE_ORDER[installed_pillow()] == resize_order:
        return view.resize((width, height), interpolation)
    rows, columns = view.height - height, view.width - width  # how many each pass takes away
    if resize_order == 1:
        vertical_first = rows > 0 and view.height > 100 * view.width
    else:
        vertical_first = rows > 0 and rows > 2 * columns
    between = (view.width, height) if vertical_first else (width, view.height)
    return view.resize(between, interpolation).resize((width, height), interpolation)


def _shift_hue(view: Image.Image, turns: float) -> Image.Image:
    """Shift the hue as torchvision's adjust_hue on PIL (transforms/_functional_pil.py)."""
    if view.mode == "L":
        return view
    hue, saturation, value = view.convert("HSV").split()
    shifted = (np.asarray(hue).astype(np.int32) + int(turns * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(shifted.astype(np.uint8)), saturation, value)).convert("RGB")


def _kernel_blur(view: Image.Image, taps: int, sigma: float) -> Image.Image:
    """Blur as torchvision's gaussian_blur (transforms/_functional_tensor.py), call for call.

    Only exp differs, which is rounded from double here: MKL's float exp is off by one in the last place of every
    hundredth value.
    """
    import torch

    x = torch.linspace(-(taps // 2), taps // 2, taps)
    weight = torch.exp((-0.5 * (x / sigma).pow(2)).double()).float()
    weight /= weight.sum()
    kernel = torch.mm(weight[:, None], weight[None, :]).expand(len(view.getbands()), 1, taps, taps)
    planes = np.array(view).reshape(view.height, view.width, -1)
    pixels = torch.from_numpy(planes).permute(2, 0, 1)[None].float()
    padded = torch.nn.functional.pad(pixels, [taps // 2] * 4, mode="reflect")
    blurred = torch.nn.functional.conv2d(padded, kernel, groups=planes.shape[2])[0].round().byte()
    return Image.fromarray(blurred.permute(1, 2, 0).squeeze(2).contiguous().numpy())


def normalize(view: np.ndarray, recipe: Recipe, number: int = 0) -> np.ndarray:
    """Normalise as ToTensor and Normalize in torch's own arithmetic: (H, W, channels) uint8 to (channels, H, W)
    float32.

    (H, W, 1) uint16 is divided by 65535 and fills all channels.
    """
    import torch

    deep = view.dtype == np.uint16
    tensor = torch.from_numpy(view.transpose(2, 0, 1).astype(np.float32)).div(65535 if deep else 255)
    tensor = tensor.expand(recipe.channels, -1, -1).clone()
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in recipe.norms()[number])
    return tensor.sub_(mean).div_(std).numpy()


def erase(view: np.ndarray, plan: np.void) -> np.ndarray:
    """Erase the rectangles of a plan row's steps in a normalised view, (channels, H, W) float32, as timm's
    RandomErasing does on such a tensor. Returns a copy."""
    view = view.copy()
    for step in plan["steps"] if "steps" in (plan.dtype.names or ()) else ():
        if step["op"] != OPS["erase"]:
            continue
        left, top, width, height = (int(value) for value in step["matrix"][:4])
        values = np.asarray(step["matrix"][4 : 4 + len(view)], np.float32)[:, None, None]
        if step["level"] == 2:
            values = _noise(len(view) * height * width, *step["matrix"][4:6].tolist()).reshape(-1, height, width)
        view[:, top : top + height, left : left + width] = values
    return view


def _noise(count: int, high: float, low: float) -> np.ndarray:
    """Return (count,) float32 normal numbers of the two words in an erasing step: Philox4x32-10 by their places, and
    the quantiles of the normal distribution."""
    pairs = [philox([block, 0, 0, 0x45524153], int(high) << 32 | int(low)) for block in range((count + 1) // 2)]
    uniform = np.array([((a << 32 | b) >> 11) * 2.0**-53 for w in pairs for a, b in (w[:2], w[2:])][:count])
    quantile = statistics.NormalDist().inv_cdf
    return np.array([quantile(max(u, 2.0**-54)) for u in uniform.tolist()], np.float32)


def philox(counter: list[int], key: int) -> list[int]:
    """Return the four words of Philox4x32-10 (Salmon et al., SC 2011)."""
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [(b >> 32) ^ counter[1] ^ keys[0], b & 0xFFFFFFFF, (a >> 32) ^ counter[3] ^ keys[1], a & 0xFFFFFFFF]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter
