import pytest

from capgap.battery.catalogue import load_family_labels
from capgap.classification.declared_labels import find_shared_declaration, weigh_label


def test_what_nobody_declares_is_no_evidence() -> None:
    assert weigh_label(None, None) is None
    assert weigh_label(None, "a task of my own") is None


@pytest.mark.parametrize(("capability", "sign"), [("knowledge", -1), ("reasoning", 1)])
def test_a_declaration_speaks_its_way_and_leaves_room_for_exceptions(capability: str, sign: int) -> None:
    found = weigh_label(capability, "mine")
    assert found is not None
    assert sign * found.logit > 0
    assert 0.9 < max(found.p, 1 - found.p) < 0.99
    assert found.sd >= 0.5
    assert capability in found.reasons[0].words


def test_mixed_speaks_for_neither() -> None:
    found = weigh_label("mixed", None)
    assert found is not None
    assert found.p == 0.5


@pytest.mark.parametrize("label", load_family_labels()[:40], ids=lambda label: label.tasks[0])
def test_the_catalogue_gives_its_reason_and_less_certainty_than_an_author(label: object) -> None:
    name = label.tasks[0].replace("*", "x").replace("?", "x")  # type: ignore[attr-defined]
    found = weigh_label(None, name)
    assert found is not None
    if found.logit:
        own = weigh_label("reasoning", None)
        assert own is not None
        assert abs(found.logit) < own.logit
        assert found.sd > own.sd
    assert len(found.reasons[0].words) > len(name) + 40


def test_an_author_who_contradicts_the_catalogue_is_believed() -> None:
    assert (weigh_label("reasoning", "arc_easy") or 0).logit > 0  # type: ignore[union-attr]
    assert (weigh_label("knowledge", "arc_easy") or 0).logit < 0  # type: ignore[union-attr]


def test_an_author_who_agrees_with_the_catalogue_speaks_for_himself() -> None:
    taken_over, own = weigh_label("knowledge", "arc_easy"), weigh_label("knowledge", "arc_easy", labeller="its battery")
    assert taken_over == weigh_label(None, "arc_easy")
    assert own is not None
    assert own.reasons[0].words == "its battery declares it knowledge"
    assert own.sd < (taken_over or own).sd


def test_only_a_declaration_of_all_items_is_one_of_the_task() -> None:
    one, other = weigh_label("reasoning", None), weigh_label("knowledge", None)
    assert find_shared_declaration([one, one]) == one
    assert find_shared_declaration([one, other]) is None
    assert find_shared_declaration([one, None]) is None
    assert find_shared_declaration([]) is None
