"""libjpeg-turbo, libpng, zlib and zstd as static libraries, from the sources that Debian has.

`python -m wheels.third_party SOURCES` only downloads the sources; `python -m wheels.third_party SOURCES FOLDER` builds
them with this machine's compiler into FOLDER/third_party. The workflow of releases does the first on Debian, and the
second where there is no apt.
"""

from __future__ import annotations

import re
import shutil
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .toolchain import Toolchain, native_tools, run


@dataclass(frozen=True)
class Library:
    """A source package of Debian."""

    name: str
    package: str
    suites: tuple[str, ...]  # where to look, in this order
    licences: tuple[str, ...]  # files of the source that go into the wheel
    pc: str  # its name for pkg-config
    needs: str = ""


# libjpeg-turbo 3 smooths damaged progressive files as Pillow's own wheels do; 2.1, of Debian's releases up to 13, does
# not (csrc/README.md, "Where bytes differ").
LIBRARIES = (
    Library("libjpeg-turbo", "libjpeg-turbo", ("sid", "trixie"), ("LICENSE.md", "README.ijg"), "libjpeg"),
    Library("zlib", "zlib", ("trixie",), ("LICENSE",), "zlib"),
    Library("libpng", "libpng1.6", ("trixie",), ("LICENSE",), "libpng", needs="zlib"),
    Library("zstd", "libzstd", ("trixie",), ("LICENSE",), "libzstd"),
)
OPTIMISE = ["-O3", "-fvisibility=hidden"]


def download(folder: Path) -> dict[str, Path]:
    """Return {name: its tarball in `folder`}; download what is missing there.

    Raises SystemExit where a package cannot be had.
    """
    found = {one.name: _tarball(one, folder) for one in LIBRARIES}
    if all(found.values()):
        return {name: path for name, path in found.items() if path}
    command = apt(folder, "deb-src", ("trixie", "sid"))
    for one in LIBRARIES:
        for suite in one.suites:
            try:
                run([*command, "source", "--tar-only", f"{one.package}/{suite}"], cwd=folder)
                break
            except SystemExit as refused:
                print(f"{one.package} cannot be had from {suite}: {refused}", file=sys.stderr)
        found[one.name] = _tarball(one, folder)
    missing = [name for name, path in found.items() if path is None]
    if missing:
        sys.exit(f"no source of {', '.join(missing)} in {folder}")
    return {name: path for name, path in found.items() if path}


def apt(folder: Path, kind: str, suites: tuple[str, ...], architecture: str = "") -> list[Any]:
    """Return an apt-get for other releases of Debian, with lists of its own in `folder`.

    Nothing changes on the machine. kind: deb or deb-src. architecture: another than this machine's, as Debian names it.
    The mirror is the machine's own. Raises SystemExit where there is none.
    """
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    mirror = debians_mirror()
    if mirror is None:
        sys.exit("the sources come from a Debian mirror, and apt here knows none")
    (folder / "sources.list").write_text("".join(f"{kind} {mirror} {suite} main\n" for suite in suites))
    options = {
        "APT::Sandbox::User": "root",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": lists,
    }
    if architecture:
        options |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    command = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    run([*command, "update"])
    return command


def debians_mirror() -> str | None:
    """Return the mirror of Debian that this machine uses, and the keyring it trusts; None if it is no Debian."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in files if path.exists())
    found = re.search(r"^(?:URIs:|deb (?:\[.*?\] )?)\s*(\S+/debian)/?(?:\s|$)", text, re.M)
    return None if found is None else f"[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {found[1]}"


def _tarball(one: Library, folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob(f"{one.package}_*.orig.tar.*"))), None)


def version_of(tarball: Path) -> str:
    """Return upstream's version: 1.3.1 of zlib_1.3.dfsg+really1.3.1.orig.tar.gz."""
    version = tarball.name.split("_")[1].split(".orig")[0]
    return version.split("really")[-1].split("+")[0]


def build(tools: Toolchain, sources: Path) -> Path:
    """Return the folder with include/, lib/, lib/pkgconfig/ and licenses/ of all four, built where it is missing."""
    prefix = tools.folder / "third_party"
    if (prefix / "done").exists():
        return prefix
    shutil.rmtree(prefix, ignore_errors=True)
    for folder in ("include", "lib/pkgconfig", "licenses"):
        (prefix / folder).mkdir(parents=True)
    for one in LIBRARIES:
        tarball = download(sources)[one.name]
        unpacked = tools.folder / "sources" / one.name
        shutil.rmtree(unpacked, ignore_errors=True)
        with tarfile.open(tarball) as tar:
            tar.extractall(unpacked, filter="data")
        (source,) = unpacked.iterdir()
        version = version_of(tarball)
        BUILD[one.name](tools, source, prefix)
        licences = prefix / "licenses" / f"{one.name}-{version}"
        licences.mkdir()
        for name in one.licences:
            shutil.copyfile(source / name, licences / name)
        name = {"libjpeg-turbo": "jpeg", "zlib": "z", "libpng": "png", "zstd": "zstd"}[one.name]
        (prefix / "lib/pkgconfig" / f"{one.pc}.pc").write_text(
            f"Name: {one.pc}\nDescription: {one.name}\nVersion: {version}\nRequires: {one.needs}\n"
            f"Cflags: -I{prefix}/include\nLibs: -L{prefix}/lib -l{name}\n"
        )
    (prefix / "done").touch()
    return prefix


