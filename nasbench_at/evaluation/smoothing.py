"""Randomised smoothing: how many images are provably right within an L2 radius.

What is certified is another classifier than the network: the class that the network gives most
often to an image under Gaussian noise. Each certificate holds with probability 1 - alpha over the
noise that was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from nasbench_at.attacks import attack_mode
from nasbench_at.attacks.protocol import JsonValue

__all__ = ["Certificate", "CertifiedAccuracy", "Smoothing", "lower_confidence_bound"]


class Certificate(NamedTuple):
    """What is known of the smoothed classifier at an image.

    Attributes:
        label: Its class; None where it abstains.
        radius: L2 radius around the image in which it gives this class, 0 where it abstains.
    """

    label: int | None
    radius: float


def lower_confidence_bound(num_successes: int, num_trials: int, alpha: float) -> float:
    """Returns the one-sided lower bound of a binomial proportion with confidence 1 - alpha.

    Reference:
        Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of
        the binomial", Biometrika 1934.
    """
    from scipy.stats import beta  # takes a second to import

    if num_successes == 0:
        return 0.0
    return float(beta.ppf(alpha, num_successes, num_trials - num_successes + 1))


@dataclass(frozen=True)
class Smoothing:
    """How a network is smoothed and certified.

    Attributes:
        sigma: Standard deviation of the noise, in pixel scale [0, 1].
        n0: Noisy images that choose the class.
        n: Noisy images that estimate its probability.
        alpha: Probability that a certificate is wrong.

    Reference:
        Cohen, Rosenfeld and Kolter, "Certified adversarial robustness via randomized smoothing",
        ICML 2019, Theorem 1 and the procedure CERTIFY.
    """

    sigma: float = 0.25
    n0: int = 100
    n: int = 100_000
    alpha: float = 0.001

    @property
    def max_radius(self) -> float:
        """The radius that is certified where all noisy images are of one class."""
        return self._radius(self.n)

    def certify(
        self, model: nn.Module, image: Tensor, generator: Generator, *, batch_size: int = 1000
    ) -> Certificate:
        """Returns the class of the smoothed classifier at an image and the radius it holds in.

        Noisy images are not clipped to [0, 1]: the theorem is about Gaussian noise.

        Args:
            model: Maps images to logits; in eval mode meanwhile.
            image: In [0, 1].
            generator: Source of the noise, on the image's device.
            batch_size: Noisy images at a time.

        Shapes:
            image: (C, H, W).
        """
        with attack_mode(model), torch.no_grad():
            chosen = int(self._count(model, image, self.n0, generator, batch_size).argmax())
            votes = self._count(model, image, self.n, generator, batch_size)
        radius = self._radius(int(votes[chosen]))
        return Certificate(chosen, radius) if radius > 0 else Certificate(None, 0.0)

    def _radius(self, num_votes: int) -> float:
        from scipy.stats import norm

        bound = lower_confidence_bound(num_votes, self.n, self.alpha)
        return float(self.sigma * norm.ppf(bound)) if bound > 0.5 else 0.0

    def _count(
        self, model: nn.Module, image: Tensor, num: int, generator: Generator, batch_size: int
    ) -> Tensor:
        """Returns how many of some noisy images are of each class, (C,)."""
        votes: Tensor | None = None
        for start in range(0, num, batch_size):
            shape = (min(batch_size, num - start), *image.shape)
            noise = torch.randn(shape, generator=generator, device=image.device, dtype=image.dtype)
            logits = model(image + self.sigma * noise)
            found = logits.argmax(dim=1).bincount(minlength=logits.shape[1])
            votes = found if votes is None else votes + found
        assert votes is not None  # there is at least one image
        return votes


@dataclass(frozen=True)
class CertifiedAccuracy:
    """The share of images of which the smoothed classifier is provably right within a radius.

    An image at which it abstains counts as wrong.

    Attributes:
        eps: The L2 radius.
        smoothing: How the network is smoothed.
        samples: A count or percentage of the images to look at, drawn by the seed; None for all.

    Raises:
        ValueError: If no image can be certified at this radius.
    """

    eps: float
    smoothing: Smoothing
    samples: int | str | None = None

    def __post_init__(self) -> None:
        """Refuses what would be 0 % without looking."""
        if self.eps > (most := self.smoothing.max_radius):
            raise ValueError(
                f"smooth certifies at most radius {most:.4g} with smooth_sigma "
                f"{self.smoothing.sigma:g}, smooth_n {self.smoothing.n} and smooth_alpha "
                f"{self.smoothing.alpha:g}, got eps {self.eps:g}"
            )

    def settings(self) -> dict[str, JsonValue]:
        """Returns all that decides the result besides model, data and seed."""
        return {
            "norm": "L2",
            "eps": self.eps,
            "sigma": self.smoothing.sigma,
            "n0": self.smoothing.n0,
            "n": self.smoothing.n,
            "alpha": self.smoothing.alpha,
        }
