import capgap.analysis
import capgap.stats


def test_every_public_name_exists_once_and_in_order():
    for package in (capgap.stats, capgap.analysis):
        names = package.__all__
        assert len(set(names)) == len(names)
        assert all(hasattr(package, name) for name in names)
