"""The wheels of `make wheels`: what is in them, what they ask of a machine, and that they work where nothing else is.

PASS_LOADER_WHEELS names their folder; without it there is nothing to test. A wheel is installed and run for each Python
that this machine or Debian has, and so are the tests of pixels that need no torch: those of `make check`, on 3.11 those
of `make test`. Of those for another processor, under QEMU, 3.11 alone runs the scenario. PASS_LOADER_LONG=1: those of
`make test` on every Python; under QEMU the scenario on every Python, and the tests of pixels: on 3.11 those of
`make test`, elsewhere those of `make check`. PASS_LOADER_WHEELS_QUICK=1: those of `make check` everywhere, and the
wheels have no CUDA extension. PASS_LOADER_WHEELS_NOTES names a file that says afterwards what was run, for
wheels/runs.py.
"""

from __future__ import annotations

import email
import importlib.metadata
import importlib.util
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from wheels.runs import note

ROOT = Path(__file__).parent.parent
FOLDER = os.environ.get("PASS_LOADER_WHEELS")
WHEELS = sorted((ROOT / FOLDER).glob("*.whl")) if FOLDER else []
QUICK = bool(os.environ.get("PASS_LOADER_WHEELS_QUICK"))
MODULES = ("_C",) if QUICK else ("_C", "_cuda")
MOST_BYTES = 10_000_000
MOST_SECONDS = {"install": 3.0, "import": 0.05}  # of a core; the second above numpy's import
GLIBC = (2, 28)
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1"}
LINKER = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}
LICENCES = ["LICENSE", "third_party/NOTICE", "libjpeg-turbo-3", "libpng-1.6", "zlib-1.3", "zstd-1.5", "pybind11-"]
MADE_BY = [str(ROOT), str(Path.home()), "/tmp/", "/usr/include", "/usr/lib/gcc", "/usr/local", "site-packages"]
FOR_TESTS = ["pytest", "hypothesis", "scikit-learn"]  # what the tests of pixels import
BUILD = ROOT / "build/wheels"
# Processors that QEMU plays, and which tests of pixels run there: the second has no mixed dot products of bytes, the
# third no dot products, which resizes alone use.
RESIZES = ("test_deep.py", "test_gray.py", "test_render.py", "test_resample.py", "test_windows.py")
EMULATED = {"max": (), "neoverse-n1": RESIZES, "cortex-a72": RESIZES}
LONG = os.environ.get("PASS_LOADER_LONG", "0") != "0"
SCENARIO = ROOT / "tests/helpers/wheel_scenario.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WHEELS, reason="PASS_LOADER_WHEELS names no folder with wheels: `make wheels` does"),
]
each = pytest.mark.parametrize("wheel", WHEELS, ids=lambda path: "-".join(path.stem.split("-")[3:]))


def parts(wheel: Path) -> tuple[str, str, str]:
    """Return (cp313, cp313t, x86_64) of its name."""
    found = re.fullmatch(r"pass_loader-[\d.]+-(cp3\d+)-(cp3\d+t?)-manylinux_2_28_(\w+)\.whl", wheel.name)
    assert found is not None, wheel.name
    return found[1], found[2], found[3]


