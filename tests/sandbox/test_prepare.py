"""`adlatus sandbox prepare`: whatever happens on the way, in the end there is something to run code in, or advice.

Most tests run a copy of this checkout whose sandbox has one small package, so that building takes seconds.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from adlatus.backends.sandbox import environment, image, parts
from adlatus.settings import Settings
from tests.conftest import MACHINE_DATA_DIR, missing

ROOT = Path(__file__).parents[2]
DEADLINE_S = 100
NO_ENGINE = "unix:///nonexistent/docker.sock"
CONTENT = "from adlatus.backends.sandbox import parts; print(parts.content_hash())"

DRAWING = """
import io, os, shutil, sys
shutil.copytree(sys.prefix + "/share/matplotlib", os.environ["MPLCONFIGDIR"])
import matplotlib.pyplot as plt
import docx, IPython, matplotlib_inline, networkx, openpyxl, pandas, PIL, pptx, pypdf, reportlab, scipy.stats
import seaborn, sklearn.ensemble, sympy, xlrd
plt.title("\\u00e9 \\u4f60\\u597d \\u3053\\u3093 \\uc548\\ub155 \\U0001f600", fontweight="bold")
plt.savefig(io.BytesIO(), format="png")
print("drawn")
"""
"""Every package, and characters of every kind: where a font is missing, matplotlib says so on stderr."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Checkout:
    """A copy of this checkout, with a data folder of its own beside it."""

    folder: Path

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def sandboxes(self) -> Path:
        return self.data_dir / "sandbox"

    def environment(self, **settings: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ADLATUS_")}
        defaults = {"PYTHONPATH": str(self.folder / "src"), "DOCKER_HOST": NO_ENGINE}
        return kept | defaults | {"ADLATUS_DATA_DIR": str(self.data_dir)} | settings

    def started(self, **settings: str) -> subprocess.Popen[str]:
        """The command, in a process of its own. There is no engine unless DOCKER_HOST is among the settings."""
        command = [sys.executable, "-m", "adlatus.cli", "sandbox", "prepare"]
        surroundings = self.environment(**settings)
        return subprocess.Popen(
            command, cwd="/", env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def prepare(self, **settings: str) -> tuple[int, str, str]:
        """The exit code of the command, what it prints, and what it says on the way."""
        command = self.started(**settings)
        printed, said = command.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in said
        return command.returncode, printed, said

    def content_hash(self) -> str:
        command = [sys.executable, "-c", CONTENT]
        return subprocess.run(
            command, cwd="/", env=self.environment(), capture_output=True, text=True, check=True
        ).stdout.strip()


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    """The copy, in a folder that other users can pass through."""
    folder = Path("/tmp", f"adlatus-prepare-{os.getpid()}-{time.monotonic_ns()}")
    folder.mkdir(0o755)
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", symlinks=True, ignore=unwanted)
    shutil.copytree(ROOT / "docker", folder / "docker", ignore=unwanted)
    (folder / "docker" / "sandbox" / "requirements.txt").write_text("six==1.17.0\n")
    (folder / "docker" / "sandbox" / "finish.py").write_text("import six\n")
    (folder / "docker" / parts.DOCKERFILE).write_text(
        "ARG BASE_IMAGE=scratch\nFROM ${BASE_IMAGE}\nCOPY sandbox/ /opt/adlatus/\n"
    )
    yield Checkout(folder)
    shutil.rmtree(folder)


@pytest.fixture
def bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        missing("bubblewrap", "bwrap is not installed")


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    client = image.connect()
    if client is None:
        missing("docker", "no engine answers")
    yield client
    client.close()


@pytest.fixture
def docker_host(engine: docker.DockerClient) -> str:
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


@pytest.fixture
def image_name(checkout: Checkout, engine: docker.DockerClient) -> Iterator[str]:
    """The name under which the copy looks for its image, which is gone afterwards."""
    name = f"{image.REPOSITORY}:{checkout.content_hash()}"
    yield name
    with suppress(ImageNotFound):
        engine.images.remove(name)


def wait_for(folder: Path, pattern: str) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not any(folder.glob(pattern)):
        assert time.monotonic() < give_up_at, pattern
        time.sleep(0.001)


@pytest.mark.usefixtures("bubblewrap")
def test_the_environment_is_built_once_and_only_its_owner_can_change_it(checkout: Checkout) -> None:
    code, printed, said = checkout.prepare()
    assert code == 0, said
    assert str(checkout.sandboxes) in printed
    assert len(list(checkout.sandboxes.iterdir())) == 3
    [python] = checkout.sandboxes.glob("python-*/bin/python")
    [supervisor] = checkout.sandboxes.glob("programs-*/requirements.txt")
    for path in checkout.sandboxes.rglob("*"):
        if not path.is_symlink() and path.name != "lock":
            mode = stat.S_IMODE(path.stat().st_mode)
            assert not mode & 0o022, path
            assert os.geteuid() != 0 or mode & 0o004, path
    if os.geteuid() == 0:
        commands: list[list[str | Path]] = [[python, "-I", "-c", "import six"], ["/bin/cat", supervisor]]
        for command in commands:
            subprocess.run(command, check=True, capture_output=True, user=environment.NOBODY, extra_groups=[])
    before = python.lstat().st_ino
    code, printed_again, said = checkout.prepare(PIP_NO_INDEX="1", PIP_FIND_LINKS="")  # nothing is asked for any more
    assert (code, printed_again) == (0, printed), said
    assert python.lstat().st_ino == before


@pytest.mark.usefixtures("bubblewrap")
def test_only_what_has_changed_is_made_again(checkout: Checkout) -> None:
    assert checkout.prepare()[0] == 0
    (checkout.folder / "docker" / "sandbox" / "supervisor.py").write_text("raise SystemExit\n")
    code, _, said = checkout.prepare(PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert code == 0, said
    assert len(list(checkout.sandboxes.glob("python-*"))) == 1
    assert len(list(checkout.sandboxes.glob("programs-*"))) == 2
    [folder] = checkout.sandboxes.glob("python-*")
    for link in (folder / "bin").glob("python*"):
        link.unlink()
    (folder / "bin" / "python").symlink_to("/nonexistent/python3")  # as after an upgrade of the system
    code, _, said = checkout.prepare()
    assert code == 0, said
    assert (folder / "bin" / "python").exists()


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("during", ["building/lib/*/site-packages/pip", "building/lib/*/site-packages/six*"])
def test_what_a_killed_one_has_begun_is_done_by_the_next(checkout: Checkout, during: str) -> None:
    killed = checkout.started()
    wait_for(checkout.sandboxes, during)
    killed.kill()
    killed.communicate(timeout=DEADLINE_S)
    assert not list(checkout.sandboxes.glob("programs-*"))
    code, _, said = checkout.prepare()
    assert code == 0, said
    names = {path.name.partition("-")[0] for path in checkout.sandboxes.iterdir()}
    assert names == {"lock", "python", "programs"}


@pytest.mark.usefixtures("bubblewrap")
def test_two_at_a_time_build_it_once(checkout: Checkout) -> None:
    both = [checkout.started(), checkout.started()]
    said = [command.communicate(timeout=DEADLINE_S) for command in both]
    assert [command.returncode for command in both] == [0, 0], said
    assert "".join(errors for _, errors in said).count("building the sandbox's Python") == 1
    assert said[0][0] == said[1][0]


@pytest.mark.usefixtures("bubblewrap")
def test_without_the_packages_the_reason_is_pip_s_own(checkout: Checkout) -> None:
    code, _, said = checkout.prepare(PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
    assert code == 1
    assert "cannot be built" in said
    assert "No matching distribution found for six" in said
    assert not list(checkout.sandboxes.glob("p*-*"))


@pytest.mark.usefixtures("bubblewrap")
def test_a_folder_that_untrusted_code_could_not_read_is_refused(checkout: Checkout) -> None:
    if os.geteuid() != 0:
        missing("root", "only for root the code runs as somebody else")
    checkout.data_dir.mkdir(0o700)
    code, _, said = checkout.prepare()
    assert code == 1
    assert f"chmod o+x '{checkout.data_dir}'" in said
    assert stat.S_IMODE(checkout.data_dir.stat().st_mode) == 0o700


def test_with_neither_an_engine_nor_bubblewrap_nor_apt_there_is_advice(checkout: Checkout, tmp_path: Path) -> None:
    code, _, said = checkout.prepare(PATH=str(tmp_path))
    assert code == 1
    for advice in ("Start Docker, or install bubblewrap", "apt install bubblewrap", "ADLATUS_SANDBOX=off"):
        assert advice in said
    code, _, said = checkout.prepare(PATH=str(tmp_path), ADLATUS_SANDBOX="bubblewrap")
    assert code == 1
    assert "Docker" not in said


@pytest.mark.usefixtures("bubblewrap")
def test_root_has_bubblewrap_and_fonts_installed_and_is_told(checkout: Checkout, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root", "only root installs packages")
    asked, bwrap = tmp_path / "asked", tmp_path / "bwrap"
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n[ "$1" = update ] || /bin/cp /bin/true {bwrap}\n')
    apt_get.chmod(0o755)
    code, _, said = checkout.prepare(PATH=str(tmp_path))
    assert code == 0, said
    assert "neither a Docker engine that answers nor bubblewrap here: installing it with apt-get" in said
    assert "bubblewrap" in asked.read_text()
    assert "fonts-noto-color-emoji" in asked.read_text()
    asked.unlink()
    assert checkout.prepare(PATH=str(tmp_path))[0] == 0
    assert not asked.exists()


def test_docker_alone_is_never_replaced(checkout: Checkout) -> None:
    code, _, said = checkout.prepare(ADLATUS_SANDBOX="docker")
    assert code == 1
    assert "No Docker engine answers" in said
    assert not checkout.data_dir.exists()


def test_nothing_is_prepared_where_the_sandbox_is_off(checkout: Checkout) -> None:
    code, printed, _ = checkout.prepare(ADLATUS_SANDBOX="off")
    assert code == 0
    assert "is off" in printed
    assert not checkout.data_dir.exists()


def test_an_engine_builds_the_image_once(
    checkout: Checkout, engine: docker.DockerClient, docker_host: str, image_name: str
) -> None:
    both = [checkout.started(DOCKER_HOST=docker_host), checkout.started(DOCKER_HOST=docker_host)]
    said = [command.communicate(timeout=DEADLINE_S) for command in both]
    assert [command.returncode for command in both] == [0, 0], said
    assert "".join(errors for _, errors in said).count("some minutes, once") == 1
    built = engine.images.get(image_name)
    assert built.labels[image.CONTENT_LABEL] == checkout.content_hash()
    code, printed, said_again = checkout.prepare(DOCKER_HOST=docker_host)
    assert (code, printed) == (0, f"The sandbox image {image_name} is there.\n")
    assert "Step" not in said_again
    assert engine.images.get(image_name).id == built.id


def test_an_image_that_cannot_be_built_is_an_error_in_the_engine_s_words(
    checkout: Checkout, docker_host: str, image_name: str
) -> None:
    (checkout.folder / "docker" / parts.DOCKERFILE).write_text("FROM scratch\nCOPY nothing-of-this-name /\n")
    code, _, said = checkout.prepare(DOCKER_HOST=docker_host, ADLATUS_SANDBOX="docker")
    assert code == 1
    assert "cannot be built" in said
    assert "nothing-of-this-name" in said


@pytest.mark.usefixtures("bubblewrap")
def test_where_the_image_cannot_be_built_bubblewrap_takes_its_place_and_says_so(
    checkout: Checkout, docker_host: str
) -> None:
    (checkout.folder / "docker" / parts.DOCKERFILE).write_text("FROM scratch\nCOPY nothing-of-this-name /\n")
    code, printed, said = checkout.prepare(DOCKER_HOST=docker_host)
    assert code == 0, said
    assert "going on with bubblewrap" in said
    assert str(checkout.sandboxes) in printed


def test_a_named_image_is_not_built_by_us(checkout: Checkout, docker_host: str) -> None:
    code, _, said = checkout.prepare(
        DOCKER_HOST=docker_host, ADLATUS_SANDBOX="docker", ADLATUS_SANDBOX_IMAGE="nowhere.example/sandbox:1"
    )
    assert code == 1
    assert "docker pull" in said


def test_the_environment_has_what_model_written_code_uses() -> None:
    """The one that is on this machine, as the local model is."""
    found = environment.find(MACHINE_DATA_DIR)
    if found is None:
        missing("bubblewrap", "there is no environment: run ADLATUS_SANDBOX=bubblewrap adlatus sandbox prepare")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        user = environment.NOBODY if os.geteuid() == 0 else None
        if user:
            os.chown(folder, user, user)
        finished = subprocess.run(
            [found.python / "bin" / "python", "-I", "-B", "-c", DRAWING],
            env={"MPLCONFIGDIR": f"{folder}/matplotlib", "MPLBACKEND": "agg", "HOME": folder},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    assert (finished.returncode, finished.stdout) == (0, "drawn\n"), finished.stderr
    if "missing from font" in finished.stderr:
        missing("bubblewrap", "the environment was made before the fonts of docker/sandbox/fonts.txt were installed")
    assert finished.stderr == ""


def test_the_image_has_what_model_written_code_uses(engine: docker.DockerClient) -> None:
    name = image.name(Settings())
    if not image.exists(engine, name):
        missing("docker", f"the engine has no image {name}: run adlatus sandbox prepare")
    said = engine.containers.run(
        name,
        ["/opt/py/bin/python", "-I", "-c", DRAWING],
        environment={"MPLCONFIGDIR": "/tmp/matplotlib", "MPLBACKEND": "agg"},
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        tmpfs={"/tmp": "size=64m"},
        stderr=True,
        remove=True,
    )
    assert said == b"drawn\n"


def test_nothing_in_the_image_is_writable_or_gives_rights(engine: docker.DockerClient) -> None:
    name = image.name(Settings())
    if not image.exists(engine, name):
        missing("docker", f"the engine has no image {name}: run adlatus sandbox prepare")
    search = (
        "import os; roots = ('/usr', '/opt', '/etc', '/bin', '/lib', '/var');"
        "paths = [os.path.join(at, file) for root in roots for at, folders, files in os.walk(root) for file in files];"
        "print([path for path in paths if not os.path.islink(path)"
        " and (os.access(path, os.W_OK) or os.stat(path).st_mode & 0o6000)], os.getuid())"
    )
    command = ["/opt/py/bin/python", "-I", "-c", search]
    assert engine.containers.run(name, command, network_mode="none", remove=True) == b"[] 10001\n"
