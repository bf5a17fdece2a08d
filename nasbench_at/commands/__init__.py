"""The commands of ``nasbench-at``, one a file; each imports what it needs when it runs."""
