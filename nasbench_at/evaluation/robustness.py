"""Evaluation: a model and images in, a robustness report with counts and intervals out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from nasbench_at.attacks import (
    Attack,
    AutoAttack,
    AutoAttackResult,
    GradientAttack,
    attack_mode,
    check_inputs,
    run_checks,
)
from nasbench_at.attacks.folding import folding_agrees, never_fold
from nasbench_at.attacks.inputs import check_count
from nasbench_at.data import LabelledImages
from nasbench_at.evaluation.corruptions import CorruptionSuite, corrupt, is_random
from nasbench_at.evaluation.outcome_files import ProgressFile, hash_images, hash_subset
from nasbench_at.evaluation.smoothing import CertifiedAccuracy, Smoothing
from nasbench_at.evaluation.standard_attacks import check_attacks, standard_attacks
from nasbench_at.records import AttackResult, TrustCheck
from nasbench_at.records.evaluation import format_results
from nasbench_at.runtime.ranks import Ranks
from nasbench_at.runtime.seeding import make_generator

__all__ = [
    "Measure",
    "RobustnessReport",
    "check_model",
    "count_samples",
    "measure_robustness",
    "standard_attacks",
]

Measure: TypeAlias = Attack | CorruptionSuite | CertifiedAccuracy
"""What accuracy can be measured under."""

NUM_CHECKED = 100
"""Images on which the trust checks run: they cost about eleven attacks."""
_OWN_FIELDS = frozenset({"norm", "eps", "seed"})
"""Settings of an attack that a row has as fields of its own."""


@dataclass(frozen=True)
class RobustnessReport:
    """What an evaluation found.

    Attributes:
        results: By attack name: ``natural``, then the attacks as run. AutoAttack's parts, such as
            ``aa/apgd-ce``, count the images still correct after it and the parts before it; ``aa``
            is their worst case. ``worst_case`` counts the images that no attack fooled, among
            those that all attacks saw. Behind it, of corruptions a row each severity, such as
            ``corrupt-blur/3``, ``corrupt-blur``, which is their mean, and ``corruptions``, the mean
            of these; and ``smooth``. A mean is that of the numbers of correct images, rounded; its
            interval is that of so many images, which is too wide rather than too narrow.
        outcomes: By the same names, those of means over severities or corruptions left out:
            whether each image is still classified correctly, shape ``(num_samples,)``.
        subset: Indices of the images that were measured on, in order; None if it was all.
        aa_subset: Likewise of the images that AutoAttack saw. The rows of AutoAttack and
            ``worst_case`` are of these images.
        smooth_subset: Likewise of the images that smoothing was certified at.
        data_fingerprint: Hash of the images and labels.
        checks: Signs that the numbers cannot be trusted, looked for with the first iterative
            attack; empty if there was none.
        seed: Seed of all random starts and of AutoAttack's subset.
    """

    results: Mapping[str, AttackResult]
    outcomes: Mapping[str, Tensor]
    subset: Tensor | None
    aa_subset: Tensor | None
    smooth_subset: Tensor | None
    data_fingerprint: str
    checks: Sequence[TrustCheck]
    seed: int

    def __str__(self) -> str:
        failed = [
            f"warning: {check.name}: {check.detail}" for check in self.checks if not check.passed
        ]
        return "\n".join([format_results(self.results), *failed])


def measure_robustness(
    model: nn.Module,
    data: LabelledImages,
    attacks: Mapping[str, Measure],
    *,
    batch_size: int = 256,
    seed: int = 0,
    num_images: int | str | None = None,
    aa_samples: int | str | None = None,
    data_name: str = "",
    progress_dir: str | Path | None = None,
    on_result: Callable[[str, AttackResult], None] | None = None,
    ranks: Ranks | None = None,
    certified: dict[Smoothing, Tensor] | None = None,
) -> RobustnessReport:
    """Measures natural accuracy, and accuracy under attacks, corruptions and by certificates.

    All in float32 and eval mode.

    Several ranks share the batches. As a batch's randomness depends on nothing but its number, the
    outcomes of every image are those of a single process.

    Attacks see the model with its norms folded, which is faster (see
    :func:`nasbench_at.attacks.folding.folded_norms`). First the logits of all images are compared
    with the model's own: if they differ by more than rounding, the model is attacked as it is. Else
    a large DS-Net on a CPU is fused, too (see :func:`nasbench_at.attacks.fusion.fused`).

    Args:
        model: Images in [0, 1] to logits.
        data: Images and labels on the model's device.
        attacks: What to run, by the name of its row, such as :func:`standard_attacks` returns; also
            a :class:`CorruptionSuite <nasbench_at.evaluation.corruptions.CorruptionSuite>`, whose
            rows have names of their own, and a :class:`CertifiedAccuracy
            <nasbench_at.evaluation.smoothing.CertifiedAccuracy>`.
        batch_size: Images at a time; AutoAttack has its own.
        seed: Seed of random starts and of subsets.
        num_images: Measure on a random part of the images, see :func:`count_samples`.
        aa_samples: Let AutoAttack see a random part of these.
        data_name: What the rows call the images.
        progress_dir: Keep AutoAttack's verdicts in files there after each batch, and go on from
            them. The files stay; whoever has the report removes them.
        on_result: Called with each row as soon as it is known.
        ranks: This process's place among ranks, each of which calls this function with the
            same arguments. Only rank 0 looks for signs that the numbers cannot be trusted.
        certified: Keeps the radii that smoothing certified, for calls that differ in the radius
            alone.

    Returns:
        The report.

    Raises:
        ValueError: If images or labels are not usable, an attack cannot work with so few classes
            or so small images, or a number of images or the size of a batch is out of range.
    """
    check_count("batch_size", batch_size)
    fingerprint = hash_images(data.images, data.labels)
    subset = _draw_subset(num_images, len(data), seed, name="num_images")
    if subset is not None:
        data = data.part(subset)
    aa_part = _draw_subset(aa_samples, len(data), seed)
    check_model(model, data, attacks.values())
    ranks = ranks or Ranks()
    evaluation = _Evaluation(
        model,
        data,
        data_name,
        fingerprint,
        subset,
        aa_part,
        batch_size,
        seed,
        progress_dir,
        on_result,
        ranks,
    )
    evaluation.add_natural()
    adversarial = select_attacks(attacks)
    if adversarial:
        evaluation.check_folding()
    for name, attack in adversarial.items():
        if isinstance(attack, AutoAttack):
            evaluation.add_autoattack(name, attack)
        else:
            evaluation.add_attack(name, attack)
    evaluation.add_worst_case(adversarial)
    for name, measure in attacks.items():
        if isinstance(measure, CorruptionSuite):
            evaluation.add_corruptions(measure)
        elif isinstance(measure, CertifiedAccuracy):
            evaluation.add_certified(name, measure, {} if certified is None else certified)
    checks = _check_trust(model, data, adversarial) if ranks.is_main else ()
    return RobustnessReport(
        evaluation.results,
        evaluation.outcomes,
        subset,
        None if aa_part is None else evaluation.indices_of(aa_part),
        evaluation.smooth_subset,
        fingerprint,
        checks,
        seed,
    )


def select_attacks(measures: Mapping[str, Measure]) -> dict[str, Attack]:
    """Returns those of them that are attacks: what worst cases and trust checks are about."""
    return {
        name: measure
        for name, measure in measures.items()
        if not isinstance(measure, CorruptionSuite | CertifiedAccuracy)
    }


def count_samples(
    samples: int | str | None, num_images: int, *, name: str = "aa_samples"
) -> int | None:
    """Returns how many images are to be measured on.

    Args:
        samples: A count, a percentage such as ``"12.5%"``, or None for all.
        num_images: How many there are.
        name: What asks for it, for messages.

    Returns:
        The count; None for None.

    Raises:
        ValueError: If it is neither, or not between one image and all.
    """
    if samples is None:
        return None
    text, is_share = str(samples).removesuffix("%"), str(samples).endswith("%")
    try:
        value = float(text) if is_share else int(text)
    except ValueError:
        raise ValueError(
            f"{name} must be a count or a percentage such as 12.5%, got {samples!r}"
        ) from None
    if is_share and not 0 < value <= 100:
        raise ValueError(f"{name} must lie in 0%..100% and not be 0%, got {samples}")
    count = max(1, round(num_images * value / 100)) if is_share else int(value)
    if not 1 <= count <= num_images:
        raise ValueError(f"{name} must lie in 1..{num_images}, got {samples}")
    return count


def check_model(model: nn.Module, data: LabelledImages, attacks: Iterable[Measure] = ()) -> None:
    """Raises a ValueError if the model, the data and the attacks do not go together.

    One image goes through the model. Images of uint8 cannot leave [0, 1].
    """
    if len(data) == 0:
        raise ValueError("there are no images to evaluate")
    x, _ = data.take(torch.arange(1))
    try:
        with attack_mode(model), torch.no_grad():
            logits = model(x)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"the model cannot take images {tuple(x.shape[1:])}: {reason}") from None
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must return logits (N, C), got {got} for one image")
    num_classes = int(logits.shape[1])
    check_inputs(x.expand(len(data), *x.shape[1:]), data.labels, num_classes=num_classes)
    check_attacks(attacks, num_classes, x.shape[1:])


def _draw_subset(
    samples: int | str | None, num_images: int, seed: int, *, name: str = "aa_samples"
) -> Tensor | None:
    """A random part of the images; not the first ones, since some test sets are sorted."""
    count = count_samples(samples, num_images, name=name)
    if count is None or count == num_images:
        return None
    generator = make_generator(seed, "autoattack subset")
    return torch.randperm(num_images, generator=generator)[:count].sort().values


class _Evaluation:
    """Rows as they come in.

    Parts are positions in the images that are measured on, subsets indices of all images.
    """

    def __init__(
        self,
        model: nn.Module,
        data: LabelledImages,
        data_name: str,
        data_fingerprint: str,
        subset: Tensor | None,
        aa_part: Tensor | None,
        batch_size: int,
        seed: int,
        progress_dir: str | Path | None,
        on_result: Callable[[str, AttackResult], None] | None,
        ranks: Ranks,
    ) -> None:
        self.results: dict[str, AttackResult] = {}
        self.outcomes: dict[str, Tensor] = {}
        self.smooth_subset: Tensor | None = None
        self._model, self._data, self._data_name = model, data, data_name
        self._data_fingerprint = data_fingerprint
        self._subset, self._aa_part = subset, aa_part
        self._batch_size, self._seed = batch_size, seed
        self._progress_dir, self._on_result = progress_dir, on_result
        self._ranks = ranks

    def indices_of(self, part: Tensor | None) -> Tensor:
        """Returns which of all images a part, or everything that is measured on, consists of."""
        if part is None:
            part = torch.arange(len(self._data))
        return part if self._subset is None else self._subset[part]

    def _add(
        self,
        name: str,
        correct: Tensor,
        settings: Mapping[str, Any],
        seconds: float,
        *,
        part: Tensor | None = None,
    ) -> None:
        self.outcomes[name] = correct.cpu().clone()  # AutoAttack's row is its last part's
        self._add_row(name, len(correct), int(correct.sum()), settings, seconds, part)

    def _add_row(
        self,
        name: str,
        num_samples: int,
        num_correct: int,
        settings: Mapping[str, Any],
        seconds: float,
        part: Tensor | None = None,
    ) -> None:
        is_everything = part is None and self._subset is None
        self.results[name] = AttackResult(
            attack=name,
            num_samples=num_samples,
            num_correct=num_correct,
            norm=settings.get("norm"),
            eps=settings.get("eps"),
            settings={key: value for key, value in settings.items() if key not in _OWN_FIELDS},
            seed=settings.get("seed", self._seed) if settings else None,
            data=self._data_name,
            data_fingerprint=self._data_fingerprint,
            subset=None if is_everything else hash_subset(self.indices_of(part)),
            seconds=seconds,
        )
        if self._on_result is not None:
            self._on_result(name, self.results[name])

    def add_natural(self) -> None:
        start = time.perf_counter()
        correct = self._judge(lambda _, x, y: x)
        self._add("natural", correct, {}, time.perf_counter() - start)

    def check_folding(self) -> None:
        """Rules out attacks on a function that is not the model's: they would find it robust."""
        rank, num_ranks = self._ranks.shard
        with attack_mode(self._model):
            agrees = all(
                folding_agrees(self._model, x)
                for number, (x, _) in enumerate(self._data.batches(self._batch_size))
                if number % num_ranks == rank
            )
        (differs,) = self._ranks.agree(not agrees)
        if differs:
            never_fold(self._model)

    def add_attack(self, name: str, attack: Attack) -> None:
        def perturb(number: int, x: Tensor, y: Tensor) -> Tensor:
            generator = make_generator(self._seed, "evaluation", name, number, device=x.device)
            return attack(self._model, x, y, generator=generator)

        start = time.perf_counter()
        correct = self._judge(perturb)
        self._add(name, correct, attack.settings(), time.perf_counter() - start)

    def _judge(self, perturb: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Which images are right once perturbed; a batch is the work of one rank."""
        rank, num_ranks = self._ranks.shard
        correct = []
        for number, (x, y) in enumerate(self._data.batches(self._batch_size)):
            if number % num_ranks == rank:
                correct.append(_correct(self._model, perturb(number, x, y), y))
            else:
                correct.append(torch.ones_like(y, dtype=torch.bool))
        return self._ranks.true_on_all(torch.cat(correct))

    def add_autoattack(self, name: str, attack: AutoAttack) -> None:
        result = self._run_autoattack(name, attack)
        parts = list(result.robust_after)
        if len(parts) > 1:
            for i, part in enumerate(parts):
                settings = {**attack.settings(), "attacks": parts[: i + 1]}
                robust = result.robust_after[part]
                self._add(
                    f"{name}/{part}", robust, settings, result.seconds[part], part=self._aa_part
                )
        seconds = sum(result.seconds.values())
        self._add(name, result.robust, attack.settings(), seconds, part=self._aa_part)

    def _run_autoattack(self, name: str, attack: AutoAttack) -> AutoAttackResult:
        everything = torch.arange(len(self._data))
        x, y = self._data.take(everything if self._aa_part is None else self._aa_part)
        run = partial(
            attack.run,
            self._model,
            x,
            y,
            shard=self._ranks.shard,
            true_on_all_ranks=self._ranks.true_on_all,
        )
        if self._progress_dir is None:
            return run()
        progress = ProgressFile.of(
            Path(self._progress_dir),
            name,
            settings=attack.settings(),
            model=self._model,
            images=x,
            labels=y,
            shard=self._ranks.shard,
        )
        return run(resume=progress.load(x), on_batch_done=progress.save)

    def add_worst_case(self, attacks: Mapping[str, Attack]) -> None:
        if not attacks:
            return
        rows = list(self.outcomes.values())
        num_shared = min(map(len, rows))
        if self._aa_part is not None and num_shared < len(self._data):
            rows = [row if len(row) == num_shared else row[self._aa_part] for row in rows]
        correct = torch.stack(rows).all(dim=0)
        part = self._aa_part if len(correct) < len(self._data) else None
        self._add("worst_case", correct, _join_settings(attacks), 0.0, part=part)

    def add_corruptions(self, suite: CorruptionSuite) -> None:
        """Adds a row for each corruption and severity, and means where there are several."""
        severities = suite.severities
        everything = []
        for corruption in suite.names:
            name = f"corrupt-{corruption}"
            rows = [name] if len(severities) == 1 else [f"{name}/{each}" for each in severities]
            for row, severity in zip(rows, severities, strict=True):
                self._add_corrupted(row, corruption, severity)
            if len(severities) > 1:
                self._add_mean(name, rows, self._corruption_settings([corruption], severities))
            everything += rows
        if suite.has_mean:
            settings = self._corruption_settings(suite.names, severities)
            self._add_mean("corruptions", everything, settings)

    def _add_corrupted(self, row: str, corruption: str, severity: int) -> None:
        def perturb(number: int, x: Tensor, y: Tensor) -> Tensor:
            first = number * self._batch_size
            indices = self.indices_of(torch.arange(first, first + len(x))).tolist()
            return corrupt(x, corruption, severity, seed=self._seed, indices=indices)

        start = time.perf_counter()
        correct = self._judge(perturb)
        settings = self._corruption_settings([corruption], [severity])
        self._add(row, correct, settings, time.perf_counter() - start)

    def _add_mean(self, name: str, rows: Sequence[str], settings: Mapping[str, Any]) -> None:
        found = [self.results[row] for row in rows]
        num_correct = round(sum(row.num_correct for row in found) / len(found))
        seconds = sum(row.seconds for row in found)
        self._add_row(name, found[0].num_samples, num_correct, settings, seconds)

    def _corruption_settings(
        self, names: Sequence[str], severities: Sequence[int]
    ) -> dict[str, Any]:
        return {
            "corruptions": list(names),
            "severities": list(severities),
            "seed": self._seed if any(map(is_random, names)) else None,
        }

    def add_certified(
        self, name: str, measure: CertifiedAccuracy, known: dict[Smoothing, Tensor]
    ) -> None:
        start = time.perf_counter()
        part = _draw_subset(measure.samples, len(self._data), self._seed, name="smooth_samples")
        self.smooth_subset = None if part is None else self.indices_of(part)
        if measure.smoothing not in known:
            known[measure.smoothing] = self._certify(measure.smoothing, part)
        correct = self._ranks.true_on_all(known[measure.smoothing] >= measure.eps)
        seconds = time.perf_counter() - start
        self._add(name, correct, measure.settings(), seconds, part=part)

    def _certify(self, smoothing: Smoothing, part: Tensor | None) -> Tensor:
        """Returns the radius in which each image is right, -inf where it is wrong or unsure.

        An image is the work of one rank; to the others its radius is inf.
        """
        rank, num_ranks = self._ranks.shard
        positions = torch.arange(len(self._data)) if part is None else part
        radii = torch.full((len(positions),), torch.inf, device=self._data.labels.device)
        for place, index in enumerate(self.indices_of(part).tolist()):
            if place % num_ranks != rank:
                continue
            x, y = self._data.take(positions[place : place + 1])
            generator = make_generator(self._seed, "smoothing", index, device=x.device)
            found = smoothing.certify(self._model, x[0], generator)
            radii[place] = found.radius if found.label == int(y) else -torch.inf
        return radii


def _join_settings(attacks: Mapping[str, Attack]) -> dict[str, Any]:
    """Settings of all attacks; a norm and a radius that they share once."""
    settings = {name: attack.settings() for name, attack in attacks.items()}
    first = next(iter(settings.values()))
    shared: dict[str, Any] = {
        key: first[key]
        for key in ("norm", "eps")
        if key in first and all(own.get(key) == first[key] for own in settings.values())
    }
    own = {
        name: {key: value for key, value in found.items() if key not in shared}
        for name, found in settings.items()
    }
    return {**shared, "attacks": own}


def _correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with attack_mode(model), torch.no_grad():
        logits: Tensor = model(x)
    return logits.argmax(dim=1) == y


def _check_trust(
    model: nn.Module, data: LabelledImages, attacks: Mapping[str, Attack]
) -> tuple[TrustCheck, ...]:
    iterative = [a for a in attacks.values() if isinstance(a, GradientAttack) and a.steps > 1]
    if not iterative:
        return ()
    x, y = data.take(torch.arange(min(NUM_CHECKED, len(data)), device=data.labels.device))
    found = run_checks(model, x, y, attack=iterative[0])
    return tuple(TrustCheck(**asdict(check), eps=iterative[0].eps) for check in found)
