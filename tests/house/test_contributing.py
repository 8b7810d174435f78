"""What CONTRIBUTING.md says of adding things is enough: in a copy of the project each is added so, and works."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from store.settings import Settings

ROOT = Path(__file__).parents[2]
ROOMS = ("ecif", "encoders", "readers", "store", "doorbell", "service", "worker", "migrations")
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()


@dataclass
class Copy:
    """A copy of the project that is changed, and which of its files were."""

    root: Path
    touched: set[str] = field(default_factory=set)

    def write(self, name: str, content: str) -> None:
        """A new file."""
        assert not (self.root / name).exists()
        (self.root / name).write_text(content)
        self.touched.add(name)

    def insert(self, name: str, before: str, text: str) -> None:
        """Text before a place in a file that is there only once."""
        content = (self.root / name).read_text()
        assert content.count(before) == 1, f"{name}: {before!r} is there {content.count(before)} times"
        (self.root / name).write_text(content.replace(before, text + before))
        self.touched.add(name)

    def files_of(self, heading: str) -> int:
        """How many files were touched since the last question. The paragraph of the guide that begins so names each of
        them, or its folder."""
        (paragraph,) = [text for text in GUIDE.split("\n\n") if text.startswith(f"**{heading}**")]
        unnamed = [name for name in self.touched if name not in paragraph and f"{Path(name).parent}/" not in paragraph]
        assert unnamed == [], heading
        count = len(self.touched)
        self.touched.clear()
        return count


_SERVICE = """
import io, json, sys, zipfile
import numpy as np
import store.settings, worker.pipeline
assert worker.pipeline.__file__.startswith(sys.path[0] or __import__("os").getcwd())
from fastapi.testclient import TestClient
from migrations.upgrade import upgrade
from service.app import create_app
from store.blobs import Blobs
from store.database import Database
from worker.attempts.attempt import Workplace, work_once

settings = store.settings.Settings.model_validate_json(sys.argv[1])
upgrade(settings.database_url)
place = Workplace(settings, Database.from_settings(settings), Blobs.from_settings(settings))

def work():
    while work_once(place) is not None:
        pass

def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "."), content)
    return out.getvalue()

def embeddings(n=12):
    files = {}
    for seed, side in enumerate(("image", "text")):
        buffer = io.BytesIO()
        np.save(buffer, np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32))
        files[f"{side}__npy"] = buffer.getvalue()
    return zipped(**files)

def job(**fields):
    dataset = service.post("/datasets", files={"file": ("data.zip", embeddings())}).json()["id"]
    spec = {"task": "valuation", "dataset": dataset, "validation": {"fraction": 0.5}, "fit": None} | fields
    answer = service.post("/jobs", json=spec)
    assert answer.status_code == 202, answer.text
    work()
    ended = service.get("/jobs/" + answer.json()["id"]).json()
    assert ended["status"] == "succeeded", ended
    return ended

service = TestClient(create_app(settings)).__enter__()
"""


def _add_format(copy: Copy) -> str:
    copy.write(
        "readers/formats/captions_list.py",
        '''"""Images beside a file `list.txt` with a name and a caption in each line."""

from functools import partial

from readers.formats.definition import DatasetFormat
from readers.pair_fields import image_pairs


class CaptionsList:
    ignored_columns: tuple[str, ...] = ()
    unreferenced = 0
    listable = True
    total = None

    def __init__(self, archive):
        self._archive = archive

    def __iter__(self):
        names = list(self._archive.members)
        text = self._archive.read(names.index("list.txt")).decode()
        for name, caption in (line.split("\\t") for line in text.splitlines()):
            image = partial(self._archive.image, names.index(name))
            yield from image_pairs(where=name, key=name, caption=caption, values={}, taken=(), image=image,
                                   limits=self._archive.limits)


CAPTIONS_LIST = DatasetFormat(
    name="captions-list",
    kind="images",
    precedence=5,
    fits=lambda archive, contents: "list.txt" in list(archive.members),
    choose=lambda archive, contents: [],
    read=lambda archive, contents, chosen, template: CaptionsList(archive),
)
"""images beside a list of names and captions"""
''',
    )
    copy.insert(
        "readers/formats/registry.py", "from readers.formats.containers", "from readers.formats import captions_list\n"
    )
    copy.insert(
        "readers/formats/registry.py",
        "    FOLDER = folder.FOLDER\n",
        "    CAPTIONS_LIST = captions_list.CAPTIONS_LIST\n",
    )
    return """
