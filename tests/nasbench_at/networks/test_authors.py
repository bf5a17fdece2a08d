"""Checkpoints of the authors' code give exactly their function, or one clear line."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_at.config.architecture import Architecture
from nasbench_at.networks.authors import _LAYOUTS, load_authors_checkpoint, rename_block
from nasbench_at.networks.ds_net import DSNet, RobustModule
from nasbench_at.networks.graph import build_network

V2 = ("residual", "mbconv", "resnext", "dla_tree")
ALIASES = r"blocks\.\d+\.(\d+\.)?(residual|block|conv\.\d|se\.se)\."


@pytest.fixture
def state(authors_network) -> dict[str, Tensor]:
    """The state_dict of their network with three modules of 4, 8 and 16 channels."""
    prefix = "state_dict/"
    return {k.removeprefix(prefix): v for k, v in authors_network.items() if k.startswith(prefix)}


@pytest.fixture
def logits(authors_network) -> Tensor:
    return authors_network["arch_param"]


def authors_state(
    net: DSNet,
    arch: Architecture,
    *,
    stack_index: bool = True,
    order: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """Lays our network out as the authors do: flat list, their names, their stack index.

    ``order`` is that of a module's blocks, ours if there is none.
    """
    entries: list[tuple[str, nn.Module]] = []
    rows = iter(arch.blocks)
    for stage in net.stages:
        if isinstance(stage, RobustModule):
            names = next(rows)
            entries += [(names[j], stage.blocks[j]) for j in order or range(len(names))]
        else:
            entries.append(("reduction", stage))
    state = {f"conv.{key}": value for key, value in net.stem.state_dict().items()}
    state |= {f"fc.{key}": value for key, value in net.head.state_dict().items()}
    for n, (kind, block) in enumerate(entries):
        # Reductions and trees are not stacked in their code, so lack the index.
        indexed = stack_index and kind not in ("reduction", "dla_tree")
        for k, part in enumerate(block if isinstance(block, nn.Sequential) else [block]):
            prefix = f"blocks.{n}.{k}." if indexed else f"blocks.{n}."
            inverse = {ours: theirs for theirs, ours in _LAYOUTS[kind].renames.items()}
            for key, value in part.state_dict().items():
                ours = key if key in inverse else key.rpartition(".")[0]
                state[prefix + inverse[ours] + key.removeprefix(ours)] = value
    return {key: value.clone() for key, value in state.items()}


def random_network(arch: Architecture) -> DSNet:
    """A network in eval mode whose norms have statistics of their own."""
    net = build_network(arch)
    for _ in range(3):
        net(torch.rand(8, *arch.input_shape))
    return net.eval()


def test_logits_loss_and_input_gradient_are_the_authors(authors_network, state, logits):
    net = load_authors_checkpoint(state, logits, resolution=(16, 16))
    x = authors_network["input"].clone().requires_grad_()
    output = net(x)
    loss = F.cross_entropy(output, authors_network["target"])
    (gradient,) = torch.autograd.grad(loss, x)
    exact = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(output, authors_network["logits"], **exact)
    torch.testing.assert_close(loss, authors_network["cross_entropy"], **exact)
    torch.testing.assert_close(gradient, authors_network["input_grad"], **exact)


def test_shape_of_the_network_is_read_from_the_keys(state, logits):
    net = load_authors_checkpoint(state, logits, resolution=(16, 16))
    nodes = net.graph.nodes
    assert not net.training
    assert [nodes[f"module0{i}.sum"]["channels"] for i in (1, 2, 3)] == [4, 8, 16]
    assert [nodes[f"module0{i}.sum"]["resolution"][0] for i in (1, 2, 3)] == [16, 8, 4]
    assert [nodes[node]["block"] for node in net.graph.predecessors("module01.sum")] == [
        "residual",
        "mbconv",
        "dense",
        "ada_rk",
    ]
    assert torch.equal(net.attention.logits, logits)


def test_alias_entries_are_neither_needed_nor_read(authors_network, state, logits):
    aliases = [key for key in state if re.match(ALIASES, key)]
    assert len(aliases) > 150
    primary = {key: value for key, value in state.items() if key not in aliases}
    spoiled = {k: torch.full_like(v, 77) if k in aliases else v for k, v in state.items()}
    for variant in (primary, spoiled):
        net = load_authors_checkpoint(variant, logits)
        output = net(authors_network["input"])
        torch.testing.assert_close(output, authors_network["logits"], rtol=0, atol=1e-5)


def test_missing_logits_warn_and_weigh_all_blocks_equally(state):
    with pytest.warns(
        UserWarning, match="holds no attention logits: all blocks are weighted equal"
    ):
        net = load_authors_checkpoint(state)
    assert torch.equal(net.attention.weights(), torch.full((3, 4), 0.25))


@pytest.mark.parametrize("wrapped", [True, False], ids=["checkpoint", "bare"])
def test_checkpoint_file_is_read(tmp_path, authors_network, state, logits, wrapped):
    path = tmp_path / "checkpoint.pth.tar"
    content = {"epoch": 3, "state_dict": state, "bp_avg": 0.5} if wrapped else state
    torch.save(content, path)
    for source in (path, str(path), content):
        net = load_authors_checkpoint(source, logits)
        output = net(authors_network["input"])
        torch.testing.assert_close(output, authors_network["logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"blocks": V2},
        {"blocks": V2, "block_copies": {"residual": 2, "mbconv": 2, "resnext": 2}},
        {"block_copies": {"residual": 2, "mbconv": 2, "dense": 2, "ada_rk": 2}},
        {"num_modules": 4, "widen_factor": 1, "num_classes": 7, "input_shape": (1, 8, 8)},
        {"blocks": ("dense", "residual")},
    ],
    ids=["v1", "v2", "v2-stacked", "v1-stacked", "v1-other-shape", "two-blocks"],
)
def test_layouts_of_the_authors_are_read_back(changes):
    arguments = {"num_modules": 3, "init_channels": 4, "widen_factor": 2, "input_shape": (3, 8, 8)}
    arch = Architecture(**{**arguments, **changes})
    expected = random_network(arch)
    logits = expected.attention.logits.detach()
    net = load_authors_checkpoint(authors_state(expected, arch), logits, resolution=(8, 8))
    x = torch.rand(2, *arch.input_shape)
    torch.testing.assert_close(net(x), expected(x), rtol=0, atol=1e-6)
    theirs, ours = net.state_dict(), expected.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in ours)
    assert net.graph.nodes["input"]["channels"] == arch.input_shape[0]
    assert net.graph.nodes["head"]["channels"] == arch.num_classes


@pytest.mark.parametrize(
    ("blocks", "order"),
    [(V2, (3, 1, 0, 2)), (("residual", "dense", "dense", "ada_rk"), (3, 1, 0, 2))],
)
def test_blocks_in_any_order_are_read_with_their_logits(blocks, order):
    arch = Architecture(blocks, 3, 4, 2, input_shape=(3, 8, 8))
    expected = random_network(arch)
    logits = expected.attention.logits.detach()[:, order]
    net = load_authors_checkpoint(authors_state(expected, arch, order=order), logits)
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(net(x), expected(x), rtol=0, atol=1e-6)


def test_blocks_without_stack_index_are_read():
    arch = Architecture(num_modules=3, init_channels=4, widen_factor=2, input_shape=(3, 8, 8))
    expected = random_network(arch)
    flat = authors_state(expected, arch, stack_index=False)
    net = load_authors_checkpoint(flat, expected.attention.logits.detach())
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(net(x), expected(x), rtol=0, atol=1e-6)


def test_same_block_ensemble_is_read_when_the_logits_tell_its_modules():
    arch = Architecture(("residual",) * 4, 3, 4, 2, input_shape=(3, 8, 8))
    expected = random_network(arch)
    net = load_authors_checkpoint(authors_state(expected, arch), expected.attention.logits.detach())
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(net(x), expected(x), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:the checkpoint holds no attention logits")
def test_same_block_ensemble_without_logits_is_not_read_as_another_network():
    arch = Architecture(("residual",) * 4, 3, 4, 2, input_shape=(3, 8, 8))
    state = authors_state(random_network(arch), arch)
    try:
        net = load_authors_checkpoint(state)
    except ValueError:
        return
    assert net.attention.logits.shape == (3, 4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("conv.weight"), "'conv.weight' is missing"),
        (lambda s: s.pop("fc.weight"), "'fc.weight' is missing"),
        (lambda s: s.update({"graph_bn.weight": torch.ones(2)}), "no entry .* 'graph_bn.weight'"),
        (
            lambda s: s.update({"blocks.0.0.n9.weight": torch.ones(4)}),
            "a residual block of the authors' code has no entry 'n9.weight'",
        ),
        (
            lambda s: s.update({"blocks.3.0.residual.0.weight": torch.ones(4)}),
            "a ada_rk block of the authors' code has no entry 'residual.0.weight'",
        ),
        (
            lambda s: s.pop("blocks.1.0.pre_layer.conv1.weight"),
            r"entry blocks\.1 is of no known kind; it has \['bn1\.bias'",
        ),
        (
            lambda s: s.update({"conv.weight": torch.ones(5, 3, 3, 3)}),
            r"the stages of a DS-Net are C, kC and 2kC wide, got \[5, 8, 16\]",
        ),
        (
            lambda s: s.update({"blocks.9.downsample.0.weight": torch.ones(24, 8, 1, 1)}),
            r"the stages of a DS-Net are C, kC and 2kC wide, got \[4, 8, 24\]",
        ),
    ],
    ids=["no-stem", "no-head", "foreign", "unknown", "alias-of-another", "kind", "stem", "wide"],
)
def test_state_that_is_not_the_authors_is_refused(state, logits, spoil, message):
    spoil(state)
    with pytest.raises(ValueError, match=message):
        load_authors_checkpoint(state, logits)


def test_missing_reduction_is_refused(state, logits):
    without = {key: value for key, value in state.items() if not key.startswith("blocks.9.")}
    with pytest.raises(ValueError, match=r"are C, kC and 2kC wide, got \[4, 8\]"):
        load_authors_checkpoint(without, logits)


def test_reduction_out_of_place_is_refused(state, logits):
    swapped = {}
    for key, value in state.items():
        index, _, rest = key.removeprefix("blocks.").partition(".")
        moved = {"4": "5", "5": "4"}.get(index, index)
        swapped[f"blocks.{moved}.{rest}" if key.startswith("blocks.") else key] = value
    with pytest.raises(ValueError, match="stage 1 of the network holds a residual out of place"):
        load_authors_checkpoint(swapped, logits)


def test_block_kinds_that_do_not_repeat_are_refused(state):
    without_last = {key: value for key, value in state.items() if not key.startswith("blocks.13.")}
    dense_twice = {
        key.replace("blocks.12.", "blocks.13."): value
        for key, value in without_last.items()
        if key.startswith("blocks.12.")
    }
    with pytest.raises(ValueError, match="11 blocks do not make modules of 4 blocks"):
        load_authors_checkpoint(without_last)
    with pytest.raises(ValueError, match=r"num_modules must be a whole number from 3 .* got 1"):
        load_authors_checkpoint({**without_last, **dense_twice})


def test_logits_of_another_number_of_blocks_are_refused(state):
    with pytest.raises(ValueError, match="12 blocks do not make modules of 5 blocks"):
        load_authors_checkpoint(state, torch.zeros(3, 5))


@pytest.mark.parametrize("key", ["conv.bias", "blocks.0.0.conv1.weight", "blocks.4.n1.bias"])
def test_missing_entry_is_refused(state, logits, key):
    del state[key]
    with pytest.raises(ValueError, match="missing"):
        load_authors_checkpoint(state, logits)


def test_entry_of_another_shape_is_refused(state, logits):
    state["blocks.0.0.conv1.weight"] = torch.ones(4, 4, 5, 5)
    with pytest.raises(ValueError, match="conv1"):
        load_authors_checkpoint(state, logits)


def test_logits_of_another_number_of_modules_are_refused(state):
    with pytest.raises(ValueError, match="logits"):
        load_authors_checkpoint(state, torch.zeros(5, 4))


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_checkpoint_that_would_run_code_is_refused_and_not_run(tmp_path, state):
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"state_dict": state, "epoch": Payload(mark)}, path)
    with pytest.raises(ValueError, match=r"cannot read '.*evil\.pth' as a checkpoint"):
        load_authors_checkpoint(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


def test_broken_or_missing_file_is_named(tmp_path, state):
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save(state, whole)
    cut.write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    for name in ("cut.pth", "text.pth", "missing.pth"):
        with pytest.raises(ValueError, match=f"cannot read '.*{name}' as a checkpoint"):
            load_authors_checkpoint(tmp_path / name)


def test_file_with_other_content_is_refused(tmp_path):
    path = tmp_path / "list.pth"
    torch.save([torch.ones(2)], path)
    with pytest.raises(ValueError, match=r"list\.pth"):
        load_authors_checkpoint(path)


def test_block_is_renamed_without_its_aliases():
    theirs = {"n3.weight": 1, "conv2.bias": 2, "residual.5.bias": 3, "n1.running_mean": 4}
    assert rename_block("residual", theirs) == {
        "norm.weight": 1,
        "residual.conv2.bias": 2,
        "residual.norm1.running_mean": 4,
    }
