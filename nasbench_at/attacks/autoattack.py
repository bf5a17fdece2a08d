"""AutoAttack: the ensemble, and the loop over its attacks and batches.

The attacks are pyautoattack's, step by step and with its random draws, but computed with folded
norms, with several targets or queries in a batch, and without what is fooled (`auto_pgd`, `fab`,
`square`). For a model that computes each image by itself and has no norm to fold, the verdicts are
those of its `run_standard_evaluation` with the same seed and batch size, bit for bit. Otherwise
logits differ by rounding, which decides about an image only where the last bits of a loss do;
verdicts have been equal wherever they were compared. An image counts as fooled only if the model
as it is says so.

The loop differs from theirs in what it keeps: per-attack verdicts, batches done, to resume from,
no gradients, the interpreter's trace function; and it works with fewer than 10 classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor, nn

from nasbench_at.runtime.devices import without_autotuning

from .auto_pgd import AutoPGD, cross_entropy, dlr
from .fab import FAB
from .folding import folded_norms
from .fusion import fused
from .guard import attack_mode
from .inputs import check_choice, check_count, check_inputs, check_number
from .norms import NORMS
from .protocol import JsonValue, Network
from .square import Square

Version: TypeAlias = Literal["standard", "rand"]

ATTACKS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
# The DLR loss divides by differences of sorted logits, the third and the fourth largest among them.
NUM_CLASSES_NEEDED = {"apgd-ce": 2, "apgd-dlr": 3, "apgd-t": 4, "fab-t": 2, "square": 2}
FEW_CLASSES = ("apgd-ce", "square")
"""What is run in the ensemble's place with two or three classes; it is not called AutoAttack.

Of those of its attacks that are defined then, one with gradients and one without.
"""
PARTS = tuple(NUM_CLASSES_NEEDED)
STANDARD_QUERIES = 5000
MAX_TARGETS = 9
"""Wrong classes that APGD-T and FAB-T try."""
NUM_RANDOM_GRADIENTS = 20
"""Gradients averaged in a step of APGD where the model's output is random."""


@dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack found, after all of its attacks or after the first few batches of some.

    Attributes:
        x_adv: Images, like the clean ones; a sample that no attack fooled is the clean image.
        correct: Whether the clean image is classified correctly.
        robust_after: Attack -> whether the sample is still correct after it and all before it.
        num_batches: Attack -> how many batches of samples it has attacked.
        seconds: Attack -> time it took.
        settings: The attack's settings.

    Shapes:
        x_adv: (N, C, H, W). correct and each value of robust_after: (N,), bool.
    """

    x_adv: Tensor
    correct: Tensor
    robust_after: dict[str, Tensor]
    num_batches: dict[str, int]
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
        eps: Radius of the ball; in pixel scale [0, 1] for L-infinity.
        norm: `Linf` or `L2`.
        seed: Seed of each attack on each batch.
        batch_size: How many images are attacked at a time.
        version: `standard`, or `rand` for models with random output.
        square_queries: Queries of Square, 5000 in the published attack.
        attacks: Run these of `apgd-ce`, `apgd-dlr`, `apgd-t`, `fab-t` and `square`, in this order;
            all of the version by default.

    With other queries or attacks it is no longer the published ensemble, and the settings call the
    version `custom`.

    Raises:
        ValueError: If a value is out of range.

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
    attacks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuses bad values before hours of work."""
        check_choice("norm", self.norm, tuple(NORMS))
        check_choice("version", self.version, tuple(ATTACKS))
        check_number("eps", self.eps)
        NORMS[self.norm].check_eps(self.eps)
        check_count("batch_size", self.batch_size)
        check_count("square_queries", self.square_queries)
        for attack in self.attacks:
            if attack not in PARTS:
                raise ValueError(f"attacks must be some of {', '.join(PARTS)}, got {attack!r}")
        if len(set(self.attacks)) < len(self.attacks):
            raise ValueError(f"attacks must be different, got {', '.join(self.attacks)}")
        object.__setattr__(self, "attacks", tuple(self.attacks) or ATTACKS[self.version])

    @property
    def name(self) -> str:
        """Returns ``aa``, or, of other attacks than the ensemble's, these."""
        return "aa" if self.attacks == ATTACKS[self.version] else "+".join(self.attacks)

    def settings(self) -> dict[str, JsonValue]:
        """Returns all that decides the result besides model and data."""
        is_published = (
            self.square_queries == STANDARD_QUERIES and self.attacks == ATTACKS[self.version]
        )
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
        """Returns adversarial images, as `run` does.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1].
            y: True classes.
            generator: Not used; `seed` decides, as in the published attack.

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
        on_batch_done: Callable[[AutoAttackResult], None] | None = None,
        shard: tuple[int, int] = (0, 1),
        true_on_all_ranks: Callable[[Tensor], Tensor] | None = None,
    ) -> AutoAttackResult:
        """Runs the attacks one by one, each on the samples that are still classified correctly.

        A result so far can be resumed from any batch of any attack, with the same outcome as
        without the interruption: each attack is seeded anew on each batch. For the same reason
        several processes may share the batches: the verdicts are those of one.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1].
            y: True classes.
            resume: The result of an interrupted run on the same data; its batches are not
                repeated.
            on_batch_done: Is given the result so far after each batch of each attack, for a
                checkpoint or a progress bar.
            shard: This process's rank and the number of processes; each attacks every
                `shard[1]`-th batch.
            true_on_all_ranks: Exchanges verdicts (N,) between the processes after each attack;
                needed where there are several.

        Shapes:
            x: (N, C, H, W), float32. y: (N,), int64.

        Returns:
            Images, verdicts and seconds of each attack; images and seconds are those of this
            process.

        Raises:
            ValueError: If `x` or `y` are refused, `check_data` refuses them, or `resume` has other
                settings.
        """
        if resume is not None and resume.settings != self.settings():
            raise ValueError(f"cannot resume: {resume.settings} was run, not {self.settings()}")
        with (
            attack_mode(model),
            torch.no_grad(),
            torch.autocast(x.device.type, enabled=False),
            without_autotuning(),
        ):
            num_classes = self._check(model, x, y)
            result = resume or self._begin(model, x, y)
            for name in self.attacks:
                result, batches = self._begin_attack(result, name, shard)
                for rows in batches:
                    result = self._attack(model, x, y, result, name, rows, num_classes)
                    if on_batch_done is not None:
                        on_batch_done(result)
                if true_on_all_ranks is not None:
                    robust = true_on_all_ranks(result.robust_after[name])
                    result = replace(result, robust_after={**result.robust_after, name: robust})
        return result

    def check_data(self, num_classes: int, image_shape: Sequence[int]) -> None:
        """Raises if one of the attacks cannot work with so few classes or so small images.

        Args:
            num_classes: Number of classes, the model's logits.
            image_shape: Channels, height and width.

        Raises:
            ValueError: If DLR has fewer than 3 classes, its targeted form fewer than 4, any other
                attack fewer than 2, or Square under L2 images smaller than 5x5.
        """
        for attack in self.attacks:
            if num_classes < (needed := NUM_CLASSES_NEEDED[attack]):
                able = [part for part in PARTS if num_classes >= NUM_CLASSES_NEEDED[part]]
                instead = ", ".join(["+".join(FEW_CLASSES), *able])
                hint = f"; {instead} can be run with {num_classes}" if able else ""
                raise ValueError(
                    f"AutoAttack's {attack} needs at least {needed} classes, got {num_classes}"
                    f"{hint}"
                )
        if self.norm == "L2" and "square" in self.attacks and min(image_shape[1:]) < 5:
            size = "x".join(map(str, image_shape[1:]))
            raise ValueError(
                f"AutoAttack's square under L2 needs images of at least 5x5, got {size}"
            )

    def _check(self, model: nn.Module, x: Tensor, y: Tensor) -> int:
        """Returns the number of classes if these data and this model can be attacked."""
        check_inputs(x, y, check_values=False)
        if x.dtype != torch.float32 or x.ndim != 4:
            raise ValueError(
                "AutoAttack needs float32 images (N, C, H, W), "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
        num_classes = int(model(x[:1]).shape[1])
        self.check_data(num_classes, x.shape[1:])
        check_inputs(x, y, num_classes=num_classes)
        return num_classes

    def _begin(self, model: nn.Module, x: Tensor, y: Tensor) -> AutoAttackResult:
        batches = zip(torch.split(x, self.batch_size), torch.split(y, self.batch_size), strict=True)
        correct = torch.cat([_is_correct(model, images, labels) for images, labels in batches])
        return AutoAttackResult(x.detach().clone(), correct, {}, {}, {}, self.settings())

    def _begin_attack(
        self, result: AutoAttackResult, name: str, shard: tuple[int, int]
    ) -> tuple[AutoAttackResult, tuple[Tensor, ...]]:
        """Returns `result` with an entry for the attack, and the attack's batches still to do."""
        position = self.attacks.index(name)
        before = result.robust_after[self.attacks[position - 1]] if position else result.correct
        if name not in result.robust_after:
            result = replace(
                result,
                robust_after={**result.robust_after, name: before},
                num_batches={**result.num_batches, name: 0},
                seconds={**result.seconds, name: 0.0},
            )
        # Nobody left: a split would give one empty batch.
        rows = before.nonzero().squeeze(1)
        batches = torch.split(rows, self.batch_size) if len(rows) else ()
        rank, num_ranks = shard
        return result, batches[rank::num_ranks][result.num_batches[name] :]

    def _attack(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        result: AutoAttackResult,
        name: str,
        rows: Tensor,
        num_classes: int,
    ) -> AutoAttackResult:
        """Returns `result` after one more batch."""
        start = time.perf_counter()
        x_adv, robust = result.x_adv.clone(), result.robust_after[name].clone()
        images, labels = x[rows], y[rows]
        run = partial(self._run_part, name, images, labels, num_classes)
        if self.version == "rand":
            candidate = run(model)
            fooled = ~_is_correct(model, candidate, labels)
        else:
            with folded_norms(model, images):
                candidate = run(fused(model, images))
            fooled = ~_is_correct(model, candidate, labels)
            seemed_fooled = (candidate != images).flatten(1).any(dim=1)
            if (seemed_fooled & ~fooled).any():
                # So close to the boundary that rounding decides: the attack left it too early.
                candidate = torch.where(fooled.view(-1, 1, 1, 1), candidate, run(model))
                fooled = ~_is_correct(model, candidate, labels)
        x_adv[rows[fooled]] = candidate[fooled]
        robust[rows[fooled]] = False
        seconds = result.seconds[name] + time.perf_counter() - start
        return replace(
            result,
            x_adv=x_adv,
            robust_after={**result.robust_after, name: robust},
            num_batches={**result.num_batches, name: result.num_batches[name] + 1},
            seconds={**result.seconds, name: seconds},
        )

    def _run_part(
        self, name: str, x: Tensor, y: Tensor, num_classes: int, model: Network
    ) -> Tensor:
        """Returns what one of the attacks makes of a batch."""
        # The library draws from the global generator, from which a random model draws, too.
        torch.manual_seed(self.seed)
        generator = torch.default_generator
        apgd = AutoPGD(
            self.eps, self.norm, num_gradients=NUM_RANDOM_GRADIENTS if self.version == "rand" else 1
        )
        num_targets = min(MAX_TARGETS, num_classes - 1)
        match name:
            case "apgd-ce":
                return apgd.attack(model, x, y, cross_entropy, generator)
            case "apgd-dlr":
                return apgd.attack(model, x, y, dlr, generator)
            case "apgd-t":
                apgd = AutoPGD(self.eps, self.norm)
                return apgd.attack_targets(
                    model, x, y, num_targets, generator, max_rows=self.batch_size
                )
            case "fab-t":
                fab = FAB(self.eps, self.norm)
                return fab.attack_targets(model, x, y, num_targets, max_rows=self.batch_size)
            case _:
                square = Square(self.eps, self.norm, self.square_queries)
                return square.attack(model, x, y, generator, max_rows=self.batch_size)


def _is_correct(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits: Tensor = model(x)
    return logits.argmax(dim=1) == y
