"""Shares from several measurements of Gaussian figures, so that the noise is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import Tensor

from rlu_cli.numerics.fusion import Fused, fuse
from rlu_cli.numerics.measurement import Measurement, Sampling
from rlu_cli.numerics.simplex import mixture
from rlu_cli.types import Status

TRUTH = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
STEPS, BATCH = 5, 40
EVEN = torch.full((STEPS,), 1 / STEPS, dtype=torch.float64)
LATE = torch.tensor([0.05, 0.1, 0.15, 0.25, 0.45], dtype=torch.float64)  # later passes count more
SAMPLING = Sampling(BATCH, STEPS * BATCH)


@dataclass(frozen=True)
class Drawn:
    """One to be drawn: means (N, D) of its figures, within-class mixing (D, D), weights."""

    means: Tensor
    inside: Tensor
    weights: Tensor = EVEN


def _normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _kind(
    width: int, wide: float, seed: int, *, weights: Tensor = EVEN, classes: int = len(TRUTH)
) -> Drawn:
    inside = wide * (torch.eye(width) + 0.3 * _normal(width, width, seed=seed + 1))
    return Drawn(_normal(classes, width, seed=seed), inside, weights)


SHARP, BLURRED = _kind(8, 0.7, 10), _kind(6, 2.0, 20)
UNEVEN = _kind(8, 0.7, 10, weights=LATE)


def _figures(kinds: tuple[Drawn, ...], labels: Tensor, seed: int) -> list[Tensor]:
    """One draw of every image: measurements see the same images, and share part of the noise."""
    shared = _normal(len(labels), max(k.means.shape[1] for k in kinds), seed=seed)
    found = []
    for index, kind in enumerate(kinds):
        own = _normal(len(labels), kind.means.shape[1], seed=seed + 1 + index)
        drawn = 0.8 * own + 0.6 * shared[:, : kind.means.shape[1]]
        found.append(kind.means[labels] + drawn @ kind.inside)
    return found


@dataclass(frozen=True)
class Draw:
    """A client and a server: measurements, labels of the images, the client's own shares."""

    measurements: tuple[Measurement, ...]
    labels: Tensor
    shares: Tensor


def _draw(kinds: tuple[Drawn, ...], seed: int, *, truth: Tensor = TRUTH, images: int = 60) -> Draw:
    classes = len(truth)
    generator = torch.Generator().manual_seed(seed)
    batches = torch.stack(
        [torch.multinomial(truth, BATCH, True, generator=generator) for _ in range(STEPS)]
    )
    labels = torch.arange(classes).repeat_interleave(images)
    client = _figures(kinds, batches.flatten(), seed=100 * seed + 50)
    server = _figures(kinds, labels, seed=100 * seed + 70)
    measurements = []
    for kind, used, shown in zip(kinds, client, server, strict=True):
        observed = kind.weights @ used.view(STEPS, BATCH, -1).mean(1)
        nothing = torch.zeros(len(observed), dtype=torch.float64)
        measurements.append(Measurement(observed, shown, kind.weights, nothing, nothing[:, None]))
    shares = batches.flatten().bincount(minlength=classes).double() / batches.numel()
    return Draw(tuple(measurements), labels, shares)


def _fuse(draw: Draw, *measurements: Measurement, shares: Tensor = TRUTH) -> Fused:
    return fuse(measurements or draw.measurements, draw.labels, shares, SAMPLING)


@cache
def _draws(kinds: str, count: int = 250) -> tuple[Draw, ...]:
    table = {"both": (SHARP, BLURRED), "uneven": (UNEVEN, BLURRED), "blurred": (BLURRED,)}
    return tuple(_draw(table[kinds], seed) for seed in range(count))


def _isotropic() -> tuple[Tensor, Tensor, Tensor]:
    """Figures (A, D) whose covariance within every class is a multiple of the identity; labels."""
    means = _normal(4, 7, seed=3)
    crosses = torch.cat([torch.eye(7), -torch.eye(7)]).double()
    figures = torch.cat([mean + 0.2 * crosses for mean in means])
    return figures, torch.arange(4).repeat_interleave(14), means


