"""The run configuration: one typed object, the same as a YAML file and as command-line flags.

No torch here: ``nasbench-at --help`` must answer at once.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Never, Self

from typing_extensions import TypeVar

from nasbench_at.config.allowed_values import (
    InOrder,
    Matches,
    Name,
    Range,
    Seed,
    check_fields,
    check_value,
)
from nasbench_at.config.architecture import (
    DS_NET_FIELDS,
    NAMED_DS_NETS,
    Architecture,
    AttentionInit,
    AttentionMode,
    BlockCopies,
    BlockOptions,
    Blocks,
    InitChannels,
    InitOptions,
    Keep,
    NumModules,
    Recipe,
    Weights,
    WidenFactor,
    architecture_of,
    repr_of_changes,
    spell_out,
)
from nasbench_at.config.contents import changed_contents, hash_contents, replace_paths
from nasbench_at.config.presets import adapt_preset, find_preset
from nasbench_at.config.scalars import dump_yaml, load_yaml
from nasbench_at.config.suggestions import suggest

__all__ = [
    "DS_NET_FIELDS",
    "EXTRA_FIELDS",
    "PAPER_VALUES",
    "ModelOptions",
    "NormName",
    "ResolvedConfig",
    "RunConfig",
    "config_from_mapping",
    "dump_config",
    "load_config",
    "recipe_of",
    "resolve",
]

NormName = Literal["Linf", "L2"]
AttackStart = Literal["uniform", "normal", "none"]
Schedule = Literal["milestones", "cyclic"]
SelectOn = Literal["validation", "test", "last"]
Precision = Literal["fp32", "bf16", "fp16", "fp16_unscaled"]
OptimizerImpl = Literal["torch", "fused", "apex"]
ModelOptions = Mapping[str, Any]

_Positive = Annotated[float, Range("(0, inf)")]
_NotNegative = Annotated[float, Range("[0, inf)")]
_Share = Annotated[float, Range("[0, 1)")]
_Radius = Annotated[float, Range("[0, inf)")]
_LinfRadius = Annotated[float, Range("[0, 1]", "pixel scale; divide by 255")]
_BatchSize = Annotated[int, Range("[2, 1000000]", "BatchNorm needs two images")]
_Epochs = Annotated[int, Range("[1, 100000]")]
_Milestones = Annotated[tuple[_Epochs, ...], InOrder()]

UnsetT = TypeVar("UnsetT", bound=None, default=None, covariant=True)
"""What stands in a field that nobody has set: None, or, once the recipe has filled it, nothing."""


def _from_recipe(paper: Any) -> Any:
    """A field that stays None until a recipe fills it in; all recipes start from the paper's value.

    It is that of adversarial training on CIFAR-10 (Sec. 4.1).
    """
    return field(default=None, metadata={"paper": paper})


@dataclass(frozen=True)
class RunConfig(Generic[UnsetT]):
    """Everything that decides a run's result.

    A field left at None is filled in from the recipe by :func:`resolve`; a run's folder holds the
    :class:`ResolvedConfig`, and that file alone repeats the run.

    Attributes:
        data: Name of the data set.
        select_on: Select the epoch on held-out ``validation`` images (paper), or, as the authors'
            code does, on the ``test`` images, and then train on all others; or take the ``last``
            epoch, whatever the held-out images say.
        validation_fraction: Part of the training images held out for that, in (0, 1).
        split_seed: Seed of that split.
        extra_data: An .npz file of generated images, which are mixed into every training batch;
            see :mod:`nasbench_at.data.mixing`. None is off.
        extra_fraction: Part of each batch that is drawn from them, in (0, 1); None is 0.7 with
            ``extra_data``.
        model: Name of the network: ``ds_net``, which the fields from ``blocks`` to
            ``attention_keep`` describe, or one of :func:`nasbench_at.list_models`. The name of a
            DS-Net, such as ``ds_net_4``, stands for its fields.
        model_options: Options of a network by name.
        blocks: The block set of every module, or one set per module; in the order of
            :class:`Architecture <nasbench_at.Architecture>`, as are the columns of the attention.
        num_modules: Number of robust modules, at least 3.
        init_channels: Width of the first stage.
        widen_factor: By how much the first reduction widens.
        block_options: Options by block name.
        block_copies: Stacked copies by block name.
        attention: Learned or fixed block weights.
        attention_init: Their initial values; None is normal if learned, equal if fixed.
        attention_init_options: Overrides of the distribution's parameters, ``scale`` among them.
        attention_weights: Rows of given weights, for ``attention_init: given``.
        attention_keep: Per module the blocks that take part.
        plugins: Python files that register blocks.
        method: Way of training.
        recipe: Where unset values come from: as printed in the paper, or as in the authors' code.
        norm: Threat model of training, and by default of evaluation: ``Linf`` or ``L2``.
        eps: Radius of the perturbation: L∞ in pixel scale [0, 1]; L2 the Euclidean length over all
            pixels of an image in [0, 1], at least 0.
        step_size: Step of the training attack, in the same unit.
        attack_steps: Steps of the training attack.
        attack_start: Its start: ``uniform``, ``normal`` or ``none``.
        attack_noise: Standard deviation of the noise added at each of its steps.
        beta: Weight of the robust term of TRADES, FAT's TRADES form and MART.
        tau_milestones: FAT: epochs from which a fooled image takes one more step.
        awp_gamma: Size of the adversarial weight perturbation, relative to each weight; 0 is off.
        ema_decay: Validate and keep an exponential average of the weights; 0 is off.
        epochs: Number of epochs.
        batch_size: Images a step, over all ranks.
        accumulation_steps: Parts in which a rank computes its share of a batch, to save memory.
        augment: Random crop (padding 4) and horizontal flip of the training images.
        lr: Initial (milestones) or highest (cyclic) learning rate of the blocks' SGD.
        lr_schedule: ``milestones`` by epoch, or ``cyclic``: a triangle over all steps.
        warmup_epochs: Epochs in which the rate rises linearly to ``lr``.
        momentum: Its momentum.
        weight_decay: Its weight decay.
        milestones: First epochs, counted from 1, of the reduced learning rates.
        milestone_factors: What the initial rate is multiplied by from each milestone on.
        attention_lr: Learning rate of the logits' Adam.
        attention_weight_decay: Its (L2) weight decay.
        attention_betas: Its betas.
        precision: ``fp32``, ``bf16``, ``fp16`` (dynamic loss scale) or ``fp16_unscaled`` (without
            loss scale, as the authors ran apex O1).
        optimizer_impl: ``torch``, torch's ``fused`` kernels, or NVIDIA ``apex``.
        compile: Compile the network block by block.
        sync_batch_norm: Share BatchNorm statistics among ranks.
        channels_last: Memory layout; channels_last is faster for all but tiny networks.
        seed: Seed of initial weights, batch order and attack noise.
        contents: Hashes of the files that ``plugins``, ``data`` and ``extra_data`` name, from
            :func:`nasbench_at.config.contents.hash_contents`; ``resolve`` fills them in, and
            replaces what is given.
    """

    data: Name = "digits"
    select_on: SelectOn | UnsetT = _from_recipe("validation")
    validation_fraction: Annotated[float, Range("(0, 1)")] = 0.1
    split_seed: Seed = 0
    extra_data: Annotated[str, Matches(r".+\.npz", "a file ending in .npz")] | None = None
    extra_fraction: Annotated[float, Range("(0, 1)")] | None = None

    model: Name = "ds_net"
    model_options: ModelOptions = field(default_factory=dict)
    blocks: Blocks = ("residual", "mbconv", "dense", "ada_rk")
    num_modules: NumModules = 15
    init_channels: InitChannels = 20
    widen_factor: WidenFactor = 4
    block_options: BlockOptions = field(default_factory=dict)
    block_copies: BlockCopies = field(default_factory=dict)
    attention: AttentionMode = "learned"
    attention_init: AttentionInit | None = None
    attention_init_options: InitOptions = field(default_factory=dict)
    attention_weights: Weights = None
    attention_keep: Keep = None
    plugins: tuple[Name, ...] = ()

    method: Name = "at"
    recipe: Recipe = "paper"
    norm: NormName = "Linf"
    eps: _Radius | UnsetT = _from_recipe(0.031)
    step_size: _Positive | UnsetT = _from_recipe(0.007)
    attack_steps: Annotated[int, Range("[1, 10000]")] | UnsetT = _from_recipe(10)
    attack_start: AttackStart | UnsetT = _from_recipe("uniform")
    attack_noise: _NotNegative | UnsetT = _from_recipe(0.0)
    beta: _NotNegative | None = None
    tau_milestones: _Milestones | None = None
    awp_gamma: _NotNegative = 0.0
    ema_decay: _Share = 0.0

    epochs: _Epochs | UnsetT = _from_recipe(120)
    batch_size: _BatchSize | UnsetT = _from_recipe(128)
    accumulation_steps: Annotated[int, Range("[1, 100000]")] = 1
    augment: bool | UnsetT = _from_recipe(True)
    lr: _Positive | UnsetT = _from_recipe(0.1)
    lr_schedule: Schedule | UnsetT = _from_recipe("milestones")
    warmup_epochs: Annotated[int, Range("[0, 100000]")] | UnsetT = _from_recipe(0)
    momentum: _Share | UnsetT = _from_recipe(0.9)
    weight_decay: _NotNegative | UnsetT = _from_recipe(5e-4)
    milestones: _Milestones | UnsetT = _from_recipe((60, 90))
    milestone_factors: tuple[_Positive, ...] | UnsetT = _from_recipe((0.1, 0.01))
    attention_lr: _Positive | UnsetT = _from_recipe(1e-3)
    attention_weight_decay: _NotNegative | UnsetT = _from_recipe(1e-3)
    attention_betas: tuple[_Share, _Share] | UnsetT = _from_recipe((0.9, 0.999))

    precision: Precision = "fp32"
    optimizer_impl: OptimizerImpl = "torch"
    compile: bool = False
    sync_batch_norm: bool = False
    channels_last: bool = True
    seed: Seed = 0
    contents: Mapping[str, str] = field(default_factory=dict, metadata={"is_flag": False})

    def __post_init__(self) -> None:
        if self.norm != "L2":  # before its own check, whose range is that of L2
            check_value("eps", _LinfRadius | None, self.eps)
        check_fields(self)
        if self.norm == "L2" and self.method == "fast_at":
            raise ValueError(
                "method 'fast_at' is defined under norm Linf alone, got norm 'L2'; one step under "
                "L2 is method 'at' with attack_steps 1"
            )
        if (
            self.milestones is not None
            and self.milestone_factors is not None
            and len(self.milestones) != len(self.milestone_factors)
        ):
            raise ValueError(
                f"milestones {self.milestones} and milestone_factors {self.milestone_factors} must "
                "be equally many"
            )
        if (
            self.epochs is not None
            and self.warmup_epochs is not None
            and self.warmup_epochs > self.epochs
        ):
            raise ValueError(
                f"warmup_epochs must be at most the number of epochs, {self.epochs}, got "
                f"{self.warmup_epochs}"
            )
        for name, methods in _METHOD_OPTIONS.items():
            if getattr(self, name) is not None and self.method in _PAPER_METHODS - methods:
                raise ValueError(
                    f"{name} goes with method {' or '.join(sorted(methods))}, got it with "
                    f"{self.method!r}"
                )
        if self.extra_fraction is not None and self.extra_data is None:
            raise ValueError(
                f"extra_fraction goes with extra_data, got {self.extra_fraction} without it"
            )
        if self.awp_gamma and self.accumulation_steps > 1:
            raise ValueError(
                f"awp_gamma needs a batch in one piece, got accumulation_steps "
                f"{self.accumulation_steps}"
            )
        self._check_network()

    def _check_network(self) -> None:
        if self.model == "ds_net":
            if self.model_options:
                raise ValueError(
                    f"model_options go with a network by name, got {dict(self.model_options)} with "
                    "model 'ds_net', whose options are fields of their own"
                )
            # What holds of the network holds of every input shape, so it is checked at once.
            network = self.architecture(input_shape=(1, 8, 8), num_classes=2)
            # Whatever the order in which they were named, the same blocks are one run.
            object.__setattr__(self, "blocks", network.block_set or network.blocks)
            object.__setattr__(self, "attention_weights", network.attention.weights)
            object.__setattr__(self, "attention_keep", network.attention.keep)
            return
        for item in fields(RunConfig):
            value = getattr(self, item.name)
            if item.name in DS_NET_FIELDS and value not in (item.default, None, {}):
                raise ValueError(f"{item.name} goes with model ds_net, got it with {self.model!r}")
        self.spelled_out()

    def __repr__(self) -> str:
        return repr_of_changes(self, RunConfig())

    def spelled_out(self) -> Self:
        """Returns the same network and run with a named DS-Net's fields in its name's place."""
        if self.model not in NAMED_DS_NETS:
            return self
        network = NAMED_DS_NETS[self.model]
        learns = network.attention.mode == "learned"
        allowed = ["init_channels", "attention_init"] if learns else ["init_channels"]
        for option in self.model_options:
            if option not in allowed:
                raise ValueError(
                    f"model {self.model!r} has no option {option!r}; {suggest(option, allowed)}"
                )
        return replace(self, **spell_out(vars(self)))

    def network_id(self, input_shape: tuple[int, int, int], num_classes: int) -> str:
        """Returns what tells networks apart: an architecture's hash, or name, shape and options."""
        if self.spelled_out().model == "ds_net":
            return self.architecture(input_shape, num_classes).hash
        options = "".join(f",{name}={value}" for name, value in sorted(self.model_options.items()))
        return f"{self.model}({num_classes},{'x'.join(map(str, input_shape))}{options})"

    def architecture(self, input_shape: tuple[int, int, int], num_classes: int) -> Architecture:
        """Returns the network for images of a shape and a number of classes.

        Raises:
            ValueError: If the network's fields do not make an architecture.
        """
        network = architecture_of(
            {**vars(self.spelled_out()), "model": "ds_net"}, input_shape, num_classes
        )
        assert network is not None
        return network

    def to_dict(self) -> dict[str, Any]:
        """Returns YAML-ready data from which :func:`config_from_mapping` restores the object.

        What describes a DS-Net is left out of another network's. So are norm Linf and extra data
        that are not there, as in what was written before there were others: equal runs have equal
        data, whenever they were made.
        """
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.norm == "Linf":
            del plain["norm"]
        if self.extra_data is None:
            for name in EXTRA_FIELDS:
                del plain[name]
        if self.model != "ds_net":
            return {name: value for name, value in plain.items() if name not in DS_NET_FIELDS}
        return plain

    def identity(self) -> dict[str, Any]:
        """Returns what decides the result: all fields, a file's contents in place of its path.

        So a run is another one when a file has changed, and the same when a file was moved. How
        many ranks trained it is not part of it, but of the record's provenance: without
        ``sync_batch_norm`` each normalises its part of a batch by itself.
        """
        return replace_paths(self.spelled_out().to_dict())

    @property
    def run_id(self) -> str:
        """Name of the run's folder: data, method, a hash of its identity but the seed, the seed."""
        identity = self.identity()
        del identity["seed"]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        # A data set may be a path or a function: its last word, in letters that folders take.
        data = re.sub(r"[^A-Za-z0-9_]+", "-", Path(self.data).stem).strip("-")
        return f"{data}-{self.method}-{digest}-s{self.seed}"


