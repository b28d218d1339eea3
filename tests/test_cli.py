"""The command line: help, usage errors, user errors, and the commands that need no training."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem, ShellComplete

from fsframework.cli import main, plugins
from fsframework.core.errors import UserError
from fsframework.core.registry import KINDS, SINGULAR, registry
from fsframework.evaluation.results import Metrics
from fsframework.faces.paste import DEFAULT_PASTE, PasteOptions
from fsframework.inference.jobs import AssignmentFiles, SwapOptions
from fsframework.media.video_encoder import VideoOptions
from fsframework.models.store import DEFAULT
from fsframework.provenance.options import ProvenanceOptions
from fsframework.recipe.schema import shipped
from fsframework.utils.executors import SERIAL
from fsframework.utils.shards import WHOLE, JobShard

TOY = Path(__file__).parent / "toy_plugin"
RECIPE = """\
name: toy
size: 32
data: {use: toy-data}
networks:
  identity: {use: toy-identity}
  attributes: {use: toy-attributes}
  generator: {use: toy-generator}
stages:
  - name: only
    train: [generator]
    losses: [{use: toy-loss}]
    optimizer: {lr: 4e-4}
    steps: 5
    batch_size: 2
"""


@pytest.fixture(autouse=True)
def toy_plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(TOY))
    registry.cache_clear()
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    registry.cache_clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "toy.yaml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


class Command:
    """Runs `fsf` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        self.monkeypatch.setattr(sys, "argv", ["fsf", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main.main()
        out, err = self.capsys.readouterr()
        return left.value.code if isinstance(left.value.code, int) else 0, out, err


@pytest.fixture
def fsf(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def commands(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*before, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))


@pytest.mark.system
def test_help_needs_no_torch() -> None:
    code = (
        "import sys, fsframework.cli.main as cli; sys.argv = ['fsf', '--help']\n"
        "slow = {'torch', 'numpy', 'pydantic', 'rich', 'jinja2', 'matplotlib'}\n"
        "try: cli.main()\n"
        "except SystemExit as left: print(left.code, sorted(slow & set(sys.modules)))"
    )
    start = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    used = os.times()
    seconds = used.children_user + used.children_system - start.children_user - start.children_system
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert seconds < 0.3  # of the processor, so that a busy machine does not matter


@pytest.mark.system
def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fsframework", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert re.fullmatch(r"fsf, version \d+\.\d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("path", [path for path, _ in commands(main.fsf)], ids=" ".join)
def test_every_command_has_help(fsf: Command, path: tuple[str, ...]) -> None:
    status, out, _ = fsf(*path, "--help")
    assert status == 0
    assert out.startswith(f"Usage: fsf {' '.join(path)}")


def test_help_texts_are_whole_sentences() -> None:
    for path, command in commands(main.fsf):
        assert re.match(r"[A-Z][^\n]*\.", str(command.help)), path
        assert str(command.get_short_help_str(80)).endswith((".", "s")), path
        for option in command.params:
            if isinstance(option, click.Option):
                assert str(option.help).endswith("."), (path, option.name)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ("run x --resume --overwrite", "--resume"),
        ("bench speed --pairs 3", "--pairs"),
        ("bench --model d --against HEAD", "--against"),
        ("swap a.png b.png", "SOURCE TARGET OUT"),
        ("swap a.png b.png --model m", "SOURCE TARGET OUT"),
        ("swap --pairs p.csv --model m", "--pairs"),
        ("swap a.png --pairs p.csv -o d --model m", "--pairs"),
        ("swap a b c --pairs p.csv -o d --model m", "--pairs"),
        ("swap --pairs p.csv -o out --preview 3", "--pairs"),
        ("swap a.png b.png c.png --engine ray", "--engine ray"),
        ("swap --pairs p.csv -o out --engine ray --preview 3", "--engine ray"),
        ("swap --map a=b b.png c.png --engine ray", "--engine ray"),
        ("swap a.png b.mp4 c.png --engine ray --preview 3", "--engine ray"),
        ("swap a.png b c --engine ray --shard 1/2", "--shard"),
        ("swap a.png b c --workers 2", "--workers"),
        ("plugins list losss", "losss"),
        ("plugins list zzz", "zzz"),
    ],
)
def test_usage_errors(
    fsf: Command, monkeypatch: pytest.MonkeyPatch, arguments: str, place: str, check_message: Callable[..., None]
) -> None:
    monkeypatch.setattr("fsframework.inference.face_swapper.FaceSwapper", lambda *values: None)
    status, out, err = fsf(*arguments.split())
    usage, _, message = err.partition("Error: ")
    assert status == 2
    assert usage.startswith("Usage: fsf") and place in message and message.count("\n") == 1
    assert not out
    check_message(message, {", ".join(KINDS): "KINDS"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["run"], "Missing argument 'RECIPE'"),
        (["run", "x", "--nothing"], "No such option"),
        (["check"], "Missing argument"),
        (["export", "runs/x"], "Missing argument 'FILE'"),
        (["study", "new", "-o", "d"], "Missing argument 'MODEL...'"),
        (["study", "new", "a", "b"], "Missing option '-o'"),
        (["study", "new", "a", "b", "-o", "d", "--trials", "0"], "Invalid value for '--trials'"),
        (["study", "serve", "d", "--port", "70000"], "Invalid value for '--port'"),
        (["study", "results"], "Missing argument 'DIR'"),
        (["plugins", "show", "losses"], "Missing argument 'NAME'"),
    ],
)
def test_usage_errors_of_click(fsf: Command, arguments: list[str], message: str) -> None:
    status, out, err = fsf(*arguments)
    assert status == 2
    assert message in err and "Usage: fsf" in err
    assert not out


