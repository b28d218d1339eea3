"""Generators that know their people: who is enrolled, who paints, and what is refused."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fsframework.core.bases import ClosedSetGenerator
from fsframework.core.components import IdentityEncoder
from fsframework.core.part import part
from fsframework.recipe.check import check_file

DIM = 16


def embeddings(people: int, each: int, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    """Unit vectors (people * each, DIM) near one direction for each person, and who each is of."""
    generator = torch.Generator().manual_seed(0)
    persons = torch.arange(people).repeat_interleave(each)
    directions = torch.eye(DIM)[:people]
    return F.normalize(
        directions[persons] + noise * torch.randn(len(persons), DIM, generator=generator), dim=1
    ), persons


def enrolled(people: int = 3) -> ClosedSetGenerator:
    generator = ClosedSetGenerator(ClosedSetGenerator.Options(people=people), 32, DIM, [4])
    generator.enroll(*embeddings(people, 5))
    return generator


def test_means_have_unit_length_and_point_at_their_people() -> None:
    generator = enrolled()
    torch.testing.assert_close(generator.centres.norm(dim=1), torch.ones(3))
    assert (generator.centres[:, :3].argmax(dim=1) == torch.arange(3)).all()
    z_id, persons = embeddings(3, 5)
    torch.testing.assert_close(generator.centres[1], F.normalize(z_id[persons == 1].sum(dim=0), dim=0))


def test_each_embedding_goes_to_the_nearest_person() -> None:
    z_id, persons = embeddings(3, 2, noise=0.2)
    shuffled = torch.tensor([4, 0, 5, 2, 1, 3])
    found = dict(enrolled().people_of(z_id[shuffled]))
    assert sorted(found) == [0, 1, 2]
    for person, rows in found.items():
        assert (persons[shuffled][rows] == person).all()
    assert sorted(torch.cat(list(found.values())).tolist()) == list(range(6))


def encoder(match_threshold: float) -> IdentityEncoder:
    made = IdentityEncoder(IdentityEncoder.Options())
    made.match_threshold = match_threshold
    return made


def test_strangers_are_not_known() -> None:
    stranger = F.one_hot(torch.tensor([9]), DIM).float()
    known, _ = embeddings(3, 1)
    assert enrolled().supports(torch.cat([known, stranger]), encoder(0.5)).tolist() == [True, True, True, False]


def test_the_encoder_says_who_is_a_stranger() -> None:
    between = F.normalize(torch.eye(DIM)[:1] + torch.eye(DIM)[9:10], dim=1)  # cosine 0.71 to the first person
    assert enrolled().supports(between, encoder(0.6)).tolist() == [True]
    assert enrolled().supports(between, encoder(0.8)).tolist() == [False]


@pytest.mark.parametrize("name", ["face-texture", "timm-recogniser"])
def test_encoders_without_a_threshold_are_refused(
    name: str, expect_error: Callable[..., AbstractContextManager[Any]]
) -> None:
    with expect_error(f"{name}: has no match_threshold"):
        enrolled().supports(torch.eye(DIM)[:1], part("identity-encoders", name).build())


def test_a_trained_encoder_has_the_threshold_of_its_options() -> None:
    made = part("identity-encoders", "timm-recogniser", backbone="lcnet_035", match_threshold=0.3).build()
    assert made.required_match_threshold() == 0.3
    for wrong in (1.0, -1.0):
        with pytest.raises(ValueError, match="match_threshold"):
            part("identity-encoders", "timm-recogniser", match_threshold=wrong)


@pytest.mark.parametrize("shown", [2, 4])
def test_another_number_of_people_is_refused(shown: int, expect_error: Callable[..., Any]) -> None:
    generator = ClosedSetGenerator(ClosedSetGenerator.Options(people=3), 32, DIM, [4])
    with expect_error("people is 3"):
        generator.enroll(*embeddings(shown, 2))
    assert not generator.centres.any()


def test_faces_of_nobody_in_particular_are_refused(expect_error: Callable[..., Any]) -> None:
    z_id, persons = embeddings(3, 2)
    persons[2] = -1
    with expect_error():
        enrolled().enroll(z_id, persons)


def test_people_come_with_the_weights() -> None:
    other = ClosedSetGenerator(ClosedSetGenerator.Options(people=3), 32, DIM, [4])
    other.load_state_dict(enrolled().state_dict())
    assert torch.equal(other.centres, enrolled().centres)


def test_recipes_need_an_encoder_that_tells_people_apart(
    expect_error: Callable[..., AbstractContextManager[Any]],
) -> None:
    with expect_error("deepfakes: networks.identity: timm-recogniser: has no match_threshold"):
        check_file("deepfakes", ["networks.identity={use: timm-recogniser}"])
    assert "timm-recogniser" in check_file(
        "deepfakes", ["networks.identity={use: timm-recogniser, match_threshold: 0.3}"]
    )
