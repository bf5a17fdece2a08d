from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.fusion.recording import BatchSize, CannotRecordError, held_tensors, record

from .conftest import Replayable, images


def model_of(function) -> Replayable:
    return Replayable(
        function, conv=nn.Conv2d(3, 4, 3, padding=1), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 2)
    ).eval()


def finish(self, x):
    return self.head(x.mean(dim=(2, 3)))


ELSEWHERE = torch.tensor(2.0)


def use_an_overwritten_view(self, x):
    features = self.conv(x)
    view = features[:, :, :4]
    return finish(self, features.relu_()[:, :, :4] + view)


REFUSED = {
    "random": (
        lambda self, x: finish(self, F.dropout(self.conv(x))),
        "is random or depends on values",
    ),
    "a value of images": (
        lambda self, x: finish(self, self.conv(x) * float(x.sum())),
        "is random or depends on values",
    ),
    "written into": (
        lambda self, x: finish(self, self.conv(x).mul_(2)),
        "aten.mul_.Tensor writes into its argument",
    ),
    "written into a weight": (
        lambda self, x: finish(self, self.conv(x) + self.norm.bias.relu_().sum()),
        "aten.relu_.default writes into a tensor that the model holds",
    ),
    "a view of what was overwritten": (
        use_an_overwritten_view,
        "a tensor is used after another view of it was overwritten",
    ),
    "a tensor from elsewhere": (
        lambda self, x: finish(self, self.conv(x) * ELSEWHERE),
        r"a tensor of shape \(\) is held by no module",
    ),
    "more operations for more images": (
        lambda self, x: finish(self, self.conv(x) if len(x) < 3 else self.conv(x).relu()),
        "the number of operations depends on the number of images",
    ),
    "other operations for more images": (
        lambda self, x: finish(self, self.conv(x).tanh() if len(x) < 3 else self.conv(x).sigmoid()),
        "the operations depend on the number of images",
    ),
    "other numbers for more images": (
        lambda self, x: finish(self, self.conv(x) * (1.0 + len(x))),
        "what is computed depends on the number of images",
    ),
    "a square of the number of images": (
        lambda self, x: finish(self, self.conv(x)) + x.new_zeros(1).expand(len(x) ** 2).sum(),
        "what is computed depends on the number of images",
    ),
    "other tensors for more images": (
        lambda self, x: finish(
            self, self.conv(x) * (self.norm.weight if len(x) < 3 else self.norm.bias).sum()
        ),
        "what is computed depends on the number of images",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_model_that_is_not_a_fixed_list_of_operations_is_refused(name):
    function, message = REFUSED[name]
    model = model_of(function)
    with attack_mode(model), pytest.raises(CannotRecordError, match=message):
        record(model, images(3))


def test_multiple_of_the_number_of_images_is_known_as_one():
    def merge_channels(self, x):
        lines = self.conv(x).view(len(x) * 4, 8, 8)
        return finish(self, lines.view(len(x), 4, 8, 8))

    calls = record(model_of(merge_channels), images(3)).calls
    shapes = [call.args[1] for call in calls if call.function is torch.ops.aten.view.default]
    assert shapes[:2] == [[BatchSize(4), 8, 8], [BatchSize(1), 4, 8, 8]]


def test_recorded_pass_ends_with_logits_and_gradient():
    recording = record(model_of(lambda self, x: finish(self, self.norm(self.conv(x)))), images(3))
    outputs = [output for call in recording.calls for output in call.outputs]
    assert recording.calls[recording.num_forward - 1].outputs == (recording.logits,)
    assert outputs.index(recording.logits) < outputs.index(recording.gradient)
    assert recording.gradient.shape == (2, 3, 8, 8)
    assert all(output.name is None for output in outputs if output is not None)


def test_tensors_are_known_by_the_places_that_hold_them():
    model = model_of(finish)
    model.conv.extra = torch.ones(3)
    held = held_tensors(model)
    assert held["conv.weight"] is model.conv.weight
    assert held["norm.running_mean"] is model.norm.running_mean
    assert held["conv.extra"] is model.conv.extra
