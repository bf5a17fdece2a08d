"""Cheap rankings held against a table of trained networks, with what each of them costs."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias

import pandas as pd
import torch

from nasbench_at.config import DS_NET_FIELDS, RunConfig, resolve
from nasbench_at.config.contents import replace_paths
from nasbench_at.records import Benchmark, Record, Reliability
from nasbench_at.records.naming.labels import method_label
from nasbench_at.records.summary import Summary
from nasbench_at.runtime.devices import select_device
from nasbench_at.training.launch import create_network, load_config_data
from studies.proxies.agreement import Agreement, Ceiling, measure_agreement, measure_ceiling
from studies.proxies.one_shot import Draws, train_one_shot
from studies.proxies.zero_cost import ZERO_COST, Score

__all__ = ["Kind", "ProxyComparison", "compare_proxies"]

Kind: TypeAlias = Literal["untrained", "epochs", "method", "one-shot"]
"""What a ranking is by.

A score of untrained networks, fewer epochs of the same training, another method of training, or one
network that stands for all.
"""

FIDELITIES = (1, 2, 3, 5)
"""Epochs after which the ranking by validation accuracy is looked at."""
_IMAGES = 64
_INITIALISATIONS = 3
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class ProxyComparison:
    """Cheap rankings of the networks of a table.

    Attributes:
        frame: A row a proxy, cheapest first: ``proxy``, ``kind`` (of :data:`Kind`), ``cost``
            (seconds for all networks, as a share of training every network once), ``tau``,
            ``tau_low``, ``tau_high``, ``corrected`` (tau corrected for the noise of the
            accuracies), ``spearman``, ``spearman_low``, ``spearman_high``, ``networks``.
        ceiling: What none can be expected to exceed.
        attack: Whose accuracy is foretold.
    """

    frame: pd.DataFrame
    ceiling: Ceiling
    attack: str


def compare_proxies(
    runs: Benchmark,
    attack: str = "pgd",
    *,
    method: str = "at",
    scores: Mapping[str, Score] = ZERO_COST,
    one_shot: Sequence[Draws] = (),
    one_shot_epochs: int = 50,
    device: str = "auto",
    data_root: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> ProxyComparison:
    """Ranks a table's networks by each proxy, and holds the rankings against their accuracies.

    Scores of untrained networks are means over three initialisations, on 64 training images. A
    score that cannot be had of some network is left out. The validation accuracy after a few epochs
    of one seed is held against the mean test accuracy of the other seeds, and averaged over seeds.

    Where the table holds every network trained by another method, too, as by standard or by fast
    adversarial training, that is a proxy: its validation accuracy in the last epoch, after standard
    training the natural one, of each seed against all seeds' mean.

    Args:
        runs: Networks that were trained alike, each with the same seeds, at least two; those that
            were not evaluated by the attack are left out.
        attack: Whose accuracy is to be foretold.
        method: Of which training.
        scores: Scores of untrained networks by name.
        one_shot: Train one network of all blocks with batches that draw theirs in each of these
            ways, and rank the subsets by it. The table must hold the network of all blocks.
        one_shot_epochs: Epochs of each such training.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where the data set's files lie.
        on_progress: Called with the number of networks scored and that of all.

    Raises:
        ValueError: If there are fewer than three networks with two seeds each, they were trained or
            evaluated differently, or a learning curve or time is missing.
    """
    groups = _groups_of(runs, attack, method)
    accuracies = [[record.accuracy(attack) for record in group] for group in groups]
    ceiling = measure_ceiling(accuracies)
    full = sum(fmean(_seconds_of(record) for record in group) for group in groups)
    means = [[fmean(of_network) for of_network in accuracies]]
    rows = []
    for name, share, agreement in _rank_by_epochs(runs, groups, accuracies, ceiling.reliability):
        rows.append(_row(name, "epochs", share, agreement))
    for name, cheaper in _by_other_methods(runs, groups, method):
        validated = [[_validated(runs, record) for record in seeds] for seeds in cheaper]
        agreement = measure_agreement(validated, means * len(validated), ceiling.reliability.value)
        of_seed = fmean(sum(map(_seconds_of, seeds)) for seeds in cheaper)
        rows.append(_row(name, "method", of_seed / full, agreement))
    found, seconds = _score_all(groups, scores, device, data_root, on_progress)
    for name, values in found.items():
        if all(map(math.isfinite, values)):
            agreement = measure_agreement([values], means, ceiling.reliability.value)
            rows.append(_row(name, "untrained", seconds[name] / full, agreement))
    for draws in one_shot:
        start = time.perf_counter()
        of_subsets = _score_subsets(groups, draws, one_shot_epochs, device, data_root)
        cost = (time.perf_counter() - start) / full
        if any(map(math.isnan, of_subsets)):
            continue
        agreement = measure_agreement([of_subsets], means, ceiling.reliability.value)
        rows.append(_row(f"one-shot, {draws}", "one-shot", cost, agreement))
    frame = pd.DataFrame(rows).sort_values("cost", kind="stable", ignore_index=True)
    return ProxyComparison(frame, ceiling, attack)


def _row(name: str, kind: Kind, cost: float, agreement: Agreement) -> dict[str, object]:
    return {
        "proxy": name,
        "kind": kind,
        "cost": cost,
        "tau": agreement.tau,
        "tau_low": agreement.tau_interval[0],
        "tau_high": agreement.tau_interval[1],
        "corrected": agreement.corrected,
        "spearman": agreement.spearman,
        "spearman_low": agreement.spearman_interval[0],
        "spearman_high": agreement.spearman_interval[1],
        "networks": agreement.num_networks,
    }


def _groups_of(runs: Benchmark, attack: str, method: str) -> list[list[Record]]:
    """Returns each network's runs by seed, of the seeds that all networks have."""
    of_method = [record for record in runs if record.config.get("method") == method]
    summary = Summary.of([record for record in of_method if record.was_evaluated_by(attack)])
    rankings = [ranking for ranking in summary.rankings if ranking.attack == attack]
    if len(rankings) != 1 or rankings[0].reliability.num_networks != len(summary.groups):
        raise ValueError(
            f"proxies are held against one ranking by {attack!r}, of networks that were trained "
            f"by {method!r} and evaluated alike with at least two seeds each; got {len(rankings)} "
            f"of {[ranking.reliability.num_networks for ranking in rankings]} of "
            f"{len(summary.groups)} networks"
        )
    by_seed = [{record.config["seed"]: record for record in group} for group in summary.groups]
    seeds = sorted(set.intersection(*map(set, by_seed)))
    if len(seeds) < 2 or len(by_seed) < 3:
        raise ValueError(
            "proxies need at least 3 networks and 2 seeds that all of them have, got "
            f"{len(by_seed)} networks and {len(seeds)} common seeds"
        )
    return [[group[seed] for seed in seeds] for group in by_seed]


