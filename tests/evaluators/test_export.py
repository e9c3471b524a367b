"""Exported files are the network, and what is not is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18, squeezenet1_1

from evaluators.export import fresh
from evaluators.export.formats import (
    INT8,
    LOAD,
    ONNX,
    PT2,
    WEIGHTS,
    Network,
    chosen_formats,
    write_formats,
)
from evaluators.export.plain import LOADER, plain_document
from evaluators.export.process import ExportError, FreshProcess, Job
from evaluators.export.verify import TOLERANCE, verify
from evaluators.models import CIFAR_MODELS, DigitsCnn
from evaluators.options import OptionError
from evaluators.task import Task, TensorLoader
from evaluators.tasks.dense import dense_code
from spaces import cut, rebuild, trace
from spaces.surgery import describe, write_architecture

ROOT = Path(__file__).parents[2]
DIGITS = "from evaluators.models import DigitsCnn\ndense = DigitsCnn()"


def halved(dense: nn.Module, example: torch.Tensor, folder: Path) -> nn.Module:
    """About half of the MACs, units at random; statistics of norms are drawn, so that each counts."""
    generator = torch.Generator().manual_seed(1)
    for module in dense.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    space = trace(dense.eval(), example)
    kept = {
        name: torch.randperm(space.dense.widths[name], generator=generator)[:width].sort().values
        for name, width in space.sample(generator, macs=0.5).widths.items()
    }
    small = cut(dense, space, kept).eval()
    write_architecture(folder, describe(space, kept, {}, dense), small.state_dict())
    return small


FAMILIES = {
    "digits": (DigitsCnn, DIGITS, (1, 8, 8)),
    "resnet20": (
        CIFAR_MODELS["resnet20"],
        "from evaluators.models import CIFAR_MODELS\ndense = CIFAR_MODELS['resnet20']()",
        (3, 32, 32),
    ),
    "resnet18": (resnet18, "from torchvision.models import resnet18\ndense = resnet18()", (3, 64, 64)),
    "mobilenet_v2": (
        mobilenet_v2,
        "from torchvision.models import mobilenet_v2\ndense = mobilenet_v2()",
        (3, 64, 64),
    ),
}

#: A user's own program. Where the dense network is torchvision's, nothing of Espalier can be imported at all.
PROGRAM = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("spaces", "evaluators", "search"):
            raise ImportError(name)
if {strict}:
    sys.meta_path.insert(0, Nothing())
{dense}
for name in [name for name in sys.modules if name.partition(".")[0] in ("spaces", "evaluators", "search")]:
    del sys.modules[name]
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads({threads})  # other threads, other last bits
from load import load
model = load(dense).eval()
inputs = torch.load({folder!r} + "/inputs", weights_only=True)
with torch.inference_mode():
    torch.save(model(inputs), {folder!r} + "/outputs")
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plain_loader_makes_the_network_without_espalier(family: str, tmp_path: Path) -> None:
    make, code, shape = FAMILIES[family]
    dense = make()
    small = halved(dense, torch.rand(1, *shape), tmp_path)
    document = json.loads((tmp_path / "architecture.json").read_text())
    plain = plain_document(document, dense, small)
    (tmp_path / "architecture.json").write_text(json.dumps(plain))
    (tmp_path / "load.py").write_text(LOADER)
    inputs = torch.randn(2, *shape)
    torch.save(inputs, tmp_path / "inputs")
    strict, threads = "torchvision" in code, torch.get_num_threads()
    program = PROGRAM.format(strict=strict, dense=code, folder=str(tmp_path), threads=threads)
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    with torch.inference_mode():
        wanted = small(inputs)
    assert wanted.abs().max() > 0.01
    assert torch.equal(torch.load(tmp_path / "outputs", weights_only=True), wanted)
    # What says more than the run's own document is read by `rebuild` as well.
    again = rebuild(make(), tmp_path).eval()
    with torch.inference_mode():
        assert torch.equal(again(inputs), wanted)
    convolutions = [m for m in again.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.shape[:2] == (m.out_channels, m.in_channels // m.groups) for m in convolutions)


def test_the_loader_is_short_and_tells_what_does_not_fit(tmp_path: Path) -> None:
    lines = [line for line in LOADER.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 25
    halved(DigitsCnn(), torch.rand(1, 1, 8, 8), tmp_path)
    names: dict[str, object] = {"__file__": str(tmp_path / "load.py")}
    exec(LOADER, names)
    with pytest.raises(KeyError, match="blocks"):
        names["load"](CIFAR_MODELS["resnet20"]())


def test_attention_with_fewer_heads_has_no_plain_loader() -> None:
    whole = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    example = torch.rand(2, 3, 16)
    space = trace(whole, example)
    heads = next(group for group in space.groups if "self_attn" in group.name)
    kept = {heads.name: torch.arange(heads.width - 1)}
    assert plain_document(describe(space, kept, {}, whole), whole, cut(whole, space, kept)) is None


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    folder = tmp_path_factory.mktemp("run") / "architectures"
    dense = DigitsCnn()
    small = halved(dense, torch.rand(1, 1, 8, 8), folder)
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(40, 1, 8, 8, generator=generator)
    targets = small(images).argmax(1)
    targets[:10] = (targets[:10] + 1) % 10  # 30 of 40 are right

    def loader() -> TensorLoader:
        return TensorLoader(images, targets, 16)

    task = Task("toy", dense, images[:1], loader(), loader(), loader(), calibration=loader())
    task.test.unseal()
    return Network(small, task, folder, DIGITS)


@pytest.fixture(scope="module")
def written(network: Network, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("exported")
    return folder, write_formats(network, chosen_formats(["int8,architecture", "pt2,onnx"]), folder, str)


def check(network: Network, jobs, scratch: Path, reported: float | None = 0.75):
    return verify(network.model, network.task, jobs, reported=reported, scratch=scratch, say=str)


def test_every_format_gives_the_networks_outputs_and_its_score(network, written, tmp_path: Path) -> None:
    folder, jobs = written
    files = {"architecture.json", LOAD, WEIGHTS, ONNX, PT2, INT8}
    assert {path.name for path in folder.iterdir()} == files
    verdicts = check(network, jobs, tmp_path)
    assert set(verdicts) == files - {"architecture.json"}
    for name in (WEIGHTS, LOAD, ONNX, PT2):
        assert verdicts[name].difference < TOLERANCE
        assert verdicts[name].test == pytest.approx(0.75)
        assert verdicts[name].holdout is None
    assert verdicts[INT8].difference > TOLERANCE  # eight bits are not the network
    assert verdicts[INT8].holdout is not None
    assert verdicts[INT8].holdout_before == pytest.approx(0.75)


def test_no_file_holds_a_path_of_this_machine_or_a_sample(network, written) -> None:
    folder, _ = written
    sample = network.task.example_inputs.numpy().tobytes()
    for path in folder.iterdir():
        content = path.read_bytes()
        for secret in (str(ROOT), str(Path(torch.__file__).parent), str(network.folder), "resnet_cifar.py"):
            assert secret.encode() not in content, path
        assert sample not in content, path


def test_what_is_not_the_network_is_refused(network, written, tmp_path: Path) -> None:
    _, jobs = written
    other = DigitsCnn().eval()
    with pytest.raises(ExportError, match=r"^model.onnx: for a batch of 1 its outputs differ .* by up to"):
        verify(other, network.task, {ONNX: jobs[ONNX]}, reported=None, scratch=tmp_path / "a", say=str)
    with pytest.raises(ExportError, match=r"^the network: scores 0.75 on test, where 0.8 was reported"):
        check(network, {ONNX: jobs[ONNX]}, tmp_path / "b", reported=0.8)


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()


def test_a_batch_that_became_a_constant_is_refused(network, tmp_path: Path) -> None:
    program = torch.export.export(network.model, (torch.rand(2, 1, 8, 8),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    jobs = {"fixed.pt2": (Job("torch.export", str(tmp_path / "fixed.pt2")), True)}
    with pytest.raises(ExportError, match=r"^fixed.pt2: for a batch of 1 can not be run in a new process"):
        check(network, jobs, tmp_path / "a")


def test_one_sample_may_turn_and_two_may_not(network, written, tmp_path: Path) -> None:
    jobs = {ONNX: written[1][ONNX]}
    check(network, jobs, tmp_path / "a", reported=0.75 + 1 / 40)
    with pytest.raises(ExportError, match="was reported"):
        check(network, jobs, tmp_path / "b", reported=0.75 + 2 / 40)


def test_a_loader_that_needs_espalier_is_found_out(network, tmp_path: Path) -> None:
    (tmp_path / "load.py").write_text("import spaces\n")
    jobs = {LOAD: (Job("plain", str(tmp_path), DIGITS), True)}
    with pytest.raises(
        ExportError, match=r"^load.py: can not be loaded in a new process: .*spaces is not to be"
    ):
        check(network, jobs, tmp_path / "a")


def test_a_network_that_no_format_can_hold_is_named(network, tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 1 else -x

    odd = Network(Branching(), network.task, network.folder, DIGITS)
    with pytest.raises(ExportError, match=r"^pt2: this network can not be written so \(\w+"):
        write_formats(odd, ["pt2"], tmp_path, str)


def test_inputs_of_any_structure_reach_the_process_and_pickles_do_not() -> None:
    arrays: list[np.ndarray] = []
    value = {"ids": np.arange(3), "pair": (np.ones(2), [None, "text", 2.5]), "flag": True}
    structure = fresh.pack(value, arrays, lambda v: v if isinstance(v, np.ndarray) else None)
    back = fresh.unpack(json.loads(json.dumps(structure)), arrays.__getitem__)
    np.testing.assert_equal(back, value)
    assert isinstance(back["pair"], tuple)
    with pytest.raises(TypeError, match="inputs with a set can not be handed to another process"):
        fresh.pack({1, 2}, [], lambda _: None)


def test_keyword_inputs_and_several_outputs_are_compared(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, left, right):
            return {"sum": self.linear(left + right), "difference": self.linear(left - right)}

    model = Two().eval()
    inputs = {"right": torch.rand(8, 4), "left": torch.rand(8, 4)}
    batches = [(inputs, torch.zeros(8))]
    task = Task(
        "two",
        model,
        inputs,
        batches,
        batches,
        batches,
        score=lambda o, _: o["sum"].mean(1) - o["difference"][:, 0],
    )
    task.test.unseal()
    network = Network(model, task, tmp_path, "")
    (tmp_path / "files").mkdir()
    jobs = write_formats(network, ["onnx", "pt2"], tmp_path / "files", str)
    found = check(network, jobs, tmp_path / "a", reported=None)
    assert {name: v.difference < TOLERANCE for name, v in found.items()} == {ONNX: True, PT2: True}
    outputs = model(**inputs)
    wanted = (outputs["sum"].mean(1) - outputs["difference"][:, 0]).mean().item()
    assert found[ONNX].test == pytest.approx(wanted, abs=1e-5)


def test_the_process_ends_with_its_context(written, tmp_path: Path) -> None:
    with FreshProcess(written[1][ONNX][0], tmp_path / "new") as process:
        process.wait_ready()
    assert process._process.returncode is not None


@pytest.mark.parametrize(
    ("name", "model", "network"),
    [
        ("digits", None, DigitsCnn()),
        ("cifar10", None, CIFAR_MODELS["resnet20"]()),
        ("cifar10", "resnet32", CIFAR_MODELS["resnet32"]()),
        ("imagefolder", None, resnet18(num_classes=3)),
        ("imagefolder", "squeezenet1_1", squeezenet1_1(num_classes=7)),
    ],
)
def test_the_dense_network_of_a_task_is_made_by_a_few_lines(name, model, network) -> None:
    task = Task(name, network, torch.rand(1, 1 if name == "digits" else 3, 64, 64), [], [], [])
    made = fresh.dense_network(dense_code(name, model, task))
    assert {key: value.shape for key, value in made.state_dict().items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", ["task", "my task"])
def test_a_users_file_makes_its_dense_network_with_its_neighbours(name, tmp_path: Path) -> None:
    (tmp_path / f"neighbour_{name[:2]}.py").write_text("from torch import nn\nNet = nn.Identity\n")
    source = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom neighbour_{name[:2]} import Net\n"
    source += "class T:\n    model = Net()\ndef make():\n    return T()\n"
    (tmp_path / f"{name}.py").write_text(source)
    code = dense_code(f"{tmp_path}/{name}.py:make", None, None)
    program = f"{code}\nassert type(dense).__name__ == 'Identity'"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_formats_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_formats(["pt2, onnx", "onnx"]) == ("onnx", "pt2")
    with pytest.raises(OptionError, match=r"^--export 'onx': unknown export; did you mean onnx\?"):
        chosen_formats(["onx"])
    found = "evaluators.export.formats.importlib.util.find_spec"
    monkeypatch.setattr(found, lambda name: None if name == "onnxruntime" else True)
    with pytest.raises(
        OptionError, match=r"^--export int8: needs onnxruntime; pip install 'espalier-nas\[export\]'"
    ):
        chosen_formats(["architecture", "int8"])
