"""The noise of a case: added noise, how far the client moved, and rows that are compressed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hand_made import one_embedding, round_of
from linear_client import World, evidence_of, skewed_steps
from torch import Tensor

from rlu_cli.attacks import noise_model
from rlu_cli.attacks.noise_model import NoiseModel, RowBlock, added_noise, row_blocks
from rlu_cli.attacks.observations import INTERPOLATION
from rlu_cli.numerics.class_covariances import class_covariances
from rlu_cli.numerics.output_means import tilted
from rlu_cli.types import BatchMean, Evidence, Head


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_noise(evidence: Evidence, size: float, seed: int) -> Evidence:
    """Normal noise of standard deviation `size` on every entry of the update, in units of u."""
    scale = size * evidence.lr * float(evidence.weights[-1].sum())
    assert evidence.update.bias is not None
    noise = Head(
        scale * normal(*evidence.update.weight.shape, seed=seed),
        scale * normal(*evidence.update.bias.shape, seed=seed + 1),
    )
    return replace(evidence, update=evidence.update + noise)


@pytest.mark.parametrize("size", [0.05, 0.1, 0.5])
@pytest.mark.parametrize("steps", [1, 4])
def test_noise_on_the_update_is_recovered_from_its_column_sums(size: float, steps: int) -> None:
    evidence = evidence_of(skewed_steps(steps, 64), world=World(width=200))
    found = added_noise(with_noise(evidence, size, seed=3)) ** 0.5
    assert found == pytest.approx(size, rel=0.15)


def test_it_is_the_mean_square_of_the_column_sums_over_the_number_of_classes() -> None:
    gradient = Head(
        torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 1.0]], dtype=torch.float64),
        torch.tensor([0.0, 2.0, 0.0], dtype=torch.float64),
    )
    evidence = round_of(gradient, batches=[4])
    assert added_noise(evidence) == pytest.approx((1 + 9 + 4) / 3 / 3)
    assert added_noise(replace(evidence, biased=False)) == pytest.approx((1 + 9) / 2 / 3)


def test_an_update_without_noise_has_none() -> None:
    evidence = evidence_of(skewed_steps(4, 64), world=World(width=200))
    assert added_noise(evidence) < 1e-20


def test_one_step_goes_nowhere() -> None:
    one, several = (evidence_of(skewed_steps(steps, 24)) for steps in (1, 4))
    assert noise_model.round_of(one, one[INTERPOLATION].outputs).folds == 0
    assert noise_model.round_of(one, one[INTERPOLATION].outputs).adapted == 0
    moved = noise_model.round_of(several, several[INTERPOLATION].outputs)
    assert moved.folds > 0
    assert 0 < moved.adapted < 1
    unknown = replace(several, lr=1.0, lr_known=False)
    assert noise_model.round_of(unknown, unknown[INTERPOLATION].outputs).folds == 0


def test_a_longer_round_or_a_faster_one_goes_further() -> None:
    def folds(steps: int, lr: float) -> float:
        evidence = evidence_of(skewed_steps(steps, 24), lr=lr)
        return noise_model.round_of(evidence, evidence[INTERPOLATION].outputs).folds

    plain = folds(4, 0.01)
    assert folds(8, 0.01) == pytest.approx(2 * plain, rel=0.2)
    assert folds(4, 0.02) == pytest.approx(2 * plain, rel=0.2)


@pytest.mark.parametrize(("folds", "adapted"), [(1e-3, 5e-4), (0.1, 0.0484), (1, 0.3679)])
def test_how_far_the_end_is_ahead_of_the_mean(folds: float, adapted: float) -> None:
    assert noise_model.Round(folds).adapted == pytest.approx(adapted, rel=0.01)
    assert noise_model.Round(100.0).adapted == pytest.approx(0.99)


@pytest.mark.parametrize(("folds", "part"), [(0.1, 0.0), (4, 0.0078), (30, 0.234), (1e4, 0.994)])
def test_only_a_very_long_round_says_nothing_of_the_labels(folds: float, part: float) -> None:
    assert noise_model.Round(folds).roaming == pytest.approx(part, rel=0.02, abs=1e-4)


def _rows(evidence: Evidence, tilt: float = 0.0) -> tuple[list[RowBlock], Tensor]:
    interpolation = evidence[INTERPOLATION]
    importance = tilted(interpolation.outputs[0], tilt)
    points = torch.full((len(interpolation.points),), 1 / len(interpolation.points)).double()
    return row_blocks(evidence, interpolation, points, importance), importance


def test_an_update_that_is_not_linear_or_of_unknown_rate_has_no_rows() -> None:
    evidence = evidence_of(skewed_steps(4, 24))
    assert [block.name for block in _rows(evidence)[0]] == ["update"]
    assert not _rows(replace(evidence, linear=False))[0]
    assert not _rows(replace(evidence, lr=1.0, lr_known=False))[0]


def _with_means(width: int, images: int = 60) -> tuple[Evidence, Tensor]:
    """A layer of `width` channels that separates the classes, and the client's true shares."""
    labels = skewed_steps(4, 200)
    evidence = evidence_of(labels, images=images)
    interpolation = evidence[INTERPOLATION]
    shown = interpolation.outputs[0].labels
    centres = normal(6, width, seed=5)
    inputs = centres[shown] + normal(len(shown), width, seed=6)
    shares = labels.sum(0).double() / int(labels.sum())
    observed = shares @ centres + normal(width, seed=7) / int(labels.sum()) ** 0.5
    mean = BatchMean(
        layer="bn",
        mean=observed,
        weights=torch.full((4,), 0.25).double(),
        rounding=torch.zeros(width).double(),
        inputs=(inputs, inputs + 0.01 * normal(6, width, seed=8)[shown], inputs),
    )
    seen = replace(interpolation, means=(mean,))
    return evidence.with_observed(INTERPOLATION, seen), shares


