"""Whatever stands in a file: an importer answers with outcomes or with an error of the user, never with a crash."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from capgap import schema
from capgap.errors import CapgapError
from capgap.importers import ImportResult, import_inspect, import_lm_eval, import_result_tables, merge_batch
from capgap.store import RunDirectory
from tests.importers.written import (
    DATE,
    choose_sample,
    eval_archive,
    generate_sample,
    inspect_log,
    inspect_sample,
    results,
)

set_hypothesis_home_dir(tempfile.gettempdir())

QUICK, MANY = 60, 10_000
HEAD = "model,task,item,score"
COMMON = {
    "database": None,
    "deadline": None,
    "derandomize": True,  # the same inputs on every machine: a failure is never luck
    "suppress_health_check": list(HealthCheck),
}

texts = st.one_of(
    st.sampled_from(["", " ", "0", "1", "-1", "nan", "C", "N", "[0]", "True", "../x", "/x", "\0", "\ud800", "x" * 400]),
    st.text(max_size=8),
)
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 5),
    st.sampled_from([10**30, -(10**30), 2**63, 10**400]),
    st.floats(),
    texts,
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn, base: Any) -> Any:
    """The value with up to four of its parts replaced, dropped or doubled."""
    value = copy.deepcopy(base)
    for _ in range(draw(st.integers(0, 4))):
        value = _mutated_once(draw, value)
    return value


def _mutated_once(draw: st.DrawFn, value: Any) -> Any:
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    if not keys or draw(st.integers(0, 5)) == 0:
        return draw(values)
    key = draw(st.sampled_from(keys))
    what = draw(st.sampled_from(["inside", "inside", "inside", "drop", "double"]))
    if what == "inside":
        value[key] = _mutated_once(draw, value[key])
    elif what == "drop":
        value.pop(key)
    elif isinstance(value, list):
        value.append(copy.deepcopy(value[key]))
    else:
        value[draw(texts)] = copy.deepcopy(value[key])
    return value


@st.composite
def damaged(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes, most of the time whole, else cut or with some of them changed."""
    if not raw or draw(st.integers(0, 3)):
        return raw
    if draw(st.booleans()):
        return raw[: draw(st.integers(0, len(raw)))]
    changed = bytearray(raw)
    for _ in range(draw(st.integers(1, 4))):
        changed[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(changed)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def lm_eval_files(draw: st.DrawFn) -> dict[str, bytes]:
    base = [choose_sample(n, gold=n % 3, taken=n % 2) for n in range(3)]
    base += generate_sample(3, "7", filters=("a", "b")) if draw(st.booleans()) else []
    records = draw(mutated(base))
    lines = [_json(record) for record in records] if isinstance(records, list) else [_json(records)]
    name = draw(st.sampled_from([f"samples_colours_{DATE}.jsonl", "samples_x.jsonl", "x_write_out_info.json"]))
    if name.endswith(".json"):
        told = {f"logit_{n}": -float(n) for n in range(3)} | {f"prompt_{n}": f"p {n}" for n in range(3)}
        lines = [_json(draw(mutated([{"doc_id": 0, "truth": 0, "acc": "1.0", **told}])))]
    found = draw(mutated(results(tasks={"colours": {"acc,none": 0.5, "acc_norm,none": 0.5}}, groups={})))
    files = {name: draw(damaged(b"\n".join(lines))), f"results_{DATE}.json": draw(damaged(_json(found)))}
    return files if draw(st.booleans()) else {name: files[name]}


@st.composite
def inspect_files(draw: st.DrawFn) -> dict[str, bytes]:
    samples = [inspect_sample(n, epoch=1 + n % 2, value=value) for n, value in ((1, "C"), (2, {"a": 1}), (3, 0.5))]
    log = draw(mutated(inspect_log(samples)))
    files = {"log.json": draw(damaged(_json(log)))}
    if draw(st.booleans()):
        inner = draw(mutated(inspect_log(samples)["samples"]))
        extra = {"samples/9_epoch_1.json": _json(inner), "summaries.json": _json(inner)}
        files["log.eval"] = draw(damaged(eval_archive(inspect_log(samples), extra=extra)))
    return files


@st.composite
def table_files(draw: st.DrawFn) -> dict[str, bytes]:
    row = {"model": "m", "task": "t", "item": 1, "score": 1, "capability": "knowledge", "x_a": 1, "x_b": "b"}
    row |= {"prompt": "p", "choices": ["a"], "response": "r", "prediction": {"a": 1}, "target": "t", "other": 1}
    rows = draw(mutated([row, row | {"item": 2, "repeat": 1, "primary": True}, row | {"item": "3", "status": "error"}]))
    kind = draw(st.sampled_from(["json", "jsonl", "csv", "parquet"]))
    if kind == "json":
        return {"t.json": draw(damaged(_json(rows)))}
    if kind == "jsonl":
        lines = [_json(one) for one in rows] if isinstance(rows, list) else [_json(rows)]
        return {"t.jsonl": draw(damaged(b"\n".join(lines)))}
    if kind == "csv":
        head, first = draw(st.sampled_from([(HEAD, "m,t,1,true"), (f"{HEAD},chance,x_a", "m,t,1,true,0.5,a")]))
        good = st.tuples(st.just("m"), st.just("t"), texts, st.sampled_from(["1", "0.5", "wrong", "", "nan"]))
        cells = st.one_of(good, good, st.lists(texts, min_size=4, max_size=7))
        body = [",".join(one) for one in draw(st.lists(cells, max_size=4))]
        return {"t.csv": draw(damaged("\n".join([head, first, *body]).encode("utf-8", "replace")))}
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "t.parquet"
            pd.DataFrame(rows).to_parquet(path)
            return {"t.parquet": draw(damaged(path.read_bytes()))}
    except Exception:  # not every mutation is a table that pandas can write; those that are not are another file
        return {"t.parquet": b"PAR1" + _json(rows) + b"PAR1"}


def answers(importer: Callable[[list[Path]], ImportResult], files: dict[str, bytes]) -> None:
    """Import and store; what comes out must be a table without contradictions."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "org__model").mkdir()
        for name, raw in files.items():
            (root / "org__model" / name).write_bytes(raw)
        try:
            batch = importer([root / "org__model"])
            stored = merge_batch(batch, root / "out")
        except CapgapError:
            return
        outcomes = RunDirectory.open_existing(root / "out").read(schema.OUTCOMES)
        assert len(outcomes) == len(stored.outcomes) > 0
        counted = outcomes[outcomes["primary"].fillna(False).astype(bool)]
        assert not counted.duplicated(["model", *schema.CELL_KEY]).any()
        assert outcomes["score"].dropna().between(0, 1).all()
        assert (outcomes["score"].isna() | (outcomes["status"] != "error")).all()
        assert all(line.isprintable() for line in [*batch.notes, *map(str, batch.skipped)])


IMPORTERS: dict[str, tuple[Any, Any]] = {
    "lm-eval": (lm_eval_files(), import_lm_eval),
    "inspect": (inspect_files(), import_inspect),
    "table": (table_files(), lambda paths: import_result_tables(paths, {})),
}


def _fuzz(kind: str, n: int) -> None:
    files, importer = IMPORTERS[kind]

    @settings(max_examples=n, **COMMON)
    @given(files)
    def run(found: dict[str, bytes]) -> None:
        answers(importer, found)

    run()


@pytest.mark.parametrize("kind", IMPORTERS)
def test_no_input_of_some_crashes_an_importer(kind: str) -> None:
    _fuzz(kind, QUICK)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("kind", IMPORTERS)
def test_no_input_of_many_crashes_an_importer(kind: str) -> None:
    _fuzz(kind, MANY)
