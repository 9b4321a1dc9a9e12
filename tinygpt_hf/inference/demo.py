"""Run a chat page in the browser that shows the alternatives of each token (`tinygpt demo`).

    demo(DemoArguments("runs/quickstart"), lambda address, name, chats: print(address))

The page is built with Gradio. It contacts no other machine, sends no analytics and is never shared. Text of the model
and of visitors is escaped: no HTML, Markdown or template in it is interpreted. (Gradio's own Chatbot would load an
`<img src=...>` that a model writes, even with Markdown off.) Each open page has its own session; one answer is generated
at a time.
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
from pathlib import Path
from types import SimpleNamespace

from tinygpt_hf.errors import UsageError, printable
from tinygpt_hf.inference.generation import FINISH, Step, context_length, quoted
from tinygpt_hf.inference.serving import interrupted_by_sigterm, listening_socket
from tinygpt_hf.inference.session import Session, knows_turns
from tinygpt_hf.inference.terminal import safe_text
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.settings.inference import ChatArguments, DemoArguments

MAX_SESSIONS = 64  # the least recently used session is removed first
PANEL_INTERVAL = 0.25  # seconds between updates of the panel while an answer is generated
BITS_AT_FULL_COLOR = 8.0

EMPTY = "<p class='quiet'>Ask something: every token of the answer appears here, with its alternatives.</p>"
# Gradio's HTML components are templates, so these are escaped as well.
_TEMPLATE_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`"}
CSS = Path(__file__).with_name("demo.css")


def demo(arguments: DemoArguments, started: Callable[[str, str, bool], None]) -> None:
    """Serve the page until Ctrl-C (`KeyboardInterrupt`) or SIGTERM (`Interrupted`).

    Calls `started(address, name, chats)` once a browser can connect; `chats` is False for a base model.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it on import
    try:
        import gradio
    except ImportError:
        raise UsageError("gradio is not installed", "the demo extra", "run pip install 'tinygpt_hf[demo]'") from None
    with contextlib.closing(listening_socket(arguments.host, arguments.port)) as listener:
        host, port = listener.getsockname()[:2]  # the port is free; Gradio opens its own socket
    with interrupted_by_sigterm():
        model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
        chats = knows_turns(arguments.model, tokenizer)
        page = build_page(
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
                css=CSS.read_text(encoding="utf-8"),
                theme=gradio.themes.Default(  # the default theme would download Google's fonts
                    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
                ),
            )
            started(f"http://{f'[{host}]' if ':' in host else host}:{port}", arguments.model, chats)
            threading.Event().wait()
        finally:
            page.close(verbose=False)


@dataclass
class PageSession:
    """The session of one page open in a browser."""

    session: Session
    stopped: bool = False  # the answer in progress ends after its next token

    def prepare(self, temperature: float, top_k: float, top_p: float, max_new_tokens: float) -> Session:
        """Set the sliders' values and return the session, ready for a question."""
        self.stopped = False
        self.session.arguments = replace(
            self.session.arguments,
            temperature=float(temperature),
            top_k=int(top_k),
            top_p=float(top_p),
            max_new_tokens=int(max_new_tokens),
        )
        return self.session


class PageSessions:
    """The sessions of the open pages, by Gradio's session hash."""

    def __init__(self, new_session: Callable[[], Session]):
        self._new_session, self._lock = new_session, threading.Lock()
        self._open: OrderedDict[str, PageSession] = OrderedDict()

    def get(self, key: str) -> PageSession:
        """Return the session with this key, creating it if needed."""
        with self._lock:
            if key not in self._open:
                self._open[key] = PageSession(self._new_session())
                while len(self._open) > MAX_SESSIONS:
                    self._open.popitem(last=False)
            self._open.move_to_end(key)
            return self._open[key]

    def end(self, key: str) -> None:
        """Remove the session of a closed page and stop its answer."""
        with self._lock:
            if key in self._open:
                self._open.pop(key).stopped = True


