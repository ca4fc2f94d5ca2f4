import subprocess
import sys

import capgap.analysis
import capgap.stats


def test_every_public_name_exists_once_and_in_order():
    for package in (capgap.stats, capgap.analysis):
        names = package.__all__
        assert len(set(names)) == len(names)
        assert all(hasattr(package, name) for name in names)


def test_neither_half_loads_torch():
    code = "import sys, capgap.stats, capgap.analysis; print({'torch', 'transformers', 'lm_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
