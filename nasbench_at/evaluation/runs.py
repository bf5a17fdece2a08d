"""A run that is looked at after its training: network, data and record, loaded when asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from nasbench_at.config import ResolvedConfig
from nasbench_at.data import DataSet, ImageSpec
from nasbench_at.records import Record, read_record
from nasbench_at.records.run_folders import RunFolder, open_run_folder
from nasbench_at.runtime.devices import select_device
from nasbench_at.training.checkpoints import load_weights
from nasbench_at.training.launch import create_network, load_config_data

__all__ = ["Run", "TrainedNetwork"]


class TrainedNetwork(ABC):
    """What has a record, weights, and data that it was trained on.

    Attributes:
        device: Where its network and data go.
        data_root: Where the data set's files lie.
    """

    device: torch.device
    data_root: str | Path | None

    @property
    @abstractmethod
    def config(self) -> ResolvedConfig:
        """How it was trained."""

    @property
    @abstractmethod
    def record(self) -> Record:
        """Its results and provenance.

        Raises:
            ValueError: If there is none yet, or it is damaged.
        """

    @property
    @abstractmethod
    def weights(self) -> Path:
        """The file of the weights that were selected."""

    @property
    @abstractmethod
    def images(self) -> ImageSpec:
        """What its network takes and tells apart."""

    @cached_property
    def data(self) -> DataSet:
        """Its data set.

        Raises:
            ValueError: If the data set is not usable, or a file of the configuration has changed.
        """
        return load_config_data(self.config, self.device, self.data_root)

    @cached_property
    def network(self) -> nn.Module:
        """Its network as selected, in eval mode.

        Raises:
            ValueError: If the weights are missing, damaged or of another architecture.
        """
        network = create_network(self.config, self.images, self.device)
        load_weights(self.weights, network)
        return network.eval()


@dataclass(frozen=True, eq=False)
class Run(TrainedNetwork):
    """A run, opened.

    Attributes:
        folder: Where its files lie.
        device: Where its network and data go.
        data_root: Where the data set's files lie.
    """

    folder: RunFolder
    device: torch.device
    data_root: str | Path | None = None

    @classmethod
    def open(
        cls, path: str | Path, *, device: str = "auto", data_root: str | Path | None = None
    ) -> Run:
        """Opens a run by its folder.

        Args:
            path: The run's folder.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            data_root: Where the data set's files lie.

        Raises:
            ValueError: If the path is no run's folder, or there is no such device.
        """
        return cls(open_run_folder(path), select_device(device), data_root)

    @property
    def config(self) -> ResolvedConfig:
        """Everything needed to repeat the run."""
        return self.folder.config

    @cached_property
    def record(self) -> Record:
        """Its results and provenance; there is none before the run has ended."""
        return read_record(self.folder.record)

    @property
    def weights(self) -> Path:
        """The file of the weights that were selected."""
        return self.folder.best

    @property
    def images(self) -> ImageSpec:
        """The images of its data set."""
        return self.data.spec
