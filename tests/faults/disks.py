"""Disks that are full, have a quota, or can only be read: file systems of one's own, whose room is changed while they are used."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar


def command(*words: str | Path) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Disk:
    """A file system of its own in memory."""

    kind = "full disk"
    says: ClassVar[str] = "No space left on device"
    """What the system says of a write for which it has no room."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path, self._is_read_only = path, False
        path.mkdir(exist_ok=True)
        self._mount(stack)

    def _mount(self, stack: ExitStack) -> None:
        command("mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", self.path)
        stack.callback(subprocess.run, ["umount", "-l", self.path], check=True)

    def leave(self, kib: int) -> None:
        """Let it hold so much more than it does, and no more."""
        used = shutil.disk_usage(self.path).used // 1024
        command("mount", "-o", f"remount,size={used + kib or 1}k,rw", self.path)

    def free(self) -> None:
        """Give it room again."""
        command("mount", "-o", "remount,size=1g,rw", self.path)

    def turn_read_only(self) -> None:
        """For whoever opens a file from now on. (As a whole it cannot be while a work holds its lock open.)"""
        command("mount", "--bind", self.path, self.path)
        command("mount", "-o", "remount,bind,ro", self.path)
        self._is_read_only = True

    def turn_back(self) -> None:
        if self._is_read_only:
            command("umount", self.path)
            self._is_read_only = False


class Quota(Disk):
    """A disk with room, of which its user may have no more: a btrfs in a file, whose quota the kernel keeps."""

    kind = "quota"
    says = "Disk quota exceeded"

    def _mount(self, stack: ExitStack) -> None:
        image = self.path.with_name(f"{self.path.name}.btrfs")
        with image.open("wb") as file:
            file.truncate(256 << 20)
        stack.callback(image.unlink)
        # A quota is set from outside of what it bounds: within, that too would be a write.
        self._whole = self.path.with_name(f"{self.path.name}.whole")
        self._whole.mkdir()
        stack.callback(self._whole.rmdir)
        command("mkfs.btrfs", "-q", "-f", "-m", "single", "-d", "single", image)
        command("mount", "-o", "loop", image, self._whole)
        stack.callback(subprocess.run, ["umount", self._whole], check=True)
        command("btrfs", "subvolume", "create", self._whole / "used")
        command("btrfs", "quota", "enable", self._whole)
        command("btrfs", "quota", "rescan", "-w", self._whole)
        self._group = "0/" + command("btrfs", "inspect-internal", "rootid", self._whole / "used").strip()
        command("mount", "--bind", self._whole / "used", self.path)
        stack.callback(subprocess.run, ["umount", "-l", self.path], check=True)

    def leave(self, kib: int) -> None:
        groups = command("btrfs", "qgroup", "show", "--sync", "--raw", self._whole)
        (used,) = (int(line.split()[1]) for line in groups.splitlines() if line.startswith(self._group))
        command("btrfs", "qgroup", "limit", f"{used + 1024 * kib}", self._group, self._whole)

    def free(self) -> None:
        command("btrfs", "qgroup", "limit", "none", self._group, self._whole)


def why_no_disk(kind: type[Disk] = Disk) -> str | None:
    """Why such a disk cannot be had here; None where it can."""
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    if probe.returncode:
        return "mounting is not allowed here"
    if kind is Quota and shutil.which("mkfs.btrfs") is None:
        return "btrfs-progs is not installed (apt-get install btrfs-progs)"
    return None
