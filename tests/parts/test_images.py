"""Each image's file: sound, pinned, unprivileged, and naming what really exists.

No engine is needed: what a build would do is checked on its parts. The package that goes into
every image is built here from exactly the files that the images copy.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from manifest_checks import ROOT, tool
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exsearch.config import ImagesConfig

pytestmark = pytest.mark.manifests

ROLES = ("tools", "retriever", "rollout", "trainer", "agent")
EVERY = pytest.mark.parametrize("role", ROLES)
ENGINES = ("rollout-gpu", "rollout-cpu")
"""Values of the build argument ENGINE."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Containerfile, its continued lines joined."""

    word: str
    rest: str


def containerfile(role: str) -> Path:
    return ROOT / "images" / role / "Containerfile"


def instructions(role: str) -> list[Instruction]:
    text = containerfile(role).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [Instruction(word, rest.strip()) for word, _, rest in (x.partition(" ") for x in joined)]


def last_stage(role: str) -> list[Instruction]:
    found = instructions(role)
    start = max(i for i, each in enumerate(found) if each.word == "FROM")
    return found[start:]


def last(role: str, word: str) -> str:
    return [each.rest for each in last_stage(role) if each.word == word][-1]


def arguments(role: str) -> dict[str, str]:
    """Build arguments with their defaults."""
    pairs = (each.rest.partition("=") for each in instructions(role) if each.word == "ARG")
    return {name: value.strip('"') for name, _, value in pairs}


def copied(role: str) -> set[str]:
    """Paths that are copied out of the build context."""
    sources: set[str] = set()
    for each in instructions(role):
        if each.word == "COPY" and not each.rest.startswith("--from"):
            sources.update(each.rest.split()[:-1])
    return sources


def test_there_is_an_image_for_each_role_of_the_settings() -> None:
    images = ImagesConfig()
    named = {name: value for name, value in images.model_dump().items() if name in ROLES}
    assert set(named) == set(ROLES)
    for role, image in named.items():
        version = arguments(role)["VERSION"]
        assert image == f"exsearch/{role}:{version}"
    assert sorted(path.parent.name for path in ROOT.glob("images/*/Containerfile")) == sorted(ROLES)


