import math

import numpy as np
import pytest
import torch

from trt_cam.errors import InputError
from trt_cam.ops.maps import minmax, resize


def resize_by_definition(row, length, mode):
    """One axis: half-pixel centres, edges repeated; bicubic with a = -0.75."""

    def weight(t):
        t = abs(t)
        if mode == "bilinear":
            return max(0.0, 1 - t)
        a = -0.75
        if t <= 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    out = []
    for i in range(length):
        x = (i + 0.5) * len(row) / length - 0.5
        x = max(x, 0.0) if mode == "bilinear" else x
        taps = range(math.floor(x) - 1, math.floor(x) + 3)
        out.append(sum(weight(x - j) * row[min(max(j, 0), len(row) - 1)] for j in taps))
    return np.array(out)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(11, 3), (5, 8), (4, 1), (2, 2)])
def test_resize_by_definition(rng, mode, size):
    maps = rng.normal(size=(2, 4, 6))
    wanted = np.apply_along_axis(resize_by_definition, 1, maps, size[0], mode)
    wanted = np.apply_along_axis(resize_by_definition, 2, wanted, size[1], mode)
    np.testing.assert_allclose(resize(torch.tensor(maps), size, mode), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_resize_equals_opencv(rng, mode):
    cv2 = pytest.importorskip("cv2")
    one = rng.normal(size=(14, 9))
    flag = cv2.INTER_CUBIC if mode == "bicubic" else cv2.INTER_LINEAR
    wanted = cv2.resize(one, (100, 224), interpolation=flag)
    found = resize(torch.tensor(one)[None], (224, 100), mode)[0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)  # its coefficients are float32


def test_resize_keeps_gradients_and_widens_half():
    maps = torch.rand(1, 3, 3, dtype=torch.float16, requires_grad=True)
    bigger = resize(maps, (6, 6))
    bigger.sum().backward()
    assert bigger.dtype == torch.float32
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("size", [5, (0, 4), (4,), (2.0, 3), "ab", (-1, 2), (True, 2)])
def test_resize_refuses_a_bad_size(size):
    with pytest.raises(InputError, match="size"):
        resize(torch.ones(1, 2, 2), size)


@pytest.mark.parametrize(
    "maps",
    [torch.ones(2, 2), torch.ones(1, 0, 2), torch.ones(1, 2, 2).long(), torch.full((1, 2, 2), math.nan), [[1.0]]],
)
def test_both_refuse_bad_maps(maps):
    with pytest.raises(InputError, match="maps must be"):
        resize(maps, (4, 4))
    if not (isinstance(maps, torch.Tensor) and maps.shape == (2, 2)):  # which is one map for minmax
        with pytest.raises(InputError, match="maps must be"):
            minmax(maps)


def test_resize_refuses_an_unknown_mode():
    with pytest.raises(InputError, match="mode must be one of bicubic, bilinear, got 'area'"):
        resize(torch.ones(1, 2, 2), (4, 4), "area")


def test_minmax_reaches_both_ends_of_every_map(generator):
    maps = torch.randn(4, 3, 7, 5, generator=generator) * torch.logspace(-20, 20, 12).reshape(4, 3, 1, 1)
    stretched, flat = minmax(maps)
    assert (stretched.amin((-2, -1)) == 0).all() and (stretched.amax((-2, -1)) == 1).all()
    assert flat.shape == (4, 3) and not flat.any()
    one = maps[2, 1].double()
    torch.testing.assert_close(stretched[2, 1].double(), (one - one.min()) / (one.max() - one.min()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.3, -1234.567, 1e-30])
def test_a_flat_map_is_zeros_and_flagged(value):
    stretched, flat = minmax(torch.full((2, 3, 3), value))
    assert not stretched.any() and flat.all()


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(224, 224), (500, 333), (7, 7)])
def test_a_flat_map_stays_flat_through_a_resize(mode, size):
    constant = torch.tensor([0.1, -1234.567, 7e-9]).reshape(3, 1, 1).expand(3, 14, 14)
    stretched, flat = minmax(resize(constant, size, mode))
    assert flat.all() and not stretched.any()


def test_gradients_of_a_flat_map_are_finite():
    maps = torch.ones(1, 3, 3, requires_grad=True)
    minmax(maps)[0].sum().backward()
    assert maps.grad.isfinite().all()


def test_a_faint_map_is_not_flat():
    assert not minmax(1 + 1e-3 * torch.rand(1, 4, 4))[1].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_minmax_refuses_what_is_not_finite(bad):
    with pytest.raises(InputError, match="finite"):
        minmax(torch.tensor([[0.0, bad]]))
