from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from nasbench_at.config import RunConfig, resolve
from nasbench_at.records.naming.variants import describe_shared, name_trainings, name_variants
from tests.analysis.synthetic import DEPTH, FOUR

TIMES = "\N{MULTIPLICATION SIGN}"
BASE = {"data": "digits", "method": "at", "blocks": FOUR, **DEPTH}
SAME = {"attention": "fixed", "blocks": ("mbconv",) * 4}


def names_of(*changes, **options):
    configs = [resolve(RunConfig(**{**BASE, **each})).to_dict() for each in changes]
    return name_variants(configs, **options)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([{}, {"attention": "fixed"}], ["learned", "fixed"]),
        ([{}, {**SAME, "init_channels": 9}], ["learned", f"4 {TIMES} mbconv"]),
        ([{"blocks": FOUR[:2]}, {"blocks": FOUR[2:]}], ["residual + mbconv", "dense + ada_rk"]),
        (
            [{"blocks": FOUR[:2]}, {"blocks": FOUR[:2], "attention": "fixed"}, {**SAME}],
            ["learned", "fixed", f"4 {TIMES} mbconv"],
        ),
        (
            [{"precision": "fp16"}, {"precision": "bf16"}, {"attention": "fixed"}],
            ["learned, --precision fp16", "learned, --precision bf16", "fixed"],
        ),
        ([{"attention_init": "uniform"}, {}], ["learned from uniform", "learned"]),
        (
            [{"attention_init_options": {"std": 25, "mean": 0}}, {}],
            ["learned from normal (std 25)", "learned"],
        ),
        ([{}, {"num_modules": 5}], ["3 modules", "5 modules"]),
        ([{}, {"widen_factor": 4}], ["k = 2", "k = 4"]),
        ([{}, {"init_channels": 9}], ["6 channels", "9 channels"]),
        ([{}, {"method": "trades"}], ["AT", "TRADES, β = 6"]),
        ([{}, {"data": "cifar10"}], ["digits", "CIFAR-10"]),
        ([{}, {"awp_gamma": 0.005}], ["--awp-gamma 0", "--awp-gamma 0.005"]),
        ([{"epochs": 5}, {"epochs": 9}], ["--epochs 5", "--epochs 9"]),
        ([{"eps": 0.1}, {"eps": 0.2}], ["--eps 0.1", "--eps 0.2"]),
        (
            [{}, {"extra_data": "a/gen.npz"}, {"extra_data": "gen.npz", "extra_fraction": 0.8}],
            ["no extra data", "70 % of each batch of gen.npz", "80 % of each batch of gen.npz"],
        ),
        ([{}, {"norm": "L2"}], ["trained under L\N{INFINITY}", "trained under L2"]),
        (
            [
                {"epochs": 5},
                {"epochs": 5, "milestones": (4, 5), "milestone_factors": (0.1, 0.01)},
            ],
            ["--milestones 3 5", "--milestones 4 5"],
        ),
        ([{}, {"compile": True}], ["--no-compile", "--compile"]),
        ([{}, {"weight_decay": 3e-4}], ["--weight-decay 0.0005", "--weight-decay 0.0003"]),
        (
            [{"block_options": {"ada_rk": {"separate_norms": True}}}, {}],
            ["--block-options ada_rk.separate_norms=True", "without --block-options"],
        ),
        ([{}, {"plugins": ("mine.py",)}], ["without --plugins", "--plugins mine.py"]),
        ([{"attention_keep": ((0,),) * 3}, {}], ["1 of 4 blocks kept", "all blocks kept"]),
    ],
)
def test_names_say_what_differs_and_no_more(changes, names):
    assert names_of(*changes) == names


def test_networks_of_other_kinds_say_which_kind_they_are():
    resnet = resolve(RunConfig(data="digits", method="at", model="resnet50")).to_dict()
    net = resolve(RunConfig(**BASE)).to_dict()
    fixed = resolve(RunConfig(**{**BASE, "attention": "fixed"})).to_dict()
    blocks = "DS-Net of residual + mbconv + dense + ada_rk"
    assert name_variants([resnet, net]) == ["ResNet-50", blocks]
    assert name_variants([resnet, net, fixed]) == [
        *("ResNet-50", f"{blocks}, learned", f"{blocks}, fixed")
    ]


