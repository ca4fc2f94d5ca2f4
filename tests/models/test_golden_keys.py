"""Recorded runs stay recognised: hashes, fingerprints and ledger keys of shipped models, as they were recorded."""

import hashlib

import pytest

from capgap.battery import load_battery, prepare_battery
from capgap.models import load_model, parse_model, request_key

GOLDEN = {
    "microworld:teacher": (
        "b89e825256b1948817a1ff3aac94aafe226cd25a62dd04be385e8d2e8b9b3228",
        "fe0aac7f5392570c2a3f4186b148b087972e53660836fd6a0c09f2b7d4b717b0",
        "e15793b55b3c9a094441e8b9d7b6764b7dcf57ffd52f366a3e38187c9e9e77aa",
    ),
    "microworld:small": (
        "89379b53c976ef260b602ba2bdf2c2257d110bb02ddc3c6afe4d09fa78fc22db",
        "e8ad88156ffb5b3bcfa0349535690cbf70e1fee3f07d0d5e62ef5e1f566f4e9f",
        "7b147a394c8e16ccf3ae0cbd31e49a6804960d41fb96ecf9a142779eed4f38e2",
    ),
    "microworld:large,dtype=bfloat16": (
        "76b9b3ccb7a8e1fd8156b1c35790bcb045a6f8cda71359afccb1924f28d0521a",
        "fec37b6e9463caff604465a2de0602ea3fc600e4e88f63317d066e7be447184d",
        "064d6a7dc6394db06213e4e403411cbae53e8bb0676770f4c3c0889db2c5c373",
    ),
}
"""Model → weights hash, fingerprint, and digest of the keys of 768 requests; recorded before anything was renamed."""


@pytest.fixture(scope="module")
def requests() -> list[tuple[str, tuple[object, ...]]]:
    """Type and arguments of the requests of twelve items of each task of a battery."""
    tasks = [prepared.lm_task for prepared in prepare_battery(load_battery("microworld"), limit=12)]
    for task in tasks:
        task.build_all_requests()
    return [(instance.request_type, instance.args) for task in tasks for instance in task.instances]


@pytest.mark.parametrize("model", GOLDEN)
def test_identities_and_ledger_keys_are_what_they_were(
    model: str, requests: list[tuple[str, tuple[object, ...]]]
) -> None:
    loaded = load_model(parse_model(model), device="cpu")
    keys = [
        request_key(loaded.fingerprint, kind, arguments, 0, path)
        for kind, arguments in requests
        for path in ("tree", "lm-eval")
    ]
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    assert (loaded.facts["weights_hash"], loaded.fingerprint, digest) == GOLDEN[model]
    assert loaded.facts["checkpoint"] == model.partition(",")[0]
