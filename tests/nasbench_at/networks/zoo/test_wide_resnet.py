from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_at.networks.zoo import create_model, list_models
from nasbench_at.networks.zoo.wide_resnet import WideResNet, load_trades_state_dict


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("wrn_34_10", 46_160_474),
        ("sat_wrn_34_10", 46_160_474),
        ("wrn_28_10", 36_479_194),
        ("tiny_wrn", 77_850),
    ],
)
def test_parameters_are_the_published_ones(name, expected):
    with torch.device("meta"):
        assert count(create_model(name)) == expected


def test_any_depth_and_width_has_a_name():
    with torch.device("meta"):
        assert count(create_model("wrn_10_1")) == count(create_model("tiny_wrn"))
        assert [len(create_model(f"wrn_{d}_2").blocks) for d in (10, 16, 40)] == [3, 6, 18]
    assert "wrn_10_1" not in list_models()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrn_35_10", r"the depth of a wide ResNet must be 10, 16, 22, \.\.\., got 35"),
        ("wrn_4_10", r"the depth of a wide ResNet must be 10, 16, 22, \.\.\., got 4"),
        ("wrn_16_0", "the widening factor must be at least 1, got 0"),
    ],
)
def test_numbers_that_make_no_network_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        create_model(name)


def test_weights_start_as_the_authors_draw_them():
    net = create_model("wrn_10_4")
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            tolerance = 4 / math.sqrt(2 * module.weight.numel())
            expected = pytest.approx(math.sqrt(2 / fan_out), rel=tolerance)
            assert module.weight.std().item() == expected
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    assert (net.fc.bias == 0).all()
    assert net.fc.weight.std() > 0


def test_smooth_activation_takes_the_place_of_every_relu():
    with torch.device("meta"):
        kinds = [type(module) for module in create_model("sat_wrn_34_10").modules()]
        relus = [type(module) for module in create_model("wrn_34_10").modules()]
        learned = count(create_model("sat_wrn_34_10", activation="smooth_relu"))
    assert kinds.count(nn.SiLU) == relus.count(nn.ReLU) == 16
    assert kinds.count(nn.ReLU) == 0
    assert learned == 46_160_474 + 16


class TheirBlock(nn.Module):
    """A block of the published WideResNet, for its keys and its outputs."""

    def __init__(self, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(wide_in)
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide_out)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, 1, 1, bias=False)
        self.convShortcut = None
        if wide_in != wide_out:
            self.convShortcut = nn.Conv2d(wide_in, wide_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        branch = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return branch + (x if self.convShortcut is None else self.convShortcut(active))


class TheirGroup(nn.Module):
    def __init__(self, n: int, wide_in: int, wide_out: int, stride: int) -> None:
        super().__init__()
        blocks = [TheirBlock(wide_in, wide_out, stride)]
        blocks += [TheirBlock(wide_out, wide_out, 1) for _ in range(n - 1)]
        self.layer = nn.Sequential(*blocks)


class TheirNetwork(nn.Module):
    def __init__(self, n: int = 2, k: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = TheirGroup(n, 16, 16 * k, 1)
        self.sub_block1 = TheirGroup(n, 16, 16 * k, 1)
        self.block2 = TheirGroup(n, 16 * k, 32 * k, 2)
        self.block3 = TheirGroup(n, 32 * k, 64 * k, 2)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for group in (self.block1, self.block2, self.block3):
            x = group.layer(x)
        return self.fc(F.avg_pool2d(F.relu(self.bn1(x)), 8).flatten(1))


@pytest.fixture
def theirs() -> TheirNetwork:
    network = TheirNetwork().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture
def ours() -> WideResNet:
    return create_model("wrn_16_2").double().eval()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_published_weights_give_the_published_outputs(ours, theirs, prefix):
    state = {prefix + key: value for key, value in theirs.state_dict().items()}
    load_trades_state_dict(ours, state)
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))
    # Everything but the unused group has arrived, values unchanged.
    kept = [value for key, value in theirs.state_dict().items() if "sub_block1" not in key]
    assert sum(value.double().sum() for value in ours.state_dict().values()) == pytest.approx(
        float(sum(value.double().sum() for value in kept))
    )


def drop(state, key):
    del state[key]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(odd=torch.ones(1)), "'odd' has no place in this wide ResNet"),
        (
            lambda s: s.update({"block1.layer.2.bn1.weight": torch.ones(32)}),
            r"'block1\.layer\.2\.bn1\.weight' has no place in this wide ResNet; is its depth",
        ),
        (
            lambda s: s.update({"block1.layer.0.bn9.weight": torch.ones(32)}),
            r"'block1\.layer\.0\.bn9\.weight' has no place",
        ),
        (
            lambda s: s.update({"block1.layer.1.convShortcut.weight": torch.ones(32, 32, 1, 1)}),
            r"'block1\.layer\.1\.convShortcut\.weight' has no place",
        ),
        (
            lambda s: s.update({"fc.weight": torch.ones(100, 128)}),
            r"'fc\.weight' has shape \(100, 128\), this wide ResNet needs \(10, 128\)",
        ),
        (lambda s: drop(s, "bn1.bias"), r"nothing for 'norm\.bias' of this wide ResNet"),
        (lambda s: s.clear(), r"nothing for 'conv\.weight' of this wide ResNet"),
    ],
    ids=["unknown", "too-deep", "unknown-part", "shortcut", "shape", "missing", "empty"],
)
def test_other_weights_are_refused_and_change_nothing(ours, theirs, change, message):
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    state = theirs.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        load_trades_state_dict(ours, state)
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())
