"""Which suspicions of a lost offset are credible."""

from __future__ import annotations

import pytest

from cloudcover.data.offsets import Evidence, credible


def chips(name: str, near: int, dark: int = 0, others: int = 0) -> Evidence:
    return Evidence([f"{name}{number}" for number in range(near)], near, dark, near + dark + others)


@pytest.mark.parametrize(
    ("products", "suspects"),
    [
        ([chips("a", 7, dark=8), chips("b", 0, dark=150)], 0),
        ([chips("a", 40, dark=60)] * 3, 0),
        ([chips("a", 4, others=3), chips("b", 0, dark=500)], 4),
        ([chips("a", 18, dark=2), chips("b", 0, dark=500)], 18),
        ([chips("a", 16, dark=2), chips("b", 0, dark=500)], 0),
        ([chips("a", 2), chips("b", 0, dark=18)], 0),
        ([chips("a", 3), chips("b", 0, dark=18)], 3),
        ([chips("a", 1)] * 8 + [chips("b", 0, dark=1)] * 92, 0),
        ([chips("a", 1)] * 20 + [chips("b", 0, dark=1)] * 80, 20),
        ([chips("a", 1)] * 4 + [chips("b", 1, dark=1)] * 30, 0),
        ([chips("a", 1)], 1),
        ([], 0),
    ],
    ids=[
        "dark chips of the product",
        "dark chips of every product",
        "one product in a large set",
        "a few dark chips, such as water",
        "too many of them",
        "few overcast chips",
        "many for their product",
        "few of the chips of small products",
        "many of them",
        "dark chips of small products",
        "a single chip",
        "nothing",
    ],
)
def test_an_offset_is_one_of_a_product(products: list[Evidence], suspects: int) -> None:
    assert len(credible(products)) == suspects


def test_a_large_image_is_judged_by_its_windows() -> None:
    plain = [Evidence([], 0, 0, 1)] * 30
    assert credible([Evidence(["small"], 1, 0, 1), *plain]) == []
    assert credible([Evidence(["large"], 4, 0, 1), *plain]) == ["large"]
