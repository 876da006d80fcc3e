"""`BestStateKeeper` on disks that fail, in processes that die, and in folders found again."""

import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from tune_stoppers.training.keeper import BestStateKeeper
from tune_stoppers.training.state_files import StateFileError

REPOSITORY = Path(__file__).parents[2]


def constant(value):
    """A model of one parameter, so that its state is one number."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def offer_constants(keeper, losses):
    """Offer loss after loss at steps 1, 2, …, the model's weight being the step."""
    for step, loss in enumerate(losses, start=1):
        keeper.offer(step, loss, constant(float(step)))


def test_a_reopened_folder_goes_on_from_its_best(tmp_path):
    """A resumed run does not overwrite a better best of the run before it."""
    offer_constants(BestStateKeeper(tmp_path), [3.0, 1.0])
    resumed = BestStateKeeper(tmp_path, resume=True)
    assert (resumed.best_step, resumed.best_loss) == (2, 1.0)
    assert not resumed.offer(3, 2.0, constant(3.0))
    assert resumed.offer(4, 0.5, constant(4.0))
    restored = constant(0.0)
    assert BestStateKeeper(tmp_path).restore(restored) == 4
    assert restored.weight.item() == 4.0


def test_a_full_disk_costs_a_warning_and_no_state(tmp_path):
    """When writing fails, the offer is declined, the best stays, and one warning is given."""
    keeper, big = BestStateKeeper(tmp_path), nn.Linear(10_000, 1, bias=False)
    keeper.offer(1, 1.0, big)
    expected = big.weight.detach().clone()
    nn.init.zeros_(big.weight)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # bytes a file; 40 000 needed
    try:
        with pytest.warns(RuntimeWarning, match="step 2 not kept, the former best stays") as caught:
            assert keeper.offer(2, 0.5, big) is False
            assert keeper.offer(3, 0.4, big) is False
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
    assert [folder.name for folder in tmp_path.iterdir()] == ["000001-step-1"]
    assert (keeper.best_step, keeper.restore(big)) == (1, 1)
    assert torch.equal(big.weight, expected)
    assert keeper.offer(3, 0.4, big)


@pytest.mark.parametrize("why", ["a file in its place", "read-only"])
def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, why):
    """Training goes on when the folder turned out to be no place to write to."""
    folder = tmp_path / "best" if why == "a file in its place" else Path("/proc/self/best")
    keeper = BestStateKeeper(folder)
    if folder.parent == tmp_path:
        folder.write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="not kept") as caught:
        assert keeper.offer(1, 1.0, constant(1.0)) is False
        assert keeper.offer(2, 0.5, constant(2.0)) is False
    assert len(caught) == 1
    assert keeper.best_step is None


def test_a_small_disk_that_fills_up_and_turns_read_only(tmp_path):
    """On a real file system: the run goes on, and the best that was kept loads afterwards."""
    script = """
        keeper = BestStateKeeper(sys.argv[1])
        assert keeper.offer(1, 1.0, model_of(1.0))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            big = nn.Linear(1000, 100)
            assert not keeper.offer(2, 0.5, big) and not keeper.offer(3, 0.4, big)
            assert "No space left" in str(caught[0].message), caught[0].message
            assert len(caught) == 1
        assert best_of(sys.argv[1]) == 1
        assert os.system("mount -o remount,ro " + sys.argv[1]) == 0
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            keeper = BestStateKeeper(sys.argv[1], resume=True)
            assert not keeper.offer(4, 0.3, model_of(4.0))
            assert "Read-only" in str(caught[0].message), caught[0].message
        print(best_of(sys.argv[1]), *(path.name for path in Path(sys.argv[1]).iterdir()))
    """
    mount = f"mount -t tmpfs -o size=256k tmpfs {tmp_path}"
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*own, mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets no test mount a file system of its own")
    lines = run_script(script, str(tmp_path), under=[*own, f'{mount} && exec "$@"', "sh"])
    assert lines == ["1", "000001-step-1"]


def test_a_damaged_best_is_an_error_that_names_the_file(tmp_path):
    """Restoring does not go past it in silence, neither now nor after reopening."""
    keeper = BestStateKeeper(tmp_path)
    keeper.offer(1, 1.0, constant(1.0))
    weights = tmp_path / "000001-step-1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StateFileError, match=r"weights\.safetensors: torn"):
        keeper.restore(constant(0.0))
    with pytest.warns(RuntimeWarning, match=r"left out: .*weights\.safetensors: torn"):
        reopened = BestStateKeeper(tmp_path)
    with pytest.raises(StateFileError, match=r"weights\.safetensors: torn"):
        reopened.restore(constant(0.0))


