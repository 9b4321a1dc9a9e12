"""`tinygpt demo`: a conversation in the browser, with what each token could have been beside it.

    demo(DemoArguments("runs/quickstart"), lambda address, name, chats: print(address))

The page is Gradio's; it asks no other machine for anything, reports to nobody and is never shared. What the model or a
visitor wrote is shown as text: no HTML, Markdown or template in it is interpreted. (Gradio's own Chatbot would load an
`<img src=...>` that a model writes, Markdown switched off or not.) Each open page is a session of its own; one answer is
made at a time.
"""

import contextlib
import functools
import html
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.inference.generation import FINISH, Step, context_length, quoted
from tinygpt_hf.inference.serving import ended_by_sigterm, listening
from tinygpt_hf.inference.session import Session, knows_turns
from tinygpt_hf.inference.terminal import safe_text
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.inference import ChatArguments, DemoArguments

MOST_VISITS = 64  # conversations kept; the one longest unused goes first
SECONDS_BETWEEN = 0.25  # the panel is drawn anew no more often while an answer is made
BITS_AT_FULL_COLOUR = 8.0

EMPTY = "<p class='quiet'>Ask something: every token of the answer appears here, with what it could have been.</p>"
# Braces, dollars and backquotes too: an HTML component of Gradio is a template of its own.
_TEMPLATE_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}
CSS = """
.gradio-container main {max-width: 1240px !important; width: 100%; margin: 0 auto}
#head h1 {font-size: 1.3rem; font-weight: 650; margin: 0; overflow-wrap: anywhere}
#head p, #status, #panel .quiet, #panel th, #panel .other {color: var(--body-text-color); opacity: .72}
#head p {margin: .15rem 0 0}
#status {min-height: 1.4rem; font-size: .85rem}
#talk {height: 56vh; min-height: 320px; overflow-y: auto !important; display: flex; flex-direction: column-reverse;
  border: 1px solid var(--border-color-primary); border-radius: var(--block-radius); padding: .8rem;
  background: var(--block-background-fill)}
#talk .turns {display: flex; flex-direction: column; gap: .7rem}
#talk .said {max-width: 84%; padding: .5rem .8rem; border-radius: 12px; white-space: pre-wrap; overflow-wrap: anywhere;
  line-height: 1.5; color: var(--body-text-color)}
#talk .user {align-self: flex-end; background: color-mix(in srgb, #f97316 16%, transparent)}
#talk .assistant {align-self: flex-start; background: color-mix(in srgb, currentColor 7%, transparent)}
#talk .quiet {opacity: .72}
#panel {height: calc(56vh - 34px); min-height: 300px; overflow-y: auto !important; border-radius: var(--block-radius);
  border: 1px solid var(--border-color-primary); background: var(--block-background-fill); padding: .2rem .9rem}
#panel .quiet {font-size: .85rem; margin: .5rem 0}
#panel .text {line-height: 1.75; white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0 .7rem}
#panel .text span {border-radius: 3px; background: color-mix(in srgb, #f97316 calc(var(--s) * 85%), transparent)}
#panel table {width: 100%; border-collapse: collapse; border: 0 !important; font-size: .8rem; table-layout: fixed; margin: 0}
#panel tr {border: 0 !important}
#panel th, #panel td {border: 0; text-align: left; vertical-align: top; padding: .25rem .3rem; overflow-wrap: anywhere}
#panel th {font-weight: 500}
#panel td {border-top: 1px solid var(--border-color-primary)}
#panel td.token, #panel .other b {font-family: var(--font-mono); font-weight: 500; white-space: pre-wrap}
#panel .bar {display: block; height: 4px; border-radius: 2px; background: var(--border-color-primary); margin-top: 3px}
#panel .bar i {display: block; height: 4px; border-radius: 2px; background: #2563eb; width: calc(var(--p) * 100%)}
#panel .other {display: inline-block; margin-right: .8em}
"""


