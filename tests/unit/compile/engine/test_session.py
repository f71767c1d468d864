"""Sessions: what a model says about itself, what is refused, and what a caller may rely on."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import billhook.compile.library
from billhook.compile.format import Planes, Writer
from billhook.compile.library import VARIABLE, isas, library
from billhook.compile.session import EnginePort, EngineSession
from billhook.errors import EngineError, InputError, NameNotFoundError, StorageError
from tests.unit.compile.engine.builder import Floats, Model, numbers

SIZE = (40, 30, 30)  # enough work for several threads


def _softmax() -> bytes:
    model = Model()
    x, y = model.reads(model.place(*SIZE)), model.place(*SIZE)
    model.instruction("softmax", {**y.args(), "vectors": y.vectors}, {"in": x.addresses, "mask": y.mask})
    model.writer.port("probabilities", SIZE, y.planes, output=True)
    return model.bytes()


def _expected(given: Floats) -> Floats:
    powers = np.exp(given - given.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def test_a_model_says_what_it_takes_and_makes(tmp_path: Path) -> None:
    path = tmp_path / "model.bhk"
    path.write_bytes(_softmax())
    with EngineSession(path) as session:
        assert session.inputs == (EnginePort("x0", SIZE),)
        assert session.outputs == (EnginePort("probabilities", SIZE),)
        assert session.instructions == 1
        assert session.arena >= 2 * 40 * 30 * 30 * 4
        assert session.isa == isas()[-1]
        given = numbers(*SIZE)
        (result,) = session.run([given])
        np.testing.assert_allclose(result, _expected(given), rtol=1e-5)


@pytest.mark.parametrize("isa", [*("portable", "avx2", "avx512", "neon"), "best"])
def test_an_instruction_set_runs_or_is_refused(isa: str) -> None:
    if isa == "best" or isa in isas():
        with EngineSession(_softmax(), isa=isa) as session:
            assert session.isa == (isas()[-1] if isa == "best" else isa)
    else:
        with pytest.raises(InputError, match=f"lacks '{isa}'; it has portable"):
            EngineSession(_softmax(), isa=isa)


def test_an_engine_that_the_processor_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billhook.compile.library, "isas", lambda: ())
    monkeypatch.setattr(library(), "bh_has", lambda isa: 0)
    with pytest.raises(InputError, match=r"lacks what .*libbillhook\.so was built for; .* cmake -S"):
        EngineSession(_softmax())


def test_threads_and_batches_do_not_change_a_bit() -> None:
    given = numbers(*SIZE)
    with EngineSession(_softmax()) as session:
        one = [session.run([x[None]])[0][0] for x in given]
    for threads in (2, 3, 5):
        with EngineSession(_softmax(), threads) as session:
            for _ in range(3):
                assert np.array_equal(session.run([given])[0], np.stack(one))


def test_a_batch_may_be_empty() -> None:
    with EngineSession(_softmax(), 2) as session:
        (result,) = session.run([np.empty((0, *SIZE), np.float32)])
        assert result.shape == (0, *SIZE)


def test_sessions_run_side_by_side() -> None:
    given = numbers(*SIZE)
    wrong: list[Floats] = []

    def work() -> None:
        with EngineSession(_softmax(), 2) as session:
            for _ in range(5):
                (result,) = session.run([given])
                if not np.allclose(result, _expected(given), rtol=1e-5):
                    wrong.append(result)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_callers_of_one_session_take_turns() -> None:
    given = [numbers(*SIZE, seed=seed) for seed in range(4)]
    with EngineSession(_softmax(), threads=2) as session:
        wanted = [session.run([x])[0] for x in given]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda i: session.run([given[i % 4]])[0], range(40)))
    assert all(np.array_equal(result, wanted[i % 4]) for i, result in enumerate(found))


def test_a_forked_process_does_not_wait_for_threads_that_it_lacks() -> None:
    program = f"""
import gc, os, sys
import numpy as np
from billhook.compile.session import EngineSession
from billhook.errors import InputError
session = EngineSession({_softmax()!r}, threads=2)
x = np.zeros((1, {SIZE[0]}, {SIZE[1]}, {SIZE[2]}), np.float32)
session.run([x])
child = os.fork()
if not child:
    try:
        session.run([x])
    except InputError as error:
        assert "open it here" in str(error)
        del session
        gc.collect()
        os._exit(3)
    os._exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
session.run([x])
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_network_may_do_nothing() -> None:
    writer = Writer(arena=64)
    planes = Planes(np.array([16], np.int32), 2, 3, 4, 16, 16)
    writer.port("x", (2, 3), planes, output=False)
    writer.port("y", (6,), planes, output=True)
    with EngineSession(writer.bytes()) as session:
        given = numbers(2, 3)
        assert np.array_equal(session.run([given])[0], given.reshape(-1, 6))


def test_denormal_numbers_are_zeros_and_stay_what_they_are_outside() -> None:
    model = Model()
    x, y = model.reads(model.vector(2)), model.vector(2)
    model.instruction("affine", y.args(), {"in": x.addresses, "scale": np.full(2, 0.5, np.float32)})
    model.writer.port("y", (2,), y.planes, output=True)
    tiny = np.array([1e-40, 1.0], np.float32)
    with EngineSession(model.bytes()) as session:
        (result,) = session.run([tiny.reshape(1, 2, 1, 1)])
    assert result.tolist() == [[0.0, 0.5]]
    assert tiny[0] * np.float32(0.5) > 0


def test_instructions_are_timed() -> None:
    with EngineSession(_softmax(), 2) as session:
        assert 1e-7 < session.time(0, 3) < 1
        with pytest.raises(InputError, match="instruction 1 of 1"):
            session.time(1)


def test_inputs_that_do_not_fit_are_named() -> None:
    with EngineSession(_softmax()) as session:
        with pytest.raises(InputError, match="0 inputs were given; the model has 1: 'x0'"):
            session.run([])
        with pytest.raises(
            InputError, match=r"'x0' has the shape \[40, 30, 30\]; it must be \[40, 40, 30, 30\]"
        ):
            session.run([np.zeros(SIZE, np.float32)])
        with pytest.raises(InputError, match=r"'x0' has the shape \[\]"):
            session.run([np.zeros((), np.float32)])


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"none\.bhk: No such file.*check the path"):
        EngineSession(tmp_path / "none.bhk")
    with pytest.raises(StorageError, match="this is no billhook model"):
        EngineSession(tmp_path)
    with pytest.raises(StorageError, match="this is no billhook model"):
        EngineSession(b"")
    with pytest.raises(InputError, match="threads is 0"):
        EngineSession(_softmax(), 0)
    with pytest.raises(InputError, match="threads is 1000000; it must be a number from 1 to 1024"):
        EngineSession(_softmax(), 1_000_000)
    with pytest.raises(NameNotFoundError, match="unknown instruction set 'avx3'"):
        EngineSession(_softmax(), isa="avx3")


def test_a_closed_session_says_so() -> None:
    session = EngineSession(_softmax(), 2)
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run([numbers(*SIZE)])


def test_a_missing_engine_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "libbillhook.so"))
    with pytest.raises(EngineError, match=r"not built: there is no .* cmake -S .*engine -B build"):
        library()
    (tmp_path / "libbillhook.so").write_bytes(b"nothing")
    with pytest.raises(EngineError, match="is not billhook's engine"):
        library()


def test_running_a_model_needs_no_torch() -> None:
    program = "import sys, billhook.compile.session; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
