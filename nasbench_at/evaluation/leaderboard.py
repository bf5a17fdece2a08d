"""A run as an entry of a leaderboard of robust models: what RobustBench asks for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nasbench_at.evaluation.exported import export_run
from nasbench_at.records import AttackResult, Record, read_record
from nasbench_at.records.conditions import describe_conditions
from nasbench_at.records.naming.labels import extra_label, network_label
from nasbench_at.records.run_folders import open_run_folder
from nasbench_at.runtime.atomic_files import write_atomically

__all__ = ["Authorship", "write_claim"]


_SHARED_BY_PARTS = ("norm", "eps", "seed", "data_fingerprint", "num_samples", "subset")
"""Fields in which a row of a part of AutoAttack agrees with its own."""


@dataclass(frozen=True)
class Authorship:
    """What an entry says that no record tells; what is None is left open.

    Attributes:
        name: Title of the entry; the run's id by default.
        authors: Who made the network.
        venue: Where it was published.
        link: The publication.
    """

    name: str | None = None
    authors: str | None = None
    venue: str | None = None
    link: str | None = None


def write_claim(
    path: str | Path, folder: str | Path, authorship: Authorship | None = None
) -> tuple[Path, ...]:
    """Writes what one submits to a leaderboard of robust models, all of it from a run's record.

    The entry, ``RUN-ID.json``, has the fields of RobustBench's ``model_info``: accuracies in
    percent as text with two digits, natural as ``clean_acc``, under AutoAttack as
    ``autoattack_acc`` and ``reported``. We add ``threat_model``, the numbers of images, seconds
    and in ``footnote`` what makes an accuracy less than it seems. Beside it lie
    AutoAttack's log, attack by attack, and the network with its card, see
    :func:`nasbench_at.evaluation.exported.export_run`.

    Args:
        path: The run's folder.
        folder: Where to write; files of these names are replaced.
        authorship: What the record does not tell.

    Returns:
        The files written, the entry first.

    Raises:
        ValueError: If the run has no weights or no AutoAttack under its own norm and eps, or the
            folder cannot be made.
        OSError: If a file cannot be written.

    Reference:
        Croce et al., "RobustBench: a standardized adversarial robustness benchmark", NeurIPS 2021
        Datasets and Benchmarks.
    """
    record = read_record(open_run_folder(path).record)
    attacked = _autoattack_of(record, path)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
    entry = folder / f"{record.run_id}.json"
    log = entry.with_suffix(".log")
    files = export_run(path, entry.with_suffix(".safetensors"))
    content = _entry(record, attacked, authorship or Authorship())
    write_atomically(log, "".join(f"{line}\n" for line in _log(record, attacked)).encode())
    write_atomically(entry, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return entry, log, *files


def _autoattack_of(record: Record, path: str | Path) -> AttackResult:
    """Returns the row of AutoAttack under the run's own norm and eps that is on the most images."""
    eps, norm = record.config["eps"], record.config.get("norm", "Linf")
    rows = [row for row in record.all_results if row.attack == "aa"]
    own = [row for row in rows if (row.norm, row.eps) == (norm, eps)]
    if not own:
        found = f"{rows[-1].norm} eps {rows[-1].eps:g}" if rows else "none"
        raise ValueError(
            f"a claim needs AutoAttack under the run's own {norm} eps {eps:g}, got {found} of run "
            f"{record.run_id!r}: nasbench-at evaluate {shlex.quote(str(path))} --attacks aa"
        )
    *_, largest = sorted(own, key=lambda row: row.num_samples)  # the latest of equal ones
    return largest


def _entry(record: Record, attacked: AttackResult, authorship: Authorship) -> dict[str, object]:
    natural = record.results["natural"]
    robust = _percent(attacked)
    checks = [check.passed for evaluation in record.evaluations for check in evaluation.checks]
    return {
        **asdict(authorship),
        "name": authorship.name or record.run_id,
        "additional_data": record.config.get("extra_data") is not None,
        "number_forward_passes": 1,
        "dataset": Path(record.config["data"]).name,
        "threat_model": attacked.norm,
        "eps": attacked.eps,
        "architecture": network_label(record.config),
        "num_params": record.num_params,
        "clean_acc": _percent(natural),
        "reported": robust,
        "autoattack_acc": robust,
        "clean_num_images": natural.num_samples,
        "autoattack_num_images": attacked.num_samples,
        "train_seconds": record.provenance.get("train_seconds"),
        "autoattack_seconds": attacked.seconds,
        "unreliable": not all(checks) if checks else None,
        "footnote": " ".join(_reservations(record, attacked)),
    }


def _percent(row: AttackResult) -> str:
    return f"{row.accuracy:.2%}".removesuffix("%")


def _reservations(record: Record, attacked: AttackResult) -> Iterator[str]:
    low, high = attacked.interval
    images = "all" if attacked.subset is None else "randomly drawn"
    yield (
        f"Under AutoAttack {low:.1%} to {high:.1%} with 95 % confidence, on {images} "
        f"{attacked.num_samples:,} test images."
    )
    if extra := extra_label(record.config):
        count = record.training.get("num_extra")
        images = "generated images" if count is None else f"{count} generated images"
        yield f"Trained on {images}, too: {extra}."
    if record.config.get("select_on") == "test":
        yield "The epoch was selected on test images: accuracies on them are too high."
    for evaluation in record.evaluations:
        for check in evaluation.checks:
            if not check.passed:
                yield f"Trust check {check.name} failed: {check.detail}."


def _log(record: Record, attacked: AttackResult) -> Iterator[str]:
    """Yields the lines as AutoAttack itself logs them, with the conditions first."""
    natural = record.results["natural"]
    yield f"{record.run_id}: {describe_conditions(attacked)}, seed {attacked.seed}"
    yield f"initial accuracy: {natural.accuracy:.2%} ({natural.num_correct}/{natural.num_samples})"
    seconds = 0.0
    for row in record.all_results:
        alike = all(getattr(row, name) == getattr(attacked, name) for name in _SHARED_BY_PARTS)
        if alike and row.attack.startswith("aa/"):
            seconds += row.seconds
            yield (
                f"robust accuracy after {row.attack.removeprefix('aa/').upper()}: "
                f"{row.accuracy:.2%} ({row.num_correct}/{row.num_samples}; "
                f"total time {seconds:.1f} s)"
            )
    yield f"robust accuracy: {attacked.accuracy:.2%}"