def stream_answer(
    page_session: PageSession, steps: Generator[Step], before: list[dict], text: str
) -> Iterator[tuple[str, str | None, str]]:
    """Yield (conversation HTML, panel HTML or None if unchanged, status) for each token of an answer."""
    history = [*before, {"role": "user", "content": text}]
    taken: list[Step] = []
    began = drawn = time.perf_counter()
    with contextlib.closing(steps):
        for step in steps:
            taken.append(step)
            answer = {"role": "assistant", "content": "".join(each.text for each in taken)}
            panel, now = None, time.perf_counter()
            if now - drawn >= PANEL_INTERVAL:
                panel, drawn = panel_html(taken), now
            yield conversation_html([*history, answer]), panel, token_count(len(taken))
            if page_session.stopped:
                break
    seconds = max(time.perf_counter() - began, 1e-9)
    status = f"{token_count(len(taken))}, {len(taken) / seconds:.1f} tokens/s"
    if taken and taken[-1].finish in ("length", "context"):
        status += f"; the answer ends here: {FINISH[taken[-1].finish]}"
    elif page_session.stopped:
        status += "; stopped"
    if page_session.session.chats and page_session.session.dropped:
        status += "; the context is full: the oldest turns no longer reach the model"
    yield conversation_html(page_session.session.messages), panel_html(taken), status


def conversation_html(messages: list[dict]) -> str:
    """Render the conversation as HTML, a bubble per message."""
    if not messages:
        return "<p class='quiet'>Write below to begin.</p>"
    bubbles = [f"<div class='said {m['role']}'>{escaped(m['content'])}</div>" for m in messages]
    return f"<div class='turns' role='log' aria-live='polite'>{''.join(bubbles)}</div>"


