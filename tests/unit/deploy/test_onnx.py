from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from billhook.deploy import OnnxExport, export_onnx
from billhook.deploy.onnx import OPSET
from billhook.errors import ExportError, InputError, MissingExtraError
from tests.unit.deploy.toy_networks import (
    Answers,
    Attention,
    Branches,
    FixedBatch,
    Keywords,
    NoOnnxForm,
    convolutions,
)

IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def _run(made: OnnxExport, *inputs: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    assert names == [spec.name for spec in made.inputs]
    assert [o.name for o in session.get_outputs()] == [spec.name for spec in made.outputs]
    return list(session.run(None, {n: t.numpy() for n, t in zip(names, inputs, strict=True)}))


def _operators(path: Path) -> list[str]:
    import onnx

    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_network_is_exported_in_eval_mode_with_an_open_batch_size(tmp_path: Path) -> None:
    model = convolutions().train()
    made = export_onnx(model, IMAGE, tmp_path / "net.onnx")
    assert all(m.training for m in model.modules())
    assert (made.dynamic_batch, made.batch, made.opset) == (True, 1, OPSET)
    assert made.inputs[0].shape == (None, 3, 8, 8)
    assert made.outputs[0].shape == (None, 5)
    assert made.outputs[0].name == "output"
    model.eval()
    for n in (1, 3):
        x = torch.randn(n, 3, 8, 8)
        np.testing.assert_allclose(_run(made, x)[0], model(x).detach(), rtol=1e-4, atol=1e-5)


def test_batch_norms_are_folded_because_the_runtime_does_not(tmp_path: Path) -> None:
    made = export_onnx(convolutions(), IMAGE, tmp_path / "net.onnx", dynamic_batch=False)
    assert "BatchNormalization" not in _operators(made.path)
    assert made.inputs[0].shape == (1, 3, 8, 8)
    assert not made.dynamic_batch


def test_attention_and_integer_inputs(tmp_path: Path) -> None:
    model = Attention().eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
    made = export_onnx(model, tokens, tmp_path / "net.onnx")
    assert made.dynamic_batch
    assert (made.inputs[0].dtype, made.inputs[0].low, made.inputs[0].high) == ("int64", 1, 9)
    batch = torch.randint(0, 20, (5, 6))
    np.testing.assert_allclose(_run(made, batch)[0], model(batch).detach(), rtol=1e-4, atol=1e-5)


def test_keywords_in_any_order_and_options_that_are_no_tensors(tmp_path: Path) -> None:
    inputs = {"scale": 3, "b": ROWS, "a": 2 * ROWS}
    made = export_onnx(Keywords(), inputs, tmp_path / "net.onnx")
    assert [spec.name for spec in made.inputs] == ["a", "b"]
    np.testing.assert_allclose(_run(made, 2 * ROWS, ROWS)[0], 5 * ROWS, rtol=1e-6)


def test_a_tuple_with_none(tmp_path: Path) -> None:
    made = export_onnx(Keywords(), (ROWS, None, 2), tmp_path / "net.onnx")
    np.testing.assert_allclose(_run(made, ROWS)[0], 2 * ROWS)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (lambda y, x: {"logits": y, "aux": (y + 1, y.sum(1))}, ["logits", "aux_0", "aux_1"]),
        (lambda y, x: {"add": y + 1, "mul": (y * 2) + (y + 3)}, ["add", "mul"]),
        (lambda y, x: {"x": y, "linear": y * 2}, ["x_out", "linear"]),
        (lambda y, x: (y, y, x), ["output_0", "output_1", "output_2"]),
        (lambda y, x: (y, None, 3, y * 2), ["output_0", "output_3"]),
    ],
)
def test_outputs_keep_the_network_s_names_and_order(answer: Any, names: list[str], tmp_path: Path) -> None:
    model = Answers(answer).eval()
    made = export_onnx(model, ROWS, tmp_path / "net.onnx")
    assert [spec.name for spec in made.outputs] == names
    expected = [t for t in torch.utils._pytree.tree_leaves(model(ROWS)) if isinstance(t, torch.Tensor)]
    for actual, wanted in zip(_run(made, ROWS), expected, strict=True):
        np.testing.assert_allclose(actual, wanted.detach(), rtol=1e-5, atol=1e-6)


