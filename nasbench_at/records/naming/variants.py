"""What tells runs apart, in words: the one place that names variants for legends and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from nasbench_at.config import DS_NET_FIELDS
from nasbench_at.config.architecture import AttentionSpec, architecture_of
from nasbench_at.config.contents import replace_paths
from nasbench_at.config.presets import SCALED
from nasbench_at.config.run_config import EXTRA_FIELDS, recipe_of
from nasbench_at.records.naming.labels import (
    data_label,
    describe_blocks,
    extra_label,
    method_label,
    network_label,
    start_label,
)

__all__ = [
    "NETWORK_KEYS",
    "describe_shared",
    "name_run",
    "name_trainings",
    "name_variants",
    "weights_label",
]

Config = Mapping[str, Any]
Facets = dict[str, str]

NETWORK_KEYS = DS_NET_FIELDS | {"model", "model_options", "plugins"}
"""Configuration keys that say which network is trained."""
_IN_FACETS = frozenset(
    {"model", "model_options", "data", "method", "norm", "beta", "seed", "blocks", "num_modules"}
    | {"widen_factor", "attention", "attention_init", "attention_weights", "attention_keep"}
    | set(EXTRA_FIELDS)
)
"""Configuration keys that facets speak of."""
_WHOLE = "all blocks kept"
_NO_EXTRA = "no extra data"
_LINF = "trained under L\N{INFINITY}"
_STARTS = {"normal": "", "given": " from given weights", "trained": " from trained weights"}


def name_variants(configs: Sequence[Config], *, seeds: bool = False) -> list[str]:
    """Names configurations by what differs between them, such as ``learned``, ``4 × mbconv``.

    Networks come first, then method and data set. Only of those that these do not tell apart the
    name goes on, with flags such as ``--precision bf16``: a recipe's values of another method say
    nothing that the method does not. What no name tells apart is numbered.

    Args:
        configs: Configurations of runs.
        seeds: Whether runs of different seeds are to have different names.

    Returns:
        A name each, equal ones for configurations that are equal, but for the seed. Of one
        configuration alone it is that of its network.
    """
    facets = _facets_that_differ(configs)
    names = [", ".join(found.values()) for found in facets]
    names = _extend(names, configs, lambda group: [_size(c).get("channels", "") for c in group])
    names = _extend(names, configs, _flags)
    names = _extend(names, configs, _files)
    names = _extend(names, configs, _versions)
    if seeds:
        names = _extend(names, configs, lambda group: [f"seed {c.get('seed')}" for c in group])
    return [name or network_label(config) for name, config in zip(names, configs, strict=True)]


def name_trainings(configs: Sequence[Config], ignored: Iterable[str] = ()) -> list[str]:
    """Says how networks were trained as far as that differs, whatever they are; else nothing.

    Files of equal contents are the same, wherever they lie.

    Args:
        configs: Configurations of runs.
        ignored: Keys that make no training another one, besides the network's and the seed.

    Returns:
        A name each, equal ones for equal trainings.
    """
    left_out = NETWORK_KEYS.union(ignored, ["seed"])
    first_of: dict[str, Any] = {}
    trainings = []
    for config in configs:
        training: dict[str, Any] = {}
        contents = {}
        for key, value in replace_paths(config).items():
            if key in left_out or value is None:
                continue
            training[key] = first_of.setdefault(_canonical([key, value]), config[key])
            if value != config[key]:
                contents[training[key]] = config["contents"][config[key]]
        trainings.append({**training, "contents": contents})
    if len(set(map(_canonical, trainings))) < 2:
        return [""] * len(configs)
    network = {key: value for key, value in configs[0].items() if key in NETWORK_KEYS}
    return name_variants([{**training, **network} for training in trainings])


def name_run(config: Config) -> str:
    """Returns what one run is called beside no other: its network and seed."""
    seed = config.get("seed")  # which the networks of users have not
    return network_label(config) + ("" if seed is None else f", seed {seed}")


def describe_shared(configs: Sequence[Config]) -> str:
    """Says in a line what all configurations have in common of network, method and data set."""
    facets = [_facets(config, is_mixed=True) | _size(config) for config in configs]
    shared = [
        f"{text} weights" if key == "weights" else text
        for key, text in (facets[0] if facets else {}).items()
        if text not in (_WHOLE, _LINF, _NO_EXTRA) and all(each.get(key) == text for each in facets)
    ]
    return ", ".join(shared)


def _facets_that_differ(configs: Sequence[Config]) -> list[Facets]:
    nets = sum(architecture_of(config) is not None for config in configs)
    found = [_facets(config, is_mixed=0 < nets < len(configs)) for config in configs]
    values: dict[str, set[str]] = {}
    for facets in found:
        for key, text in facets.items():
            values.setdefault(key, set()).add(text)
    return [{k: text for k, text in facets.items() if len(values[k]) > 1} for facets in found]


def _facets(config: Config, *, is_mixed: bool) -> Facets:
    """What there is to say of a run in words, the most telling first.

    Args:
        config: Its configuration.
        is_mixed: Whether it stands beside networks of another kind, so that a DS-Net says so.
    """
    network = architecture_of(config)
    facets = {"network": network_label(config)} if network is None else {}
    if network is not None:
        what = describe_blocks(network)
        if is_mixed:
            facets["network"] = f"DS-Net of {what}"
        elif not network.is_same_block:
            facets["blocks"] = what
        if not network.is_same_block:
            facets["weights"] = weights_label(network.attention)
        elif not is_mixed:  # whose weights are fixed and equal
            facets["weights"] = what
        counts = set(network.num_kept)
        kept = "some" if len(counts) > 1 else counts.pop()
        whole = network.is_whole
        facets["kept"] = _WHOLE if whole else f"{kept} of {network.max_blocks} blocks kept"
        facets["modules"] = f"{network.num_modules} modules"
        facets["k"] = f"k = {network.widen_factor:g}"
    if config.get("method") is not None:
        facets["method"] = method_label(str(config["method"]), config.get("beta"))
        facets["norm"] = "trained under L2" if config.get("norm") == "L2" else _LINF
    facets["data"] = data_label(str(config.get("data")))
    facets["extra"] = extra_label(config) or _NO_EXTRA
    return facets


def weights_label(spec: AttentionSpec) -> str:
    """Returns how a DS-Net weighs its blocks: ``learned``, ``fixed``, ``learned from uniform``."""
    if spec.mode == "fixed":
        return "fixed" if spec.init == "equal" else f"fixed, {spec.init}"
    start = start_label(spec)
    return "learned" + _STARTS.get(start, f" from {start}")


def _extend(
    names: Sequence[str],
    configs: Sequence[Config],
    describe: Callable[[Sequence[Config]], list[str]],
) -> list[str]:
    """Adds to names that several configurations share what else differs between these."""
    extended = list(names)
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault(name, []).append(i)
    for name, members in groups.items():
        texts = describe([configs[i] for i in members])
        if len(set(texts)) > 1:
            for i, text in zip(members, texts, strict=True):
                extended[i] = ", ".join(filter(None, (name, text)))
    return extended


def _size(config: Config) -> Facets:
    """A DS-Net's width, by which networks are given equally many parameters."""
    network = architecture_of(config)
    return {} if network is None else {"channels": f"{network.init_channels} channels"}


