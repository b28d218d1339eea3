"""How a report looks: on screens large and small, light and dark, and on paper."""

STYLE = """
:root {
  --page: #fbfaf8; --ink: #1d1f23; --soft: #5d636e; --line: #dcdad5; --card: #ffffff; --accent: #a3441c;
  --raw: #e3b7a0; --note: #fdf1df; --note-line: #d99a2b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181c; --ink: #e8e6e1; --soft: #a2a8b3; --line: #343840; --card: #1e2126; --accent: #f0946a;
    --raw: #6d4a3b; --note: #2c261b; --note-line: #b98628;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 74rem;
  background: var(--page); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0 0 .4rem; font-size: clamp(1.8rem, 5vw, 2.6rem); line-height: 1.15; letter-spacing: -.02em; }
h2 { margin: 3.2rem 0 .6rem; font-size: 1.45rem; line-height: 1.25; letter-spacing: -.01em; }
h3 { margin: 1.8rem 0 .4rem; font-size: 1.08rem; }
h1, h2, h3, p, li, dd, figcaption { overflow-wrap: anywhere; }
p, ul { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1rem 0 0; font-size: .95rem; }
code, pre { font: .88em/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.lead { font-size: 1.12rem; }
.soft, figcaption, .meaning { color: var(--soft); }
.meaning, .small { font-size: .9rem; }
.note { padding: .6rem .9rem; border-left: 4px solid var(--note-line); background: var(--note); }
figure { margin: 0; }
figcaption { font-size: .85rem; line-height: 1.35; }
.card { padding: .8rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
.pairs, .charts { display: grid; gap: 1rem; margin: 1rem 0; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.strip { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem; }
.strip.three { grid-template-columns: repeat(3, 1fr); }
.levels { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: .5rem; }
.strip figcaption, .levels figcaption { margin-top: .15rem; text-align: center; }
.pair > figcaption { margin-top: .5rem; }
img { display: block; width: 100%; height: auto; border-radius: .3rem; background: var(--line); }
img.map { image-rendering: pixelated; border: 1px solid var(--line); }
body:has(#pixels:checked) img { image-rendering: pixelated; }
.stack { display: grid; gap: 1rem; margin: 1rem 0; }
.legend { display: flex; align-items: center; gap: .7rem; flex-wrap: wrap; font-size: .9rem; }
.ramp { width: 9rem; height: .9rem; border: 1px solid var(--line); background: linear-gradient(90deg, #000, #fff); }
.scrolling { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { font-size: .88rem; font-weight: 600; line-height: 1.3; vertical-align: bottom; }
tbody th { position: sticky; left: 0; background: var(--page); font-weight: 600; }
td.number, th.number { padding: .45rem 0 .45rem .9rem; text-align: right; }
td.number, tbody th { white-space: nowrap; }
td small { display: block; color: var(--soft); font-size: .8rem; }
tr.bound th, tr.bound td { color: var(--soft); font-weight: 400; }
.best { font-weight: 700; color: var(--accent); }
abbr { text-decoration: none; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; font-family: inherit; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg path { fill: none; stroke-linecap: round; stroke-linejoin: round; }
svg .raw { stroke: var(--raw); stroke-width: 1; }
svg .smooth { stroke: var(--accent); stroke-width: 2; }
.chart-title { display: flex; justify-content: space-between; gap: .8rem; margin-bottom: .3rem; color: var(--ink); }
.chart-title strong { font-size: .95rem; }
.chart-title span { white-space: nowrap; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1.2rem; margin: .8rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
dd dl { margin: 0; }
pre {
  margin: .8rem 0; padding: .9rem 1rem; overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem;
  background: var(--card);
}
summary { cursor: pointer; font-weight: 600; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 30rem) {
  .strip { grid-template-columns: repeat(2, 1fr); }
  .levels { grid-template-columns: repeat(auto-fill, minmax(3.8rem, 1fr)); }
  .card { padding: .6rem; }
  table { font-size: .92rem; }
  dl { display: block; }
  dd { margin-bottom: .4rem; }
  dd dl { display: grid; }
}
@media print {
  :root {
    --page: #fff; --ink: #000; --soft: #444; --line: #bbb; --card: #fff; --accent: #a3441c; --raw: #e3b7a0;
    --note: #fff; --note-line: #999;
  }
  nav, label.pixels { display: none; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  h2 { margin-top: 1.6rem; }
  h2, h3, .legend { break-after: avoid; }
  figure, table, .note { break-inside: avoid; }
  .pairs { grid-template-columns: repeat(2, 1fr); }
  .charts { grid-template-columns: repeat(3, 1fr); }
  .levels { grid-template-columns: repeat(auto-fill, minmax(3.4rem, 1fr)); }
  .card { padding: .5rem; }
  .scrolling { overflow: visible; }
  details::details-content { content-visibility: visible; block-size: auto; }
  img, .ramp { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  pre { white-space: pre-wrap; }
  details pre { columns: 2; }
}
"""
