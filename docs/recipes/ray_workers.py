"""Workers on a Ray cluster: ray job submit --working-dir docs/recipes -- python ray_workers.py STUDY STORAGE WORKERS [GPUS]

Ray only places them; each is the same `meliuscli worker` as everywhere. GPUS is each worker's share of a GPU (0.25).
"""

from __future__ import annotations

import subprocess
import sys

import ray


def be_worker(study: str, storage: str) -> int:
    """One worker, until the study is done; its exit code."""
    return subprocess.run(["meliuscli", "worker", "--study", study, "--storage", storage], check=False).returncode


def main(study: str, storage: str, workers: str, gpus: str = "0") -> int:
    ray.init()
    # A worker that dies with its machine is started again elsewhere; what it trained is taken by others meanwhile.
    remote = ray.remote(num_cpus=1, num_gpus=float(gpus), max_retries=-1)(be_worker)
    return max(ray.get([remote.remote(study, storage) for _ in range(int(workers))]))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