def _flags(configs: Sequence[Config]) -> list[str]:
    """What differs and is in no facet, as flags of the command line."""
    said = _IN_FACETS | {"contents", "init_channels", "weights_hash"}
    if any(config.get("model") != "ds_net" for config in configs):
        said |= DS_NET_FIELDS
    keys = [k for k in dict.fromkeys(k for config in configs for k in config) if k not in said]
    varied = [key for key in keys if any(_differ(c.get(key), configs[0].get(key)) for c in configs)]
    varied = [key for key in varied if not all(_goes_along(config, key) for config in configs)]
    return [", ".join(_flag(key, config.get(key)) for key in varied) for config in configs]


def _goes_along(config: Config, key: str) -> bool:
    """Whether a value is what the recipe makes of the radius and the number of epochs."""
    if key not in SCALED or "recipe" not in config:  # a user's model has none
        return False
    return not _differ(config.get(key), recipe_of(config).get(key))


def _differ(one: Any, other: Any) -> bool:
    """Whether values differ by more than a list does from a tuple."""
    return bool(one != other) and _canonical(one) != _canonical(other)


def _canonical(value: Any) -> str:
    """One text for equal values, whether they come from a record, a YAML file or a dataclass."""
    return json.dumps(value, sort_keys=True, default=str)


def _flag(key: str, value: Any) -> str:
    name = key.replace("_", "-")
    if value is None or value in ({}, [], ()):
        return f"without --{name}"
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {_write(value)}"


def _write(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{path}={_write(leaf)}" for path, leaf in _leaves(value))
    if isinstance(value, list | tuple):
        return " ".join(map(_write, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _leaves(each, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", each


def _files(configs: Sequence[Config]) -> list[str]:
    """Numbers the contents of each file that was edited between runs."""
    found: dict[str, list[str]] = {}
    for config in configs:
        for path, digest in (config.get("contents") or {}).items():
            if digest not in found.setdefault(path, []):
                found[path].append(digest)
    return [
        ", ".join(
            f"version {found[path].index(digest) + 1} of {PurePath(path).name}"
            for path, digest in sorted((config.get("contents") or {}).items())
            if len(found[path]) > 1
        )
        for config in configs
    ]


def _versions(configs: Sequence[Config]) -> list[str]:
    """Numbers what differs in no words, such as given weights."""
    texts = [_canonical({k: v for k, v in config.items() if k != "seed"}) for config in configs]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}
    return [f"version {numbers[text]}" for text in texts]
