from __future__ import annotations

import torch
import torch.nn.functional as F
from torchvision.models import densenet121

from nasbench_at.networks.zoo import create_model
from tests.nasbench_at.networks.zoo.conformance import (
    check_network,
    count_parameters,
    randomize_norms,
)


def test_parameters():
    assert count_parameters("densenet121") == 6_956_298
    assert count_parameters("tiny_densenet", 10, (1, 8, 8)) < 300_000


def test_tiny_network_is_a_network():
    check_network("tiny_densenet")


def take_weights(theirs, ours):
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))


def test_densenet121_is_torchvisions_behind_another_stem_and_with_new_features_first():
    ours = randomize_norms(create_model("densenet121")).double().eval()
    theirs = densenet121(num_classes=10).double().eval()
    theirs.classifier.load_state_dict(ours.head.state_dict())
    theirs.features.norm5.load_state_dict(ours.norm.state_dict())
    images = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        x = F.conv2d(images, ours.stem.weight, padding=1)
        for i in range(4):
            stage = getattr(theirs.features, f"denseblock{i + 1}")
            take_weights(stage, ours.stages[i])
            features = [x]
            for layer in stage.values():
                features = [layer(features), *features]
            x = torch.cat(features, dim=1)
            if i < 3:
                transition = getattr(theirs.features, f"transition{i + 1}")
                take_weights(transition, ours.transitions[i])
                x = transition(x)
        pooled = theirs.features.norm5(x).relu().mean(dim=(2, 3))
        torch.testing.assert_close(ours(images), theirs.classifier(pooled))
