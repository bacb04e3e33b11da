"""Other loaders' pipelines for our recipes: as close as each library comes, differences in DIFFERS.

Each function takes the pictures' bytes, a recipe and a batch size, sets the library up, and returns what runs one
epoch: an iterator of batches, each a list of float32 tensors, one a view. Each library is set as its expert would set
it for one core, and its docstring says how: the fastest way that it has, as long as the views stay the recipe's. All
decode a picture once for all of its views, but for FFCV, and read bytes that are in memory or in the page cache.
"""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pass_loader import _C
from pass_loader.recipes import Recipe, ViewSpec

from .torchvision_cpu import torchvision  # noqa: F401  (declares operators)

# FFCV: numba on Debian's TBB hangs in its clean-up when the process ends.
os.environ.setdefault("NUMBA_THREADING_LAYER", "workqueue")

# torchvision's, whose window is one for all sigmas: twice the largest sigma of these recipes to each side. More taps
# cost more and change little.
BLUR_TAPS = 9

DIFFERS = {
    "torchvision v2, uint8 tensors": f"blur is a {BLUR_TAPS}-tap Gaussian, resize rounds otherwise",
    "SPDL, torchvision v2": f"FFmpeg's decoder, blur is a {BLUR_TAPS}-tap Gaussian, resize rounds otherwise",
    "DALI CPU": "fixed order of colour steps, hue a linear map, contrast around 128, a true Gaussian blur, own decoder",
    "albumentations + OpenCV": "resize without antialiasing, OpenCV's HSV",
    "FFCV": "no hue, grayscale, blur or solarize; one decode a view, with fast DCT; fixed order of colour steps; "
    "resize by INTER_AREA; channels last",
    "TurboLoader": "crops drawn otherwise, own resize",
    "libjpeg-turbo decode alone": "no views: what decoding alone costs by libjpeg-turbo",
}

Epoch = Callable[[], Iterator[list[torch.Tensor]]]


def v2_crop(view: ViewSpec) -> list[Callable]:
    """torchvision v2's crop and flip of one view."""
    from torchvision.transforms import InterpolationMode, v2

    crop = {"scale": view.scale, "ratio": view.ratio, "interpolation": InterpolationMode(view.interpolation)}
    return [
        v2.RandomResizedCrop((view.height, view.width), antialias=True, **crop),
        v2.RandomHorizontalFlip(view.flip),
    ]


def v2_steps(view: ViewSpec, recipe: Recipe, dtype: torch.dtype = torch.float32) -> list[Callable]:
    """torchvision v2's transforms of one view, from a uint8 tensor (3, height, width)."""
    from torchvision.transforms import v2

    steps = v2_crop(view)
    if view.jitter:
        jitter = v2.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue)
        steps.append(v2.RandomApply([jitter], p=view.jitter))
    if view.grayscale:
        steps.append(v2.RandomGrayscale(view.grayscale))
    if view.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(BLUR_TAPS, view.blur_sigma)], p=view.blur))
    if view.solarize:
        steps.append(v2.RandomSolarize(view.solarize_threshold, p=view.solarize))
    return [*steps, v2.ToDtype(dtype, scale=True), v2.Normalize(recipe.mean, recipe.std)]


def decode_jpeg(one: bytes) -> torch.Tensor:
    """Return the picture as uint8 (3, height, width), whose values lie as pil_to_tensor leaves them: channels last."""
    import simplejpeg

    return torch.from_numpy(simplejpeg.decode_jpeg(one)).permute(2, 0, 1)


