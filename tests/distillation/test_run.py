import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from capgap import schema
from capgap.distillation import DistillConfig, distill, load_config
from capgap.distillation.data.jsonl import read_examples
from capgap.distillation.data.pool import gather_examples
from capgap.distillation.data.selection import TaskFormat, TrainingExample
from capgap.distillation.identity import LOCK_FILE
from capgap.distillation.job import DistillJob
from capgap.distillation.teacher.generations import TeacherGenerations, generate_texts
from capgap.distillation.teacher.prompt_context import PromptBuilder
from capgap.errors import BatteryError, DistillError, StoreError
from capgap.events import Event, Note, StageAdvanced, StageBegun, StageFinished
from tests.distillation.conftest import interrupted_at, sums, write_jsonl

Make = Callable[..., DistillConfig]


@pytest.fixture(scope="module")
def generated(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TeacherGenerations]:
    """Ask the tiny teacher all sums, or other examples; its responses are kept between the tests."""
    folder = tmp_path_factory.mktemp("generated")
    path = write_jsonl(folder / "sums.jsonl", sums())

    def make(supervision: str, examples: Any = None, **generation: Any) -> TeacherGenerations:
        file = {
            "name": "x",
            "student": "y",
            "teacher": str(teacher),
            "data": {"file": str(path), "extract": r"A (\S+)"},
            "supervision": supervision,
            "generation": {"max_tokens": 16, **generation},
        }
        config = DistillConfig.model_validate(file)
        job = DistillJob(config, folder, folder, "cpu")
        examples = examples or read_examples(config.data, folder=folder)
        context = PromptBuilder(config, examples)
        return generate_texts(job, str(teacher), examples, context, ledger=folder / "ledger.sqlite")

    return make


def test_the_teachers_texts_become_answers_and_traces(generated: Callable[..., TeacherGenerations]) -> None:
    answers, traces = generated("answers"), generated("traces")
    assert answers.n_asked == traces.n_asked == 55
    assert traces.accuracy is not None
    assert traces.accuracy > 0.5
    assert len(traces.pairs) + traces.n_unparsed + traces.n_cut == 55
    for (example, answer), (same, trace) in zip(answers.pairs, traces.pairs, strict=True):
        assert example == same
        assert answer.startswith(" A ")
        assert len(answer.split()) == 2
        assert trace.endswith(answer)
        assert trace.startswith(f" {example.prompt.split()[1]} ")  # the teacher's steps begin with the first number
    right = [pair for pair in answers.pairs if pair[1].split()[-1] in pair[0].targets]
    assert len(right) == answers.n_right


def test_wrong_answers_are_dropped_where_asked(generated: Callable[..., TeacherGenerations]) -> None:
    every, correct = generated("traces"), generated("traces", keep="correct")
    assert len(correct.pairs) == correct.n_right == every.n_right
    assert correct.n_wrong_dropped == len(every.pairs) - len(correct.pairs)
    assert all(trace.split()[-1] in example.targets for example, trace in correct.pairs)


def test_texts_that_meet_the_limit_are_dropped_and_told(generated: Callable[..., TeacherGenerations]) -> None:
    with pytest.raises(DistillError, match=r"55 cut at the limit .* Raise generation\.max_tokens"):
        generated("traces", max_tokens=2)


def test_the_teachers_choice_is_the_likeliest(generated: Callable[..., TeacherGenerations]) -> None:
    choices = tuple("0123456789")
    examples = [
        TrainingExample(
            s["item"], f"{s['prompt']} {s['rationale']} A", s["completion"][-1], task="pick", choices=choices
        )
        for s in sums()
    ]
    generations = generated("answers", examples)
    assert len(generations.pairs) == 55
    assert generations.accuracy is not None
    assert generations.accuracy > 0.5  # told the steps, it reads the answer off them
    assert all(text.strip() in choices for _, text in generations.pairs)


