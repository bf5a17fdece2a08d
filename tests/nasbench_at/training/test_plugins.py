from __future__ import annotations

import pytest

import nasbench_at.data.registry as data_sets
import nasbench_at.networks.zoo.registry as models
import nasbench_at.training.methods as methods
from nasbench_at.training.plugins import load_plugins
from tests.conftest import forget_plugins

REGISTERING = {
    "block": """
from torch import nn
from blocks import register_block

@register_block("own_block", summary="one convolution", reference="ours", kind="handcrafted")
def own_block(channels):
    return nn.Conv2d(channels, channels, 3, padding=1)
""",
    "model": """
from torch import nn
from nasbench_at.networks.zoo import register_model

@register_model("own_model", summary="one layer", reference="ours")
def own_model(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
""",
    "data set": """
from nasbench_at.data import register_data_set
register_data_set("own_data")(lambda: None)
""",
    "method": """
from nasbench_at.training.methods import register_method
register_method("own_method")(lambda config: None)
""",
}


@pytest.fixture(autouse=True)
def _own_registries(own_registry, monkeypatch):
    for module, name in ((models, "_REGISTRY"), (data_sets, "_LOADERS"), (methods, "_METHODS")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    yield
    forget_plugins()


def test_file_that_registers_nothing_is_warned_of_once(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("class Plain: pass")
    with pytest.warns(UserWarning, match=f"plugin '{path}' registers nothing; .*register_block"):
        load_plugins([str(path)])
    load_plugins([str(path)])


@pytest.mark.parametrize("text", REGISTERING.values(), ids=REGISTERING)
def test_file_that_registers_something_is_not_warned_of(text, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(text)
    load_plugins([str(path)])
