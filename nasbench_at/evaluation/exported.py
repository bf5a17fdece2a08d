"""A run's network as one file for others: weights that say what they are, or a program of torch."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import nn

from nasbench_at.config import ResolvedConfig, RunConfig, resolve
from nasbench_at.config.scalars import write_scalar
from nasbench_at.data import ImageSpec
from nasbench_at.evaluation.runs import Run, TrainedNetwork
from nasbench_at.records import Record
from nasbench_at.records.conditions import describe_conditions
from nasbench_at.records.naming.labels import extra_label
from nasbench_at.records.places import find_network, shipped_networks
from nasbench_at.records.text_tables import format_markdown
from nasbench_at.runtime.atomic_files import write_atomically
from nasbench_at.runtime.devices import select_device

__all__ = ["EXPORT_SUFFIXES", "Exported", "export_run", "load_model"]

_FORMAT = "nasbench-at network 1"


def export_run(path: str | Path, out: str | Path) -> tuple[Path, ...]:
    """Writes a run's selected network to a file, and beside it a model card.

    ``.safetensors`` holds the weights, the configuration and the record: :func:`load_model` makes
    the network of it. ``.pt2`` is a program of ``torch.export`` that needs no nasbench-at: from
    images in [0, 1], any number of them, to logits, in float32 and eval mode.

    Args:
        path: The run's folder.
        out: The file; one that is there is replaced. The card has its name and ends in ``.md``.

    Returns:
        The files written.

    Raises:
        ValueError: If the suffix is another one, or the run has no weights or no record.
        OSError: If a file cannot be written.
    """
    out = Path(out)
    if out.suffix not in _WRITERS:
        raise ValueError(
            f"a network is exported to one of {', '.join(_WRITERS)}, got suffix {out.suffix!r} of "
            f"{out.name!r}"
        )
    run = Run.open(path, device="cpu")
    record, network = run.record, run.network
    images = run.data.spec
    content = _WRITERS[out.suffix](network, record, images)
    card = out.with_suffix(".md")
    write_atomically(out, content)
    write_atomically(card, "\n".join(_card(record, images, out)).encode())
    return out, card


@dataclass(frozen=True, eq=False)
class Exported(TrainedNetwork):
    """An exported network, opened; its data set is not needed for the network.

    Attributes:
        file: Its ``.safetensors`` file.
        device: Where its network and data go.
        data_root: Where the data set's files lie.
    """

    file: Path
    device: torch.device
    data_root: str | Path | None = None

    @cached_property
    def _metadata(self) -> tuple[Record, ImageSpec]:
        return _read_metadata(self.file)

    @property
    def record(self) -> Record:
        """Its run's results and provenance, which came with the file."""
        return self._metadata[0]

    @property
    def weights(self) -> Path:
        """The file: with the weights came the rest."""
        return self.file

    @property
    def images(self) -> ImageSpec:
        """What its network takes and tells apart, as the file says."""
        return self._metadata[1]

    @cached_property
    def config(self) -> ResolvedConfig:
        """How it was trained."""
        return resolve(RunConfig(**self.record.config))


def load_model(path: str | Path, *, device: str = "cpu") -> nn.Module:
    """Returns a trained network: of an exported file, of a run's folder, or of the package.

    Plugins and data that the configuration names are not part of a file: a network with blocks of
    a plugin needs it where it was.

    Args:
        path: A ``.safetensors`` file that was exported, the folder of a run, or as a text one of
            :func:`nasbench_at.records.places.shipped_networks`, which stands before a folder called
            so.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The network in eval mode and float32, from images in [0, 1] to logits.

    Raises:
        ValueError: If it is none of these, or is damaged.

    Example:
        ``load_model("digits/NAME")``
    """
    if Path(path).is_dir() and find_network(path) is None:
        return Run.open(path, device=device).network
    return Exported(find_network(path) or Path(path), select_device(device)).network


def _read_metadata(path: Path) -> tuple[Record, ImageSpec]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        shipped = ", ".join(shipped_networks())
        raise ValueError(
            f"cannot read network {str(path)!r}: {error}; those of the package: {shipped}"
        ) from None
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{str(path)!r} is no network that nasbench-at exported: its metadata must have format "
            f"{_FORMAT!r}, got {metadata.get('format')!r}"
        )
    try:
        channels, height, width = map(int, json.loads(metadata["image_shape"]))
        images = ImageSpec((channels, height, width), int(metadata["num_classes"]))
        return Record.from_json(metadata["record"]), images
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"network {str(path)!r} is damaged: {error}") from None


