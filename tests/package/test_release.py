"""What `make release` does without a compiler: when a commit is a release, how bytes are compared and evened."""

import importlib.util
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def script(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, TESTS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


even_sdist, ready, same = (script(p) for p in ("wheel/even_sdist.py", "release/ready.py", "release/same.py"))


def an_sdist(time, owner, names=("p/b.sh", "p/a.py", "p/ü.txt"), mode=0o664, kind=tarfile.REGTYPE):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.mtime, info.uname, info.uid = kind, time, owner, len(owner)
            info.mode, info.size = mode | (0o111 if name.endswith(".sh") else 0), len(name.encode())
            archive.addfile(info, io.BytesIO(name.encode()))
    return packed.getvalue()


class TestEvenSdist:
    def test_bytes_are_those_of_the_files(self):
        one = even_sdist.evened(an_sdist(10**9, "me"), 1_700_000_000)
        other = even_sdist.evened(an_sdist(2 * 10**9, "you", ("p/a.py", "p/ü.txt", "p/b.sh"), 0o600), 1_700_000_000)
        assert one == other == even_sdist.evened(one, 1_700_000_000)
        assert one != even_sdist.evened(one, 1_700_000_001)
        assert one != even_sdist.evened(an_sdist(10**9, "me", ("p/a.py",)), 1_700_000_000)

    def test_files_are_those_that_there_were(self):
        with tarfile.open(fileobj=io.BytesIO(even_sdist.evened(an_sdist(1, "me"), 5))) as archive:
            held = {
                member.name: (member.mode, member.mtime, archive.extractfile(member).read()) for member in archive
            }
        assert held == {
            "p/a.py": (0o644, 5, b"p/a.py"),
            "p/b.sh": (0o755, 5, b"p/b.sh"),
            "p/ü.txt": (0o644, 5, "p/ü.txt".encode()),
        }

    def test_a_link_is_refused(self):
        with pytest.raises(SystemExit, match="neither a file nor a folder"):
            even_sdist.evened(an_sdist(1, "me", ("p/a",), kind=tarfile.SYMTYPE), 5)


class TestSame:
    @pytest.fixture
    def folders(self, tmp_path):
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a-1.tar.gz").write_bytes(even_sdist.evened(an_sdist(1, "me"), 5))
            self.wheel(tmp_path / name, {"a.py": "1", "b.so": "2"})
        return tmp_path / "one", tmp_path / "other"

    @staticmethod
    def wheel(folder, files, time=(2020, 1, 1, 0, 0, 0), method=zipfile.ZIP_STORED):
        with zipfile.ZipFile(folder / "a-1.whl", "w", method) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name, time), content, method)

    def test_the_same(self, folders):
        assert same.differences(*folders) == []

    def test_what_differs_is_said(self, folders):
        one, other = folders
        for files, options, said in (
            ({"a.py": "1", "b.so": "3"}, {}, "b.so"),
            ({"a.py": "1"}, {}, "b.so"),
            ({"a.py": "1", "b.so": "2"}, {"time": (2021, 1, 1, 0, 0, 0)}, "a.py, b.so"),
            ({"b.so": "2", "a.py": "1"}, {}, "the order of its files"),
            ({"a.py": "1", "b.so": "2"}, {"method": zipfile.ZIP_DEFLATED}, "how it is packed"),
        ):
            self.wheel(other, files, **options)
            assert same.differences(one, other) == [f"a-1.whl: {said}"]
        (other / "a-1.whl").unlink()
        (other / "a-1.tar.gz").write_bytes(even_sdist.evened(an_sdist(1, "me", ("p/b.sh", "p/a.py")), 5))
        assert same.differences(one, other) == ["a-1.tar.gz: p/ü.txt", "a-1.whl: in one of the two only"]


class TestReady:
    @pytest.fixture
    def checkout(self, tmp_path):
        """A release 1.2.3, and a function that changes a file of it and commits that, moving the tag."""
        (tmp_path / "vae_fast").mkdir()

        def commit(name=None, content=None, tag="v1.2.3"):
            if name:
                (tmp_path / name).write_text(content)
            for command in (["add", "-A"], ["commit", "-qm", "x", "--allow-empty"], ["tag", "-f", tag]):
                subprocess.run(["git", "-C", tmp_path, *command], check=True, capture_output=True, env=environment)

        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{who}_NAME": "a", f"GIT_{who}_EMAIL": "a@example.com"}
        subprocess.run(["git", "init", "-q", tmp_path], check=True, env=environment)
        (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n\n## [1.2.3] - 2026-05-04\n")
        (tmp_path / "CITATION.cff").write_text("version: 1.2.3\ndate-released: 2026-05-04\n")
        commit("vae_fast/_version.py", '"""The version"""\n\n__version__ = "1.2.3"\n')
        return tmp_path, commit

    def test_a_release(self, checkout):
        assert ready.missing(checkout[0]) == []

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            (
                "CHANGELOG.md",
                "## [Unreleased]: 1.2.3\n",
                ["CHANGELOG.md: no heading '## [1.2.3] - YEAR-MONTH-DAY'"],
            ),
            ("CHANGELOG.md", "## [1.2.3] - 2026-05-05\n", ["CITATION.cff: no 'date-released: 2026-05-05'"]),
            ("CITATION.cff", "version: 1.2\ndate-released: 2026-05-04\n", ["CITATION.cff: it has another version"]),
            ("vae_fast/_version.py", '__version__ = "1.2.3.dev0"\n', ["1.2.3.dev0 is no version of a release"]),
        ],
    )
    def test_what_is_missing(self, checkout, name, content, said):
        root, commit = checkout
        commit(name, content)
        found = ready.missing(root)
        assert all(any(part in line for line in found) for part in said)
        assert len(found) == len(said) or "_version" in name

    def test_what_is_not_committed_or_has_no_tag(self, checkout):
        root, commit = checkout
        (root / "more.txt").write_text("")
        assert ready.missing(root) == ["git: there is what is not committed"]
        commit(tag="other")
        assert ready.missing(root) == ["git: this commit has no tag v1.2.3"]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.sh")), ids=lambda path: str(path.relative_to(TESTS)))
def test_scripts_are_bash(path):
    """That they can be parsed and run, where the one that takes hours would find it out at its end."""
    subprocess.run(["bash", "-n", path], check=True, capture_output=True)
    assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env bash\n")
