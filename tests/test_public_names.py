"""What a user finds: names in completion and help, in `import *`, and the base of all errors."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import pass_loader
import pass_loader.pack
from pass_loader import recipes


def test_completion_shows_public_names_alone() -> None:
    assert sorted(dir(pass_loader)) == sorted([*pass_loader.__all__, "__version__"])
    assert sorted(dir(recipes)) == sorted(recipes.__all__) and sorted(dir(pass_loader.pack)) == sorted(
        pass_loader.pack.__all__
    )
    for module in (pass_loader, recipes, pass_loader.pack):
        for name in module.__all__:
            assert getattr(module, name) is not None and not name.startswith("_")


@pytest.mark.slow
def test_help_shows_every_public_name() -> None:
    found = subprocess.run(
        [sys.executable, "-c", "import pass_loader; help(pass_loader)"], capture_output=True, text=True, check=True
    ).stdout
    for name in pass_loader.__all__:
        assert name in found, name


def test_every_public_name_explains_itself() -> None:
    """Functions and classes have docstrings whose first line says what they do or give."""
    for module in (pass_loader, recipes, pass_loader.pack):
        for name in module.__all__:
            value = getattr(module, name)
            if not (inspect.isfunction(value) or inspect.isclass(value)):
                continue
            first = (inspect.getdoc(value) or "").splitlines()[:1]
            assert first and first[0], f"{module.__name__}.{name} has no docstring"
            assert first[0].split()[0] not in ("Of", "As", "Whether", "What", "Where"), f"{name}: {first[0]}"


def test_errors_have_one_base() -> None:
    for error in ("BadPictureError", "PackError", "RecordError", "ShardError"):
        assert issubclass(getattr(pass_loader, error), pass_loader.PassLoaderError)
    assert issubclass(pass_loader.PackError, ValueError) and issubclass(pass_loader.BadPictureError, ValueError)
    assert issubclass(pass_loader.RecordError, RuntimeError) and issubclass(pass_loader.ShardError, OSError)


@pytest.mark.slow
def test_names_without_torch() -> None:
    """Packing needs no torch, and importing the package loads none."""
    program = (
        "import sys; import pass_loader, pass_loader.pack, pass_loader.cli.main\n"
        "dir(pass_loader), pass_loader.recipes.dino(), pass_loader.Samples\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_unknown_name() -> None:
    for module in (pass_loader, pass_loader.pack):
        with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
            module.no_such_name  # noqa: B018
