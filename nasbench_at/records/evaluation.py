"""What an evaluation found: counts under one attack each, and signs that they mislead."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from pydantic.dataclasses import dataclass

from nasbench_at.records.text_tables import format_columns
from nasbench_at.records.validation import (
    CHECKED,
    Count,
    Flag,
    Integer,
    NonNegative,
    Positive,
    Text,
    Word,
)

__all__ = ["AttackResult", "Evaluation", "TrustCheck", "format_results", "wilson_interval"]


def wilson_interval(num_correct: int, num_samples: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a proportion.

    Args:
        num_correct: Successes.
        num_samples: Trials, at least 1.

    Reference:
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    # scipy.stats has it, but takes longer to import than a query of thousands of records.
    z = 1.959963984540054  # 97.5 % quantile of the normal distribution
    share = num_correct / num_samples
    centre = share + z * z / (2 * num_samples)
    spread = z * math.sqrt(share * (1 - share) / num_samples + (z / (2 * num_samples)) ** 2)
    scale = 1 + z * z / num_samples
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True, config=CHECKED)
class AttackResult:
    """Accuracy on some images under one attack, and everything that decides it but the network.

    Attributes:
        attack: Name of the row: ``natural``, ``fgsm``, ``pgd``, ``cw``, ``aa``, a part of it such
            as ``aa/apgd-ce``, ``worst_case``, ...
        num_samples: Images evaluated.
        num_correct: Images still classified correctly.
        norm: Threat model, ``Linf`` or ``L2``; None of natural accuracy.
        eps: Radius; None of natural accuracy.
        settings: The attack's other settings; of ``worst_case``, those of its attacks by name.
        seed: Seed of random starts; None where nothing is random.
        data: Name of the images.
        data_fingerprint: Hash of the images and labels, of all from which a subset was drawn.
        subset: Hash of which of the images; None for all.
        seconds: Time it took.
    """

    attack: Word
    num_samples: Positive
    num_correct: Count
    norm: Word | None = None
    eps: NonNegative | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: Integer | None = None
    data: Text = ""
    data_fingerprint: Text = ""
    subset: Text | None = None
    seconds: NonNegative = 0.0

    def __post_init__(self) -> None:
        if self.num_correct > self.num_samples:
            raise ValueError(
                f"num_correct must be at most num_samples, got {self.num_correct} of "
                f"{self.num_samples}"
            )

    @property
    def accuracy(self) -> float:
        """Share of correct images, in [0, 1]."""
        return self.num_correct / self.num_samples

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the accuracy."""
        return wilson_interval(self.num_correct, self.num_samples)

    @property
    def split(self) -> str:
        """Which images of the data, such as ``test``; their whole name without a fingerprint.

        A fingerprint tells the data, whatever path or name they were loaded by.
        """
        return self.data.rpartition("/")[2] if self.data_fingerprint else self.data

    @property
    def key(self) -> str:
        """What tells this row from others of a record, such as ``pgd-1f0c93ab``.

        The row of per-sample outcomes has this name. A row replaces another of the same key.
        """
        identity = [
            *(self.split, self.data_fingerprint, self.num_samples, self.subset),
            *(self.norm, self.eps, self.settings, self.seed),
        ]
        text = json.dumps(identity, sort_keys=True)
        return f"{self.attack}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, config=CHECKED)
class TrustCheck:
    """A sign that numbers cannot be trusted, looked for.

    Attributes:
        name: What was looked for.
        passed: Whether it was not found.
        detail: A line with the numbers that decided.
        eps: Radius of the attack that was looked at.
    """

    name: Word
    passed: Flag
    detail: Text
    eps: NonNegative | None = None


def format_results(results: Mapping[str, AttackResult]) -> str:
    """Returns rows as a table of counts, accuracies and intervals, without a newline at its end."""
    rows = []
    for name, row in results.items():
        low, high = row.interval
        correct = f"{row.num_correct}/{row.num_samples}"
        rows.append((name, correct, f"{row.accuracy:.1%}", f"{low:.1%} to {high:.1%}"))
    headings = ("attack", "correct", "accuracy", "95 % interval")
    return format_columns(headings, rows, width=80, numeric=(False, True, True, True)).rstrip("\n")


@dataclass(frozen=True, config=CHECKED)
class Evaluation:
    """One call of an evaluation: its rows, at one radius or several.

    Attributes:
        results: The rows, as they were run.
        norm: Threat model.
        recipe: Whose steps the attacks have by default.
        seed: Seed of random starts and of AutoAttack's subset.
        data: Name of the images.
        data_fingerprint: Hash of the images and labels.
        provenance: Versions, commit, device.
        checks: Signs that the rows cannot be trusted; empty if none was looked for.
    """

    results: tuple[AttackResult, ...]
    norm: Word = "Linf"
    recipe: Text | None = None
    seed: Integer = 0
    data: Text = ""
    data_fingerprint: Text = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    checks: tuple[TrustCheck, ...] = ()

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError("results must be at least one")
