"""Chat with a model in the terminal: read lines, stream the answers, run commands such as /retry and /save.

    chat(ChatArguments("runs/quickstart"))          # `tinygpt chat runs/quickstart`

session.py holds the conversation. The model's text is printed as it is, with terminal control characters replaced.
"""

import contextlib
import difflib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from tinygpt_hf.errors import RunError, UsageError, printable, redacted
from tinygpt_hf.inference.generation import (
    FINISH,
    Step,
    check_prompt,
    context_length,
    read_sampling,
    step_table,
    steps_table,
)
from tinygpt_hf.inference.session import SETTABLE, Session, exchanges, knows_turns
from tinygpt_hf.inference.terminal import NOTE, Explainer, fitted, safe_text, takes_color
from tinygpt_hf.model.loading import load_model
from tinygpt_hf.reading.turns import message_texts
from tinygpt_hf.settings.inference import ChatArguments

HELP = """\
/help             this list
/reset            forget the conversation and start over
/system TEXT      open the conversation with another system message; /system "" with none
/set NAME VALUE   change a setting; /set alone shows them all
/show             the settings, the context used and the conversation so far
/top [N]          each token of the last answer, its surprisal and the likeliest others; details of token N
/retry            another answer to the last question
/undo             remove the last question and its answer
/save FILE        write the conversation as a line of JSON, as --train_file reads it
/load FILE        continue a conversation that /save wrote
/exit             leave; so do exit, quit and the end of input
Ctrl-C stops an answer, a second Ctrl-C leaves. A line that begins with // is sent with one /."""
EDITING = "Tab completes a command, the arrow keys recall earlier lines, Alt-Enter begins a new line."
EXIT_WORDS = ("exit", "quit", "/exit", "/quit")
NO_ARGUMENT = ("/help", "/reset", "/show", "/retry", "/undo", "/exit", "/quit")  # commands without one


def chat(
    arguments: ChatArguments, stdin: TextIO | None = None, stdout: TextIO | None = None, stderr: TextIO | None = None
) -> int:
    """Run `tinygpt chat`: answer one --prompt, the lines of standard input, or a conversation. Returns the exit status.

    Only the answers go to standard output; all notes go to standard error.
    """
    stdin, stdout, stderr = stdin or sys.stdin, stdout or sys.stdout, stderr or sys.stderr
    read_sampling(arguments)
    if arguments.prompt is not None:
        if not arguments.prompt.strip():
            raise UsageError("the prompt is empty", "a message", "give --prompt some text, or leave it out")
        check_prompt(arguments.prompt)
    if arguments.model is None:
        arguments = replace(arguments, model=newest_run(Path("runs")))
        print(f"[the newest finished run: {printable(arguments.model)}]", file=stderr, flush=True)
    model, tokenizer = load_model(arguments.model, arguments.device, arguments.dtype)
    session = Session(model, tokenizer, arguments, chats=knows_turns(arguments.model, tokenizer))
    interactive = arguments.prompt is None and stdin.isatty() and stdout.isatty()
    terminal = Conversation(session, stdin, stdout, stderr, interactive)
    if arguments.prompt is not None:
        terminal.describe_model()
        terminal.answer(arguments.prompt)
        return 0
    return terminal.run()


def newest_run(runs: Path) -> str:
    """Return the run folder below `runs` that finished last, according to its run.json."""
    finished = []
    for facts in (*runs.glob("*/run.json"), *runs.glob("*/*/run.json")):  # runs of a sweep are one level deeper
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads(facts.read_text(encoding="utf-8")).get("finished"):
                finished.append((facts.stat().st_mtime, str(facts.parent)))
    if not finished:
        raise UsageError(
            f"no MODEL is given, and there is no finished run below {runs}/",
            "a model folder or Hub id",
            "name one, or make one with tinygpt quickstart",
        )
    return max(finished)[1]


