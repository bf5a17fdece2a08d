"""A study in its storage: created once, opened by everyone, refused by other code or data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import RDBStorage

from nasbench_at.config.allowed_values import hide_passwords
from nasbench_at.config.suggestions import suggest
from nasbench_at.data import DataSet, ImageSpec
from nasbench_at.evaluation.robustness import count_samples
from nasbench_at.evaluation.standard_attacks import check_attacks, standard_attacks
from nasbench_at.networks.graph import BrokenBlockError, count_planned_parameters
from nasbench_at.runtime.atomic_files import write_atomically
from nasbench_at.runtime.devices import select_device
from nasbench_at.runtime.provenance import package_version
from nasbench_at.runtime.seeding import derive_seed
from nasbench_at.training.launch import load_config_data, warn_of_few_held_out
from nasbench_at.training.plugins import load_plugins
from studies.config import DIRECTIONS, StudyConfig, study_folder
from studies.storage import folder_storage, open_storage, without_experimental_warnings
from studies.variants import with_blocks

__all__ = [
    "OpenStudy",
    "OtherVersionError",
    "check_fit",
    "create_or_open_study",
    "create_sampler",
    "list_stored",
    "open_study",
    "quiet_optuna",
    "source_hash",
]


class OtherVersionError(ValueError):
    """The study was begun with other code or other data."""


@dataclass(frozen=True)
class OpenStudy:
    """A study, ready to be worked on or looked at.

    Attributes:
        config: What it is.
        study: The Optuna study, with its sampler and pruner.
        storage: Where it is kept.
        images: What its networks must fit.
    """

    config: StudyConfig
    study: optuna.Study
    storage: RDBStorage
    images: ImageSpec


def create_or_open_study(
    config: StudyConfig,
    url: str,
    *,
    runs_dir: Path,
    data_root: Path | None = None,
    any_code: bool = False,
) -> OpenStudy:
    """Creates a study in its storage and its folder, or opens the same one.

    Args:
        config: The study.
        url: Storage.
        runs_dir: Where runs lie.
        data_root: Where the data set's files lie.
        any_code: Go on although the study was begun with other code.

    Raises:
        StorageError: If the storage cannot be reached.
        ValueError: If there is another study of that name, or this one was begun with other code
            or data.
    """
    data = load_config_data(config.base, select_device("cpu"), data_root)
    check_fit(config, data)
    warn_of_few_held_out(config.base, data)
    provenance = _provenance(data)
    folder = study_folder(runs_dir, config.name)
    if url == folder_storage(folder):
        _make(folder)
    storage = open_storage(url, create=True)
    known = _find(storage, config.name)
    if known is None:
        study = optuna.create_study(
            storage=storage,
            study_name=config.name,
            directions=[DIRECTIONS[name] for name in config.objectives],
            load_if_exists=True,
        )
        with without_experimental_warnings():
            study.set_metric_names(list(config.objectives))
        for name, value in provenance.items():
            study.set_user_attr(name, value)
        study.set_user_attr("config", config.to_dict())
    else:
        there = StudyConfig.from_dict(known["config"])
        if there != config:
            raise ValueError(
                f"study {config.name!r} exists and is another one: "
                f"{'; '.join(config.differences(there))}; choose another name (--name)"
            )
        _check_provenance(config.name, known, provenance, any_code=any_code)
    _write(folder, config)
    return _open(storage, config, provenance)


def check_fit(config: StudyConfig, data: DataSet) -> None:
    """Checks whatever of a study can be wrong before its first run.

    Raises:
        ValueError: If the data are too few for a batch or AutoAttack, or of too few classes, or a
            DS-Net cannot be built.
    """
    more = (attack for planned in config.runs for attack in planned.attacks)
    names = dict.fromkeys((*config.attacks, *more))
    runs = [planned.config for planned in config.runs] or [config.base]
    for norm in {run.norm for run in runs}:
        attacks = standard_attacks(tuple(names), eps=1.0, norm=norm)  # whatever the radius
        check_attacks(attacks.values(), data.num_classes, data.image_shape)
    count_samples(config.aa_samples, len(data.test))
    num_images = len(data.train)
    for run in runs:
        if run.batch_size is not None and run.batch_size > num_images:
            raise ValueError(
                f"batch_size must be at most the number of training images, {num_images}, got "
                f"{run.batch_size}"
            )
    _check_networks(config, data.spec)


def _check_networks(config: StudyConfig, images: ImageSpec) -> None:
    """Lays the study's DS-Nets out, so that a user's block fails here and not in every trial."""
    load_plugins(config.base.plugins)
    runs = [planned.config for planned in config.runs if planned.config.model == "ds_net"]
    if config.space is not None:
        runs = [with_blocks(config.base, config.space.blocks)]
    networks = [run.architecture(images.image_shape, images.num_classes) for run in runs]
    for network in dict.fromkeys(networks):
        try:
            count_planned_parameters(network)
        except BrokenBlockError:
            raise
        except ValueError:
            if config.space is None:  # else some other width or set may do
                raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {str(folder)!r}: {error.strerror}") from None


def _write(folder: Path, config: StudyConfig) -> None:
    _make(folder)
    try:
        write_atomically(folder / "study.yaml", config.to_yaml().encode())
    except OSError as error:
        raise ValueError(f"cannot write to {str(folder)!r}: {error.strerror}") from None


def open_study(
    name: str,
    url: str,
    *,
    data_root: Path | None = None,
    any_code: bool = False,
    to_work: bool = False,
) -> OpenStudy:
    """Opens a study that is in its storage; writes nothing.

    Args:
        name: The study's name.
        url: Storage.
        data_root: Where the data set's files lie.
        any_code: Work on although the study was begun with other code.
        to_work: Refuse other code and data; a study that is only looked at may be of any.

    Raises:
        StorageError: If the storage cannot be reached.
        ValueError: If there is no such study, or it was begun with other code or data.
    """
    storage = open_storage(url)
    known = _find(storage, name)
    if known is None:
        where = hide_passwords(url)
        raise ValueError(
            f"there is no study {name!r} in storage {where!r}; {suggest(name, _sizes(storage))}"
        )
    config = StudyConfig.from_dict(known["config"])
    if to_work:
        data = load_config_data(config.base, select_device("cpu"), data_root)
        _check_provenance(name, known, _provenance(data), any_code=any_code)
    return _open(storage, config, known)


def list_stored(url: str) -> dict[str, int]:
    """Returns the studies of a storage with their numbers of trials, in alphabetical order.

    Those that others than this package keep there are left out.

    Raises:
        StorageError: If the storage cannot be reached or holds no studies.
    """
    return _sizes(open_storage(url))


def _sizes(storage: RDBStorage) -> dict[str, int]:
    summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
    configs = {study.study_name: study.user_attrs.get("config") for study in summaries}
    return {name: config["num_trials"] for name, config in sorted(configs.items()) if config}


def _open(storage: RDBStorage, config: StudyConfig, provenance: Mapping[str, Any]) -> OpenStudy:
    load_plugins(config.base.plugins)
    study = optuna.load_study(
        study_name=config.name,
        storage=storage,
        sampler=create_sampler(config),
        pruner=_create_pruner(config),
    )
    shape = tuple(provenance["input_shape"])
    return OpenStudy(config, study, storage, ImageSpec(shape, provenance["num_classes"]))


def _find(storage: RDBStorage, name: str) -> Mapping[str, Any] | None:
    """What is known of a study of that name; None if there is none that was fully created."""
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        return None
    attributes = storage.get_study_user_attrs(study_id)
    # The configuration is written last: without it, the creation was cut off and is repeated.
    return attributes if "config" in attributes else None


def _provenance(data: DataSet) -> dict[str, Any]:
    return {
        "version": package_version(),
        "source_hash": source_hash(),
        "data_fingerprint": data.fingerprint,
        "input_shape": list(data.image_shape),
        "num_classes": data.num_classes,
    }


def _check_provenance(
    name: str, known: Mapping[str, Any], here: Mapping[str, Any], *, any_code: bool
) -> None:
    if known["data_fingerprint"] != here["data_fingerprint"]:
        raise OtherVersionError(
            f"study {name!r} was begun with other data: fingerprint "
            f"{known['data_fingerprint']} there, {here['data_fingerprint']} here"
        )
    if known["source_hash"] != here["source_hash"] and not any_code:
        raise OtherVersionError(
            f"study {name!r} was begun with other code: nasbench-at {known['version']} "
            f"({known['source_hash']}) there, {here['version']} ({here['source_hash']}) here; "
            "--any-code goes on nevertheless"
        )


def source_hash() -> str:
    """Returns a hash of the Python files that decide what a trial does."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for package in ("blocks", "nasbench_at", "studies"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)};".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class _BruteForceSampler(optuna.samplers.BruteForceSampler):
    """Every combination once; trials beyond them repeat some, which are found in the records."""

    def after_trial(self, *_: object) -> None:
        """Stops no study, as Optuna's does for its own loop: the end of the queue is the end."""