class ResolvedConfig(RunConfig[Never]):
    """A configuration with every field that a recipe fills in, and a DS-Net by its fields.

    Only what the run's method or network does not have is None.

    Raises:
        ValueError: If a field is still unset.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        unset = [name for name in PAPER_VALUES if getattr(self, name) is None]
        unset += ["extra_fraction"] * (self.extra_data is not None and self.extra_fraction is None)
        if unset:
            raise ValueError(
                f"{', '.join(unset)} must be set; nasbench_at.config.resolve fills them in"
            )

    @classmethod
    def of(cls, config: RunConfig) -> ResolvedConfig:
        """Returns a configuration that is complete as one of this type."""
        return cls(**vars(config))


PAPER_VALUES: Mapping[str, Any] = {
    item.name: item.metadata["paper"] for item in fields(RunConfig) if "paper" in item.metadata
}
"""The fields that recipes fill in, with the values that they start from."""

EXTRA_FIELDS = ("extra_data", "extra_fraction")
"""The fields that plain data leave out where no extra data are trained on."""
EXTRA_FRACTION = 0.7
"""Part of a batch that is generated by default: what Wang et al. ("Better Diffusion Models Further
Improve Adversarial Training", ICML 2023) use on CIFAR-10 with a million images.
"""

_NAMES = [item.name for item in fields(RunConfig)]

_PAPER_METHODS = frozenset({"st", "at", "trades", "mart", "fat", "fat_trades", "fast_at"})
# A user's own method may read any of them.
_METHOD_OPTIONS: Mapping[str, frozenset[str]] = {
    "beta": frozenset({"trades", "mart", "fat_trades"}),
    "tau_milestones": frozenset({"fat", "fat_trades"}),
}


def recipe_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recipe that a run follows, at its own radius and epochs: field to value.

    Args:
        config: A configuration as plain data, of which ``data``, ``method``, ``recipe``, ``norm``,
            ``eps`` and ``epochs`` are read.
    """
    preset = find_preset(
        PAPER_VALUES,
        str(config.get("data")),
        str(config.get("method")),
        config.get("recipe", "paper"),
        norm=config.get("norm", "Linf"),
    )
    asked = {name: value for name in ("eps", "epochs") if (value := config.get(name))}
    return adapt_preset(preset, asked)


def resolve(config: RunConfig) -> ResolvedConfig:
    """Fills in every unset field from the recipe, and spells out a DS-Net by name.

    Another ``eps`` scales the recipe's step size along with it, and another number of epochs its
    warm-up and its milestones, unless those are set too. The contents of its files are taken anew:
    a stored configuration whose files have changed becomes another run, and a warning names them.

    Args:
        config: A configuration, possibly with unset fields.

    Returns:
        The configuration without unset fields but those that the method does not have.
    """
    config = config.spelled_out()
    preset = recipe_of(vars(config))
    if config.milestones is not None:
        preset["milestone_factors"] = tuple(0.1 ** (i + 1) for i in range(len(config.milestones)))
    if config.model == "ds_net":
        preset["attention_init"] = config.architecture((1, 8, 8), 2).attention.init
    if config.extra_data is not None:
        preset["extra_fraction"] = EXTRA_FRACTION
    unset = {name: value for name, value in preset.items() if getattr(config, name) is None}
    return ResolvedConfig.of(replace(config, contents=_contents_of(config), **unset))


def _contents_of(config: RunConfig) -> dict[str, str]:
    names = [*config.plugins, config.data]
    if config.extra_data is not None:
        names.append(config.extra_data)
    stored = {name: config.contents[name] for name in names if name in config.contents}
    changed = changed_contents(stored)
    if changed:
        warnings.warn(
            f"{', '.join(map(repr, changed))} changed since the configuration was written: this "
            "is another run",
            stacklevel=3,
        )
    return hash_contents(names)


def config_from_mapping(data: Mapping[str, Any]) -> RunConfig:
    """Builds a configuration from plain data.

    Raises:
        ValueError: One line naming the key, the value and what is allowed.
    """
    for key in data:
        if key not in _NAMES:
            raise ValueError(f"unknown configuration key {key!r}; {suggest(key, _NAMES)}")
    return RunConfig(**data)


def load_config(path: str | Path) -> RunConfig:
    """Reads a configuration from a YAML file.

    Raises:
        ValueError: If the file cannot be read or holds no configuration; the message names it.
    """
    try:
        data = load_yaml(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot read configuration {str(path)!r}: {reason}") from None
    if not isinstance(data, Mapping):
        raise ValueError(f"configuration {str(path)!r} must be a mapping, got {data!r}")
    try:
        return config_from_mapping(data)
    except ValueError as error:
        raise ValueError(f"configuration {str(path)!r}: {error}") from None


def dump_config(config: RunConfig) -> str:
    """Returns the configuration as YAML text."""
    return dump_yaml(config.to_dict())
