"""Input scaling: what is understood, what is refused, what it computes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlu_cli.errors import UsageError
from rlu_cli.models.input_scaling import PRESETS, Normalisation, of_images, parse_normalisation

_NUMBERS = st.floats(-10, 10).map(lambda v: round(v, 4))
_TRIPLES = st.lists(_NUMBERS, min_size=3, max_size=3) | st.lists(_NUMBERS, min_size=1, max_size=1)


@given(_TRIPLES, st.data())
def test_mean_and_deviation_are_read_as_written(mean: list[float], data: st.DataObject) -> None:
    positive = st.lists(st.floats(0.01, 10), min_size=len(mean), max_size=len(mean))
    std = data.draw(positive)
    text = "/".join(",".join(map(str, part)) for part in (mean, std))
    assert parse_normalisation(text) == Normalisation(tuple(mean), tuple(std))
    assert parse_normalisation(text.replace(",", " , ")) == Normalisation(tuple(mean), tuple(std))


def test_presets_are_known_by_name() -> None:
    for name, preset in PRESETS.items():
        assert parse_normalisation(name) is preset


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Half",
        "auto",
        "aux",
        "0.5",
        "0.5/",
        "/",
        "0.5/0",
        "0.5/-1",
        "0.5,0.5/0.5,0.5",
        "0.5,0.5,0.5/0.5",
        "0/1/2",
        "a/b",
        "nan/1",
        "0/nan",
        "0/inf",
        "inf,0,0/1,1,1",
        "\x1b[2J",
    ],
)
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_normalisation(text)
    assert caught.value.code == "E101"
    assert "auto|none|half|imagenet|cifar10|cifar100|mnist|aux|MEAN/STD" in caught.value.hint
    assert "\x1b" not in str(caught.value)


def test_each_channel_has_its_own_scaling() -> None:
    images = torch.rand(2, 3, 4, 5)
    scaled = Normalisation((0.1, 0.2, 0.3), (0.5, 1.0, 2.0))(images)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 1.0), (0.3, 2.0)]):
        expected = (images[:, channel] - mean) / std
        assert torch.allclose(scaled[:, channel], expected, atol=1e-6)
    assert torch.equal(PRESETS["none"](images), images)
    assert torch.allclose(PRESETS["half"](images), images * 2 - 1, atol=1e-6)


def test_one_value_serves_every_channel_and_three_serve_grey_by_their_mean() -> None:
    grey = torch.rand(2, 1, 4, 4)
    assert torch.allclose(Normalisation((0.5,), (0.25,))(grey), (grey - 0.5) / 0.25)
    three = Normalisation((0.1, 0.2, 0.6), (0.2, 0.3, 0.4))(grey)
    assert torch.allclose(three, (grey - 0.3) / 0.3, atol=1e-6)


def test_the_type_of_the_images_is_kept() -> None:
    for dtype in (torch.float32, torch.float64):
        assert PRESETS["imagenet"](torch.rand(1, 3, 2, 2, dtype=dtype)).dtype == dtype


def test_aux_stands_for_mean_and_deviation_of_the_images() -> None:
    images = torch.tensor([0.2, 0.6, 0.5, 0.5, 0.0, 1.0]).view(1, 3, 1, 2)
    assert of_images(images) == "0.4000,0.5000,0.5000/0.2000,0.0010,0.5000"
    assert of_images(images[:, :1]) == "0.4000/0.2000"
    scaled = parse_normalisation(of_images(torch.rand(50, 3, 4, 4)))(torch.rand(50, 3, 4, 4))
    assert abs(float(scaled.mean())) < 0.1
    assert float(scaled.std()) == pytest.approx(1, abs=0.1)