def create_sampler(config: StudyConfig, slot: int = 0) -> BaseSampler:
    """Returns a study's sampler for one of its slots.

    A seeded sampler draws other numbers in each slot, whichever worker takes it: workers that
    share a seed would otherwise choose the same.

    Raises:
        ValueError: If it does not take the options.
    """
    samplers = optuna.samplers
    kinds: dict[str, type[BaseSampler]] = {
        "tpe": samplers.TPESampler,
        "random": samplers.RandomSampler,
        "nsga2": samplers.NSGAIISampler,
        "gp": samplers.GPSampler,
        "qmc": samplers.QMCSampler,
        "brute_force": _BruteForceSampler,
    }
    own: dict[str, Any] = {}
    seed = config.sampler_options.get("seed")
    if seed is not None:
        seed = derive_seed(seed, "sampler", slot) % 2**32
    if config.sampler == "qmc":
        # One sequence for all slots, whose place in it the study keeps; it knows no categories.
        own["independent_sampler"] = samplers.RandomSampler(seed=seed)
        own["warn_independent_sampling"] = False
    elif seed is not None:
        own["seed"] = seed
    name, kind = f"sampler {config.sampler!r}", kinds[config.sampler]
    sampler: BaseSampler = _create(name, kind, config.sampler_options, **own)
    return sampler


def _create_pruner(config: StudyConfig) -> BasePruner:
    pruners = optuna.pruners
    kinds: dict[str, type[BasePruner]] = {
        "none": pruners.NopPruner,
        "hyperband": pruners.HyperbandPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner,
        "median": pruners.MedianPruner,
    }
    pruner: BasePruner = _create(
        f"pruner {config.pruner!r}", kinds[config.pruner], config.pruner_options
    )
    return pruner


def _create(what: str, kind: Any, options: Mapping[str, Any], **own: Any) -> Any:
    """Makes something from the options of a user and from values of our own, which win."""
    try:
        with without_experimental_warnings():
            return kind(**{**options, **own})
    except (TypeError, ValueError) as error:
        given = json.dumps(dict(options))
        raise ValueError(f"{what} does not take {given}: {error}") from None


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from logging every trial; what happens is shown by ourselves."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
