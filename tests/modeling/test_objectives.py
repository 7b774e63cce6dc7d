"""The objectives' losses and metrics, by hand on two elements and against torch's own functions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmpt.configuration.configuration_mmpt import OBJECTIVE_NAMES, OPTIONAL_OBJECTIVE_NAMES
from mmpt.modeling_mmpt.objectives import (
    OBJECTIVES,
    agreement,
    cosine,
    hit,
    is_labelled,
    kl_divergence,
    mean_over,
    squared_error,
    token_cross_entropy,
)

# Softmax of the first row is 1/2, 1/4, 1/4; of the second 1/3 each.
LOGITS = torch.tensor([[math.log(2.0), 0.0, 0.0], [5.0, 5.0, 5.0]])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_table_has_a_row_for_each_name_of_the_configuration():
    assert tuple(OBJECTIVES) == OBJECTIVE_NAMES + OPTIONAL_OBJECTIVE_NAMES


def test_cross_entropy_by_hand():
    loss = token_cross_entropy(LOGITS, torch.tensor([0, 2]))
    torch.testing.assert_close(loss, torch.tensor([math.log(2), math.log(3)]))


def test_kl_divergence_by_hand():
    probs = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    # 1/2 ln((1/2)/(1/2)) + 1/2 ln((1/2)/(1/4)), and 1 ln(1/(1/3)); a probability of 0 adds nothing.
    torch.testing.assert_close(kl_divergence(LOGITS, probs), torch.tensor([math.log(2) / 2, math.log(3)]))


def test_kl_divergence_of_equal_distributions_is_zero():
    torch.testing.assert_close(kl_divergence(LOGITS, LOGITS.softmax(-1)), torch.zeros(2))


def test_squared_error_by_hand():
    predicted = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    features = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    torch.testing.assert_close(squared_error(predicted, features), torch.tensor([5 / 3, 3.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_agree_with_torch(dtype: torch.dtype):
    logits, other = draw(4, 6).to(dtype), draw(4, 6, seed=1)
    labels, probs = torch.tensor([0, 5, 2, 2]), other.softmax(-1)
    wide = logits.float()
    torch.testing.assert_close(token_cross_entropy(logits, labels).mean(), F.cross_entropy(wide, labels))
    expected = F.kl_div(wide.log_softmax(-1), probs, reduction="batchmean")
    torch.testing.assert_close(kl_divergence(logits, probs).mean(), expected)
    torch.testing.assert_close(squared_error(logits, other).mean(), F.mse_loss(wide, other))


def test_matching_loss_is_the_binary_cross_entropy_of_the_logit_difference():
    logits, labels = draw(5, 2), torch.tensor([1, 0, 0, 1, 1])
    expected = F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], labels.float(), reduction="none")
    torch.testing.assert_close(OBJECTIVES["itm"].loss(logits, labels), expected)


def test_metrics_by_hand():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    assert hit(logits, torch.tensor([1, 1])).tolist() == [1.0, 0.0]
    assert agreement(logits, torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.3, 0.5]])).tolist() == [1.0, 0.0]
    features = torch.tensor([[0.0, -2.0, -1.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(cosine(logits, features), torch.tensor([-1.0, 0.0]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_selected_gives_zero_loss_and_zero_gradients(name: str):
    objective = OBJECTIVES[name]
    prediction = draw(0, 3).requires_grad_()
    vectors = objective.target in ("distribution", "features")
    target = torch.zeros(0, 3) if vectors else torch.zeros(0, dtype=torch.long)
    loss = mean_over(objective.loss(prediction, target), 0)
    loss.backward()
    assert loss.item() == 0.0
    assert prediction.grad is not None
    assert mean_over(objective.metric(prediction.detach(), target), 0).item() == 0.0


def test_mean_over_divides_by_the_denominator_that_is_given():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert mean_over(values, 3).item() == 3.0
    assert mean_over(values, torch.tensor(12)).item() == 0.75


def test_class_number_is_labelled_unless_ignored():
    assert is_labelled(torch.tensor([0, -100, 7])).tolist() == [True, False, True]


def test_vector_is_labelled_unless_all_of_it_is_ignored():
    labels = torch.tensor([[-100.0, -100.0], [-100.0, 0.0], [0.0, 0.0]])
    assert is_labelled(labels).tolist() == [False, True, True]


def test_vector_of_half_precision_is_recognised_as_ignored():
    assert not is_labelled(torch.full((2, 3), -100.0, dtype=torch.float16)).any()


def test_the_mean_over_one_element_or_none() -> None:
    value = torch.tensor([3.5], requires_grad=True)
    assert mean_over(value, 1).item() == 3.5
    assert mean_over(value, torch.tensor(1)).item() == 3.5
    assert mean_over(value[:0], 0).item() == 0
    assert torch.autograd.grad(mean_over(value, 1), value)[0].tolist() == [1.0]
    assert mean_over(value, 2).item() == 1.75