def _write_safetensors(network: nn.Module, record: Record, images: ImageSpec) -> bytes:
    metadata = {
        "format": _FORMAT,
        "image_shape": json.dumps(images.image_shape),
        "num_classes": str(images.num_classes),
        "record": record.to_json(),
    }
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    return safetensors.torch.save(tensors, metadata)


def _write_program(network: nn.Module, record: Record, images: ImageSpec) -> bytes:
    network = network.to(memory_format=torch.contiguous_format)
    x = torch.zeros(2, *images.image_shape)
    batch = torch.export.Dim("batch", min=1, max=2**31 - 1)  # torch 2.6 wants an upper bound
    with torch.no_grad():
        program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    file = io.BytesIO()
    with warnings.catch_warnings():  # of tensors that are parts of one, which it saves anyway
        warnings.filterwarnings("ignore", "No complete tensor found in the group")
        torch.export.save(program, file, extra_files={"record.json": record.to_json()})
    return file.getvalue()


_WRITERS: Mapping[str, Callable[[nn.Module, Record, ImageSpec], bytes]] = {
    ".safetensors": _write_safetensors,
    ".pt2": _write_program,
}
EXPORT_SUFFIXES = tuple(_WRITERS)
"""What a network can be exported to."""


def _card(record: Record, images: ImageSpec, out: Path) -> Iterator[str]:
    """Yields the lines of a model card; every number in it is the record's."""
    config = record.config
    yield from (f"# {record.run_id}", "")
    yield (
        "A network trained by nasbench-at. It takes images in [0, 1] of shape "
        f"{' x '.join(map(str, images.image_shape))}, without normalisation, and returns "
        f"{images.num_classes} logits."
    )
    yield from ("", "## How to load it", "```python")
    if out.suffix == ".pt2":
        yield from ("import torch", "", f'model = torch.export.load("{out.name}").module()')
    else:
        yield from ("from nasbench_at import load_model", "", f'model = load_model("{out.name}")')
    yield from ("```", "", "## How it was trained", "")
    told = (
        *("data", "blocks", "method", "beta", "norm", "eps", "epochs", "select_on", "recipe"),
        "seed",
    )
    rows = [(name, write_scalar(config[name])) for name in told if config.get(name) is not None]
    if extra := extra_label(config):
        rows.append(("generated images", extra))
    rows.append(("parameters", f"{record.num_params:,}"))
    if selected := record.training.get("selected"):
        count = selected["num_samples"]
        for name in ("natural", "robust"):
            accuracy = f"{selected[f'validation_{name}']:.1%} of {count} held-out images"
            rows.append((f"{name} accuracy of the selected epoch", accuracy))
    yield from (format_markdown(("", "value"), rows), "")
    if config.get("select_on") == "test":
        yield "The epoch was selected on test images: accuracies on them are too high."
        yield ""
    yield from ("## What was measured", "")
    if not record.is_evaluated:
        yield "Nothing yet."
    for evaluation in record.evaluations:
        measured = []
        for row in evaluation.results:
            low, high = row.interval
            measured.append(
                (
                    row.attack,
                    describe_conditions(row),
                    f"{row.num_correct}/{row.num_samples}",
                    f"{row.accuracy:.1%}",
                    f"{low:.1%} to {high:.1%}",
                )
            )
        headings = ("attack", "conditions", "correct", "accuracy", "95 % interval")
        yield f"On {evaluation.data}:"
        yield from ("", format_markdown(headings, measured), "")
        for check in evaluation.checks:
            mark = "passed" if check.passed else "**failed**"
            yield f"- trust check {check.name}: {mark}: {check.detail}"
        yield ""
    yield from ("## Made by", "")
    known = ("nasbench_at", "torch", "python", "commit", "cpu", "device", "precision")
    made_by = [(name, str(record.provenance[name])) for name in known if name in record.provenance]
    yield from (format_markdown(("", "value"), made_by), "")
