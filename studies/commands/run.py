"""``nasbench-at study run`` and ``study worker``."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from nasbench_at.commands.flags import fill_in, flags_of, parameter_flags, parse_flags, read_flags
from nasbench_at.commands.input_errors import BadInputError, bad_input, one_line_warnings
from nasbench_at.commands.train import RunArguments
from nasbench_at.config import RunConfig
from nasbench_at.config.allowed_values import DataRoot, Device, Name, Range, StorageUrl
from nasbench_at.config.presets import DATA_NETWORKS
from nasbench_at.evaluation.options import L2_ATTACK_NAMES, AttackNames, Samples
from nasbench_at.records.run_folders import open_run_folder
from studies.commands.lookup import StudyArguments, only_study, warn_of_password

if TYPE_CHECKING:
    from studies.config import StudyConfig

__all__ = ["StudyRunArguments", "WorkerArguments", "run_study_run", "run_study_worker"]

EXIT_INTERRUPTED = 75

Recipe: TypeAlias = "Callable[..., StudyConfig]"


@dataclass(frozen=True)
class StudyRunArguments(RunArguments):
    """Arguments of ``nasbench-at study run``: those of ``train`` hold for every trial.

    Attributes:
        name: The study's name; by default the recipe's.
        workers: Processes that work at the same time; with GPUs, each gets one. 0 only creates the
            study, for workers started elsewhere.
        storage: URL of a database for workers on many machines; by default that of the variable
            NASBENCH_AT_STORAGE, where a password belongs, or else SQLite in the study's folder.
        ranks: Processes that train one trial together.
        attacks: Attacks on the test images after training: fgsm, pgd, cw, aa; by default the
            recipe's, under norm L2 those of them that it has.
        aa_samples: Let AutoAttack see so many of the test images.
        any_code: Go on with a study that was begun with other code.
        dry_run: Train nothing: show the runs and how long they would take.
        print_sbatch: Train nothing: print a SLURM array script for the workers.
    """

    name: Name | None = None
    workers: Annotated[int, Range("[0, 10000]")] = 1
    storage: StorageUrl | None = None
    ranks: Annotated[int, Range("[1, 10000]")] = 1
    attacks: AttackNames | None = None
    aa_samples: Samples | None = None
    any_code: bool = False
    dry_run: bool = False
    print_sbatch: bool = False


@dataclass(frozen=True)
class WorkerArguments(StudyArguments):
    """Arguments of ``nasbench-at study worker``.

    Attributes:
        data_root: Where the data set's files lie.
        device: auto, cpu, cuda or cuda:N.
        ranks: Processes that train one trial together.
        any_code: Work although the study was begun with other code.
    """

    data_root: DataRoot = None
    device: Device = "auto"
    ranks: Annotated[int, Range("[1, 10000]")] = 1
    any_code: bool = False


def run_study_run(words: Sequence[str]) -> int:
    """Run a recipe: study run RECIPE; what is there already is not run again."""
    from studies.recipes import RECIPES

    if not words or words[0].startswith("-"):
        if words and words[0] in ("-h", "--help"):
            sys.stdout.write(_describe_recipes(RECIPES.items()))
            return 0
        raise BadInputError(f"study run needs a recipe: {', '.join(RECIPES)}")
    with bad_input(), one_line_warnings():
        arguments, config = _parse(words[0], words[1:])
    if arguments.print_sbatch:
        sys.stdout.write(_array_script(config.name, arguments, words))
        return 0
    if arguments.dry_run:
        return _show_cost(config, arguments)
    return _run(config, arguments)


def _describe_recipes(recipes: Iterable[tuple[str, Recipe]]) -> str:
    lines = [f"  {name:<15} {_summary(recipe)}" for name, recipe in recipes]
    return (
        "usage: nasbench-at study run RECIPE [flags]   (study run RECIPE --help for each)\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _summary(recipe: Recipe) -> str:
    return (recipe.__doc__ or "").splitlines()[0]


def _parse(name: str, words: Sequence[str]) -> tuple[StudyRunArguments, StudyConfig]:
    """Parses the flags of a recipe, its own keyword arguments among them, and makes its study."""
    from nasbench_at.training.launch import warn_of_radius
    from studies.recipes import find_recipe
    from studies.variants import fit_batch

    recipe = find_recipe(name)
    parameters = inspect.signature(recipe).parameters
    own = [option for option in parameters if option not in ("base", "seeds", "data_root")]
    flags = [*parameter_flags(recipe, own, "options of the recipe"), *flags_of(StudyRunArguments)]
    given = read_flags(flags, words, f"study run {name}", _summary(recipe))
    arguments = fill_in(StudyRunArguments, given, config=_base_run(given))
    # A configuration always has a seed, which nobody need have meant.
    seeds = arguments.seeds or ((arguments.config.seed,) if "seed" in given else ())
    options = {option: given[option] for option in own if option in given}
    if "data_root" in parameters:
        options["data_root"] = arguments.data_root
    if "seeds" in parameters and seeds:
        options["seeds"] = seeds
    elif arguments.seeds:
        raise ValueError(f"this recipe takes one seed (--seed), got seeds {arguments.seeds}")
    base = arguments.config
    if not arguments.print_sbatch:  # the script's own study run has the data
        warn_of_radius(base)
        base = fit_batch(base, arguments.data_root)
    study = recipe(base, **options)
    if base.norm == "L2":
        study = replace(study, attacks=tuple(a for a in study.attacks if a in L2_ATTACK_NAMES))
    own_names = ("name", "attacks", "aa_samples")
    return arguments, replace(
        study, **{field: given[field] for field in own_names if field in given}
    )


def _base_run(given: Mapping[str, Any]) -> RunConfig:
    """Returns what the flags of a run change where no file is given."""
    if given.get("parents"):
        return open_run_folder(given["parents"][0]).config
    if given.get("model", "ds_net") != "ds_net":
        return RunConfig()
    return RunConfig(**DATA_NETWORKS.get(given.get("data", RunConfig.data), {}))


def _array_script(name: str, arguments: StudyRunArguments, words: Sequence[str]) -> str:
    from nasbench_at.runtime.slurm import words_without, worker_script
    from studies.storage import STORAGE_VARIABLE, has_password

    url = arguments.storage
    is_secret = url is not None and has_password(url)
    create = words_without(words, "--print-sbatch", has_value=False)
    create = [*words_without(create, "--workers"), "--workers", "0"]
    worker = ["--runs-dir", str(arguments.runs_dir), "--device", arguments.device]
    worker += [] if arguments.data_root is None else ["--data-root", str(arguments.data_root)]
    worker += ["--ranks", str(arguments.ranks)] if arguments.ranks > 1 else []
    worker += ["--any-code"] if arguments.any_code else []
    if is_secret:
        create = words_without(create, "--storage")
    elif url is not None:
        worker += ["--storage", url]
    needs_variable = is_secret or (url is None and bool(os.environ.get(STORAGE_VARIABLE)))
    variable = STORAGE_VARIABLE if needs_variable else None
    create = ["study", "run", *create]
    return worker_script(name, create, worker, ranks=arguments.ranks, variable=variable)


def _show_cost(config: StudyConfig, arguments: StudyRunArguments) -> int:
    from studies.commands.progress import show_cost
    from studies.costs import estimate_study

    with bad_input(), one_line_warnings():
        cost = estimate_study(config, data_root=arguments.data_root, device=arguments.device)
    show_cost(config, cost, max(arguments.workers, 1))
    return 0


def _run(config: StudyConfig, arguments: StudyRunArguments) -> int:
    from studies.commands.progress import StudyReporter, show_results
    from studies.storage import StorageError
    from studies.supervisor import StudyInterruptedError, create_study, work_through
    from studies.trial_run import WorkerSettings

    with one_line_warnings():
        with bad_input():
            warn_of_password(arguments.storage)
            if arguments.workers:  # those of other machines have devices of their own
                settings = WorkerSettings(
                    arguments.runs_dir, arguments.data_root, arguments.device, arguments.ranks
                )
            opened = create_study(
                config,
                runs_dir=arguments.runs_dir,
                storage=arguments.storage,
                data_root=arguments.data_root,
                any_code=arguments.any_code,
            )
        if arguments.workers == 0:
            sys.stdout.write(f"study {config.name} waits for workers\n")
            return 0
        reporter = StudyReporter(config.name)
        try:
            result = work_through(
                opened,
                settings,
                workers=arguments.workers,
                any_code=arguments.any_code,
                on_status=reporter.update,
            )
        except (StudyInterruptedError, StorageError) as stopped:
            sys.stderr.write(f"nasbench-at: {stopped}; the same command goes on\n")
            return EXIT_INTERRUPTED
        finally:
            reporter.stop()
    return show_results(result, arguments.runs_dir)


def run_study_worker(words: Sequence[str]) -> int:
    """Work on a study that was created, beside other workers, here or on other machines."""
    arguments = parse_flags(WorkerArguments, words, "study worker", run_study_worker.__doc__)
    from studies.forkserver import start_forkserver
    from studies.lifeline import end_with_supervisor

    end_with_supervisor()
    start_forkserver()
    from studies.storage import StorageError
    from studies.study import open_study, quiet_optuna
    from studies.trial_run import DiskFullError, WorkerSettings
    from studies.worker import Worker, say_to_stderr

    with quiet_optuna(), one_line_warnings():
        with bad_input():
            study = only_study(arguments)
            settings = WorkerSettings(
                study.runs_dir, arguments.data_root, arguments.device, arguments.ranks
            )
            opened = open_study(
                study.name,
                study.url,
                data_root=arguments.data_root,
                any_code=arguments.any_code,
                to_work=True,
            )
        try:
            finished = Worker(opened, settings, say_to_stderr).run()
        except (StorageError, DiskFullError) as error:
            sys.stderr.write(f"nasbench-at: {error}\n")
            return EXIT_INTERRUPTED
    return 0 if finished else EXIT_INTERRUPTED
