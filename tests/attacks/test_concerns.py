"""What a method takes for granted is said in plain sentences, where a case does not give it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hand_made import one_embedding, pulled, round_of, seen, uniform
from linear_client import World, evidence_of, skewed_steps

from rlu_cli.attacks import ATTACKS, concerns
from rlu_cli.types import Evidence

EVEN = [0.25] * 4
SURE = [[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]]

every_method = pytest.mark.parametrize("name", ATTACKS)


def _case(
    *,
    batches: tuple[int, ...] | None = (1,),
    confidence: list[list[float]] | None = None,
    embedding: tuple[float, ...] = (1.0, 1.0),
) -> Evidence:
    """As every method would have it, changed in what is named: one example, one step, untrained."""
    shown = seen(confidence or EVEN, embeddings=[embedding])
    return round_of(one_embedding(pulled([1, 0, 0, 0], EVEN)), batches=batches, before=shown)


def _said(name: str, evidence: Evidence, *, noise: bool = False) -> list[str]:
    return concerns(ATTACKS[name], evidence, noise=noise)


def _concerned(evidence: Evidence, about: str, *, noise: bool = False) -> set[str]:
    return {
        name
        for name in ATTACKS
        if any(about in sentence for sentence in _said(name, evidence, noise=noise))
    }


@every_method
def test_a_case_that_meets_every_assumption_concerns_no_method(name: str) -> None:
    assert _said(name, _case()) == []


def test_one_step_of_a_single_example_is_not_a_batch() -> None:
    assert _concerned(_case(batches=(4,)), "a single example") == {"idlg"}
    assert _concerned(_case(batches=None), "a single example") == {"idlg"}


def test_methods_for_distinct_labels_say_so_of_a_batch() -> None:
    assert _concerned(_case(batches=(4,)), "no label repeats") == {"gi", "rlg"}


@pytest.mark.parametrize(("embedding", "percent"), [((3.0, -1.0), "25%"), ((1.0, -1.0), "50%")])
def test_methods_that_sum_over_embeddings_say_how_much_is_negative(
    embedding: tuple[float, float], percent: str
) -> None:
    concerned = {"idlg", "gi", "llg", "llg-star", "llg+", "zlg", "zlg+", "dimitrov"}
    assert _concerned(_case(embedding=embedding), f"{percent} of its size is") == concerned


@pytest.mark.parametrize("embedding", [(1.0, 0.0), (1.0, -1e-6), (0.0, 0.0)])
def test_embeddings_that_are_negative_by_rounding_alone_concern_no_method(
    embedding: tuple[float, float],
) -> None:
    assert _concerned(_case(embedding=embedding), "negative") == set()


def test_methods_of_one_step_say_how_many_the_client_took() -> None:
    concerned = _concerned(_case(batches=(1, 1, 1)), "the client took 3")
    assert concerned == {"idlg", "gi", "llg", "zlg", "ebi", "irlg"}


def test_methods_of_untrained_models_say_how_sure_this_one_is() -> None:
    concerned = _concerned(_case(confidence=SURE), "a mean probability of 0.70")
    assert concerned == {"zlg", "zlg+", "dimitrov", "irlg"}


def test_methods_that_need_images_say_when_noise_is_used_instead() -> None:
    images = {
        "rlu",
        "path",
        "fusion",
        "bayes",
        "pooled",
        "llg+",
        "zlg+",
        "dimitrov",
        "llbg",
        "prior",
    }
    images |= {"ramakrishna-dan", "ramakrishna-dan-virtual", "emulation"}
    assert _concerned(_case(), "noise images are used instead", noise=True) == images
    assert _concerned(_case(), "noise images are used instead", noise=False) == set()


@every_method
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_concerns_are_plain_sentences(name: str, noise: bool, known: bool) -> None:
    """Each goes on from the method's title and a colon."""
    evidence = evidence_of(skewed_steps(3, 8), head=World().trained_head(3.0), images=5)
    evidence = evidence if known else replace(evidence, batch_sizes=None)
    said = _said(name, evidence, noise=noise)
    assert len(set(said)) == len(said)
    for sentence in said:
        assert sentence.startswith("it ")
        assert sentence == " ".join(sentence.split())
        assert sentence[-1].isalnum()
        assert not set(sentence) & set("{}[]\\")
        assert len(sentence) < 160


def test_noise_whose_embeddings_are_kept_once_is_looked_at_like_images() -> None:
    noise = uniform(4, embeddings=[[1.0, -1.0]], labels=[0, 1, 2, 3])
    one_row = replace(noise, embeddings=noise.embeddings[:1])
    assert "50%" in " ".join(_said("llg", replace(_case(), before=one_row), noise=True))