def test_a_damaged_state_does_not_end_a_resumed_run(tmp_path):
    """It stays where it is, under its own name, and the run keeps its best beside it."""
    offer_constants(BestStateKeeper(tmp_path, top_k=2), [2.0, 1.0])
    manifest = tmp_path / "000002-step-2" / "manifest.json"
    manifest.write_text("{")
    with pytest.warns(RuntimeWarning, match=r"000002-step-2.manifest\.json: torn"):
        keeper = BestStateKeeper(tmp_path, top_k=2, resume=True)
    assert keeper.best_step == 1
    assert keeper.offer(3, 1.5, constant(3.0))
    assert keeper.offer(4, 1.4, constant(4.0))
    assert manifest.read_text() == "{"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000002-step-2",
        "000003-step-3",
        "000004-step-4",
    ]


def test_other_folders_are_left_alone(tmp_path):
    """What is not a keeper's is neither read nor removed."""
    (tmp_path / "my-step-notes").mkdir()
    offer_constants(BestStateKeeper(tmp_path), [2.0, 1.0])
    assert (tmp_path / "my-step-notes").is_dir()


def run_script(body, *arguments, under=()):
    """The words that a Python process prints; `model_of` and `best_of` are at its hand."""
    prelude = """
        import os, signal, sys, time, warnings
        from pathlib import Path
        import torch
        from torch import nn
        from tune_stoppers.training.keeper import BestStateKeeper
        torch.set_num_threads(1)

        def model_of(value):
            model = nn.Linear(64, 64, bias=False)
            nn.init.constant_(model.weight, value)
            return model

        def best_of(folder):
            keeper, model = BestStateKeeper(folder, keep="best+last"), model_of(0.0)
            step = keeper.restore(model)
            assert bool((model.weight == float(step)).all()), "weights of another step"
            return step
    """
    done = subprocess.run(
        [
            *under,
            sys.executable,
            "-c",
            textwrap.dedent(prelude) + textwrap.dedent(body),
            *arguments,
        ],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_kill_before_any_file_operation_leaves_a_whole_best(tmp_path):
    """SIGKILL before the n-th file operation of an offer, for every n: old or new best, whole."""
    lines = run_script(
        """
        def killed_before(operation, folder):
            seen = 0
            def hook(event, arguments):
                nonlocal seen
                touched = arguments and str(arguments[0]).startswith(folder)
                if touched and event.partition(".")[0] in ("open", "os", "shutil"):
                    seen += 1
                    if seen == operation:
                        os.kill(os.getpid(), signal.SIGKILL)
            keeper = BestStateKeeper(folder, keep="best+last")
            keeper.offer(1, 1.0, model_of(1.0))
            model = model_of(2.0)
            sys.addaudithook(hook)
            keeper.offer(2, 0.5, model)
            os._exit(0)

        operation, status = 0, signal.SIGKILL
        while status == signal.SIGKILL:
            operation += 1
            folder = os.path.join(sys.argv[1], str(operation))
            child = os.fork()
            if child == 0:
                killed_before(operation, folder)
            _, status = os.waitpid(child, 0)
            print(best_of(folder))
        assert status == 0, status
        """,
        str(tmp_path),
    )
    best = [int(line) for line in lines]
    assert best == sorted(best) and set(best) == {1, 2}
    assert best.count(1) > 10 and best.count(2) > 5


def test_a_kill_at_any_time_leaves_a_whole_best(tmp_path):
    """SIGKILL from outside at arbitrary times, again and again in one folder: it only improves."""
    lines = run_script(
        """
        def train_on(folder, tell):
            keeper = BestStateKeeper(folder, keep="best+last", resume=True)
            step = keeper.best_step or 0
            while True:
                step += 1
                keeper.offer(step, -float(step), model_of(float(step)))
                os.write(tell, b".")

        folder = sys.argv[1]
        BestStateKeeper(folder, keep="best+last").offer(1, -1.0, model_of(1.0))
        for run in range(12):
            hear, tell = os.pipe()
            child = os.fork()
            if child == 0:
                train_on(folder, tell)
            os.read(hear, 1)  # it is under way, however busy the machine is
            time.sleep(0.0037 * run)
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert status == signal.SIGKILL, status
            print(best_of(folder))
        """,
        str(tmp_path / "best"),
    )
    best = [int(line) for line in lines]
    assert best == sorted(best) and best[-1] > best[0]
    keeper = BestStateKeeper(tmp_path / "best", keep="best+last", resume=True)
    keeper.offer(best[-1] + 1, -1e9, nn.Linear(64, 64, bias=False))
    assert len(list((tmp_path / "best").iterdir())) == 1, "leftovers of the killed are removed"
