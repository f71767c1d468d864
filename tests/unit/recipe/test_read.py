from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billhook.errors import RecipeError
from billhook.fuse import Fusion
from billhook.recipe import Change, Recipe, build, parse, read, save, to_toml
from billhook.recipe.schema import Fuse

WRONG = """\
nmae = "x"
[model]
name = "resnet20"
input = [
  "1x3x32x32",
  "1x3xx",
]
[budget]
latency = "8 parsec"
macs = 0.5
[finetune]
epoch = 3
epochs = "4"
[prnue]
"""


def test_every_problem_is_reported_at_once_with_its_line() -> None:
    with pytest.raises(RecipeError) as caught:
        parse(WRONG, "r.toml")
    lines = str(caught.value).splitlines()
    places = [line.split(": ", 1)[0] for line in lines]
    assert places == [f"r.toml:{n}" for n in (1, 6, 9, 12, 13, 14)]
    assert lines[0].endswith("unknown key 'nmae'; did you mean 'name'?")
    assert "cannot read input '1x3xx'" in lines[1]
    assert "budget.latency: cannot read '8 parsec' as seconds" in lines[2]
    assert lines[3].endswith("unknown key 'epoch' in [finetune]; did you mean 'epochs'?")
    assert lines[4].endswith("finetune.epochs: input should be a valid integer, found '4'")
    assert lines[5].endswith("unknown table 'prnue'; did you mean 'prune' or 'sparse'?")
    assert caught.value.exit_code == 2


def test_a_syntax_error_has_its_line() -> None:
    with pytest.raises(RecipeError, match=r"^r\.toml:2: not valid TOML"):
        parse("a = 1\nb = = 2\n", "r.toml")


def test_a_wrong_option_is_named_as_the_option() -> None:
    with pytest.raises(
        RecipeError, match=r"^--threads: input should be greater than or equal to 1, found 0$"
    ):
        parse('[model]\nname = "m"\n', "r.toml", [Change(("measure", "threads"), 0, "--threads")])


def test_an_option_replaces_what_the_file_says() -> None:
    text = '[model]\nname = "m"\n[measure]\nthreads = 4\nrounds = 9\n'
    recipe = parse(text, changes=[Change(("measure", "threads"), 2, "--threads")])
    assert (recipe.measure.threads, recipe.measure.rounds) == (2, 9)


