"""A hostile chat template is one error within seconds; a valid one renders as in Transformers."""

import copy
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from tinygpt_hf.errors import UsageError
from tinygpt_hf.tokenizing import template_sandbox
from tinygpt_hf.tokenizing.chat_template import CHAT_TEMPLATE, chat_pieces, check_template, encode_chat

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi <|im_end|>"},
    {"role": "assistant", "content": "Hello\n\x02\x03"},
    {"role": "user", "content": "é四🙂"},
]
LLAMA = (
    "{{- bos_token -}}{%- for message in messages -%}{{- '<|start|>' + message['role'] + '<|end|>\n\n' -}}"
    "{{- message['content'] | trim + '<|eot|>' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start|>assistant<|end|>\n\n' -}}{%- endif -%}"
)
NAMESPACE = (
    "{%- set ns = namespace(found=false) -%}{%- for m in messages -%}{%- if m.role == 'assistant' -%}{%- set ns.found = true -%}"
    "{% generation %}{{ m.content }}{% endgeneration %}{%- else -%}[{{ m.role }}|{{ m.content }}]{%- endif -%}{%- endfor -%}"
    "{{ ns.found }}{{ dict(a=1)|tojson }}"
)


def allow(patch, seconds: float) -> None:
    """Set the time limit and make a new process start, since the limit is fixed at its start."""
    patch.setattr(template_sandbox, "SECONDS", seconds)
    patch.setattr(template_sandbox, "_process", None)


@pytest.fixture(autouse=True, scope="module")
def a_minute():
    """Set a limit that only endless templates reach; one process serves most tests."""
    with pytest.MonkeyPatch.context() as patch:
        allow(patch, 60)
        yield


@pytest.fixture
def tokenizer(tiny_tokenizer):
    foreign = copy.deepcopy(tiny_tokenizer)
    foreign.name_or_path = "someone/model"
    return foreign


def refusal(tokenizer, template: str) -> str:
    tokenizer.chat_template = template
    with pytest.raises(UsageError) as caught:
        encode_chat(tokenizer, TALK)
    line = str(caught.value)
    assert " (expected " in line and "\n" not in line and len(line) < 600
    return line


@pytest.mark.parametrize(
    "template", [LLAMA, NAMESPACE, CHAT_TEMPLATE + "{# mine #}"], ids=["llama", "namespace", "chatml"]
)
@pytest.mark.parametrize("prompt", [False, True])
def test_a_valid_template_renders_as_in_transformers(tokenizer, template, prompt):
    tokenizer.chat_template = template
    ours = "".join(piece for piece, _, _ in chat_pieces(tokenizer, TALK, prompt))
    assert ours == tokenizer.apply_chat_template(TALK, tokenize=False, add_generation_prompt=prompt)


def test_the_sandbox_yields_the_same_training_mask(tokenizer):
    expected = encode_chat(tokenizer, TALK)
    tokenizer.chat_template = CHAT_TEMPLATE + "{# mine #}"
    assert encode_chat(tokenizer, TALK) == expected


LONG = "ran longer than 0.5 s"
MEMORY = "needs more than 256 MB of memory"
ENDLESS = [
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endfor %}", LONG),
    ("{{ 9 ** (9 ** 9) }}", LONG),  # one instruction, evaluated when the template is compiled
    ("{{ 'a' * 10 ** 10 }}", MEMORY),
    ("{{ messages[0].role * 10 ** 10 }}", MEMORY),
    ("{{ '%0999999999d' % 1 }}", MEMORY),
    ("{{ 'a'|center(10 ** 9) }}", MEMORY),
    ("{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}", MEMORY),
    ("{{ lipsum(n=99999) }}", "(ran longer|needs more|writes more)"),
    ("{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}", "(writes more than 16777216 characters|needs more)"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself without end"),
    ("{{" + "(" * 10**5 + ")" * 10**5 + "}}", "nested"),
    ("{% if a %}" * 10**4, "(nested|refuses|crashed its process|Syntax)"),
    ("{{ " + "1+" * 10**5 + "1 }}", "(nested|crashed its process|ran longer)"),
    ("{% for i in range(99999) %}{{ messages[0].content }}{% endfor %}", "repeats the messages without end"),
    ("{% for i in range(9999) %}{% generation %}a{% endgeneration %}{% endfor %}", "repeats the messages"),
]  # fmt: skip


