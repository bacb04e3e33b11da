"""The objects of official repositories, each built from a checkout's own text.

Files are not imported, which would need all that their scripts need: of a file the imports that can be had are made,
then the classes and functions that are asked for. What stands inside a script's function is taken from there.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from pass_loader import Recipe, recipes


@dataclass(frozen=True)
class Official:
    """An object of a repository.

    name: what it is. checkout: the folder's name. make: builds it from the checkout. preset: the recipe that follows
    it, or None. views: runs it where a call with a picture does not. timm: it is timm's create_transform. lenient: it
    hands Pillow a tensor as a blur's radius, which Pillow takes no more; it gets the number.
    """

    name: str
    checkout: str
    make: Callable[[Path], Any]
    preset: Callable[[], Recipe] | None = None
    views: Callable[[Any, Image.Image], Any] | None = None
    timm: bool = False
    lenient: bool = False


def _imports(tree: ast.Module, into: dict[str, Any]) -> None:
    """Make the imports of a file that can be made here."""
    for node in ast.walk(tree):
        names = node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        for alias in names:
            if alias.name == "*" or (isinstance(node, ast.ImportFrom) and node.level):
                continue
            try:
                if isinstance(node, ast.ImportFrom):
                    module = importlib.import_module(node.module or "")
                    value = getattr(module, alias.name, None) or importlib.import_module(f"{node.module}.{alias.name}")
                    into[alias.asname or alias.name] = value
                else:
                    module = importlib.import_module(alias.name)
                    into[alias.asname or alias.name.split(".")[0]] = (
                        module if alias.asname else sys.modules[alias.name.split(".")[0]]
                    )
            except Exception:  # what only the script's model or its logging needs
                continue


def picked(path: Path, *names: str, text: str | None = None, **given: Any) -> Namespace:
    """Return classes, functions and constants of a file by name. given: names that it would import."""
    tree = ast.parse(path.read_text() if text is None else text)
    space: dict[str, Any] = {"__name__": f"official.{path.stem}"}
    _imports(tree, space)
    space |= given
    for node in tree.body:
        targets = [one.id for one in getattr(node, "targets", []) if isinstance(one, ast.Name)]
        if getattr(node, "name", None) in names or {*targets} & {*names}:
            exec(compile(ast.Module([node], []), str(path), "exec"), space)
    return Namespace(**{name: space[name] for name in names}, space=space)


def assigned(path: Path, name: str, number: int = 0, text: str | None = None, **given: Any) -> Any:
    """Return what an assignment to `name` (or to self.name) gives, the number-th of the file, wherever it stands."""
    tree = ast.parse(path.read_text() if text is None else text)
    space: dict[str, Any] = {}
    _imports(tree, space)
    space |= given
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(getattr(one, "id", getattr(one, "attr", "")) == name for one in node.targets)
    ]
    found.sort(key=lambda node: node.lineno)
    return eval(compile(ast.Expression(found[number].value), str(path), "eval"), space)


def _dino(at: Path) -> Any:
    utils = picked(at / "utils.py", "GaussianBlur", "Solarization")
    return picked(at / "main_dino.py", "DataAugmentationDINO", utils=utils).DataAugmentationDINO(
        (0.4, 1.0), (0.05, 0.4), 8
    )


def _ibot(at: Path) -> Any:
    utils = picked(at / "utils.py", "GaussianBlur", "Solarization")
    made = picked(at / "main_ibot.py", "DataAugmentationiBOT", utils=utils)
    return made.DataAugmentationiBOT((0.25, 1.0), (0.05, 0.25), 2, 10)


def _like_dinov2(package: str, **options: Any) -> Callable[[Path], Any]:
    def make(at: Path) -> Any:
        folder = at / package / "data"
        names = "GaussianBlur", "make_normalize_transform", "IMAGENET_DEFAULT_MEAN", "IMAGENET_DEFAULT_STD"
        parts = picked(folder / "transforms.py", *names)
        given = {name: getattr(parts, name) for name in names}
        made = picked(folder / "augmentations.py", "DataAugmentationDINO", "logger", **given)
        return made.DataAugmentationDINO((0.32, 1.0), (0.05, 0.32), 8, **options)

    return make


def _swav(at: Path) -> Any:
    parts = "MultiCropDataset", "PILRandomGaussianBlur", "get_color_distortion"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "one").mkdir()
        Image.new("RGB", (8, 8)).save(Path(folder, "one", "picture.png"))
        made = picked(at / "src/multicropdataset.py", *parts, "logger")
        return made.MultiCropDataset(folder, [224, 96], [2, 6], [0.14, 0.05], [1.0, 0.14])


def _moco(number: int) -> Callable[[Path], Any]:
    def make(at: Path) -> Any:
        loader = picked(at / "moco/loader.py", "TwoCropsTransform", "GaussianBlur")
        script, moco = at / "main_moco.py", Namespace(loader=loader)
        normalize = assigned(script, "normalize")
        steps = assigned(script, "augmentation", number, normalize=normalize, moco=moco)
        return loader.TwoCropsTransform(transforms.Compose(steps))

    return make


def _simsiam(at: Path) -> Any:
    loader = picked(at / "simsiam/loader.py", "TwoCropsTransform", "GaussianBlur")
    script = at / "main_simsiam.py"
    steps = assigned(script, "augmentation", normalize=assigned(script, "normalize"), simsiam=Namespace(loader=loader))
    return loader.TwoCropsTransform(transforms.Compose(steps))


def _mocov3(at: Path) -> Any:
    loader = picked(at / "moco/loader.py", "TwoCropsTransform", "GaussianBlur", "Solarize")
    script = at / "main_moco.py"
    given = {
        "normalize": assigned(script, "normalize"),
        "moco": Namespace(loader=loader),
        "args": Namespace(crop_min=0.08),
    }
    views = [transforms.Compose(assigned(script, f"augmentation{number}", **given)) for number in (1, 2)]
    return loader.TwoCropsTransform(*views)


def _msn(at: Path) -> Any:
    return picked(
        at / "src/data_manager.py", "make_transforms", "MultiViewTransform", "GaussianBlur", "logger"
    ).make_transforms()


_FINE = {"input_size": 224, "color_jitter": None, "aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25, "remode": "pixel",
         "recount": 1, "norm_stats": None, "train_interpolation": "bicubic"}  # fmt: skip


def _build_transform(file: str, **options: Any) -> Callable[[Path], Any]:
    def make(at: Path) -> Any:
        return picked(at / file, "build_transform").build_transform(True, Namespace(**{**_FINE, **options}))

    return make


def _deit3(simple: bool) -> Callable[[Path], Any]:
    def make(at: Path) -> Any:
        names = "new_data_aug_generator", "GaussianBlur", "Solarization", "gray_scale"
        return picked(at / "augment.py", *names).new_data_aug_generator(
            Namespace(input_size=224, src=simple, color_jitter=0.3)
        )

    return make


def _simmim(at: Path) -> Any:
    made = picked(at / "data/data_simmim.py", "SimMIMTransform", "MaskGenerator")
    data = Namespace(IMG_SIZE=192, MASK_PATCH_SIZE=32, MASK_RATIO=0.6)
    return made.SimMIMTransform(Namespace(DATA=data, MODEL=Namespace(TYPE="swin", SWIN=Namespace(PATCH_SIZE=4))))


def _capi(at: Path) -> Any:
    norm = picked(at / "utils.py", "IMAGENET_MEAN", "IMAGENET_STD", "IMAGENET_NORM").IMAGENET_NORM
    config = Namespace(data=Namespace(crop_scale=[0.6, 1.0], do_hflip=True))
    return assigned(at / "train_capi.py", "transform", img_size=224, cfg=config, IMAGENET_NORM=norm)


def _lejepa(at: Path) -> Any:
    page = at / "MINIMAL.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    (code,) = [text for text in blocks if "RandomResizedCrop" in text]
    return [assigned(page, "aug", text=code, torch=torch, v2=importlib.import_module("torchvision.transforms.v2"))] * 4


def _mugs(at: Path) -> Any:
    rand = picked(at / "src/RandAugment.py", *_names_of(at / "src/RandAugment.py"))
    made = picked(
        at / "src/multicropdataset.py", "DataAugmentation", "GaussianBlur", "Solarization", "strong_transforms",
        rand_augment_transform=rand.rand_augment_transform,
    )  # fmt: skip
    return made.DataAugmentation((0.25, 1.0), (0.05, 0.25), 10)


def _names_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    return [*(node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))),
            *(one.id for node in tree.body if isinstance(node, ast.Assign) for one in node.targets
              if isinstance(one, ast.Name))]  # fmt: skip


class _Config(dict[str, Any]):
    """A configuration whose keys are attributes, as omegaconf's."""

    def __getattr__(self, name: str) -> Any:
        value = self[name]
        return _Config(value) if isinstance(value, dict) else value


