# This file is part of meas_extensions_vae.
#
# Copyright the meas_extensions_vae developers.
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a report looks, on a desk and on a phone, by day and by night."""

__all__ = ["CSS"]

CSS = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--tint:#f3f6f9;
--warn:#fff4d6}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa4af;--line:#3d444d;--paper:#0f1318;
--tint:#1b222b;
--warn:#493a10}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:16px}
h1{font-size:1.8rem;line-height:1.2;margin:.4em 0 .2em}h2{font-size:1.35rem;margin:2em 0 .5em;
border-bottom:1px solid var(--line)}h3{font-size:1.05rem;margin:1.2em 0 .4em}
header p,figcaption,.note,.key{color:var(--soft)}figcaption,.note,.key{font-size:.9rem}
.warning{background:var(--warn);border-left:4px solid #E69F00;padding:.6em .9em}
.headline{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:16px 0}
.headline div{background:var(--tint);border-radius:8px;padding:12px 14px}
.headline b{display:block;font-size:1.5rem;line-height:1.25;white-space:nowrap}
.headline span{font-size:.9rem;color:var(--soft)}
figure{margin:0}figure svg{display:block;width:100%;height:auto}.field svg{background:#000;
border-radius:6px}
.field{max-width:820px;margin:0 auto}figcaption{margin-top:.4em}
.panels{display:grid;grid-template-columns:repeat(4,1fr);gap:8px}.panels svg{border-radius:4px}
.panels figcaption{text-align:center;margin-top:.15em}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:16px 28px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25em .6em;text-align:right;font-weight:400}th{color:var(--soft)}
.numbers,.small{width:100%;font-size:.95rem}.numbers thead th{vertical-align:bottom;text-align:right}
caption{text-align:left;font-weight:600;padding:.2em .3em}
.numbers td{white-space:nowrap}.numbers th{vertical-align:bottom}.numbers tbody th{vertical-align:middle}
.numbers tr.first td,.numbers tr.first th,.small tbody tr:first-child>*{border-top:1px solid var(--line)}
.numbers tbody th{color:var(--ink);font-weight:600;white-space:nowrap;text-align:left}
table thead .left{text-align:left}
td.none,td.vae{font-weight:600;text-align:left}td.none{color:#B24A00}td.vae{color:#0072B2}
@media(prefers-color-scheme:dark){td.none{color:#E69F00}td.vae{color:#56B4E9}}
.small{max-width:640px;font-size:.9rem;margin-top:.3em}.small th:first-child{text-align:left}
.facts{font-size:.9rem;width:100%}.facts th{text-align:left;vertical-align:top;width:45%}
.facts td{text-align:left;overflow-wrap:anywhere}.facts tr{border-top:1px solid var(--line)}
pre{background:var(--tint);padding:.6em .8em;border-radius:6px;font-size:.85rem;white-space:pre-wrap;
overflow-wrap:anywhere;margin:.3em 0 1em}
@media(max-width:640px){main{padding:12px}
.panels{grid-template-columns:1fr 1fr}.pair{grid-template-columns:1fr}
.headline{grid-template-columns:1fr 1fr}.headline b{font-size:1.2rem}
.numbers{font-size:.8rem}.numbers th,.numbers td{padding:.2em .3em}.small th,.small td{padding:.2em .35em}}
"""
