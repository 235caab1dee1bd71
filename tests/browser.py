"""A student's path in a real browser: `make test-browser`, which needs Chromium or Chrome, and no driver for it.

Notebook 01 is opened in JupyterLab and run from the menu, with clicks that land only on what is on top. Then each page
below reports/, or below the folders and files that R1REPRO_SITES names (apart by colons), is read on a desktop and on a
phone. What is asked of a notebook or a page is a function that returns the list of its faults, so each is tried here
on wrong versions, too. If R1REPRO_SCREENSHOTS names a folder, what was seen is kept there.

The browser is steered by its own DevTools protocol, over the web socket package that JupyterLab brings along anyway:
Playwright would add 54 MB to each student's download, Selenium 13 MB and a driver of the browser's very version.
"""

import base64
import itertools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import websocket

TOP = next(p for p in Path(__file__).resolve().parents if (p / "pyproject.toml").exists())
SITES = [Path(name).resolve() for name in os.environ.get("R1REPRO_SITES", "").split(":") if name] or [TOP / "reports"]
PAGES = [page for site in SITES for page in (sorted(site.rglob("*.html")) if site.is_dir() else [site])]
SCREENS = {"desktop": (1280, 900, 1, False), "phone": (390, 844, 2, True)}
"""Width and height in CSS pixels, device pixels in one of these, and whether it is a phone, with touch."""

NOTEBOOK = "01_grpo.ipynb"
RUN_S = 300
"""Longest time for a notebook that takes 20 seconds on a quiet machine."""
SMALLEST_PX = 12
"""Smallest size of a font on a page."""


# --- the browser


class Tab:
    """A tab of the browser; `events` is what it has reported unasked."""

    def __init__(self, address):
        self.socket = websocket.create_connection(
            address, timeout=60, suppress_origin=True, http_no_proxy=["127.0.0.1"]
        )
        self.numbers, self.events = itertools.count(1), []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.screen(*SCREENS["desktop"])

    def call(self, method, **parameters):
        """What the browser answers to a command of the protocol."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def screen(self, width, height, density, phone):
        size = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def open(self, url):
        """Go to an address, forget what was reported before, and wait for scripts and pictures."""
        self.events.clear()
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer}"
        self.until("() => document.readyState === 'complete'")

    def js(self, function, *arguments):
        """What a function of JavaScript returns or resolves to."""
        call = f"({function})({', '.join(map(json.dumps, arguments))})"
        answer = self.call("Runtime.evaluate", expression=call, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{call}: {answer['exceptionDetails']}"
        return answer["result"].get("value")

    def until(self, function, *arguments, seconds=60):
        """Wait until a function of JavaScript returns something true, and return that."""
        end = time.monotonic() + seconds
        while not (value := self.js(function, *arguments)):
            if time.monotonic() > end:
                self.shot("in-vain")
                raise AssertionError(f"not true within {seconds} seconds: ({function}){arguments}")
            time.sleep(0.2)
        return value

    def click(self, selector, label="", times=1):
        """Click on the element with that text, once it holds still and nothing covers it."""
        before, place = None, self.until(PLACE, selector, label)
        while place != before:
            time.sleep(0.1)
            before, place = place, self.until(PLACE, selector, label)
        where = {"x": place[0], "y": place[1]}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **where)
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=count, **where)

    def press(self, key):
        """Press a key and let it go."""
        code = {"ArrowRight": 39}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def shot(self, name, *, whole=False):
        """Keep a picture of what is seen, or of the whole page down to 16,000 device pixels."""
        if not (folder := os.environ.get("R1REPRO_SCREENSHOTS")):
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        how = {}
        if whole:
            width, height, density = self.js(
                "() => [innerWidth, document.documentElement.scrollHeight, devicePixelRatio]"
            )
            clip = {"x": 0, "y": 0, "width": width, "height": min(height, 16_000 // density), "scale": 1}
            how = {"captureBeyondViewport": True, "clip": clip}
        picture = self.call("Page.captureScreenshot", format="png", **how)["data"]
        Path(folder, f"{name}.png").write_bytes(base64.b64decode(picture))


PLACE = """(selector, label) => {
    for (const element of document.querySelectorAll(selector)) {
        if (label && element.textContent.trim() !== label) continue;
        const box = element.getBoundingClientRect(), middle = [box.x + box.width / 2, box.y + box.height / 2];
        if (box.width && element.contains(document.elementFromPoint(...middle))) return middle;
    }
}"""
"""Where a click meets the first such element: its middle, if nothing lies over it."""


def awaited(process, log, look):
    """What ``look`` finds, within a minute; or the end of the log, if the process ends or nothing comes."""
    end = time.monotonic() + 60
    while not (found := look()):
        said = log.read_text(errors="replace")[-2000:]
        assert process.poll() is None and time.monotonic() < end, f"{process.args[0]} did not start: {said}"
        time.sleep(0.1)
    return found


def ended(process):
    """Ask a process to end, and see to it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Address of a headless browser with a profile of its own; root has to do without the browser's sandbox."""
    home, name = tmp_path_factory.mktemp("browser"), os.environ.get("CHROMIUM") or "chromium"
    assert shutil.which(name), f"CHROMIUM is {name!r}, which does not run here: make test-browser looks for one"
    words = [
        "--headless", "--remote-debugging-port=0", f"--user-data-dir={home}/profile", "--no-first-run",
        "--no-default-browser-check", "--no-proxy-server", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--password-store=basic",
        "--use-mock-keychain", *(["--no-sandbox"] if os.geteuid() == 0 else []), "about:blank",
    ]  # fmt: skip
    private = {**os.environ, "XDG_CONFIG_HOME": f"{home}/config", "XDG_CACHE_HOME": f"{home}/cache"}
    log = home / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([name, *words], env=private, stdout=stream, stderr=stream)
    try:
        said = awaited(
            process, log, lambda: re.search(r"listening on ws://([\w.:]+)/", log.read_text(errors="replace"))
        )
        yield said[1]
    finally:
        ended(process)


