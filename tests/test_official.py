"""Checkpoints of the authors' code: their numbers come out, file by file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trt_cam.errors import InputError, WeightsError
from trt_cam.models.trt import TRTLocalizer, TRTOutput

MODELS = ["trt_fuse_peaked", "trt_peaked", "trt_fuse_6x6", "trt_6x6", "trt_fuse_14x14", "trt_14x14"]

pytestmark = pytest.mark.filterwarnings("ignore:no token selected")


@cache
def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def numbers(name: str, request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """A parity file: committed if small, else from the shared folder."""
    here = Path(__file__).parent / "data" / f"{name}.npz"
    return read(here if here.exists() else request.getfixturevalue("shared") / "parity" / f"{name}.npz")


def weights(file: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name[3:]: torch.from_numpy(array.copy()) for name, array in file.items() if name.startswith("sd/")}


def load(file: dict[str, np.ndarray]) -> TRTLocalizer:
    return TRTLocalizer.from_official(weights(file), num_heads=json.loads(str(file["config_json"]))["num_heads"])


def run(net: TRTLocalizer, file: dict[str, np.ndarray], u: float) -> TRTOutput:
    """All classes' maps at one u."""
    net.tpsm.u = float(u)
    images = torch.from_numpy(file["images"])
    with torch.no_grad():
        return net(images, torch.arange(net.num_classes).expand(len(images), -1))


def close(ours: Tensor, theirs: np.ndarray, atol: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("name", MODELS)
def test_every_array_at_every_u(name: str, request: pytest.FixtureRequest) -> None:
    file = numbers(name, request)
    net = load(file)
    for index, u in enumerate(file["u"]):
        out = run(net, file, u)
        assert (out.keep.numpy() == file["b"][index].astype(bool)).all()
        close(out.m, file["m"], 1e-6)
        close(out.importance, file["lam"][index], 1e-6)
        close(out.logits, file["logits"][index], 2e-5)
        empty = ~file["b"][index].any(axis=1)  # there the stage-1 class divides 0 by 0; we take m
        close(out.m_t[~empty], file["M_T"][index][~empty], 1e-6)
        assert (out.m_t.flatten(1)[empty] == out.m[empty]).all()
        if "cams" in file:
            close(out.m_c, file["M_C"], 2e-5)
            close(out.cam_logits, file["cam_logits"], 2e-5)
            close(out.fused, file["cams"][index], 2e-5)
            assert (out.logits.argmax(1).numpy() == file["top1"][index]).all()


@pytest.mark.parametrize("name", ["trt_fuse_6x6", "trt_fuse_peaked"])
def test_map_of_one_class_each(name: str, request: pytest.FixtureRequest) -> None:
    file = numbers(name, request)
    net = load(file)
    for index, u in enumerate(file["u"]):
        net.tpsm.u = float(u)
        out = net(torch.from_numpy(file["images"]), torch.from_numpy(file["labels"]))
        assert out.m_c.shape == out.fused.shape == out.m_t.shape
        close(out.fused, file["fused_label"][index], 2e-5)


@pytest.mark.parametrize("kind", ["fuse", "trt"])
def test_extreme_scores(kind: str, request: pytest.FixtureRequest) -> None:
    extremes = numbers("trt_score_extremes", request)
    model = numbers("trt_fuse_6x6" if kind == "fuse" else "trt_6x6", request)
    net = load(model)
    for i, bias in enumerate(extremes["score_head_bias"]):
        torch.nn.init.constant_(net.tpsm.head.bias, float(bias))
        for j, u in enumerate(extremes["u"]):
            out = run(net, model, u)
            assert all(value.isfinite().all() for value in (out.logits, out.importance, out.m_t))
            if bias <= 80:  # beyond, float32 overflows in the authors' form
                close(out.importance, extremes[f"{kind}_lam"][i, j], 1e-6)
                close(out.logits, extremes[f"{kind}_logits"][i, j], 2e-5)
                close(out.m_t, extremes[f"{kind}_M_T"][i, j], 1e-6)


def test_overflowing_scores_are_those_of_moderate_ones(request: pytest.FixtureRequest) -> None:
    """Where the authors' float32 overflows, lambda is still a softmax: a constant added to all scores is no matter."""
    model = numbers("trt_fuse_peaked", request)
    net = load(model)
    torch.nn.init.constant_(net.tpsm.head.bias, 20.0)
    moderate = run(net, model, 0.95)
    torch.nn.init.constant_(net.tpsm.head.bias, 120.0)
    close(run(net, model, 0.95).importance, moderate.importance.numpy(), 2e-5)


def test_uniform_attention_counts(request: pytest.FixtureRequest) -> None:
    uniform, model = numbers("trt_fuse_uniform", request), numbers("trt_fuse_6x6", request)
    net = load(model)
    for block in net.backbone.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
        torch.nn.init.zeros_(block.attn.qkv.bias)
    for index, u in enumerate(model["u"]):
        counts = run(net, model, u).keep.sum(dim=1).numpy()
        assert (counts == uniform["n_selected"][index]).all()


def test_top_k_variant(request: pytest.FixtureRequest) -> None:
    file = numbers("trt_6x6", request)
    net = load(file)
    net.tpsm.mode, net.tpsm.eps, net.divide = "topk", 0.0, True
    for index, k in enumerate(file["topk_k"]):
        net.tpsm.u = int(k)
        with torch.no_grad():
            out = net(torch.from_numpy(file["images"]))
        assert (out.keep.sum(1) == int(k)).all()
        close(out.logits, file["topk_logits"][index], 2e-5)
        close(out.m_t, file["topk_map"][index], 1e-6)


@pytest.mark.parametrize("loss", ["ce", "ls01"])
def test_first_training_step(loss: str, request: pytest.FixtureRequest) -> None:
    step, file = numbers("trt_train_step", request), numbers("trt_6x6", request)
    net = load(file).train()
    logits = net(torch.from_numpy(file["images"])).tpsm_logits
    smoothing = 0.0 if loss == "ce" else 0.1
    value = F.cross_entropy(logits, torch.from_numpy(file["labels"]), label_smoothing=smoothing)
    value.backward()
    close(logits, step[f"stage1_{loss}_logits"], 2e-5)
    close(value, step[f"stage1_{loss}_loss"], 1e-5)
    check_gradients(net, step, "stage1", f"stage1_{loss}")


def test_second_training_step(request: pytest.FixtureRequest) -> None:
    step, file = numbers("trt_train_step", request), numbers("trt_fuse_6x6", request)
    net = load(file)
    net.requires_grad_(False)
    net.cam.requires_grad_(True).train()
    logits = net(torch.from_numpy(file["images"])).cam_logits
    value = F.cross_entropy(logits, torch.from_numpy(file["labels"]))
    value.backward()
    close(logits, step["stage2_logits"], 2e-5)
    close(value, step["stage2_loss"], 1e-5)
    check_gradients(net, step, "stage2", "stage2")


def check_gradients(net: TRTLocalizer, step: dict[str, np.ndarray], stage: str, run_name: str) -> None:
    from trt_cam.models.official import official_name

    ours = {name: parameter.grad for name, parameter in net.named_parameters() if parameter.grad is not None}
    names = [official_name(str(name)) for name in step[f"{stage}_param_names"]]
    norms = torch.stack([ours[name].norm() for name in names]).numpy()
    np.testing.assert_allclose(norms, step[f"{run_name}_grad_norm"], rtol=1e-3, atol=1e-5)
    whole = [key for key in step if key.startswith(f"{run_name}_grad/")]
    assert whole
    for key in whole:
        gradient = ours[official_name(key.split("grad/", 1)[1])].numpy()
        np.testing.assert_allclose(gradient, step[key], rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------------------------------- forms of a checkpoint


def test_data_parallel_prefix_and_outer_dictionary(request: pytest.FixtureRequest) -> None:
    file = numbers("trt_fuse_peaked", request)
    plain = TRTLocalizer.from_official(weights(file), num_heads=1)
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in weights(file).items()}, "epoch": 3}
    again = TRTLocalizer.from_official(wrapped, num_heads=1)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), again.state_dict().values(), strict=True))
    assert not plain.training