def _solved(block: RowBlock, labels: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares by the pooled covariance within classes, and the covariance of z."""
    within = class_covariances(block.values, labels, importance)
    plane = torch.linalg.qr((torch.eye(6) - 1 / 6).double()[:, 1:])[0]
    columns = within.means.T @ plane
    inverse = torch.linalg.inv(within.pooled)
    information = columns.T @ inverse @ columns
    target = block.observed - within.means.mean(0)
    amounts = torch.linalg.solve(information, columns.T @ inverse @ target)
    return 1 / 6 + plane @ amounts, torch.linalg.inv(information)


def test_a_compressed_layer_gives_the_same_estimate() -> None:
    evidence, _ = _with_means(150, images=100)
    labels = evidence[INTERPOLATION].outputs[0].labels
    rows, importance = _rows(evidence)
    mean = evidence[INTERPOLATION].means[0]
    points = torch.full((3,), 1 / 3).double()
    whole = noise_model._buffer_rows(mean, points, labels, 6, importance)
    short = rows[-1]
    assert len(whole.observed) == 150
    assert len(short.observed) < 60
    assert short.values.shape == (len(labels), len(short.observed))
    assert short.drift.shape == (6, len(short.observed))
    first, before = _solved(whole, labels, importance)
    second, after = _solved(short, labels, importance)
    assert float((first - second).abs().max()) < 0.01
    assert float(after.trace()) < 1.1 * float(before.trace())


def test_a_narrow_layer_is_left_as_it_is() -> None:
    evidence, _ = _with_means(20)
    rows, _ = _rows(evidence)
    assert torch.equal(rows[-1].observed, evidence[INTERPOLATION].means[0].mean)


def test_the_parts_of_unknown_size_are_named_and_positive() -> None:
    evidence, shares = _with_means(20)
    interpolation = evidence[INTERPOLATION]
    rows, importance = _rows(evidence)
    labels = interpolation.outputs[0].labels
    moved = noise_model.round_of(evidence, interpolation.outputs)
    model = NoiseModel(evidence, rows, labels, importance, moved)
    mixed = shares * 0.95 + 0.05 / 6
    problem = model.problem(mixed, 0.8, 0.1)
    assert problem.centre == pytest.approx(0.64)
    assert list(problem.scaled) == [True] * 6 + [False] * 20
    assert [one.name for one in problem.components][:2] == ["discrepancy", "path"]
    for one in problem.components:
        assert float(torch.linalg.eigvalsh(torch.from_numpy(one.covariance)).min()) > -1e-9
    assert float(torch.linalg.eigvalsh(torch.from_numpy(problem.known)).min()) > 0
    assert float(torch.linalg.eigvalsh(torch.from_numpy(problem.fixed)).min()) > -1e-9
    plain = model.problem(mixed, 1.0, 0.1)
    assert torch.from_numpy(problem.means)[:, :6].numpy() == pytest.approx(0.8 * plain.means[:, :6])
    assert problem.means[:, 6:] == pytest.approx(plain.means[:, 6:])


def test_of_one_step_no_path_is_unknown() -> None:
    evidence = evidence_of(skewed_steps(1, 24))
    rows, importance = _rows(evidence)
    interpolation = evidence[INTERPOLATION]
    model = NoiseModel(
        evidence,
        rows,
        interpolation.outputs[0].labels,
        importance,
        noise_model.round_of(evidence, interpolation),
    )
    problem = model.problem(torch.full((6,), 1 / 6).double(), 1.0, 0.0)
    assert [one.name for one in problem.components] == ["discrepancy"]
    assert not problem.fixed.any()


def test_a_gradient_written_by_hand_is_read_as_it_is() -> None:
    evidence = round_of(one_embedding([0.25, 0.25, -0.5]), batches=[4])
    assert added_noise(evidence) == pytest.approx(0, abs=1e-30)
