"""Render chat templates from elsewhere, which are programs, in a process with bounded time, memory and output.

    text, spans = render(tokenizer.chat_template, messages, False, tokenizer.special_tokens_map, marked=True, name="...")

The library's sandbox keeps a template from files and Python's insides, but `{{ 9**9**9 }}` computes for hours in one
instruction, which no thread of the same process can end. There the kernel ends it. The process starts with the first
template (a second), serves all that follow, holds none of our files, and ends with us. On a system without a timer of computing
time (Windows), a thread ends the process after the same seconds of waiting, and memory is not bounded.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.tokenizing.process_map import answer_stream, start_python

SECONDS = 5  # of computing time per conversation; real templates take a thousandth of one
MEGABYTES = 256  # more than the process has when it begins; held on Linux
LONGEST = 2**24  # characters of a conversation without its contents
PROGRAM = (
    "import json, sys; sys.path[:], limits = json.loads(sys.argv[1])\n"
    "from tinygpt_hf.tokenizing.template_sandbox import serve; serve(*limits)"
)
TIMER = getattr(signal, "SIGPROF", None)  # what the kernel sends when the computing time is over

TIMED_OUT = -TIMER if TIMER else "timed out"

_lock = threading.Lock()
_process: subprocess.Popen | None = None


class RefusedError(UsageError):
    """Report a template that refuses these messages or fails on them; it may take others."""


def render(
    template: str, messages: list[dict], add_generation_prompt: bool, variables: dict, marked: bool, name: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return (text, spans of what the assistant says) as `render_jinja_template` does; `marked`: it has generation marks.

    `variables`: the special tokens, and tools.

    Raise `UsageError`, naming the tokenizer, if the template fails or exceeds a limit. May be called from any thread.
    """
    request = {
        "conversations": [messages],
        "chat_template": template,
        "return_assistant_tokens_mask": marked,
        "add_generation_prompt": add_generation_prompt,
        **variables,
    }
    answer = _ask(json.dumps(request, default=str).encode() + b"\n")
    if not isinstance(answer, dict):
        if answer == 1:
            raise RunError("the process that renders chat templates could not start; does `import transformers` work?")
        raise invalid_template(name, f"ran longer than {SECONDS} s" if answer == TIMED_OUT else "crashed its process")
    if "refused" in answer:
        roles = ", ".join(message["role"] for message in messages[:4])
        raise RefusedError(
            f"the chat template refuses the conversation ({answer['refused']})",
            f"a template that takes the roles {roles}",
            "change the messages or the tokenizer",
        )
    if "fault" in answer:
        raise invalid_template(name, answer["fault"])
    return answer["text"], answer["spans"]


def invalid_template(name: str, fault: str) -> UsageError:
    """Make the error for a template that does not do what templates are for."""
    return UsageError(
        f"the chat template of {name or 'the tokenizer'} {fault}",
        "a template that writes a conversation",
        "use a tokenizer with a valid template",
    )


def _ask(request: bytes) -> dict | int | str:
    """Return the answer of the process, or how it ended. After an interruption a new process takes over."""
    global _process
    with _lock:
        if _process is None:
            limits = [SECONDS, MEGABYTES, LONGEST]
            _process = start_python(PROGRAM, [sys.path, limits], stderr=subprocess.DEVNULL)
        process, _process, line = _process, None, b""
        watch = None if TIMER else threading.Timer(SECONDS, process.kill)
        try:
            if watch:
                watch.start()
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        except BaseException:
            process.kill()
            raise
        finally:
            late = watch is not None and not watch.is_alive()
            if watch:
                watch.cancel()
        if not line.endswith(b"\n"):
            status = process.wait()
            return TIMED_OUT if late else status
        _process = process
        return json.loads(line)


def serve(seconds: float, megabytes: int, longest: int) -> None:
    """Answer requests on standard input, a line of JSON each, until it ends."""
    from transformers.utils.chat_template_utils import render_jinja_template

    answers = answer_stream()
    _limit_memory(megabytes)
    for request in open(0, "rb"):
        if TIMER:
            signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody handles its signal: it ends the process
        answers.write(json.dumps(_answer(render_jinja_template, request, megabytes, longest)).encode() + b"\n")
        answers.flush()


def _limit_memory(megabytes: int) -> None:
    """Limit the memory of this process to `megabytes` more than it has now, if the system says how much that is."""
    with contextlib.suppress(OSError, ImportError), open("/proc/self/statm", encoding="ascii") as file:
        import resource

        used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)


def _answer(render, request: bytes, megabytes: int, longest: int) -> dict:
    """Render one conversation; return its text and spans, or why it was `refused`, or the template's `fault`."""
    try:
        (text,), spans = render(**json.loads(request))
        text.encode()  # half a surrogate pair is no text
        if len(text) > longest:
            return {"fault": f"writes more than {longest} characters"}
        return {"text": text, "spans": spans[0] if spans else []}
    except MemoryError:
        return {"fault": f"needs more than {megabytes} MB of memory"}
    except RecursionError:
        return {"fault": "is nested or calls itself without end"}
    except Exception as error:  # of jinja2, or any that an expression raises
        from jinja2 import TemplateError

        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        return {"refused": kind + " ".join(str(error).split())[:300]}
