from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasbench_at import RunConfig
from nasbench_at.config import resolve
from studies.config import PlannedRun, StudyConfig
from studies.recipes import block_space, methods, search
from studies.variants import fit_batch, with_model
from tests.conftest import forget_plugins
from tests.studies.conftest import tiny_run


def test_study_survives_yaml(tiny_study):
    import yaml

    text = tiny_study.to_yaml()
    assert StudyConfig.from_dict(yaml.safe_load(text)) == tiny_study


def test_search_survives_yaml(base):
    import yaml

    study = search(
        base,
        pool=("residual", "dense"),
        depths=(3, 4),
        weight_decays=(1e-4, 1e-3),
        screening_epochs=1,
        inits=("normal", "uniform"),
        widen_factors=(1, 2),
    )
    assert StudyConfig.from_dict(yaml.safe_load(study.to_yaml())) == study


@pytest.mark.parametrize("model", ["ds_net", "tiny_resnet", "ds_net_4"])
def test_study_of_several_networks_survives_yaml(model, base):
    import yaml

    study = methods(with_model(base, model), models=("tiny_resnet", "tiny_ds_net"), methods=("at",))
    assert StudyConfig.from_dict(yaml.safe_load(study.to_yaml())) == study
    own = replace(study, base=resolve(base))
    assert bool(own.differences(study)) == (model != "ds_net")


@pytest.mark.parametrize(("own", "planned"), [("L2", "Linf"), ("Linf", "L2"), ("L2", "L2")])
def test_norm_of_a_run_survives_yaml_beside_another_of_the_base(own, planned, base):
    import yaml

    configs = [resolve(replace(base, norm=norm, eps=0.5)) for norm in (own, planned)]
    runs = (PlannedRun({"norm": planned}, configs[1]),)
    study = StudyConfig("norms", "mine", configs[0], runs=runs)
    read = StudyConfig.from_dict(yaml.safe_load(study.to_yaml()))
    assert read == study
    assert (read.base.norm, read.runs[0].config.norm) == (own, planned)


EXTRA = {"extra_data": "generated.npz", "extra_fraction": 0.5}


@pytest.mark.parametrize(("own", "planned"), [(EXTRA, {}), ({}, EXTRA), (EXTRA, EXTRA)])
def test_extra_data_of_a_run_survive_yaml_beside_others_of_the_base(own, planned, base):
    import yaml

    configs = [resolve(replace(base, **extra)) for extra in (own, planned)]
    runs = (PlannedRun({"extra": str(planned)}, configs[1]),)
    study = StudyConfig("extra", "mine", configs[0], runs=runs)
    read = StudyConfig.from_dict(yaml.safe_load(study.to_yaml()))
    assert read == study
    assert [read.base.extra_data, read.runs[0].config.extra_data] == [
        own.get("extra_data"),
        planned.get("extra_data"),
    ]
    other = replace(study, base=resolve(replace(base, epochs=study.base.epochs)))
    assert ("extra_data 'generated.npz' there, None here" in other.differences(study)) == bool(own)


def test_runs_are_written_as_what_differs_from_the_base(tiny_study):
    runs = tiny_study.to_dict()["runs"]
    assert runs[0]["changes"].keys() == {"blocks", "init_channels"}
    assert runs[-1]["changes"] == {}


def test_differences_name_what_is_another(tiny_study):
    other = replace(tiny_study, base=replace(tiny_study.base, epochs=7))
    assert tiny_study.differences(other) == ["epochs 7 there, 2 here"]
    assert tiny_study.differences(replace(tiny_study, attacks=("pgd",))) == ["another attacks"]


@pytest.mark.filterwarnings("ignore:plugin .* registers nothing")
def test_study_of_an_edited_plugin_is_another_study(stripes, tmp_path):
    plugin = tmp_path / "my_blocks.py"

    def study(text):
        plugin.write_text(text)
        forget_plugins()
        return block_space(tiny_run(stripes, plugins=(str(plugin),)))

    first, second = study("first = 1"), study("first = 2")
    assert first != second
    assert first.differences(second) == [f"{str(plugin)!r} has changed"]
    assert StudyConfig.from_dict(first.to_dict()) == first
    for one, other in zip(first.runs, second.runs, strict=True):
        assert one.config.run_id != other.config.run_id


def test_attacks_of_one_run_are_checked_like_the_studys(tiny_study):
    first, *others = tiny_study.runs
    with pytest.raises(ValueError, match=r"attacks must be some of fgsm, .*, got 'pdg'"):
        replace(tiny_study, runs=(replace(first, attacks=("pdg",)), *others))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "name must be letters, digits, '.', '_' and '-', got 'a/b'"),
        ({"runs": ()}, "must list runs or have a space to search"),
        ({"objectives": ("speed",)}, "objective must be one of robust, .*, got 'speed'"),
        ({"objectives": ()}, "objectives must name at least one"),
        ({"sampler": "luck"}, "sampler must be one of tpe, .*, got 'luck'"),
        ({"attacks": ("pdg",)}, "attacks must be some of fgsm, pgd, cw, aa, got 'pdg'"),
        (
            {"pruner": "median", "objectives": ("robust", "natural")},
            "pruner 'median' goes with one objective, got 2",
        ),
    ],
)
def test_bad_values_are_named(changes, message, tiny_study):
    with pytest.raises(ValueError, match=message):
        replace(tiny_study, **changes)


def test_runs_must_differ_and_have_the_same_labels():
    config = resolve(RunConfig())
    twins = (PlannedRun({"a": 1}, config), PlannedRun({"a": 2}, config))
    with pytest.raises(ValueError, match=r"one and the same: \{'a': 1\} and \{'a': 2\}"):
        StudyConfig("s", "r", config, twins)
    other = (PlannedRun({"a": 1}, config), PlannedRun({"b": 1}, replace(config, seed=1)))
    with pytest.raises(ValueError, match="must have the same labels"):
        StudyConfig("s", "r", config, other)


def test_batch_of_the_recipe_fits_the_data_of_a_study(tmp_path):
    images = np.zeros((90, 1, 8, 8), dtype=np.uint8)
    labels = np.arange(90) % 10
    path = tmp_path / "few.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    base = tiny_run(str(path), batch_size=None)
    with pytest.warns(UserWarning, match=r"batch_size is 64 instead of the recipe's 128: there"):
        assert fit_batch(base).batch_size == 64
    asked = tiny_run(str(path), batch_size=128)
    assert fit_batch(asked) is asked
