"""Push a run while it trains: in a thread beside it, newest first, never blocking it.

    with Uploads(folder, training, is_main=True, say=print) as uploads:     # refused here if it cannot work at all
        uploads.offer(folder, "Step 400")                                   # returns at once
        uploads.offer(folder / "best", "Step 400", "best")
    # here the folder as it is now was pushed once more, or a line says why not; no exception

The last weights go to `main`, the best to the branch `best`. One thread uploads; a new offer replaces the one that waits for
the same branch. Offering links the files, which training replaces and never changes, so that what goes up is one moment of
the run. A failure is a line; the next offer, and the end, try again.
"""

import contextlib
import itertools
import shutil
import threading
from pathlib import Path

from tinygpt_hf import storage
from tinygpt_hf.errors import UsageError
from tinygpt_hf.hub.push_pull import MAIN, Say, push_command, record, send
from tinygpt_hf.hub.retry import check_login, quiet_client
from tinygpt_hf.hub.upload_set import RUN, UploadSet, check_secrets, select_files, snapshot
from tinygpt_hf.settings.arguments import TrainingArguments

BEST = "best"
LINKS = f"{storage.TEMPORARY}upload-"  # such folders of a killed run are removed when it starts again
ROOM = 3  # times the upload's size that must be free: links keep files alive that the run has replaced


class Uploads(contextlib.AbstractContextManager):
    """Push `folder` to `training.hub_model_id`; do nothing without --push_to_hub or where it is not `is_main`."""

    def __init__(self, folder: Path, training: TrainingArguments, is_main: bool, say: Say):
        self._folder, self._say = folder, say
        self._repository, self._private = training.hub_model_id, training.hub_private_repo
        if training.push_to_hub:
            check_login()
        self._enabled = training.push_to_hub and is_main
        self._waiting: dict[str, tuple[UploadSet, str]] = {}  # branch -> what to send to it, and the message
        self._failures: dict[str, str] = {}  # branch -> why its last push failed
        self._url = ""  # of the last push to main
        self._training, self._ending, self._complained = True, False, False
        self._numbers = itertools.count()
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)

    def __enter__(self):
        if self._enabled:
            quiet_client(watched=False)
            self._thread.start()
        return self

    def __exit__(self, kind, *_):
        """Push what a run ended with, and wait for that; leave at once after a run that failed."""
        if not self._enabled:
            return
        self._training = False
        try:
            if kind is None:
                self._end()
        finally:
            for links in self._folder.glob(f"{LINKS}*"):
                shutil.rmtree(links, ignore_errors=True)

    def offer(self, folder: Path, message: str, branch: str = MAIN) -> None:
        """Queue `folder`, as it is now, for its branch."""
        if not self._enabled:
            return
        try:
            upload = select_files(folder, self._repository, RUN)
            if self._training and shutil.disk_usage(self._folder).free < ROOM * upload.size:
                return
            upload = snapshot(upload, self._folder / f"{LINKS}{next(self._numbers)}")
        except (OSError, UsageError) as error:
            self._failed(branch, message, str(error))
            return
        with self._change:
            before = self._waiting.pop(branch, None)
            self._waiting[branch] = upload, message
            self._change.notify()
        if before:
            _forget(before[0])

    def _end(self) -> None:
        if (self._folder / "config.json").is_file():
            self.offer(self._folder, "End of the run")
        if BEST in self._failures:
            self.offer(self._folder / BEST, "Best of the run", BEST)
        with self._change:
            self._ending = True
            self._change.notify()
        self._thread.join()
        for branch, reason in self._failures.items():
            folder, revision = (self._folder, None) if branch == MAIN else (self._folder / branch, branch)
            again = push_command(str(folder), self._repository, self._private, revision, [])
            self._say(
                f"note: {self._repository} was not pushed: {reason}; the model is safe in {folder}; run `{again}`"
            )
        if self._url and MAIN not in self._failures:
            self._say(f"pushed to {self._url}")

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                branch = next(iter(self._waiting))
                upload, message = self._waiting.pop(branch)
            try:
                check_secrets(upload)
                sent = send(upload, self._private, None if branch == MAIN else branch, message, lambda line: None)
                record(self._folder, "pushed", sent, self._say)
                self._failures.pop(branch, None)
                self._url = sent.url if branch == MAIN else self._url
            except Exception as error:  # whatever it is, the run goes on
                self._failed(branch, message, str(error) or type(error).__name__)
            finally:
                _forget(upload)

    def _failed(self, branch: str, message: str, reason: str) -> None:
        """Note a failure, in a line if it is the first; the next offer and the end try again, and the end says how it ended."""
        self._failures[branch] = reason
        if self._training and not self._complained:
            self._complained = True
            self._say(f"note: {message!r} was not pushed: {reason}; training goes on, and the end tries again")


def _forget(upload: UploadSet) -> None:
    """Remove the links of a snapshot."""
    shutil.rmtree(next(iter(upload.files.values())).parent, ignore_errors=True)