def panel_html(steps: list[Step]) -> str:
    """Render the side panel: the answer colored by surprisal, then a table with a row per token.

    A row shows the token's probability after and before temperature and filters, and the likeliest other tokens.
    """
    if not steps:
        return EMPTY
    mean = sum(step.surprise for step in steps) / len(steps)
    spans = [
        f"<span style='--s:{min(step.surprise / BITS_AT_FULL_COLOR, 1):.3f}' "
        f"title='{step.surprise:.2f} bits of surprisal'>{escaped(step.text)}</span>"
        for step in steps
        if step.text
    ]
    return (
        f"<p class='quiet'>{token_count(len(steps))}, {mean:.2f} bits of surprisal each on average; the stronger color and "
        f"line, the more surprising.</p><div class='text'>{''.join(spans)}</div><table><colgroup><col style='width:24%'>"
        "<col style='width:15%'><col style='width:15%'><col></colgroup><tr><th>token</th><th>drawn with</th>"
        f"<th>model alone</th><th>other likely tokens</th></tr>{''.join(map(_row, steps))}</table>"
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


def token_count(tokens: int) -> str:
    return f"{tokens} {'token' if tokens == 1 else 'tokens'}"


def escaped(text: str) -> str:
    """Escape text for HTML, both between tags and in attributes, and for Gradio's templates."""
    return html.escape(safe_text(text)).translate(_TEMPLATE_SIGNS)


def _show_usage_errors(gradio, handler):
    """Wrap an event handler so that a `UsageError` becomes a message on the page."""

    @functools.wraps(handler)  # Gradio reads the signature to decide whether to pass the request
    def guarded(*values):
        try:
            yield from handler(*values)
        except UsageError as error:
            raise gradio.Error(escaped(str(error)), title="That cannot be done", print_exception=False) from None

    return guarded


def _layout(gradio, session: Session) -> SimpleNamespace:
    """Lay out the page inside an open `Blocks`, with the defaults of `session`; return its components by name."""
    defaults, context = session.arguments, context_length(session.model)
    longest = min(context or 1024, 1024)
    about = "A chat model"
    if not session.chats:
        about = "A base model, not trained on chat turns: it continues what you write"
    name = escaped(printable(defaults.model or "this model"))
    size = f"; context {context} tokens" if context else ""
    ui = SimpleNamespace()
    slider = functools.partial(gradio.Slider, min_width=140)
    button = functools.partial(gradio.Button, scale=1, min_width=80)
    gradio.HTML(f"<h1>{name}</h1><p>{about}{size}; nothing is sent elsewhere</p>", elem_id="head")
    with gradio.Row(equal_height=False):
        with gradio.Column(scale=6, min_width=380):
            ui.talk = gradio.HTML(conversation_html([]), elem_id="talk")
            with gradio.Row(equal_height=True):
                hint = "Write something; Shift-Enter begins a new line"
                ui.box = gradio.Textbox(
                    show_label=False, placeholder=hint, lines=1, max_lines=6, scale=8, autofocus=True, elem_id="box"
                )
                ui.send = button("Send", variant="primary", elem_id="send")
                ui.halt = button("Stop", variant="secondary", elem_id="stop")
            with gradio.Row():
                ui.again = gradio.Button("Retry", size="sm", elem_id="again")
                ui.back = gradio.Button("Undo", size="sm", elem_id="back")
                ui.clear = gradio.Button("Clear", size="sm", elem_id="clear")
            ui.status = gradio.HTML("", elem_id="status")
        with gradio.Column(scale=5, min_width=380):
            with gradio.Row():
                ui.temperature = slider(0, 2, defaults.temperature, step=0.05, label="temperature")
                most = min(defaults.max_new_tokens, longest)
                ui.tokens = slider(1, longest, most, step=1, label="max_new_tokens")
            with gradio.Row():
                ui.top_k = slider(0, 200, defaults.top_k, step=1, label="top_k (0: all)")
                ui.top_p = slider(0.05, 1, defaults.top_p, step=0.05, label="top_p (1: all)")
            ui.panel = gradio.HTML(EMPTY, elem_id="panel")
    return ui


def build_page(gradio, new_session: Callable[[], Session]):
    """Build the page as Gradio's `Blocks`, without a server."""
    pages = PageSessions(new_session)

    def updates(rows):
        for talk, panel, status in rows:
            yield "", talk, gradio.skip() if panel is None else panel, escaped(status)

    def ask(text, temperature, top_k, top_p, max_new_tokens, request: gradio.Request):
        page_session = pages.get(request.session_hash)
        session = page_session.prepare(temperature, top_k, top_p, max_new_tokens)
        if not text.strip():
            raise UsageError("the message is empty", "some text", "write something")
        steps = session.ask(text)
        yield from updates(stream_answer(page_session, steps, session.messages, text))

    def retry(text, temperature, top_k, top_p, max_new_tokens, request: gradio.Request):
        page_session = pages.get(request.session_hash)
        session = page_session.prepare(temperature, top_k, top_p, max_new_tokens)
        steps = session.retry()
        rows = updates(stream_answer(page_session, steps, session.messages[:-2], session.messages[-2]["content"]))
        yield from ((text, *rest) for _, *rest in rows)  # keep the text being typed

    def undo(text, request: gradio.Request):
        session = pages.get(request.session_hash).session
        question = session.undo()
        yield text or question, conversation_html(session.messages), EMPTY, ""

    def forget(request: gradio.Request):
        pages.get(request.session_hash).session.reset()
        yield conversation_html([]), EMPTY, ""

    def stop(request: gradio.Request):
        pages.get(request.session_hash).stopped = True

    def leave(request: gradio.Request):
        pages.end(request.session_hash)

    with gradio.Blocks(title="tinygpt demo", analytics_enabled=False, fill_width=True) as page:
        ui = _layout(gradio, new_session())
        guarded = functools.partial(_show_usage_errors, gradio)
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        model = {**quiet, "concurrency_id": "model", "concurrency_limit": 1}  # one answer at a time
        inputs = [ui.box, ui.temperature, ui.top_k, ui.top_p, ui.tokens]
        outputs = [ui.box, ui.talk, ui.panel, ui.status]
        gradio.on([ui.box.submit, ui.send.click], guarded(ask), inputs, outputs, **model)
        ui.again.click(guarded(retry), inputs, outputs, **model)
        ui.back.click(guarded(undo), [ui.box], outputs, **model)
        ui.clear.click(guarded(forget), None, [ui.talk, ui.panel, ui.status], **model)
        ui.halt.click(stop, None, None, queue=False, **quiet)
        page.unload(leave)
    return page
