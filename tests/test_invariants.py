"""The model is as it was, whatever happens during a pass, and passes give the same under every condition."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from families import FAMILIES, image_size, no_onednn, torchvision_vit
from torch import Tensor, nn

from trt_cam.backbone import describe
from trt_cam.errors import UnsupportedModelError
from trt_cam.explainers import create_explainer
from trt_cam.models.trt import TRTLocalizer
from trt_cam.observe import eval_mode, observe

METHODS = ["trt-free", "cam", "grad-cam", "raw-attention", "rollout"]
HOOKS = [name for name in vars(nn.Module()) if name.endswith("hooks") or "hooks_" in name]


def images_for(model: nn.Module, batch: int = 2, seed: int = 5) -> Tensor:
    size = image_size(model.backbone if isinstance(model, TRTLocalizer) else model)
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def methods(model: nn.Module) -> Iterator[Any]:
    """Every method that fits a model, bound to it."""
    for name in ["trt", *METHODS] if isinstance(model, TRTLocalizer) else METHODS:
        try:
            yield create_explainer(name, model)
        except UnsupportedModelError:
            assert name in ("cam", "trt-free")  # where no linear classifier reads the patches


def state(model: nn.Module) -> dict[str, Any]:
    """All that a pass might change, comparable by ==."""
    return {
        "tensors": {name: (id(t), t._version, t.clone()) for name, t in model.state_dict(keep_vars=True).items()},
        "grads": {name: (p.requires_grad, id(p.grad), p.grad) for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "hooks": {(name, kind): dict(getattr(m, kind)) for name, m in model.named_modules() for kind in HOOKS},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "fused": {name: getattr(module, "fused_attn", None) for name, module in model.named_modules()},
        "rng": torch.get_rng_state(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "stance": torch._dynamo.eval_frame._stance,
        "overrides": torch._C._len_torch_function_stack(),
    }


def same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, dict):
        return list(before) == list(after) and all(same(before[key], after[key]) for key in before)
    if isinstance(before, tuple):
        return len(before) == len(after) and all(map(same, before, after))
    return before == after


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    before = state(model)
    yield
    after = state(model)
    for key in before:
        assert same(before[key], after[key]), key


def unsettled(model: nn.Module) -> nn.Module:
    """A model in the middle of a user's work: partly training, partly frozen, with gradients and hooks of its own."""
    model.train()
    model.blocks[0].eval()
    model.norm.requires_grad_(False)
    model.blocks[1].mlp.fc1.weight.grad = torch.ones_like(model.blocks[1].mlp.fc1.weight)
    model.blocks[2].register_forward_hook(lambda *_: None)
    model.blocks[2].attn.register_forward_pre_hook(lambda *_: None)
    return model


