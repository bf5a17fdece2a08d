from __future__ import annotations

from dataclasses import replace

from analysis.comparability import identity_without
from tests.nasbench_at.records.test_records import make_record


def test_moved_files_are_the_same_configuration_and_edited_ones_another():
    texts = []
    for folder, digest in (("here", "d1"), ("there", "d1"), ("here", "d2")):
        data = f"{folder}/mine.npz"
        config = {**make_record().config, "data": data, "contents": {data: digest}}
        texts.append(identity_without(replace(make_record(), config=config), ("seed",)))
    assert texts[0] == texts[1] != texts[2]
