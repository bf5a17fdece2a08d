"""What the columns of a table of runs mean, and in which unit they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache

__all__ = ["COLUMNS", "Column", "describe_column"]


@dataclass(frozen=True)
class Column:
    """A column of a table of runs.

    Attributes:
        description: What it holds.
        unit: Its unit, or the form of its text.
    """

    description: str
    unit: str

    def to_dict(self) -> dict[str, str]:
        """Returns it as the metadata of a field."""
        return asdict(self)


COLUMNS: Mapping[str, Column] = {
    "run_id": Column("Name of the run: hash of its configuration, and seed", "text"),
    "architecture": Column(
        "Hash of a DS-Net, equal for isomorphic ones; name, classes, shape and options of another "
        "network",
        "text",
    ),
    "num_params": Column("Parameters of the network without its attention logits", "count"),
    "schema_version": Column("Version of the record's layout", "integer"),
    "config": Column("Everything needed to repeat the run", "JSON object"),
    "provenance": Column(
        "Versions, commit, device, precision and fingerprint of the data; train_seconds in seconds "
        "of wall clock",
        "JSON object",
    ),
    "training": Column(
        "Epochs done, the selected epoch and its accuracies on validation images in [0, 1]",
        "JSON object",
    ),
    "evaluations": Column(
        "What was found on test images: counts by attack, with settings, radius in pixel scale "
        "[0, 1], images and seconds; signs that they mislead",
        "JSON list",
    ),
    "metrics": Column(
        "The learning curve, an object an epoch: accuracies on training and validation images in "
        "[0, 1], loss, learning rate, attention weights; null if unknown",
        "JSON list",
    ),
    "outcomes": Column(
        "Which test images are classified correctly: by key of a row of the evaluations, the bits "
        "of its images in order, the highest bit of a byte first; null if unknown",
        "JSON object of base64 text",
    ),
    "subsets": Column(
        "Which images a row with a subset is of: indices by the subset's hash; null if none",
        "JSON object of lists of indices from 0",
    ),
    "train_seconds": Column("Wall-clock time of the training", "seconds"),
    "evaluation_seconds": Column("Wall-clock time of all evaluations", "seconds"),
    "contents": Column("Hashes of the files that decide the run, by path", "JSON object"),
    "weights_hash": Column("Hash of an evaluated user's model's weights", "text"),
}
"""The columns that have these meanings; the others are of a configuration or of an attack."""

_OF_ATTACK = {
    "_norm": Column("Threat model of {}", "Linf or L2"),
    "_eps": Column(
        "Radius of {}", "pixel scale [0, 1]: the largest change of a pixel, or the length under L2"
    ),
    "_num_samples": Column("Test images of {}", "count"),
}


def describe_column(name: str) -> Column:
    """Returns what a column of a table of runs means.

    Args:
        name: A column of :meth:`nasbench_at.Benchmark.to_frame`, or of a file of records.
    """
    if name in COLUMNS:
        return COLUMNS[name]
    if name in (fields := _config_columns()):
        return fields[name]
    for ending, column in _OF_ATTACK.items():
        if name.endswith(ending):
            what = _describe_attack(name.removesuffix(ending))
            return Column(column.description.format(what), column.unit)
    if "/" in name or name.startswith("corrupt-") or name in _ATTACKS:
        return Column(f"Share of test images right under {_describe_attack(name)}", "[0, 1]")
    return Column(f"Setting {name!r} of the run, or accuracy under an attack called so", "as set")


_ATTACKS = {
    "natural": "no attack",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "cw": "PGD on the margin of Carlini and Wagner",
    "aa": "AutoAttack",
    "corruptions": "all common corruptions (the mean)",
    "smooth": "any attack within the radius, by a certificate of the smoothed network",
    "worst_case": "the worst of all attacks, image by image",
}


def _describe_attack(name: str) -> str:
    whole, _, part = name.partition("/")
    if whole.startswith("corrupt-"):
        text = f"corruption by {whole.removeprefix('corrupt-')}"
        return f"{text} of severity {part}" if part else text
    text = _ATTACKS.get(whole, f"attack {whole!r}")
    return f"{text}, after its part {part}" if part else text


@cache
def _config_columns() -> Mapping[str, Column]:
    """The fields of a run's configuration, in the words of its docstring."""
    import docstring_parser

    from nasbench_at.config import RunConfig
    from nasbench_at.config.allowed_values import describe_allowed, field_annotations

    said = docstring_parser.parse(RunConfig.__doc__ or "").params
    texts = {each.arg_name: " ".join((each.description or "").split()) for each in said}
    return {
        name: Column(f"Configuration: {texts[name]}", describe_allowed(annotation))
        for name, annotation in field_annotations(RunConfig).items()
    }