@EVERY
def test_hadolint_has_nothing_to_say(role: str) -> None:
    file = containerfile(role)
    done = subprocess.run(
        [tool("hadolint"), str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    ignored = re.findall(r"hadolint (?:global )?ignore=(\S+)", file.read_text(encoding="utf-8"))
    assert set(ignored) <= {"DL3008"}


@EVERY
def test_bases_are_pinned_and_built_in_stages(role: str) -> None:
    bases = [each.rest.split()[0] for each in instructions(role) if each.word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        for name, value in arguments(role).items():
            base = base.replace(f"${{{name}}}", value)
        image, _, tag = base.partition(":")
        assert image == "python"
        assert re.fullmatch(r"3\.1[12]\.\d+-slim-bookworm", tag), base


@EVERY
def test_it_runs_as_a_numeric_user_that_is_not_root(role: str) -> None:
    user, _, group = last(role, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0
    after = [each.word for each in last_stage(role)]
    assert not {"RUN", "COPY", "ADD"} & set(after[after.index("USER") :])


@EVERY
def test_it_writes_to_tmp_only(role: str) -> None:
    held = dict(pair.split("=", 1) for pair in last(role, "ENV").split())
    assert held["HOME"] == "/tmp"
    folders = {"XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"}
    for name in folders & set(held):
        assert held[name].startswith("/tmp/"), name
    assert held["HF_HUB_OFFLINE"] == "1"


@EVERY
def test_labels_follow_the_image_specification(role: str) -> None:
    labels = set(re.findall(r"(\S+)=\"", last(role, "LABEL")))
    wanted = ("title", "description", "version", "revision", "licenses")
    assert labels == {f"org.opencontainers.image.{name}" for name in wanted}


def ignored(path: str) -> bool:
    """Whether `.dockerignore` leaves a path out; as engines do, the last match decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        parts = Path(path).parts
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if line and not line.startswith("#") and any(fnmatch.fnmatch(h, pattern) for h in heads):
            out = not line.startswith("!")
    return out


@EVERY
def test_everything_copied_exists_and_is_in_the_context(role: str) -> None:
    for source in copied(role):
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    for kept_out in (".git/config", ".venv/bin/python", "runs/demo/run.yaml", "tests/conftest.py"):
        assert ignored(kept_out)


@EVERY
def test_its_command_exists(role: str) -> None:
    assert json.loads(last(role, "ENTRYPOINT")) == ["exsearch"]
    command = json.loads(last(role, "CMD"))
    program = [tool("exsearch"), command[0].replace("--help", "")]
    done = subprocess.run(
        [*filter(None, program), "--help"],
        capture_output=True, text=True, check=False, env={"COLUMNS": "200", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for flag in (word for word in command[1:] if word.startswith("--")):
        assert flag in done.stdout


@pytest.mark.parametrize("role", ["retriever", "agent"])
def test_servers_have_a_health_check_on_the_port_they_listen_on(role: str) -> None:
    check = json.loads(last(role, "HEALTHCHECK").partition("CMD")[2])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "healthcheck", "exec")
    port = last(role, "EXPOSE")
    assert f":{port}/" in check[2]
    assert port in json.loads(last(role, "CMD"))


def requirements(role: str, engine: str) -> tuple[set[str], set[str]]:
    """(extras of the project, other packages) that an image installs."""
    extras: set[str] = set()
    others: set[str] = set()
    text = (ROOT / "images" / role / "requirements.txt").read_text(encoding="utf-8")
    for line in text.replace("${ENGINE}", engine).splitlines():
        if line.startswith("."):
            extras.update(line[2:-1].split(","))
        elif line and not line.startswith("#"):
            others.add(line)
    return extras, others


def pins() -> dict[str, str]:
    """Pinned versions by canonical name: the project's, and those of images alone."""
    found: dict[str, str] = {}
    for file in (ROOT / "constraints.txt", ROOT / "images/constraints.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, equals, version = line.partition("==")
            if equals and not line.startswith("#"):
                key = canonicalize_name(name)
                assert found.setdefault(key, version) == version, f"{name} is pinned twice"
    return found


@EVERY
def test_requirements_resolve(role: str) -> None:
    """Every extra is the project's, and everything that is named has a pin that it admits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = pins()
    for engine in ENGINES:
        extras, others = requirements(role, engine)
        assert extras <= set(project["optional-dependencies"])
        wanted = [*project["dependencies"], *others]
        for extra in extras:
            wanted += project["optional-dependencies"][extra]
        for requirement in map(Requirement, wanted):
            version = pinned.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} has no pin"
            assert requirement.specifier.contains(version, prereleases=True), requirement.name


def test_the_package_is_whole_when_built_of_what_is_copied(tmp_path: Path) -> None:
    context = tmp_path / "src"
    for source in copied("tools"):
        place, target = ROOT / source, context / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            left_out = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(place, target, symlinks=True, ignore=left_out)
        else:
            shutil.copyfile(place, target)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), "."], cwd=context, check=True)
    [wheel] = tmp_path.glob("exsearch-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(ROOT)).replace("exsearch/../", "")
        for path in (ROOT / "exsearch").rglob("*")
        if path.suffix in {".py", ".cpp", ".css", ".js", ".j2"}
    }
    sources |= {f"exsearch/{path.relative_to(ROOT)}" for path in ROOT.glob("components/*/*.py")}
    sources |= {f"exsearch/{path.relative_to(ROOT)}" for path in ROOT.glob("pipelines/*.py")}
    assert sources - held == set()


def stand_in(folder: Path, text: str) -> Path:
    """An executable that engines' callers find under the name of one."""
    program = folder / "podman"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return program


def test_the_build_script_builds_each_role_from_its_file(tmp_path: Path) -> None:
    engine = stand_in(tmp_path, 'echo "$@"')
    environment = {"PATH": "/usr/bin:/bin", "ENGINE": str(engine), "BUILD_ARGS": "--build-arg A=b"}
    script = ROOT / "images/build.sh"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=True)
    calls = [line.split() for line in done.stdout.splitlines() if line.startswith("build ")]
    assert [call[call.index("--tag") + 1] for call in calls] == [
        getattr(ImagesConfig(), role) for role in ROLES
    ]
    for role, call in zip(ROLES, calls, strict=True):
        assert call[call.index("--file") + 1] == f"images/{role}/Containerfile"
        assert call[-3:] == ["--build-arg", "A=b", "."]
    refused = subprocess.run(
        [script, "cook"], env=environment, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "cook" in refused.stderr


def test_the_build_script_says_that_it_needs_an_engine(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "sed", "git"):
        found = shutil.which(name)
        assert found, name
        (tmp_path / name).symlink_to(found)
    done = subprocess.run(
        ["/bin/bash", str(ROOT / "images/build.sh")],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "install podman or docker" in done.stderr


IMITATION = """
case "$1 $2" in
"-m venv")
    mkdir -p "$3/bin" "$3/lib"
    for name in python pip exsearch; do
        program="$3/bin/$name"
        printf '#!/bin/sh\\necho "ran: %s $*" "cache=$EXSEARCH_CACHE" >>LOG\\n' $name >"$program"
        chmod +x "$program"
    done;;
*) exec REAL "$@";;
esac
"""
"""An interpreter whose environments hold programs that only note how they were called."""


@EVERY
def test_the_check_does_what_the_containerfile_says(role: str, tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "temporary"
    place.mkdir()
    text = IMITATION.replace("LOG", str(log)).replace("REAL", sys.executable)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(stand_in(tmp_path, text))}
    done = subprocess.run(
        [ROOT / "images/check.sh", role],
        env={**environment, "TMPDIR": str(place)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    called = log.read_text(encoding="utf-8")
    steps = " ".join(each.rest for each in instructions(role) if each.word == "RUN")
    flags = re.findall(r"--(?:constraint|requirement) \S+", steps)
    assert len(flags) == 3
    assert f"ran: pip install {' '.join(flags)}" in called
    assert ("library()" in called) == ("library()" in steps)
    if "library()" in steps:
        assert re.search(rf"library\(\) cache={place}/\S+/opt/exsearch/cache", called)
    assert ("pip uninstall" in called) == ("pip uninstall" in steps), "the CPU engine's step"
    command = [word for word in json.loads(last(role, "CMD")) if not word.startswith("-")]
    assert f"ran: exsearch {' '.join([*command[:1], '--help'])}" in called
    assert re.search(rf"{role}: 0 packages, \d+ MB, \d+ s", done.stdout)
    assert list(place.iterdir()) == [], "the temporary folder is removed"


def test_the_check_refuses_and_fails_as_it_should(tmp_path: Path) -> None:
    script = ROOT / "images/check.sh"
    refused = subprocess.run([script, "cook"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "cook" in refused.stderr
    broken = stand_in(tmp_path, 'echo "no venv here" >&2; exit 3')
    place = tmp_path / "temporary"
    place.mkdir()
    failed = subprocess.run(
        [script, "tools"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(broken), "TMPDIR": str(place)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failed.returncode != 0
    assert "no venv here" in failed.stderr
    assert list(place.iterdir()) == []


@pytest.mark.skipif(
    not os.environ.get("EXSEARCH_IMAGE_CHECK"),
    reason="set EXSEARCH_IMAGE_CHECK=1: it takes minutes",
)
@pytest.mark.timeout(3600)
@EVERY
def test_it_installs_and_starts(role: str) -> None:
    done = subprocess.run(
        [ROOT / "images/check.sh", role], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