def test_forms_of_the_authors_code(request: pytest.FixtureRequest) -> None:
    fused = TRTLocalizer.from_official(weights(numbers("trt_fuse_peaked", request)), num_heads=1, u=0.95)
    single = TRTLocalizer.from_official(weights(numbers("trt_peaked", request)), num_heads=1)
    assert (fused.tpsm.eps, fused.divide, fused.tpsm.u) == (1e-6, False, 0.95)
    assert (single.tpsm.eps, single.divide, single.cam) == (1e-6, True, None)


@pytest.mark.parametrize("heads", [None, 0, -1, 5, 2.0, "1"])
def test_number_of_heads_must_be_said_right(heads: object, request: pytest.FixtureRequest) -> None:
    with pytest.raises(InputError, match="num_heads") as caught:
        TRTLocalizer.from_official(weights(numbers("trt_peaked", request)), num_heads=heads)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"state_dict": None},
        {"fc.weight": torch.zeros(3, 3)},
        [torch.zeros(3)],
        {"state_dict": {"head.weight": "not a tensor"}},
    ],
)
def test_foreign_checkpoints(state: object) -> None:
    with pytest.raises(WeightsError) as caught:
        TRTLocalizer.from_official(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("blocks.0.attn.qkv.weight", None),
        ("blocks.0.attn.qkv.weight", torch.zeros(5, 5)),
        ("blocks.extra.weight", torch.zeros(2)),
        ("patch_embed.proj.weight", torch.zeros(3)),
        ("pos_embed", torch.zeros(())),
        ("head.weight", torch.zeros(())),
        ("pos_embed", torch.zeros(1, 4, 24)),
        ("head.weight", torch.zeros(5, 24, 3, 3)),  # a TS-CAM head
        ("score_head.weight", None),
    ],
)
def test_spoiled_checkpoints(name: str, tensor: Tensor | None, request: pytest.FixtureRequest) -> None:
    state = weights(numbers("trt_fuse_peaked", request))
    if tensor is None:
        del state[name]
    else:
        state[name] = tensor
    with pytest.raises(WeightsError) as caught:
        TRTLocalizer.from_official(state, num_heads=1)
    assert "\n" not in str(caught.value)
