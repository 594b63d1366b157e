# SPDX-License-Identifier: Apache-2.0
"""The tool of the Model Context Protocol: what it offers and refuses. It needs the extra `mcp`."""

import ast
import asyncio
import base64

import pytest
from app_server import MODELS, start, stop
from places import ROOT

pytest.importorskip("gradio")
mcp = pytest.importorskip("mcp")

PHOTO = ROOT / "examples" / "pictures" / "rocket_blurred.jpg"


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    server = start(tmp_path_factory.mktemp("mcp"), "-m", MODELS[0], "--mcp")
    yield server
    stop(server)


def talk(server, *calls):
    """Return the tools of a server, and its answers to calls with some arguments."""
    from mcp.client.streamable_http import streamable_http_client

    async def run():
        async with streamable_http_client(f"{server.url}/gradio_api/mcp/") as (read, write, _):
            async with mcp.ClientSession(read, write) as session:
                await session.initialize()
                tools = (await session.list_tools()).tools
                return tools, [await session.call_tool(tools[0].name, words) for words in calls]

    return asyncio.run(run())


def test_one_tool_scores_a_picture(tool):
    content = f"data:image/jpeg;base64,{base64.b64encode(PHOTO.read_bytes()).decode()}"
    tools, (answer,) = talk(tool, {"picture": content})
    assert len(tools) == 1 and tools[0].name.endswith("score") and "quality of a photograph" in tools[0].description
    row = ast.literal_eval(answer.content[0].text)
    assert row["score"] == pytest.approx(45.0, abs=0.1) and row["signature"].startswith(f"{MODELS[0]}|")
    assert not answer.isError


def test_files_of_the_server_and_its_own_addresses_are_refused(tool):
    pictures = (
        str(PHOTO),
        "/etc/passwd",
        "file:///etc/passwd",
        f"{tool.url}/healthz",
        "http://localhost:1/a.jpg",
        "http://[::1]/a.jpg",
        "http://169.254.169.254/a.jpg",
        "http://10.0.0.1/a.jpg",
    )
    _, answers = talk(tool, *({"picture": picture} for picture in pictures))
    for picture, answer in zip(pictures, answers, strict=True):
        assert answer.isError and "signature" not in str(answer.content), (picture, answer)
    assert "not a picture that can be fetched" in str(answers[3].content)
