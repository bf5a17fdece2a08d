"""The paper's own networks, and the ensembles of equal blocks that Sec. 4.3 compares them with."""

from __future__ import annotations

from nasbench_at.networks.architecture import (
    Architecture,
    AttentionInit,
    AttentionSpec,
    Recipe,
)
from nasbench_at.networks.ds_net import DSNet, build_network
from nasbench_at.networks.zoo.registry import InputShape, register_model

__all__: list[str] = []

_PAPER = "Du et al., ICML 2021"
_V1 = ("residual", "mbconv", "dense", "ada_rk")
_V2 = ("residual", "mbconv", "resnext", "dla_tree")
_FIXED = AttentionSpec(mode="fixed", init="equal")


def _register_learned(
    name: str,
    blocks: tuple[str, ...],
    widen_factor: int,
    reference: str,
    *,
    num_modules: int = 15,
    channels: int = 20,
) -> None:
    @register_model(
        name,
        summary=f"{num_modules} modules of {', '.join(blocks)}, k = {widen_factor}",
        reference=reference,
    )
    def build(
        num_classes: int,
        input_shape: InputShape,
        *,
        init_channels: int = channels,
        attention_init: AttentionInit = "normal",
        recipe: Recipe = "paper",
    ) -> DSNet:
        return build_network(
            Architecture(
                blocks,
                num_modules=num_modules,
                init_channels=init_channels,
                widen_factor=widen_factor,
                num_classes=num_classes,
                input_shape=input_shape,
                attention=AttentionSpec(init=attention_init, recipe=recipe),
            )
        )


def _register_fixed(name: str, blocks: tuple[str, ...], summary: str) -> None:
    @register_model(name, summary=summary, reference=f"{_PAPER}, Sec. 4.3")
    def build(num_classes: int, input_shape: InputShape, *, init_channels: int = 20) -> DSNet:
        return build_network(
            Architecture(
                blocks,
                init_channels=init_channels,
                num_classes=num_classes,
                input_shape=input_shape,
                attention=_FIXED,
            )
        )


_register_learned("ds_net_4", _V1, 4, f"{_PAPER}, Tab. 2")
_register_learned("ds_net_6", _V1, 6, f"{_PAPER}, Tab. 2")
_register_learned("ds_net_4_v2", _V2, 4, "d12306/dsnet")
_register_learned("ds_net_6_v2", _V2, 6, "d12306/dsnet")
_register_fixed("ds_net_4_fixed", _V1, "DS-Net-4, every block weighing 1/4")
for _block in _V1:
    _register_fixed(
        f"ds_net_4_same_{_block}", (_block,) * 4, f"DS-Net-4 of four {_block} blocks at 1/4 each"
    )
_register_learned("tiny_ds_net", _V1, 2, "ours", num_modules=3, channels=8)
