"""What the examples share: a backbone that is named on the command line, and the features of a pack's pictures."""

from __future__ import annotations

import argparse

import torch
from command_line import at_least, callable_of, device, existing, json_object, pack
from torch import nn

import pass_loader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("train", type=pack, metavar="TRAIN", help="a pack whose pictures have classes")
    parser.add_argument("val", type=pack, metavar="VAL", help="another one; its classes are found by name")
    parser.add_argument(
        "--backbone", type=callable_of, required=True, metavar="MODULE:NAME",
        help="what makes the model, such as timm:create_model or torchvision.models:resnet50",
    )  # fmt: skip
    parser.add_argument("--arguments", type=json_object, default={}, metavar="JSON", help="of the backbone, as a dict")
    parser.add_argument("--weights", type=existing, metavar="FILE", help="a state_dict of torch.save for the backbone")
    parser.add_argument("--size", type=at_least(1), default=224, metavar="N", help="pixels (%(default)s)")
    parser.add_argument("--batch-size", type=at_least(1), default=128, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--num-workers", type=at_least(0), default=4, metavar="N", help="threads of the loader (%(default)s)"
    )
    parser.add_argument(
        "--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)"
    )


def backbone_of(options: argparse.Namespace) -> nn.Module:
    """Return the frozen backbone. Ends the program with a line where it cannot be made."""
    try:
        model = options.backbone(**options.arguments)
    except Exception as error:
        raise SystemExit(f"error: --backbone with these --arguments: {error}") from error
    if options.weights is not None:
        try:
            model.load_state_dict(torch.load(options.weights, map_location="cpu", weights_only=True))
        except Exception as error:
            raise SystemExit(f"error: --weights {options.weights}: {error}") from error
    return model.requires_grad_(False).eval().to(options.device)


def loader_of(
    pack: str,
    recipe: pass_loader.Recipe,
    options: argparse.Namespace,
    labels: dict[str, int] | None = None,
    **more: bool,
) -> pass_loader.DataLoader:
    """Return a loader whose batches are (pictures, labels, info). labels: numbers of classes, by name."""
    dataset = pass_loader.ShardDataset(pack, recipe, labels=labels)
    return pass_loader.DataLoader(
        dataset, options.batch_size, num_workers=options.num_workers, return_info=True,
        pin_memory=options.device != "cpu", **more,
    )  # fmt: skip


@torch.no_grad()
def features_of(model: nn.Module, loader: pass_loader.DataLoader, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (N, D) of length 1 and labels (N,), of each picture once."""
    features, labels = [], []
    for pictures, own, info in loader:
        once = info["valid"] & ~info["padding"] & (own >= 0)
        found = model(pictures.to(device, non_blocking=True)).flatten(1)
        features.append(nn.functional.normalize(found, dim=1)[once.to(device)])
        labels.append(own[once])
    return torch.cat(features), torch.cat(labels).to(device)
