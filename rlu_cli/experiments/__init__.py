"""The paper's tables and figures: one table or figure, one file; `TARGETS` lists them all."""

from __future__ import annotations

from rlu_cli.experiments.target import Nothing, Target

_ALL = (
    Target("table2", "table2", "every method on untrained models, m = 1 and m = 10"),
    Target("table3", "table3", "iAcc over the data heterogeneity alpha"),
    Target("table4", "table4", "iAcc on FedProx, SGD with momentum, FedDyn and SCAFFOLD"),
    Target("table5", "table5", "auxiliary images from a shifted distribution"),
    Target("table6", "table6", "Gaussian noise on gradients, under both interpretations"),
    Target("table7", "table7", "applicability of each method"),
    Target("figure1", "figure1", "every method as training progresses"),
    Target("figure2", "figure2", "RLU with fewer auxiliary images"),
    Target("figure4", "figures4to9", "logits of untrained LeNet-5 against a normal distribution"),
    Target("figure5", "figures4to9", "logits of LeNet-5 at 68 % training accuracy"),
    Target("figure6", "figures4to9", "logits of LeNet-5 at 83 %"),
    Target("figure7", "figures4to9", "logits of untrained VGG-16"),
    Target("figure8", "figures4to9", "logits of VGG-16 at 80 %"),
    Target("figure9", "figures4to9", "logits of VGG-16 at 95 %"),
    Target("figure10", "figures10to11", "partition of CIFAR-10 at three alphas"),
    Target("figure11", "figures10to11", "partition of CIFAR-100 at three alphas"),
)
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}

__all__ = ["TARGETS", "Nothing", "Target"]
