"""Official transform objects, built from checkouts of their repositories, beside the recipes that we make of them."""

from ..torchvision_cpu import torchvision  # noqa: F401  (declares operators, before a module here imports it)
