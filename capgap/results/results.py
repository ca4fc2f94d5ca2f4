"""Results of a comparison: its estimates, sentence, next step, page and files."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd

from capgap import schema
from capgap.analysis import EQUIVALENCE_MARGIN, estimate_table, flipped_items, next_step, sentence, student_lines
from capgap.classification import classifier_facts
from capgap.errors import UsageError
from capgap.events import Listener, Note, ignore
from capgap.report import write_report
from capgap.results.joined_runs import REMEMBERED_SETTINGS
from capgap.results.notebook import results_html
from capgap.results.output_folders import PAGE_FILE_NAMES, keep_former_page, prepare_output_folder
from capgap.store import RunDirectory
from capgap.store.writable_folder import write_errors_explained

ItemVisibility = Literal["some", "none"]


@dataclass(frozen=True, repr=False, eq=False)
class Results:
    """What a comparison of models came to; made by `capgap.analyze`, or the ``results`` of a run.

    Estimates, sentence and next step are computed when they are first asked for. A notebook shows the sentence, the
    next step and the headline numbers.

    Examples
    --------
    >>> import pandas as pd, capgap
    >>> answers = {"big": "1111111110", "small": "1111101010", "before": "0100001000"}
    >>> outcomes = pd.DataFrame(
    ...     {"model": model, "task": "recall", "item": str(n), "score": int(right)}
    ...     for model, scores in answers.items() for n, right in enumerate(scores)
    ... )
    >>> results = capgap.analyze(outcomes, teacher="big", base="before")
    >>> results
    <Results: 'small' against 'big', 1 task, 10 items>
    >>> accuracy = results.estimates.query("quantity == 'accuracy' and level == 'task'")
    >>> accuracy.set_index("model")["estimate"].to_dict()
    {'big': 0.9, 'before': 0.2, 'small': 0.7}
    """

    outcomes: pd.DataFrame
    """The `outcomes` of every model that plays a role."""
    roles: schema.Roles
    """Who is who."""
    items: pd.DataFrame | None = None
    """What was asked, where it is known."""
    models: pd.DataFrame | None = None
    """How the models were made, where it is known."""
    labels: pd.DataFrame | None = None
    """Knowledge or reasoning, item by item; None where nothing is known of any."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What run.json holds, for the page's provenance; ``margin`` (of equivalence, points) and ``conf_level`` count."""
    notes: tuple[str, ...] = ()
    """What the user should know of the tables, one sentence each."""
    folders: tuple[Path, ...] = ()
    """The run directories that the tables come from, resolved."""
    is_of_one_run: bool = False
    """Whether they come from one run directory and nothing else."""

    @cached_property
    def estimates(self) -> pd.DataFrame:
        """The `estimates` table: one row a number, refused ones with the reason.

        Raises
        ------
        TableError, EstimationError
            Teacher and student have no common item, or the margin or ``conf_level`` is out of range.
        """
        margin = float(self.facts.get("margin", 100 * EQUIVALENCE_MARGIN)) / 100
        return estimate_table(
            self.outcomes, self.roles, models=self.models, labels=self.labels, items=self.items,
            conf_level=float(self.facts.get("conf_level", 0.95)), margin=margin,
        )  # fmt: skip

    @cached_property
    def sentence(self) -> str:
        """What was found, a line a student; what students say together comes first."""
        return sentence(self.estimates, self.roles)

    @cached_property
    def next_step(self) -> str:
        """What would narrow the widest headline interval; empty where nothing is to be gained."""
        return next_step(self.estimates, self.roles, self.facts)

    def report(self, path: Path | str, *, items: ItemVisibility = "some") -> Path:
        """Write the page alone, one HTML file that needs nothing else, and return its path.

        Parameters
        ----------
        path
            Of the file; its folder exists.
        items
            ``"none"`` leaves texts of items and answers out: ids, scores and hashes stay.

        Raises
        ------
        UsageError
            `items` is neither word.
        StoreError
            The file cannot be written.
        """
        if items not in ("some", "none"):
            raise UsageError(f"items is {items!r}; expected 'some' or 'none'.")
        # How far the run was when the page was written is not part of what it reports.
        facts = {key: value for key, value in self.facts.items() if key not in ("state", "updated")}
        of_students = "\n".join(student_lines(self.estimates, self.roles))
        lines = dict.fromkeys((*self.sentence.splitlines(), *of_students.splitlines()))
        facts |= {"sentence": list(lines), "next": self.next_step, "caveats": self.notes}
        return write_report(
            path, outcomes=self.outcomes, estimates=self.estimates, roles=self.roles, items=self.items,
            models=self.models, labels=self.labels, run={**facts, "classifier": classifier_facts(self.labels)},
            show_items=items == "some",
        )  # fmt: skip

    def write(self, folder: Path | str, *, items: ItemVisibility = "some", on_event: Listener = ignore) -> Path:
        """Write estimates (Parquet and JSON), items, models, labels and ``report.html`` into a folder.

        All are made first; page and numbers take their place together, last: whoever stops this finds the former ones.
        A former page about another comparison is kept in ``earlier/``, see `capgap.results.output_folders`. A run
        directory remembers the comparison: `Run.results` and ``capgap report`` repeat it.

        Parameters
        ----------
        folder
            Made where it is missing.
        items
            As of `report`.
        on_event
            Told where a former page is kept, and of a comparison that the run directory cannot remember.

        Returns
        -------
        Path
            Of the page.

        Raises
        ------
        StoreError
            The folder holds a run that is no part of this comparison, or cannot be written.
        """
        folder = prepare_output_folder(folder, self.folders)
        run = RunDirectory.open_existing(folder) if folder.resolve() in self.folders else None
        tables = {schema.ITEMS: self.items, schema.MODELS: self.models, schema.LABELS: self.labels}
        names = [*(() if run else (f"{table.name}.parquet" for table in tables)), *PAGE_FILE_NAMES]
        with ExitStack() as exit_stack:
            with write_errors_explained(folder):
                partial_folder = Path(exit_stack.enter_context(TemporaryDirectory(dir=folder, suffix=".partial")))
            for table, rows in {**tables, schema.ESTIMATES: self.estimates}.items():
                if rows is not None:
                    schema.write_df(rows, partial_folder / f"{table.name}.parquet", table)
            schema.write_json(self.estimates, partial_folder / "estimates.json")
            flipped = flipped_items(self.estimates)
            if len(flipped):
                flipped.to_csv(partial_folder / "flipped_items.csv", index=False)
            self.report(partial_folder / "report.html", items=items)
            if run is not None:  # page and numbers of one comparison, should another process be writing here too
                exit_stack.enter_context(run.hold_tables_lock())
                for table, rows in tables.items():  # others may have added rows
                    run.merge(table, schema.empty(table) if rows is None else rows)
            former_page_path = keep_former_page(folder, self.estimates, names)
            for name in names:
                with write_errors_explained(folder / name):
                    if (partial_folder / name).is_file():
                        (partial_folder / name).replace(folder / name)
                    else:  # of an earlier comparison
                        (folder / name).unlink(missing_ok=True)
            if run is not None:
                self._remember_comparison(run, on_event)
        if former_page_path is not None:
            reason_to_keep = "it is about another comparison or more items, or its numbers cannot be read"
            on_event(Note(f"the former page in {folder} is kept: {former_page_path} ({reason_to_keep})"))
        return folder / "report.html"

    def _remember_comparison(self, run: RunDirectory, on_event: Listener) -> None:
        """Let a report of the run repeat this comparison, where nothing but the run took part in it."""
        if self.is_of_one_run:
            settings = {key: self.facts[key] for key in self.facts if key in REMEMBERED_SETTINGS}
            run.save_comparison(self.roles, set(self.outcomes["battery"]), **settings)
        else:
            on_event(Note(f"capgap report {run.path} will show that run alone: this comparison has other sources too."))

    def __repr__(self) -> str:
        roles = self.roles
        students = repr(roles.students[0]) if len(roles.students) == 1 else f"{len(roles.students)} students"
        teacher_text = f" against {roles.teacher!r}" if roles.teacher else ""
        n_tasks, n_items = (
            len(self.outcomes[keys].drop_duplicates()) for keys in (["battery", "task"], ["battery", "task", "item"])
        )
        counts = f"{n_tasks:,} task{'s' * (n_tasks != 1)}, {n_items:,} item{'s' * (n_items != 1)}"
        return f"<Results: {students}{teacher_text}, {counts}>"

    def _repr_html_(self) -> str:
        return results_html(self.estimates, self.roles, self.sentence, (self.next_step, *self.notes))