from PIL import Image
out = io.BytesIO()
Image.new("RGB", (8, 8)).save(out, "PNG")
content = zipped(a__png=out.getvalue(), list__txt="a.png\\ta picture")
dataset = service.post("/datasets", files={"file": ("data.zip", content)}).json()["id"]
work()
found = service.get("/datasets/" + dataset).json()
assert (found["status"], found["format"], found["pair_count"]) == ("ready", "captions-list", 1), found
"""


def _add_curvature(copy: Copy) -> str:
    copy.write(
        "ecif/curvature/doubled.py",
        '''"""Twice the identity."""

from dataclasses import dataclass

from ecif.curvature.base import Identity
from ecif.solve.solution import Solution


@dataclass(frozen=True)
class Doubled:
    def solve(self, rhs, *, state=None, on_state=None) -> Solution:
        solution = Identity().solve(rhs)
        return Solution(solution.x / 2, 0, solution.relative_residual, (2.0, 2.0), converged=True)
''',
    )
    copy.insert("store/specification.py", '"projected", "identity"] = "gauss_newton"', '"doubled", ')
    copy.insert("ecif/curvature/choice.py", '"projected", "identity"]', '"doubled", ')
    copy.insert(
        "worker/analysis/curvatures.py",
        '    if wanted == "identity":\n',
        '    if wanted == "doubled":\n        from ecif.curvature.doubled import Doubled\n\n        return Doubled()\n',
    )
    return """
ended = job(influence={"curvature": "doubled"}, methods=["ecif"])
assert ended["summary"]["curvature"]["curvature"] == "doubled"
assert ended["summary"]["curvature"]["eigenvalue_range"] == [2.0, 2.0]
"""


def _add_phase(copy: Copy) -> str:
    copy.insert(
        "store/phases.py", '    SCORE = "score", "pairs", Lane.COMPUTE, 2\n', '    GREET = "greet", "greetings"\n'
    )
    copy.insert(
        "worker/outputs.py",
        "@dataclass(frozen=True)\nclass ScoreOutput(Output):",
        '@dataclass(frozen=True)\nclass GreetOutput(Output):\n    """greeting: of all."""\n\n    greeting: str\n\n\n',
    )
    copy.insert("worker/pipeline.py", "    ScoreOutput,\n    TraceOutput,\n)", "    GreetOutput,\n")
    copy.insert(
        "worker/pipeline.py",
        "        Step(Phase.SCORE,",
        '        Step(Phase.GREET, "worker.analysis.greet", GreetOutput, (PlanOutput,)),\n',
    )
    copy.write(
        "worker/analysis/greet.py",
        '''"""Greet: say how many pairs there are."""

from store.shards import Planned
from worker.analysis.job_view import JobView
from worker.attempts.task import Done, Task
from worker.outputs import GreetOutput, PlanOutput
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    return [Planned({}, planning.output(PlanOutput).pairs)]


def run(task: Task) -> Done[GreetOutput]:
    return Done(GreetOutput(f"hello, {JobView.of(task).plan.pairs} pairs"), 1)
''',
    )
    return """
ended = job(methods=["ecif"])
(phase,) = [phase for phase in ended["summary"]["phases"] if phase["phase"] == "greet"]
assert phase["shards"] == 1 and phase["version"] == 1
from store import shards
from store.phases import Owner, OwnerKind, Phase, progress_unit
with place.database.transaction() as session:
    (left,) = shards.outputs(session, Owner(OwnerKind.JOB, ended["id"]), Phase.GREET)
assert left == {"greeting": "hello, 6 pairs"} and progress_unit("greet") == "greetings"
"""


def _add_method(copy: Copy) -> str:
    copy.insert("ecif/methods/embedding_scores.py", "def lemon(", "def distance(S):\n    return 1 - S.diagonal()\n\n\n")
    copy.insert(
        "worker/analysis/score.py",
        "    return columns\n",
        """    from ecif.methods.embedding_scores import distance

    columns["distance"] = distance(problem.objective.similarity(problem.params, batch).detach())