@pytest.fixture
def tab(browser):
    """A new tab, on a desktop."""
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(f"http://{browser}/json/new", method="PUT")
    tab = Tab(json.load(straight.open(asked, timeout=60))["webSocketDebuggerUrl"])
    yield tab
    tab.call("Page.close")
    tab.socket.close()


# --- a notebook in JupyterLab

PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
PROMPTS = """(panel) => [...document.querySelectorAll(`${panel} .jp-CodeCell .jp-InputPrompt`)].map(
    prompt => prompt.textContent.replace(/[^0-9*]/g, ''))"""
OVER = f"""(panel) => {{
    const prompts = ({PROMPTS})(panel);
    return !prompts.includes('*') && prompts.some(Number);
}}"""
"""Whether cells have run and none waits: all are marked as waiting before the first one runs."""
FIGURES = """async (panel) => {
    const seen = [], frame = () => new Promise(requestAnimationFrame);
    for (const figure of document.querySelectorAll(`${panel} [data-mime-type="image/png"] img`)) {
        const over = () => {
            const box = figure.getBoundingClientRect();
            return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) === figure;
        };
        for (let i = 0; i < 60 && !over(); i++) { figure.scrollIntoView({block: 'center'}); await frame(); }
        const canvas = new OffscreenCanvas(figure.naturalWidth || 1, figure.naturalHeight || 1);
        const ink = canvas.getContext('2d'), often = new Map();
        ink.drawImage(figure, 0, 0);
        const pixels = new Uint32Array(ink.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
        for (const pixel of pixels) often.set(pixel, (often.get(pixel) || 0) + 1);
        const flat = Math.max(...often.values()) / pixels.length;
        seen.push({width: figure.naturalWidth, flat, shown: over()});
    }
    return seen;
}"""
"""Of each figure: its width, the share of its commonest colour, and whether it is on top when scrolled to."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, with settings of its own: its folder and its address with the token."""
    home = tmp_path_factory.mktemp("lab")
    folder, log = Path(shutil.copytree(TOP / "notebooks", home / "notebooks")), home / "log"
    rooms = {name: str(home / name) for name in (
        "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR",
        "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR",
    )}  # fmt: skip
    source = os.pathsep.join(filter(None, [str(TOP / "src"), os.environ.get("PYTHONPATH")]))
    private = {**os.environ, **rooms, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": source}
    words = ["--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}", "--ServerApp.token=student"]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words], cwd=home, env=private, stdout=stream, stderr=stream
        )
    try:
        found = awaited(process, log, lambda: re.search(r"http://127\.0\.0\.1:\d+/", log.read_text(errors="replace")))
        yield folder, f"{found[0]}lab?reset&token=student"
    finally:
        ended(process)


