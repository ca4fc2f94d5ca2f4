import pytest

from capgap.battery.catalogue import catalogue
from capgap.classification.declared_labels import declared, declared_of_task


def test_what_nobody_declares_is_no_evidence() -> None:
    assert declared(None, None) is None
    assert declared(None, "a task of my own") is None


@pytest.mark.parametrize(("capability", "sign"), [("knowledge", -1), ("reasoning", 1)])
def test_a_declaration_speaks_its_way_and_leaves_room_for_exceptions(capability: str, sign: int) -> None:
    found = declared(capability, "mine")
    assert found is not None
    assert sign * found.logit > 0
    assert 0.9 < max(found.p, 1 - found.p) < 0.99
    assert found.sd >= 0.5
    assert capability in found.reasons[0].words


def test_mixed_speaks_for_neither() -> None:
    found = declared("mixed", None)
    assert found is not None
    assert found.p == 0.5


@pytest.mark.parametrize("label", catalogue()[:40], ids=lambda label: label.tasks[0])
def test_the_catalogue_gives_its_reason_and_less_certainty_than_an_author(label: object) -> None:
    name = label.tasks[0].replace("*", "x").replace("?", "x")  # type: ignore[attr-defined]
    found = declared(None, name)
    assert found is not None
    if found.logit:
        own = declared("reasoning", None)
        assert own is not None
        assert abs(found.logit) < own.logit
        assert found.sd > own.sd
    assert len(found.reasons[0].words) > len(name) + 40


def test_an_author_who_contradicts_the_catalogue_is_believed() -> None:
    assert (declared("reasoning", "arc_easy") or 0).logit > 0  # type: ignore[union-attr]
    assert (declared("knowledge", "arc_easy") or 0).logit < 0  # type: ignore[union-attr]


def test_an_author_who_agrees_with_the_catalogue_speaks_for_himself() -> None:
    taken_over, own = declared("knowledge", "arc_easy"), declared("knowledge", "arc_easy", by="its battery")
    assert taken_over == declared(None, "arc_easy")
    assert own is not None
    assert own.reasons[0].words == "its battery declares it knowledge"
    assert own.sd < (taken_over or own).sd


def test_only_a_declaration_of_all_items_is_one_of_the_task() -> None:
    one, other = declared("reasoning", None), declared("knowledge", None)
    assert declared_of_task([one, one]) == one
    assert declared_of_task([one, other]) is None
    assert declared_of_task([one, None]) is None
    assert declared_of_task([]) is None
