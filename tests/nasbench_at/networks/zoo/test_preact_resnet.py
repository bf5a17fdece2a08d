from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nasbench_at.networks.zoo import create_model
from tests.nasbench_at.networks.zoo.conformance import (
    check_network,
    count_parameters,
    randomize_norms,
)


@pytest.mark.parametrize("raw_shortcut", [False, True])
def test_parameters(raw_shortcut):
    assert count_parameters("preact_resnet18", raw_shortcut=raw_shortcut) == 11_172_170
    assert count_parameters("tiny_preact_resnet", 10, (1, 8, 8)) < 300_000


@pytest.mark.parametrize("raw_shortcut", [False, True])
def test_tiny_network_is_a_network(raw_shortcut):
    check_network("tiny_preact_resnet", raw_shortcut=raw_shortcut)


def norm_relu(x, norm):
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()


@pytest.mark.parametrize("raw_shortcut", [False, True])
def test_preact_resnet18_is_what_the_papers_say(raw_shortcut):
    model = create_model("preact_resnet18", raw_shortcut=raw_shortcut)
    model = randomize_norms(model).double().eval()
    blocks = iter(model.blocks)
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    with torch.no_grad():
        x = F.conv2d(images, model.stem.weight, padding=1)
        for stage in range(4):
            for i in range(2):
                block = next(blocks)
                f = block.residual
                stride = 2 if stage > 0 and i == 0 else 1
                activated = norm_relu(x, f.norm1)
                hidden = F.conv2d(activated, f.conv1.weight, stride=stride, padding=1)
                y = F.conv2d(norm_relu(hidden, f.norm2), f.conv2.weight, padding=1)
                if stride == 2:
                    start = x if raw_shortcut else activated
                    y += F.conv2d(start, block.shortcut.weight, stride=2)
                else:
                    y += x
                assert y.shape[1] == 64 * 2**stage
                x = y
        assert next(blocks, None) is None
        pooled = norm_relu(x, model.norm).mean(dim=(2, 3))
        expected = F.linear(pooled, model.head.weight, model.head.bias)
        torch.testing.assert_close(model(images), expected)