@pytest.mark.parametrize(("template", "words"), ENDLESS, ids=[t[:40] for t, _ in ENDLESS])
def test_time_memory_and_output_are_limited(tokenizer, template, words, monkeypatch):
    if "ran longer" in words:
        allow(monkeypatch, 0.5)
    assert re.search(words, refusal(tokenizer, template))


FORBIDDEN = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ (''|attr('__class__')).mro() }}",
    "{{ cycler.__init__.__globals__.os.system('id') }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{% import 'os' as os %}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{{ 1 / 0 }}",
    "{{ messages + 1 }}",
    "{{ 'a' | nofilter }}",
    "{{ strftime_now(5) }}",
    "{% set a = namespace(__class__=1) %}",
    "\ud800",
]


def test_forbidden_expressions_are_one_error(tokenizer):
    for template in FORBIDDEN:
        assert "the chat template refuses the conversation (" in refusal(tokenizer, template), template


def test_python_internals_render_as_nothing(tokenizer):
    for words in (
        "messages.__class__", "''['__class__']", "'{0.__class__}'.format(1)", "self._TemplateReference__context",
        "self.__dict__",
    ):  # fmt: skip
        tokenizer.chat_template = "{{ " + words + " }}{{ messages[0].content }}"
        assert chat_pieces(tokenizer, TALK[:1]) == [("Be kind.", False, True)], words


def test_a_template_that_changes_messages_is_an_error(tokenizer):
    for template in (
        "{{ messages[0].content | upper }}{{ messages[1].content[:-1] }}",
        "{{ messages[0].content[:-2] ~ '99\x03' }}",
        "{{ messages[0].content[:-2] ~ '9' * 5000 ~ '\x03' }}",
        "{{ messages[0].content | replace('0', '1') | reverse }}",
    ):
        assert "someone/model changes what the messages say" in refusal(tokenizer, template)


def test_check_template_renders_every_template_in_the_sandbox(tokenizer):
    for template in (None, CHAT_TEMPLATE, LLAMA, "{{ raise_exception('not these') }}", {"default": LLAMA}):
        tokenizer.chat_template = template
        check_template(tokenizer)
    tokenizer.chat_template = {"default": LLAMA, "tool_use": "{{ 'a' * 10 ** 10 }}"}
    with pytest.raises(UsageError, match=MEMORY):
        check_template(tokenizer)


def test_rendering_is_thread_safe_and_an_error_affects_one_conversation(tokenizer, monkeypatch):
    allow(monkeypatch, 2)  # the others need a few milliseconds
    answers = []

    def ask(template):
        mine = copy.deepcopy(tokenizer)
        mine.chat_template = template
        try:
            answers.append(encode_chat(mine, TALK))
        except UsageError as error:
            answers.append(str(error))

    threads = [
        threading.Thread(target=ask, args=(template,)) for template in [LLAMA, "{{ 9 ** (9 ** 9) }}", LLAMA, LLAMA]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and sum("ran longer than 2 s" in answer for answer in answers) == 1
    assert len({str(answer) for answer in answers}) == 2, "the next conversation is served"


def test_the_sandbox_inherits_no_files_and_ends_with_its_parent(tmp_path):
    program = (
        "import copy, fcntl, os, sys, time\n"
        "from tinygpt_hf.tokenizing import template_sandbox\n"
        f"file = open({str(tmp_path / 'lock')!r}, 'w'); os.set_inheritable(file.fileno(), True); fcntl.flock(file, fcntl.LOCK_EX)\n"
        "template_sandbox.render('{{ messages }}', [{'role': 'user', 'content': 'a'}], False, {}, False, '')\n"
        "print(template_sandbox._process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    ours = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pid = int(ours.stdout.readline())
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    import fcntl

    with open(tmp_path / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    end = time.monotonic() + 120
    while is_running(pid):
        assert time.monotonic() < end, "the process that renders outlived the one that asked"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
