"""``python -m nasbench_at`` is the ``nasbench-at`` command."""

from nasbench_at.cli import run

run()
