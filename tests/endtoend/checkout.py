"""A checkout of this project in another folder, with a git repository and parameters of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "families": {
        "mlp": {"architecture": "mlp", "replicas": 2, "kimg": 4, "snapshots": 2, "lr": 0.0005, "width": 16},
        "vae": {"architecture": "vae", "kimg": 4, "lr": 0.001, "latent": 8, "width": 8},
    },
    "evaluation": {"samples": 256, "dims": "auto", "neighbours": 3},
    "judge": {"samples": 256},
    "reference": {"selection": "auto", "judges": "auto", "weights": {}, "kimg": 10},
}


LOAD = """
import json, sys
import mlflow, pandas
assert not any(path == sys.argv[1] for path in sys.path), sys.path
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
model = mlflow.pyfunc.load_model("models:/chorus@candidate")
images = model.predict(pandas.DataFrame({"label": [-1] * int(sys.argv[2])}), params={"seed": 3})
print(json.dumps(images.shape))
"""


class Checkout:
    """Runs commands in a copy of the project's files.

    environment: what commands get beside this process's, which loses the addresses of servers. said: all they printed.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, **params: Any) -> None:
        self.folder, self.environment = folder, dict(environment or {})
        self.said: list[str] = []
        listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.write_params(**{**SMALL, **params})
        self.run("git", "init", "-q")
        self.run("git", "add", "-A")
        self.run("git", "config", "user.name", "tester")
        self.run("git", "config", "user.email", "tester@example.org")
        self.run("git", "commit", "-qm", "start")

    @property
    def params(self) -> dict[str, Any]:
        return dict(yaml.safe_load((self.folder / "params.yaml").read_text()))

    def write_params(self, **sections: Any) -> None:
        """Replace whole sections of params.yaml."""
        (self.folder / "params.yaml").write_text(yaml.safe_dump({**self.params, **sections}, sort_keys=False))

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command in the folder with this Python first on the path; return what it printed."""
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder),
        }
        for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "CHORUS_PIPELINE_RUN"):
            environment.pop(name, None)
        environment |= self.environment
        done = subprocess.run(
            command, cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.said.append(done.stdout)
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def draw_elsewhere(self, folder: Path, count: int) -> list[int]:
        """Load the registered model in a process of its own in another folder, draw, and return the images' shape."""
        environment = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
        command = [sys.executable, "-I", "-c", LOAD, str(self.folder), str(count)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout.splitlines()[-1]))

    def lock(self) -> dict[str, Any]:
        """Return dvc.lock's entries by stage."""
        return dict(yaml.safe_load((self.folder / "dvc.lock").read_text())["stages"])


def reproducible(lock: dict[str, Any]) -> dict[str, Any]:
    """Return lock entries without the outputs that say when, where and in which run: `gate`'s and `register`'s."""
    apart = {out["path"] for stage in ("gate", "register") for out in lock[stage]["outs"]}
    return {
        stage: {
            key: [path for path in value if path["path"] not in apart] if key in ("deps", "outs") else value
            for key, value in entry.items()
        }
        for stage, entry in lock.items()
    }
