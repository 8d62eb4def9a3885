"""The standard FID and Inception score: by the weights that published figures come from, which a user has as a file.

The network, its resizing and both formulas are torch-fidelity's, which follow the TensorFlow code of the papers. The
weights are loaded as data, and no others are taken: by others the figures would compare with nothing published.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evonorm.lab.errors import UserError

NAME = "fid.json"
# The Inception network of 2015-12-05, in PyTorch's format; one file under two names.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILES = "weights-inception-2015-12-05-6726825d.pth (torch-fidelity's) or pt_inception-2015-12-05-6726825d.pth"
BATCH = 50
_FEATURES, _LOGITS = "2048", "logits_unbiased"


def require(path: str) -> None:
    """Raises UserError if torch-fidelity is not installed, or there is no such file."""
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        raise UserError("inception: the standard FID is torch-fidelity's: pip install 'evonorm[fid]'") from None
    if not Path(path).expanduser().is_file():
        raise UserError(f"inception: there is no file {path!r}; give the path of {FILES}, or leave inception out")


class Inception:
    """The network of the papers, with the weights of the file at `path`. Raises UserError if it holds other ones."""

    def __init__(self, path: str, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # The library would unpickle whatever the file holds: it gets what was read as tensors, written anew.
        weights = io.BytesIO()
        torch.save(_weights(Path(path).expanduser()), weights)
        weights.seek(0)
        features = [_FEATURES, _LOGITS]
        self.network = FeatureExtractorInceptionV3("inception", features, feature_extractor_weights_path=weights)
        self.network.to(device)
        self.device = device

    @torch.inference_mode()
    def __call__(self, images: Iterable[Tensor], stop: Callable[[], bool]) -> tuple[Tensor, Tensor]:
        """Features (N, 2048) and logits (N, 1008), on the CPU, of batches of uint8 images (n, 3, H, W).

        Raises KeyboardInterrupt if stop asks for it.
        """
        seen: list[tuple[Tensor, Tensor]] = []
        for batch in images:
            if stop():
                raise KeyboardInterrupt
            features, logits = self.network(batch.to(self.device))
            seen.append((features.cpu(), logits.cpu()))
        features, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return features, logits


def measured(
    inception: Inception, images: Tensor, samples: Iterator[Tensor], stop: Callable[[], bool]
) -> dict[str, Any]:
    """FID of the samples to the images, their Inception score, the mean over ten parts, and of how many these are.

    images: uint8 (N, 3, H, W). samples: batches in [-1, 1], which are rounded to whole numbers from 0 to 255.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    wanted = fid_features_to_statistics(inception(torch.split(images, BATCH), stop)[0])
    features, logits = inception((_pixels(batch) for batch in samples), stop)
    distance = fid_statistics_to_metric(fid_features_to_statistics(features), wanted, False)
    score = isc_features_to_metric(logits)
    return {
        "fid": distance[KEY_METRIC_FID],
        "inception_score": score[KEY_METRIC_ISC_MEAN],
        "inception_score_deviation": score[KEY_METRIC_ISC_STD],
        "samples": len(features),
        "training_images": len(images),
        "weights_sha256": SHA256,
        "by": f"torch-fidelity {importlib.metadata.version('torch-fidelity')}",
    }


def told(found: dict[str, Any]) -> str:
    """In words, with the numbers that a figure is worth nothing without."""
    return (
        f"FID {found['fid']:.4g} of {found['samples']:,} samples to {found['training_images']:,} training images, "
        f"Inception score {found['inception_score']:.4g} ± {found['inception_score_deviation']:.2g}, "
        "by the standard Inception weights"
    )


def _pixels(images: Tensor) -> Tensor:
    return images.add(1).mul(127.5).round().clamp(0, 255).byte()


def _weights(path: Path) -> Any:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise UserError(
            f"inception: {path} does not hold the standard weights, by which alone FIDs compare with published ones: "
            f"its sha256 begins with {found[:8]}, theirs with {SHA256[:8]}; give {FILES}, or leave inception out"
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever it stumbles over
        raise UserError(f"inception: {path} holds more than tensors, or cannot be read: {error}") from error
