"""Results as other tools write them, by hand: what tests change one thing of."""

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

COLOURS = ("red", "blue", "green")
DATE = "2026-11-04T08-19-21.123456"


def choose_sample(doc_id: int, *, gold: int = 0, taken: int = 0, doc: Any = None) -> dict[str, Any]:
    """A record of today's multiple choice: three choices, one of them taken."""
    logprobs = [-1.0 if place == taken else -3.0 - place for place in range(3)]
    pairs = [[str(value), "False"] for value in logprobs]
    norm = [value / len(word) for value, word in zip(logprobs, COLOURS, strict=True)]
    return {
        "doc_id": doc_id,
        "doc": doc or {"question": f"number {doc_id}?", "choices": list(COLOURS)},
        "target": str(gold),
        "arguments": {
            f"gen_args_{n}": {"arg_0": f"Q: number {doc_id}?\nA:", "arg_1": f" {word}"}
            for n, word in enumerate(COLOURS)
        },
        "resps": [[pair] for pair in pairs],
        "filtered_resps": pairs,
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": hashlib.sha256(json.dumps(doc if doc is not None else doc_id).encode()).hexdigest(),
        "prompt_hash": "0" * 64,
        "target_hash": "0" * 64,
        "acc": float(taken == gold),
        "acc_norm": float(norm.index(max(norm)) == gold),
    }


def generate_sample(doc_id: int, text: str, *, target: str = "7", filters: tuple[str, ...] = ("none",)) -> list[Any]:
    """Records of today's generated answer, one a filter."""
    return [
        {
            "doc_id": doc_id,
            "doc": {"question": f"sum {doc_id}?"},
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": f"sum {doc_id}?", "arg_1": {"until": ["\n"]}}},
            "resps": [[text]],
            "filtered_resps": [text.strip() or "[invalid]"],
            "filter": name,
            "metrics": ["exact_match"],
            "doc_hash": f"{doc_id:064x}",
            "exact_match": float(text.strip() == target),
        }
        for name in filters
    ]


def results(model: str = "org/model", *, tasks: Any = None, **more: Any) -> dict[str, Any]:
    """Today's results file."""
    return {
        "results": tasks if tasks is not None else {"colours": {"alias": "colours", "acc,none": 0.5}},
        "configs": {"colours": {"task": "colours", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}},
        "versions": {"colours": 1.0},
        "n-shot": {"colours": 0},
        "config": {"model": "hf", "model_args": {"pretrained": model}},
        "model_name": model,
        "chat_template": None,
        "system_instruction": None,
        **more,
    }


def write_jsonl(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def lm_eval_folder(
    root: Path, model: str = "org/model", records: list[Any] | None = None, *, date: str = DATE, **more: Any
) -> Path:
    """A folder of today's files about one model: a task `colours` with four items."""
    folder = root / model.replace("/", "__")
    own = records if records is not None else [choose_sample(n, gold=n % 3, taken=0) for n in range(4)]
    write_jsonl(folder / f"samples_colours_{date}.jsonl", own)
    write_json(folder / f"results_{date}.json", results(model, **more))
    return folder


def inspect_sample(number: int, *, value: Any = "C", epoch: int = 1, **more: Any) -> dict[str, Any]:
    """A sample of an inspect log."""
    return {
        "id": number,
        "epoch": epoch,
        "input": f"sum {number}?",
        "target": "7",
        "messages": [],
        "output": {
            "model": "mockllm/model",
            "choices": [{"message": {"role": "assistant", "content": "7"}, "stop_reason": "stop"}],
            "completion": "7",
            "usage": {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4},
        },
        "scores": {"match": {"value": value, "answer": "7", "explanation": "7"}},
        "metadata": {},
        **more,
    }


def inspect_log(samples: list[Any] | None = None, *, model: str = "mockllm/model", **more: Any) -> dict[str, Any]:
    """A log of inspect as one JSON object."""
    own = [inspect_sample(n) for n in (1, 2, 3)] if samples is None else samples
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-11-04T08:19:21+00:00",
            "task": "sums",
            "task_version": 0,
            "model": model,
            "dataset": {"name": "sums", "samples": len({s.get("id") for s in own if isinstance(s, dict)})},
            "config": {"epochs": max([s.get("epoch", 1) for s in own if isinstance(s, dict)], default=1)},
            "scorers": [{"name": "match"}],
        },
        "samples": own,
        **more,
    }


def eval_archive(
    log: dict[str, Any], *, compression: int = zipfile.ZIP_DEFLATED, extra: dict[str, bytes] | None = None
) -> bytes:
    """The same log as an ``.eval`` archive."""
    buffer = io.BytesIO()
    header = {key: value for key, value in log.items() if key != "samples"}
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("header.json", json.dumps(header))
        for sample in log["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        for name, raw in (extra or {}).items():
            archive.writestr(name, raw)
    return buffer.getvalue()
