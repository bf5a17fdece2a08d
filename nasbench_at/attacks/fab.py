"""FAB-T, the minimum-norm attack of AutoAttack, as far as a budget asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .objectives import logits_of, runners_up
from .protocol import Network

_TINY = 1e-12
_LEAST_LENGTH = 1e-8


@dataclass(frozen=True)
class FAB:
    """Steps onto the linearised boundary between the true class and a target, and back.

    The attack looks for the nearest misclassified image; here an image leaves as soon as one within
    `eps` is found, and all targets may run at the same time, since nothing is drawn at random.

    Attributes:
        eps: Radius of the ball in which an image counts.
        norm: `Linf` or `L2`.
        steps: Number of steps.
        max_bias: Largest weight of the step that starts from the clean image.
        overshoot: How much longer a step is than to the boundary.
        backward: The part of the distance to the clean image that a misclassified one keeps.

    Reference:
        Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary
        attack"; the code is pyautoattack's, row by row.
    """

    eps: float
    norm: str
    steps: int = 100
    max_bias: float = 0.1
    overshoot: float = 1.05
    backward: float = 0.9

    def attack_targets(
        self, model: Network, x: Tensor, y: Tensor, num_targets: int, *, max_rows: int
    ) -> Tensor:
        """Returns images that are no longer classified as `y`, or else clean ones.

        Args:
            model: Maps images to logits.
            x: Images in [0, 1], all classified correctly.
            y: True classes.
            num_targets: How many wrong classes are tried, the most likely one first.
            max_rows: How many images may go through the model at a time, if `x` has fewer.

        Shapes:
            x and the result: (N, C, H, W). y: (N,).
        """
        adversarial = x.clone()
        with torch.no_grad():
            targets = runners_up(model(x), num_targets)
        left = torch.arange(len(x), device=x.device)
        done = 0
        while done < num_targets and len(left):
            count = min(num_targets - done, max(1, max_rows // len(left)))
            rows = left.repeat(count)
            target = targets[left, done : done + count].t().flatten()
            fooled = self._descend(model, x, y, rows, target, adversarial)
            left = left[~fooled[left]]
            done += count
        return adversarial

    def _descend(
        self,
        model: Network,
        x: Tensor,
        y: Tensor,
        rows: Tensor,
        target: Tensor,
        adversarial: Tensor,
    ) -> Tensor:
        """Attacks images `rows`, one of which may stand there for several targets.

        Returns:
            Which images of `x` were fooled, (N,); what fooled them is written to `adversarial`.
        """
        fooled = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        clean, label = x[rows], y[rows]
        x_adv = clean
        for _ in range(self.steps):
            x_adv = self._step(model, x_adv, clean, label, target)
            with torch.no_grad():
                is_wrong = model(x_adv).argmax(dim=1) != label
            delta = x_adv - clean
            found = is_wrong & (self._sizes(delta.flatten(1)) <= self.eps)
            if found.any():
                adversarial[rows[found]] = x_adv[found]
                fooled[rows[found]] = True
                stays = ~fooled[rows]
                if not stays.any():
                    break
                rows, target, is_wrong = rows[stays], target[stays], is_wrong[stays]
                clean, label, x_adv, delta = clean[stays], label[stays], x_adv[stays], delta[stays]
            back = is_wrong.view(-1, *[1] * (x.ndim - 1))
            x_adv = torch.where(back, clean + delta * self.backward, x_adv)
        return fooled

    def _step(
        self, model: Network, x_adv: Tensor, clean: Tensor, label: Tensor, target: Tensor
    ) -> Tensor:
        """Projects onto the linearised boundary, from where the samples are and from the clean."""
        leaf = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(leaf)
            margin = logits_of(logits, target) - logits_of(logits, label)
            total = margin.sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        bound = (gradient * x_adv).flatten(1).sum(dim=1) - margin.detach()
        normal = gradient.flatten(1)
        both = torch.cat((x_adv.flatten(1), clean.flatten(1)))
        steps = self._project(both, normal.repeat(2, 1), bound.repeat(2))
        sizes = self._sizes(steps).clamp(min=_LEAST_LENGTH).view(-1, *[1] * (x_adv.ndim - 1))
        here, from_clean = (part.view(x_adv.shape) for part in steps.chunk(2))
        size, size_from_clean = sizes.chunk(2)
        bias = (size / (size + size_from_clean)).clamp(0, self.max_bias)
        stepped = (x_adv + self.overshoot * here) * (1 - bias)
        return (stepped + (clean + from_clean * self.overshoot) * bias).clamp(0, 1)

    def _project(self, points: Tensor, normal: Tensor, bound: Tensor) -> Tensor:
        """Returns the steps to hyperplanes, within valid pixels."""
        # Imported here because only evaluations need it.
        from pyautoattack.fab_projections import projection_l2, projection_linf

        project = projection_linf if self.norm == "Linf" else projection_l2
        steps: Tensor = project(points, normal, bound)
        return steps

    def _sizes(self, delta: Tensor) -> Tensor:
        """Returns the norm of each row of (N, d)."""
        if self.norm == "Linf":
            return delta.abs().amax(dim=1)
        return (delta**2).sum(dim=1).sqrt()
