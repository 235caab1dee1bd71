"""How the pages look: one style for all, calm, for a phone as for a desk, nothing from elsewhere."""

import html

FONTS = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", "DejaVu Sans", "PingFang SC", '
    '"Hiragino Sans GB", "Microsoft YaHei", "Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei", sans-serif'
)
MONO = (
    'ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", "PingFang SC", '
    '"Microsoft YaHei", "Noto Sans Mono CJK SC", "Noto Sans CJK SC", monospace'
)
"""Fonts with Chinese are named: outputs of the models are in two languages."""

COMMON = f"""
:root {{ color-scheme: light; --ink: #1c2126; --soft: #56606a; --line: #dfe3e8; --tint: #f5f7f9; --ours: #eef5fa;
  --link: #005a8c; }}
* {{ box-sizing: border-box; }}
html {{ scroll-padding-top: 1rem; -webkit-text-size-adjust: 100%; }}
body {{ font: 16px/1.55 {FONTS}; color: var(--ink); background: #fff; margin: 0 auto; padding: 1.2rem 1rem 4rem;
  max-width: 62rem; }}
h1 {{ font-size: 1.9rem; line-height: 1.2; margin: .6rem 0; letter-spacing: -.01em; }}
h2 {{ font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 .7rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }}
h3 {{ font-size: 1.05rem; line-height: 1.35; margin: 1.6rem 0 .4rem; }}
p, ul, ol, dl {{ margin: .6rem 0; }}
a {{ color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .15em; }}
code, pre {{ font-family: {MONO}; font-size: .86em; }}
code {{ overflow-wrap: anywhere; }}
img {{ max-width: 100%; height: auto; }}
.small, figcaption {{ color: var(--soft); font-size: .88rem; }}
.wide {{ overflow-x: auto; -webkit-overflow-scrolling: touch; }}
details > summary {{ cursor: pointer; }}
"""

PAGE = f"""{COMMON}
.lead {{ font-size: 1.08rem; color: var(--soft); max-width: 46rem; }}
.text {{ max-width: 46rem; }}
nav {{ font-size: .92rem; }} nav ul {{ list-style: none; padding: 0; margin: .3rem 0; columns: 2; column-gap: 1.5rem; }}
nav li {{ padding: .16rem 0; break-inside: avoid; }} nav a {{ text-decoration: none; }}
nav a:hover {{ text-decoration: underline; }}
nav {{ margin: 1.8rem 0 0; }} nav b {{ color: var(--soft); font-weight: 600; }}
table {{ border-collapse: separate; border-spacing: 0; font-size: .88rem; font-variant-numeric: tabular-nums;
  max-width: none; }}
th, td {{ text-align: left; padding: .32rem .9rem .32rem .45rem; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: 400; }}
thead th {{ color: var(--soft); font-size: .82rem; vertical-align: bottom; border-bottom: 1.5px solid #aeb6bf; }}
thead tr.groups th {{ border-bottom: 0; padding-bottom: 0; }}
thead tr.groups th[colspan]:not([colspan="1"]) {{ border-bottom: 1px solid var(--line); padding-bottom: .2rem; }}
th[scope=row], thead th:first-child {{ position: sticky; left: 0; background: #fff; z-index: 1; }}
tr.ours > * {{ background: var(--ours); }} tr.ours th[scope=row] {{ background: var(--ours); font-weight: 600; }}
tr.paper {{ color: var(--soft); }} tr.paper th[scope=row] {{ padding-left: 1.2rem; }}
td.o {{ background: var(--ours); }} td.t {{ color: var(--soft); }}
tr.both th[scope=row], tr.plain th[scope=row] {{ font-weight: 600; }}
tr.both:has(+ tr.more) > :not(.t) {{ border-bottom-color: transparent; }}
.num {{ text-align: right; }} td.num {{ white-space: nowrap; }}
a.n {{ color: inherit; text-decoration: underline dotted #8fa3b3; }} a.n:hover {{ color: var(--link); }}
.claim {{ border: 1px solid var(--line); border-radius: .5rem; padding: .9rem 1rem; margin: 1rem 0; }}
.claim h3 {{ margin: .2rem 0 .5rem; }} .claim .id {{ color: var(--soft); font-size: .88rem; margin: 0; }}
.claim dl {{ display: grid; grid-template-columns: 5.2rem 1fr; gap: .2rem .6rem; margin: .4rem 0 .7rem; }}
.claim td {{ white-space: nowrap; }}
.claim dt {{ color: var(--soft); }} .claim dd {{ margin: 0; overflow-wrap: anywhere; }}
.badge {{ display: inline-block; padding: .02rem .55rem; border-radius: 1rem; font-size: .8rem; font-weight: 700;
  white-space: nowrap; }}
.reproduced {{ background: #0072b2; color: #fff; }} .trend {{ background: #56b4e9; color: #000; }}
.contradicted {{ background: #a63c00; color: #fff; }} .inconclusive {{ background: #f0e442; color: #000; }}
.untestable {{ background: #e6e6e6; color: #333; }}
.tally {{ list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: 1rem 0; }}
.tally a {{ text-decoration: none; color: inherit; }} .tally b {{ font-size: 1.15rem; }}
.problem {{ border-left: .35rem solid #a63c00; background: #fdf0e8; padding: .5rem .8rem; margin: 1.5rem 0;
  overflow-wrap: anywhere; }}
figure {{ margin: 1.4rem 0 2rem; }} figcaption {{ margin-top: .3rem; }}
tr:target > *, tbody:target > tr > * {{ background: #fff4c2 !important; }}
section.runs:target {{ box-shadow: -.6rem 0 #fff, -.9rem 0 #e69f00; }} .runs table {{ width: 100%; }}
.runs th:first-child {{ width: 44%; }} .runs td code {{ white-space: nowrap; }}
.sample {{ border-left: .25rem solid var(--line); padding: .1rem 0 .1rem .9rem; margin: 1.1rem 0; }}
.sample h3 {{ margin: 0 0 .3rem; }} .sample .facts {{ font-weight: 400; color: var(--soft); font-size: .88rem; }}
.sample pre, .asked pre {{ white-space: pre-wrap; overflow-wrap: anywhere; margin: .35rem 0; font-size: .9rem; }}
.sample.right {{ border-color: #0072b2; }} .sample.wrong {{ border-color: #d55e00; }}
.sample details pre {{ background: var(--tint); padding: .6rem .8rem; border-radius: .3rem; }}
.sample summary {{ color: var(--soft); font-size: .9rem; }}
.asked {{ background: var(--tint); padding: .5rem .9rem; border-radius: .4rem; }}
@media (min-width: 84rem) {{
  body {{ max-width: 80rem; display: grid; grid-template-columns: 15rem minmax(0, 1fr); column-gap: 3rem; }}
  body > header, body > main {{ grid-column: 2; }}
  body > nav {{ grid-column: 1; grid-row: 1 / span 2; position: sticky; top: 1.2rem; align-self: start;
    margin-top: .9rem; max-height: calc(100vh - 2.4rem); overflow-y: auto; }}
  nav ul {{ columns: 1; }}
}}
@media (max-width: 48rem) {{
  h1 {{ font-size: 1.5rem; }} h2 {{ margin-top: 2.4rem; }}
  figure .wide img {{ max-width: none; width: 46rem; }}
  .claim dl {{ grid-template-columns: 1fr; }} .claim dd {{ margin-bottom: .4rem; }}
  th[scope=row] {{ min-width: 7rem; }} .runs th[scope=row] {{ min-width: 10rem; }}
}}
"""