def _seconds_of(record: Record) -> float:
    seconds = record.provenance.get("train_seconds")
    if seconds is None:
        raise ValueError(f"run {record.run_id!r} has no training time, train_seconds")
    return float(seconds)


def _rank_by_epochs(
    runs: Benchmark,
    groups: Sequence[Sequence[Record]],
    accuracies: Sequence[Sequence[float]],
    reliability: Reliability,
) -> Iterator[tuple[str, float, Agreement]]:
    """Yields name, cost and agreement of the validation accuracy of one seed after few epochs."""
    curves = [
        [[row["validation_robust"] for row in runs.metrics_of(record)] for record in group]
        for group in groups
    ]
    num_seeds = len(groups[0])
    num_epochs = min(len(curve) for group in curves for curve in group)
    others = [
        [fmean([*of_network[:seed], *of_network[seed + 1 :]]) for of_network in accuracies]
        for seed in range(num_seeds)
    ]
    for epochs in sorted({*(e for e in FIDELITIES if e < num_epochs), num_epochs}):
        scores = [[group[seed][epochs - 1] for group in curves] for seed in range(num_seeds)]
        agreement = measure_agreement(scores, others, reliability.of_means(num_seeds - 1))
        name = f"{epochs} epoch{'' if epochs == 1 else 's'}"
        yield name, epochs / num_epochs, agreement


