"""Networks compared: Table 1 (twice ranked) and Tables 2, 3 and 5 (under every attack)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.comparability import (
    NAMED_KEYS,
    TECHNICAL_KEYS,
    check_evaluated_alike,
    check_trained_alike,
    evaluated_runs,
    group_by,
    identity_without,
    is_network_to_compare,
    prefer_recipe_weight_decay,
    variant_of,
)
from analysis.errors import MissingRunsError
from analysis.tables.cells import accuracy_cell, mark_best, published_result
from analysis.tables.notes import note_evaluation, note_left_out, note_seeds
from analysis.tables.table import Cell, Column, Row, Table
from nasbench_at.config.architecture import architecture_of
from nasbench_at.records import Record
from nasbench_at.records.naming.labels import data_label, method_label, network_label, network_name
from nasbench_at.records.naming.variants import name_trainings, name_variants

__all__ = ["compute_attack_table", "compute_misalignment_table"]

METRICS = ("natural", "fgsm", "pgd", "cw", "aa")
_COLUMNS = (
    Column("Natural"),
    Column("FGSM"),
    Column("PGD-20"),
    Column("C&W"),
    Column("AA"),
)
_METHODS = {2: "at", 3: "mart", 5: "trades"}
_TITLES = {
    2: "Test accuracy after adversarial training (AT)",
    3: "Test accuracy after MART",
    5: "Test accuracy after TRADES",
}


@dataclass(frozen=True)
class _Network:
    """The runs of one row, which differ in their seeds only."""

    label: str
    records: list[Record]

    @property
    def is_ds_net(self) -> bool:
        return architecture_of(self.records[0].config) is not None


def compute_attack_table(number: int, records: Iterable[Record]) -> Table:
    """Computes Table 2 (AT), 3 (MART) or 5 (TRADES).

    A row a network and training, baselines before DS-Nets; where trainings of a section differ,
    each row says its own. Sections by data set, those of MART and TRADES by β too. Of DS-Nets those
    with learned weights from N(0, 1) count; of a network that was trained with several weight
    decays, the recipe's.

    Raises:
        MissingRunsError: If no evaluated run was trained by the method.
        ValueError: If the runs of a section were evaluated differently.
    """
    method, name = _METHODS[number], f"Table {number}"
    records = list(records)
    runs = evaluated_runs(
        records,
        lambda r: r.config.get("method") == method and is_network_to_compare(r),
        name,
        f"method {method}",
    )
    sections = group_by(runs, lambda r: (r.config.get("data"), r.config.get("beta")))
    rows: list[Row] = []
    used: list[Record] = []
    for (data, beta), group in sections.items():
        networks = _networks_of(group)
        kept = [record for network in networks for record in network.records]
        check_evaluated_alike(kept, METRICS, name)
        title = data_label(str(data)) + ("" if beta is None else f", β = {beta:g}")
        rows += _attack_rows(number, title, networks)
        used += kept
    notes = [
        note_seeds(rows),
        *note_evaluation(used, METRICS),
        "Improv.: the best DS-Net over the best baseline, relative; none where it is not better.",
        note_left_out(records, rows, lambda r: _why_not(r, (method,))),
    ]
    # The paper's two digits would call a tiny network's size zero.
    smallest = min(record.num_params for record in used)
    columns = (Column("Param (M)", 2 if smallest >= 10**5 else 4), *_COLUMNS)
    return Table(number, _TITLES[number], "Architecture", columns, tuple(rows), tuple(notes))


def _why_not(record: Record, methods: Sequence[str]) -> str:
    """Why a run that was evaluated is in no row of a table of these methods."""
    method = record.config.get("method")
    if method not in methods:
        return f"trained by {method_label(str(method))}" if method else "not trained here"
    return variant_of(record) or "of another weight decay than the recipe's"


def _networks_of(records: Sequence[Record]) -> list[_Network]:
    """One a row, with how it was trained where that is not the same for all of a section."""
    groups = [
        seeds
        for group in group_by(records, lambda r: network_name(r.config)).values()
        for seeds in group_by(
            prefer_recipe_weight_decay(group),
            lambda r: identity_without(r, NAMED_KEYS | TECHNICAL_KEYS),
        ).values()
    ]
    trainings = name_trainings([seeds[0].config for seeds in groups], TECHNICAL_KEYS)
    by_label: dict[str, list[list[Record]]] = {}
    for seeds, training in zip(groups, trainings, strict=True):
        label = ", ".join(filter(None, (network_label(seeds[0].config), training)))
        by_label.setdefault(label, []).append(seeds)
    networks = []
    for label, alike in by_label.items():
        names = name_variants([seeds[0].config for seeds in alike])
        for name, seeds in zip(names, alike, strict=True):
            networks.append(_Network(label if len(alike) == 1 else f"{label}, {name}", seeds))
    return sorted(networks, key=lambda network: network.is_ds_net)


def _attack_rows(number: int, section: str, networks: Sequence[_Network]) -> list[Row]:
    columns = [
        mark_best(
            [
                accuracy_cell(
                    network.records,
                    metric,
                    published_result(number, network.records[0], metric),
                )
                for network in networks
            ]
        )
        for metric in METRICS
    ]
    rows = [
        Row(section, network.label, (_size_cell(network.records), *cells))
        for network, *cells in zip(networks, *columns, strict=True)
    ]
    kinds = [network.is_ds_net for network in networks]
    if True in kinds and False in kinds:
        improvements = tuple(_improvement(cells, kinds) for cells in columns)
        rows.append(Row(section, "Improv. (%)", (Cell(), *improvements), "improvement"))
    return rows


def _size_cell(records: Sequence[Record]) -> Cell:
    return Cell(
        value=records[0].num_params / 1e6, run_ids=tuple(record.run_id for record in records)
    )


def _improvement(cells: Sequence[Cell], is_ours: Sequence[bool]) -> Cell:
    """The best DS-Net over the best baseline, in percent of the latter; so too as published."""

    def best(ours: bool) -> Cell | None:
        side = [
            cell
            for cell, flag in zip(cells, is_ours, strict=True)
            if flag == ours and cell.value is not None
        ]
        return max(side, key=lambda cell: cell.value or 0.0, default=None)

    def published(ours: bool) -> float | None:
        side = [
            cell.published
            for cell, flag in zip(cells, is_ours, strict=True)
            if flag == ours and cell.published is not None
        ]
        return max(side, default=None)

    one, other = best(True), best(False)
    if one is None or other is None:
        return Cell()
    return Cell(
        value=_relative(one.value, other.value),
        published=_relative(published(True), published(False)),
        run_ids=one.run_ids + other.run_ids,
    )


def _relative(new: float | None, old: float | None) -> float | None:
    return None if new is None or not old else 100 * (new - old) / old


def compute_misalignment_table(records: Iterable[Record]) -> Table:
    """Computes Table 1: natural accuracy after ST, PGD-20 after AT, and the two rankings.

    Raises:
        MissingRunsError: If there are not two networks trained both ways on one data set.
        ValueError: If runs of one method were trained differently, or runs evaluated differently.
    """
    needs = "methods st and at, both of at least two networks on one data set, natural and PGD-20"
    records = list(records)
    runs = evaluated_runs(
        records,
        lambda r: r.config.get("method") in ("st", "at") and is_network_to_compare(r),
        "Table 1",
        needs,
    )
    runs = [record for record in runs if record.was_evaluated_by("pgd")]
    rows: list[Row] = []
    used: list[Record] = []
    for data, group in group_by(runs, lambda r: str(r.config.get("data"))).items():
        networks = _trained_both_ways(group)
        if len(networks) >= 2:
            standard = [record for runs_of_st, _ in networks for record in runs_of_st]
            robust = [record for _, runs_of_at in networks for record in runs_of_at]
            for trained in (standard, robust):
                check_trained_alike(trained, NAMED_KEYS, "Table 1")
            check_evaluated_alike(standard + robust, ["natural"], "Table 1")
            check_evaluated_alike(robust, ["pgd"], "Table 1")
            rows += _ranked_rows(data_label(data), networks)
            used += standard + robust
    if not rows:
        raise MissingRunsError(f"Table 1 needs evaluated runs of {needs}")
    columns = (
        *(Column("Standard Acc."), Column("Ranking", 0)),
        *(Column("Robustness"), Column("Ranking", 0)),
    )
    title = "Standard accuracy after ST against robustness (PGD-20) after AT"
    paired = {network_name(record.config) for record in used}

    def why(record: Record) -> str:
        if record in runs and network_name(record.config) not in paired:
            return "whose network was not trained by both ST and AT, or alone so on its data set"
        if record.config.get("method") in ("st", "at") and not record.was_evaluated_by("pgd"):
            return "not evaluated by PGD-20"
        return _why_not(record, ("st", "at"))

    notes = (
        *(note_seeds(rows), *note_evaluation(used, ("natural", "pgd"))),
        note_left_out(records, rows, why),
    )
    return Table(1, title, "Model", columns, tuple(rows), notes)


def _trained_both_ways(records: Sequence[Record]) -> list[tuple[list[Record], list[Record]]]:
    """For each network that has both ways of training, its runs of st and those of at."""
    found = []
    for group in group_by(records, lambda r: network_name(r.config)).values():
        by_method = group_by(group, lambda r: r.config["method"])
        if len(by_method) == 2:
            standard, robust = (prefer_recipe_weight_decay(by_method[m]) for m in ("st", "at"))
            found.append((standard, robust))
    return found


def _ranked_rows(
    section: str, networks: Sequence[tuple[Sequence[Record], Sequence[Record]]]
) -> list[Row]:
    """A row a network, the best natural accuracy first; equal accuracies share a rank."""
    columns: list[list[Cell]] = []
    for side, metric in enumerate(("natural", "pgd")):
        cells = mark_best(
            [
                accuracy_cell(network[side], metric, published_result(1, network[side][0], metric))
                for network in networks
            ]
        )
        values = [cell.value or 0.0 for cell in cells]
        ranks = [1 + sum(other > value for other in values) for value in values]
        columns += [
            cells,
            [
                Cell(value=rank, run_ids=cell.run_ids)
                for rank, cell in zip(ranks, cells, strict=True)
            ],
        ]
    rows = [
        Row(section, network_label(standard[0].config), tuple(cells))
        for (standard, _), *cells in zip(networks, *columns, strict=True)
    ]
    return sorted(rows, key=lambda row: row.cells[1].value or 0)