class Conversation:
    """A chat session on a terminal, or over the lines of standard input."""

    def __init__(self, session: Session, stdin: TextIO, stdout: TextIO, stderr: TextIO, interactive: bool):
        self.session, self.interactive = session, interactive
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._color = takes_color(stderr)
        self._commands = {
            f"/{name}": getattr(self, f"_{name}")
            for name in ("help", "reset", "system", "set", "show", "top", "retry", "undo", "save", "load")
        }
        can_edit = interactive and stdin is sys.stdin and stdout is sys.stdout
        self._editor = _line_editor([*self._commands, "/exit"]) if can_edit else None

    def run(self) -> int:
        """Read and answer lines until `exit` or the end of input. Returns the exit status, 130 after a second Ctrl-C."""
        self.describe_model()
        interrupted, has_input = False, False
        while True:
            try:
                line = self._read()
                interrupted = False
                if line is None or line.strip() in EXIT_WORDS:
                    break
                if not line.strip():
                    continue
                has_input = True
                if line.startswith("/") and not line.startswith("//"):
                    self._command(line)
                else:
                    self.answer(line[1:] if line.startswith("//") else line)
            except (UsageError, RunError) as error:
                if not self.interactive:
                    raise
                self._note(f"error: {error}")
            except KeyboardInterrupt:
                if not self.interactive or interrupted:
                    self._note("")
                    return 130
                interrupted = True
                self._note("\n[stopped; Ctrl-C again leaves]")
        if not has_input and not self.interactive:
            raise UsageError("standard input is empty", "a message on a line", "or give --prompt")
        return 0

    def describe_model(self) -> None:
        """Print a line about the model; without a terminal only if it is a base model."""
        name = self.session.arguments.model or "this model"
        if not self.session.chats:
            self._note(f"[{name} is a base model without a chat turn in its training: it continues what you write]")
        if self.session.arguments.explain:
            self._note(f"[{NOTE}]")
        if self.session.chats and self.interactive:
            context = context_length(self.session.model)
            self._note(f"[{name}{f', context {context} tokens' if context else ''}; /help lists the commands]")

    def answer(self, text: str) -> None:
        """Stream the answer to one message, then notes about it."""
        self._show_answer(self.session.ask(text), "" if self.session.chats else text)

    def _show_answer(self, steps: Generator[Step], shown: str) -> None:
        if self.session.chats and self.session.dropped:
            self._note(f"[the context is full: {self._forgotten_turns()}]")
        self._write(shown)
        started, count, finish = time.perf_counter(), 0, None
        explainer = Explainer(takes_color(self._stdout)) if self.session.arguments.explain else None
        with contextlib.closing(steps):
            for step in steps:
                count, finish = count + 1, step.finish
                shown = step.text or shown
                if explainer:
                    _put(self._stdout, explainer.add(step.text, step.bits))
                else:
                    self._write(step.text)
        seconds = max(time.perf_counter() - started, 1e-9)
        if not shown.endswith("\n"):
            self._write("\n")
        if finish in ("length", "context"):
            self._note(f"[the answer ends here: {FINISH[finish]}]")
        if self.interactive:
            self._note(f"[{count} tokens, {count / seconds:.1f} tokens/s]")

    def _command(self, line: str) -> None:
        word, *rest = line.strip().split(maxsplit=1)
        if rest and word in NO_ARGUMENT:
            raise UsageError(f"{word} is given {rest[0]}", "no argument", f"write {word} alone")
        if word not in self._commands:
            near = difflib.get_close_matches(word, [*self._commands, "/exit"], 1)
            raise UsageError(
                f"there is no command {word}",
                "a command of /help, or // before a line that begins with /",
                f"did you mean {near[0]}?" if near else "see /help",
            )
        self._commands[word](rest[0] if rest else "")

    def _help(self, rest: str) -> None:
        self._note(f"{HELP}\n{EDITING}" if self._editor not in (None, input) else HELP)

    def _reset(self, rest: str) -> None:
        self.session.reset()
        self._note("[the conversation starts over]")

    def _system(self, rest: str) -> None:
        if rest:
            self.session.set_system("" if rest in ('""', "''") else rest)
        self._note(f"system: {self.session.arguments.system or '(none)'}")

    def _set(self, rest: str) -> None:
        try:
            words = shlex.split(rest)
        except ValueError:
            raise UsageError(f"/set {rest} has an open quote", "NAME VALUE", "close the quotes") from None
        if words:
            self.session.set(words[0], words[1:])
        for name in words[:1] or SETTABLE:
            self._note(f"{name} {getattr(self.session.arguments, name)}")

    def _show(self, rest: str) -> None:
        session, context = self.session, context_length(self.session.model)
        self._note(", ".join(f"{name} {getattr(session.arguments, name)}" for name in SETTABLE))
        if session.chats:
            bound = f" of {context}" if context else ""
            missing = f"; {self._forgotten_turns()}" if session.forgotten else ""
            self._note(f"context: {session.tokens_used()}{bound} tokens used{missing}")
        else:
            self._note("context: each line alone; a base model does not see earlier lines")
        for message in [*session.system, *session.messages]:
            self._note(f"{message['role']}: " + "\n".join(filter(None, message_texts(message))))

    def _top(self, rest: str) -> None:
        steps = self.session.steps
        if not steps:
            raise UsageError("there is no answer to look at", "an answer made here", "ask something")
        if rest:
            is_number = rest.isascii() and rest.isdigit() and len(rest) < 9
            if not is_number or not 1 <= int(rest) <= len(steps):
                raise UsageError(f"/top is given {rest}", f"a token of the answer, 1 to {len(steps)}", "try /top alone")
            return self._note(step_table(int(rest), steps[int(rest) - 1]).rstrip("\n"))
        self._note(steps_table(steps, self._columns))
        mean = sum(step.bits for step in steps) / len(steps)
        self._note(f"[{len(steps)} tokens, {mean:.2f} bits of surprisal each on average; /top N shows token N]")

    def _retry(self, rest: str) -> None:
        steps = self.session.retry()
        if self.session.arguments.temperature == 0:
            self._note("[at temperature 0 there is only one answer; /set temperature 0.7 makes others]")
        self._show_answer(steps, "" if self.session.chats else self.session.messages[-2]["content"])

    def _undo(self, rest: str) -> None:
        self._note(f"[removed: {self.session.undo()}]")

    def _save(self, rest: str) -> None:
        path = self._file("/save", rest)
        try:
            self.session.save(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror})", "a new file", "try another") from None
        self._note(f"[saved to {path}]")

    def _load(self, rest: str) -> None:
        path = self._file("/load", rest)
        self.session.load(path)
        turns = len(exchanges(self.session.messages))
        self._note(f"[{path}: {turns} {'turn' if turns == 1 else 'turns'}; /show shows them]")

    def _file(self, command: str, rest: str) -> Path:
        if not rest:
            raise UsageError(f"{command} names no file", "a file", f"try {command} talk.jsonl")
        return Path(os.path.expanduser(rest))  # an unknown ~user stays as it is

    def _forgotten_turns(self) -> str:
        turns = len(exchanges(self.session.messages[: self.session.forgotten]))
        return f"the oldest {turns} {'turn' if turns == 1 else 'turns'} no longer reach the model"

    def _read(self) -> str | None:
        """Return the next message without its newline, or None at the end of input."""
        if self._editor:
            try:
                # \1 and \2 tell readline that the color codes between them take no columns
                return self._editor("\1\x1b[1;32m\2> \1\x1b[0m\2" if self._editor is input and self._color else "> ")
            except EOFError:
                self._note("")  # so that the shell's prompt begins on a new line
                return None
            except UnicodeDecodeError:
                raise self._not_utf8() from None
        if self.interactive:
            self._write("> ")
        binary = getattr(self._stdin, "buffer", None)
        try:
            # -sig: PowerShell's pipes begin with a byte order mark
            line = binary.readline().decode("utf-8-sig") if binary else self._stdin.readline()
        except UnicodeDecodeError:
            raise self._not_utf8() from None
        return line.rstrip("\r\n") if line else None

    def _not_utf8(self) -> UsageError:
        return UsageError("a line of standard input is no UTF-8", "text", "check the encoding")

    def _write(self, text: str) -> None:
        # only a terminal needs the filter; a script reads the plain text
        _put(self._stdout, safe_text(text) if self._stdout.isatty() else text)

    @property
    def _columns(self) -> int | None:
        """Number of columns of the terminal, or None without one."""
        return shutil.get_terminal_size().columns if self.interactive and self._stderr.isatty() else None

    def _note(self, text: str) -> None:
        self._stdout.flush()
        text = safe_text(redacted(text))
        if columns := self._columns:
            text = "\n".join(fitted(line, columns) for line in text.split("\n"))
        _put(self._stderr, (f"\x1b[2m{text}\x1b[0m" if self._color and text else text) + "\n")


def _put(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _line_editor(commands: list[str]):
    """Return a function that shows a prompt and reads an edited line, with a history kept in memory.

    Uses prompt_toolkit if it is installed, which allows several lines, else `input()` with readline if available.
    """
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.key_binding import KeyBindings
        from prompt_toolkit.shortcuts import CompleteStyle
        from prompt_toolkit.styles import Style
    except ImportError:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - makes input() editable
        return input
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _new_line(event):
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=InMemoryHistory(),
        completer=WordCompleter(commands, sentence=True),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        key_bindings=keys,
        prompt_continuation="  ",
        style=Style.from_dict({"": "bold", "prompt": "ansigreen"}),  # typed text is bold, notes are dim
    ).prompt
