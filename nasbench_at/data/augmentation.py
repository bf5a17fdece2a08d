"""Random crop and mirror image, per sample, of uint8 batches on their device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

__all__ = ["Augmentation"]


@dataclass(frozen=True)
class Augmentation:
    """A crop of the zero-padded image at a random place, mirrored left to right half the time.

    Args:
        padding: Zeros added on each side before the crop, at least 0; the size stays.
        flip: Whether to mirror.

    Raises:
        ValueError: If ``padding`` is negative.
    """

    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise ValueError(f"padding must be at least 0, got {self.padding!r}")

    def draw(self, num_images: int, generator: Generator) -> Tensor:
        """Draws what happens to each image, on the generator's device.

        Returns:
            int64, shape ``(num_images, 3)``: top and left of the crop in 0..2 * padding, and
            whether to mirror, 0 or 1.
        """
        device = generator.device
        high = 2 * self.padding + 1
        corners = torch.randint(high, (num_images, 2), generator=generator, device=device)
        # Drawn in any case, so that the crops do not depend on whether images are mirrored.
        mirrored = torch.randint(2, (num_images, 1), generator=generator, device=device)
        return torch.cat((corners, mirrored * self.flip), dim=1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Mirrors and crops each image as drawn, without waiting for the device.

        Args:
            images: Shape ``(N, C, H, W)`` with N at least 1, channels_last or contiguous.
            draws: From :meth:`draw`, on the images' device.

        Returns:
            The same type, shape and memory layout.
        """
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        # What lies together in memory is copied together: whole pixels, or a channel's values.
        pixels = images.permute(0, 2, 3, 1).unsqueeze(1) if channels_last else images.unsqueeze(4)
        num, planes, height, width, depth = pixels.shape
        top, left, mirrored = draws.view(num, 3, 1, 1).unbind(1)

        padded = self._pad_with_mirror_images(pixels)
        padded_height, padded_width = padded.shape[3:5]

        def count(stop: int) -> Tensor:
            return torch.arange(stop, device=images.device)

        sample = mirrored * num + count(num).view(-1, 1, 1)
        line = (sample * planes + count(planes).view(-1, 1)) * padded_height + top + count(height)
        # Every row of every crop is one run of memory, so one gather of runs does it all.
        runs = padded.flatten().unfold(0, width * depth, depth)
        rows = runs.index_select(0, (line * padded_width + left).flatten())
        cropped = rows.view(pixels.shape)
        return cropped.squeeze(1).permute(0, 3, 1, 2) if channels_last else cropped.squeeze(4)

    def _pad_with_mirror_images(self, pixels: Tensor) -> Tensor:
        """Returns ``(2, N, planes, H + 2 * padding, W + 2 * padding, depth)``, mirrored second."""
        num, planes, height, width, depth = pixels.shape
        border = 2 * self.padding
        padded = pixels.new_zeros(2, num, planes, height + border, width + border, depth)
        inner = padded.narrow(3, self.padding, height).narrow(4, self.padding, width)
        inner[0] = pixels
        inner[1] = pixels.flip(3)
        return padded
