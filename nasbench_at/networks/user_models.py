"""A network to evaluate, named on the command line: ``file.py:factory``, or one of ours by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nasbench_at.config.contents import import_function
from nasbench_at.networks.zoo import create_model, load_published_weights
from nasbench_at.runtime.plain_data import read_plain_data

__all__ = ["load_user_model"]


def load_user_model(
    spec: str,
    weights: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (3, 32, 32),
) -> nn.Module:
    """Builds a network, loads its weights and puts it in eval mode and float32.

    Args:
        spec: ``path/to/file.py:factory``, or ``module:factory``, whose module may lie in the
            current folder. ``factory()`` returns an :class:`torch.nn.Module` from images in [0, 1]
            to logits, normalisation included. Without a colon, a name of
            :func:`nasbench_at.list_models`.
        weights: A ``.safetensors`` file, or a ``state_dict`` written by ``torch.save``, which is
            read with ``weights_only=True``. None keeps what the factory made. Networks by name
            also take the layouts of :func:`nasbench_at.networks.zoo.load_published_weights`.
        device: Where to put the network.
        num_classes: Classes of a network by name.
        image_shape: Channels, height and width of its images.

    Raises:
        ValueError: If the factory fails or returns something else, or the weights cannot be read
            or are not the network's.
    """
    by_name = ":" not in spec
    model = create_model(spec, num_classes, image_shape) if by_name else _build(spec)
    if weights is not None:
        state = _read_weights(Path(weights))
        try:
            if by_name:
                model = load_published_weights(model, state)
            else:
                model.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"weights {str(weights)!r} are not those of model {spec!r}: {reason}"
            ) from None
    return model.to(device=device, dtype=torch.float32).eval()


def _build(spec: str) -> nn.Module:
    module, separator, factory = spec.partition(":")
    if not (module and separator and factory):
        raise ValueError(
            f"a model of your own must be written file.py:factory or module:factory, got {spec!r}"
        )
    try:
        model = import_function(spec)()
    except Exception as error:  # whatever a user's code may raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"model factory {spec!r} failed: {reason}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"model factory {spec!r} must return a torch.nn.Module, got {type(model).__name__}"
        )
    return model


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(path.read_bytes())
        state = read_plain_data(path)
    except OSError as error:
        raise ValueError(f"cannot read weights {str(path)!r}: {error.strerror}") from None
    except (safetensors.SafetensorError, KeyError) as error:  # a type that torch does not have
        raise ValueError(
            f"cannot read weights {str(path)!r}: it is no safetensors file ({error})"
        ) from None
    except ValueError as error:
        raise ValueError(f"cannot read weights {str(path)!r}: {error}") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"weights {str(path)!r} must be a plain state_dict of tensors, got "
            f"{type(state).__name__}"
        )
    return dict(state)
