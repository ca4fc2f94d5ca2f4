"""lm-eval's results file: the model, how the tasks were put to it, and the aggregates to check the samples against.

Both generations are read: 2023's ``results[task].acc`` with ``config.model_args`` as text, and today's
``results[task]["acc,none"]`` with ``configs``, ``n-shot``, ``n-samples`` and the chat template.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from capgap.errors import TableError
from capgap.importers.values import as_mapping, name_text, number, portable_model_name, whole_number

_FILE_DATE_REGEX = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}[-:]\d{2}[-:]\d{2}(?:\.\d+)?)\.jsonl?$")
# The order in which lm-eval itself looks for a name in the arguments of a model: an adapter before what it adapts.
_MODEL_NAME_ARGUMENTS = ("peft", "delta", "pretrained", "model", "path", "engine")
_NON_METRIC_KEYS = ("alias", "name", "sample_len", "sample_count")


@dataclass(frozen=True)
class ResultsFile:
    """One results file."""

    path: Path
    """Where it lies."""
    date: str
    """The moment in its name, which its samples share; empty where there is none."""
    model: str
    """The model, without what only means something on the machine it ran on."""
    facts: dict[str, Any]
    """Its row of the models table without its name."""
    tasks: dict[str, dict[str, float]]
    """Task → ``metric`` or ``metric,filter`` → aggregate."""
    groups: frozenset[str] = frozenset()
    """Names in `tasks` that stand for several tasks."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Task → its configuration, where the file holds it."""
    setups: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Task → number of solved examples and version, as far as the file tells."""
    n_samples: Mapping[str, int] = field(default_factory=dict)
    """Task → number of documents that were asked."""
    lower: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Task → metrics of which less is better."""
    chat_template: bool = False
    """Whether the prompts went through a chat template."""


def date_in(name: str) -> str:
    """The moment in the name of a results or samples file; empty where there is none."""
    match = _FILE_DATE_REGEX.search(name)
    return match.group(1) if match else ""


def read_results(path: Path, data: Any) -> ResultsFile | None:
    """The results in a JSON document; None where it is something else.

    Raises
    ------
    TableError
        It is a results file, and does not say of which model.
    """
    if (
        not isinstance(data, dict)
        or not isinstance(data.get("results"), dict)
        or not {"config", "versions"} & set(data)
    ):
        return None
    config = as_mapping(data.get("config"))
    name, base = _model_name(data, config)
    model = name_text(name, "the model")
    chat = data.get("chat_template")
    configs = {task: config for task, config in as_mapping(data.get("configs")).items() if isinstance(config, dict)}
    return ResultsFile(
        path=path,
        date=date_in(path.name),
        model=model,
        facts={
            "checkpoint": model,
            "base": base,
            "n_params": whole_number(config.get("model_num_parameters")),
            "prompting": _prompting(data),
        },
        tasks={str(task): _aggregate_by_metric(metrics) for task, metrics in as_mapping(data["results"]).items()},
        groups=_find_task_groups(data),
        configs=configs,
        setups=_fewshot_and_version(data, config, configs),
        n_samples={
            task: count
            for task, counts in as_mapping(data.get("n-samples")).items()
            if (count := whole_number(as_mapping(counts).get("effective"))) is not None
        },
        lower={
            task: frozenset(metric for metric, higher_better in as_mapping(metrics).items() if higher_better is False)
            for task, metrics in as_mapping(data.get("higher_is_better")).items()
        },
        chat_template=isinstance(chat, str) and bool(chat),
    )


def _model_name(data: dict[str, Any], config: dict[str, Any]) -> tuple[str, str | None]:
    """The model and, where an adapter was loaded, what it adapts."""
    arguments = _parse_model_arguments(config.get("model_args"))
    candidates = [data.get("model_name"), *(arguments.get(key) for key in _MODEL_NAME_ARGUMENTS)]
    name = next((name for name in candidates if isinstance(name, str) and name), config.get("model"))
    if not isinstance(name, str) or not name:
        raise TableError("names no model: neither model_name nor config.model_args. Say it: --set model=NAME")
    name = portable_model_name(name)
    adapter = bool(arguments.get("peft") or arguments.get("delta"))
    revision = arguments.get("revision") or config.get("model_revision")
    if not adapter and isinstance(revision, str) and revision not in ("", "main"):
        name = f"{name}@{revision}"
    base = arguments.get("pretrained") if adapter else None
    return name, portable_model_name(base) if base else None


def _parse_model_arguments(value: Any) -> dict[str, str]:
    """The arguments of lm-eval's model, which are an object today and were ``key=value,key=value`` in 2023."""
    if isinstance(value, str):
        pairs = (argument.partition("=") for argument in value.split(","))
        return {key.strip(): word.strip() for key, equals, word in pairs if equals}
    return {key: word for key, word in as_mapping(value).items() if isinstance(word, str)}


def _prompting(data: dict[str, Any]) -> str | None:
    """How the model was addressed, in the words of capgap's own runs; None where the file is older than that."""
    if "chat_template" not in data and "system_instruction" not in data:
        return None
    prompting: dict[str, Any] = {"chat_template": bool(data.get("chat_template"))}
    system = data.get("system_instruction")
    if isinstance(system, str) and system:
        prompting["system_prompt"] = system[:2_000]
    return json.dumps(prompting, sort_keys=True)


def _aggregate_by_metric(metrics: Any) -> dict[str, float]:
    return {
        key: aggregate_value
        for key, value in as_mapping(metrics).items()
        if "_stderr" not in key and key not in _NON_METRIC_KEYS and not isinstance(value, str)
        if (aggregate_value := number(value)) is not None
    }


def _find_task_groups(data: dict[str, Any]) -> frozenset[str]:
    """Names that stand for several tasks: a group's parts are never only itself."""
    subtasks = as_mapping(data.get("group_subtasks"))
    groups = [name for name, members in subtasks.items() if isinstance(members, list) and members and members != [name]]
    return frozenset([*as_mapping(data.get("groups")), *groups])


def _fewshot_and_version(
    data: dict[str, Any], config: dict[str, Any], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    shots, versions = as_mapping(data.get("n-shot")), as_mapping(data.get("versions"))
    setups = {}
    for task in dict.fromkeys([*as_mapping(data["results"]), *configs, *shots]):
        config_n_fewshot = configs.get(task, {}).get("num_fewshot", config.get("num_fewshot"))
        setup = {"num_fewshot": whole_number(shots.get(task, config_n_fewshot)), "version": number(versions.get(task))}
        setups[str(task)] = {key: value for key, value in setup.items() if value is not None}
    return setups
