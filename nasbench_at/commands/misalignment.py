"""``nasbench-at misalignment``: who is best after standard and who after adversarial training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nasbench_at.commands.input_errors import bad_input, one_line_warnings
from nasbench_at.commands.run_arguments import RunArguments, parse_run_flags
from nasbench_at.config import RunConfig

if TYPE_CHECKING:
    from nasbench_at.records import Record

__all__ = ["MisalignmentArguments", "run_misalignment"]


@dataclass(frozen=True)
class MisalignmentArguments(RunArguments):
    """Arguments of ``nasbench-at misalignment``: those of ``train`` hold for every run.

    Attributes:
        models: The networks by name, or shell patterns such as 'tiny_*'.
    """

    models: tuple[str, ...] = ("tiny_*",)

    def configs(self) -> list[RunConfig]:
        """Returns a run for every network, way of training and seed.

        Raises:
            ValueError: If the method is ``st``, or a pattern matches no network.
        """
        from nasbench_at.networks.zoo import find_models

        if self.method == "st":
            raise ValueError("method must be another than st, which all networks are trained by")
        adversarial = super().configs()
        # The options of the other method are none of standard training's.
        standard = [
            replace(config, method="st", beta=None, tau_milestones=None) for config in adversarial
        ]
        return [
            replace(config, model=name)
            for name in find_models(self.models)
            for config in standard + adversarial
        ]


def run_misalignment(words: Sequence[str]) -> int:
    """Rank networks by natural accuracy after ST and by PGD accuracy after AT (Table 1)."""
    with bad_input():
        arguments = parse_run_flags(
            MisalignmentArguments,
            words,
            command="misalignment",
            description=run_misalignment.__doc__,
        )
        configs = arguments.configs()
    from analysis.misalignment import compute_misalignment, draw_misalignment
    from nasbench_at.console import stdout

    records = [_train_and_evaluate(arguments, config) for config in configs]
    with bad_input():
        misalignment = compute_misalignment(records)
    stdout.print(draw_misalignment(misalignment))
    return 0


def _train_and_evaluate(arguments: MisalignmentArguments, config: RunConfig) -> Record:
    """Returns a run's record; what is there already is neither trained nor evaluated again."""
    from nasbench_at.console import ConsoleReporter, stderr
    from nasbench_at.jobs import train
    from nasbench_at.run_evaluation import evaluate_run

    stderr.print(f"{config.model}, {config.method}, seed {config.seed}", highlight=False)
    reporter = ConsoleReporter()
    try:
        with bad_input(), one_line_warnings():
            record = train(
                config,
                runs_dir=arguments.runs_dir,
                data_root=arguments.data_root,
                device=arguments.device,
                reporter=reporter,
            )
    finally:
        reporter.stop()
    if record.evaluation is not None and "pgd" in record.evaluation["results"]:
        return record
    return evaluate_run(
        arguments.runs_dir / record.run_id,
        ("pgd",),
        device=arguments.device,
        data_root=arguments.data_root,
    )
