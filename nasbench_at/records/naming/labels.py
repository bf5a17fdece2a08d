"""How papers write what configurations name: data sets, methods, attacks, networks."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from nasbench_at.config.architecture import Architecture, AttentionSpec, architecture_of

__all__ = [
    "data_label",
    "describe_blocks",
    "extra_label",
    "method_label",
    "metric_label",
    "network_label",
    "network_name",
    "start_label",
]

_DATA = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "fashion_mnist": "Fashion-MNIST",
}
_METHODS = {
    "st": "ST",
    "at": "AT",
    "trades": "TRADES",
    "mart": "MART",
    "fat": "FAT",
    "fat_trades": "FAT-TRADES",
    "fast_at": "Fast AT",
}
_METRICS = {
    "natural": "Natural",
    "fgsm": "FGSM",
    "pgd": "PGD-20",
    "cw": "C&W",
    "aa": "AA",
    "worst_case": "Worst case",
    "smooth": "Certified, smoothed",
}
_NETWORKS = {
    "ds_net_4": "DS-Net-4-softmax",
    "ds_net_6": "DS-Net-6-softmax",
    "ds_net_4_v2": "DS-Net-4-softmax, second block set",
    "ds_net_6_v2": "DS-Net-6-softmax, second block set",
    "ds_net_4_fixed": "DS-Net-4-fixed",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnet_62": "ResNet-62",
    "preact_resnet18": "PreAct-ResNet-18",
    "wrn_28_10": "WRN-28-10",
    "wrn_34_10": "WRN-34-10",
    "sat_resnet50": "SAT-ResNet-50",
    "sat_wrn_34_10": "SAT-WRN-34-10",
    "ie_resnet50": "IE-ResNet-50",
    "ie_wrn_34_10": "IE-WRN-34-10",
    "ada_rk_net_62": "AdaRK-Net-62",
    "robnet_large_v1": "RobNet-large-v1",
    "robnet_large_v2": "RobNet-large-v2",
    "densenet121": "DenseNet-121",
    "mobilenet_v2": "MobileNetV2",
}


def data_label(data: str) -> str:
    """Returns a data set's name as papers write it; a file's without its folders."""
    return _DATA.get(data, Path(data).name if data.endswith(".npz") else data)


def extra_label(config: Mapping[str, Any]) -> str | None:
    """Returns what is trained on besides the data set, such as ``70 % of each batch of gen.npz``.

    None if that is nothing.
    """
    if config.get("extra_data") is None:
        return None
    share = 100 * float(config["extra_fraction"])
    return f"{share:g} % of each batch of {Path(str(config['extra_data'])).name}"


def method_label(method: str, beta: float | None = None) -> str:
    """Returns a way of training, with its weight of the robust term if it has one."""
    label = _METHODS.get(method, method)
    return label if beta is None else f"{label}, β = {beta:g}"


def metric_label(metric: str) -> str:
    """Returns the heading of an accuracy, such as ``PGD-20`` for ``pgd``."""
    return _METRICS.get(metric, metric)


def network_name(config: Mapping[str, Any]) -> str:
    """Returns what tells networks apart in a table.

    A network described by its fields has the name of the registered one it is equal to, such as
    ``ds_net_4``; else its fields are the name.
    """
    network = architecture_of(config)
    if network is not None and (network.registered_name or config["model"] == "ds_net"):
        return network.registered_name or _describe(network)
    options = config.get("model_options") or {}
    return str(config.get("model")) + "".join(
        f", {name} {value}" for name, value in sorted(options.items())
    )


def network_label(config: Mapping[str, Any]) -> str:
    """Returns a network's name as the paper writes it."""
    name, _, options = network_name(config).partition(", ")
    label = _NETWORKS.get(name, name)
    return f"{label}, {options}" if options else label


def describe_blocks(network: Architecture) -> str:
    """Says which blocks a DS-Net's modules hold, such as ``4 × mbconv``."""
    blocks = network.block_set
    if blocks is None:
        return " / ".join(
            " + ".join(row) + (f" ({count} times)" if (count := len(list(group))) > 1 else "")
            for row, group in groupby(network.blocks)
        )
    if len(set(blocks)) == 1 and len(blocks) > 1:
        return f"{len(blocks)} \N{MULTIPLICATION SIGN} {blocks[0]}"
    return " + ".join(blocks)


def start_label(spec: AttentionSpec) -> str:
    """Returns where attention starts, such as ``uniform`` or ``normal (std 25)``.

    Of a distribution's parameters those are named that are not the recipe's.
    """
    changed = [f"{name} {value:g}" for name, value in sorted(spec.changed_parameters().items())]
    return spec.init.replace("_", "-") + (f" ({', '.join(changed)})" if changed else "")


def _describe(network: Architecture) -> str:
    parts = [f"DS-Net of {describe_blocks(network)}"]
    if not network.is_searched:
        parts.append(f"{network.attention.mode} {start_label(network.attention)} weights")
    parts.append(f"{network.num_modules} modules of {network.init_channels} channels")
    parts.append(f"k = {network.widen_factor:g}")
    return ", ".join(parts)
