"""Every case of `minifcn gradcheck` (minifcn/gradcheck/), in both dtypes; whole networks; and the trilinear form."""

import numpy as np
import pytest
from cases import CONV_CASES, ConvCase, names

import minifcn.functional as F
from minifcn.autograd import PRIMITIVES, Tensor
from minifcn.gradcheck.cases import normal, table
from minifcn.gradcheck.check import iter_checks
from minifcn.gradcheck.models import FAMILIES, check_model
from minifcn.gradcheck.primitives import NEVER_RECORDED, PRIMITIVE_CASES
from minifcn.gradcheck.public import FUNCTION_CASES, LAYER_CASES

TABLE = table()
SLOW_TO_EMULATE = (
    "fcn8s_resnet101", "fcn8s_vgg16_paper", "fcn32s_alexnet", "fcn8s_googlenet", "fcn_resnet50", "unet",
)  # fmt: skip


def test_every_primitive_function_and_layer_has_a_case() -> None:
    assert set(PRIMITIVE_CASES) == set(PRIMITIVES) - NEVER_RECORDED
    assert set(FUNCTION_CASES) == {f"F.{name}" for name in F.__all__}
    assert {"nn.Conv2d", "nn.ConvTranspose2d", "nn.BatchNorm2d", "nn.Linear"} <= set(LAYER_CASES)


@pytest.mark.parametrize("op", TABLE)
def test_operation_at_orders_1_and_2(op: str, device: str) -> None:
    for case in TABLE[op]():
        found = set()
        for check in iter_checks(case.function, case.arrays, [1, 2], directions=2, device=device):
            assert check.verdict in ("ok", "kink"), f"{case.name}: {check.fault}"
            assert check.error < 1e-6
            assert case.at_kink or check.verdict == "ok", f"{case.name}: {check} has a kink"
            found.add((check.order, check.argument, check.verdict))
        count = len(case.arrays)
        assert {(order, k) for order, k, _ in found} == {(1, k) for k in range(count)} | {
            (2, k) for k in range(count + 1)
        }
        if case.at_kink:
            assert {(1, 0, "kink"), (2, 0, "kink")} <= found, case.name


@pytest.mark.parametrize("op", TABLE)
def test_operation_in_float32(op: str, device: str) -> None:
    for case in TABLE[op]():
        for check in iter_checks(case.function, case.arrays, [1, 2], dtype=np.float32, device=device):
            assert check.verdict == "ok" or (case.at_kink and check.verdict == "kink"), f"{case.name}: {check.fault}"
        ours = case.function(*(Tensor(x.astype(np.float32)).to(device) for x in case.arrays))
        assert ours.dtype == (np.float64 if op in ("astype", "Tensor.to") else np.float32), case.name


@pytest.mark.parametrize("name", FAMILIES)
def test_whole_network(name: str, device: str, request: pytest.FixtureRequest) -> None:
    """Every parameter tensor of a complete network (fixed ones too), and the Hessian part by part."""
    if "emulated" in request.node.name and name in SLOW_TO_EMULATE:
        pytest.skip("an emulated GPU would take minutes; other networks and the operations' cases have the same layers")
    orders = set()
    for label, check in check_model(name, order=2, device=device):
        assert check.verdict == "ok", f"{label}: {check.fault}"
        orders.add(check.order)
    assert orders == {1, 2}


@pytest.mark.parametrize("case", CONV_CASES, ids=names(CONV_CASES))
def test_three_kernels_share_one_trilinear_form(case: ConvCase, device: str) -> None:
    """B(x, w, y) is the same number through each of its three derivatives."""
    geom = case.geom
    x, w, y = (Tensor(normal(*shape)).to(device) for shape in (geom.x_shape, geom.w_shape, geom.y_shape))
    values = [
        (PRIMITIVES["conv2d"](x, w, geom=geom) * y).sum().item(),
        (PRIMITIVES["conv_transpose2d"](y, w, geom=geom) * x).sum().item(),
        (PRIMITIVES["conv2d_weight"](x, y, geom=geom) * w).sum().item(),
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-10, atol=1e-10)
