"""Render untrusted chat templates in a separate process with limited time, memory and output.

    text, spans = render(tokenizer.chat_template, messages, False, tokenizer.special_tokens_map, marked=True, name="...")

Jinja's sandbox blocks files and Python internals, but `{{ 9**9**9 }}` computes for hours in one instruction, which no thread of
the same process can stop. In a separate process a kernel timer stops it. That process starts with the first template, which
takes a second, renders all later ones, inherits no open files, and ends with this process. On Windows, which has no CPU timer,
a thread kills it after the same number of seconds, and memory is not limited.
"""

import contextlib
import json
import signal
import subprocess
import sys
import threading

from tinygpt_hf.errors import RunError, UsageError
from tinygpt_hf.tokenizing.process_map import answer_stream, start_python

SECONDS = 5  # of CPU time per conversation; real templates take a millisecond
MEGABYTES = 256  # in addition to the memory of the process when it starts; enforced on Linux
MAX_CHARACTERS = 2**24  # of a rendered conversation without its contents
PROGRAM = (
    "import json, sys; sys.path[:], limits = json.loads(sys.argv[1])\n"
    "from tinygpt_hf.tokenizing.template_sandbox import serve; serve(*limits)"
)
TIMER = getattr(signal, "SIGPROF", None)  # sent by the kernel when the CPU time is used up

TIMED_OUT = -TIMER if TIMER else "timed out"

_lock = threading.Lock()
_process: subprocess.Popen | None = None


class RefusedError(UsageError):
    """A template that rejects these messages or fails on them; it may accept others."""


def render(
    template: str, messages: list[dict], add_generation_prompt: bool, variables: dict, marked: bool, name: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return (text, spans between generation marks) as Transformers' `render_jinja_template` does.

    `marked`: the template has generation marks. `variables`: the special tokens and tools. `name`: the tokenizer, for errors.
    Raises UsageError if the template fails or exceeds a limit. Thread-safe.
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
            f"a template that accepts the roles {roles}",
            "change the messages or the tokenizer",
        )
    if "fault" in answer:
        raise invalid_template(name, answer["fault"])
    return answer["text"], answer["spans"]


def invalid_template(name: str, fault: str) -> UsageError:
    """Make the error for a template with a fault; `fault` completes the sentence "the chat template of X ..."."""
    return UsageError(
        f"the chat template of {name or 'the tokenizer'} {fault}",
        "a template that renders a conversation",
        "use a tokenizer with a valid template",
    )


def _ask(request: bytes) -> dict | int | str:
    """Send a request to the process; return its answer, or its exit status or `TIMED_OUT`. Starts a process if needed."""
    global _process
    with _lock:
        if _process is None:
            limits = [SECONDS, MEGABYTES, MAX_CHARACTERS]
            _process = start_python(PROGRAM, [sys.path, limits], stderr=subprocess.DEVNULL)
        process, _process, line = _process, None, b""
        timer = None if TIMER else threading.Timer(SECONDS, process.kill)
        try:
            if timer:
                timer.start()
            process.stdin.write(request)
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            pass
        except BaseException:
            process.kill()
            raise
        finally:
            timed_out = timer is not None and not timer.is_alive()
            if timer:
                timer.cancel()
        if not line.endswith(b"\n"):
            status = process.wait()
            return TIMED_OUT if timed_out else status
        _process = process
        return json.loads(line)


def serve(seconds: float, megabytes: int, max_characters: int) -> None:
    """Answer requests from standard input, one line of JSON each, until it closes."""
    from transformers.utils.chat_template_utils import render_jinja_template

    answers = answer_stream()
    _limit_memory(megabytes)
    for request in open(0, "rb"):
        if TIMER:
            signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal has no handler, so it kills the process
        answers.write(json.dumps(_answer(render_jinja_template, request, megabytes, max_characters)).encode() + b"\n")
        answers.flush()


def _limit_memory(megabytes: int) -> None:
    """Limit the memory of this process to `megabytes` more than now, on Linux."""
    with contextlib.suppress(OSError, ImportError), open("/proc/self/statm", encoding="ascii") as file:
        import resource

        used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)


def _answer(render, request: bytes, megabytes: int, max_characters: int) -> dict:
    """Render a conversation. Returns a dict with `text` and `spans`, or with `refused` or `fault` and the reason."""
    try:
        (text,), spans = render(**json.loads(request))
        text.encode()  # raises for lone surrogates
        if len(text) > max_characters:
            return {"fault": f"writes more than {max_characters} characters"}
        return {"text": text, "spans": spans[0] if spans else []}
    except MemoryError:
        return {"fault": f"needs more than {megabytes} MB of memory"}
    except RecursionError:
        return {"fault": "is nested or calls itself without end"}
    except Exception as error:  # from Jinja, or from any expression in the template
        from jinja2 import TemplateError

        kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        return {"refused": kind + " ".join(str(error).split())[:300]}
