"""The page asks for the token of a server that expects one."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from server.page.conftest import HANG_MILLISECONDS

TOKEN = "a token/with & signs"


@pytest.fixture(scope="module")
def guarded_url(start_server) -> str:
    """The address of a server that expects a token."""
    return start_server(token=TOKEN).url


@pytest.fixture
def stranger(browser, guarded_url):
    """A page of a browser that never saw the server."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(HANG_MILLISECONDS)
    yield page
    context.close()


def expect_engine(page: Page) -> None:
    page.locator("#engine", has_text="OpenVINO").wait_for(state="attached")


def test_the_page_asks_until_the_token_is_right_and_keeps_the_token_for_the_tab(stranger, guarded_url):
    stranger.goto(guarded_url)
    dialog = stranger.locator("#token")
    expect(dialog).to_be_visible()
    stranger.locator("#token-text").fill("wrong")
    stranger.locator("#token button").click()
    expect(dialog).to_be_visible()
    expect(stranger.locator("#token-text")).to_have_value("")  # the dialog is a new one
    stranger.locator("#token-text").fill(TOKEN)
    stranger.keyboard.press("Enter")
    expect_engine(stranger)
    expect(dialog).to_be_hidden()
    stranger.reload()
    expect_engine(stranger)
    expect(dialog).to_be_hidden()


def test_a_token_behind_the_address_is_used_and_leaves_the_address(stranger, guarded_url):
    stranger.goto(f"{guarded_url}#token=a%20token%2Fwith%20%26%20signs")
    expect_engine(stranger)
    expect(stranger.locator("#token")).to_be_hidden()
    assert "token" not in stranger.url
