"""A model's name: its one spelling, whose it is, what is refused (more of that in test_zoo and lab/test_planning)."""

from __future__ import annotations

import sys

import pytest

from evonorm.models.names import find
from evonorm.models.zoo import known


def test_a_name_has_one_spelling() -> None:
    assert known("torchvision:resnet18") == known("resnet18") == "resnet18"
    assert known("timm:test_resnet") == "timm:test_resnet"


def test_classifiers_are_asked_for() -> None:
    assert str(find("torchvision:fasterrcnn_resnet50_fpn")) == "fasterrcnn_resnet50_fpn"
    with pytest.raises(ValueError, match="no image classifier; choose from mini-inception, a classifier of"):
        find("fasterrcnn_resnet50_fpn", classifiers=True)
    for classifiers, near in ((False, "'fcn_resnet50'"), (True, "'resnet50'")):
        with pytest.raises(ValueError, match=f"did you mean .*{near}"):
            find("fcn_resnet5", classifiers=classifiers)


def test_ours_is_no_other_librarys() -> None:
    for name in ("torchvision:mini-inception", "timm:mini-inception"):
        with pytest.raises(ValueError, match=f"no model is called '{name}'; did you mean 'mini-inception'"):
            find(name)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("resnet18", "torchvision", "lab"), ("timm:resnet18", "timm", "timm")]
)
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"{package}'s models need it: pip install 'evonorm\[{extra}\]'"):
        find(name)
    assert find("mini-inception").create().training