@pytest.mark.parametrize("truth", [TRUTH, torch.tensor([0.0, 0.7, 0.3, 0.0], dtype=torch.float64)])
@pytest.mark.parametrize("off", [0.0, 0.3, 3.0])
def test_isotropic_noise_makes_it_plain_least_squares(off: float, truth: Tensor) -> None:
    figures, labels, means = _isotropic()
    observed = truth @ means + off * _normal(7, seed=8)
    nothing = torch.zeros(7, dtype=torch.float64)
    measurement = Measurement(observed, figures, EVEN, nothing, nothing[:, None])
    found = fuse([measurement], labels, TRUTH, SAMPLING)
    expected = mixture(means.T, observed).shares
    torch.testing.assert_close(found.shares, expected, rtol=0, atol=1e-6)
    assert found.status is Status.SOLVED


def test_figures_without_noise_give_the_shares_exactly() -> None:
    draw = _draw((SHARP, BLURRED), 1)
    sizes = torch.nn.functional.one_hot(draw.labels).double()
    exact = [
        replace(w, observed=TRUTH @ (sizes.T @ w.per_image_values / sizes.sum(0)[:, None]))
        for w in draw.measurements
    ]
    found = _fuse(draw, *exact)
    torch.testing.assert_close(found.shares, TRUTH, rtol=0, atol=1e-5)
    assert max(found.reduced_chi_square) < 1e-6


def _even(labels: Tensor) -> Tensor:
    return 1 / torch.bincount(labels).double()[labels]


@pytest.mark.parametrize("unknown_scale", [False, True])
def test_even_weights_are_none_at_all(unknown_scale: bool) -> None:
    draw = _draws("both")[7]
    seen = [replace(measurement, unknown_scale=unknown_scale) for measurement in draw.measurements]
    plain = fuse(seen, draw.labels, TRUTH, SAMPLING)
    weighted = fuse(seen, draw.labels, TRUTH, SAMPLING, _even(draw.labels))
    torch.testing.assert_close(weighted.shares, plain.shares, rtol=0, atol=1e-9)
    torch.testing.assert_close(weighted.covariance, plain.covariance)
    torch.testing.assert_close(weighted.shared_covariance, plain.shared_covariance)
    assert weighted.minus_two_log_likelihood == pytest.approx(plain.minus_two_log_likelihood)


def test_an_image_of_weight_two_is_there_twice() -> None:
    """Of a client with few images, whose own are what is uncertain. The class means are the surer
    the more images there are, and the same image twice is none more: there the two differ.
    """
    draw, weights = _draws("both")[8], torch.ones(240, dtype=torch.float64)
    twice = torch.arange(10)
    weights[twice] = 2
    weights[:60] /= 70
    weights[60:] /= 60
    rows = torch.cat([torch.arange(240), twice])
    sampling = Sampling(BATCH / 100, STEPS * BATCH / 100)
    seen = [replace(w, per_image_values=w.per_image_values[rows]) for w in draw.measurements]
    weighted = fuse(draw.measurements, draw.labels, TRUTH, sampling, weights)
    repeated = fuse(seen, draw.labels[rows], TRUTH, sampling)
    plain = fuse(draw.measurements, draw.labels, TRUTH, sampling)
    near = float((weighted.shares - repeated.shares).abs().sum())
    assert near < 0.1 * float((plain.shares - repeated.shares).abs().sum())
    assert float(weighted.shared_covariance.trace()) > float(repeated.shared_covariance.trace())


def test_the_likelihood_tells_the_right_figures_from_wrong_ones() -> None:
    """Figures that are all too large, for many clients."""
    differences = []
    for draw in _draws("both")[:60]:
        wrong = [replace(w, per_image_values=1.3 * w.per_image_values) for w in draw.measurements]
        differences.append(
            _fuse(draw, *wrong).minus_two_log_likelihood - _fuse(draw).minus_two_log_likelihood
        )
    assert sum(d > 0 for d in differences) > 50
    assert sum(differences) / 60 > 5


