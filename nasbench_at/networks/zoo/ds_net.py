"""The paper's own networks, and the ensembles of equal blocks that Sec. 4.3 compares them with."""

from __future__ import annotations

from dataclasses import replace

from nasbench_at.config.architecture import (
    NAMED_DS_NETS,
    Architecture,
    AttentionInit,
    AttentionSpec,
    Recipe,
)
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.networks.graph import build_network
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__: list[str] = []

_PAPER = "Du et al., ICML 2021"
_REFERENCES = {
    "ds_net_4": f"{_PAPER}, Tab. 2",
    "ds_net_6": f"{_PAPER}, Tab. 2",
    "ds_net_4_v2": "d12306/dsnet",
    "ds_net_6_v2": "d12306/dsnet",
    "tiny_ds_net": "ours",
}


def _register_learned(name: str, network: Architecture) -> None:
    @register_model(
        name,
        summary=f"{network.num_modules} modules of {', '.join(network.blocks[0])}, "
        f"k = {network.widen_factor:g}",
        reference=_REFERENCES[name],
    )
    def build(
        num_classes: int,
        input_shape: InputShape,
        *,
        init_channels: int = network.init_channels,
        attention_init: AttentionInit = "normal",
        recipe: Recipe = "paper",
    ) -> DSNet:
        attention = AttentionSpec(init=attention_init, recipe=recipe)
        fitting = replace(network, num_classes=num_classes, input_shape=input_shape)
        return build_network(replace(fitting, init_channels=init_channels, attention=attention))


def _register_fixed(name: str, network: Architecture) -> None:
    which = f"four {network.blocks[0][0]} blocks, each" if network.is_same_block else "every block"

    @register_model(
        name, summary=f"DS-Net-4, {which} weighing 1/4", reference=f"{_PAPER}, Sec. 4.3"
    )
    def build(num_classes: int, input_shape: InputShape, *, init_channels: int = 20) -> DSNet:
        fitting = replace(network, num_classes=num_classes, input_shape=input_shape)
        return build_network(replace(fitting, init_channels=init_channels))


for _name, _network in NAMED_DS_NETS.items():
    if _network.attention.mode == "learned":
        _register_learned(_name, _network)
    else:
        _register_fixed(_name, _network)
