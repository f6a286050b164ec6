"""A headless Chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NEEDS_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")


def browse(file, folder, *options):
    """What the browser made of the file."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        *options,
    ]
    done = subprocess.run([*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def probed(probe, page, folder, *options):
    """What a probe, an HTML text in which PAGE stands for the page's source, shows as JSON in its element "told"."""
    file = folder / "probe.html"
    file.write_text(probe.replace("PAGE", json.dumps(page).replace("<", "\\u003c"), 1))
    shown = browse(file, folder / "profile", *options, "--window-size=1400,1000")
    return json.loads(html.unescape(re.search('<pre id="told">(.+?)</pre>', shown)[1]))
