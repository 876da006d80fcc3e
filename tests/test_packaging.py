"""What an installation of the package has, and what type checkers see of it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tune_stoppers

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "tune_stoppers" / "backtest" / "lora"


@pytest.fixture
def project(tmp_path) -> Path:
    """The package's face and recorded sweeps, with the project's own settings."""
    (tmp_path / "tune_stoppers").mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("__init__.py", "py.typed"):
        shutil.copy(ROOT / "tune_stoppers" / name, tmp_path / "tune_stoppers")
    shutil.copytree(EXAMPLES, tmp_path / EXAMPLES.relative_to(ROOT))
    for other in ("experiments", "benchmarks", "tests"):  # beside it, as in a checkout
        (tmp_path / other).mkdir()
        (tmp_path / other / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_a_wheel_is_typed_and_seen_by_type_checkers(kind, project):
    """Both kinds name the version; an editable one is a plain path, as mypy follows no hook."""
    pytest.importorskip("setuptools", minversion="77")
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}('.'))"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True)
    (wheel,) = project.glob("*.whl")
    assert wheel.name.startswith(f"tune_stoppers-{tune_stoppers.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        if kind == "wheel":
            names = set(archive.namelist())
            assert "tune_stoppers/py.typed" in names
            assert {
                f"tune_stoppers/backtest/lora/{path.name}" for path in EXAMPLES.iterdir()
            } <= names
            assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
            return
        (path,) = (name for name in archive.namelist() if name.endswith(".pth"))
        assert Path(archive.read(path).decode().strip()) == project