def test_no_response_is_asked_twice(
    generated: Callable[..., TeacherGenerations], monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.models.tree_hflm import TreeHFLM

    first = generated("traces")
    monkeypatch.setattr(TreeHFLM, "_model_generate", lambda *_, **__: pytest.fail("asked again"))
    assert generated("traces").pairs == first.pairs


@pytest.mark.parametrize(
    ("supervision", "form"),
    [("gold_answers", "A 5"), ("gold_traces", "2 + 3 = 5 ; A 5"), ("answers", "A"), ("traces", "2")],
)
def test_each_supervision_makes_a_student(
    make_config: Make, tmp_path: Path, teacher: Path, supervision: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from capgap.distillation.data import tokenised

    seen: list[str] = []
    original = tokenised._encode_examples

    def spy(config: Any, encoder: Any, pairs: Any) -> Any:
        seen.extend(text for example, text in pairs if example.item == "2+3")
        return original(config, encoder, pairs)

    monkeypatch.setattr(tokenised, "_encode_examples", spy)
    changes = {"supervision": supervision, "teacher": str(teacher), "generation": {"max_tokens": 16}}
    out = distill(make_config(**changes, training={"max_steps": 2}), tmp_path / "out", device="cpu")
    assert seen[0].strip().startswith(form)
    row = json.loads((out / "capgap.json").read_text())
    assert (row["teachers"] is None) == supervision.startswith("gold")
    story = json.loads((out / "distill.json").read_text())
    assert (story["teacher"] is None) == supervision.startswith("gold")


def test_the_checkpoint_says_what_it_is_as_a_row_of_the_models_table(
    make_config: Make, tmp_path: Path, base: Path
) -> None:
    from capgap.models import find_base, load_model, parse_model

    config = make_config(n_examples=20, seed=3, data_seed=1, training={"epochs": 2, "batch_size": 8})
    out = distill(config, tmp_path / "out", device="cpu")
    row = json.loads((out / "capgap.json").read_text())
    table = schema.validate(pd.DataFrame([row]), schema.MODELS)
    assert table["n_examples"][0] == table["n_unique"][0] == 20
    assert (row["seed"], row["data_seed"], row["steps"], row["epochs"]) == (3, 1, 5, 2.0)
    assert sum(row["n_examples_by_capability"].values()) == 20
    assert row["n_trainable"] == row["n_params"]
    assert not Path(row["base"]).is_absolute()
    found = find_base(parse_model(str(out)))
    assert found is not None
    assert Path(found.spec_text).resolve() == base.resolve()
    facts = load_model(parse_model(str(out)), device="cpu").facts
    assert (facts["model"], facts["supervision"], facts["weights_hash"]) == ("out", "gold_answers", row["weights_hash"])


def test_one_seed_gives_one_student_and_another_another(make_config: Make, tmp_path: Path) -> None:
    def hashed(name: str, **changes: Any) -> str:
        out = distill(make_config(training={"max_steps": 3}, **changes), tmp_path / name, device="cpu")
        return str(json.loads((out / "capgap.json").read_text())["weights_hash"])

    assert hashed("a") == hashed("b") != hashed("c", seed=1)


def test_what_is_finished_is_returned_at_once_and_nothing_else_is_touched(
    make_config: Make, tmp_path: Path, write_sums: Path
) -> None:
    config = make_config(training={"max_steps": 2})
    out = distill(config, tmp_path / "out", device="cpu")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert distill(config, out) == out
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(DistillError, match=r"holds another student: its training.max_steps is 2, and here it is 3"):
        distill(make_config(training={"max_steps": 3}), out)
    write_jsonl(write_sums, sums()[:-1])
    with pytest.raises(DistillError, match="contents of its data have changed"):
        distill(config, out)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="holds something else"):
        distill(config, foreign)
    with pytest.raises(StoreError, match="is a file"):
        distill(config, foreign / "thesis.tex")


def test_of_two_at_once_on_one_student_the_second_waits_and_trains_nothing(make_config: Make, tmp_path: Path) -> None:
    config, out = make_config(training={"max_steps": 2}), tmp_path / "out"
    events: list[Event] = []
    is_waiting = threading.Event()

    def second_hears(event: Event) -> None:
        events.append(event)
        is_waiting.set()

    second = threading.Thread(target=distill, args=(config, out), kwargs={"on_event": second_hears})

    def first_hears(event: Event) -> None:
        if isinstance(event, StageBegun):
            second.start()
            assert is_waiting.wait(60)

    distill(config, out, device="cpu", on_event=first_hears)
    second.join(60)
    assert events == [
        Note(f"pupil: another process trains it in {out}; waiting for its end"),
        Note(f"pupil: is finished in {out}"),
    ]


def test_a_killed_process_leaves_no_lock_on_its_student_or_beside_it(make_config: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    code = f"from filelock import FileLock; FileLock({str(out / LOCK_FILE)!r}).acquire(); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        beside = distill(make_config(training={"max_steps": 1}), tmp_path / "beside", device="cpu")
        assert (beside / "capgap.json").exists(), "the lock is the student's, not the folder's around it"
        process.kill()
    events: list[Event] = []
    distill(make_config(training={"max_steps": 1}), out, device="cpu", on_event=events.append)
    assert (out / "capgap.json").exists()
    assert not any("waiting" in event.text for event in events if isinstance(event, Note))


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError(28, "No space left on device", "w.safetensors"), "w.safetensors: cannot be written.*Free some space"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos"), "Free some space"),
        (PermissionError(13, "Permission denied", "w"), "Choose another place"),
    ],
)
def test_what_a_disk_says_is_told_and_the_run_goes_on(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, message: str
) -> None:
    config = make_config(training={"max_steps": 1})

    def full(*_: Any) -> None:
        raise raised

    with monkeypatch.context() as broken:
        broken.setattr("capgap.distillation.run.save_student", full)
        with pytest.raises(StoreError, match=message):
            distill(config, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "capgap.json").exists()
    assert (distill(config, tmp_path / "out", device="cpu") / "capgap.json").exists()


