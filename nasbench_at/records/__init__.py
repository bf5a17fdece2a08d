"""What was run, as data: a record a run, and a table over many.

No torch here, so that records can be read and queried anywhere.
"""

from __future__ import annotations

from nasbench_at.records.benchmark import Benchmark
from nasbench_at.records.columns import Column, describe_column
from nasbench_at.records.conditions import (
    Conditions,
    conditions_of,
    describe_attack,
    describe_conditions,
    differences,
)
from nasbench_at.records.evaluation import AttackResult, Evaluation, TrustCheck, wilson_interval
from nasbench_at.records.measurements import Measurements
from nasbench_at.records.metrics import read_metrics
from nasbench_at.records.places import shipped_tables
from nasbench_at.records.record import SCHEMA_VERSION, Record, read_record
from nasbench_at.records.reliability import Reliability, measure_reliability
from nasbench_at.records.seeds import SeedAccuracies, SeedComparison, compare_seeds, mean_interval
from nasbench_at.records.summary import Ranking, Summary

__all__ = [
    "SCHEMA_VERSION",
    "AttackResult",
    "Benchmark",
    "Column",
    "Conditions",
    "Evaluation",
    "Measurements",
    "Ranking",
    "Record",
    "Reliability",
    "SeedAccuracies",
    "SeedComparison",
    "Summary",
    "TrustCheck",
    "compare_seeds",
    "conditions_of",
    "describe_attack",
    "describe_column",
    "describe_conditions",
    "differences",
    "mean_interval",
    "measure_reliability",
    "read_metrics",
    "read_record",
    "shipped_tables",
    "wilson_interval",
]
