"""Patterns of failure in a cohort whose capabilities follow laws of their own."""

from tests.analysis.cohorts import factors, rows


def test_patterns_are_the_capabilities_where_these_follow_laws_of_their_own():
    (count,) = rows("n_patterns").to_dict("records")
    assert count["estimate"] == 2
    patterns = rows("pattern")
    assert factors(patterns)["pattern"].tolist() == [1, 2]
    labels = " ".join(patterns["contrast"])
    assert "capability = knowledge" in labels
    assert "capability = reasoning" in labels
    assert patterns["note"].str.contains("to read: ").all()


def test_shares_of_items_speak_of_these_items_and_excess_failure_of_items_like_them():
    assert set(rows("pattern")["population_items"]) == {"these_items"}
    excess = rows("pattern_excess")
    assert set(excess["population_items"]) == {"items_like_these"}
    assert factors(excess)["pattern"].tolist() == [1, 2]
