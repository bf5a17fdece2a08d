"""The registry as the tests of this folder see it."""

from __future__ import annotations

import pytest

import nasbench_at.data.registry


@pytest.fixture
def own_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets that a test registers end with it."""
    loaders = dict(nasbench_at.data.registry._LOADERS)
    monkeypatch.setattr(nasbench_at.data.registry, "_LOADERS", loaders)
