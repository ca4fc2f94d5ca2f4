"""`capgap doctor`: what this machine has, and whether capgap can use it."""

import os
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from capgap.cli.options import json_option
from capgap.cli.printing import print_json

__all__ = ["doctor", "examine_machine"]

CHECKED_PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "lm-eval", "datasets", "pandas", "scikit-learn", "statsmodels",
)  # fmt: skip


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Tell what this machine has: versions, devices, threads, disk, hub, a model that answers, a trainer that is right.

    Exit status 2 where something that capgap needs is missing.
    """
    check_findings = examine_machine()
    if as_json:
        print_json(check_findings)
    else:
        width = max(map(len, check_findings))
        for name, check_finding in check_findings.items():
            status_mark = "ok" if check_finding["ok"] else "!!"
            click.echo(f"{status_mark}  {name:<{width}}  {check_finding['found']}")
            if check_finding.get("advice"):
                click.echo(f"    {'':<{width}}  {check_finding['advice']}")
    return 0 if all(check_finding["ok"] for check_finding in check_findings.values()) else 2


def examine_machine() -> dict[str, dict[str, Any]]:
    """What was found, by subject: ``ok``, ``found`` in words, and ``advice`` where something can be mended."""
    python = f"{platform.python_version()} on {platform.platform()}"
    check_findings = {"python": _verdict(sys.version_info >= (3, 11), python)}
    check_findings |= {name: _check_package(name) for name in (*CHECKED_PACKAGES, "capgap")}
    if check_findings["torch"]["ok"]:
        check_findings["devices"] = _check_devices()
        check_findings["threads"] = _check_threads()
    check_findings["disk"] = _check_disk(Path.cwd())
    check_findings["hub"] = _check_hub_settings()
    if check_findings["torch"]["ok"]:
        check_findings["microworld"] = _microworld()
        if check_findings["microworld"]["ok"]:
            check_findings |= _check_trainer()
    return check_findings


def _verdict(ok: bool, finding_text: str, advice: str = "") -> dict[str, Any]:
    return {"ok": ok, "found": finding_text, **({"advice": advice} if advice else {})}


def _check_package(name: str) -> dict[str, Any]:
    try:
        return _verdict(True, version(name))
    except PackageNotFoundError:
        return _verdict(False, "not installed", f"pip install {name}")


def _check_devices() -> dict[str, Any]:
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        devices.append(f"cuda:{index} {properties.name} ({properties.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        devices.append("mps")
    devices.append(f"cpu ({os.cpu_count()} cores, {_measure_gflops():.0f} GFLOP/s in one float32 product)")
    return _verdict(True, "; ".join(devices))


def _measure_gflops() -> float:
    """Billions of operations a second in a 1024³ product, best of three."""
    import torch

    a = torch.ones(1024, 1024)
    durations = []
    for _ in range(4):
        start = time.perf_counter()
        a @ a
        durations.append(time.perf_counter() - start)
    return float(2 * 1024**3 / min(durations[1:]) / 1e9)


def _check_threads() -> dict[str, Any]:
    import torch

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    is_machine_shared = threads > 1 and load_average > 0.5
    advice = "Others use this machine: OMP_NUM_THREADS=1 is safer, threads that wait spin." if is_machine_shared else ""
    return _verdict(True, f"torch would use {threads} of {cores} cores; load {load_average:.1f}", advice)


def _check_disk(folder: Path) -> dict[str, Any]:
    free_gib = shutil.disk_usage(folder).free / 2**30
    writable = os.access(folder, os.W_OK)
    ok = writable and free_gib > 1
    observation = f"{free_gib:.1f} GiB free in {folder}{'' if writable else ', not writable'}"
    return _verdict(ok, observation, "" if ok else "Run capgap where it can write, or give --out.")


def _check_hub_settings() -> dict[str, Any]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return _verdict(
            True, "HF_HUB_OFFLINE is set: local checkpoints, cached ones, and --battery pocket or microworld"
        )
    return _verdict(True, f"{constants.ENDPOINT}; cache {constants.HF_HUB_CACHE}")


def _microworld() -> dict[str, Any]:
    """Load an embedded model and let it answer: transformers, lm-eval and the ledger in one go."""
    import tempfile

    from lm_eval.api.instance import Instance

    from capgap.errors import CapgapError
    from capgap.models import Ledger, load_model, parse_model, respond

    try:
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            model = load_model(parse_model("microworld:teacher"), device="cpu")
            question: Any = Instance("loglikelihood", {}, ("a", " b"), 0, ("doctor", 0, 1))
            ((answer,),) = respond(model, [question], ledger)
    except CapgapError as error:
        return _verdict(False, "does not answer", str(error))
    return _verdict(True, f"microworld:teacher loads and answers (log-likelihood {answer.value[0]:.2f} nats)")


def _check_trainer() -> dict[str, dict[str, Any]]:
    """What the trainer's self-tests came to on this machine's best device."""
    from capgap.distillation.selftest import self_tests
    from capgap.models import choose_device

    advice = "Numbers of this trainer cannot be trusted here; please report it with the output of doctor --json."
    return {name: _verdict(ok, finding, "" if ok else advice) for name, ok, finding in self_tests(choose_device(None))}