def test_progress_is_told_as_events_and_nothing_is_printed(
    make_config: Make, tmp_path: Path, teacher: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make_config(
        supervision="logits", teacher=str(teacher), generation={"max_tokens": 16}, training={"max_steps": 3}
    )
    events: list[Event] = []
    capfd.readouterr()  # what fixtures wrote
    distill(config, tmp_path / "out", device="cpu", on_event=events.append)
    assert capfd.readouterr() == ("", "")
    stages = [event.stage_id for event in events if isinstance(event, StageBegun)]
    assert stages == ["teacher's texts", "teacher's distributions", "training"]
    assert [event.stage_id for event in events if isinstance(event, StageFinished)] == stages
    for begun in (event for event in events if isinstance(event, StageBegun)):
        done = [event.n for event in events if isinstance(event, StageAdvanced) and event.stage_id == begun.stage_id]
        assert sum(done) == begun.total
    assert [event.status for event in events if isinstance(event, StageAdvanced)][-1].startswith("loss ")
    notes = [event.text for event in events if isinstance(event, Note)]
    assert all(text.startswith("pupil: ") for text in notes)
    assert any("55 of 55 examples" in text for text in notes)
    events.clear()
    distill(config, tmp_path / "out", on_event=events.append)
    assert [type(event) for event in events] == [Note]


def test_a_stage_that_fails_is_finished(make_config: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    with interrupted_at(2):
        distill(make_config(training={"max_steps": 4, "save_steps": 1}), tmp_path / "out", on_event=events.append)
    assert isinstance(events[-1], StageFinished)
    events.clear()
    distill(make_config(training={"max_steps": 4, "save_steps": 1}), tmp_path / "out", on_event=events.append)
    done = [event.n for event in events if isinstance(event, StageAdvanced)]
    assert done == [1, 1, 1, 1]  # the first is the step of the checkpoint


BATTERY = """
    name: tiny
    tasks:
      - name: add
        data: {file: eval.jsonl, train: train.jsonl}
        id: "{{item}}"
        format: generate
        prompt: "Q {{a}} + {{b}} ?"
        target: "A {{c}}"
        rationale: "{{a}} + {{b}} = {{c}} ;"
        extract: '(A \\S+)'
        max_tokens: 16
        capability: reasoning
      - name: pick
        data: {file: eval.jsonl, train: train.jsonl}
        id: "{{item}}"
        format: choose
        prompt: "Q {{a}} + {{b}} ? A"
        choices: ["{{c}}", "{{c + 1}}"]
        target: 0
        capability: reasoning
      - name: bare
        data: {file: eval.jsonl}
        format: generate
        prompt: "Q {{a}} ?"
        target: "{{c}}"
        max_tokens: 16
"""


@pytest.fixture
def battery(tmp_path: Path) -> Path:
    rows = [{"item": f"{a}+{b}", "a": a, "b": b, "c": a + b} for a in range(8) for b in range(8)]
    write_jsonl(tmp_path / "train.jsonl", rows[:40])
    write_jsonl(tmp_path / "eval.jsonl", rows[36:])
    path = tmp_path / "tiny.yaml"
    path.write_text(textwrap.dedent(BATTERY), encoding="utf-8")
    return path


def test_a_battery_gives_its_training_parts_and_keeps_its_items_out(
    make_config: Make, battery: Path, tmp_path: Path
) -> None:
    config = make_config(data={"battery": str(battery)}, supervision="gold_traces", training={"max_steps": 2})
    pool = gather_examples(config, folder=tmp_path)
    assert {example.task for example in pool.examples} == {"add", "pick"}
    assert pool.examples[0].task_format == TaskFormat(stop=("\n",), max_tokens=16, extract=r"(A \S+)")
    out = distill(config, tmp_path / "out", device="cpu")
    story = json.loads((out / "distill.json").read_text())
    assert (story["n_held_out"], story["n_trained_on"], story["n_without_trace"]) == (4, 36, 40)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [(["ad"], "'ad' is no task of it. Did you mean 'add'"), (["bare"], "'bare' has no training part")],
)
def test_a_task_that_cannot_be_learnt_from_is_told(
    make_config: Make, battery: Path, tmp_path: Path, tasks: list[str], message: str
) -> None:
    with pytest.raises(DistillError, match=message):
        gather_examples(make_config(data={"battery": str(battery), "tasks": tasks}), folder=tmp_path)


def test_an_unknown_battery_is_told(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(BatteryError, match="microworld"):
        distill(make_config(data={"battery": "microwrld"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_directory_and_evaluates_where_asked(battery: Path, base: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from capgap.cli.distill import distill as command

    file = tmp_path / "pupil.yaml"
    file.write_text(
        f"name: pupil\nstudent: {base}\ndata: {{battery: tiny.yaml}}\nsupervision: gold_answers\n"
        "training: {max_steps: 1}\nevaluate: {battery: tiny.yaml, limit: 3}\n"
    )
    ran = CliRunner().invoke(command, [str(file), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"])
    assert ran.exception is None
    assert ran.stdout.splitlines()[0] == str(tmp_path / "out")
    assert (tmp_path / "out-evaluation" / "report.html").is_file()
    assert load_config(file).name == "pupil"


def test_weights_of_a_trace_reach_the_loss(make_config: Make, tmp_path: Path) -> None:
    first = {}
    for name, weights in {"equal": {"reasoning": 1.0}, "answer": {"reasoning": 0.0}, "both": {"answer": 3.0}}.items():
        config = make_config(
            supervision="gold_traces", trace_weights=weights, training={"max_steps": 1, "batch_size": 55}
        )
        out = distill(config, tmp_path / name, device="cpu")
        first[name] = json.loads((out / "distill.json").read_text())["losses"][0][1]
    # 6 tokens of reasoning and 3 of answer: the mean is that of the weights
    reasoning = (9 * first["equal"] - 3 * first["answer"]) / 6
    assert first["both"] == pytest.approx((6 * reasoning + 9 * first["answer"]) / 15, rel=1e-4)
