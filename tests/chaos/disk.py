"""A place of its own for the trials: a disk that can be made full, and process ids that end with the command."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOM = 2 * 2**30
INSIDE = "CHORUS_CHAOS_NAMESPACE"
PRIVATE = ("unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def enter_namespace(module: str, arguments: list[str]) -> None:
    """Start this command again in namespaces where it may mount a tmpfs; return where that is not allowed.

    Whatever happens to the command, its mounts and all processes that it started end with it.
    """
    if INSIDE in os.environ or shutil.which(PRIVATE[0]) is None:
        return
    if subprocess.run([*PRIVATE, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[INSIDE] = "1"
        os.execvp(PRIVATE[0], [*PRIVATE, sys.executable, "-m", module, *arguments])


class Disk:
    """A tmpfs on `folder`; an ordinary folder, which never gets full, where mounting is not allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.small = INSIDE in os.environ

    def insert(self) -> None:
        """Begin with an empty folder."""
        self.remove()
        self.folder.mkdir(parents=True)
        if self.small:
            self._mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs")

    def remove(self) -> None:
        if self.small and os.path.ismount(self.folder):
            subprocess.run(["umount", "--lazy", self.folder], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def leave(self, free: int) -> None:
        """Shrink the disk to what lies on it and so many bytes more."""
        used = shutil.disk_usage(self.folder).used
        self._mount("-o", f"remount,size={used + free}")

    def grow(self) -> None:
        """Give it room again."""
        if self.small:
            self._mount("-o", f"remount,size={ROOM}")

    def _mount(self, *arguments: str) -> None:
        subprocess.run(["mount", *arguments, self.folder], check=True)