@cache
def unpacked(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def libraries(wheel: Path, tmp_path: Path) -> list[Path]:
    """The extensions of a wheel, as files."""
    with zipfile.ZipFile(wheel) as archive:
        return [Path(archive.extract(name, tmp_path)) for name in archive.namelist() if name.endswith(".so")]


def readelf(*words: object) -> str:
    return subprocess.run(["readelf", "-W", *map(str, words)], check=True, capture_output=True, text=True).stdout


@each
def test_names(wheel: Path) -> None:
    """The tag is that of the metadata and of the extensions' names; the package is there, and nothing else."""
    python, abi, processor = parts(wheel)
    files = unpacked(wheel)
    (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
    told = email.message_from_bytes(files[f"{info}/WHEEL"])
    assert told["Root-Is-Purelib"] == "false" and told["Tag"] == f"{python}-{abi}-manylinux_2_28_{processor}"
    suffix = f"cpython-{abi[2:]}-{processor}-linux-gnu.so"
    sources = {path for path in (ROOT / "pass_loader").rglob("*") if path.suffix in (".py", ".pyi", ".typed")}
    ours = {str(path.relative_to(ROOT)): path.read_bytes() for path in sources}
    theirs = {name: text for name, text in files.items() if ".dist-info/" not in name}
    extensions = {name for name in theirs if name.endswith(".so")}
    other = [name for name in sorted(ours.keys() | theirs.keys() - extensions) if ours.get(name) != theirs.get(name)]
    assert not other, f"the wheel was made from other sources, `make wheels` makes it again: {other}"
    assert extensions == {f"pass_loader/{module}.{suffix}" for module in MODULES}


@each
def test_size(wheel: Path) -> None:
    assert wheel.stat().st_size <= MOST_BYTES


@each
def test_metadata(wheel: Path) -> None:
    """The licences are there and are named; torch is an extra, so that no install brings one."""
    files = unpacked(wheel)
    (info,) = {name.split("/")[0] for name in files if ".dist-info/" in name}
    told = email.message_from_bytes(files[f"{info}/METADATA"])
    named = told.get_all("License-File", [])
    assert sorted(named) == sorted(name.partition("/licenses/")[2] for name in files if "/licenses/" in name)
    for licence in LICENCES:
        assert any(licence in name for name in named), licence
    needed = [line for line in told.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"\W", line)[0] for line in needed} == {"numpy", "pillow", "pyarrow", "tqdm"}
    assert 'torch>=2.3; extra == "torch"' in told.get_all("Requires-Dist", [])
    assert b"pass-pack = pass_loader.cli.main:main" in files[f"{info}/entry_points.txt"]


@each
def test_what_the_extensions_ask_of_a_machine(wheel: Path, libraries: list[Path]) -> None:
    """glibc 2.28 and libgcc_s; no libpython, libtorch, libstdc++ or CUDA. They show one name, their own."""
    _, _, processor = parts(wheel)
    for path in libraries:
        dynamic = readelf("-d", path)
        assert set(re.findall(r"NEEDED.*\[(.*)\]", dynamic)) <= SYSTEM | {LINKER[processor]}, path.name
        assert "RPATH" not in dynamic and "RUNPATH" not in dynamic and "TEXTREL" not in dynamic
        versions = {tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([\d.]+)", readelf("-V", path))}
        assert max(versions) <= GLIBC, (path.name, max(versions))
        symbols = [line.split() for line in readelf("--dyn-syms", path).splitlines() if re.match(r"\s+\d+:", line)]
        module = path.name.split(".")[0]
        shown = {words[7] for words in symbols if len(words) > 7 and words[6] != "UND" and words[4] != "LOCAL"}
        assert shown == {f"PyInit_{module}"}
        missing = {words[7] for words in symbols if len(words) > 7 and words[6] == "UND" and words[4] == "GLOBAL"}
        strange = {name for name in missing if "@" not in name and not re.match(r"_?Py", name)}
        assert not strange, (path.name, strange)


@each
def test_nothing_tells_where_it_was_built(wheel: Path) -> None:
    for name, content in unpacked(wheel).items():
        if name.endswith(".so"):
            found = [path for path in MADE_BY if path.encode() in content]
            assert not found, (name, found)
            assert b".debug_info" not in content


@each
def test_kernels_of_every_generation(wheel: Path, libraries: list[Path]) -> None:
    """Machine code for each compute capability that docs/install.md names, and PTX for later ones."""
    if "_cuda" not in MODULES:
        pytest.skip("the wheels have no CUDA extension")
    (cuda,) = [path for path in libraries if path.name.startswith("_cuda")]
    found = device_code(cuda.read_bytes())
    assert found == {("cubin", 80), ("cubin", 90), ("cubin", 100), ("cubin", 120), ("ptx", 120)}


def device_code(library: bytes) -> set[tuple[str, int]]:
    """Return what is in nvcc's containers, as `cuobjdump --list-elf --list-ptx` does: kinds and compute capabilities.

    A container: magic number, version, size of this head, size of what follows, as entries. An entry: kind, version,
    size of its head, size of its code, 12 bytes, the compute capability.
    """
    found = set()
    magic = struct.pack("<I", 0xBA55ED50)
    at = library.find(magic)
    while at >= 0:
        head, size = struct.unpack_from("<HQ", library, at + 6)
        at += head
        end = at + size
        while at < end:
            kind, head, size, capability = struct.unpack_from("<H2xIQ12xI", library, at)
            found.add(({1: "ptx", 2: "cubin"}[kind], capability))
            at += head + size
        at = library.find(magic, end)
    return found


def interpreter(abi: str) -> str | None:
    """Return the Python of an ABI, if this machine has it. PASS_LOADER_PYTHONS may name folders with more."""
    name = f"python3.{abi[3:]}"
    version = name.removesuffix("t")
    folders = [Path(word) for word in os.environ.get("PASS_LOADER_PYTHONS", "").split()]
    candidates = [folder / name for folder in [*folders, BUILD / "free_threaded" / abi / "bin"]]
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version.removeprefix('python')}.*/bin/{name}"))
    found = shutil.which(name)
    candidates += [Path(found)] if found else []
    code = "import sys, sysconfig, venv, ensurepip; print(bool(sysconfig.get_config_var('Py_GIL_DISABLED')))"
    for python in candidates:
        command = [str(python), "-c", code]
        told = subprocess.run(command, capture_output=True, text=True) if python.exists() else None
        if told is not None and told.stdout.strip() == str(abi.endswith("t")):
            return str(python)
    return None


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Path, dict[str, str]]]:
    """Install a wheel in an empty environment. Returns its Python, and the variables to run it with."""

    @cache
    def install(wheel: Path) -> tuple[Path, dict[str, str]]:
        _, abi, processor = parts(wheel)
        if processor != os.uname().machine:
            pytest.skip(f"this machine is no {processor}")
        found = interpreter(abi)
        if found is None:
            pytest.skip(f"this machine has no Python for {abi}")
        return empty_environment(found, wheel, tmp_path_factory.mktemp(abi))

    return install


