"""AutoAttack, run attack by attack through `pyautoattack`.

The attacks themselves are pyautoattack's. What is ours is the loop around them, because theirs
keeps no per-attack verdicts, cannot resume, draws its seed from the clock, leaves gradients in the
parameters, clears the interpreter's trace function and fails with fewer than 10 classes. The
verdicts are those of its `run_standard_evaluation` with the same seed and batch size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Generator, Tensor, nn

from .guard import attack_mode
from .inputs import check_inputs
from .norms import NORMS
from .protocol import JsonValue

Version: TypeAlias = Literal["standard", "rand"]
RunAttack: TypeAlias = Callable[[Tensor, Tensor], Tensor]

ATTACKS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
STANDARD_QUERIES = 5000


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack found, after all of its attacks or after the first few.

    Attributes:
        x_adv: images, like the clean ones; a sample that no attack fooled is the clean image.
        correct: whether the clean image is classified correctly.
        robust_after: attack -> whether the sample is still correct after it and all before it.
        seconds: attack -> time it took.
        settings: the attack's settings.

    Shapes:
        x_adv: (N, C, H, W). correct and each value of robust_after: (N,), bool.
    """

    x_adv: Tensor
    correct: Tensor
    robust_after: dict[str, Tensor]
    seconds: dict[str, float]
    settings: dict[str, JsonValue]

    @property
    def robust(self) -> Tensor:
        """Which samples are correct after all attacks so far, (N,)."""
        return next(reversed(self.robust_after.values()), self.correct)


