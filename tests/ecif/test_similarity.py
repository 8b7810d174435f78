import torch
from torch.func import hessian, jvp

from ecif import EXCLUDED, exclude, false_negatives, negative, normalise, positive, similarity_matrix


def test_rows_have_unit_length_in_at_least_float32() -> None:
    x = torch.randn(5, 4, dtype=torch.float16)
    assert normalise(x).dtype == torch.float32
    torch.testing.assert_close(normalise(x).norm(dim=-1), torch.ones(5))


def test_a_zero_embedding_has_no_similarity_and_no_derivative() -> None:
    text = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    image = torch.randn(3, 2)
    S = similarity_matrix(text, image, 50.0)
    assert torch.equal(S[0], torch.zeros(3))
    (gradient,) = torch.autograd.grad((positive(S) + negative(S)).sum(), text)
    assert bool(gradient.isfinite().all())
    assert torch.equal(gradient[0], torch.zeros(2))
    tangent = jvp(normalise, (text.detach(),), (torch.ones(3, 2),))[1]
    assert torch.equal(tangent[0], torch.zeros(2))
    assert bool(hessian(lambda t: positive(similarity_matrix(t, image, 50.0)).sum())(text.detach()).isfinite().all())


def test_false_negatives_are_the_others_with_equal_caption_or_image() -> None:
    mask = false_negatives(torch.tensor([0, 0, 1, 2]), torch.tensor([5, 6, 7, 7]))
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = True
    assert torch.equal(mask, expected)


def test_excluded_entries_equal_minus_infinity_and_have_no_derivative_in_either_mode() -> None:
    S = 3 * torch.randn(4, 4)
    mask = false_negatives(torch.tensor([0, 0, 0, 0]), torch.arange(4))
    half = mask.clone()
    half[2:] = half[:, 2:] = False
    for m in (mask, half):
        roles = lambda x, m=m: positive(exclude(x, m)) + negative(exclude(x, m))  # noqa: E731
        assert bool((exclude(S, m)[m] == EXCLUDED).all())
        truth = -(S.masked_fill(m, -torch.inf).log_softmax(-1) + S.masked_fill(m, -torch.inf).log_softmax(0))
        torch.testing.assert_close(positive(exclude(S, m)), truth.diagonal())
        backward = torch.func.jacrev(roles)(S)
        forward = torch.func.jacfwd(roles)(S)
        assert bool(backward.isfinite().all())
        assert bool((backward[:, m] == 0).all())
        torch.testing.assert_close(backward, forward)