def test_runs_of_one_network_have_its_name_or_are_told_apart_by_their_seeds():
    whole = "DS-Net of residual + mbconv + dense + ada_rk, 3 modules of 6 channels, k = 2"
    assert names_of({}) == [whole]
    assert names_of({}, {"seed": 1}) == [whole] * 2
    assert names_of({}, {"seed": 1}, seeds=True) == ["seed 0", "seed 1"]
    assert names_of({}, {"seed": 1}, {"attention": "fixed"}, seeds=True) == [
        *("learned, seed 0", "learned, seed 1", "fixed")
    ]


def test_weights_that_no_words_tell_apart_are_numbered():
    given = {"attention": "fixed", "attention_init": "given"}
    rows = [((share, 1 - share, 0.0, 0.0),) * 3 for share in (0.3, 0.6)]
    names = names_of(*({**given, "attention_weights": row} for row in rows))
    assert names == ["version 1", "version 2"]


def test_equal_configurations_have_one_name_wherever_they_were_read():
    config = resolve(RunConfig(**BASE)).to_dict()
    stored = dict(reversed(json.loads(json.dumps(config)).items()))  # another order, and lists
    assert len(set(name_variants([config, stored]))) == 1
    other = resolve(RunConfig(**{**BASE, "epochs": 3})).to_dict()
    names = name_variants([config | {"milestones": (1, 2)}, other | {"milestones": [1, 2]}])
    assert names == ["--epochs 20", "--epochs 3"]


def test_files_of_other_contents_are_named():
    config = resolve(RunConfig(**BASE, plugins=("/lab/my_blocks.py",))).to_dict()
    first, second = (config | {"contents": {"/lab/my_blocks.py": digit * 16}} for digit in "ab")
    assert name_variants([first, second, second | {"seed": 1}]) == [
        *("version 1 of my_blocks.py", *["version 2 of my_blocks.py"] * 2)
    ]


def test_trainings_are_named_whatever_is_trained_and_wherever_files_lie():
    def config(folder, digest, **changes):
        data, plugin = f"{folder}/mine.npz", f"{folder}/blocks.py"
        contents = {data: digest * 16, plugin: "f" * 16}
        base = resolve(RunConfig(**{**BASE, "plugins": (plugin,), **changes})).to_dict()
        return base | {"data": data, "contents": contents}

    network = {"model": "resnet18", "seed": 1}
    small = resolve(RunConfig(data="digits", **network)).to_dict()
    assert name_trainings([resolve(RunConfig(**BASE)).to_dict(), small]) == ["", ""]
    assert name_trainings([config("here", "a"), config("there", "a", attention="fixed")]) == [
        "",
        "",
    ]
    longer = config("there", "a", epochs=9)
    names = ["--epochs 20", "--epochs 20", "--epochs 9"]
    assert name_trainings([config("here", "a"), config("there", "a"), longer]) == names
    versions = ["version 1 of mine.npz", "version 2 of mine.npz"]
    assert name_trainings([config("here", "a"), config("here", "b")]) == versions
    compiled = [config("here", "a"), config("here", "a", compile=True)]
    assert name_trainings(compiled) == ["--no-compile", "--compile"]
    assert name_trainings(compiled, ["compile"]) == ["", ""]


def test_no_name_is_a_hash():
    configs = [resolve(RunConfig(**BASE)), resolve(RunConfig(**{**BASE, "epochs": 3}))]
    configs += [replace(config, seed=1) for config in configs]
    for name in name_variants([config.to_dict() for config in configs], seeds=True):
        assert not re.search(r"[0-9a-f]{8}", name)


def test_what_all_share_is_said_once():
    configs = [resolve(RunConfig(**{**BASE, **c})).to_dict() for c in ({}, {"attention": "fixed"})]
    assert describe_shared(configs) == (
        "DS-Net of residual + mbconv + dense + ada_rk, 3 modules, k = 2, AT, digits, 6 channels"
    )
    l2 = [{**config, "norm": "L2"} for config in configs]
    assert describe_shared(l2).endswith("k = 2, AT, trained under L2, digits, 6 channels")
    extra = [{**config, "extra_data": "g.npz", "extra_fraction": 0.5} for config in configs]
    assert describe_shared(extra).endswith("digits, 50 % of each batch of g.npz, 6 channels")
    assert describe_shared([]) == ""