def demo(arguments: DemoArguments, started: Callable[[str, str, bool], None]) -> None:
    """Show the page until a signal ends it: `KeyboardInterrupt` on Ctrl-C, `Interrupted` on SIGTERM.

    `started(address, name, chats)` is called once a browser can connect; `chats`: has the model learnt turns?
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    try:
        import gradio
    except ImportError:
        raise UsageError("gradio is not installed", "the demo extra", "run pip install 'tinygpt_hf[demo]'") from None
    with contextlib.closing(listening(arguments.host, arguments.port)) as place:
        host, port = place.getsockname()[:2]  # it is free; Gradio opens it itself
    with ended_by_sigterm():
        model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
        chats = knows_turns(arguments.model, tokenizer)
        page = built_page(
            gradio, lambda: Session(model, tokenizer, ChatArguments(arguments.model, seed=arguments.seed), chats)
        )
        try:
            page.launch(
                server_name=arguments.host,
                server_port=port,
                share=False,
                inbrowser=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                enable_monitoring=False,
                mcp_server=False,
                max_file_size=1,  # nothing is uploaded
                footer_links=[],
                css=CSS,
                theme=gradio.themes.Default(  # names of fonts of this machine: the default fetches Google's
                    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
                ),
            )
            started(f"http://{f'[{host}]' if ':' in host else host}:{port}", arguments.model, chats)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


@dataclass
class Visit:
    """A page open in a browser."""

    session: Session
    stopped: bool = False  # its answer is to end with the next token


class Visits:
    """The pages that are open, each with a session of its own."""

    def __init__(self, new_session: Callable[[], Session]):
        self._new_session, self._lock = new_session, threading.Lock()
        self._visits: OrderedDict[str, Visit] = OrderedDict()

    def of(self, key: str) -> Visit:
        """The visit with this key, a new one where there is none."""
        with self._lock:
            if key not in self._visits:
                self._visits[key] = Visit(self._new_session())
                while len(self._visits) > MOST_VISITS:
                    self._visits.popitem(last=False)
            self._visits.move_to_end(key)
            return self._visits[key]

    def end(self, key: str) -> None:
        """The page is closed: an answer in progress ends, the conversation is forgotten."""
        with self._lock:
            if key in self._visits:
                self._visits.pop(key).stopped = True


def answered(
    visit: Visit, steps: Generator[Step], before: list[dict], text: str
) -> Iterator[tuple[str, str | None, str]]:
    """While an answer is made: (the conversation so far, the panel or None where it need not be drawn anew, the status)."""
    asked = [*before, {"role": "user", "content": text}]
    taken: list[Step] = []
    began = drawn = time.perf_counter()
    with contextlib.closing(steps):
        for step in steps:
            taken.append(step)
            said = {"role": "assistant", "content": "".join(each.text for each in taken)}
            panel, now = None, time.perf_counter()
            if now - drawn >= SECONDS_BETWEEN:
                panel, drawn = panel_html(taken), now
            yield talk_html([*asked, said]), panel, counted(len(taken))
            if visit.stopped:
                break
    seconds = max(time.perf_counter() - began, 1e-9)
    status = f"{counted(len(taken))}, {len(taken) / seconds:.1f} tokens/s"
    if taken and taken[-1].finish in ("length", "context"):
        status += f"; the answer ends here: {FINISH[taken[-1].finish]}"
    elif visit.stopped:
        status += "; stopped"
    if visit.session.chats and visit.session.dropped:
        status += "; the context is full: the oldest turns no longer reach the model"
    yield talk_html(visit.session.messages), panel_html(taken), status


def talk_html(messages: list[dict]) -> str:
    """The conversation, a bubble per message."""
    if not messages:
        return "<p class='quiet'>Write below to begin.</p>"
    bubbles = [f"<div class='said {m['role']}'>{escaped(m['content'])}</div>" for m in messages]
    return f"<div class='turns' role='log' aria-live='polite'>{''.join(bubbles)}</div>"


def panel_html(steps: list[Step]) -> str:
    """The side panel: the answer coloured by surprise, then a row per token: the chance it was drawn with, the model's own
    probability before temperature and filters, and the model's other likeliest tokens.
    """
    if not steps:
        return EMPTY
    mean = sum(step.surprise for step in steps) / len(steps)
    spans = [
        f"<span style='--s:{min(step.surprise / BITS_AT_FULL_COLOUR, 1):.3f}' "
        f"title='{step.surprise:.2f} bits of surprise'>{escaped(step.text)}</span>"
        for step in steps
        if step.text
    ]
    return (
        f"<p class='quiet'>{counted(len(steps))}, {mean:.2f} bits of surprise each on average; the darker, the more "
        f"surprising.</p><div class='text'>{''.join(spans)}</div><table><colgroup><col style='width:24%'>"
        "<col style='width:15%'><col style='width:15%'><col></colgroup><tr><th>token</th><th>drawn with</th>"
        f"<th>model alone</th><th>what else the model thought of</th></tr>{''.join(map(_row, steps))}</table>"
    )


def _row(step: Step) -> str:
    name = next((c.text for c in step.candidates if c.id == step.id), step.text)
    others = [
        f"<span class='other'><b>{escaped(quoted(c.text))}</b> {c.model_probability:.1%}</span> "
        for c in step.candidates
        if c.id != step.id
    ]
    return (
        f"<tr><td class='token'>{escaped(quoted(name))}</td><td>{step.probability:.1%}"
        f"<span class='bar'><i style='--p:{step.probability:.3f}'></i></span></td>"
        f"<td>{step.model_probability:.1%}</td><td>{''.join(others)}</td></tr>"
    )


def counted(tokens: int) -> str:
    """1 token, 2 tokens."""
    return f"{tokens} {'token' if tokens == 1 else 'tokens'}"


def escaped(text: str) -> str:
    """Text for HTML, between tags or in quotes: nothing in it is a tag, an attribute or a template."""
    return html.escape(safe_text(text)).translate(_TEMPLATE_SIGNS)


def built_page(gradio, new_session: Callable[[], Session]):
    """The page as Gradio's `Blocks`, without a server."""
    visits, first = Visits(new_session), new_session()
    defaults, context = first.arguments, context_length(first.model)
    longest = min(context or 1024, 1024)
    about = "It has learnt to converse"
    if not first.chats:
        about = "A base model without a chat turn in its training: it continues what you write"

    def at_once(handler):
        """Errors of a user as a message on the page, which Gradio reads as HTML."""

        @functools.wraps(handler)  # Gradio reads from the signature that a request is wanted
        def guarded(*values):
            try:
                yield from handler(*values)
            except UsageError as error:
                raise gradio.Error(escaped(str(error)), title="That cannot be done", print_exception=False) from None

        return guarded

    def chosen(visit: Visit, temperature, top_k, top_p, max_new_tokens) -> Session:
        visit.stopped = False
        numbers: dict[str, Any] = {"temperature": float(temperature), "top_k": int(top_k), "top_p": float(top_p)}
        visit.session.arguments = replace(visit.session.arguments, max_new_tokens=int(max_new_tokens), **numbers)
        return visit.session

    def drawn(updates):
        for talk, panel, status in updates:
            yield "", talk, gradio.skip() if panel is None else panel, escaped(status)

    def ask(text, temperature, top_k, top_p, max_new_tokens, request: gradio.Request):
        visit = visits.of(request.session_hash)
        session = chosen(visit, temperature, top_k, top_p, max_new_tokens)
        if not text.strip():
            raise UsageError("the message is empty", "some text", "write something")
        steps = session.ask(text)
        yield from drawn(answered(visit, steps, session.messages, text))

    def retry(text, temperature, top_k, top_p, max_new_tokens, request: gradio.Request):
        visit = visits.of(request.session_hash)
        session = chosen(visit, temperature, top_k, top_p, max_new_tokens)
        steps = session.retry()
        updates = drawn(answered(visit, steps, session.messages[:-2], session.messages[-2]["content"]))
        yield from ((text, *rest) for _, *rest in updates)  # what is being typed stays

    def undo(text, request: gradio.Request):
        session = visits.of(request.session_hash).session
        question = session.undo()
        yield text or question, talk_html(session.messages), EMPTY, ""

    def forget(request: gradio.Request):
        visits.of(request.session_hash).session.reset()
        yield talk_html([]), EMPTY, ""

    def stop(request: gradio.Request):
        visits.of(request.session_hash).stopped = True

    def leave(request: gradio.Request):
        visits.end(request.session_hash)

    with gradio.Blocks(title="tinygpt demo", analytics_enabled=False, fill_width=True) as page:
        name = escaped(printable(defaults.model or "this model"))
        size = f"; context {context} tokens" if context else ""
        gradio.HTML(f"<h1>{name}</h1><p>{about}{size}; nothing is sent elsewhere</p>", elem_id="head")
        with gradio.Row(equal_height=False):
            with gradio.Column(scale=6, min_width=380):
                talk = gradio.HTML(talk_html([]), elem_id="talk")
                with gradio.Row(equal_height=True):
                    box = gradio.Textbox(
                        show_label=False,
                        placeholder="Write something; Shift-Enter begins a new line",
                        lines=1,
                        max_lines=6,
                        scale=8,
                        autofocus=True,
                        elem_id="box",
                    )
                    send = gradio.Button("Send", variant="primary", scale=1, min_width=80, elem_id="send")
                    halt = gradio.Button("Stop", variant="secondary", scale=1, min_width=80, elem_id="stop")
                with gradio.Row():
                    again = gradio.Button("Another answer", size="sm", elem_id="again")
                    back = gradio.Button("Take back", size="sm", elem_id="back")
                    clear = gradio.Button("Begin anew", size="sm", elem_id="clear")
                status = gradio.HTML("", elem_id="status")
            with gradio.Column(scale=5, min_width=380):
                with gradio.Row():
                    temperature = gradio.Slider(
                        0, 2, defaults.temperature, step=0.05, label="temperature", min_width=140
                    )
                    tokens = gradio.Slider(
                        1, longest, min(defaults.max_new_tokens, longest), step=1, label="max_new_tokens", min_width=140
                    )
                with gradio.Row():
                    top_k = gradio.Slider(0, 200, defaults.top_k, step=1, label="top_k (0: all)", min_width=140)
                    top_p = gradio.Slider(0.05, 1, defaults.top_p, step=0.05, label="top_p (1: all)", min_width=140)
                panel = gradio.HTML(EMPTY, elem_id="panel")

        inputs, outputs = [box, temperature, top_k, top_p, tokens], [box, talk, panel, status]
        model = {
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        gradio.on([box.submit, send.click], at_once(ask), inputs, outputs, **model)
        again.click(at_once(retry), inputs, outputs, **model)
        back.click(at_once(undo), [box], outputs, **model)
        clear.click(at_once(forget), None, [talk, panel, status], **model)
        halt.click(stop, None, None, **quick)
        page.unload(leave)
    return page
