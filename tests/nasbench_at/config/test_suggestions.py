from __future__ import annotations

from nasbench_at.config.suggestions import suggest


def test_near_names_come_first_and_all_follow():
    assert suggest("resiudal", ["residual", "dense"]) == (
        "did you mean 'residual'? known: residual, dense"
    )


def test_a_name_that_is_near_to_none_lists_what_there_is():
    assert suggest("zzz", ["residual", "dense"]) == "known: residual, dense"
    assert suggest("zzz", []) == "known: none"
