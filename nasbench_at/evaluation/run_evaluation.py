"""Evaluation of a run, or of a user's model: attacks on the test images, results in a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor, nn

from nasbench_at.attacks import AutoAttack
from nasbench_at.config.allowed_values import ExistingFile, check_value
from nasbench_at.config.contents import hash_contents
from nasbench_at.data import LabelledImages, load_data
from nasbench_at.evaluation.exported import Exported
from nasbench_at.evaluation.measures import measures_by_eps
from nasbench_at.evaluation.options import EvaluationOptions
from nasbench_at.evaluation.outcome_files import (
    hash_images,
    hash_subset,
    hash_weights,
    remove_progress,
    write_outcomes,
)
from nasbench_at.evaluation.robustness import (
    Measure,
    RobustnessReport,
    check_model,
    count_samples,
    measure_robustness,
)
from nasbench_at.evaluation.runs import Run, TrainedNetwork
from nasbench_at.evaluation.smoothing import Smoothing
from nasbench_at.networks.ds_net import count_parameters
from nasbench_at.networks.user_models import load_user_model
from nasbench_at.records import AttackResult, Evaluation, Record, read_record
from nasbench_at.records.outcomes import SUBSET_PREFIX
from nasbench_at.records.places import find_network
from nasbench_at.runtime.atomic_files import write_atomically
from nasbench_at.runtime.devices import select_device
from nasbench_at.runtime.provenance import collect_provenance
from nasbench_at.runtime.ranks import Ranks

__all__ = [
    "PreparedEvaluation",
    "evaluate_run",
    "prepare_evaluation",
    "prepare_model_evaluation",
]

OnResult = Callable[[str, AttackResult], None]


def evaluate_run(
    path: str | Path,
    attacks: Sequence[str] | None = None,
    *,
    eps: float | tuple[float, ...] | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    on_result: OnResult | None = None,
    **options: Any,
) -> Record:
    """Evaluates a run's selected weights on the test images and writes its record.

    Args:
        path: The run's folder.
        attacks: Names, see :func:`nasbench_at.evaluation.standard_attacks`; the paper's by default.
        eps: Radius, or several; the run's own by default.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where the data set's files lie.
        on_result: Called with each row as soon as it is known.
        **options: Other fields of :class:`nasbench_at.evaluation.options.EvaluationOptions`.

    Returns:
        The run's record with this evaluation beside earlier ones. Rows of exactly the same
        conditions and seed are replaced.

    Raises:
        ValueError: If the folder, its weights or an argument is not usable.
    """
    radii = () if eps is None else eps if isinstance(eps, tuple) else (eps,)
    names = None if attacks is None else tuple(attacks)
    chosen = EvaluationOptions(attacks=names, eps=radii, **options)
    return prepare_evaluation(path, chosen, device=device, data_root=data_root).run(on_result)


def prepare_evaluation(
    path: str | Path,
    options: EvaluationOptions | None = None,
    *,
    device: str = "auto",
    data_root: str | Path | None = None,
) -> PreparedEvaluation:
    """Checks everything that can be wrong with a run's evaluation before the first attack.

    Args:
        path: The run's folder, an exported ``.safetensors`` file, or one of
            :func:`nasbench_at.records.places.shipped_networks`; what is measured of these two has a
            record of its own, ``evaluations/<name>-<hash>/record.json``.
        options: Attacks and settings; the run's configuration fills in the rest.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data_root: Where the data set's files lie.

    Raises:
        ValueError: If the folder, its weights or an argument is not usable.
    """
    options = options or EvaluationOptions()
    exported = find_network(path)
    run: TrainedNetwork
    if exported is None:
        run = Run.open(path, device=device, data_root=data_root)
    else:
        run = Exported(exported, select_device(device), data_root)
    config, record = run.config, run.record
    assert config.eps is not None  # a run's folder holds a resolved configuration
    norm = options.norm or config.norm
    if not options.eps and norm != config.norm:
        raise ValueError(f"eps must be given with norm {norm}: the run's own is of {config.norm}")
    options = replace(
        options,
        norm=norm,
        eps=options.eps or (config.eps,),
        recipe=options.recipe or config.recipe,
        counts=options.counts or "last",
    )
    measures_by_eps(options, config.method)  # before data are downloaded
    model, data = run.network, run.data
    trained_on = record.provenance.get("data_fingerprint", data.fingerprint)
    if trained_on != data.fingerprint:
        raise ValueError(
            f"run {str(path)!r} was trained on other data than {config.data!r} holds now: "
            f"fingerprint {trained_on} there, {data.fingerprint} here"
        )
    images = data.test
    attacks = measures_by_eps(options.for_classes(data.num_classes), config.method)
    check_model(model, images, _all_measures(attacks))
    _check_samples(options, len(images))
    lock: Callable[[], AbstractContextManager[None]] = nullcontext
    if isinstance(run, Run):
        file, lock = run.folder.record, run.folder.locked
    else:
        # A record of its own, of what is measured here: no earlier outcomes came with the file.
        record = replace(record, evaluations=())
        name = run.weights.stem if Path(path) == run.weights else str(path)
        file = _record_file(name, hash_weights(model))
        _prepare_file(file, record.run_id)
    return PreparedEvaluation(
        model=model,
        images=images,
        attacks=attacks,
        options=options,
        data=f"{config.data}/test",
        record=record,
        path=file,
        lock=lock,
    )


def prepare_model_evaluation(
    spec: str,
    options: EvaluationOptions,
    *,
    data: str,
    weights: str | Path | None = None,
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    device: str = "auto",
) -> PreparedEvaluation:
    """Checks everything that can be wrong with the evaluation of a user's model.

    Args:
        spec: ``file.py:factory``, ``module:factory`` or a name, see
            :func:`nasbench_at.networks.user_models.load_user_model`.
        options: Attacks and settings. ``eps`` must be set; ``counts`` is ``any`` by default.
        data: Name of the data set.
        weights: Safetensors or ``state_dict`` file.
        data_root: Where the data set's files lie.
        out: The record's file; by default ``evaluations/<name>-<hash>/record.json``, after the
            name of the factory and that of the weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: If the model, its weights, the data, an argument or the file is not usable.
    """
    if not options.eps:
        raise ValueError("eps must be given with a model of your own")
    if weights is not None:  # before data are downloaded
        check_value("weights", Annotated[Path, ExistingFile()], weights)
    options = replace(
        options,
        norm=options.norm or "Linf",
        recipe=options.recipe or "paper",
        counts=options.counts or "any",
    )
    measures_by_eps(options, method="at")  # before data are downloaded
    chosen = select_device(device)
    data_set = load_data(data, root=data_root, device=chosen)
    attacks = measures_by_eps(options.for_classes(data_set.num_classes), method="at")
    images = data_set.test
    _check_samples(options, len(images))
    model = load_user_model(
        spec,
        weights,
        device=chosen,
        num_classes=data_set.num_classes,
        image_shape=data_set.image_shape,
    )
    check_model(model, images, _all_measures(attacks))
    contents = hash_contents([spec, data])
    code = contents.get(spec)
    weights_hash = hash_weights(model)
    identity = [spec, code, weights_hash, hash_images(images.images, images.labels)]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    file = _record_file(spec.rpartition(":")[2], digest, weights)
    run_id = file.parent.name
    path = Path(out) if out is not None else file
    record = Record(
        run_id=run_id,
        config={
            "model": spec,
            "weights": None if weights is None else str(weights),
            "weights_hash": weights_hash,
            "data": data,
            "contents": contents,
        },
        architecture=spec,
        num_params=count_parameters(model),
        provenance=collect_provenance(chosen),
    )
    _prepare_file(path, run_id)
    return PreparedEvaluation(
        model=model,
        images=images,
        attacks=attacks,
        options=options,
        data=f"{data}/test",
        record=record,
        path=path,
    )


def _record_file(name: str, digest: str, weights: str | Path | None = None) -> Path:
    """Returns where the record of a network without a run's folder goes."""
    stem = "" if weights is None else f"-{Path(weights).stem}"
    return Path("evaluations") / f"{name.replace('/', '-')}{stem}-{digest[:8]}" / "record.json"


