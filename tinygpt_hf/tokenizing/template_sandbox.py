"""A chat template from elsewhere is a program: it is rendered in a process of its own, with bounded time, memory and output.

    text, spans = rendered(tokenizer.chat_template, messages, False, tokenizer.special_tokens_map, marked=True, name="...")

The library's sandbox keeps a template from files and Python's insides, but `{{ 9**9**9 }}` computes for hours in one
instruction, which no thread of the same process can end. There the kernel ends it. The process starts with the first
template (a second), serves all that follow, holds none of our files, and ends with us.
"""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tinygpt_hf.errors import RunError, UsageError

SECONDS = 5  # of computing time per conversation; real templates take a thousandth of one
MEGABYTES = 256  # more than the process has when it begins; held on Linux
LONGEST = 2**24  # characters of a conversation without its contents
PROGRAM = Path(__file__).with_name("template_process.py")

_lock = threading.Lock()
_process: subprocess.Popen | None = None


class RefusedError(UsageError):
    """A template does not take these messages, or fails; others it may take."""


def rendered(
    template: str, messages: list[dict], add_generation_prompt: bool, special_tokens: dict, marked: bool, name: str
) -> tuple[str, list[tuple[int, int]]]:
    """(text, spans of it that are learnt) as `render_jinja_template` makes them; `marked`: are there generation marks?

    A template that fails or exceeds a limit is a `UsageError` naming its tokenizer. May be called from any thread.
    """
    request = {
        "conversations": [messages],
        "chat_template": template,
        "return_assistant_tokens_mask": marked,
        "add_generation_prompt": add_generation_prompt,
        **special_tokens,
    }
    answer = _ask(json.dumps(request, default=str).encode() + b"\n")
    if isinstance(answer, int):
        if answer == 1:
            raise RunError(
                "the process that renders chat templates could not start; is transformers installed soundly?"
            )
        raise unsound(name, f"ran longer than {SECONDS} s" if answer == -signal.SIGPROF else "broke its process")
    if "refused" in answer:
        roles = ", ".join(message["role"] for message in messages[:4])
        raise RefusedError(
            f"the chat template refuses the conversation ({answer['refused']})",
            f"its roles are {roles}",
            "change the messages or the tokenizer",
        )
    if "fault" in answer:
        raise unsound(name, answer["fault"])
    return answer["text"], answer["spans"]


def unsound(name: str, fault: str):
    """The `UsageError` for a template that does not do what templates are for."""
    return UsageError(
        f"the chat template of {name or 'the tokenizer'} {fault}",
        "a template that writes a conversation was wanted",
        "use a tokenizer with a sound template",
    )


def _ask(request: bytes) -> dict | int:
    """The answer of the process, or the status it ended with. After an interruption a new process takes over."""
    global _process
    with _lock:
        if _process is None:
            # -P: the folder of the program is not searched for modules
            words = [sys.executable, "-P", str(PROGRAM), *map(str, (SECONDS, MEGABYTES, LONGEST))]
            _process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us
            )
        process, _process, line = _process, None, b""
        try:
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        except BaseException:
            process.kill()
            raise
        if not line.endswith(b"\n"):
            return process.wait()
        _process = process
        return json.loads(line)
