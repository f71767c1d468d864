"""`export`: an artifact that was checked, or nothing."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from billhook.compile.int8.calibration import Calibration
from billhook.deploy._new_folder import new_folder
from billhook.deploy.example import Call
from billhook.deploy.parity import TOLERANCE, Parity, check_parity
from billhook.errors import InputError
from billhook.fuse._forms import Form
from billhook.fuse.lower import has_copies, lower
from billhook.graph.inputs import ExampleInputs
from billhook.graph.plan import Plan
from billhook.measure.artifact import Artifact
from billhook.measure.backend import Backend, backends
from billhook.measure.manifest import Purpose
from billhook.results import Cost

log = logging.getLogger("billhook")

FEW = 16  # samples of the calibration that int8 is compared with PyTorch on
LEAST_SQNR = 10.0  # dB: a tenth of noise


def export(
    model: nn.Module,
    example_inputs: ExampleInputs,
    directory: str | Path,
    *,
    backend: str | Backend = "onnxruntime",
    inputs_for_parity: ExampleInputs | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    plan: Plan | None = None,
    cost: Cost | None = None,
    purpose: Purpose = "shipping",
    calibration: Calibration | None = None,
) -> Artifact:
    """Export `model` into the new folder `directory` and prove that the runtime agrees with PyTorch.

    The folder appears whole or not at all, and an existing one is never overwritten. Takes 2 s for a
    ResNet-20, about 4 s for a ResNet-50.

    Args:
        model: The network; run in eval mode, left as it is.
        example_inputs: A tensor, a tuple, or a dict of keyword arguments.
        directory: Folder to make.
        backend: Runtime to export for, by name or as an object.
        inputs_for_parity: Real data for the comparison, in the form of the example inputs; the example
            itself if not given.
        preprocessing: What happens to data before it is fed (mean, std, size, classes); kept in the manifest.
        plan: The plan the network was pruned with; its hash is kept in the manifest.
        cost: Costs of the network; kept in the manifest.
        purpose: "timing" for an artifact which is only timed: fixed batch size and no comparison, in half
            to two thirds of the time; the optimised graph and its speed are those of "shipping".
        calibration: Data to compute in 8 bits with, where the runtime can; float32 if not given. What comes
            out then differs from PyTorch by what rounding makes: the manifest says how far, and a warning if
            the noise exceeds a tenth of the signal.
    Returns:
        The artifact in `directory`.
    Raises:
        ExportError: if the network cannot be exported, the runtime disagrees, or has no int8.
        StorageError: if `directory` exists or cannot be written.
        MissingExtraError: if the runtime is not installed.
    """
    if purpose not in ("shipping", "timing"):
        raise InputError(f"purpose={purpose!r}: expected 'shipping' or 'timing'")
    try:
        preprocessing = (
            None if preprocessing is None else json.loads(json.dumps(dict(preprocessing), allow_nan=False))
        )
    except (TypeError, ValueError) as e:
        raise InputError(f"preprocessing must be plain data (text, numbers, lists): {e}") from None
    runtime = backends.get(backend) if isinstance(backend, str) else backend
    if not isinstance(calibration, Calibration | None):
        raise InputError(
            f"calibration is a {type(calibration).__name__}; give billhook.Calibration(batches), or None"
        )
    if calibration is not None:
        runtime.require_int8()
    if has_copies(model):  # no runtime knows them
        model = lower(model, example_inputs, forms=usual_form(runtime.name), fold=())
    shipping = purpose == "shipping"
    model, example_inputs = _on_cpu(model, example_inputs)
    with new_folder(directory) as part:
        artifact = _exported(runtime, model, example_inputs, part, shipping, calibration)
        parity = None
        if shipping:
            given, whose = _for_parity(model, artifact, example_inputs, inputs_for_parity, calibration)
            session = backends.get(artifact.manifest.backend).open(artifact)
            int8 = artifact.manifest.precision == "int8"
            checked = check_parity(model, artifact, session, given, tolerance=None if int8 else TOLERANCE)
            parity = {**checked.to_dict(), "inputs": whose}
            if checked.sqnr is not None:
                artifact = _with_distance(artifact, checked)
        artifact = artifact.with_manifest(
            purpose=purpose,
            preprocessing=preprocessing,
            parity=parity,
            cost=None if cost is None else cost.to_dict(),
            plan=None if plan is None else hashlib.sha256(plan.to_json().encode()).hexdigest(),
        )
        artifact.save_manifest()
    return Artifact(Path(directory), artifact.manifest)


def _exported(
    runtime: Backend,
    model: nn.Module,
    example_inputs: Any,
    directory: Path,
    shipping: bool,
    calibration: Calibration | None,
) -> Artifact:
    if calibration is None:
        return runtime.export(model, example_inputs, directory, dynamic_batch=shipping)
    return runtime.export_int8(
        model, example_inputs, directory, calibration=calibration, dynamic_batch=shipping
    )


def _for_parity(
    model: nn.Module,
    artifact: Artifact,
    example: Any,
    given: ExampleInputs | None,
    calibration: Calibration | None,
) -> tuple[Any, str]:
    """Return inputs for the comparison, and whose they are: ranges hold for data like the calibration's."""
    if given is not None:
        return _to_cpu(given), "given"
    if calibration is None:
        return example, "example"
    call = Call.of(model, _to_cpu(calibration.first()))
    if call.batch:
        m = artifact.manifest
        call = call.with_batch(min(call.batch, FEW) if m.dynamic_batch or not m.batch else m.batch)
    return call.kwargs or call.args, "calibration"


def _with_distance(artifact: Artifact, parity: Parity) -> Artifact:
    """Return the artifact with a note on how far it is from PyTorch; warn if that is far."""
    agrees = parity.argmax_agreement
    note = (
        f"int8: differs from PyTorch by at most {parity.max_rel_error:.2g} of the largest output, signal to "
        f"noise {parity.sqnr:.1f} dB"
        + ("" if agrees is None else f", the same largest entry in {agrees:.0%}")
    )
    if parity.sqnr is not None and parity.sqnr < LEAST_SQNR:
        log.warning(
            "%s; that is far: calibrate with more data or another method, or keep layers in float32", note
        )
    return artifact.with_manifest(notes=(*artifact.manifest.notes, note))


def usual_form(backend: str) -> Form:
    """Return what shortcuts with gaps become on `backend` unless it is measured."""
    form: Form = backends.get(backend).copy_form  # type: ignore[assignment]
    return form


def _on_cpu(model: nn.Module, example_inputs: Any) -> tuple[nn.Module, Any]:
    """Return the network and its inputs on the CPU; a copy if they are elsewhere."""
    if any(t.device.type != "cpu" for t in (*model.parameters(), *model.buffers())):
        model = copy.deepcopy(model).cpu()
    return model, _to_cpu(example_inputs)


def _to_cpu(inputs: Any) -> Any:
    return pytree.tree_map(lambda x: x.cpu() if isinstance(x, torch.Tensor) else x, inputs)
