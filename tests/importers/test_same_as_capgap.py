"""lm-eval's own files, imported, must say of every item what capgap's evaluation of the same model says."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capgap import schema
from capgap.evaluation import EvaluationPlan, cast_roles, evaluate
from capgap.importers import import_lm_eval, merge_batch
from tests.importers.conftest import RealRun

ATOL = 1e-3  # log-likelihoods move with the padding of a batch; fp32 keeps them well within this
EXACT = ["format", "primary", "value", "score", "target"]
CLOSE = ["margin", "margin_target", "target_logprob"]
KEY = ["model", "task", "item", "metric", "filter"]


def _imported(run: RealRun, out: Path) -> pd.DataFrame:
    outcomes = merge_batch(import_lm_eval([run.folder]), out).outcomes
    # capgap's own id of an item stands in the document that lm-eval was given; an import goes by the document's hash.
    ids = {
        record["doc_hash"][:16]: record["doc"]["item"]
        for task in ("colours_choose", "colours_generate")
        for record in run.samples("teacher", task)
    }
    return outcomes.assign(item=outcomes["item"].map(ids))


@pytest.mark.parametrize("kind", ["real_run", "real_chat_run"])
@pytest.mark.filterwarnings("ignore")
def test_every_imported_row_says_what_capgaps_own_evaluation_says(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run: RealRun = request.getfixturevalue(kind)
    words = [f"{name}={path}" for name, path in run.checkpoints.items()]
    students, *_ = cast_roles(words)
    own = evaluate(EvaluationPlan(students=students, batteries=(str(run.battery),), device="cpu"), tmp_path / "own")
    ours = own.read(schema.OUTCOMES).set_index(KEY).sort_index()
    theirs = _imported(run, tmp_path / "imported").set_index(KEY).sort_index()
    assert list(theirs.index) == list(ours.index)
    assert len(ours) == 2 * (24 * 2 + 24)
    pd.testing.assert_frame_equal(theirs[EXACT], ours[EXACT])
    for name in CLOSE:
        np.testing.assert_allclose(theirs[name].astype(float), ours[name].astype(float), atol=ATOL, equal_nan=True)
    choose = ours["format"] == "choose"
    # What was chosen, and the chance of a guess; of generated answers lm-eval's files tell neither.
    pd.testing.assert_frame_equal(
        theirs.loc[choose, ["prediction", "chance"]], ours.loc[choose, ["prediction", "chance"]]
    )
    assert theirs.loc[~choose, "response"].tolist() == ours.loc[~choose, "response"].tolist()
    assert set(ours["score"]) == {0.0, 1.0}, "the items must be right and wrong, or the comparison shows nothing"


def test_models_are_named_addressed_and_sized_as_the_results_say(
    real_run: RealRun, real_chat_run: RealRun, tmp_path: Path
) -> None:
    for run, prompting in ((real_run, '{"chat_template": false}'), (real_chat_run, '{"chat_template": true}')):
        out = tmp_path / run.folder.parent.name
        merge_batch(import_lm_eval([run.folder]), out)
        models = schema.read_df(out / "models.parquet", schema.MODELS)
        assert models["model"].tolist() == ["student", "teacher"]
        assert set(models["prompting"]) == {prompting}
        assert (models["n_params"] > 10_000).all()


def test_a_samples_file_alone_is_named_by_the_results_beside_it(real_run: RealRun) -> None:
    (path,) = real_run.folder.glob("*student/samples_colours_choose_*.jsonl")
    batch = import_lm_eval([path])
    assert [(part.model, part.task, len(part.rows)) for part in batch.parts] == [("student", "colours_choose", 48)]
    assert not batch.skipped
    assert not batch.notes


def test_a_results_file_alone_brings_the_samples_beside_it(real_run: RealRun) -> None:
    (path,) = real_run.folder.glob("*student/results_*.json")
    batch = import_lm_eval([path])
    assert sorted(part.task for part in batch.parts) == ["colours_choose", "colours_generate"]
    assert not batch.skipped


def test_importing_the_same_files_again_changes_nothing(real_run: RealRun, tmp_path: Path) -> None:
    first = merge_batch(import_lm_eval([real_run.folder]), tmp_path / "out")
    tables = {path.name: path.read_bytes() for path in first.path.glob("*.parquet")}
    again = merge_batch(import_lm_eval([real_run.folder]), tmp_path / "out")
    assert (again.n_new_rows, again.n_replaced) == (0, 0)
    assert {path.name: path.read_bytes() for path in first.path.glob("*.parquet")} == tables


def test_models_imported_one_by_one_give_the_same_tables_as_together(real_run: RealRun, tmp_path: Path) -> None:
    together = merge_batch(import_lm_eval([real_run.folder]), tmp_path / "together").outcomes
    for folder in sorted(real_run.folder.iterdir(), reverse=True):
        apart = merge_batch(import_lm_eval([folder]), tmp_path / "apart").outcomes
    pd.testing.assert_frame_equal(apart, together)
