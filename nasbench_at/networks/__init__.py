"""Networks: plain-data architectures, their graphs, and the modules built from them.

Nothing is imported here, so that :mod:`nasbench_at.config.architecture` stays free of torch.
"""
