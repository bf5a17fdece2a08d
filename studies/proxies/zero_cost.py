"""Scores of untrained networks that are said to foretell how well they will do.

Each takes a network as it is initialised, some training images in [0, 1] with their classes, and a
radius; it returns a number that is higher for networks which are expected to be more robust, and
leaves the network as it was. Norms take a batch's own statistics, and nothing is dropped.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# SyncBatchNorm and all BatchNorm*d; the base class has no public name.
from torch.nn.modules.batchnorm import _BatchNorm

from analysis.lipschitz import compute_lipschitz
from nasbench_at.attacks import FGSM
from nasbench_at.networks.ds_net import DSNet, count_parameters
from nasbench_at.networks.flops import count_flops

__all__ = [
    "ZERO_COST",
    "Score",
    "adversarial_ntk",
    "croze",
    "flops",
    "gradient_norm",
    "initial_lipschitz",
    "jacobian_covariance",
    "parameters",
    "synflow",
]

Score: TypeAlias = Callable[[nn.Module, Tensor, Tensor, float], float]

NTK_IMAGES = 16
LIPSCHITZ_IMAGES = 2
JACOBIAN_FLOOR = 1e-5
CROZE_STEP = 0.1
"""Length of the step that makes CRoZe's robust twin, relative to the weights of a layer."""


def parameters(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Returns the number of parameters, without attention logits."""
    return float(count_parameters(network))


def flops(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Returns the floating-point operations of one image's forward pass."""
    with _prepared(network) as twin:
        return float(count_flops(twin.eval(), x.shape[1:]))


def synflow(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Returns log10 of the synaptic flow: the sum of weights times their gradients.

    With all weights replaced by their absolute values and an image of ones, gradients being those
    of the sum of the logits.

    Reference:
        Tanaka et al., "Pruning neural networks without any data by iteratively conserving synaptic
        flow", NeurIPS 2020; as a score of architectures: Abdelfattah et al., ICLR 2021.
    """
    with _prepared(network) as twin:
        twin.double().eval()  # the norms of a network that has seen nothing change nothing
        weights = _weights(twin)
        with torch.no_grad():
            for weight in weights:
                weight.abs_()
        total = twin(torch.ones_like(x[:1], dtype=torch.float64)).sum()
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        flow = sum(
            float((weight.detach() * gradient).abs().sum())
            for weight, gradient in zip(weights, gradients, strict=True)
            if gradient is not None
        )
        return math.log10(flow) if flow > 0 else -math.inf


def gradient_norm(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Returns the Euclidean norm of the cross entropy's gradient.

    Reference:
        Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021.
    """
    with _prepared(network) as twin:
        gradients = torch.autograd.grad(
            F.cross_entropy(twin(x), y), _weights(twin), allow_unused=True
        )
        return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))


