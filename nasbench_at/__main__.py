"""``python -m nasbench_at`` is the ``nasbench-at`` command."""

import sys

from nasbench_at.cli import main

sys.exit(main())