def test_check(fsf: Command, file: Path, check_message: Callable[..., None]) -> None:
    status, out, err = fsf("check", file)
    assert (status, err) == (0, "")
    assert out.startswith("toy: 32 px\n")
    check_message(out)


def test_check_reports_every_mistake_of_every_recipe(
    fsf: Command, file: Path, tmp_path: Path, check_message: Callable[..., None]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(RECIPE.replace("steps: 5", "steps: 0").replace("toy-loss", "toy-lss"), encoding="utf-8")
    status, out, err = fsf("check", wrong, file, tmp_path / "missing.yaml")
    assert status == 1
    assert out.startswith("toy: 32 px")
    first, second, third = err.splitlines()
    assert first.startswith(f"{wrong}: line 11: stages.0.losses.0: ")
    assert second.startswith(f"{wrong}: line 13: stages.0.steps: ")
    assert third.startswith(f"{tmp_path / 'missing.yaml'}: ")
    check_message(err, {", ".join(shipped()): "RECIPES"})


def test_check_with_overrides(fsf: Command, file: Path, check_message: Callable[..., None]) -> None:
    assert "9 steps of 2 pairs" in fsf("check", file, "--set", "stages.0.steps=9")[1]
    status, _, err = fsf("check", file, "--set", "stages.0.steps=x", "--set", "networks.generator.colours=7")
    assert status == 1
    assert err.startswith("--set stages.0.steps=x: stages.0.steps: ") and err.count("\n") == 1
    check_message(err)
    status, _, err = fsf("check", file, "--set", "networks.generator.colours=7")
    assert status == 1 and err.startswith(f"{file}: networks.generator: ") and err.count("\n") == 1
    check_message(re.sub(r"\.py:\d+", ".py:LINE", err))


def test_schema(fsf: Command) -> None:
    status, out, err = fsf("schema")
    assert (status, err) == (0, "")
    assert set(KINDS) <= json.loads(out)["$defs"].keys()


def test_list_of_all_components(fsf: Command) -> None:
    status, out, err = fsf("plugins", "list")
    assert (status, err) == (0, "")
    lines = {tuple(line.split()[:3]): line for line in out.splitlines()}
    assert lines["losses", "toy-loss", "toy_parts"].rstrip().endswith("Always the same.")
    assert ("datasets", "toy-wrapper", "toy_parts") in lines
    assert ("losses", "hinge-gan", "fsf_losses") in lines


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("DeepFakes", "recipes", "deepfakes"),
        ("faceswap-gan", "recipes", "faceswap-gan"),
        ("deepfacelab", "generators", "dfl-liae"),
        ("FaceSwap", "recipes", "faceswap"),
        ("nirkin", "recipes", "nirkin"),
        ("faceshifter", "recipes", "faceshifter"),
        ("AEI-Net", "attribute-encoders", "aei-attributes"),
        ("AEI-Net", "generators", "aad-generator"),
        ("hear-net", "refiners", "hear-net"),
        ("AdaIN", "generators", "adain-generator"),
        ("SPADE", "generators", "spade-generator"),
        ("ablation", "generators", "add-generator"),
        ("ablation", "generators", "cat-generator"),
        ("compressed", "generators", "compressed-generator"),
        ("ArcFace", "losses", "arcface"),
        ("ArcFace", "identity-encoders", "iresnet"),
        ("CosFace", "losses", "cosface"),
    ],
)
def test_systems_are_found_by_their_names(fsf: Command, text: str, kind: str, name: str) -> None:
    status, out, err = fsf("plugins", "list", "--find", text)
    assert (status, err) == (0, "")
    assert [kind, name] in [line.split()[:2] for line in out.splitlines()]