def _prepare_file(path: Path, run_id: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror}") from None
    if path.is_dir():
        raise ValueError(f"out must be a file to write the record to, got the folder {str(path)!r}")
    if path.exists() and (other := read_record(path).run_id) != run_id:
        raise ValueError(
            f"{str(path)!r} holds the record of another model or other images, {other!r}; choose "
            "another file, or remove it"
        )


def _check_samples(options: EvaluationOptions, num_images: int) -> None:
    measured = count_samples(options.num_images, num_images, name="num_images") or num_images
    for name in ("aa_samples", "smooth_samples"):
        count_samples(getattr(options, name), measured, name=name)


def _all_measures(attacks: Mapping[float, Mapping[str, Measure]]) -> list[Measure]:
    return [attack for by_name in attacks.values() for attack in by_name.values()]


@dataclass(frozen=True)
class PreparedEvaluation:
    """A model, loaded, checked and about to be attacked.

    Attributes:
        model: Images in [0, 1] to logits.
        images: The test images.
        attacks: What to run, by radius and name.
        options: What was asked for, all filled in.
        data: Name of the images in the record.
        record: The record before this evaluation.
        path: The record's file.
        lock: Holds the folder while the evaluation runs.
    """

    model: nn.Module
    images: LabelledImages
    attacks: Mapping[float, Mapping[str, Measure]]
    options: EvaluationOptions
    data: str
    record: Record
    path: Path
    lock: Callable[[], AbstractContextManager[None]] = field(default=nullcontext)

    def run(self, on_result: OnResult | None = None, ranks: Ranks | None = None) -> Record:
        """Attacks, then writes the per-sample outcomes and the record.

        AutoAttack's verdicts are kept in a folder beside the record until that is written: killed
        and started again, the evaluation goes on with them, also if others ended in between.

        Args:
            on_result: Called with each row as soon as it is known.
            ranks: This process's place among ranks that share the work; rank 0 writes.

        Raises:
            FolderInUseError: If another process works in the run's folder.
        """
        ranks = ranks or Ranks()
        # A model of the user's with another forward may be written to this record.
        progress_dir = self.path.with_suffix(".progress") / self.record.run_id
        certified: dict[Smoothing, Tensor] = {}
        with self.lock() if ranks.is_main else nullcontext():
            reports = {
                eps: measure_robustness(
                    self.model,
                    self.images,
                    attacks,
                    seed=self.options.seed,
                    num_images=self.options.num_images,
                    aa_samples=self.options.aa_samples,
                    data_name=self.data,
                    progress_dir=progress_dir,
                    on_result=on_result if ranks.is_main else None,
                    ranks=ranks,
                    certified=certified,
                )
                for eps, attacks in self.attacks.items()
            }
            evaluation = self._describe(list(reports.values()), ranks)
            # Read again: another evaluation may have ended since this one was prepared.
            record = read_record(self.path) if self.path.exists() else self.record
            record = record.with_evaluation(evaluation)
            if not ranks.is_main:
                return record
            write_outcomes(self.path, record, _collect_outcomes(list(reports.values())))
            write_atomically(self.path, record.to_json().encode())
            for attacks in self.attacks.values():
                used = {name: a for name, a in attacks.items() if isinstance(a, AutoAttack)}
                remove_progress(progress_dir, {name: a.settings() for name, a in used.items()})
        return record

    def _describe(self, reports: Sequence[RobustnessReport], ranks: Ranks) -> Evaluation:
        # The natural images are the same at every radius: one row.
        rows = {row.key: row for report in reports for row in report.results.values()}
        provenance = collect_provenance(self.images.labels.device)
        return Evaluation(
            results=tuple(rows.values()),
            norm=self.options.norm or "Linf",
            recipe=self.options.recipe,
            seed=self.options.seed,
            data=self.data,
            data_fingerprint=reports[0].data_fingerprint,
            provenance={**provenance, "num_ranks": ranks.world_size},
            checks=tuple(check for report in reports for check in report.checks),
        )


def _collect_outcomes(reports: Sequence[RobustnessReport]) -> dict[str, Tensor]:
    """Outcomes by the keys of their rows, and which images those of a part are of."""
    tensors = {
        report.results[name].key: outcomes
        for report in reports
        for name, outcomes in report.outcomes.items()
    }
    for report in reports:
        for subset in (report.subset, report.aa_subset, report.smooth_subset):
            if subset is not None:
                tensors[f"{SUBSET_PREFIX}{hash_subset(subset)}"] = subset
    return tensors
