"""Draw and write pictures in several processes, while the sets that come next are prepared."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from cae_lib.data.world.export.files import Picture
from cae_lib.errors import DataError
from cae_lib.runtime import Progress

BATCH = 64


class PictureWriter:
    """Writes pictures below a folder; the same files whatever the number of processes.

    Args:
        root: The folder.
        progress: Counts the pictures; its total grows as they are handed over.
        executor: The processes; None draws in this one.
    """

    def __init__(
        self, root: Path, progress: Progress, executor: ProcessPoolExecutor | None
    ) -> None:
        self.root = root
        self._progress = progress
        self._executor = executor
        self._running: list[Future[int]] = []

    def add(self, pictures: Sequence[Picture]) -> None:
        """Hand over pictures; with processes they are drawn later."""
        self._progress.total += len(pictures)
        for folder in sorted({os.path.dirname(picture.path) for picture in pictures}):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for start in range(0, len(pictures), BATCH):
            batch = pictures[start : start + BATCH]
            if self._executor is None:
                self._progress.update(_write(self.root, batch))
            else:
                self._running.append(self._executor.submit(_write, self.root, batch))
        self._count([future for future in self._running if future.done()])

    def finish(self) -> None:
        """Wait until all pictures are written.

        Raises:
            OSError: A file could not be written.
        """
        self._count(as_completed(self._running))

    def _count(self, futures: Iterable[Future[int]]) -> None:
        """Take note of what is written, or raise the error of what is not."""
        done = set()
        for future in futures:
            self._progress.update(future.result())
            done.add(future)
        self._running = [future for future in self._running if future not in done]


@contextmanager
def picture_writer(root: Path, label: str, workers: int) -> Iterator[PictureWriter]:
    """A writer with `workers` processes; with 1 the pictures are drawn in this process."""
    with Progress(0, label) as progress:
        if workers == 1:
            yield PictureWriter(root, progress, None)
            return
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context(method), initializer=_follow_parent
        )
        try:
            yield PictureWriter(root, progress, executor)
        except BrokenProcessPool as error:
            raise DataError(
                f"{root}: a process that draws was killed, perhaps for want of memory. "
                "Run the same command again, in one process with workers=1"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def _write(root: Path, pictures: Sequence[Picture]) -> int:
    for picture in pictures:
        picture.write(root)
    return len(pictures)


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