def test_the_likelihood_of_noise_that_is_overstated_is_lower() -> None:
    """The log-determinant: else the widest noise would always be the likeliest."""
    draw = _draws("both")[9]
    few = fuse(draw.measurements, draw.labels, TRUTH, Sampling(BATCH / 100, STEPS * BATCH / 100))
    assert max(few.reduced_chi_square) < min(_fuse(draw).reduced_chi_square)
    assert few.minus_two_log_likelihood > _fuse(draw).minus_two_log_likelihood + 10


def test_widening_a_measurement_is_no_way_to_a_higher_likelihood() -> None:
    """It is taken under the noise as counted, and the shares are then no longer the likeliest."""
    draw = _draws("both")[9]
    first, second = draw.measurements
    wide = _fuse(draw, first, replace(second, scale=20.0))
    assert wide.minus_two_log_likelihood >= _fuse(draw).minus_two_log_likelihood - 1e-6


def _error(draws: tuple[Draw, ...], chosen: slice) -> float:
    """Mean absolute error of the shares from some of the measurements."""
    errors = [(_fuse(d, *d.measurements[chosen]).shares - d.shares).abs().sum() for d in draws]
    return float(torch.stack(errors).mean())


@pytest.mark.parametrize("kinds", ["both", "uneven"])
def test_two_measurements_are_no_worse_than_the_better_alone(kinds: str) -> None:
    draws = _draws(kinds)
    together = _error(draws, slice(0, 2))
    alone = [_error(draws, slice(i, i + 1)) for i in range(2)]
    assert together < min(alone)
    assert min(alone) < 0.5 * max(alone)  # or it would be no test of the weights


@pytest.mark.parametrize("kinds", ["both", "uneven", "blurred"])
def test_the_covariance_is_that_of_many_clients(kinds: str) -> None:
    """Inside the simplex: errors against the client's own counts, images drawn anew each time."""
    draws = _draws(kinds)
    found = [_fuse(draw) for draw in draws]
    errors = torch.stack([f.shares - d.shares for f, d in zip(found, draws, strict=True)])
    if kinds != "blurred":  # there the bounds of the simplex cut errors off
        assert (torch.stack([f.shares for f in found]) > 0).double().mean() > 0.97
    claimed = torch.stack([f.covariance for f in found]).mean(0)
    measured = errors.T @ errors / len(errors)
    ratio = float(measured.diagonal().sum() / claimed.diagonal().sum())
    assert 0.4 < ratio < 1.1 if kinds == "blurred" else 0.8 < ratio < 1.25
    torch.testing.assert_close(claimed.sum(1), torch.zeros_like(claimed[0]), rtol=0, atol=1e-9)
    assert float(torch.linalg.eigvalsh(claimed).min()) > -1e-12


@pytest.mark.parametrize("unknown_scale", [False, True])
def test_unconstrained_shares_are_the_same_inside_and_right_on_average_at_the_bound(
    unknown_scale: bool,
) -> None:
    inside = _draws("both")[0]
    found = _fuse(inside, *(replace(w, unknown_scale=unknown_scale) for w in inside.measurements))
    torch.testing.assert_close(found.unconstrained, found.shares, rtol=0, atol=1e-3)
    truth = torch.tensor([0.6, 0.4, 0.0, 0.0], dtype=torch.float64)
    both = []
    for seed in range(200):
        draw = _draw((SHARP, BLURRED), seed, truth=truth)
        seen = (replace(w, unknown_scale=unknown_scale) for w in draw.measurements)
        fused = _fuse(draw, *seen, shares=truth)
        assert float(fused.unconstrained.sum()) == pytest.approx(1)
        both.append(torch.stack([fused.shares - draw.shares, fused.unconstrained - draw.shares]))
    bounded, unconstrained = torch.stack(both).mean(0)[:, 2:]
    error = torch.stack(both)[:, 1, 2:].std(0) / 200**0.5
    assert bool((unconstrained.abs() < 3.5 * error).all())
    assert bool((bounded > 3.5 * error).all())