def jacobian_covariance(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    r"""Returns how differently the network's output changes around different images.

    .. math:: -\sum_i \log(\sigma_i + k) + 1 / (\sigma_i + k)

    over the eigenvalues of the correlations between images' Jacobians.

    Reference:
        Mellor et al., "Neural Architecture Search without Training", ICML 2021 (its first version).
    """
    with _prepared(network) as twin:
        leaf = x.detach().clone().requires_grad_()
        (jacobian,) = torch.autograd.grad(twin(leaf).sum(), leaf)
        values = torch.linalg.eigvalsh(torch.corrcoef(jacobian.flatten(1).double()))
        values = values.clamp(min=0) + JACOBIAN_FLOOR
        return -float((values.log() + 1 / values).sum())


def croze(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    r"""Returns how alike a network and its robust twin are, layer by layer.

    The twin's weights are a step uphill; it sees images attacked by FGSM.

    .. math:: \sum_m (1 + \cos(z_m, z_m^r)) (1 + \cos(\theta_m, \theta_m^r)) |\cos(g_m, g_m^r)|

    of each layer's features, weights and gradients.

    Reference:
        Ha et al., "Generalizable Lightweight Proxy for Robust NAS against Diverse Perturbations",
        NeurIPS 2023. We follow the paper; its code takes the weights' absolute values.
    """
    with _prepared(network) as plain, _prepared(network) as robust:
        layers = dict(_layers(plain))
        weights = [layer.weight for layer in layers.values()]
        uphill = _gradients(plain, x, y, weights)
        with torch.no_grad():
            for (_, layer), gradient in zip(_layers(robust), uphill, strict=True):
                length = gradient.norm().clamp(min=1e-12)
                layer.weight += CROZE_STEP * gradient * (layer.weight.norm() / length)
        attacked = FGSM(eps)(robust, x, y)
        kept = _recorded(plain, x, y)
        changed = _recorded(robust, attacked, y)
        return sum(
            (1 + _cosine(features, changed[name][0]))
            * (1 + _cosine(weight, changed[name][1]))
            * abs(_cosine(gradient, changed[name][2]))
            for name, (features, weight, gradient) in kept.items()
        )


def adversarial_ntk(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Returns minus log10 of the condition number of the neural tangent kernel at attacked images.

    Of 16 images, attacked by FGSM; the gradient of an image is that of the sum of its logits.

    Reference:
        Chen et al., "Neural Architecture Search on ImageNet in Four GPU Hours" (TE-NAS), ICLR 2021;
        at attacked images: Zhu et al., "Robust NAS under adversarial training", ICLR 2024.
    """
    with _prepared(network) as twin:
        some, classes = x[:NTK_IMAGES], y[:NTK_IMAGES]
        attacked = FGSM(eps, mode="keep")(twin, some, classes)
        logits, weights = twin(attacked), _weights(twin)
        rows = []
        for image in logits:
            found = torch.autograd.grad(image.sum(), weights, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([g.flatten() for g in found if g is not None]).double())
        stacked = torch.stack(rows)
        values = torch.linalg.eigvalsh(stacked @ stacked.T)
        least, most = float(values[0]), float(values[-1])
        return -math.log10(most / least) if least > 0 else -math.inf


def initial_lipschitz(network: nn.Module, x: Tensor, y: Tensor, eps: float) -> float:
    """Returns minus log10 of the bound on the network's Lipschitz constant.

    Reference:
        Proposition 3.3 of the DS-Net paper, see :func:`analysis.lipschitz.compute_lipschitz`.
    """
    some = x[:LIPSCHITZ_IMAGES]
    return -compute_lipschitz(network, some, num_ascents=1, num_steps=1).bound_log10


ZERO_COST: Mapping[str, Score] = {
    "parameters": parameters,
    "flops": flops,
    "synflow": synflow,
    "gradient-norm": gradient_norm,
    "jacobian": jacobian_covariance,
    "croze": croze,
    "ntk": adversarial_ntk,
    "lipschitz": initial_lipschitz,
}
"""The scores by their names."""


@contextmanager
def _prepared(network: nn.Module) -> Iterator[nn.Module]:
    """Lends a copy whose norms take the batch's statistics and whose blocks drop nothing."""
    twin = copy.deepcopy(network).eval()
    for module in twin.modules():
        if isinstance(module, _BatchNorm):
            module.train()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        yield twin


def _weights(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, but for attention logits."""
    own = network.block_parameters() if isinstance(network, DSNet) else network.parameters()
    return [parameter for parameter in own if parameter.requires_grad]


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.requires_grad:
            yield name, module


def _gradients(network: nn.Module, x: Tensor, y: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Returns the cross entropy's gradients; zeros of a weight that takes no part."""
    found = torch.autograd.grad(F.cross_entropy(network(x), y), weights, allow_unused=True)
    return [
        torch.zeros_like(weight) if gradient is None else gradient
        for weight, gradient in zip(weights, found, strict=True)
    ]


def _recorded(network: nn.Module, x: Tensor, y: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Returns features, weight and gradient of each layer that takes part."""
    features: dict[str, Tensor] = {}
    layers = dict(_layers(network))
    handles = [
        layer.register_forward_hook(
            lambda _, arguments, output, name=name: features.update({name: output.detach()})
        )
        for name, layer in layers.items()
    ]
    weights: list[Tensor] = [layer.weight for layer in layers.values()]
    gradients = _gradients(network, x, y, weights)
    for handle in handles:
        handle.remove()
    return {
        name: (features[name], weight.detach(), gradient)
        for name, weight, gradient in zip(layers, weights, gradients, strict=True)
        if name in features
    }


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(F.cosine_similarity(first.flatten(), second.flatten(), dim=0))
