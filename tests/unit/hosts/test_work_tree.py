"""At which commit a host is: its own repository's, or none."""

import shutil
import subprocess
from pathlib import Path

from guard_plugin.hosts.work_tree import commit_of, is_modified


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "protocol.file.allow=always"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def repository(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    git(folder, "init", "-q")
    (folder / "main.py").write_text(folder.name)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    return git(folder, "rev-parse", "HEAD")


def test_a_repository_has_its_commit_and_a_folder_without_one_none(tmp_path):
    (tmp_path / "empty").mkdir()
    git(tmp_path / "empty", "init", "-q")
    (tmp_path / "plain").mkdir()
    commit = repository(tmp_path / "host")
    (tmp_path / "link").symlink_to(tmp_path / "host")
    assert commit_of(tmp_path / "host") == commit_of(tmp_path / "link") == commit
    assert commit_of(tmp_path / "empty") is None is commit_of(tmp_path / "plain")


def test_a_host_copied_into_the_users_repository_has_a_commit_only_where_it_is_tracked(tmp_path):
    repository(tmp_path / "host")
    repository(tmp_path / "mine")
    copied = tmp_path / "mine" / "host"
    shutil.copytree(tmp_path / "host", copied, ignore=shutil.ignore_patterns(".git"))
    assert commit_of(copied) is None
    git(tmp_path / "mine", "add", "-A")
    git(tmp_path / "mine", "commit", "-qm", "copied")
    assert commit_of(copied) == git(tmp_path / "mine", "rev-parse", "HEAD")


def test_a_host_in_a_folder_of_its_repository_has_its_commit(tmp_path):
    (tmp_path / "SRe2L" / "recover").mkdir(parents=True)
    (tmp_path / "SRe2L" / "recover" / "data_synthesis.py").touch()
    commit = repository(tmp_path / "SRe2L")
    assert commit_of(tmp_path / "SRe2L" / "recover") == commit


def test_submodules_and_worktrees_have_their_own(tmp_path):
    commit = repository(tmp_path / "host")
    repository(tmp_path / "mine")
    git(tmp_path / "mine", "submodule", "add", "-q", str(tmp_path / "host"), "sub")
    assert commit_of(tmp_path / "mine" / "sub") == commit != commit_of(tmp_path / "mine")
    git(tmp_path / "host", "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "second")
    assert commit_of(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != commit


def test_variables_that_lead_git_elsewhere_do_not_count(tmp_path, monkeypatch):
    host, other = repository(tmp_path / "host"), repository(tmp_path / "other")
    (tmp_path / "plain").mkdir()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "plain"))
    assert commit_of(tmp_path / "host") == host != other and commit_of(tmp_path / "plain") is None


def test_only_changes_of_tracked_files_modify_a_host(tmp_path):
    repository(tmp_path / "host")
    (tmp_path / "host" / "result.pt").touch()
    assert not is_modified(tmp_path / "host")
    (tmp_path / "host" / "main.py").write_text("changed")
    assert is_modified(tmp_path / "host")
