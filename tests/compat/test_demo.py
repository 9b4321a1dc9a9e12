"""`tinygpt demo` with Gradio, in an environment of its own, looked at through headless Chromium.

Run by `make compat-test`. The environment takes a minute and 1.2 GB the first time. The pictures lie in TINYGPT_PICTURES
where that names a folder.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import talker
import torch
from browser import browser_program, opened
from conftest import ROOT, made_environment

from tinygpt_hf import TinyGPTConfig, TinyGPTForCausalLM
from tinygpt_hf.inference.session import Session
from tinygpt_hf.settings.inference import ChatArguments

pytestmark = [pytest.mark.compat, pytest.mark.timeout(900)]

PACKAGES = [
    "gradio==6.31.0",
    "torch==2.13.0",
    "transformers==5.23.0",
    "huggingface_hub==2.4.0",
    "tokenizers==0.23.3",
    "psutil==7.2.2",
]
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>{{7*7}} ${7*7} **b** `c` &lt;"
)
SEED, NEW_TOKENS = 3, 48


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(folder, model, tokenizer) of one that has learned to say what a page must not obey."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(talker, "ANSWERS", talker.ANSWERS | {"Attack!": HOSTILE})
        patch.setattr(talker, "CONTEXT", 256)
        folder = tmp_path_factory.mktemp("hostile")
        return (folder, *talker.train_talker(folder))


@contextlib.contextmanager
def running(folder):
    """The address of a demo of this model."""
    if not browser_program():
        pytest.skip("no chromium is installed")
    python = made_environment("gradio", PACKAGES)
    dropped = ("VIRTUAL_ENV", "GRADIO_ANALYTICS_ENABLED")
    variables = {name: value for name, value in os.environ.items() if name not in dropped}
    variables |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [python, "-m", "tinygpt_hf.cli", "demo", str(folder), "--port", "0", "--seed", str(SEED)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, env=variables, **streams)
    try:
        line = process.stdout.readline()
        address = re.search(r" is at (http://127\.0\.0\.1:\d+) until Ctrl-C", line)
        assert address, line
        yield address[1]
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=60)[0]
        assert (process.returncode, rest) == (143, "stopped by SIGTERM\n")  # no address to share, no advice
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def address(model):
    with running(model[0]) as address:
        yield address


@pytest.fixture
def picture(tmp_path):
    folder = Path(os.environ.get("TINYGPT_PICTURES") or tmp_path)
    return lambda name: folder / f"demo-{name}.png"


async def ask(page, text: str) -> None:
    await page.type("#box textarea", text)
    before = await page.value("document.querySelectorAll('#talk .said').length")
    await page.press("#send")
    await page.until(f"document.querySelectorAll('#talk .said').length == {before + 2}")
    await page.until("/tokens\\/s/.test(document.querySelector('#status').innerText)")


def test_a_conversation_in_the_browser_is_the_sessions(address, model, picture):
    said = Session(*model[1:], ChatArguments(seed=SEED))
    questions = ["Hello!", "Who are you?", "Where is the ball?"]

    def answer(steps) -> str:
        return "".join(step.text for step in steps)

    async def visit():
        async with opened(address) as page:
            await page.until("!!document.querySelector('#box textarea')")
            await picture_of(page, "empty")
            for question in questions:
                await ask(page, question)
                assert (await page.text("#talk .said:last-child")).strip() == answer(said.ask(question)).strip()
            rows = await page.value("document.querySelectorAll('#panel tr').length")
            assert rows == 1 + len(said.steps)
            shown = await page.text("#panel table")
            for step in said.steps:
                assert f"{step.probability:.1%}" in shown and f"{step.model_probability:.1%}" in shown
                assert all(f"{c.model_probability:.1%}" in shown for c in step.candidates)
            await picture_of(page, "talk")
            status = await page.text("#status")  # until the answer is whole the other buttons do nothing
            await page.press("#again")
            await page.until(f"document.querySelector('#status').innerText != {status!r}")
            await page.until("/tokens\\/s/.test(document.querySelector('#status').innerText)")
            again = answer(said.retry()).strip()
            await page.until(f"document.querySelector('#talk .said:last-child').innerText.trim() == {again!r}")
            await page.press("#back")
            await page.until("document.querySelectorAll('#talk .said').length == 4")
            assert await page.value("document.querySelector('#box textarea').value") == questions[-1]
            await page.press("#clear")
            await page.until("document.querySelectorAll('#talk .said').length == 0")
            elsewhere = [url for url in page.requests if not url.startswith((address, "data:", "blob:"))]
            assert (elsewhere, page.faults) == ([], [])

    async def picture_of(page, name):
        await page.picture(picture(name))
        assert picture(name).stat().st_size > 20_000  # something is drawn

    asyncio.run(visit())


def test_nothing_a_model_or_a_visitor_writes_is_interpreted(address, model, picture):
    async def visit():
        async with opened(address) as page:
            await ask(page, "Attack!")
            assert HOSTILE.split("{{")[0] in await page.text("#talk .assistant")
            await ask(page, HOSTILE)
            assert (await page.text("#talk .user:nth-last-child(2)")).strip() == HOSTILE
            await page.picture(picture("hostile"))
            for selector in ("#talk", "#panel"):
                for tag in ("img", "script", "strong", "a", "code"):
                    assert await page.value(f"document.querySelectorAll('{selector} {tag}').length") == 0, tag
            assert "{{7*7}} ${7*7}" in await page.text("#talk .user:nth-last-child(2)")
            assert await page.value("document.title") == "tinygpt demo"
            assert not [url for url in page.requests if url.endswith("/x")]

    asyncio.run(visit())


def test_a_mistake_is_a_message(address):
    async def visit():
        async with opened(address) as page:
            await page.type("#box textarea", "word " * 400)
            await page.press("#send")
            await page.until('document.body.innerText.includes("the model\'s context of 256")')
            assert await page.value("document.querySelectorAll('#talk .said').length") == 0

    asyncio.run(visit())


def test_stop_ends_an_answer(model, tmp_path):
    """Of a model that talks slowly and does not know when to end."""
    torch.manual_seed(0)
    tokenizer = model[2]
    shape = {"hidden_size": 640, "num_hidden_layers": 12, "num_attention_heads": 10, "max_position_embeddings": 1024}
    TinyGPTForCausalLM(TinyGPTConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    async def visit(address):
        async with opened(address) as page:
            await page.type("#box textarea", "Hello!")
            await page.press("#send")
            await page.until("document.querySelector('#status').innerText.endsWith(' tokens')")
            await page.press("#stop")
            await page.until("document.querySelector('#status').innerText.endsWith('; stopped')")
            count = int((await page.text("#status")).split()[0])
            assert count == await page.value("document.querySelectorAll('#panel tr').length") - 1 < 200

    with running(tmp_path) as address:
        asyncio.run(visit(address))