def test_a_network_that_knows_its_batch_size_gets_a_fixed_one_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "billhook"):
        made = export_onnx(FixedBatch(), ROWS, tmp_path / "net.onnx")
    assert not made.dynamic_batch
    assert made.inputs[0].shape == (2, 4)
    assert made.notes == ("the batch size is fixed at 2: the network's code depends on it",)
    assert made.notes[0] in caplog.text


def test_inputs_without_a_common_first_size_keep_their_sizes(tmp_path: Path) -> None:
    made = export_onnx(Keywords(), (ROWS, ROWS[:1]), tmp_path / "net.onnx")
    assert made.batch is None
    assert "no common first dimension" in made.notes[0]


def test_nothing_of_the_machine_is_in_the_file_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made = export_onnx(convolutions(), IMAGE, tmp_path / "net.onnx")
    content = made.path.read_bytes()
    for trace in (b"stack_trace", b".py", str(Path.home()).encode(), b"site-packages"):
        assert trace not in content
    assert capfd.readouterr() == ("", "")


def test_weights_can_go_into_a_second_file(tmp_path: Path) -> None:
    model = convolutions(width=64).eval()
    made = export_onnx(model, IMAGE, tmp_path / "net.onnx", external_weights=True)
    assert (tmp_path / "net.onnx.data").stat().st_size > 64 * 64 * 9 * 4
    assert made.path.stat().st_size < 20_000
    np.testing.assert_allclose(_run(made, IMAGE)[0], model(IMAGE).detach(), rtol=1e-4, atol=1e-5)


def test_the_opset_is_the_one_asked_for(tmp_path: Path) -> None:
    import onnx

    made = export_onnx(convolutions(), IMAGE, tmp_path / "net.onnx", opset=20)
    assert made.opset == 20
    assert [o.version for o in onnx.load(made.path).opset_import if o.domain == ""] == [20]
    for opset in (5, 9999):
        with pytest.raises(InputError, match=f"opset={opset}: this exporter writes 18 to"):
            export_onnx(convolutions(), IMAGE, tmp_path / "net.onnx", opset=opset)


def test_an_operator_without_onnx_form_is_named_with_its_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ExportError, match=r"operator aten\.linalg_qr\S* has no ONNX form at .*toy_networks"
    ) as e:
        export_onnx(NoOnnxForm(), torch.randn(3, 3), tmp_path / "net.onnx", dynamic_batch=False)
    assert "return torch.linalg.qr(x)[0]" in str(e.value)
    assert capfd.readouterr() == ("", "")


def test_a_branch_on_data_is_named_with_its_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError, match=r"cannot be captured.*toy_networks\.py:\d+: if x\.sum\(\) > 0"):
        export_onnx(Branches(), ROWS, tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_network_that_fails_or_returns_nothing(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="itself fails on the example inputs"):
        export_onnx(nn.Linear(9, 1), ROWS, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="returns no tensor"):
        export_onnx(Answers(lambda y, x: None), ROWS, tmp_path / "net.onnx")


def test_a_type_that_no_runtime_can_be_fed(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"torch\.bfloat16"):
        export_onnx(Keywords(), ROWS.bfloat16(), tmp_path / "net.onnx")


@pytest.mark.parametrize("library", ["onnx", "onnxscript"])
def test_without_the_library_the_extra_is_named(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"'{library}', which is not installed.*billhook\[onnx\]"):
        export_onnx(convolutions(), IMAGE, tmp_path / "net.onnx")