def run_all(tab, lab, name):
    """Open a notebook by a double click, run all its cells from the menu, save it from the menu: all of its faults."""
    folder, address = lab
    source = json.loads((folder / name).read_text(encoding="utf-8"))
    tab.open(address)
    tab.click(".jp-DirListing-itemText", name, times=2)
    tab.until("() => document.querySelector('#jp-main-statusbar')?.textContent.includes('| Idle')")
    tab.click(".lm-MenuBar-item", "Run")
    tab.click("[data-command='runmenu:run-all']")
    tab.until(OVER, PANEL, seconds=RUN_S)
    shown, figures = tab.js(PROMPTS, PANEL), tab.js(FIGURES, PANEL)
    tab.shot(Path(name).stem)
    tab.click(".lm-MenuBar-item", "File")
    tab.click("[data-command='docmanager:save']")
    tab.until("() => !document.querySelector('#jp-main-dock-panel .lm-TabBar-tab.jp-mod-dirty')")
    saved = json.loads((folder / name).read_text(encoding="utf-8"))
    return notebook_faults(source, saved, shown, figures)


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def notebook_faults(source, saved, shown, figures):
    """What is wrong with a notebook that was run, as it is shown and as it was saved."""
    wanted = [str(number) for number, _ in enumerate(code(source), 1)]
    stored = [str(cell["execution_count"]) for cell in code(saved)]
    outputs = [output for cell in code(saved) for output in cell["outputs"]]
    drawn = sum("image/png" in output.get("data", {}) for output in outputs)
    faults = [f"cells to run {wanted}, shown {shown}"] if shown != wanted else []
    faults += [f"cells to run {wanted}, saved {stored}"] if stored != wanted else []
    faults += [f"an error: {o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
    faults += [f"{drawn} figures saved, {len(figures)} shown"] if drawn != len(figures) else []
    faults += [] if figures else ["no figure"]
    for number, figure in enumerate(figures, 1):
        faults += [f"figure {number} is {figure['width']} px wide"] if figure["width"] <= 100 else []
        faults += [f"figure {number} is of one colour"] if figure["flat"] > 0.995 else []
        faults += [] if figure["shown"] else [f"figure {number} cannot be seen"]
    return faults


def test_a_student_runs_a_notebook_from_top_to_bottom(tab, lab):
    assert run_all(tab, lab, NOTEBOOK) == []


WRONG_CELLS = ["from matplotlib import pyplot", "pyplot.subplots()[1].set_axis_off()", "1 / 0", "'never run'"]


def test_a_notebook_that_fails_is_seen(tab, lab):
    notebook = json.loads((lab[0] / NOTEBOOK).read_text(encoding="utf-8"))
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    notebook["cells"] = [{**blank, "id": f"wrong-{text[:2]}", "source": text} for text in WRONG_CELLS]
    (lab[0] / "wrong.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    faults = "; ".join(run_all(tab, lab, "wrong.ipynb"))
    for word in ("shown ['1', '2', '3', '']", "saved ['1', '2', '3', 'None']", "ZeroDivisionError", "of one colour"):
        assert word in faults


def test_a_notebook_that_is_shown_wrongly_is_seen():
    figure = {"width": 640, "flat": 0.9, "shown": True}
    output = {"output_type": "display_data", "data": {"image/png": "..."}}
    notebook = {"cells": [{"cell_type": "code", "execution_count": 1, "outputs": [output]}]}
    assert notebook_faults(notebook, notebook, ["1"], [figure]) == []
    assert notebook_faults(notebook, notebook, [], [figure])
    assert notebook_faults(notebook, notebook, ["1"], [])
    for wrong in ({"width": 100}, {"flat": 1.0}, {"shown": False}):
        assert notebook_faults(notebook, notebook, ["1"], [figure | wrong])


# --- a page

LAYOUT = r"""async (width, smallest) => {
    for (const folded of document.querySelectorAll('details')) folded.open = true;
    for (const image of document.images) image.loading = 'eager';
    await Promise.allSettled([...document.images].map(image => image.decode()));
    const root = document.documentElement, edge = root.clientWidth, faults = new Set(), drawn = new Map();
    const short = text => JSON.stringify(text.trim().slice(0, 40));
    const reach = (thing, box, name) => {
        const right = Math.round(thing.getBoundingClientRect().right);
        if (right <= edge + 1) return;
        while (box && !/auto|scroll/.test(getComputedStyle(box).overflowX)) box = box.parentElement;
        if (!box) faults.add(`${name} reaches to ${right} px, there are ${edge}`);
    };
    if (innerWidth !== width) faults.add(`laid out for ${innerWidth} px, the screen has ${width}`);
    if (root.scrollWidth > edge) faults.add(`${root.scrollWidth} px wide, there are ${edge}`);
    for (const element of document.body.querySelectorAll('*')) {
        reach(element, element.parentElement, `<${element.localName}>`);
    }
    for (const image of document.images) {
        if (!image.naturalWidth) faults.add(`image ${image.getAttribute('src')} is not there`);
    }

    const canvas = new OffscreenCanvas(64, 64), ink = canvas.getContext('2d', {willReadFrequently: true});
    const draw = (character, font) => {
        if (!drawn.has(font + character)) {
            ink.clearRect(0, 0, 64, 64);
            ink.font = font;
            ink.fillText(character, 8, 44);
            drawn.set(font + character, ink.getImageData(0, 0, 64, 64).data.join());
        }
        return drawn.get(font + character);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange();
    while (texts.nextNode()) {
        const text = texts.currentNode.data, element = texts.currentNode.parentElement;
        if (!text.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
        range.selectNodeContents(texts.currentNode);
        reach(range, element, short(text));
        const style = getComputedStyle(element), size = getComputedStyle(element.closest('math') ?? element).fontSize;
        if (parseFloat(size) < smallest) faults.add(`${size} is small: ${short(text)}`);
        const font = `${style.fontStyle} ${style.fontWeight} 32px ${style.fontFamily}`;
        for (const character of new Set(text.replace(/[\s\p{Cc}\p{Cf}\p{M}]/gu, ''))) {
            const name = `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;
            const missing = draw(character, font) === draw('\u{10FFFF}', font);
            if (character === '\uFFFD') faults.add(`${name}, lost in decoding: ${short(text)}`);
            else if (missing) faults.add(`no font here has ${name} ${character}: ${short(text)}`);
        }
    }
    return [...faults];
}"""
LINKS = """() => [...document.querySelectorAll('[href], [src]')].map(element => {
    const name = element.getAttribute('href') ?? element.getAttribute('src'), url = new URL(name, document.baseURI);
    const place = decodeURIComponent(url.hash.slice(1)), here = url.href.split('#')[0] === location.href.split('#')[0];
    return {name, url: url.href, place, known: !place || !here || !!document.getElementById(place), here};
})"""


def page_faults(tab, page, screen):
    """What is wrong with a page on a screen, once all that is folded is open.

    - Nothing reaches over the right edge, but in boxes that scroll by themselves. A phone zooms out until all fits and
      then calls itself wider, so the width that it reports must be its own.
    - Images are there; links lead to files that exist, and to places in them. Other hosts may be linked, which is not
      followed, but are not asked for anything.
    - The console has no errors.
    - Fonts have at least 12 px; of a formula its own size counts, not that of its indices. Text in images and what a
      style puts before or after an element is not seen.
    - Characters have glyphs: none is U+FFFD, and none is drawn, pixel by pixel, as U+10FFFF is in the same font, which
      no font has. That speaks for the fonts of this machine, others may have fewer or more. Combining marks, sequences
      that make one picture (flags), wrong letters (mojibake) and, again, text in images are not seen.
    """
    tab.screen(*screen)
    tab.open(page.as_uri())
    faults = tab.js(LAYOUT, screen[0], SMALLEST_PX)
    for link in tab.js(LINKS):
        faults += [f"link {link['name']} {fault}" for fault in link_faults(**link)]
    return faults + sorted({fault for event in tab.events for fault in event_faults(**event)})


def link_faults(name, url, place, known, here):
    """What is wrong with a link: `known` is whether its place is on this page, if it is `here`."""
    parts = urlsplit(url)
    target = Path(unquote(parts.path))
    if name.startswith(("/", "file:")):
        yield "is not relative"
    elif parts.scheme == "file" and not target.is_file():
        yield "leads to no file"
    elif parts.scheme == "file" and place and not here:
        known = re.search(rf"""\bid=["']?{re.escape(place)}["'\s>]""", target.read_text(errors="replace"))
    if not known:
        yield "leads to no place on its page"


def event_faults(method, params, **_):
    """What is wrong if the browser reports this."""
    if method == "Runtime.exceptionThrown":
        yield f"console: {params['exceptionDetails'].get('exception', {}).get('description', 'an exception')}"
    elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
        yield f"console: {' '.join(str(word.get('value')) for word in params['args'])}"
    elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
        yield f"console: {params['entry']['text']} {params['entry'].get('url', '')}"
    elif method == "Network.requestWillBeSent":
        url = params["request"]["url"]
        if urlsplit(url).scheme not in ("file", "data", "blob"):
            yield f"asks another host for {url}"


def test_there_are_pages():
    assert PAGES and all(page.is_file() for page in PAGES)


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("page", PAGES, ids=["/".join(page.parts[-3:]) for page in PAGES])
def test_a_page_is_whole(tab, page, screen):
    faults = page_faults(tab, page, SCREENS[screen])
    tab.shot("-".join([*page.with_suffix("").parts[-3:], screen]), whole=True)
    assert faults == []


SHOWN = """() => [...document.querySelectorAll('.claim')].filter(claim => claim.checkVisibility())
    .map(claim => [claim.dataset.verdict, claim.dataset.section])"""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """A report's page of claims, of runs that are made up."""
    made = runpy.run_path(str(Path(__file__).with_name("test_site.py")))
    out = made["write_world"](tmp_path_factory.mktemp("runs") / "out", seeds=(0,), per_level=2)
    return made["report"].build("smoke", made["write_models"](out, made["PIPELINE"], seeds=(0,), per=2)) / "ledger.html"


@pytest.mark.parametrize("screen", SCREENS)
def test_claims_are_filtered_by_verdict_and_section(tab, ledger, screen):
    assert page_faults(tab, ledger, SCREENS[screen]) == []

    def choose(button):
        tab.js("button => document.querySelector(button).scrollIntoView({block: 'center'})", button)
        tab.click(button)

    everything = tab.js(SHOWN)
    assert len(everything) == 33 and len({verdict for verdict, _ in everything}) > 2
    choose("#verdict-untestable")
    untested = tab.js(SHOWN)
    assert untested == [claim for claim in everything if claim[0] == "untestable"] and 0 < len(untested) < 33
    (place,) = {place for _, place in untested[:1]}
    choose(f"#section-{place}")
    assert tab.js(SHOWN) == [claim for claim in untested if claim[1] == place]
    tab.shot(f"ledger-filtered-{screen}")
    choose("#verdict-all")
    assert tab.js(SHOWN) == [claim for claim in everything if claim[1] == place]
    choose("#section-all")
    assert tab.js(SHOWN) == everything
    tab.js("() => document.getElementById('verdict-all').focus()")
    tab.press("ArrowRight")
    first = tab.js("() => document.activeElement.id").removeprefix("verdict-")
    assert first != "all" and tab.js(SHOWN) == [claim for claim in everything if claim[0] == first]


def html(body, head='<meta name="viewport" content="width=device-width">'):
    return f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{head}</head><body>{body}</body></html>'


RIGHT = [
    "<p id='here'>Plain \N{EM DASH} <a href='#here'>a place</a>, <a href='other.html#there'>another's</a></p>",
    "<div style='overflow-x: auto'><div style='width: 3000px'>wide, in a box that scrolls</div></div>",
    f"<details style='overflow-x: scroll'><pre>{'long ' * 99}</pre></details>",
    "<p style='font-size: 12px'>\u00e9 e\u0301 \u2260 \u03b5 \u00a0 \u200b</p>",
    "<p style='font-size: 1px' hidden>gone</p><style>p { color: #000 }</style>",
    "<math><msup><mi>x</mi><msup><mn>2</mn><mn>2</mn></msup></msup></math>",
    "<img alt='' src='data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7'>",
    "<a href='https://example.org/absent'>never followed</a><script>console.warn('well')</script>",
]
WRONG = [
    ("3008 px wide", html("<div style='width: 3000px'>x</div>")),
    ("<div> reaches to 3008 px", html("<div style='width: 3000px'>x</div>", "<style>* { overflow-x: hidden }</style>")),
    (
        'ong" reaches to',
        html(f"<details><summary>x</summary><pre style='font-size: 20px'>{'long ' * 7}long</pre></details>"),
    ),
    ("laid out for 980 px", html("<p>no viewport", "")),
    ("image absent.png is not there", html("<img loading='lazy' src='absent.png'>")),
    ("link absent.html leads to no file", html("<a href='absent.html'>x</a>")),
    ("link . leads to no file", html("<a href='.'>x</a>")),
    ("link /etc/hosts is not relative", html("<a href='/etc/hosts'>x</a>")),
    ("link #there leads to no place", html("<a href='#there'>x</a>")),
    ("link other.html#here leads to no place", html("<a href='other.html#here' id='here'>x</a>")),
    ("console: ReferenceError", html("<script>absent()</script>")),
    ("console: oh no", html("<script>console.error('oh', 'no')</script>")),
    ("console: Failed to load", html("<p style='background: url(absent.png)'>x</p>")),
    ("asks another host", html("<script>fetch('http://127.0.0.1:9/')</script>")),
    ("11.9px is small", html("<p style='font-size: 11.9px'>x</p>")),
    ("11px is small", html("<details style='font-size: 11px'><summary> </summary>x</details>")),
    ("10px is small", html("<math style='font-size: 10px'><mi>x</mi></math>")),
    ("U+FFFD", html("a \ufffd")),
    ("no font here has U+0378", html("<p style='font-family: serif'>an unassigned \u0378</p>")),
    ("no font here has U+F8FE", html("<b><code>of private use \uf8fe</code></b>")),
]


@pytest.fixture
def page(tmp_path):
    """Where a test puts its page; there is another one beside it."""
    (tmp_path / "other.html").write_text(html("<p id=there>x</p>"), encoding="utf-8")
    return tmp_path / "page.html"


@pytest.mark.parametrize("body", RIGHT)
def test_a_right_page_is_let_through(tab, page, body):
    page.write_text(html(body), encoding="utf-8")
    assert page_faults(tab, page, SCREENS["phone"]) == []


@pytest.mark.parametrize(("fault", "text"), WRONG, ids=[fault for fault, _ in WRONG])
def test_a_wrong_page_is_seen(tab, page, fault, text):
    page.write_text(text, encoding="utf-8")
    assert fault in "; ".join(page_faults(tab, page, SCREENS["phone"]))
