"""Robustness measured: suites of attacks on a run's or a user's network, and networks compared.

Nothing is imported here, so that :mod:`nasbench_at.evaluation.options` stays free of torch.
"""