@pytest.fixture(params=[*FAMILIES, "localizer"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    if request.param == "localizer":
        return TRTLocalizer(FAMILIES["dinov2-registers"]()).eval()
    return FAMILIES[request.param]()


# ----------------------------------------------------------------------------------------- the model is as it was


def test_model_is_as_it_was(model: nn.Module) -> None:
    unsettled(model.backbone if isinstance(model, TRTLocalizer) else model)
    images = images_for(model)
    for explain in methods(model):
        with unchanged(model):
            explain(images)
            explain(images, [0, 3], refine="affinity")


def test_after_an_exception_inside_the_forward(model: nn.Module) -> None:
    transformer = unsettled(model.backbone if isinstance(model, TRTLocalizer) else model)

    def fail(*_: object) -> None:
        raise KeyError("in the user's hook")

    images = images_for(model)
    for layer in (transformer.blocks[1].mlp, transformer.blocks[-1].attn, transformer.patch_embed):
        handle = layer.register_forward_hook(fail)
        for explain in methods(model):
            with unchanged(model), pytest.raises(KeyError, match="user's hook"):
                explain(images)
        handle.remove()


def test_after_an_exception_inside_a_target() -> None:
    model = unsettled(FAMILIES["vit"]())

    def fail(logits: Tensor) -> Tensor:
        raise ZeroDivisionError("in the user's target")

    with unchanged(model), pytest.raises(ZeroDivisionError, match="user's target"):
        create_explainer("grad-cam", model)(images_for(model), fail)


def test_after_a_refusal() -> None:
    model = unsettled(FAMILIES["vit"]())
    model.blocks[1].attn = nn.Identity()
    with unchanged(model), pytest.raises(TypeError):
        create_explainer("rollout", model)(images_for(model))


def test_batch_norm_keeps_its_statistics() -> None:
    import timm

    model = timm.create_model("resnet10t", num_classes=4).train()
    images = torch.randn(2, 3, 64, 64)
    with unchanged(model):
        first = create_explainer("grad-cam", model)(images)
    assert torch.equal(first.grid, create_explainer("grad-cam", model.eval())(images).grid)


def test_torchvision_is_as_it_was() -> None:
    model, images = torchvision_vit().train(), torch.randn(2, 3, 64, 64)
    for name in ("grad-cam", "raw-attention", "rollout"):
        with unchanged(model):
            create_explainer(name, model)(images)


# ------------------------------------------------------------------------------------- the same under all conditions


def maps(model: nn.Module, images: Tensor, target: Any = None) -> dict[str, Tensor]:
    return {explain.explainer.name: explain(images, target).grid for explain in methods(model)}


def assert_close(ours: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-5) -> None:
    assert ours.keys() == expected.keys() and ours
    for name, grid in expected.items():
        assert (ours[name].float() - grid).abs().max() <= atol * max(1.0, float(grid.abs().max())), name


def test_a_batch_equals_its_singles(model: nn.Module) -> None:
    images, target = images_for(model, batch=3), [1, 6, 2]
    singles = [maps(model, image[None], one) for image, one in zip(images, target, strict=True)]
    assert_close(maps(model, images, target), {name: torch.cat([s[name] for s in singles]) for name in singles[0]})


def conditions() -> dict[str, Callable[[nn.Module], Any]]:
    return {
        "no_grad": lambda model: torch.no_grad(),
        "inference_mode": lambda model: torch.inference_mode(),
        "enable_grad": lambda model: torch.enable_grad(),
        "frozen": lambda model: nullcontext(model.requires_grad_(False)),
        "training": lambda model: nullcontext(model.train()),
        "compiled in place": lambda model: nullcontext(model.compile(backend="eager")),
        "fake override mode": lambda model: torch.overrides.BaseTorchFunctionMode(),
    }


@pytest.mark.parametrize("condition", conditions())
def test_same_maps_under(condition: str, model: nn.Module) -> None:
    images, target = images_for(model), torch.tensor([0, 3])
    expected = maps(model, images, target)
    with conditions()[condition](model):
        again = maps(model, images, target)
    assert all(torch.equal(again[name], grid) for name, grid in expected.items())
    assert all(not grid.requires_grad for grid in again.values())


def test_inference_tensors_from_outside(model: nn.Module) -> None:
    images = images_for(model)
    expected = maps(model, images, [0, 3])
    with torch.inference_mode():
        frozen, target = images.clone(), torch.tensor([0, 3])
    again = maps(model, frozen, target)
    assert all(torch.equal(again[name], grid) for name, grid in expected.items())


@pytest.mark.parametrize("how", ["autocast", "bfloat16"])
def test_lower_precision(how: str, model: nn.Module) -> None:
    images, target = images_for(model), [0, 3]
    expected = maps(model, images, target)
    with no_onednn():
        if how == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                again = maps(model, images, target)
        else:
            again = maps(model.bfloat16(), images.bfloat16(), target)
    assert {name: grid.dtype for name, grid in again.items()} == dict.fromkeys(expected, torch.float32)
    for name in ("raw-attention", "rollout"):
        assert (again[name] - expected[name]).abs().max() < 5e-2
    assert all(grid.isfinite().all() for grid in again.values())


@pytest.mark.parametrize("form", ["torch.compile", "blocks", "blocks in place"])
@pytest.mark.parametrize("name", ["vit", "siglip", "dinov3", "beit"])
def test_compiled_models(name: str, form: str) -> None:
    plain = FAMILIES[name]()
    images = images_for(plain)
    expected = maps(plain, images, [0, 3])
    compiled: nn.Module = copy.deepcopy(plain)
    if form == "torch.compile":
        compiled = torch.compile(compiled, backend="eager")
    elif form == "blocks":
        for index in range(3):
            compiled.blocks[index] = torch.compile(compiled.blocks[index], backend="eager")
    else:
        for block in compiled.blocks:
            block.compile(backend="eager")
    with torch.no_grad():
        compiled(images)  # hooks added after the first compiled call are skipped, if nobody sees to it
    again = maps(compiled, images, [0, 3])
    assert all(torch.equal(again[key], grid) for key, grid in expected.items())
    with torch.no_grad():
        assert torch.allclose(compiled(images), plain(images), atol=1e-5)


def test_data_parallel(model: nn.Module) -> None:
    images = images_for(model)
    expected = maps(model, images)
    wrapped = nn.DataParallel(model)
    again = {name: create_explainer(name, wrapped)(images).grid for name in expected}
    assert all(torch.equal(again[name], grid) for name, grid in expected.items())


def test_hooks_of_the_user_fire_and_stay(model: nn.Module) -> None:
    transformer = model.backbone if isinstance(model, TRTLocalizer) else model
    images = images_for(model)
    expected = maps(model, images)
    fired: list[str] = []

    def busy(label: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], *_: object) -> None:
            x = args[0][:, None]
            torch.softmax(nn.functional.scaled_dot_product_attention(x, x, x), dim=-1)  # attention of its own
            fired.append(label)

        return hook

    for block in transformer.blocks:
        block.attn.register_forward_hook(busy("after"))
        block.attn.register_forward_pre_hook(busy("before"))
    for name, grid in expected.items():
        fired.clear()
        with unchanged(model):
            assert torch.equal(create_explainer(name, model)(images).grid, grid), name
        assert fired[:6] == ["before", "after"] * 3


@pytest.mark.parametrize("name", ["vit", "siglip", "localizer"])
def test_explaining_inside_an_explanation(name: str) -> None:
    """A user's hook, or target, that explains the same model itself."""
    model: nn.Module = TRTLocalizer(FAMILIES["vit"]()).eval() if name == "localizer" else FAMILIES[name]()
    transformer = model.backbone if isinstance(model, TRTLocalizer) else model
    images = images_for(model)
    expected = maps(model, images, [0, 3])
    inner: list[dict[str, Tensor]] = []

    def nested(*_: object) -> None:
        if len(inner) < 1:
            inner.append({})
            inner[0] = maps(model, images, [0, 3])

    for layer in (transformer.blocks[1], transformer.blocks[1].attn, transformer.blocks[2].norm1):
        handle = layer.register_forward_hook(nested)
        for method in expected:
            inner.clear()
            with unchanged(model):
                outer = create_explainer(method, model)(images, [0, 3]).grid
            assert torch.equal(outer, expected[method]), method
            assert all(torch.equal(inner[0][key], grid) for key, grid in expected.items())
        handle.remove()

    def target(logits: Tensor) -> Tensor:
        assert torch.equal(create_explainer("rollout", model)(images).grid, expected["rollout"])
        return logits[0]

    assert create_explainer("grad-cam", model)(images, target).grid.isfinite().all()


@pytest.mark.parametrize("name", ["vit", "dinov3", "localizer"])
def test_three_threads_on_one_model(name: str) -> None:
    """Two explain, the third runs plain forwards; the model is in training mode, where nothing is random in it."""
    model: nn.Module = TRTLocalizer(FAMILIES["vit"]()) if name == "localizer" else FAMILIES[name]()
    model.train()
    images = images_for(model)
    expected = maps(model, images, [0, 3])
    with torch.no_grad():
        plain = model(images)
    failures: list[str] = []
    start = threading.Barrier(3)

    def explaining(reverse: bool) -> None:
        start.wait()
        for _ in range(8):
            for method in sorted(expected, reverse=reverse):
                if not torch.equal(create_explainer(method, model)(images, [0, 3]).grid, expected[method]):
                    failures.append(method)

    def forwarding() -> None:
        start.wait()
        with torch.no_grad():
            for _ in range(60):
                out = model(images)
                if not all(torch.equal(a, b) for a, b in zip(*map(parts, (out, plain)), strict=True)):
                    failures.append("forward")

    def parts(out: Any) -> tuple[Tensor, ...]:
        return out if isinstance(out, tuple) else (out,)

    with unchanged(model):
        threads = [threading.Thread(target=explaining, args=(reverse,)) for reverse in (False, True)]
        threads.append(threading.Thread(target=forwarding))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_passes_on_a_model_and_on_a_part_of_it_end_in_any_order() -> None:
    """As those of two threads do: while one is under way, none of its modules is in training mode."""
    net = TRTLocalizer(FAMILIES["vit"]()).train()
    net.backbone.blocks[1].eval()
    before = {name: module.training for name, module in net.named_modules()}
    for first, second in ((net, net.backbone), (net.backbone, net), (net, net)):
        one, other = eval_mode(first), eval_mode(second)
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        assert not any(module.training for module in second.modules())
        other.__exit__(None, None, None)
        assert {name: module.training for name, module in net.named_modules()} == before


def test_forward_on_another_thread_in_the_middle_of_a_pass(model: nn.Module) -> None:
    """It is not observed, whatever layer the pass has reached."""
    transformer = model.backbone if isinstance(model, TRTLocalizer) else model
    images, others = images_for(model), images_for(model, seed=6)
    expected = maps(model, images, [0, 3])

    def elsewhere(*_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=lambda: model(others))
            thread.start()
            thread.join()

    for layer in (transformer.blocks[1].attn.proj, transformer.blocks[2].mlp):
        handle = layer.register_forward_hook(elsewhere)
        again = maps(model, images, [0, 3])
        handle.remove()
        assert all(torch.equal(again[name], grid) for name, grid in expected.items())


# ------------------------------------------------------------------------------------------------------- nothing stays


def test_no_graph_is_alive_afterwards(model: nn.Module) -> None:
    model.requires_grad_(True)
    images = images_for(model)
    transformer = model.backbone if isinstance(model, TRTLocalizer) else model
    made: list[weakref.ref[Tensor]] = []
    handle = transformer.blocks[-1].mlp.register_forward_hook(lambda _, args, out: made.append(weakref.ref(out)))
    gc.disable()  # reference counts alone must do it
    try:
        for explain in methods(model):
            explanation = explain(images)
            assert explanation.grid.grad_fn is None and explanation.logits.grad_fn is None
            assert made and all(ref() is None for ref in made), explain
    finally:
        gc.enable()
        handle.remove()


def test_nothing_grows_over_many_calls() -> None:
    model = FAMILIES["vit"]()
    images = images_for(model)

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    for explain in map(create_explainer, ("grad-cam", "rollout", "trt-free"), [model] * 3):
        explain(images)
        before = count()
        for _ in range(50):
            explain(images)
        assert count() <= before, explain


def test_graph_opens_at_the_layer_only() -> None:
    """The trunk in front of the differentiated layer runs without a graph, parameters trainable or not."""
    model = FAMILIES["vit"]().requires_grad_(True)
    graphs: dict[int, bool] = {}
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda _, args, out, index=index: graphs.update({index: out.requires_grad}))
    create_explainer("grad-cam", model)(images_for(model))
    assert graphs == {0: False, 1: False, 2: True}


def test_target_may_backpropagate_elsewhere() -> None:
    """A callable target with parameters of its own: their gradients stay untouched too."""
    model = FAMILIES["vit"]()
    probe = nn.Linear(7, 1)
    seen = observe(describe(model), images_for(model), frozenset({"gradient"}))
    seen.gradient(lambda logits: probe(logits)[0])
    assert probe.weight.grad is None


@pytest.mark.gpu
def test_same_maps_on_the_gpu(model: nn.Module) -> None:
    images = images_for(model)
    expected = maps(model, images, [0, 3])
    again = maps(model.cuda(), images.cuda(), [0, 3])
    assert_close({name: grid.cpu() for name, grid in again.items()}, expected, atol=2e-3)


@pytest.mark.gpu
def test_autocast_on_the_gpu(model: nn.Module) -> None:
    model, images = model.cuda(), images_for(model).cuda()
    expected = maps(model, images, [0, 3])
    with torch.autocast("cuda", torch.bfloat16):
        again = maps(model, images, [0, 3])
    for name in ("raw-attention", "rollout"):
        assert (again[name] - expected[name]).abs().max() < 5e-2
