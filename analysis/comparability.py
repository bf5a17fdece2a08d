"""Which runs belong together, and the checks that their numbers can be compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from analysis.errors import IncomparableRunsError, MissingRunsError
from nasbench_at.config import DS_NET_FIELDS
from nasbench_at.config.architecture import Architecture, architecture_of
from nasbench_at.config.catalogue import catalogue
from nasbench_at.config.contents import replace_paths
from nasbench_at.config.run_config import recipe_of
from nasbench_at.records import Record, conditions_of, differences
from nasbench_at.records.naming.labels import metric_label
from nasbench_at.records.naming.variants import NETWORK_KEYS, weights_label

__all__ = [
    "ATTENTION_KEYS",
    "NAMED_KEYS",
    "TECHNICAL_KEYS",
    "architecture_by_hash",
    "are_equally_large",
    "check_evaluated_alike",
    "check_one_number",
    "check_trained_alike",
    "describe_sizes",
    "differing_keys",
    "ds_net_of",
    "evaluated_runs",
    "group_by",
    "identity_without",
    "is_network_to_compare",
    "options_agree",
    "prefer_recipe_weight_decay",
    "variant_of",
]

NAMED_KEYS = NETWORK_KEYS - {"block_options", "block_copies", "attention_init_options", "plugins"}
"""Configuration keys that a network's name tells apart."""
ATTENTION_KEYS = frozenset(
    {"attention", "attention_init", "attention_init_options", "attention_weights", "attention_keep"}
)
"""Configuration keys by which a DS-Net weighs its blocks."""
TECHNICAL_KEYS = frozenset(
    {"seed", "compile", "sync_batch_norm", "channels_last", "optimizer_impl", "accumulation_steps"}
)
"""Configuration keys by which runs of one number may differ."""
_BY_BLOCK = ("block_options", "block_copies")
"""Configuration keys with a value for each block that a network has."""
_PARAMETERS_TOLERANCE = 1.1
"""How many times the parameters of the smallest network those of the largest may be."""
KeyT = TypeVar("KeyT")
_USUAL_SHAPES = (((1, 8, 8), 10), ((3, 32, 32), 10), ((3, 32, 32), 100), ((1, 28, 28), 10))
"""Images and classes of the data sets by name."""
Shape = tuple[int, int, int]


def evaluated_runs(
    records: Iterable[Record], belongs: Callable[[Record], bool], table: str, needs: str
) -> list[Record]:
    """Returns the evaluated runs that belong to a table.

    Args:
        records: Any records.
        belongs: Whether a run belongs to the table.
        table: The table's name, for messages.
        needs: What it needs, for messages.

    Raises:
        MissingRunsError: If there is none.
    """
    candidates = [record for record in records if belongs(record)]
    evaluated = [record for record in candidates if record.was_evaluated_by("natural")]
    waiting = [r.run_id for r in candidates if not r.was_evaluated_by("natural")]
    if not evaluated:
        found = "none belongs to it"
        if waiting:
            found = f"not evaluated yet: {', '.join(waiting)}"
        raise MissingRunsError(f"{table} needs evaluated runs of {needs}; {found}")
    return evaluated


def ds_net_of(record: Record) -> Architecture:
    """Returns the network of a run that is known to be of a DS-Net."""
    network = architecture_of(record.config)
    assert network is not None
    return network


def architecture_by_hash(
    record: Record, shapes: Iterable[tuple[Shape, int]] = _USUAL_SHAPES
) -> Architecture | None:
    """Returns the DS-Net of a run with its images and classes, which no configuration names.

    Args:
        record: The run.
        shapes: Images (channels, height, width) and numbers of classes to try; by default those of
            the data sets by name.

    Returns:
        The one that gives the architecture's hash; None if none does.
    """
    networks = (architecture_of(record.config, shape, classes) for shape, classes in shapes)
    wanted = record.architecture
    return next((each for each in networks if each is not None and each.hash == wanted), None)


def is_network_to_compare(record: Record) -> bool:
    """Whether a network is no variant that an ablation study makes of DS-Net."""
    return not variant_of(record)


def variant_of(record: Record) -> str:
    """Says which variant of DS-Net an ablation study makes a network; empty if none."""
    network = architecture_of(record.config)
    if network is None:
        return ""
    if network.is_same_block:
        return "DS-Nets of several of one block"
    if not network.is_searched:
        return f"DS-Nets with weights {weights_label(network.attention)}"
    return "" if network.is_whole else "DS-Nets that keep only some of their blocks"