def _solo(file: str) -> Callable[[Path], Any]:
    def make(at: Path) -> Any:
        import yaml

        names = ("build_transform_pipeline", "FullTransformPipeline", "NCropAugmentation", "GaussianBlur",
                 "Solarization", "Equalization")  # fmt: skip
        made = picked(at / "solo/data/pretrain_dataloader.py", *names)
        views = yaml.safe_load((at / "scripts/pretrain/imagenet/augmentations" / file).read_text())
        return made.FullTransformPipeline([
            made.NCropAugmentation(made.build_transform_pipeline("imagenet", _Config(view)), view["num_crops"])
            for view in views
        ])  # fmt: skip

    return make


def _lightly(name: str, **options: Any) -> Callable[[Path], Any]:
    return lambda at: getattr(_imported(at, "lightly.transforms"), name)(**options)


def _timm(**options: Any) -> Callable[[Path], Any]:
    return lambda at: _imported(at, "timm.data").create_transform(224, **options)


def _imported(at: Path, module: str) -> Any:
    if str(at) not in sys.path:
        sys.path.insert(0, str(at))
    return importlib.import_module(module)


def _officials() -> Iterator[Official]:
    yield Official("DataAugmentationDINO", "dino", _dino, recipes.dino)
    yield Official("DataAugmentationDINO", "dinov2", _like_dinov2("dinov2"), recipes.dinov2)
    pretrain = {"global_crops_size": 256, "local_crops_size": 112, "horizontal_flips": False}
    gram = {**pretrain, "gram_teacher_crops_size": 512, "gram_teacher_no_distortions": True}
    yield Official("DataAugmentationDINO", "dinov3", _like_dinov2("dinov3", **pretrain), recipes.dinov3)
    yield Official(
        "the same with gram crops", "dinov3", _like_dinov2("dinov3", **gram), lambda: recipes.dinov3(gram_size=512)
    )
    yield Official(
        "MultiCropDataset", "swav", _swav, recipes.swav, lambda made, picture: [one(picture) for one in made.trans]
    )
    yield Official("main_moco.py with --aug-plus", "moco", _moco(0), recipes.mocov2)
    yield Official("main_moco.py", "moco", _moco(1), recipes.mocov1)
    yield Official("main_moco.py", "moco-v3", _mocov3, recipes.mocov3)
    yield Official("main_simsiam.py", "simsiam", _simsiam, recipes.simsiam)
    parts = "GaussianBlur", "Solarization"
    yield Official("TrainTransform", "vicreg",
                   lambda at: picked(at / "augmentations.py", "TrainTransform", *parts).TrainTransform(),
                   recipes.vicreg)  # fmt: skip
    yield Official("Transform", "barlowtwins", lambda at: picked(at / "main.py", "Transform", *parts).Transform(),
                   recipes.barlow_twins)  # fmt: skip
    yield Official("make_transforms", "msn", _msn, recipes.msn, lenient=True)
    yield Official("DataAugmentationiBOT", "ibot", _ibot, recipes.ibot)
    size = Namespace(input_size=224, random_resize_range=(0.5, 1.0))
    yield Official("main_pretrain.py", "mae",
                   lambda at: assigned(at / "main_pretrain.py", "transform_train", args=size), recipes.mae)  # fmt: skip
    yield Official("build_transform", "mae", _build_transform("util/datasets.py"), recipes.mae_finetune, timm=True)
    nih = {"dataset_mean": [0.5056] * 3, "dataset_std": [0.252] * 3}
    yield Official("main_pretrain_multi_datasets_xray.py", "medical_mae",
                   lambda at: assigned(at / "main_pretrain_multi_datasets_xray.py", "transform_train", 1, args=size,
                                       resize_ratio_min=0.5, resize_ratio_max=1.0, **nih),
                   lambda: recipes.mae_thorax(mean=recipes.NIH_MEAN, std=recipes.NIH_STD))  # fmt: skip
    yield Official("build_transform", "medical_mae",
                   _build_transform("util/datasets.py", dataset="chestxray", aa="rand-m6-mstd0.5-inc1", reprob=0.0),
                   recipes.thorax_finetune, timm=True)  # fmt: skip
    yield Official("build_transform", "deit", _build_transform("datasets.py"), recipes.deit, timm=True)
    yield Official("new_data_aug_generator", "deit", _deit3(False), recipes.deit3)
    yield Official("the same with --src", "deit", _deit3(True), lambda: recipes.deit3(simple_crop=True))
    yield Official("SimMIMTransform", "SimMIM", _simmim, recipes.simmim)
    yield Official("train_capi.py", "capi", _capi, recipes.capi)
    franca = _like_dinov2("franca", local_crops_size=98)
    yield Official("DataAugmentationDINO", "Franca", franca, recipes.franca)
    yield Official("HFDataset of MINIMAL.md", "lejepa", _lejepa, lambda: recipes.lejepa(minimal=4))
    yield Official("DataAugmentation", "mugs", _mugs, getattr(recipes, "mugs", None))
    yield Official("asymmetric.yaml", "solo-learn", _solo("asymmetric.yaml"), recipes.byol)
    yield Official("symmetric.yaml", "solo-learn", _solo("symmetric.yaml"))
    for name in ("DINOTransform", "SwaVTransform", "MoCoV2Transform", "SimCLRTransform", "BYOLTransform",
                 "VICRegTransform", "MSNTransform", "MAETransform"):  # fmt: skip
        yield Official(name, "lightly", _lightly(name))
    yield Official("create_transform, training", "pytorch-image-models",
                   _timm(is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel",
                         interpolation="random"), recipes.timm_train, timm=True)  # fmt: skip
    yield Official("create_transform, evaluation", "pytorch-image-models", _timm(interpolation="bicubic"),
                   lambda: recipes.evaluate(interpolation="bicubic"), timm=True)  # fmt: skip


OFFICIALS = [*_officials()]
