"""The functions of ``import capgap``: each does what the command of the same word does, and prints nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from capgap.default_folders import evaluation_folder, student_folder
from capgap.events import Listener, Note, ignore
from capgap.results.comparison import FrameOrPath, RoleNames, compare, wrap_in_list
from capgap.results.results import ItemVisibility, Results
from capgap.results.run import Run

__all__ = ["DistilledStudent", "analyze", "distill", "evaluate"]

TextOrPath = str | PathLike[str]
OneOrMore = TextOrPath | Sequence[TextOrPath]
"""A model or battery as text or path, or several."""


@dataclass(frozen=True)
class DistilledStudent:
    """A student that was trained; a path wherever one is expected, so a model for `evaluate`."""

    path: Path
    """Directory of its checkpoint."""
    run: Run | None = None
    """Its evaluation, where the distillation file asked for one."""

    def __fspath__(self) -> str:
        return str(self.path)


def analyze(
    outcomes: FrameOrPath | Sequence[FrameOrPath],
    *,
    students: str | Sequence[str] | None = None,
    teacher: str | None = None,
    base: RoleNames | None = None,
    control: RoleNames | None = None,
    models: FrameOrPath | None = None,
    labels: FrameOrPath | None = None,
    items: FrameOrPath | None = None,
    margin: float | None = None,
    conf_level: float | None = None,
    on_event: Listener = ignore,
) -> Results:
    """Estimates, sentence and page from outcomes alone; torch is never loaded.

    Parameters
    ----------
    outcomes
        A frame with ``model``, ``task``, ``item`` and ``score`` (0 to 1) and any other column of an `outcomes` table;
        the path of such a table (Parquet, CSV, JSONL, JSON); a run directory or a run; or a list of these.
    students
        Names of the compared models. Default: those that the runs remember, else all that play no other role.
    teacher, base, control
        Names in the column ``model``; base and control also as student → model. Default: what the runs remember;
        ``"none"``: nobody.
    models
        How models were made, a row each: effects, data cost, recipes and patterns need it.
    labels
        Knowledge or reasoning for items that declare neither, from `classify`. Default: those of the runs, and what
        the text of the items says.
    items
        What was asked, for the page; default: those of the runs.
    margin
        A student within so many points (of 100) of its teacher counts as its equal. Default: what the runs remember,
        else 2.
    conf_level
        Of every interval. Default: what the runs remember, else 0.95.
    on_event
        Called with notes on the tables, see `capgap.events`; they are in ``results.notes`` too.

    Returns
    -------
    Results
        With ``estimates``, ``sentence``, ``next_step``, ``write(DIR)`` and ``report(PATH)``.

    Raises
    ------
    UsageError
        A name is unknown, or a model has two roles that exclude each other.
    TableError, StoreError, EstimationError
        A table or directory does not hold what it should, or teacher and student have no common item.

    Examples
    --------
    >>> import pandas as pd, capgap
    >>> answers = {"big": "1111111110", "small": "1111101010", "before": "0100001000"}
    >>> outcomes = pd.DataFrame(
    ...     {"model": model, "task": "recall", "item": str(n), "score": int(right)}
    ...     for model, scores in answers.items() for n, right in enumerate(scores)
    ... )
    >>> results = capgap.analyze(outcomes, teacher="big", base="before")
    >>> results.roles.students
    ('small',)
    >>> gaps = results.estimates.query("quantity == 'gap' and level == 'task'")
    >>> gaps["estimate"].round(2).tolist()
    [0.2]
    """
    results = compare(
        outcomes, students=students, teacher=teacher, base=base, control=control, models=models, labels=labels,
        items=items, margin=margin, conf_level=conf_level, on_event=on_event,
    )  # fmt: skip
    results.estimates  # noqa: B018  computed now, so that what is wrong is told here
    return results


def evaluate(
    students: OneOrMore,
    *,
    teacher: TextOrPath | None = None, base: TextOrPath | None = None, control: TextOrPath | None = None,
    battery: OneOrMore = (), limit: int | None = None, data_root: Path | str | None = None,
    device: str | None = None, dtype: str | None = None, batch_tokens: int | None = None, workers: int = 1,
    shard: str | None = None, rescore: bool = False, allow_code: bool = False, allow_pickle: bool = False,
    labels: FrameOrPath | None = None, margin: float | None = None, items: ItemVisibility = "some",
    out: Path | str | None = None, command: Sequence[str] = (), on_event: Listener = ignore,
) -> Run:  # fmt: skip
    """Ask students, teacher, base and control the items of batteries, analyse the answers and write the run directory.

    Parameters
    ----------
    students, teacher, base, control
        Models as ``[NAME=]CKPT[,key=value…]``: a local directory, a hub name, ``microworld:small`` or any backend of
        lm-eval; students may be several and globs. A base that is not given is looked for in the students' own files;
        ``"none"`` refuses it.
    battery
        Names or files. Default: ``microworld`` for its own models, else ``core``.
    limit
        Items a task, at most: a seeded sample.
    device, dtype, batch_tokens, workers
        Where and how models run, as the options of ``capgap evaluate``.
    shard
        ``"K/N"``: ask this part only and make no tables.
    rescore
        Make the tables again from the ledger, without a model.
    data_root
        Second folder for the data of batteries.
    allow_code, allow_pickle
        Permit what the files of models may do: run Python code of their own, be loaded from pickles.
    labels, margin
        As of `analyze`.
    items
        ``"none"`` leaves texts of items and answers out of the page.
    out
        Run directory; default ``capgap-out/STUDENT``. The same call goes on where it stopped; other models and
        batteries are added. A page there about another comparison is kept in ``out/earlier``.
    command
        Command line, for the record.
    on_event
        Called with progress events, see `capgap.events`.

    Returns
    -------
    Run
        With ``results`` and all tables; its page is ``run.path / "report.html"``.

    Raises
    ------
    CapgapError
        A model, a battery or the directory is wrong; what was answered until then is in the ledger.

    Examples
    --------
    >>> import capgap
    >>> run = capgap.evaluate("microworld:small", teacher="microworld:teacher", limit=4, device="cpu")
    >>> run.path
    PosixPath('capgap-out/small')
    >>> run.results
    <Results: 'small' against 'teacher', 14 tasks, 56 items>
    >>> sorted(run.outcomes["model"].unique())
    ['small', 'teacher']
    """
    from capgap import evaluation

    models = evaluation.cast_roles(
        [_text(model) for model in wrap_in_list(students, "students")], teacher=_text(teacher), base=_text(base),
        control=_text(control), permissions=_list_permissions(allow_code, allow_pickle),
    )  # fmt: skip
    devices = evaluation.parse_devices(device)
    plan = evaluation.EvaluationPlan(
        **models._asdict(),
        batteries=tuple(map(_text, wrap_in_list(battery, "battery"))) or evaluation.default_batteries(models.students),
        limit=limit, device=devices[0] if devices else None, devices=devices if len(devices) > 1 else (), dtype=dtype,
        batch_tokens=batch_tokens, workers=workers, shard=evaluation.parse_shard(shard), rescore=rescore,
        data_root=None if data_root is None else Path(data_root),
    )  # fmt: skip
    folder = evaluation_folder(plan.students[0].name) if out is None else Path(out)
    directory = evaluation.evaluate(plan, folder, command=command, on_event=on_event)
    if plan.shard is not None:
        on_event(
            Note(f"part {shard} is in {folder}. With all parts there, the same without a shard writes the report.")
        )
        return Run(folder)
    no_base, no_control = ("none" if model == "none" else None for model in (base, control))
    # Of this call: run.json may by now hold the roles of another process that evaluates into the same directory.
    results = compare(
        Run(folder), base=no_base, control=no_control, labels=labels, margin=margin, roles=plan.roles, on_event=on_event
    )
    results.write(folder, items=items, on_event=on_event)
    directory.save(state="done")
    run = Run(folder)  # as it is now that it is done
    run.results = results
    return run


def distill(
    file: Path | str,
    *,
    out: Path | str | None = None, device: str | None = None, ledger: Path | str | None = None,
    allow_code: bool = False, allow_pickle: bool = False, command: Sequence[str] = (), on_event: Listener = ignore,
) -> DistilledStudent:  # fmt: skip
    """Train the student that a distillation file describes; evaluate it where the file says so.

    Parameters
    ----------
    file
        YAML, as `capgap distill --help` shows it.
    out
        Directory of the checkpoint; default ``capgap-out/students/NAME``. One that holds this student finished is
        returned at once, a part of it is gone on with, anything else is refused. An evaluation goes to
        ``capgap-out/NAME``, where `evaluate` of the student puts it; with `out`, beside it as ``OUT-evaluation``.
    device
        ``cpu``, ``cuda`` …; default: the best there is.
    ledger
        The teacher's responses, which several students may share; default in `out`.
    allow_code, allow_pickle
        As of `evaluate`.
    command
        Command line, for the record of an evaluation.
    on_event
        Called with progress events, see `capgap.events`.

    Returns
    -------
    DistilledStudent
        ``path`` of the checkpoint and, where the file asks for it, the ``run`` of its evaluation.

    Raises
    ------
    CapgapError
        The file, its data, a model or the directory is wrong; what was done is kept.

    Examples
    --------
    >>> from pathlib import Path
    >>> import capgap
    >>> _ = Path("pupil.yaml").write_text('''
    ... name: pupil
    ... student: microworld:small
    ... data: {battery: microworld, tasks: [facts_generate]}
    ... n_examples: 8
    ... supervision: gold_answers
    ... training: {max_steps: 1}
    ... ''')
    >>> capgap.distill("pupil.yaml", device="cpu")
    DistilledStudent(path=PosixPath('capgap-out/students/pupil'), run=None)
    """
    from capgap import distillation
    from capgap.evaluation import quiet

    config, folder = distillation.load_config(file), Path(file).parent
    config = config.with_load_permissions(_list_permissions(allow_code, allow_pickle))
    target = student_folder(config.name) if out is None else Path(out)
    with quiet():
        distillation.distill(config, target, folder=folder, device=device, ledger=ledger, on_event=on_event)
    if config.evaluate is None:
        return DistilledStudent(target)
    names = wrap_in_list(config.evaluate.battery, "battery")
    run = evaluate(
        f"{config.name}={target}",
        teacher=config.lead,
        battery=[folder / name if (folder / name).is_file() else name for name in names],
        limit=config.evaluate.limit,
        out=evaluation_folder(config.name) if out is None else target.with_name(f"{target.name}-evaluation"),
        device=device, allow_code=allow_code, allow_pickle=allow_pickle, command=command, on_event=on_event,
    )  # fmt: skip
    return DistilledStudent(target, run)


def _text(model: TextOrPath | None) -> Any:
    """A model spec or a battery as text; None stays."""
    return None if model is None else fspath(model)


def _list_permissions(allow_code: bool, allow_pickle: bool) -> tuple[str, ...]:
    """The keys of model specs that are permitted."""
    return tuple(key for key, is_allowed in (("allow_code", allow_code), ("allow_pickle", allow_pickle)) if is_allowed)
