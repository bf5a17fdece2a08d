"""Losses of adversarial training: logits in, a scalar out. No model, no attack, no state."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nasbench_at.attacks.objectives import margin_loss

__all__ = ["margin_loss", "mart_loss", "trades_loss"]


def trades_loss(
    natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor, *, beta: float
) -> Tensor:
    """CE(natural, target) + β · KL(natural ‖ adversarial), each a mean over the batch.

    Gradients flow through both sets of logits.

    Args:
        natural_logits: Shape ``(N, num_classes)``.
        adversarial_logits: Shape ``(N, num_classes)``.
        target: True classes, shape ``(N,)``.
        beta: Weight of the robust term, at least 0.

    Returns:
        A scalar.

    Reference:
        Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML
        2019; Eq. (3) of the DS-Net paper.
    """
    robust = F.kl_div(
        adversarial_logits.log_softmax(dim=1),
        natural_logits.log_softmax(dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return F.cross_entropy(natural_logits, target) + beta * robust


def mart_loss(
    natural_logits: Tensor, adversarial_logits: Tensor, target: Tensor, *, beta: float
) -> Tensor:
    """BCE(adversarial, target) + β · mean(KL(natural ‖ adversarial) · (1 − p_target)).

    BCE adds to the cross entropy −log(1 − the largest wrong probability); p is the softmax of the
    natural logits. The small constants are those of the official code, which the DS-Net authors
    use; gradients flow through every factor.

    Args:
        natural_logits: Shape ``(N, num_classes)``.
        adversarial_logits: Shape ``(N, num_classes)``.
        target: True classes, shape ``(N,)``.
        beta: Weight of the robust term, at least 0.

    Returns:
        A scalar.

    Reference:
        Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
        ICLR 2020, Eq. (12).
    """
    adversarial = adversarial_logits.softmax(dim=1)
    natural = natural_logits.log_softmax(dim=1)
    is_target = F.one_hot(target, adversarial.shape[1]).bool()
    largest_wrong = adversarial.masked_fill(is_target, -1.0).amax(dim=1)
    boosted = F.cross_entropy(adversarial_logits, target) - (
        (1.0001 - largest_wrong + 1e-12).log().mean()
    )
    # From log-probabilities: where a probability is 0, p log p has a gradient all the same.
    divergence = F.kl_div(
        (adversarial + 1e-12).log(), natural, reduction="none", log_target=True
    ).sum(dim=1)
    true_probability = natural.gather(1, target.unsqueeze(1)).squeeze(1).exp()
    return boosted + beta * (divergence * (1.0000001 - true_probability)).mean()