@pytest.mark.parametrize("unknown_scale", [False, True])
def test_the_shared_error_is_what_two_rounds_share(unknown_scale: bool) -> None:
    """Two clients of one server: the auxiliary images behind both answers are the same."""
    pairs = [(_draw((SHARP, BLURRED), s), _draw((SHARP, BLURRED), s + 5000)) for s in range(400)]
    errors, claimed = [], []
    for first, second in pairs:
        rounds = []
        for draw in (first, second):
            seen = [
                replace(w, per_image_values=of.per_image_values, unknown_scale=unknown_scale)
                for w, of in zip(draw.measurements, first.measurements, strict=True)
            ]
            rounds.append(_fuse(draw, *seen))
        one, other = (f.shares - d.shares for f, d in zip(rounds, (first, second), strict=True))
        errors.append(torch.outer(one, other))
        claimed.append(rounds[0].shared_covariance)
    measured, shared_covariance = torch.stack(errors).mean(0), torch.stack(claimed).mean(0)
    assert 0.6 < float(measured.diagonal().sum() / shared_covariance.diagonal().sum()) < 1.5
    assert float(shared_covariance.diagonal().sum()) < float(rounds[0].covariance.diagonal().sum())
    torch.testing.assert_close(
        shared_covariance.sum(1), torch.zeros_like(shared_covariance[0]), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("kinds", ["both", "uneven"])
def test_the_reduced_chi_square_is_about_one_where_the_noise_is_what_was_counted(
    kinds: str,
) -> None:
    """Less what fitting takes: N - 1 of 14 rows."""
    found = torch.tensor([_fuse(draw).reduced_chi_square for draw in _draws(kinds)]).mean(0)
    assert (found > 0.6).all()
    assert (found < 1.2).all()


def test_images_of_another_origin_show_in_the_reduced_chi_square_of_their_measurement() -> None:
    draw = _draws("both")[0]
    first, second = draw.measurements
    moved = replace(second, per_image_values=second.per_image_values + 6 * _normal(6, seed=5))
    reduced_chi_square = _fuse(draw, first, moved).reduced_chi_square
    assert reduced_chi_square[1] > 10
    assert reduced_chi_square[1] > 3 * reduced_chi_square[0]


def test_the_reduced_chi_square_does_not_depend_on_the_scale() -> None:
    """Else widening a measurement would hide what it was widened for."""
    draw = _draws("both")[0]
    wide = _fuse(draw, *(replace(measurement, scale=50.0) for measurement in draw.measurements))
    assert wide.reduced_chi_square == pytest.approx(_fuse(draw).reduced_chi_square, rel=1e-3)


@pytest.mark.parametrize("index", [0, 1])
def test_a_measurement_whose_scale_grows_loses_its_influence(index: int) -> None:
    draw = _draws("uneven")[0]
    alone = _fuse(draw, draw.measurements[1 - index])
    far = []
    for scale in (1.0, 100.0, 1e4, 1e10):
        both = list(draw.measurements)
        both[index] = replace(both[index], scale=scale, observed=both[index].observed + 3)
        far.append(float((_fuse(draw, *both).shares - alone.shares).abs().sum()))
    assert far[0] > 0.05
    assert far[3] < 0.01 * far[0]


@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, -1000.0])
def test_a_nuisance_direction_is_ignored_along_itself(size: float) -> None:
    draw = _draws("both")[1]
    first, second = draw.measurements
    direction = _normal(6, seed=6)
    held = replace(second, nuisance_directions=1e5 * direction[:, None])
    pushed = replace(held, observed=held.observed + size * direction)
    torch.testing.assert_close(
        _fuse(draw, first, pushed).shares, _fuse(draw, first, held).shares, rtol=0, atol=1e-4
    )
    if size:
        rigid = replace(second, observed=second.observed + size * direction)
        moved = (_fuse(draw, first, rigid).shares - _fuse(draw, first, second).shares).abs().sum()
        assert float(moved) > 0.02


def test_what_lies_across_a_nuisance_direction_is_not_ignored() -> None:
    draw = _draws("both")[1]
    _, second = draw.measurements
    held = replace(second, nuisance_directions=1e5 * torch.eye(6, dtype=torch.float64)[:, :1])
    across = torch.tensor([0.0, 0, 0, 2, 0, 0], dtype=torch.float64)
    moved = _fuse(draw, replace(held, observed=held.observed + across)).shares
    assert float((moved - _fuse(draw, held).shares).abs().sum()) > 0.05


