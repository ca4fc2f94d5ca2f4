"""Copy the tables and the report of a run without a word of its items: texts become hashes, so that equal stays equal.

Run it as ``python redact.py RUN TARGET``.
"""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pandas as pd

source, target = map(Path, sys.argv[1:])
target.mkdir(parents=True, exist_ok=True)


def digest(text: object) -> object:
    """Sixteen hex digits of a text; what is missing stays missing."""
    return hashlib.sha256(str(text).encode()).hexdigest()[:16] if pd.notna(text) else text


for table, columns in (
    ("outcomes", ["prediction", "target", "response", "cluster"]),
    ("items", ["prompt", "choices", "target"]),
):
    frame = pd.read_parquet(source / f"{table}.parquet")
    for column in columns:
        frame[column] = frame[column].map(digest)
    frame.to_parquet(target / f"{table}.parquet", index=False)
for name in ("models.parquet", "estimates.parquet", "estimates.json", "report.html"):
    shutil.copy(source / name, target / name)
run = json.loads((source / "run.json").read_text())
(target / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
