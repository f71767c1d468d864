"""Exports in 8 bits: what they compute, and what their manifests say."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import billhook
from billhook.deploy import compile_for, export
from billhook.deploy.parity import sqnr
from billhook.errors import ExportError, InputError
from billhook.measure import Artifact, Timing, backends, profile
from tests.networks import build
from tests.unit.deploy.toy_networks import Attention

BACKENDS = ("billhook", "onnxruntime")


@pytest.fixture(autouse=True)
def available(request: pytest.FixtureRequest) -> None:
    """Skip what needs billhook's own engine where that is not built."""
    if "billhook" in request.node.name:
        request.getfixturevalue("engine")


def network() -> nn.Module:
    """Return a classifier whose layers all have a form in integers."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(48, 5)).eval()


def batches(count: int = 3, size: int = 8) -> list[Tensor]:
    """Return calibration data, the same in every run."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, size, size, generator=generator) for _ in range(count)]


def exported(folder: Path, backend: str, **options: object) -> Artifact:
    """Return the network in 8 bits."""
    calibration = billhook.Calibration(batches(), **options)
    return export(network(), batches()[0][:2], folder, backend=backend, calibration=calibration)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["mse", "percentile", "minmax"])
def test_an_artifact_in_8_bits_is_near_and_says_how_near(tmp_path: Path, backend: str, method: str) -> None:
    made = exported(tmp_path / "net", backend, method=method, percentile=99.9)
    m = made.manifest
    assert Artifact.load(made.directory).manifest == m
    assert (m.backend, m.precision, m.dynamic_batch) == (backend, "int8", True)
    assert m.parity is not None
    assert (m.parity["inputs"], m.parity["tolerance"], m.parity["batches"]) == (
        "calibration",
        None,
        [8, 1, 9],
    )
    assert 20 < m.parity["sqnr"] < 60
    assert "signal to noise" in m.notes[-1]
    x = torch.cat(batches())
    (found,) = backends.get(backend).open(made).run([x.numpy()])
    with torch.no_grad():
        expected = network()(x)
    assert 20 < sqnr(expected.numpy(), found) < 60


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranges_come_from_the_data(tmp_path: Path, backend: str) -> None:
    calibration = billhook.Calibration([x / 10 for x in batches()], "minmax")
    made = export(network(), batches()[0], tmp_path / "net", backend=backend, calibration=calibration)
    session = backends.get(backend).open(made)
    x = batches()[0]
    with torch.no_grad():
        near, far = (
            sqnr(network()(x * s).numpy(), session.run([x.numpy() * s])[0]) for s in (np.float32(0.1), 1)
        )
    assert near > far + 10


@pytest.mark.parametrize("backend", BACKENDS)
def test_measurements_and_artifacts_for_timing_say_int8(tmp_path: Path, backend: str) -> None:
    calibration = billhook.Calibration(batches())
    x = batches()[0][:1]
    made = export(network(), x, tmp_path / "net", backend=backend, calibration=calibration, purpose="timing")
    assert (made.manifest.precision, made.manifest.parity, made.manifest.dynamic_batch) == (
        "int8",
        None,
        False,
    )
    (found,) = profile([made], Timing(rounds=1, seconds_per_round=0.01))
    assert found.latency.conditions["precision"] == "int8"


@pytest.mark.parametrize("backend", BACKENDS)
def test_wrong_batches_are_told(tmp_path: Path, backend: str) -> None:
    for wrong, message in (
        ([torch.randn(2, 3, 9, 9)], "calibration batch"),
        ([(batches()[0], torch.zeros(8))], "give inputs only"),
        ([], "no batches"),
        ([torch.full((2, 3, 8, 8), float("nan"))], "not finite"),
    ):
        with pytest.raises(InputError, match=message):
            export(
                network(),
                batches()[0],
                tmp_path / "net",
                backend=backend,
                calibration=billhook.Calibration(wrong),
            )
    assert not (tmp_path / "net").exists()


def test_a_batch_size_that_the_code_fixes(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x.view(2, 6))
            return out

    torch.manual_seed(0)
    data = [torch.randn(5, 6), torch.randn(2, 6)]  # the first one does not divide
    made = export(
        Fixed(), data[1], tmp_path / "net", backend="onnxruntime", calibration=billhook.Calibration(data)
    )
    assert (made.manifest.dynamic_batch, made.manifest.batch, made.manifest.precision) == (False, 2, "int8")


def test_batches_alone_are_no_calibration(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"calibration is a list; give billhook.Calibration\(batches\)"):
        export(network(), batches()[0], tmp_path / "net", calibration=batches())  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_runtime_without_int8_refuses(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'openvino' has no int8; export in float32, or for 'billhook'"):
        exported(tmp_path / "net", "openvino")


def test_onnx_runtime_does_not_know_the_engine_s_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"keep=\['linear'\] names values of billhook's engine"):
        exported(tmp_path / "net", "onnxruntime", keep=("linear",))


def test_what_stays_in_float32_on_billhook_is_noted(tmp_path: Path) -> None:
    made = exported(tmp_path / "net", "billhook", keep=("linear",))
    assert "linear 'linear' stays in float32: it is kept" in made.manifest.notes


def test_noise_that_drowns_the_signal_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calibration = billhook.Calibration([x / 100 for x in batches()], "minmax")
    with caplog.at_level(logging.WARNING, "billhook"):
        made = export(
            network(),
            batches()[0],
            tmp_path / "net",
            backend="onnxruntime",
            calibration=calibration,
            inputs_for_parity=batches()[0],
        )
    assert made.manifest.parity is not None
    assert made.manifest.parity["sqnr"] < 10
    assert "that is far: calibrate with more data" in caplog.text


@pytest.mark.usefixtures("engine")
def test_what_the_engine_lacks_is_left_to_onnx_runtime_in_int8_too(tmp_path: Path) -> None:
    tokens = torch.randint(20, (4, 6), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    made = export(
        Attention().eval(),
        tokens,
        tmp_path / "net",
        backend="billhook",
        calibration=billhook.Calibration([tokens]),
    )
    assert (made.manifest.backend, made.manifest.precision) == ("onnxruntime", "int8")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["residual", "depthwise_squeeze", "shuffle", "plain", "concat"])
def test_every_operator_of_the_engine_computes_what_the_compiler_means(name: str, tmp_path: Path) -> None:
    model, x = build(name)
    made = export(
        model, x, tmp_path / "net", backend="billhook", calibration=billhook.Calibration([x])
    )  # which compares
    assert made.manifest.precision == "int8"


@pytest.mark.usefixtures("engine")
def test_compiled_networks_take_a_calibration(tmp_path: Path) -> None:
    made = compile_for(
        network(), batches()[0], tmp_path / "net", target="c", calibration=billhook.Calibration(batches())
    )
    assert made.manifest.precision == "int8"


def test_signal_to_noise() -> None:
    signal = np.ones((2, 3))
    assert sqnr(signal, signal) == 200
    assert sqnr(signal, 0.9 * signal) == pytest.approx(20)
    assert sqnr(signal, -signal) == pytest.approx(-6.02, abs=0.01)
