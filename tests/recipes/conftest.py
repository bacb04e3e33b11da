"""Every refusal of from_torchvision and from_timm in these tests ends with the way out."""

from __future__ import annotations

from typing import Any

import pytest

from pass_loader import Recipe
from pass_loader.recipes.from_torchvision import WAY_OUT


@pytest.fixture(autouse=True)
def refusals_end_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def checked(read: Any) -> Any:
        def reading(*args: Any, **named: Any) -> Recipe:
            try:
                return read(*args, **named)
            except ValueError as error:
                assert str(error).count(WAY_OUT) == 1 and str(error).endswith(WAY_OUT), error
                raise

        return staticmethod(reading)

    for name in ("from_torchvision", "from_timm"):
        monkeypatch.setattr(Recipe, name, checked(getattr(Recipe, name)))
