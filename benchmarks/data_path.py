"""The data path alone: ours against torchvision's transforms image by image in a DataLoader.

An epoch of shuffled batches, cropped, mirrored and turned to floats in [0, 1]; no network. Ours has
one thread by default, as one process of the DataLoader has. Run it from the checkout.

python benchmarks/data_path.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import time_in_turn
from nasbench_at.data import Augmentation, LabelledImages
from nasbench_at.runtime.seeding import make_generator


class PlainImages(Dataset[tuple[Tensor, int]]):
    """As torchvision's CIFAR10: pixels in an array, an image made and transformed when asked."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
        size = images.shape[-1]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(size, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Returns one augmented image, and its label."""
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def count(batches: Iterable[tuple[Tensor, Tensor]]) -> int:
    """Takes all batches and does nothing with them."""
    return sum(len(y) for _, y in batches)


def main() -> None:
    """Prints microseconds an image, and the ratios to a DataLoader without and with workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    images = torch.randint(256, (arguments.images, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(10, (arguments.images,))
    plain, ours = PlainImages(images, labels), LabelledImages(images, labels, channels_last=True)

    def loader(num_workers: int) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(
            plain,
            batch_size=arguments.batch_size,
            shuffle=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        )

    def our_epoch() -> int:
        return count(
            ours.shuffled_batches(
                arguments.batch_size,
                make_generator(0, "order"),
                augmentation=Augmentation(padding=4, flip=True),
                augmentation_generator=lambda number: make_generator(0, "augmentation", number),
            )
        )

    alone, helped = loader(0), loader(arguments.workers)
    seconds = time_in_turn(
        {
            "torchvision, no workers": lambda: count(alone),
            f"torchvision, {arguments.workers} workers": lambda: count(helped),
            "ours": our_epoch,
        },
        rounds=arguments.rounds,
    )
    print(
        f"{arguments.images} images of 3x32x32, batch {arguments.batch_size}, "
        f"{arguments.threads} thread(s)"
    )
    for name, value in seconds.items():
        ratio = value / seconds["ours"]
        print(f"{name:24}{value / arguments.images * 1e6:8.1f} us an image, ratio {ratio:.1f}")


if __name__ == "__main__":
    main()