def test_rows_lost_in_the_rounding_of_the_files_do_not_count() -> None:
    draw = _draws("both")[2]
    first, second = draw.measurements
    lost = torch.full((6,), 1e12, dtype=torch.float64)
    blind = replace(second, spread=lost, observed=second.observed + 1e3)
    torch.testing.assert_close(
        _fuse(draw, first, blind).shares, _fuse(draw, first).shares, rtol=0, atol=1e-3
    )


def test_units_do_not_matter() -> None:
    draw = _draws("uneven")[3]
    first, second = draw.measurements
    other = replace(
        second, per_image_values=1e3 * second.per_image_values, observed=1e3 * second.observed
    )
    plain, scaled = _fuse(draw), _fuse(draw, first, other)
    # A floor under rows that do not vary is taken from the mean variance of all rows.
    torch.testing.assert_close(scaled.shares, plain.shares, rtol=0, atol=1e-3)
    assert scaled.reduced_chi_square == pytest.approx(plain.reduced_chi_square, rel=0.02)


def test_relabelled_classes_relabel_the_answer() -> None:
    order = torch.tensor([2, 0, 3, 1])  # class c is now order[c]
    draw = _draws("uneven")[4]
    back = order.argsort()
    plain = _fuse(draw)
    other = fuse(draw.measurements, order[draw.labels], TRUTH[back], SAMPLING)
    torch.testing.assert_close(other.shares, plain.shares[back], rtol=0, atol=1e-8)
    moved = plain.covariance[back][:, back]
    torch.testing.assert_close(other.covariance, moved, rtol=0, atol=1e-10)
    assert other.reduced_chi_square == pytest.approx(plain.reduced_chi_square)


def test_the_order_of_the_measurements_does_not_matter() -> None:
    draw = _draws("uneven")[5]
    plain, other = _fuse(draw), _fuse(draw, *reversed(draw.measurements))
    torch.testing.assert_close(other.shares, plain.shares, rtol=0, atol=1e-8)
    assert other.reduced_chi_square == pytest.approx(plain.reduced_chi_square[::-1])


def test_two_classes() -> None:
    truth = torch.tensor([0.35, 0.65], dtype=torch.float64)
    kinds = (_kind(3, 0.5, 30, classes=2), _kind(2, 0.5, 40, classes=2))
    draws = [_draw(kinds, seed, truth=truth) for seed in range(40)]
    found = [_fuse(draw, shares=truth) for draw in draws]
    errors = torch.stack([(f.shares - d.shares)[0] for f, d in zip(found, draws, strict=True)])
    deviation = found[0].covariance[0, 0].sqrt()
    assert found[0].covariance.shape == (2, 2)
    assert 0.6 < float(errors.square().mean().sqrt() / deviation) < 1.5


def test_classes_that_nobody_holds_stay_near_nothing() -> None:
    """A guess of zero makes its images no noise, and does not keep a class at zero either."""
    truth = torch.tensor([0.6, 0.4, 0.0, 0.0], dtype=torch.float64)
    found = [
        _fuse(_draw((SHARP, BLURRED), seed, truth=truth), shares=truth).shares for seed in range(20)
    ]
    assert float(torch.stack(found).mean(0)[2:].sum()) < 0.06
    draw = _draws("both")[6]
    missed = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert float((_fuse(draw, shares=missed).shares - draw.shares).abs().sum()) < 0.2


def test_a_measurement_of_unknown_scale_is_read_up_to_the_factor_which_is_found_too() -> None:
    pulls = []
    for draw in _draws("both")[:60]:
        first, second = draw.measurements
        scaled = replace(first, observed=first.observed / 250, unknown_scale=True)
        found = _fuse(draw, scaled, second)
        assert found.factor is not None
        assert float((found.shares - draw.shares).abs().sum()) < 0.7
        pulls.append((found.factor[0] - 250) / found.factor[1])
    spread = torch.tensor(pulls)
    assert float(spread.abs().mean()) < 2
    assert float(spread.square().mean().sqrt()) > 0.3
    assert _fuse(draw).factor is None