def test_find_within_a_kind(fsf: Command) -> None:
    out = fsf("plugins", "list", "recipe", "--find", "deepfacelab")[1]
    assert [line.split()[1] for line in out.splitlines()[1:] if line.startswith("recipes")] == [
        "deepfacelab-df",
        "deepfacelab-liae",
    ]
    assert fsf("plugins", "list", "--find", "zzz")[0] == 1


@pytest.mark.parametrize("kind", ["losses", "loss", "Loss"])
def test_list_of_one_kind(fsf: Command, kind: str) -> None:
    kinds = {line.split()[0] for line in fsf("plugins", "list", kind)[1].splitlines()[1:]}
    assert kinds == {"losses"}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_in_the_singular(kind: str) -> None:
    found = {plugins._kind(word) for word in (kind, SINGULAR[kind], SINGULAR[kind].replace(" ", "_"))}
    assert found == {kind}


def test_show_one_component(fsf: Command) -> None:
    status, out, err = fsf("plugins", "show", "dataset", "toy-wrapper")
    assert (status, err) == (0, "")
    assert "toy-wrapper (datasets, plugin toy_parts of toy-parts 1.0)\n\nAnother data set.\n" in out
    rows = [re.split(r" {2,}", line.strip()) for line in out.splitlines()]
    assert ["data", "a dataset", "required", "What is wrapped."] in rows
    assert ["share", "number > 0, ≤ 1", "0.1", "How much of it."] in rows


def test_show_an_unknown_component(fsf: Command, check_message: Callable[..., None]) -> None:
    status, out, err = fsf("plugins", "show", "losses", "toy-lss")
    assert (status, out) == (1, "") and "toy-lss" in err and err.count("\n") == 1
    check_message(err)


def test_show_every_component(fsf: Command) -> None:
    for kind, found in registry().components.items():
        for name in found:
            status, out, err = fsf("plugins", "show", kind, name)
            assert (status, err) == (0, ""), (kind, name)
            assert out.startswith(f"{name} ({kind}, plugin ")


def test_run_of_a_wrong_recipe(
    fsf: Command, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = fsf("run", file, "--set", "stages.0.stps=1")
    assert status == 1
    assert err.startswith("--set stages.0.stps=1: stages.0.stps: ") and err.count("\n") == 1
    check_message(err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (["--pairs", "20"], ["evaluation.pairs=20"]),
        (["--pairs", "a: b.csv"], ['evaluation.pairs="a: b.csv"']),
        (["--set", "seed=1", "--pairs", "orl"], ["seed=1", 'evaluation.pairs="orl"']),
        ([], []),
    ],
)
def test_bench_passes_on_what_it_is_given(
    fsf: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], changes: list[str]
) -> None:
    given = []

    metrics = Metrics("x", 2, {})

    def bench(*values: object) -> Metrics:
        given.append(values)
        return metrics

    monkeypatch.setattr("fsframework.evaluation.evaluate.bench", bench)
    status, out, _ = fsf("bench", "pose-error", "--run", "runs/x", "--json", "--device", "cpu", *arguments)
    assert status == 0
    assert json.loads(out) == metrics.to_json()
    assert given == [("runs/x", ["pose-error"], changes, "cpu", None, None, None)]
    assert fsf("bench", "--json")[0] == 0
    assert given[1:] == [(DEFAULT, [], [], None, None, None, None)]


