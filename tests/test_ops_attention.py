"""Eq. 5 to 10 against their definitions in float64, and against the numbers that the authors' code gives."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trt_cam.errors import InputError
from trt_cam.ops.attention import (
    cdf_threshold,
    fuse_heads,
    masked_attention,
    reattention_map,
    selection_mask,
    token_importance,
)

SHARES = (0.01, 0.3, 0.6, 0.65, 0.95, 0.999)
MODEL_FILES = ("trt_fuse_6x6", "trt_fuse_14x14", "trt_fuse_peaked", "trt_6x6", "trt_14x14", "trt_peaked")


# ---- by definition, in plain Python and float64


def selection_by_definition(m, u):
    keep = torch.zeros_like(m, dtype=torch.bool)
    for image, values in enumerate(m.double()):
        total, running = values.sum(), 0.0
        for token in sorted(range(len(values)), key=lambda i: -values[i]):  # Python's sort is stable
            running += values[token]
            keep[image, token] = u >= 1 or running < u * total
    return keep


def attention_by_definition(q, k, v, keep, eps, scale, bias):
    out = torch.zeros_like(q @ k.transpose(-2, -1) @ v)
    B, nh, S, _ = q.shape
    for b in range(B):
        for h in range(nh):
            logits = scale * q[b, h] @ k[b, h].T + (0 if bias is None else bias[b, h])
            for i in range(S):
                allowed = torch.tensor([bool(keep[b, j]) or i == j for j in range(S)])
                weights = (logits[i] - logits[i].max()).exp() * allowed
                out[b, h, i] = (weights + eps / S) / (weights.sum() + eps) @ v[b, h]
    return out


def importance_by_definition(scores, keep, eps):
    weights = scores.double().exp() * keep
    return weights / (weights.sum(1, keepdim=True) + eps)


@pytest.fixture
def qkv(generator):
    return [torch.randn(2, 3, 7, 4, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.fixture
def keep():
    return torch.tensor([[1, 0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0, 0]]).bool()


# ---- cdf_threshold


@pytest.mark.parametrize("u", [0, 0.2, 0.5, 0.65, 0.95, 1, 7.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_mass_by_definition(generator, u, dtype):
    m = torch.rand(5, 23, generator=generator).pow(4).to(dtype)
    m[1, 3:9] = m[1, 2]  # ties
    m[2] = 1.0
    m[3] = 0.0
    assert torch.equal(cdf_threshold(m, u), selection_by_definition(m, u))


def test_equal_values_are_counted_as_in_exact_arithmetic():
    for N in range(1, 200):
        for tenths in range(1, 10):
            share = torch.full((1, N), 1 / N)
            wanted = (tenths * N - 1) // 10  # the largest k with k / N < u
            assert int(cdf_threshold(share, tenths / 10).sum()) == wanted, (N, tenths)


def test_ties_are_kept_in_index_order():
    keep = cdf_threshold(torch.ones(1, 8), 0.5)
    assert keep.tolist() == [[True, True, True, False, False, False, False, False]]


def test_u_of_one_keeps_tokens_without_any_attention():
    assert cdf_threshold(torch.tensor([[0.7, 0.3, 0.0]]), 1.0).all()


def test_an_empty_selection_is_legal():
    assert not cdf_threshold(torch.tensor([[0.9, 0.1]]), 0.5).any()
    assert not cdf_threshold(torch.zeros(1, 4), 0.5).any()


@pytest.mark.parametrize("mode, grows", [("mass", True), ("topk", True), ("quantile", False), ("fixed", False)])
def test_selections_are_nested_in_u(generator, mode, grows):
    m = torch.rand(4, 49, generator=generator).mul(20).round()  # many ties
    sets = [cdf_threshold(m, u, mode=mode) for u in np.linspace(0, 1, 101)]
    for smaller, larger in zip(sets, sets[1:], strict=False):
        inside, outside = (smaller, larger) if grows else (larger, smaller)
        assert not (inside & ~outside).any()


def test_the_other_modes():
    m = torch.tensor([[4.0, 1.0, 3.0, 2.0, 3.0]])
    assert cdf_threshold(m, 2, mode="topk").tolist() == [[True, False, True, False, False]]
    assert cdf_threshold(m, 0.5, mode="topk").tolist() == [[True, False, True, False, True]]  # 2.5 rounds up
    assert cdf_threshold(m, 99, mode="topk").all() and not cdf_threshold(m, 0, mode="topk").any()
    assert cdf_threshold(m, 0.5, mode="fixed").tolist() == [[True, False, True, False, True]]
    assert cdf_threshold(m, 0.5, mode="quantile").tolist() == [[True, False, False, False, False]]
    assert cdf_threshold(m, 0.25, mode="quantile").tolist() == [[True, False, True, False, True]]
    assert not cdf_threshold(m, 1, mode="quantile").any() and not cdf_threshold(m, 1, mode="fixed").any()


def test_the_scale_of_m_does_not_matter(generator):
    m = torch.rand(3, 30, generator=generator)
    for mode in ("mass", "quantile", "topk", "fixed"):
        assert torch.equal(cdf_threshold(m, 0.6, mode=mode), cdf_threshold(m * 2**20, 0.6, mode=mode))


def test_selection_carries_no_gradient():
    m = torch.rand(1, 5, requires_grad=True)
    assert not any(cdf_threshold(m, 0.5, mode=mode).requires_grad for mode in ("mass", "quantile", "topk", "fixed"))


@pytest.mark.parametrize("u", [-0.1, math.nan, "half", None, True, torch.tensor(0.5)])
def test_refuses_a_bad_u(u):
    with pytest.raises(InputError, match="u of mode 'mass' must be"):
        cdf_threshold(torch.ones(1, 4), u)


@pytest.mark.parametrize("mode, u", [("topk", 1.5), ("topk", -1), ("quantile", 1.1), ("fixed", 2)])
def test_refuses_a_u_beyond_its_mode(mode, u):
    with pytest.raises(InputError, match=f"u of mode '{mode}' must be"):
        cdf_threshold(torch.ones(1, 4), u, mode=mode)


@pytest.mark.parametrize(
    "m, complaint",
    [
        (torch.ones(4), r"floating tensor \(B, N\), got float32 \(4,\)"),
        (torch.ones(1, 4, dtype=torch.int64), "got int64"),
        (torch.ones(1, 0), "at least one token"),
        (torch.tensor([[1.0, math.nan]]), "finite"),
        (torch.tensor([[1.0, math.inf]]), "finite"),
        (torch.tensor([[1.0, -0.5]]), "at least 0, got -0.5"),
        ([[1.0]], "tensor"),
    ],
)
def test_refuses_a_bad_map(m, complaint):
    with pytest.raises(InputError, match=complaint):
        cdf_threshold(m, 0.5)


def test_refuses_an_unknown_mode():
    with pytest.raises(InputError, match="mode must be one of mass, quantile, topk, fixed, got 'mas'"):
        cdf_threshold(torch.ones(1, 4), 0.5, mode="mas")


# ---- masked_attention


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("scale, biased", [(None, False), (0.25, False), (None, True)])
def test_masked_attention_by_definition(generator, qkv, keep, eps, scale, biased):
    q, k, v = qkv
    bias = torch.randn(2, 3, 7, 7, generator=generator, dtype=torch.float64) if biased else None
    wanted = attention_by_definition(q, k, v, keep, eps, scale or 0.5, bias)  # 0.5 = 4 ** -0.5
    torch.testing.assert_close(
        masked_attention(q, k, v, keep, eps=eps, scale=scale, bias=bias), wanted, rtol=1e-12, atol=1e-12
    )


def test_a_full_mask_is_ordinary_attention(qkv):
    everything = torch.ones(2, 7, dtype=torch.bool)
    wanted = F.scaled_dot_product_attention(*qkv)
    torch.testing.assert_close(masked_attention(*qkv, everything), wanted, rtol=1e-12, atol=1e-12)
    qkv = [x.float() for x in qkv]
    torch.testing.assert_close(masked_attention(*qkv, everything), wanted.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prefix", [0, 2])
def test_a_dropped_token_has_exactly_no_influence(generator, dtype, prefix):
    q, k, v = (torch.randn(2, 3, prefix + 40, 16, generator=generator).to(dtype) for _ in range(3))
    keep = torch.rand(2, 40, generator=generator) > 0.5
    before = masked_attention(q, k, v, keep, prefix=prefix)
    unread = ~F.pad(keep, (prefix, 0))[:, None, :, None]
    noise = 100 * torch.randn(k.shape, generator=generator).to(dtype)
    after = masked_attention(q, torch.where(unread, noise, k), torch.where(unread, -noise, v), keep, prefix=prefix)
    read = ~unread[:, 0, :, 0]
    assert torch.equal(before.transpose(1, 2)[read], after.transpose(1, 2)[read])
    assert not torch.equal(before, after)  # a dropped token does read itself


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.3])
@pytest.mark.parametrize("biased", [False, True])
def test_prefix_tokens_change_nothing_for_the_patches(generator, qkv, keep, eps, biased):
    q, k, v = qkv
    bias = torch.randn(2, 3, 7, 7, generator=generator, dtype=torch.float64) if biased else None
    alone = masked_attention(q, k, v, keep, eps=eps, bias=bias)
    front = [torch.randn(2, 3, 2, 4, generator=generator, dtype=torch.float64) * 9 for _ in range(3)]
    q, k, v = (torch.cat(pair, dim=2) for pair in zip(front, qkv, strict=True))
    wide = None if bias is None else F.pad(bias, (2, 0, 2, 0), value=5.0)
    out = masked_attention(q, k, v, keep, eps=eps, bias=wide, prefix=2)
    torch.testing.assert_close(out[:, :, 2:], alone, rtol=1e-12, atol=1e-12)
    assert out.isfinite().all()


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_rows_sum_to_one_and_gradients_are_finite(qkv, keep, eps):
    q, k, _ = (x.float().mul(30).requires_grad_() for x in qkv)
    out = masked_attention(q, k, torch.ones(2, 3, 7, 1), keep, eps=eps, prefix=0)
    torch.testing.assert_close(out, torch.ones_like(out), rtol=0, atol=1e-6)
    masked_attention(q, k, k, keep, eps=eps).square().sum().backward()
    assert q.grad.isfinite().all() and k.grad.isfinite().all()


def test_selection_mask():
    mask = selection_mask(torch.tensor([[True, False]]), prefix=1)
    assert mask.int().tolist() == [[[[1, 1, 0], [0, 1, 0], [0, 1, 1]]]]


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"keep": torch.ones(2, 6).bool()}, r"keep must be a bool tensor of shape \(2, 7\), got bool \(2, 6\)"),
        ({"keep": torch.ones(2, 7)}, "got float32"),
        ({"keep": torch.ones(2, 7).bool(), "prefix": 1}, r"shape \(2, 6\)"),
        ({"prefix": 7}, "at least one patch token"),
        ({"prefix": -1}, "prefix must be an integer"),
        ({"eps": -1e-6}, "eps must be a number at least 0"),
        ({"k": torch.ones(2, 3, 5, 4)}, "must share"),
        ({"q": torch.ones(2, 7, 4)}, r"q must be a floating tensor \(B, nh, S, d\)"),
    ],
)
def test_masked_attention_refuses(qkv, keep, change, complaint):
    arguments = dict(zip("qkv", qkv, strict=True)) | {"keep": keep} | change
    with pytest.raises(InputError, match=complaint):
        masked_attention(**arguments)


# ---- token_importance, reattention_map, fuse_heads


@pytest.mark.parametrize("eps", [0.0, 1e-6, 0.5])
def test_importance_by_definition(generator, eps):
    scores = 3 * torch.randn(3, 20, generator=generator, dtype=torch.float64) - 2
    keep = torch.rand(3, 20, generator=generator) > 0.5
    wanted = importance_by_definition(scores, keep, eps)
    torch.testing.assert_close(token_importance(scores, keep, eps=eps), wanted, rtol=1e-12, atol=1e-15)


def test_importance_of_nothing_is_zero_and_of_one_is_one():
    keep = torch.tensor([[False, False], [False, True]])
    assert token_importance(torch.tensor([[9.0, -9.0], [9.0, -9.0]]), keep).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("eps", [0.0, 1e-6])
@pytest.mark.parametrize("level", [-1e4, -100.0, 0.0, 89.0, 1e4])
@pytest.mark.parametrize("kept", [0, 1, 4])
def test_importance_and_its_gradient_are_finite(eps, level, kept):
    scores = (level - torch.arange(4.0)[None]).requires_grad_()
    importance = token_importance(scores, torch.arange(4)[None] < kept, eps=eps)
    assert not importance[0, kept:].any()
    assert eps or importance.sum().item() == pytest.approx(min(kept, 1), abs=1e-6)
    (importance * torch.arange(4.0)).sum().backward()
    assert importance.isfinite().all() and scores.grad.isfinite().all()
    assert not scores.grad[:, kept:].any()


def test_dropped_scores_are_not_read(generator):
    scores, noise = torch.randn(2, 3, 20, generator=generator)
    noise[0, :5] = math.nan
    keep = torch.rand(3, 20, generator=generator) > 0.5
    keep[0, :5] = False
    assert torch.equal(token_importance(scores, keep), token_importance(scores.where(keep, noise), keep))


def test_importance_of_half_precision_scores_is_float32(generator):
    scores, keep = torch.randn(1, 500, generator=generator).half(), torch.ones(1, 500).bool()
    assert token_importance(scores, keep).dtype == torch.float32
    assert token_importance(scores, keep).sum().item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("divide", [True, False])
def test_reattention_by_definition(generator, divide):
    m = torch.rand(3, 16, generator=generator, dtype=torch.float64)
    keep = torch.rand(3, 16, generator=generator) > 0.4
    keep[1] = False
    importance = token_importance(torch.randn(3, 16, generator=generator, dtype=torch.float64) - 12, keep, eps=1e-6)
    found = reattention_map(m, keep, importance, divide=divide)
    assert torch.equal(found[1], m[1])  # bit for bit
    for i in (0, 2):
        r = m[i][keep[i]].sum() / (importance[i].sum() if divide else 1)
        torch.testing.assert_close(found[i], m[i] * (1 - keep[i].double()) + importance[i] * r, rtol=1e-12, atol=1e-15)
    if divide:
        torch.testing.assert_close(found.sum(1), m.sum(1))


def test_reattention_without_any_weight_is_finite():
    m, keep = torch.tensor([[0.75, 0.25]], requires_grad=True), torch.tensor([[True, False]])
    importance = torch.zeros(1, 2, requires_grad=True)
    found = reattention_map(m, keep, importance)
    found.sum().backward()
    assert found.tolist() == [[0, 0.25]]
    assert m.grad.isfinite().all() and importance.grad.isfinite().all()


def test_formulas_refuse_what_does_not_fit():
    m, keep = torch.ones(1, 4), torch.ones(1, 4).bool()
    for call in (
        lambda: token_importance(m, keep[:, :3]),
        lambda: token_importance(m, m),
        lambda: token_importance(m, keep, eps=math.nan),
        lambda: reattention_map(m[:, :3], keep, m),
        lambda: reattention_map(m, keep, m[:, :3]),
        lambda: reattention_map(m, keep, m.tolist()),
        lambda: fuse_heads(torch.ones(3)),
        lambda: fuse_heads(torch.ones(1, 2, 3), "median"),
    ):
        with pytest.raises(InputError):
            call()


def test_fuse_heads():
    attention = torch.tensor([[[1.0, 5.0], [3.0, 1.0]]])
    assert fuse_heads(attention).tolist() == [[2, 3]]
    assert fuse_heads(attention, "max").tolist() == [[3, 5]]
    assert fuse_heads(attention, "min").tolist() == [[1, 1]]


def test_a_graph_can_be_made_of_it(qkv):
    def chain(q, k, v, m):
        keep = cdf_threshold(m, 0.65)
        importance = token_importance(m, keep)
        return masked_attention(q, k, v, keep), reattention_map(m, keep, importance)

    m = torch.linspace(0, 1, 14).reshape(2, 7)
    compiled = torch.compile(chain, backend="eager", fullgraph=True)
    for found, wanted in zip(compiled(*qkv, m), chain(*qkv, m), strict=True):
        torch.testing.assert_close(found, wanted)


# ---- the authors' numbers


def check_maps_against_the_authors(numbers, two_branches):
    m = torch.tensor(numbers["m"])
    for t, u in enumerate(numbers["u"]):
        keep = cdf_threshold(m, float(u))
        assert np.array_equal(keep.numpy(), numbers["b"][t]), u
        importance = token_importance(torch.tensor(numbers["score_raw"][t]), keep, eps=1e-6)
        np.testing.assert_allclose(importance, numbers["lam"][t], rtol=0, atol=1e-6)
        found = reattention_map(m, keep, importance, divide=not two_branches).numpy()
        empty = ~keep.any(1).numpy()
        assert np.array_equal(found[empty], m.numpy()[empty])  # where the one-branch model has NaN
        np.testing.assert_allclose(found[~empty], numbers["M_T"][t].reshape(found.shape)[~empty], rtol=0, atol=1e-6)


def check_attention_against_the_authors(numbers, t, reattn):
    weight, bias = (torch.tensor(numbers[f"sd/score_layer.attn.qkv.{end}"]) for end in ("weight", "bias"))
    B, nh, N, _ = reattn.shape
    z = torch.tensor(numbers["z_Lm1"])[:, 1:]  # (B, N, D)
    norm = [torch.tensor(numbers[f"sd/score_layer.norm1.{end}"]) for end in ("weight", "bias")]
    z = F.layer_norm(z, z.shape[-1:], *norm, eps=1e-6)
    q, k, _ = F.linear(z, weight, bias).reshape(B, N, 3, nh, -1).permute(2, 0, 3, 1, 4)
    keep = torch.tensor(numbers["b"][t]).bool()
    identity = torch.eye(N).expand(B, nh, N, N)  # values that make the output the attention itself
    found = masked_attention(q, k, identity, keep, eps=1e-6)
    np.testing.assert_allclose(found, reattn, rtol=0, atol=2e-5)


class Part(dict):
    """The arrays of a file under one prefix."""

    def __init__(self, numbers, prefix):
        super().__init__({key.removeprefix(prefix): numbers[key] for key in numbers.files if key.startswith(prefix)})


@pytest.mark.parametrize("model", ["fuse", "trt"])
def test_parity_of_the_small_file(data, model):
    numbers = Part(np.load(data / "ops_6x6.npz"), f"{model}/")
    assert tuple(numbers["u"]) == SHARES
    check_maps_against_the_authors(numbers, model == "fuse")
    keep = torch.tensor(numbers["b"][3]).bool()
    assert np.array_equal(selection_mask(keep)[:, 0].numpy(), numbers["B_065"])
    check_attention_against_the_authors(numbers, 3, numbers["reattn_065"])


@pytest.mark.parametrize("name", ["trt_fuse_peaked", "trt_peaked"])
def test_parity_with_peaked_attention(data, name):
    numbers = np.load(data / f"{name}.npz")
    check_maps_against_the_authors(numbers, "fuse" in name)
    for t in range(len(SHARES)):
        check_attention_against_the_authors(numbers, t, numbers["reattn"][t])


@pytest.mark.parametrize("model", ["fuse", "trt"])
def test_parity_at_extreme_scores(data, model):
    numbers, extremes = Part(np.load(data / "ops_6x6.npz"), f"{model}/"), np.load(data / "trt_score_extremes.npz")
    levels = [-30, -18, -10, 0, 40, 80]  # beyond, theirs overflows
    assert extremes["score_head_bias"][: len(levels)].tolist() == levels
    m = torch.tensor(numbers["m"])
    for i in range(len(levels)):
        for t, u in enumerate(extremes["u"]):
            keep = cdf_threshold(m, float(u))
            importance = token_importance(torch.tensor(extremes[f"{model}_score_raw"][i, t]), keep, eps=1e-6)
            np.testing.assert_allclose(importance, extremes[f"{model}_lam"][i, t], rtol=0, atol=1e-6)
            found = reattention_map(m, keep, importance, divide=model == "trt")
            np.testing.assert_allclose(found, extremes[f"{model}_M_T"][i, t].reshape(found.shape), rtol=0, atol=1e-6)


def test_parity_of_counts_when_attention_is_uniform(data):
    numbers = np.load(data / "trt_fuse_uniform.npz")
    counts = [cdf_threshold(torch.tensor(numbers["m"]), float(u)).sum(1).tolist() for u in numbers["u"]]
    assert counts == numbers["n_selected"].tolist()


@pytest.mark.parametrize("name", MODEL_FILES)
def test_parity_of_all_files(shared, name):
    numbers = np.load(shared / "parity" / f"{name}.npz")
    check_maps_against_the_authors(numbers, "fuse" in name)
    if "reattn" in numbers.files:
        for t in range(len(SHARES)):
            check_attention_against_the_authors(numbers, t, numbers["reattn"][t])