def _archive(tools: Toolchain, prefix: Path, name: str, source: Path, files: list[Path], flags: list[str]) -> None:
    """Compile C files, and assembly, into lib/libNAME.a."""
    objects = source / "objects"
    objects.mkdir()
    made = {path: objects / f"{number}-{path.stem}.o" for number, path in enumerate(files)}
    command = [tools.cc, *OPTIMISE, *tools.compile_flags, *flags, "-c"]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda path: run([*command, path, "-o", made[path]]), files))
    run([tools.ar, "rcs", prefix / f"lib/lib{name}.a", *made.values()])


def _zlib(tools: Toolchain, source: Path, prefix: Path) -> None:
    names = "adler32 crc32 deflate infback inffast inflate inftrees trees zutil compress uncompr"
    _archive(tools, prefix, "z", source, [source / f"{name}.c" for name in names.split()], ["-DHAVE_UNISTD_H"])
    for name in ("zlib.h", "zconf.h"):
        shutil.copyfile(source / name, prefix / "include" / name)


def _libpng(tools: Toolchain, source: Path, prefix: Path) -> None:
    shutil.copyfile(source / "scripts/pnglibconf.h.prebuilt", source / "pnglibconf.h")
    vectors = {"x86_64": ("intel", "-DPNG_INTEL_SSE_OPT=1"), "aarch64": ("arm", "-DPNG_ARM_NEON_OPT=2")}
    folder, define = vectors[tools.processor]
    files = [path for path in sorted(source.glob("png*.c")) if path.stem != "pngtest"]
    files += sorted((source / folder).glob("*.c"))
    _archive(tools, prefix, "png", source, files, [define, f"-I{source}", f"-I{prefix}/include"])
    for name in ("png.h", "pngconf.h", "pnglibconf.h"):
        shutil.copyfile(source / name, prefix / "include" / name)


def _zstd(tools: Toolchain, source: Path, prefix: Path) -> None:
    lib = source / "lib"
    files = [path for room in ("common", "compress", "decompress") for path in sorted((lib / room).glob("*.[cS]"))]
    _archive(tools, prefix, "zstd", source, files, ["-DXXH_NAMESPACE=ZSTD_", "-DZSTDLIB_VISIBLE=", f"-I{lib}"])
    for name in ("zstd.h", "zstd_errors.h"):
        shutil.copyfile(lib / name, prefix / "include" / name)


def _libjpeg_turbo(tools: Toolchain, source: Path, prefix: Path) -> None:
    """Its vector code for x86-64 is in assembly, for nasm. BUILD would be the day: other bytes on each."""
    system = ["-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={tools.processor}"]
    flags = " ".join([*OPTIMISE, *tools.compile_flags])
    run([sys.executable, "-m", "cmake", "-S", source, "-B", source / "made", *system, "-DCMAKE_BUILD_TYPE=None",
         f"-DCMAKE_C_COMPILER={tools.cc}", f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_INSTALL_PREFIX={prefix}",
         "-DCMAKE_INSTALL_LIBDIR=lib", "-DENABLE_SHARED=0", "-DWITH_TURBOJPEG=0", "-DREQUIRE_SIMD=1",
         "-DCMAKE_POSITION_INDEPENDENT_CODE=1", "-DBUILD=0"])  # fmt: skip
    run([sys.executable, "-m", "cmake", "--build", source / "made", "--target", "jpeg-static", "-j2"])
    shutil.copyfile(source / "made/libjpeg.a", prefix / "lib/libjpeg.a")
    for folder in (source, source / "src", source / "made"):
        for name in ("jpeglib.h", "jmorecfg.h", "jerror.h", "jconfig.h"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, prefix / "include" / name)


BUILD = {"libjpeg-turbo": _libjpeg_turbo, "zlib": _zlib, "libpng": _libpng, "zstd": _zstd}

if __name__ == "__main__":
    places = [Path(word).resolve() for word in sys.argv[1:]]
    places[0].mkdir(parents=True, exist_ok=True)
    print(*download(places[0]).values(), sep="\n")
    if len(places) > 1:
        print(build(native_tools(places[1]), places[0]))
