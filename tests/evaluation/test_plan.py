"""The plan of an evaluation: roles, devices and shards, checked before a model is loaded."""

from pathlib import Path

import pytest

from capgap.errors import ModelError, UsageError
from capgap.evaluation import EvaluationPlan, cast_roles, default_batteries, parse_devices, parse_shard
from capgap.schema import Roles


def test_devices_and_shards_are_read_or_refused() -> None:
    assert parse_devices("cpu") == ("cpu",)
    assert parse_devices("cuda:0,2") == ("cuda:0", "cuda:2")
    assert parse_devices("cuda:0,cuda:1") == ("cuda:0", "cuda:1")
    for text in ("cuda:0,x", "cuda:1,1", ",", "cuda:,"):
        with pytest.raises(UsageError, match="cuda:0,2"):
            parse_devices(text)
    assert parse_shard("2/3") == (1, 3)
    for text in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(UsageError, match="expected K/N"):
            parse_shard(text)


def test_models_are_cast_in_their_roles(checkpoints: dict[str, Path]) -> None:
    student, teacher, base = (str(checkpoints[name]) for name in ("student", "teacher", "base"))
    models = cast_roles([f"pupil={student}"], teacher=f"lead={teacher}", base=base, control=f"gold={teacher}")
    plan = EvaluationPlan(**models._asdict(), devices=("cuda:0", "cuda:2"), workers=3)
    assert plan.roles == Roles(("pupil",), "lead", {"pupil": "base"}, {"pupil": "lead"}), "one model, one name"
    assert [spec.name for spec in plan.models] == ["lead", "base", "pupil"]
    assert plan.n_workers == 6
    assert default_batteries(models.students) == ("core",)
    small = cast_roles(["microworld:small"], base="none")
    assert default_batteries(small.students) == ("microworld",)
    assert small.bases == {}


def test_roles_that_exclude_each_other_are_refused(checkpoints: dict[str, Path]) -> None:
    student, teacher = (str(checkpoints[name]) for name in ("student", "teacher"))
    with pytest.raises(UsageError, match="teacher and student at once"):
        cast_roles([student], teacher=student)
    with pytest.raises(UsageError, match="no student"):
        cast_roles([])
    with pytest.raises(ModelError, match=r"two models are called 'x'.*--teacher NAME="):
        cast_roles([f"x={student}"], teacher=f"x={teacher}")
