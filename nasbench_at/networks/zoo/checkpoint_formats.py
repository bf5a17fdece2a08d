"""Weights of a network by name, in its own layout or in one that others publish."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from nasbench_at.networks.authors import load_authors_checkpoint
from nasbench_at.networks.ds_net import DSNet
from nasbench_at.networks.zoo.wide_resnet import WideResNet, load_trades_state_dict

__all__ = ["load_published_weights"]


def load_published_weights(network: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Loads weights into a network, whoever wrote them.

    Known besides a network's own layout are, for wide ResNets, that of TRADES and MART, and, for
    DS-Nets, that of its authors, whose checkpoints lack the attention logits.

    Args:
        network: A network by name.
        state_dict: Weights of a network of the same kind and size.

    Returns:
        The network with these weights: the one given or, for the authors' layout, a new one.

    Raises:
        ValueError: If the weights are not those of such a network.
    """
    if state_dict.keys() != network.state_dict().keys():
        if isinstance(network, WideResNet):
            load_trades_state_dict(network, state_dict)
            return network
        if isinstance(network, DSNet):
            loaded = load_authors_checkpoint(state_dict)
            if _shapes(loaded) != _shapes(network):
                raise ValueError("the checkpoint is of a DS-Net of another size")
            return loaded
    try:
        network.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None
    return network


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}