def torchvision_v2(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """torchvision's own advice for speed: uint8 tensors until the last step, with antialiasing as on PIL pictures.

    simplejpeg decodes, faster than PIL; torchvision's own decoder does not load beside a CPU-only torch. One thread, as
    torch has on one core. BLUR_TAPS, not the papers' 23 taps: PIL's blur is no wider.
    """
    from torchvision.transforms import v2

    transforms = [v2.Compose(v2_steps(view, recipe)) for view in recipe.views]

    def sample(one: bytes) -> list[torch.Tensor]:
        picture = decode_jpeg(one)
        return [transform(picture) for transform in transforms]

    return lambda: collated(sample, data, batch_size)


def spdl_decoder(one: bytes) -> Callable[[bytes], torch.Tensor]:
    """Return what decodes a picture by FFmpeg to uint8 (3, height, width). one: any picture, to try it."""
    import spdl.io

    try:
        rgb = spdl.io.get_video_filter_desc(pix_fmt="rgb24")
        spdl.io.demux_image(one)
    except RuntimeError as error:  # it brings no FFmpeg
        raise ImportError(str(error)) from None

    def decode(one: bytes) -> torch.Tensor:
        frames = spdl.io.decode_packets(spdl.io.demux_image(one), filter_desc=rgb)
        return torch.from_numpy(spdl.io.to_numpy(spdl.io.convert_frames(frames))).permute(2, 0, 1)

    return decode


def spdl(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """SPDL decodes by FFmpeg, straight to RGB and in this thread: threads of its own would share the core.

    It has no such views (a filter graph of FFmpeg's for each view takes longer), so that torchvision makes them, set as
    above.
    """
    from torchvision.transforms import v2

    decode = spdl_decoder(data[0])
    transforms = [v2.Compose(v2_steps(view, recipe)) for view in recipe.views]

    def sample(one: bytes) -> list[torch.Tensor]:
        picture = decode(one)
        return [transform(picture) for transform in transforms]

    return lambda: collated(sample, data, batch_size)


def albumentations(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """OpenCV decodes, without threads of its own. The blur's window follows each sigma, which is its default.

    Resizes by the recipe's filter as OpenCV has it, without antialiasing: that is what its users run. INTER_AREA, the
    only one that antialiases, takes longer and is neither bilinear nor bicubic.
    """
    import albumentations as A
    import cv2

    cv2.setNumThreads(1)
    interpolation = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}

    def transform_of(view: ViewSpec) -> Callable:
        steps = [
            A.RandomResizedCrop(
                (view.height, view.width),
                scale=view.scale,
                ratio=view.ratio,
                interpolation=interpolation[view.interpolation],
            ),
            A.HorizontalFlip(p=view.flip),
            A.ColorJitter(view.brightness, view.contrast, view.saturation, view.hue, p=view.jitter),
            A.ToGray(p=view.grayscale),
            A.GaussianBlur(sigma_range=view.blur_sigma, p=view.blur),
        ]
        if view.solarize:
            threshold = view.solarize_threshold / 255
            steps.append(A.Solarize((threshold, threshold), p=view.solarize))
        return A.Compose(steps + [A.Normalize(recipe.mean, recipe.std)])

    transforms = [transform_of(view) for view in recipe.views]

    def sample(one: bytes) -> list[torch.Tensor]:
        picture = cv2.cvtColor(cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        return [torch.from_numpy(t(image=picture)["image"].transpose(2, 0, 1).copy()) for t in transforms]

    return lambda: collated(sample, data, batch_size)


def _dali_resize(view: ViewSpec) -> dict[str, Any]:
    """Return how DALI resizes a view: antialiased, as PIL does."""
    from nvidia.dali import types

    interpolation = {"bilinear": types.INTERP_LINEAR, "bicubic": types.INTERP_CUBIC}
    return {
        "size": (view.height, view.width), "interp_type": interpolation[view.interpolation], "antialias": True,
    }  # fmt: skip


def dali_decoded_crop(jpegs: Any, view: ViewSpec) -> Any:
    """Return the node of a view's crop, resized, of a node of JPEGs, of which no more than the crop is decoded."""
    from nvidia.dali import fn, types

    x = fn.decoders.image_random_crop(jpegs, device="cpu", output_type=types.RGB, random_area=view.scale,
                                      random_aspect_ratio=view.ratio)  # fmt: skip
    return fn.resize(x, **_dali_resize(view))


def dali_view(picture: Any, view: ViewSpec, recipe: Recipe, **options: Any) -> Any:
    """A node of a DALI pipeline with conditionals, on the device of `picture`, a node of uint8 RGB (height, width, 3).
    options: of crop_mirror_normalize."""
    from nvidia.dali import fn

    x = fn.random_resized_crop(
        picture, random_area=view.scale, random_aspect_ratio=view.ratio, **_dali_resize(view)
    )  # fmt: skip
    return _dali_steps(x, view, recipe, **options)


def _dali_steps(x: Any, view: ViewSpec, recipe: Recipe, **options: Any) -> Any:
    """Return the node of all that follows a view's crop."""
    from nvidia.dali import fn, types

    if view.jitter:
        if fn.random.coin_flip(probability=view.jitter, dtype=types.BOOL):
            x = fn.color_twist(
                x,
                brightness=fn.random.uniform(range=view.brightness),
                contrast=fn.random.uniform(range=view.contrast),
                saturation=fn.random.uniform(range=view.saturation),
                hue=fn.random.uniform(range=[360 * turns for turns in view.hue]),
            )
    if view.grayscale:
        if fn.random.coin_flip(probability=view.grayscale, dtype=types.BOOL):
            x = fn.hsv(x, saturation=0.0)
    if view.blur:
        if fn.random.coin_flip(probability=view.blur, dtype=types.BOOL):
            x = fn.gaussian_blur(x, sigma=fn.random.uniform(range=view.blur_sigma))  # the window follows each sigma
    if view.solarize:
        if fn.random.coin_flip(probability=view.solarize, dtype=types.BOOL):
            bright = x >= view.solarize_threshold
            x = fn.cast(x * (bright == False) + (255 - x) * bright, dtype=types.UINT8)  # noqa: E712
    mean, std = ([255 * number for number in numbers] for numbers in (recipe.mean, recipe.std))
    mirror = fn.random.coin_flip(probability=view.flip)
    return fn.crop_mirror_normalize(x, mean=mean, std=std, mirror=mirror, output_layout="CHW", **options)


def dali(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """DALI's CPU mode with its newer executor (exec_dynamic), which is the faster one, and one thread for operators.

    Decoded by its host decoder with its defaults; for recipes of one view by the decoder that crops, and decodes no
    more than that. Resizes are antialiased; the window of each blur follows its sigma, which is DALI's default.
    """
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=batch_size, num_threads=1, device_id=None, enable_conditionals=True, exec_dynamic=True)
    def pipeline():  # noqa: ANN202
        parts = [[np.frombuffer(one, np.uint8) for one in part] for part in chunks(data, batch_size)]
        jpegs = fn.external_source(source=parts, cycle=True, dtype=types.UINT8, ndim=1)
        if len(recipe.views) == 1:
            (view,) = recipe.views
            return _dali_steps(dali_decoded_crop(jpegs, view), view, recipe)
        picture = fn.decoders.image(jpegs, device="cpu", output_type=types.RGB)
        return tuple(dali_view(picture, view, recipe) for view in recipe.views)

    pipe = pipeline()
    pipe.build()

    def epoch() -> Iterator[list[torch.Tensor]]:
        for _ in range(len(data) // batch_size):
            yield [torch.from_numpy(view.as_array().copy()) for view in pipe.run()]

    return epoch


def ffcv(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """FFCV 1.0 as it ships, with one worker and the page cache, which are right where a file fits into memory.

    Its file holds the original JPEGs (its own writer would encode them anew, smaller). It has no way to make several
    views of one decoding. Its decoder crops, resizes by INTER_AREA and has no other filter; it has no blur.
    """
    from ffcv import transforms as T
    from ffcv.fields import RGBImageField
    from ffcv.fields.rgb_image import IMAGE_MODES, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader
    from ffcv.pipeline import PipelineSpec
    from ffcv.writer import DatasetWriter

    class OriginalJpegField(RGBImageField):
        def encode(self, destination, jpeg: bytes, allocate) -> None:  # noqa: ANN001
            header = _C.read_header(jpeg)
            destination["mode"] = IMAGE_MODES["jpg"]
            destination["height"], destination["width"] = header["height"], header["width"]
            destination["data_ptr"], storage = allocate(len(jpeg))
            storage[:] = np.frombuffer(jpeg, np.uint8)

    mean, std = (255 * np.array(numbers) for numbers in (recipe.mean, recipe.std))

    def pipeline_of(view: ViewSpec) -> PipelineSpec:
        crop = RandomResizedCropRGBImageDecoder((view.height, view.width), scale=view.scale, ratio=view.ratio)
        colour = [
            T.RandomBrightness(view.brightness[1] - 1, view.jitter),
            T.RandomContrast(view.contrast[1] - 1, view.jitter),
            T.RandomSaturation(view.saturation[1] - 1, view.jitter),
        ]
        output = [T.NormalizeImage(mean, std, np.float32), T.ToTensor(), T.ToTorchImage()]
        return PipelineSpec("image", crop, [T.RandomHorizontalFlip(view.flip), *colour, *output])

    folder = tempfile.TemporaryDirectory()
    beton = str(Path(folder.name) / "pictures.beton")
    DatasetWriter(beton, {"image": OriginalJpegField()}, num_workers=1).from_indexed_dataset([(one,) for one in data])
    pipelines = {f"view{index}": pipeline_of(view) for index, view in enumerate(recipe.views)} | {"image": None}
    loader = Loader(
        beton,
        batch_size,
        num_workers=1,
        batches_ahead=2,
        pipelines=pipelines,
        custom_fields={"image": OriginalJpegField},
    )

    def epoch() -> Iterator[list[torch.Tensor]]:
        assert folder  # the file lives as long as this function
        yield from map(list, loader)

    return epoch


def turboloader(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """Recipes of one view, a random resized crop and a flip, which it fuses with decoding a window of the JPEG.

    From a tar, as it wants it, with one worker, and with the antialiasing that is off by default, as PIL has it. Its
    cache of decoded pictures stays off: that would be no decoding at all.
    """
    import turboloader as turbo

    (view,) = recipe.views
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "pictures.tar"
    with tarfile.open(path, "w") as tar:
        for number, one in enumerate(data):
            member = tarfile.TarInfo(f"{number:08d}.jpg")
            member.size = len(one)
            tar.addfile(member, io.BytesIO(one))
    loader = turbo.DataLoader(str(path), batch_size, num_workers=1, image_size=(view.height, view.width),
                              output_format="pytorch", train_aug=True, hflip_prob=view.flip, antialias=True,
                              transform=turbo.Normalize(recipe.mean, recipe.std), drop_last=True)  # fmt: skip

    def epoch() -> Iterator[list[torch.Tensor]]:
        assert folder  # the file lives as long as this function
        for batch, _ in loader:
            yield [torch.as_tensor(batch)]

    return epoch


def decode_alone(data: list[bytes], recipe: Recipe, batch_size: int) -> Epoch:
    """simplejpeg's libjpeg-turbo with its exact DCT and upsampling, as PIL has them; the fast ones gain nothing."""
    import simplejpeg

    def epoch() -> Iterator[list[torch.Tensor]]:
        for chunk in chunks(data, batch_size):
            yield [torch.from_numpy(simplejpeg.decode_jpeg(one)) for one in chunk]

    return epoch


PEERS = {
    "torchvision v2, uint8 tensors": torchvision_v2,
    "SPDL, torchvision v2": spdl,
    "DALI CPU": dali,
    "albumentations + OpenCV": albumentations,
    "FFCV": ffcv,
    "libjpeg-turbo decode alone": decode_alone,
}
ONE_VIEW = {  # for recipes of one view without colour steps
    "torchvision v2, uint8 tensors": torchvision_v2,
    "SPDL, torchvision v2": spdl,
    "DALI CPU": dali,
    "TurboLoader": turboloader,
    "libjpeg-turbo decode alone": decode_alone,
}
NEEDS = {  # without this module the row is skipped
    "torchvision v2, uint8 tensors": "simplejpeg",
    "SPDL, torchvision v2": "spdl.io",
    "DALI CPU": "nvidia.dali",
    "albumentations + OpenCV": "albumentations",
    "FFCV": "ffcv",
    "TurboLoader": "turboloader",
    "libjpeg-turbo decode alone": "simplejpeg",
}
SLOW = {"torchvision v2, uint8 tensors", "SPDL, torchvision v2", "DALI CPU", "FFCV"}  # fewer rounds


def collated(sample: Callable[[bytes], list[torch.Tensor]], data: list[bytes], size: int) -> Iterator[Any]:
    for chunk in chunks(data, size):
        yield torch.utils.data.default_collate([sample(one) for one in chunk])


def chunks(data: list[bytes], size: int) -> Iterator[list[bytes]]:
    parts = iter(data)
    while len(chunk := list(itertools.islice(parts, size))) == size:
        yield chunk
