"""Push a run to the Hub during training, in a background thread.

    with Uploads(folder, training, is_main=True, say=print) as uploads:     # UsageError without a token
        uploads.offer(folder, "Step 400")                                   # returns at once
        uploads.offer(folder / "best", "Step 400", "best")
    # the final folder has been pushed, or a line was printed; no exception is raised

The last weights go to `main`, the best to the branch `best`. A new offer replaces one that still waits for the same branch.
Offers are snapshots made of hard links, so training can replace its files meanwhile. A failure prints a line; the next offer
and the end of the run try again.
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
LINKS = f"{storage.TEMPORARY}upload-"  # a resumed run removes such folders
FREE_SPACE = 3  # required, as a multiple of the upload's size: links keep replaced files on the disk


class Uploads(contextlib.AbstractContextManager):
    """Background pushes of `folder` to `training.hub_model_id`, on the main process and only with --push_to_hub."""

    def __init__(self, folder: Path, training: TrainingArguments, is_main: bool, say: Say):
        self._folder, self._say = folder, say
        self._repository, self._private = training.hub_model_id, training.hub_private_repo
        if training.push_to_hub:
            check_login()
        self._enabled = training.push_to_hub and is_main
        self._waiting: dict[str, tuple[UploadSet, str]] = {}  # branch -> (files, commit message)
        self._failures: dict[str, str] = {}  # branch -> reason of its last failed push
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
        """Push the final folder and wait for it; after an exception return at once."""
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
        """Queue a snapshot of `folder` for a branch."""
        if not self._enabled:
            return
        try:
            upload = select_files(folder, self._repository, RUN)
            if self._training and shutil.disk_usage(self._folder).free < FREE_SPACE * upload.size:
                self._failed(branch, message, "the disk has no room for a snapshot")
                return
            upload = snapshot(upload, self._folder / f"{LINKS}{next(self._numbers)}")
        except (OSError, UsageError) as error:
            self._failed(branch, message, str(error))
            return
        with self._change:
            replaced = self._waiting.pop(branch, None)
            self._waiting[branch] = upload, message
            self._change.notify()
        if replaced:
            _remove_snapshot(replaced[0])

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
            except Exception as error:  # no error may stop the training
                self._failed(branch, message, str(error) or type(error).__name__)
            finally:
                _remove_snapshot(upload)

    def _failed(self, branch: str, message: str, reason: str) -> None:
        """Save the reason of a failure for the end of the run; print a line only for the first."""
        self._failures[branch] = reason
        if self._training and not self._complained:
            self._complained = True
            self._say(f"note: {message!r} was not pushed: {reason}; training goes on, and the end tries again")


def _remove_snapshot(upload: UploadSet) -> None:
    shutil.rmtree(next(iter(upload.files.values())).parent, ignore_errors=True)