NOTEBOOK = f"""{COMMON}
body {{ max-width: 54rem; }}
h1 {{ margin-top: 1.2rem; }} h2 {{ margin-top: 2.4rem; }}
header {{ font-size: .9rem; color: var(--soft); border-bottom: 1px solid var(--line); padding-bottom: .6rem; }}
.prompt, .anchor-link, .output_prompt {{ display: none; }}
.rendered_html {{ overflow-wrap: anywhere; }}
.input_area {{ background: var(--tint); border-radius: .4rem; margin: .9rem 0 .4rem; overflow-x: auto; }}
.input_area pre {{ margin: 0; padding: .6rem .8rem; font-size: .84rem; line-height: 1.45; }}
.rendered_html .highlight, .rendered_html > pre {{ background: var(--tint); border-radius: .4rem; overflow-x: auto; }}
.rendered_html .highlight pre {{ padding: .6rem .8rem; margin: 0; font-size: .84rem; line-height: 1.45; }}
.output_area {{ overflow-x: auto; margin: .3rem 0; }}
.output_area pre {{ margin: .3rem 0; padding: .1rem .8rem; font-size: .84rem; line-height: 1.45; }}
.output_area table {{ border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }}
.rendered_html table {{ display: block; overflow-x: auto; border-collapse: collapse; font-size: .88rem; }}
.output_area .rendered_html table {{ display: table; }}
.output_area table, .rendered_html table {{ border: 0; }}
th, td {{ text-align: left; padding: .25rem .8rem .25rem .2rem; border: 0; border-bottom: 1px solid var(--line); }}
thead th {{ border-bottom: 1.5px solid #aeb6bf; }}
details {{ border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .8rem; margin: .6rem 0; }}
math {{ font-size: 1.06em; }}
math[display=block] {{ overflow-x: auto; overflow-y: hidden; margin: .9rem 0; padding: .2rem 0; }}
mrow.under {{ border-bottom: 1px solid; padding-bottom: .15em; }}
mrow.over {{ border-top: 1px solid; padding-top: .15em; }}
mi {{ text-transform: none; font-style: italic; }} mi.up {{ font-style: normal; }}
mi.bold, mtext.bold {{ font-style: normal; font-weight: 700; }} mtext.code {{ font-family: {MONO}; font-size: .86em; }}
mi.cal {{ font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "Snell Roundhand", serif; }}
mtext.it {{ font-style: italic; }}
.k, .kn, .kd, .kc, .kr, .ow {{ color: #8a2252; }} .s, .s1, .s2, .sd, .sa, .sb, .se, .si {{ color: #0b5c34; }}
.c, .c1, .cm {{ color: #5d6770; font-style: italic; }} .mi, .mf, .mh {{ color: #8a4500; }}
.nf, .nc, .nd {{ color: #004f8c; }} .nb, .bp {{ color: #3d4f9e; }}
@media (max-width: 48rem) {{ h1 {{ font-size: 1.45rem; }} .output_png img {{ max-width: none; width: 44rem; }} }}
"""


def whole(title: str, style: str, body: str) -> str:
    """A page with its head; it needs no other file to look as it should."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
