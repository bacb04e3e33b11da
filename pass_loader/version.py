"""The version of the package, which pyproject.toml and `pass-pack --version` read."""

__version__ = "0.2.0"