def test_bench_keeps_figures_with_command_and_machine(
    fsf: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metrics = Metrics("x", 2, {})
    monkeypatch.setattr("fsframework.evaluation.evaluate.bench", lambda *values: metrics)
    assert fsf("bench", "--save", str(tmp_path / "x.json"), "--json")[0] == 0
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept["metrics"] == metrics.to_json()
    assert kept["command"].startswith("fsf ") and kept["manifest"]["versions"]["torch"]


def test_swap_passes_on_what_it_is_given(
    fsf: Command, monkeypatch: pytest.MonkeyPatch, check_message: Callable[..., None]
) -> None:
    class Jobs(tuple[object, ...]):
        is_one_picture = False

    given: list[object] = []
    results = iter([0, 2, 0, 1, 0, 0, 0, 0, 0])

    def counted(*values: object) -> int:
        given.append(values)
        return next(results)

    monkeypatch.setattr("fsframework.api.swapping.FaceSwapper", lambda *values: ("swapper", *values))
    monkeypatch.setattr("fsframework.inference.jobs.target_jobs", lambda *values: Jobs(("target", *values)))
    monkeypatch.setattr("fsframework.inference.jobs.pairs_jobs", lambda *values: Jobs(("pairs", *values)))
    monkeypatch.setattr("fsframework.api.swapping.run_jobs", counted)
    a, b, c = map(Path, ("a.png", "b.png", "c.png"))
    assert fsf("swap", "a.png", "b.png", "c.png", "--model", "m", "--face", "all")[0] == 0
    jobs: object = ("target", b, c, AssignmentFiles("all", a), SwapOptions(overwrite=False, summary=True))
    assert given == [(("swapper", "m", None, DEFAULT_PASTE, "fp32", "auto"), jobs, WHOLE, SERIAL)]
    given.clear()
    assert fsf("swap", "--map", "p=q", "b.png", "c.png", "--preview", "3", "--precision", "bf16")[0] == 1  # some failed
    people = AssignmentFiles(mappings=((Path("p"), Path("q")),))
    jobs = ("target", b, c, people, SwapOptions(preview=3, overwrite=False, summary=True))
    assert given == [(("swapper", DEFAULT, None, DEFAULT_PASTE, "bf16", "auto"), jobs, WHOLE, SERIAL)]
    given.clear()
    ways = ("--mask", "landmarks", "--colour", "lab", "--blend", "poisson", "--keep", "occlusions")
    assert fsf("swap", "--pairs", "p.csv", "-o", "out", "--device", "cpu", "--precision", "auto", *ways)[0] == 0
    pasting = PasteOptions("landmarks", "lab", "poisson", "occlusions")
    jobs = ("pairs", Path("p.csv"), Path("out"), AssignmentFiles(), SwapOptions(overwrite=False, summary=True))
    assert given == [(("swapper", DEFAULT, "cpu", pasting, "auto", "auto"), jobs, WHOLE, SERIAL)]
    given.clear()
    words = ("--pairs", "p.csv", "-o", "out", "--map", "p=q", "--shard", "2/3", "--overwrite")
    assert fsf("swap", "--model", "m", *words)[0] == 1
    jobs = ("pairs", Path("p.csv"), Path("out"), people, SwapOptions(overwrite=True, summary=True))
    assert given == [(("swapper", "m", None, DEFAULT_PASTE, "fp32", "auto"), jobs, JobShard(2, 3), SERIAL)]
    given.clear()
    assert fsf("swap", "a.png", "b.png", "c.png", "--label", "--consent", "Ann agreed")[0] == 0
    assert fsf("swap", "a.png", "b.png", "c.png", "--no-provenance")[0] == 0
    wanted = [ProvenanceOptions(label=True, consent="Ann agreed"), ProvenanceOptions(provenance=False)]
    assert [values[1][-1].provenance for values in given] == wanted  # type: ignore[index]
    given.clear()
    assert fsf("swap", "a.png", "b.mp4", "c.mp4", "--encoder", "x265", "--quality", "20")[0] == 0
    assert [values[1][-1].video for values in given] == [VideoOptions("x265", 20)]  # type: ignore[index]
    given.clear()
    monkeypatch.setattr(Jobs, "is_one_picture", True)  # for which loading OpenVINO takes longer than it saves
    for runtime in ("auto", "openvino"):
        assert fsf("swap", "a.png", "b.png", "c.png", "--runtime", runtime)[0] == 0
    assert [values[0][-1] for values in given] == [None, "openvino"]  # type: ignore[index]
    for option, value in (("--quality", "52"), ("--encoder", "h266")):
        status, _, line = fsf("swap", "a.png", "b.mp4", "c.mp4", option, value)
        assert status == 1 and line.startswith(f"{option[2:]}: ") and line.count("\n") == 1
    assert fsf("swap", "a.png", "b.mp4", "c.mp4", "--quality", "good")[0] == 2
    status, _, line = fsf("swap", "a.png", "b.png", "c.png", "--no-provenance", "--consent", "Ann agreed")
    assert status == 1 and line.startswith("consent: ") and line.count("\n") == 1
    check_message(line)
    status, _, line = fsf("swap", "a.png", "b.png", "c.png", "--shard", "1/2")
    assert status == 1 and line.startswith("--shard ") and "b.png" in line and line.count("\n") == 1
    check_message(line)


@pytest.mark.parametrize(
    ("error", "status", "place"),
    [
        pytest.param(UserError("x.yaml: line 1: wrong\nx.yaml: line 2: wrong"), 1, "x.yaml: line 1: ", id="mistakes"),
        pytest.param(KeyboardInterrupt(), 130, "fsf: ", id="interrupt"),
        pytest.param(SystemExit(143), 143, "", id="exit"),
    ],
)
def test_ends(
    fsf: Command,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    status: int,
    place: str,
    check_message: Callable[..., None],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("fsframework.api.components.schema", fail)
    code, out, err = fsf("schema")
    said = err.lstrip("\n")
    assert (code, out) == (status, "") and said.startswith(place)
    check_message(said)


@pytest.mark.system
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_signals(number: int, status: int, check_message: Callable[..., None]) -> None:
    code = (
        "import signal, sys, time, click, fsframework.cli.main as cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs start without it
        "@cli.fsf.command()\n"
        "def wait():\n    print('ready', flush=True); time.sleep(60)\n"
        "sys.argv = ['fsf', 'wait']; cli.main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert err.strip().startswith("fsf: ")
    check_message(err.strip())


def completions(*words: str) -> list[CompletionItem]:
    """Return what the shell offers for the last word of a command."""
    return ShellComplete(main.fsf, {}, "fsf", "_FSF_COMPLETE").get_completions(list(words[:-1]), words[-1])


@pytest.mark.parametrize(
    "words",
    [
        ["swap", "--model"],
        ["swap", "a.png", "b.png", "c.png", "--model"],
        ["bench", "--model"],
        ["bench", "speed", "--run"],
        ["serve", "--model"],
        ["compare"],
        ["compare", "runs/mine"],
        ["export"],
        ["study", "new", "-o", "folder", "runs/mine"],
    ],
    ids=" ".join,
)
def test_the_shell_completes_models(words: list[str]) -> None:
    installed = sorted(registry().models)
    assert {DEFAULT, "faceshifter-lfw-64"} <= set(installed)
    for start, names in (("", installed), ("faceshifter-lfw-6", ["faceshifter-lfw-64"]), ("runs/", [])):
        files, *others = completions(*words, start)
        assert (files.type, files.value) == ("file", start)  # the shell completes files itself
        assert [(item.type, item.value) for item in others] == [("plain", name) for name in names]


@pytest.mark.parametrize("command", [["run", "faceshifter"], ["check", "faceshifter"]])
def test_the_shell_completes_init(command: list[str]) -> None:
    key = "stages.1.init="
    found = completions(*command, "--set", f"{key}faceshifter-lfw-1")
    assert [item.value for item in found] == [f"{key}faceshifter-lfw-128"]
    assert completions(*command, "--set", "stages.1.steps=") == []


def test_every_model_is_completed() -> None:
    """Options and arguments that are shown as MODEL have completions."""

    def models(group: click.Group) -> Iterator[tuple[click.Command, click.Parameter]]:
        for command in group.commands.values():
            if isinstance(command, click.Group):
                yield from models(command)
            else:
                yield from ((command, each) for each in command.params if str(each.metavar).startswith("MODEL"))

    found = list(models(main.fsf))
    assert len(found) == 6
    for command, parameter in found:
        items = parameter.shell_complete(click.Context(command), "faceshifter-lfw-6")
        assert [item.value for item in items][1:] == ["faceshifter-lfw-64"]


def test_help_names_the_default_model() -> None:
    for name in ("swap", "bench", "serve"):
        (option,) = [each for each in main.fsf.commands[name].params if each.name == "model"]
        assert isinstance(option, click.Option) and f"Default: {DEFAULT};" in str(option.help)