def _by_other_methods(
    runs: Benchmark, groups: Sequence[Sequence[Record]], method: str
) -> Iterator[tuple[str, list[list[Record]]]]:
    """Yields each cheaper method that every network was trained by: its name, its runs by seed."""
    networks = [_split(group[0])[0] for group in groups]
    trainings: dict[str, dict[int, dict[str, Record]]] = {}
    for record in runs:
        if record.config.get("method") not in (None, method):
            network, training = _split(record)
            of_seed = trainings.setdefault(training, {}).setdefault(record.config["seed"], {})
            of_seed[network] = record
    for by_seed in trainings.values():
        whole = [
            [of_seed[network] for network in networks]
            for of_seed in by_seed.values()
            if all(network in of_seed for network in networks)
        ]
        if whole:
            config = whole[0][0].config
            name = method_label(config["method"], config.get("beta"))
            yield f"{name}, {config['epochs']} epochs", whole


def _split(record: Record) -> tuple[str, str]:
    """Returns what stands for a record's network, and for its training but for the seed."""
    fields = DS_NET_FIELDS | {"model", "model_options"}
    config = replace_paths({k: v for k, v in record.config.items() if k != "seed"})
    network = {k: v for k, v in config.items() if k in fields}
    training = {k: v for k, v in config.items() if k not in fields}
    return json.dumps(network, sort_keys=True), json.dumps(training, sort_keys=True)


def _validated(runs: Benchmark, record: Record) -> float:
    is_robust = record.config["method"] != "st"  # after which no network is
    column = "validation_robust" if is_robust else "validation_natural"
    return float(runs.metrics_of(record)[-1][column])


def _score_all(
    groups: Sequence[Sequence[Record]],
    scores: Mapping[str, Score],
    device: str,
    data_root: str | Path | None,
    on_progress: OnProgress | None,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns each score's values by network, and the seconds that it took."""
    place = select_device(device)
    found: dict[str, list[float]] = {name: [] for name in scores}
    seconds = dict.fromkeys(scores, 0.0)
    for number, group in enumerate(groups, start=1):
        values: dict[str, list[float]] = {name: [] for name in scores}
        for record in group[:_INITIALISATIONS]:
            config = resolve(RunConfig(**record.config))
            data = load_config_data(config, place, data_root)
            network = create_network(config, data, place)
            x, y = data.train.take(torch.arange(min(_IMAGES, len(data.train))))
            for name, score in scores.items():
                start = time.perf_counter()
                values[name].append(_score(score, network, x, y, config.eps))
                seconds[name] += time.perf_counter() - start
        for name, of_network in values.items():
            found[name].append(fmean(of_network))
        if on_progress is not None:
            on_progress(number, len(groups))
    return found, seconds


def _score_subsets(
    groups: Sequence[Sequence[Record]],
    draws: Draws,
    epochs: int,
    device: str,
    data_root: str | Path | None,
) -> list[float]:
    """Returns each network's score as a part of the network of all blocks."""
    sets = [group[0].config["blocks"] for group in groups]
    largest = max(range(len(sets)), key=lambda number: len(sets[number]))
    every = list(sets[largest])
    if not all(isinstance(name, str) and name in every for blocks in sets for name in blocks):
        raise ValueError(
            "one-shot training needs a table of subsets of the blocks of one of its networks, the "
            f"largest of which has {every}"
        )
    place = select_device(device)
    config = resolve(RunConfig(**groups[largest][0].config))
    data = load_config_data(config, place, data_root)
    shot, own = train_one_shot(config, data, place, epochs=epochs, draws=draws)
    return [shot.score([every.index(name) for name in blocks], data, own) for blocks in sets]


def _score(
    score: Score, network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, eps: float
) -> float:
    try:
        return score(network, x, y, eps)
    except ValueError:  # no rule for a block, or no DS-Net
        return math.nan