@dataclass(frozen=True)
class AutoAttack:
    """The ensemble APGD-CE, APGD-T, FAB-T, Square; each attacks what the ones before it left.

    It runs in float32 and in eval mode. With C < 10 classes the targeted attacks try all C - 1
    wrong classes instead of 9.

    Attributes:
        eps: radius of the ball; in pixel scale [0, 1] for L-infinity.
        norm: `Linf` or `L2`.
        seed: seed of each attack on each batch.
        batch_size: how many images are attacked at a time.
        version: `standard`, or `rand` for models with random output.
        square_queries: queries of Square; anything but 5000 is no longer the published attack,
            and the settings then call the version `custom`.

    Raises:
        ValueError: if a value is out of range.

    Reference:
        Croce and Hein 2020.
    """

    eps: float
    _: KW_ONLY
    norm: Literal["Linf", "L2"] = "Linf"
    seed: int = 0
    batch_size: int = 256
    version: Version = "standard"
    square_queries: int = STANDARD_QUERIES
    name: ClassVar[str] = "aa"

    def __post_init__(self) -> None:
        """Refuse bad values before hours of work."""
        for field, value, allowed in (
            ("norm", self.norm, NORMS),
            ("version", self.version, ATTACKS),
        ):
            if value not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, got {value!r}")
        NORMS[self.norm].check_eps(self.eps)
        for field, count in (
            ("batch_size", self.batch_size),
            ("square_queries", self.square_queries),
        ):
            if count < 1:
                raise ValueError(f"{field} must be at least 1, got {count!r}")

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks, in the order in which they run."""
        return ATTACKS[self.version]

    def settings(self) -> dict[str, JsonValue]:
        """Return all that decides the result besides model and data."""
        is_published = self.square_queries == STANDARD_QUERIES
        return {
            "name": self.name,
            "norm": self.norm,
            "eps": self.eps,
            "version": self.version if is_published else "custom",
            "attacks": list(self.attacks),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "square_queries": self.square_queries,
        }

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Generator | None = None
    ) -> Tensor:
        """Return adversarial images, as `run` does.

        Args:
            model: maps images to logits.
            x: images in [0, 1].
            y: true classes.
            generator: not used; `seed` decides, as in the published attack.

        Returns:
            Images like `x`; a sample that no attack fooled is the clean image.
        """
        return self.run(model, x, y).x_adv

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        resume: AutoAttackResult | None = None,
        on_attack_done: Callable[[AutoAttackResult], None] | None = None,
    ) -> AutoAttackResult:
        """Run the attacks one by one, each on the samples that are still classified correctly.

        Args:
            model: maps images to logits.
            x: images in [0, 1].
            y: true classes.
            resume: the result of an interrupted run on the same data; its attacks are not
                repeated.
            on_attack_done: is given the result so far after each attack, for a checkpoint or a
                progress bar.

        Shapes:
            x: (N, C, H, W), float32. y: (N,), int64.

        Returns:
            Images, verdicts and seconds of each attack.

        Raises:
            ValueError: if `x` or `y` are refused, the model has fewer than 4 classes, an L2
                attack is given images smaller than 5x5, or `resume` has other settings.
        """
        if resume is not None and resume.settings != self.settings():
            raise ValueError(f"cannot resume: {resume.settings} was run, not {self.settings()}")
        with (
            attack_mode(model),
            torch.no_grad(),
            torch.autocast(x.device.type, enabled=False),
        ):
            num_classes = self._check(model, x, y)
            result = resume or self._begin(model, x, y)
            runners = self._runners(model, x.device, num_classes)
            for name in self.attacks:
                if name not in result.robust_after:
                    result = self._attack(model, x, y, result, name, runners[name])
                    if on_attack_done is not None:
                        on_attack_done(result)
        return result

    def _check(self, model: nn.Module, x: Tensor, y: Tensor) -> int:
        """Return the number of classes if these data and this model can be attacked."""
        check_inputs(x, y, check_values=False)
        if x.dtype != torch.float32 or x.ndim != 4:
            raise ValueError(
                "AutoAttack needs float32 images (N, C, H, W), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self.norm == "L2" and min(x.shape[2:]) < 5:
            size = "x".join(map(str, x.shape[2:]))
            raise ValueError(f"Square under L2 needs images of at least 5x5, got {size}")
        num_classes = int(model(x[:1]).shape[1])
        if num_classes < 4:
            raise ValueError(
                f"AutoAttack needs at least 4 classes for its DLR loss, got {num_classes}"
            )
        check_inputs(x, y, num_classes=num_classes)
        return num_classes

    def _begin(self, model: nn.Module, x: Tensor, y: Tensor) -> AutoAttackResult:
        batches = zip(torch.split(x, self.batch_size), torch.split(y, self.batch_size), strict=True)
        correct = torch.cat([_is_correct(model, images, labels) for images, labels in batches])
        return AutoAttackResult(x.detach().clone(), correct, {}, {}, self.settings())

    def _attack(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        result: AutoAttackResult,
        name: str,
        run_attack: RunAttack,
    ) -> AutoAttackResult:
        """Return `result` after one more attack."""
        start = time.perf_counter()
        x_adv, robust = result.x_adv.clone(), result.robust.clone()
        for rows in torch.split(robust.nonzero().squeeze(1), self.batch_size):
            if len(rows) == 0:  # nobody is left: an empty split is one empty batch
                break
            labels = y[rows]
            # pyautoattack flattens by `view`, which a channels_last image does not allow.
            candidate = run_attack(x[rows].contiguous(), labels)
            fooled = ~_is_correct(model, candidate, labels)
            x_adv[rows[fooled]] = candidate[fooled]
            robust[rows[fooled]] = False
        return replace(
            result,
            x_adv=x_adv,
            robust_after={**result.robust_after, name: robust},
            seconds={**result.seconds, name: time.perf_counter() - start},
        )

    def _runners(
        self, model: nn.Module, device: torch.device, num_classes: int
    ) -> dict[str, RunAttack]:
        """Return pyautoattack's attacks by name, set up for this version."""
        import pyautoattack  # imported here because only evaluations need it

        library = pyautoattack.AutoAttack(
            model,
            device=device,
            eps=self.eps,
            norm=self.norm,
            seed=self.seed,
            version=self.version,
        )
        num_targets = min(library.apgd_targeted.n_target_classes, num_classes - 1)
        library.apgd_targeted.n_target_classes = num_targets
        library.fab.n_target_classes = num_targets
        library.fab.targeted = True
        library.square.n_queries = self.square_queries
        return {
            "apgd-ce": _with_loss(library.apgd, "ce"),
            "apgd-dlr": _with_loss(library.apgd, "dlr"),
            "apgd-t": library.apgd_targeted.perturb,
            "fab-t": library.fab.perturb,
            "square": library.square.perturb,
        }


def _is_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits: Tensor = model(x)
    return logits.argmax(dim=1) == y


def _with_loss(apgd: Any, loss: str) -> RunAttack:
    """Return APGD on one of the two losses that the library's single object can maximise."""

    def run_attack(x: Tensor, y: Tensor) -> Tensor:
        apgd.loss = loss
        x_adv: Tensor = apgd.perturb(x, y)
        return x_adv

    return run_attack
