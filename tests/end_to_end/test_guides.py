"""The guides' blocks of code run, as they stand there, against the whole service, with a small model and few pairs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from standalone.demo import digits
from standalone.stack import Stack

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
SECONDS = 240


def script_of(page: str) -> str:
    """The blocks of a page as one script of bash, as a reader would enter them: what one sets, the next one sees."""
    parts = ["set -euo pipefail"]
    for number, (language, code) in enumerate(
        re.findall(r"^```(sh|python)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    ):
        parts.append(f"echo '--- block {number}' $SECONDS >&2")
        parts.append(code if language == "sh" else f"python - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK")
    return "\n".join(parts)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.zip`, `clean.zip` and `wrong.zip`, which the guides speak of."""
    folder = tmp_path_factory.mktemp("guides")
    plan = digits.Plan()
    drawn = digits.load(plan)
    parts = {"train": drawn.training[:90], "clean": drawn.validation[:40], "wrong": drawn.validation[40:42]}
    for name, pairs in parts.items():
        (folder / f"{name}.zip").write_bytes(digits.archive(pairs, plan))
    return folder


@pytest.mark.parametrize(("guide", "blocks"), [("dataset", 6), ("misprediction", 4), ("platform", 3)])
def test_the_blocks_of_a_guide_run(guide: str, blocks: int, data: Path, stack: Stack) -> None:
    script = script_of((GUIDES / f"{guide}.md").read_text())
    assert script.count("--- block") == blocks
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ECIF_URL": stack.url,
        "MODEL": "tiny",
        "OMP_NUM_THREADS": "1",
    }
    command = ["bash", "-c", script]
    done = subprocess.run(
        command, cwd=data, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout[-2000:]}"


def test_every_guide_is_run() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} == {"dataset", "misprediction", "platform"}
    assert script_of("```sh\nexit 3\n```\n```python\nraise SystemExit\n```\n").count("--- block") == 2
