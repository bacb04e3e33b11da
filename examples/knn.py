"""Weighted k-NN classification on frozen features, as DINO evaluates (Caron et al., ICCV 2021; Wu et al., CVPR 2018):

    python examples/knn.py imagenet-train imagenet-val --backbone timm:create_model \\
        --arguments '{"model_name": "vit_small_patch16_224.dino", "pretrained": true, "num_classes": 0}'

Each of the k most similar training pictures votes for its class with exp(similarity / temperature).
"""

from __future__ import annotations

import argparse

import torch
from command_line import above_zero, at_least
from features import add_arguments, backbone_of, features_of, loader_of

from pass_loader import recipes


def predict(
    features: torch.Tensor, train: torch.Tensor, labels: torch.Tensor, k: int, temperature: float, classes: int
) -> torch.Tensor:
    """Return the classes (N,) of features (N, D). train, labels: (M, D) and (M,)."""
    similar, nearest = (features @ train.T).topk(min(k, len(train)))
    votes = torch.zeros(len(features), classes, device=features.device)
    return votes.scatter_add_(1, labels[nearest], (similar / temperature).exp()).argmax(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Weighted k-NN on frozen features.")
    add_arguments(parser)
    parser.add_argument("--k", type=at_least(1), nargs="+", default=[10, 20, 100, 200], help="(10 20 100 200)")
    parser.add_argument("--temperature", type=above_zero, default=0.07, help="(%(default)s)")
    options = parser.parse_args()
    model = backbone_of(options)
    recipe = recipes.knn(resize=options.size * 256 // 224, size=options.size)
    train = loader_of(options.train, recipe, options)
    classes = train.dataset.class_to_idx
    known, labels = features_of(model, train, options.device)
    asked, truth = features_of(model, loader_of(options.val, recipe, options, classes), options.device)
    for k in options.k:
        correct = sum(
            int((predict(part, known, labels, k, options.temperature, len(classes)) == own).sum())
            for part, own in zip(asked.split(1024), truth.split(1024))
        )
        print(f"{k}-NN: {correct / len(truth):.2%} of {len(truth):,} pictures")


if __name__ == "__main__":
    main()
