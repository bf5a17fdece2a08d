"""DS-Net varied: Table 4 (blocks kept after pruning) and Table 6 (weight decay)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from analysis.comparability import (
    ATTENTION_KEYS,
    NAMED_KEYS,
    check_evaluated_alike,
    check_trained_alike,
    describe_sizes,
    ds_net_of,
    evaluated_runs,
    group_by,
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
from nasbench_at.records.naming.labels import data_label, method_label, network_label
from nasbench_at.records.naming.variants import NETWORK_KEYS

__all__ = ["compute_pruning_table", "compute_weight_decay_table"]

_METRICS = {"pgd": "PGD-20 Acc. (%)", "natural": "Standard Acc. (%)"}
_OURS = "Ours"


def compute_pruning_table(records: Iterable[Record]) -> Table:
    """Computes Table 4: DS-Nets pruned to 1, 2, ... blocks a module, and as searched.

    Pruned networks have fixed, given weights and keep equally many blocks in every module, by
    ``attention_keep`` (the authors' form: the others weigh nothing) or by block sets of that size;
    where there are both, each form has a section. Ours are those of learned weights from N(0, 1)
    over all blocks that the pruned ones chose from. Sections by data set, method and depth; a note
    says the parameters of one whose networks widths do not make equally large, within 10 %.

    Raises:
        MissingRunsError: If no evaluated run is of a pruned network.
        ValueError: If the runs of a section were trained or evaluated differently.
    """
    needs = "pruned DS-Nets (attention fixed, attention_init given, equally many blocks a module)"
    records = list(records)
    runs = evaluated_runs(
        records, lambda r: _kept_of(r) is not None or _is_ours(r), "Table 4", needs
    )
    sections: dict[str, dict[str, list[Record]]] = {}
    for title, group in group_by(runs, _section_of).items():
        pruned = [record for record in group if not _is_ours(record)]
        ours = _matching_ours(group, pruned)
        for form, members in _split_forms(pruned).items():
            by_kept = group_by(sorted(members, key=_order_of), lambda r: str(_kept_of(r)))
            sections[f"{title}{form}"] = by_kept | ({_OURS: ours} if ours else {})
    if not sections:
        raise MissingRunsError(f"Table 4 needs evaluated runs of {needs}; none belongs to it")
    title = "Accuracy by the number of blocks that a module keeps"
    table = _lay_out(4, title, "Selected Blocks", sections, [*NAMED_KEYS])
    sizes = [
        f"{section}: {text}."
        for section, columns in sections.items()
        if (text := describe_sizes([record for runs in columns.values() for record in runs]))
    ]
    table = replace(table, notes=(*table.notes, *sizes))
    return _with_left_out(table, records, _why_not_pruning)


def _why_not_pruning(record: Record) -> str:
    if architecture_of(record.config) is None:
        return "of other networks than DS-Nets"
    if _kept_of(record) is None and not _is_ours(record):
        return f"{variant_of(record) or 'DS-Nets of block sets'} that no pruning makes"
    return "searched networks of other blocks, weight decay or training than the pruned ones"


def _kept_of(record: Record) -> int | None:
    network = architecture_of(record.config)
    if network is None or (network.attention.mode, network.attention.init) != ("fixed", "given"):
        return None
    counts = set(network.num_kept)
    return counts.pop() if len(counts) == 1 else None


def _split_forms(pruned: Sequence[Record]) -> dict[str, list[Record]]:
    """Sets networks that were built without what was pruned apart from those that zero it.

    A network that keeps all of its blocks is of both forms.
    """
    zeroed = [record for record in pruned if not ds_net_of(record).is_whole]
    whole = [record for record in pruned if ds_net_of(record).is_whole]
    most = max(map(_order_of, pruned), default=0)
    full = [r for r in whole if _order_of(r) == most]
    built = [r for r in whole if r not in full]
    if not (zeroed and built):
        return {"": list(pruned)} if pruned else {}
    return {
        ", the others zeroed": zeroed + full,
        ", the others not built": built + full,
    }


def _order_of(record: Record) -> int:
    return _kept_of(record) or 0


def _is_ours(record: Record) -> bool:
    network = architecture_of(record.config)
    return is_network_to_compare(record) and network is not None and network.block_set is not None


def _section_of(record: Record) -> str:
    network = ds_net_of(record)
    data, method = data_label(str(record.config.get("data"))), str(record.config.get("method"))
    label = method_label(method, record.config.get("beta"))
    return f"{data}, {label}, {network.num_modules} modules, k = {network.widen_factor:g}"


def _matching_ours(records: Sequence[Record], pruned: Sequence[Record]) -> list[Record]:
    """The searched networks of all blocks that the pruned ones chose from."""
    wanted = frozenset().union(*(ds_net_of(record).all_blocks for record in pruned))
    ours = [r for r in records if _is_ours(r) and ds_net_of(r).all_blocks == wanted]
    return prefer_recipe_weight_decay(ours)


def compute_weight_decay_table(records: Iterable[Record]) -> Table:
    """Computes Table 6: DS-Nets trained with several weight decays.

    Sections by data set, method and network, of those with two weight decays or more.

    Raises:
        MissingRunsError: If no DS-Net was trained with two weight decays.
        ValueError: If the runs of a section were trained or evaluated differently.
    """
    needs = "one DS-Net trained with two weight decays or more"
    records = list(records)
    runs = evaluated_runs(
        records,
        lambda r: (
            architecture_of(r.config) is not None
            and is_network_to_compare(r)
            and r.config.get("weight_decay") is not None
        ),
        "Table 6",
        needs,
    )
    sections: dict[str, dict[str, list[Record]]] = {}
    for title, group in group_by(runs, _network_section_of).items():
        ordered = sorted(group, key=lambda r: float(r.config["weight_decay"]))
        by_decay = group_by(ordered, lambda r: _scientific(r.config["weight_decay"]))
        if len(by_decay) > 1:
            sections[title] = by_decay
    if not sections:
        raise MissingRunsError(f"Table 6 needs evaluated runs of {needs}; none belongs to it")
    title = "Accuracy by weight decay"
    varied = [*NAMED_KEYS, "weight_decay"]
    table = _lay_out(6, title, "Weight decay", sections, varied)
    return _with_left_out(table, records, _why_not_weight_decay)


def _why_not_weight_decay(record: Record) -> str:
    if architecture_of(record.config) is None:
        return "of other networks than DS-Nets"
    return variant_of(record) or "whose network was trained with one weight decay only"


def _with_left_out(table: Table, records: Sequence[Record], why: Callable[[Record], str]) -> Table:
    return replace(table, notes=(*table.notes, note_left_out(records, table.rows, why)))


def _network_section_of(record: Record) -> str:
    config = record.config
    method = method_label(str(config.get("method")), config.get("beta"))
    return f"{data_label(str(config.get('data')))}, {method}, {network_label(config)}"


def _scientific(value: float) -> str:
    """As the paper writes it: 5e-4."""
    mantissa, exponent = f"{value:.5e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _lay_out(
    number: int,
    title: str,
    head: str,
    sections: Mapping[str, Mapping[str, Sequence[Record]]],
    varied: Sequence[str],
) -> Table:
    """Makes the table from the runs by section and column."""
    name = f"Table {number}"
    labels = list(dict.fromkeys(label for columns in sections.values() for label in columns))
    labels.sort(key=lambda label: (label == _OURS, 0.0 if label == _OURS else float(label)))
    rows: list[Row] = []
    used: list[Record] = []
    for section, columns in sections.items():
        runs = [record for group in columns.values() for record in group]
        check_trained_alike(runs, varied, name)
        check_evaluated_alike(runs, tuple(_METRICS), name)
        used += runs
        for metric, row_label in _METRICS.items():
            cells = [_cell(number, label, columns.get(label, ()), metric) for label in labels]
            rows.append(Row(section, row_label, tuple(mark_best(cells))))
    notes = (note_seeds(rows), *note_evaluation(used, tuple(_METRICS)))
    columns_of_all = tuple(Column(label) for label in labels)
    return Table(number, title, head, columns_of_all, tuple(rows), notes, published_in="rows")


def _cell(number: int, label: str, records: Sequence[Record], metric: str) -> Cell:
    if not records:
        return Cell()
    kept = int(label) if number == 4 and label != _OURS else None
    published = published_result(number, records[0], metric, kept_blocks=kept)
    varied = frozenset() if kept is None else _keys_of_pruning(records)
    return accuracy_cell(records, metric, published, varied=varied)


def _keys_of_pruning(records: Sequence[Record]) -> frozenset[str]:
    """What differs between seeds that were pruned by the weights that each had learned.

    Without the other blocks that is the network itself, its width with it.
    """
    is_built = all(ds_net_of(record).is_whole for record in records)
    return NETWORK_KEYS if is_built else ATTENTION_KEYS
