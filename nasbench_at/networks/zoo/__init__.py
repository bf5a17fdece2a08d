"""Networks by name: the paper's and those it compares with, one family a file."""

# The modules are imported so that their networks are registered, in this order.
from nasbench_at.networks.zoo import ds_net, resnet, wide_resnet, implicit_euler, ada_rk_net  # noqa: F401, I001
from nasbench_at.networks.zoo import densenet, mobilenet_v2, preact_resnet, robnet  # noqa: F401
from nasbench_at.networks.zoo.checkpoint_formats import load_published_weights
from nasbench_at.networks.zoo.registry import (
    ModelInfo,
    create_model,
    find_models,
    list_families,
    list_models,
    model_info,
    register_model,
    register_model_pattern,
)

__all__ = [
    "ModelInfo",
    "create_model",
    "find_models",
    "list_families",
    "list_models",
    "load_published_weights",
    "model_info",
    "register_model",
    "register_model_pattern",
]
