"""What an import brings in, counted in modules: numpy alone for the package, pyarrow for packs, torch for batches."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pass_loader

pytestmark = pytest.mark.slow

HEAVY = {"numpy", "PIL.Image", "pandas", "pyarrow", "torch", "torchvision", "tqdm"}
NEED_TORCH = {"ConcatDataset", "DataLoader", "EpochSampler", "MixedLoader", "ShardDataset", "cuda_available",
              "cuda_reason", "normalize"}  # fmt: skip


def run(code: str, *, torch: bool = True) -> str:
    """Return what a fresh process prints. torch: whether it is installed there."""
    hidden = "" if torch else "import sys; sys.modules['torch'] = None\n"
    done = subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def heavy_after(code: str) -> set[str]:
    """Return the libraries of HEAVY that are imported after `code`."""
    return HEAVY.intersection(run(f"{code}\nimport sys; print(*sys.modules)").split())


def test_the_package_imports_numpy_alone() -> None:
    """At most ten modules beside numpy's, which keeps the time near numpy's own."""
    code = "import sys, numpy\nbefore = set(sys.modules)\nimport pass_loader\nprint(*set(sys.modules) - before)"
    added = set(run(code).split())
    assert len(added) <= 10 and HEAVY.isdisjoint(added), sorted(added)
    assert heavy_after("import pass_loader") == {"numpy"}
    assert heavy_after("import pass_loader; dir(pass_loader), pass_loader.__version__") == {"numpy"}


def test_recipes_and_plans_need_no_pyarrow() -> None:
    for code in ("recipes.dino().rows()", "Recipe", "ViewSpec(size=8)", "plan_dtype", "render_plan", "PackError"):
        assert heavy_after(f"import pass_loader; pass_loader.{code}") == {"numpy"}, code


def test_packs_need_no_torch() -> None:
    """Pillow is for contact sheets and transforms, tqdm for progress."""
    for code in ("import pass_loader; pass_loader.Samples", "import pass_loader.pack", "import pass_loader.cli.main"):
        found = heavy_after(code)
        assert {"numpy", "pyarrow"} <= found <= {"numpy", "pyarrow", "tqdm", "PIL.Image"}, (code, found)


def test_names_that_need_torch_say_so() -> None:
    """And all others are there without it."""
    code = """
import pass_loader
for name in pass_loader.__all__:
    try:
        getattr(pass_loader, name)
    except ImportError as error:
        print(name, error, error.name)
"""
    told = run(code, torch=False).splitlines()
    want = {f"{name} pass_loader.{name} needs torch: pip install torch torch" for name in NEED_TORCH}
    assert set(told) == want
    assert NEED_TORCH < set(pass_loader.__all__)
    assert "torch" in heavy_after("import pass_loader; pass_loader.DataLoader")


def test_another_missing_library_is_not_taken_for_torch() -> None:
    code = """
import sys
sys.modules["pyarrow"] = None
import pass_loader
try:
    pass_loader.DataLoader
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(code) == "pyarrow\n"