def empty_environment(python: str, wheel: Path, place: Path) -> tuple[Path, dict[str, str]]:
    """Install a wheel in an environment that this Python makes in a folder. Returns its Python, and its variables."""
    made = place / "venv/bin/python"
    subprocess.run([python, "-m", "venv", place / "venv"], check=True)
    (place / "bin").mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PASS_", "CUDA"))
    }
    environment["PATH"] = f"{place}/venv/bin:{place}/bin"
    pip_install(made, environment, wheel)
    return made, environment


def pip_install(python: Path, environment: dict[str, str], *what: str | Path) -> None:
    pip = [python, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--only-binary=:all:"]
    subprocess.run([*pip, *what], env=environment, cwd=python.parent, check=True)


@each
def test_in_an_empty_environment(
    wheel: Path, installed: Callable[[Path], tuple[Path, dict[str, str]]], tmp_path: Path
) -> None:
    """Pack, verify, preview, render 50 samples as Pillow does, at every level, with no compiler on the PATH."""
    python, environment = installed(wheel)
    told = run_scenario(python, tmp_path, environment, ["torch", "pandas", "pybind11"])
    assert str(python.parents[1]) in told
    note_run(wheel, told, "scenario")
    (tmp_path / "plain").mkdir()
    script = ROOT / "tests/helpers/plain_install.py"
    subprocess.run([python, script, tmp_path / "plain"], env=environment, cwd=tmp_path, check=True)


@each
def test_pixels(wheel: Path, installed: Callable[[Path], tuple[Path, dict[str, str]]], tmp_path: Path) -> None:
    """The tests of pixels, with the wheel in place of the checkout, and without torch."""
    python, environment = installed(wheel)
    pip_install(python, environment, *FOR_TESTS)
    all_of_them = LONG or (parts(wheel)[1] == "cp311" and not QUICK)
    note_run(wheel, *run_tests_of_pixels(python, tmp_path, environment, all_of_them))


@each
def test_threads(wheel: Path, installed: Callable[[Path], tuple[Path, dict[str, str]]], tmp_path: Path) -> None:
    """Several Python threads on one native object, where no GIL keeps them apart. Skipped where a Python has one."""
    if not parts(wheel)[1].endswith("t"):
        pytest.skip("this Python has a GIL")
    python, environment = installed(wheel)
    pip_install(python, environment, *FOR_TESTS)
    tests = copy_of_tests(tmp_path) / "tests/native/test_several_threads.py"
    command = [python, "-X", "gil=0", "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    passed = pytest_says(command, environment, tests.parents[2])
    version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout
    note_run(wheel, version, f"the {passed} tests of threads with -X gil=0")


@each
def test_time(wheel: Path, installed: Callable[[Path], tuple[Path, dict[str, str]]], tmp_path: Path) -> None:
    """Installing, and importing beside numpy alone: the least processor time of several runs in turn, which other work
    on the machine changes little."""
    python, environment = installed(wheel)
    environment = environment | {"OPENBLAS_NUM_THREADS": "1"}

    def seconds(*words: str | Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, *words], env=environment, cwd=tmp_path, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    pip = ("-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps", "--no-index")
    took = {"install": min(seconds(*pip, "--target", tmp_path / str(turn), wheel) for turn in range(2))}
    turns = [(seconds("-c", "import numpy"), seconds("-c", "import pass_loader")) for _ in range(9)]
    numpys, ours = map(min, zip(*turns))
    took["import"] = ours - numpys
    print({name: round(value, 3) for name, value in took.items()})
    assert all(took[name] <= MOST_SECONDS[name] for name in took), took


@each
def test_with_torch(wheel: Path, tmp_path: Path) -> None:
    """DINO batches in an empty environment, to which this one lends its torch and what that needs."""
    _, abi, processor = parts(wheel)
    own, torch = f"cp{sys.version_info[0]}{sys.version_info[1]}", importlib.util.find_spec("torch")
    if abi != own or processor != os.uname().machine or torch is None or torch.origin is None:
        pytest.skip("torch is here for another Python, or not at all")
    python, environment = empty_environment(sys.executable, wheel, tmp_path)
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{Path(torch.origin).parents[1]}\n")  # behind its own
    told = run_scenario(python, tmp_path, environment, [])
    assert str(packages) in told
    note_run(wheel, told, f"batches with torch {importlib.metadata.version('torch').partition('+')[0]}")


@pytest.fixture(scope="module")
def debians() -> Callable[[Path], Path]:
    """Install a wheel for a Python that this machine lacks: of another version, or for aarch64, under QEMU. Returns the
    command that runs it."""
    debian = pytest.importorskip("wheels.debian_python", reason="needs what `make wheels` installs")

    @cache
    def install(wheel: Path) -> Path:
        _, abi, processor = parts(wheel)
        if processor == os.uname().machine and interpreter(abi) is not None:
            pytest.skip("this machine has that Python")
        python: Path | None = debian.python_with([wheel, *FOR_TESTS], abi, processor, BUILD / "debian")
        if python is None:
            pytest.skip(f"Debian has no Python for {abi}, or this machine no mirror of Debian, or no QEMU")
        return python

    return install


def bare(folder: Path, **more: str) -> dict[str, str]:
    """The variables of a machine with an empty PATH."""
    (folder / "bin").mkdir()
    return {"PATH": str(folder / "bin"), "HOME": str(folder), "TMPDIR": str(folder), **more}


@each
def test_with_debians_python(wheel: Path, debians: Callable[[Path], Path], tmp_path: Path) -> None:
    _, abi, processor = parts(wheel)
    native = processor == os.uname().machine
    if not (native or LONG or abi == "cp311"):
        pytest.skip("PASS_LOADER_LONG=1 runs it")
    python, environment = debians(wheel), bare(tmp_path)
    few = {} if native else {"PASS_LOADER_LONG": "0"}  # a thread's turns take long under QEMU
    told = run_scenario(python, tmp_path, environment | few, ["torch", "pandas"])
    assert processor in told
    note_run(wheel, told, "scenario", whose="Debian's ")
    if native:
        note_run(wheel, *run_tests_of_pixels(python, tmp_path, environment, LONG), whose="Debian's ")


@each
@pytest.mark.parametrize("played", EMULATED)
def test_pixels_under_qemu(wheel: Path, debians: Callable[[Path], Path], tmp_path: Path, played: str) -> None:
    """The tests of pixels at the levels of each processor that QEMU plays, against a Pillow without the fused
    multiply-adds of its own wheel for aarch64 (docs/exactness.md)."""
    _, abi, processor = parts(wheel)
    if processor == os.uname().machine:
        pytest.skip("needs no emulation")
    if not LONG:
        pytest.skip("PASS_LOADER_LONG=1 runs it")
    python = debians(wheel)
    pillow = pytest.importorskip("wheels.exact_pillow").exact_pillow(python.parent / "site", abi, BUILD)
    environment = bare(tmp_path, PYTHONPATH=str(pillow), QEMU_CPU=played)
    all_of_them = abi == "cp311" and played == "max"
    told, what = run_tests_of_pixels(python, tmp_path, environment, all_of_them, EMULATED[played])
    note_run(wheel, told, f"{what} as {played}", whose="Debian's ")


def run_scenario(python: str | Path, root: Path, environment: dict[str, str], absent: list[str]) -> str:
    """Run it in a folder. Returns what it printed."""
    (root / "run").mkdir()
    environment = {"PASS_LOADER_LONG": "1" if LONG else "0"} | environment
    command = [python, SCENARIO, root / "run", *absent]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


def run_tests_of_pixels(
    python: str | Path, root: Path, environment: dict[str, str], all_of_them: bool, only: tuple[str, ...] = ()
) -> tuple[str, str]:
    """Run the tests that are marked oracle, of all files or of some, in a folder where pass_loader is not.

    Returns a line with Python's version, and which tests were run.
    """
    checkout = copy_of_tests(root)
    rooms = sorted((checkout / "tests/native").glob("test_*.py"))
    files = [path for path in rooms if "pytest.mark.oracle" in path.read_text() and (path.name in only or not only)]
    marked = "oracle and not long" if all_of_them else "oracle and not long and not slow"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked, *files]
    passed = pytest_says(command, environment, checkout)
    assert passed > (80 if only else 550)
    version = subprocess.run([python, "--version"], env=environment, check=True, capture_output=True, text=True).stdout
    of_what = "resizes" if only else "pixels"
    return version, f"{'all' if all_of_them else 'the quick'} {passed} tests of {of_what}"


def copy_of_tests(root: Path) -> Path:
    """Copy the tests to where pass_loader is not. Returns the folder."""
    checkout = root / "checkout"
    for name in ("tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", checkout / "pyproject.toml")
    return checkout


def pytest_says(command: list[str | Path], environment: dict[str, str], folder: Path) -> int:
    """Run pytest. Returns how many tests have passed; none may fail."""
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout.splitlines()[-1])
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    return int(passed[1])


def note_run(wheel: Path, told: str, what: str, whose: str = "") -> None:
    """Note what was run. told: has a line that begins with Python's version."""
    version = re.search(r"^Python ([\d.]+)", told, re.M)
    assert version is not None, told
    gil = ", with the GIL off" if "GIL False" in told else ""
    note(wheel, f"{whose}{version[1]}", f"{what}{gil}")