def test_a_recipe_without_a_model_says_so() -> None:
    with pytest.raises(RecipeError, match="'model' is missing"):
        build([])


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("prune", 'method = "l3"', "unknown method 'l3'; did you mean 'l"),
        ("prune", 'mixing = "perhaps"', "'freeze' or 'allow'"),
        ("prune", "round_to = 0", "greater than or equal to 1"),
        ("prune", "verify = 1", "valid boolean"),
        ("data", 'name = "fashon-mnist"', "did you mean 'fashion-mnist'"),
        ("export", 'backend = "onnx-runtime"', "did you mean 'onnxruntime'"),
        ("budget", "latency = -1", "must be a positive number"),
        ("budget", "lateny = 0.5", "did you mean 'latency'"),
        ("budget", "", "a budget needs at least one bound"),
        ("measure", "threads = 1.5", "valid integer"),
        ("finetune", "distill = nan", "finite number"),
        ("finetune", 'lr = "high"', "finetune.lr: must be a number above 0 or 'auto', found 'high'"),
        (
            "finetune",
            'lr = "auto"\noptimizer = "adamw"',
            "is for optimizer = 'sgd'; give a number for 'adamw'",
        ),
        ("train", 'lr = "auto"', "valid number"),
        (
            "fuse",
            'level = "agressive"',
            "fuse.level: must be one of 'none', 'conservative', 'aggressive', found 'agressive'",
        ),
        ("fuse", 'operators = ["relu"]', "fuse.operators: must be a tuple of words out of batch_norm, "),
        ("fuse", 'exclude = "layer1"', "fuse.exclude: "),
        ("fuse", 'add_form = "sum"', "fuse.add_form: must be one of 'chain', 'concat', 'group'"),
        ("fuse", 'copies = "none"', "fuse.copies: must be one of 'symbolic', 'dense'"),
        ("fuse", 'keep_if = "never"', "fuse.keep_if: must be one of 'cost', 'always'"),
        ("fuse", 'levels = "none"', "unknown key 'levels' in [fuse]; did you mean 'level'?"),
    ],
)
def test_wrong_values_are_explained(table: str, line: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(f'[model]\nname = "m"\n[{table}]\n{line}\n', "r.toml")
    assert message in str(caught.value)
    assert str(caught.value).startswith(("r.toml:3: ", "r.toml:4: "))


def test_the_rate_of_fine_tuning_can_be_left_open() -> None:
    recipe = parse('[model]\nname = "m"\n[finetune]\nlr = "auto"\n')
    assert recipe.finetune.lr == "auto"
    assert parse(to_toml(recipe)) == recipe
    assert recipe.finetune.to_config(seed=0).lr == 0.02  # until it is known
    assert recipe.finetune.to_config(seed=0, lr=0.1).lr == 0.1


def test_nothing_is_fused_unless_the_recipe_says_so() -> None:
    fusion = parse('[model]\nname = "m"\n').fuse.to_fusion()
    assert fusion == Fusion("none")


def test_what_is_fused_reads_back_the_same() -> None:
    table = """
        [model]
        name = "m"
        [fuse]
        level = "aggressive"
        operators = ["add_identity", "batch_norm"]
        include = ["layer*"]
        exclude = ["layer1.0", "layer4*"]
        add_form = "concat"
        copies = "dense"
        keep_if = "always"
        """
    recipe = parse(table)
    assert recipe.fuse.to_fusion() == Fusion(
        level="aggressive",
        operators=("add_identity", "batch_norm"),
        include=("layer*",),
        exclude=("layer1.0", "layer4*"),
        add_form="concat",
        copies="dense",
        keep_if="always",
    )
    assert parse(to_toml(recipe)) == recipe


def test_a_recipe_can_say_everything_about_fusion() -> None:
    assert set(Fuse.model_fields) == {f.name for f in fields(Fusion)}


def test_paths_in_a_file_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sub" / "r.toml"
    file.parent.mkdir()
    file.write_text('[model]\nname = "net.py:make"\nweights = "../w.safetensors"\n')
    recipe = read(file)
    assert recipe.model.name == f"{file.parent / 'net.py'}:make"
    assert recipe.model.weights == str(tmp_path / "w.safetensors")


def test_paths_in_options_are_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = build(
        [Change(("model", "name"), "m", "MODEL"), Change(("model", "weights"), "w.pth", "--weights")]
    )
    assert recipe.model.weights == str(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * (2**20 + 1)], ids=["binary", "huge"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "r.toml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=r"r\.toml"):
        read(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.toml: cannot read this recipe: No such file"):
        read(tmp_path / "none.toml")


def test_nothing_outside_the_schema_survives_a_deep_nest() -> None:
    with pytest.raises(RecipeError):
        parse("a = " + "[" * 5000 + "]" * 5000, "r.toml")


plain = st.one_of(
    st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), st.text()
)


@given(
    args=st.dictionaries(
        st.text(min_size=1), st.one_of(plain, st.lists(plain), st.dictionaries(st.text(), plain))
    ),
    distill=st.floats(0, 1),
)
def test_a_saved_recipe_reads_back_the_same(args: dict[str, object], distill: float) -> None:
    recipe = Recipe.model_validate(
        {
            "model": {"name": "m", "args": args},
            "budget": {"macs": 0.5, "latency": "8ms"},
            "finetune": {"distill": distill},
        }
    )
    again = parse(to_toml(recipe))
    assert again == recipe


def test_save_writes_a_file_that_reads_back(tmp_path: Path) -> None:
    recipe = parse('name = "demo"\n[model]\nname = "m"\ninput = ["1x3x8x8"]\n[finetune]\nepochs = 2\n')
    save(recipe, tmp_path / "out.toml")
    assert read(tmp_path / "out.toml") == recipe
    assert [p.name for p in tmp_path.iterdir()] == ["out.toml"]


SPARSE = '[model]\nname = "resnet-8"\n[sparse]\n'


def test_a_recipe_says_which_weights_leave() -> None:
    text = SPARSE + 'sparsity = 0.8\npattern = { "head.weight" = "dense", stem = "8x1|4x1|dense" }\n'
    read = parse(text)
    assert read.sparse.wanted
    assert read.sparse.pattern == {"head.weight": "dense", "stem": "8x1|4x1|dense"}
    assert read.sparse.training.epochs == 2
    assert parse(to_toml(read)) == read
    assert not parse(SPARSE).sparse.wanted


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sparsity = 1.0", "sparse.sparsity: input should be less than 1, found 1.0"),
        ("sparsity = -0.1", "sparse.sparsity: input should be greater than or equal to 0, found -0.1"),
        ("sparsity = nan", "sparse.sparsity: input should be a finite number, found nan"),
        (
            'pattern = "bock_punched"',
            "sparse.pattern: unknown pattern 'bock_punched'; did you mean 'block_punched'?",
        ),
        ('pattern = "4x1|0x1|dense"', "option rows=0 must be an integer of at least 1"),
        ('pattern = { a = "4x1", b = "block_punched:rose=3" }', "has no option 'rose'; did you mean 'rows'?"),
        ('pattern = "rules:beat=1"', "pattern 'rules' has no option 'beat'; did you mean 'beta'?"),
        ('method = "admn"', "sparse.method: unknown sparse method 'admn'; did you mean 'admm'?"),
        ('allocation = "lmp"', "sparse.allocation: unknown allocation 'lmp'; did you mean 'lamp'?"),
        ("sparsty = 0.5", "unknown key 'sparsty' in [sparse]; did you mean 'sparsity' or 'sparsities'?"),
        ("training = { epochs = 0 }", "sparse.training.epochs: input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_about_weights_is_said_with_its_line(line: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(SPARSE + line, "r.toml")
    assert str(caught.value).startswith("r.toml:4: ")
    assert message in str(caught.value)
