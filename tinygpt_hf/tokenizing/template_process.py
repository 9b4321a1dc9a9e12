"""The process that template_sandbox.py starts: it renders chat templates, a line of JSON in and one out. It needs nothing of ours.

python -P template_process.py SECONDS MEGABYTES LONGEST
"""

import contextlib
import json
import os
import resource
import signal
import sys


def serve(seconds: float, megabytes: int, longest: int) -> None:
    """Answer the requests on standard input until there are no more; a signal of the kernel ends what takes too long."""
    from transformers.utils.chat_template_utils import render_jinja_template

    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    limit_memory(megabytes)
    for request in open(0, "rb"):
        signal.setitimer(signal.ITIMER_PROF, seconds)  # nobody handles SIGPROF: it ends the process
        answers.write(json.dumps(answer(render_jinja_template, request, megabytes, longest)).encode() + b"\n")
        answers.flush()


def limit_memory(megabytes: int) -> None:
    """So much more than now, where the system says how much that is."""
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)


def answer(render, request: bytes, megabytes: int, longest: int) -> dict:
    """text and spans; or what the template `refused`; or its `fault`."""
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


if __name__ == "__main__":
    serve(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
