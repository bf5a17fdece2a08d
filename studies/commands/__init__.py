"""``nasbench-at study`` and its commands; each imports what it needs when it runs."""