""",
    )
    copy.insert("store/job_phases.py", '    "clip_score": ("clip_score",),\n', '    "distance": ("distance",),\n')
    copy.insert("store/specification.py", '    "lemon",\n]', '    "distance",\n')
    copy.insert("store/tables.py", '    "lemon",\n', '    "distance",\n')
    copy.insert("store/tables.py", "    lemon: Mapped[float | None]\n", "    distance: Mapped[float | None]\n")
    copy.insert("service/results.py", '    "lemon",\n', '    "distance",\n')
    copy.insert("service/results.py", "    lemon: float | None", "    distance: float | None\n")
    newest = max(path.name for path in (copy.root / "migrations" / "versions").glob("0*.py"))[:4]
    copy.write(
        "migrations/versions/9999_distance.py",
        f'''from alembic import op

revision = "9999"
down_revision = "{newest}"
branch_labels = depends_on = None


def upgrade():
    op.execute("ALTER TABLE results ADD COLUMN distance double precision")
''',
    )
    return """
ended = job(methods=["distance"], task="misalignment", validation=None)
rows = service.get("/jobs/" + ended["id"] + "/results", params={"sort": "distance"}).json()["items"]
assert len(rows) == 12 and all(row["distance"] is not None for row in rows), rows
"""


def _add_endpoint(copy: Copy) -> str:
    copy.write(
        "service/counts.py",
        '''"""`/counts`: how many datasets a tenant has."""

from fastapi import APIRouter

from service.context import ServiceDep
from store import datasets

router = APIRouter(tags=["datasets"])


@router.get("/counts")
def counts(service: ServiceDep) -> dict[str, int]:
    """How many datasets there are."""
    with service.database.transaction() as session:
        return {"datasets": datasets.count(session)}
''',
    )
    copy.insert("service/app.py", "        datasets_endpoints.router,\n", "        counts.router,\n")
    copy.insert("service/app.py", "from store.blobs import Blobs\n", "from service import counts\n")
    return """
assert service.get("/counts").json()["datasets"] > 0
assert "/counts" in service.get("/openapi.json").json()["paths"]
"""


def test_what_is_added_as_the_guide_says_works(tmp_path: Path, settings: Settings) -> None:
    """All five in one copy, so that its imports are waited for once."""
    copy = Copy(tmp_path / "copy")
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy.root / room, ignore=shutil.ignore_patterns("__pycache__"))
    script, files = _SERVICE, {}
    for heading, add in {
        "A dataset format": _add_format,
        "A curvature": _add_curvature,
        "A phase": _add_phase,
        "A method": _add_method,
        "An endpoint": _add_endpoint,
    }.items():
        script += add(copy)
        files[heading] = copy.files_of(heading)
    done = subprocess.run(
        [sys.executable, "-c", script, settings.model_dump_json()],
        cwd=copy.root,
        env={"PYTHONPATH": str(copy.root), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert files == {"A dataset format": 2, "A curvature": 4, "A phase": 4, "A method": 7, "An endpoint": 2}


def test_a_renamed_field_of_an_output_does_not_pass_the_type_check(tmp_path: Path) -> None:
    """Who reads an output names its fields, and mypy knows them: no string stands between two phases."""
    reader = (ROOT / "worker" / "analysis" / "problem.py").read_text()
    assert "fitted.params" in reader
    outputs = (ROOT / "worker" / "outputs.py").read_text()
    renamed = outputs.replace("    params: str\n    epochs: int", "    weights: str\n    epochs: int")
    assert renamed != outputs
    (tmp_path / "outputs.py").write_text(renamed)
    (tmp_path / "reader.py").write_text(
        "from outputs import FitOutput\n\ndef params(fitted: FitOutput) -> str:\n    return fitted.params\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "reader.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert '"FitOutput" has no attribute "params"' in checked.stdout, json.dumps([checked.stdout, checked.stderr])
