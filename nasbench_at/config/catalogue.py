"""What comes with the package, by name: blocks, networks and data sets, known without torch.

The registries are the source. ``catalogue.json`` holds what is in them, so that a list or a
mistyped name is answered at once; ``python -m nasbench_at.evaluation.registries`` writes it anew,
and a test holds both equal.
"""

from __future__ import annotations

import fnmatch
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nasbench_at.config.suggestions import suggest

if TYPE_CHECKING:  # whose blocks are in the catalogue's order
    from nasbench_at.config.run_config import RunConfig

__all__ = [
    "CATALOGUE_FILE",
    "BlockEntry",
    "Catalogue",
    "ModelCosts",
    "catalogue",
    "check_data_name",
    "check_names",
    "check_network_names",
    "is_complete",
]

ENTRY_POINT_GROUP = "nasbench_at.blocks"

CATALOGUE_FILE: Final = Path(__file__).with_suffix(".json")

_MORE_BLOCKS = "; register_block adds your own, on the command line --plugins FILE"


@dataclass(frozen=True)
class BlockEntry:
    """A block, as :class:`blocks.BlockInfo` describes it."""

    name: str
    kind: str
    summary: str
    reference: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ModelCosts:
    """A row of the table of networks.

    Attributes:
        name: The network's name.
        summary: What it is.
        reference: Where it comes from.
        num_params: Parameters; attention logits not counted, as in the paper.
        flops: Operations of one image's forward pass, twice the multiply-adds of its convolutions
            and matrix products.
        seconds_per_step: Time of one attack step on a batch; None if it was not measured.
    """

    name: str
    summary: str
    reference: str
    num_params: int
    flops: int
    seconds_per_step: float | None = None


@dataclass(frozen=True)
class Catalogue:
    """All that comes with the package.

    Attributes:
        blocks: By name, in order of registration.
        models: Likewise, costs for 10 classes and images of 3×32×32.
        families: Names of networks that carry numbers: an example and the regular expression.
        data_sets: Names.
    """

    blocks: Mapping[str, BlockEntry]
    models: Mapping[str, ModelCosts]
    families: Mapping[str, str]
    data_sets: Sequence[str]

    @cached_property
    def block_places(self) -> Mapping[str, int]:
        """The place of each block."""
        return {name: place for place, name in enumerate(self.blocks)}

    def find_blocks(self, names: Sequence[str]) -> list[BlockEntry]:
        """Returns the blocks of these names, or all if there is none.

        Raises:
            ValueError: If a name is unknown; the message lists near matches.
        """
        for name in names:
            _require("block", name, self.blocks, _MORE_BLOCKS)
        return [self.blocks[name] for name in names or self.blocks]

    def find_models(self, patterns: Iterable[str]) -> list[str]:
        """Returns the networks that names and shell patterns stand for, each once, in order.

        Raises:
            ValueError: If one of them stands for none; the message lists near matches.
        """
        return list(dict.fromkeys(name for word in patterns for name in self._models_like(word)))

    def _models_like(self, pattern: str) -> Sequence[str]:
        found = fnmatch.filter(self.models, pattern)
        if not found:
            is_member = any(re.fullmatch(family, pattern) for family in self.families.values())
            if not is_member:
                _require("model", pattern, [*self.models, *self.families])
        return found or [pattern]


@cache
def catalogue() -> Catalogue:
    """Returns what comes with the package, from the file beside this module."""
    stored = json.loads(CATALOGUE_FILE.read_text("utf-8"))
    return Catalogue(
        blocks={name: BlockEntry(name, **entry) for name, entry in stored["blocks"].items()},
        models={name: ModelCosts(name, **entry) for name, entry in stored["models"].items()},
        families=stored["families"],
        data_sets=stored["data_sets"],
    )


def is_complete(plugins: Sequence[str] = ()) -> bool:
    """Returns whether nothing else can be registered, and asking here saves loading torch.

    Args:
        plugins: The user's files that register blocks.
    """
    return not (plugins or "torch" in sys.modules or entry_points(group=ENTRY_POINT_GROUP))


def check_names(config: RunConfig) -> None:
    """Refuses a configuration's unknown block, network, data set or file before torch is loaded.

    Names that a plugin may register are left to the registries.

    Raises:
        ValueError: If a name is unknown; the message lists near matches.
    """
    check_data_name(config.data)
    if config.extra_data is not None:
        check_data_name(config.extra_data)
    blocks = config.architecture((1, 8, 8), 2).all_blocks  # whatever the images are
    check_network_names(config.model, sorted(blocks), config.plugins)


def check_network_names(
    model: str, blocks: Iterable[str] = (), plugins: Sequence[str] = ()
) -> None:
    """Refuses an unknown network by name, or an unknown block of a DS-Net.

    Args:
        model: ``ds_net``, or a network by name; ``module:factory`` and
            ``file.py:factory`` are not looked at.
        blocks: The blocks of a DS-Net.
        plugins: The user's files that register blocks; with them nothing is looked at.

    Raises:
        ValueError: If a name is unknown; the message lists near matches.
    """
    if model.endswith(".py"):
        raise ValueError(f"a model of your own must be written {model}:factory, got {model!r}")
    if ":" in model or not is_complete(plugins):
        return
    if model != "ds_net":
        catalogue().find_models([model])
        return
    for name in blocks:
        _require("block", name, catalogue().blocks, _MORE_BLOCKS)


def check_data_name(name: str) -> None:
    """Refuses an unknown data set or a file that is not there; a function is not looked at.

    Raises:
        ValueError: If the name is unknown; the message lists near matches.
    """
    if name.endswith(".npz"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ValueError(f"data file {str(path)!r} does not exist")
    elif ":" not in name and is_complete():
        more = "; a file 'path/to/file.npz' or a function 'module:function' will do, too"
        _require("data set", name, catalogue().data_sets, more)


def _require(what: str, name: str, known: Iterable[str], more: str = "") -> None:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; {suggest(name, known)}{more}")