def group_by(records: Iterable[Record], key: Callable[[Record], KeyT]) -> dict[KeyT, list[Record]]:
    """Groups records, groups and records in order of appearance."""
    groups: dict[KeyT, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def identity_without(record: Record, ignored: Iterable[str]) -> str:
    """Returns a text that is equal for runs whose configurations differ in these keys only.

    Files of equal contents are the same, wherever they lie.
    """
    config = replace_paths(record.config)
    rest = {key: value for key, value in config.items() if key not in frozenset(ignored)}
    return json.dumps(rest, sort_keys=True, default=str)


def prefer_recipe_weight_decay(records: Sequence[Record]) -> list[Record]:
    """Keeps the runs of the recipe's weight decay, if some of the network's runs have it.

    The others are then those of Table 6.
    """
    usual = [record for record in records if _has_recipe_weight_decay(record.config)]
    return usual or list(records)


def _has_recipe_weight_decay(config: Mapping[str, Any]) -> bool:
    decay = config.get("weight_decay")
    return decay is None or math.isclose(decay, recipe_of(config)["weight_decay"])


def check_trained_alike(records: Sequence[Record], varied: Iterable[str], table: str) -> None:
    """Raises a ValueError unless runs differ in nothing but what the table varies.

    Options, copies and, of a user's block, plugin files must be the same in all networks that have
    it; they make no difference to those that lack it. Files of equal contents are the same,
    wherever they lie.

    Args:
        records: Runs of one section, in any order.
        varied: Configuration keys that may differ.
        table: The table's name, for the message.
    """
    ignored = TECHNICAL_KEYS | set(varied)
    configs = [replace_paths(record.config) for record in records]
    for key in dict.fromkeys(key for config in configs for key in config):
        if key in ignored:
            continue
        seen: dict[str, tuple[Any, Record]] = {}
        for record, config in zip(records, configs, strict=True):
            for name, its in _values_of(record, key, config.get(key)).items():
                mine, first = seen.setdefault(name, (its, record))
                if mine != its:
                    raise IncomparableRunsError(
                        f"{table} compares runs that were trained alike, but {name} is "
                        f"{_describe_value(first, key, mine)} in run {first.run_id!r} and "
                        f"{_describe_value(record, key, its)} in run {record.run_id!r}; choose "
                        "runs of one value"
                    )


def _describe_value(record: Record, key: str, value: Any) -> str:
    """A value in words: of files their names and what tells their contents apart."""
    contents = record.config.get("contents", {})
    stored = record.config.get(key)
    names = stored if isinstance(stored, list | tuple) else [stored]
    files = [name for name in names if isinstance(name, str) and name in contents]
    if not files:
        return repr(value)
    return ", ".join(f"{name!r} (whose SHA-256 begins with {contents[name]})" for name in files)


def options_agree(one: Record, other: Record) -> bool:
    """Whether the blocks that two networks share have the same options and copies."""
    return all(
        mine[name] == its[name]
        for key in _BY_BLOCK
        for mine, its in [(_of_blocks(one, key), _of_blocks(other, key))]
        for name in mine.keys() & its.keys()
    )


def _values_of(record: Record, key: str, value: Any) -> dict[str, Any]:
    """A run's value of a key, by what it is called; of what makes a block one a block.

    Other networks have nothing of what describes a DS-Net.
    """
    if key not in DS_NET_FIELDS | {"plugins"}:
        return {key: value}
    network = architecture_of(record.config)
    if network is None:
        return {}
    if key == "plugins":
        users = sorted(network.all_blocks - catalogue().blocks.keys())
        return {f"plugins of {name}": value for name in users}
    return _of_blocks(record, key) if key in _BY_BLOCK else {key: value}


def _of_blocks(record: Record, key: str) -> dict[str, Any]:
    """Options or copies of each block of a DS-Net."""
    network = ds_net_of(record)
    values = getattr(network, key)
    return {f"{key} of {name}": values.get(name) for name in sorted(network.all_blocks)}


def differing_keys(records: Iterable[Record], ignored: Iterable[str] = ("seed",)) -> list[str]:
    """Returns the configuration keys, in order, whose values are not the same in all records.

    Files of equal contents are the same, wherever they lie.
    """
    configs = [replace_paths(record.config) for record in records]
    keys = dict.fromkeys(key for config in configs for key in config)
    varied = (key for key in keys if key not in frozenset(ignored))
    return [key for key in varied if any(c.get(key) != configs[0].get(key) for c in configs)]


def check_evaluated_alike(records: Sequence[Record], metrics: Sequence[str], table: str) -> None:
    """Raises a ValueError unless accuracies are of the same images under the same attacks.

    Args:
        records: Runs of one section of a table.
        metrics: What the section compares.
        table: The table's name, for the message.
    """
    for metric in metrics:
        seen: Record | None = None
        for record in records:
            if not record.was_evaluated_by(metric):
                continue
            if seen is None:
                seen = record
            one, other = (conditions_of(r.results[metric]) for r in (seen, record))
            if different := differences(one, other):
                raise IncomparableRunsError(
                    f"{table} compares {metric_label(metric)} of runs that were evaluated "
                    f"differently: {seen.run_id!r} and {record.run_id!r} differ in "
                    f"{', '.join(different)}; choose runs evaluated alike"
                )


def check_one_number(records: Sequence[Record], varied: Iterable[str] = ()) -> None:
    """Raises a ValueError unless runs differ in their seeds alone, so that their mean is a number.

    Args:
        records: The runs of the number.
        varied: Configuration keys by which they may differ besides.
    """
    by_seed: dict[Any, Record] = {}
    for record in records:
        other = by_seed.setdefault(record.config.get("seed"), record)
        if other is not record:
            keys = ", ".join(differing_keys([other, record])) or "nothing"
            raise IncomparableRunsError(
                f"runs {other.run_id!r} and {record.run_id!r} would be one number, but "
                f"have the same seed and differ in {keys}; choose one of them"
            )
    for record in records[1:]:
        for key in differing_keys([records[0], record], TECHNICAL_KEYS | set(varied)):
            mine, its = (_describe_value(r, key, r.config.get(key)) for r in (records[0], record))
            raise IncomparableRunsError(
                f"runs {records[0].run_id!r} and {record.run_id!r} would be seeds of one number, "
                f"but {key} is {mine} and {its}; choose runs of one value"
            )


def are_equally_large(one: Record, other: Record) -> bool:
    """Whether two networks have the same number of parameters, within 10 %."""
    small, large = sorted((one.num_params, other.num_params))
    return large <= _PARAMETERS_TOLERANCE * small


def describe_sizes(records: Sequence[Record]) -> str:
    """Says the numbers of parameters where widths do not make them equal; else nothing."""
    smallest, largest = (pick(records, key=lambda r: r.num_params) for pick in (min, max))
    if are_equally_large(smallest, largest):
        return ""
    return f"{smallest.num_params:,} to {largest.num_params:,} parameters"
