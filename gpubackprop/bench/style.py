"""The style of the page: two schemes of colour, one column on a phone, no font that has to be fetched."""

STYLE = """
:root{--edge:#1b1f2459;--ground:#f6f7f8;--card:#fff;--ink:#1b1f24;--soft:#57606a;--line:#dfe3e8;--accent:#0b5cad;
--s0:#1a66ab;--s1:#b34700;--s2:#14744b;--s3:#7d46a8;--s4:#8a6100;--s5:#0b7285;--s6:#b02a6b;--s7:#57606a;--inside:#fff}
@media(prefers-color-scheme:dark){:root{--edge:#e6e9ed59;--ground:#0f1216;--card:#181c22;--ink:#e6e9ed;--soft:#a4adb8;--line:#2c333c;
--accent:#7cb8f5;--s0:#6fb1f0;--s1:#ff9f5f;--s2:#5fce98;--s3:#c8a0f2;--s4:#e2bb4d;--s5:#5ccbe0;--s6:#f48fbb;
--s7:#b4bcc6;--inside:#0f1216}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif;-webkit-text-size-adjust:100%}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:40px}
.kicker{margin:0;color:var(--accent);font-weight:600;font-size:14px;letter-spacing:.02em}
h1{margin:2px 0 16px;font-size:clamp(26px,5vw,38px);line-height:1.15;letter-spacing:-.02em;overflow-wrap:anywhere}
h2{margin:0 0 4px;font-size:24px;line-height:1.25;letter-spacing:-.01em}
section{margin-top:56px}
.lead{margin:0 0 20px;max-width:76ch;color:var(--soft);text-wrap:pretty}
.facts{display:flex;flex-wrap:wrap;gap:10px 32px;margin:0;font-size:14px}
.facts dt{color:var(--soft);font-size:12px}
.facts dd{margin:0;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;margin-top:28px}
.tile,figure,.card,.missing{background:var(--card);border:1px solid var(--line);border-radius:10px}
.tile{padding:14px 16px;min-width:0}
.tile p{margin:0;font-size:13px;color:var(--soft);line-height:1.4}
.tile .value{font-size:28px;margin-bottom:4px;font-weight:650;letter-spacing:-.02em;line-height:1.2;color:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:16px;align-items:start}
figure{margin:0;padding:16px;min-width:0;max-width:620px;container-type:inline-size}
figcaption{font-weight:600;font-size:15px;margin-bottom:8px}
figure>svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;fill:var(--soft);
font-variant-numeric:tabular-nums}
@container(min-width:430px){svg text{font-size:9.5px}}
@container(max-width:300px){svg text{font-size:14.5px}}
svg .name{fill:var(--ink)}
svg .inside{fill:var(--inside);text-anchor:middle;font-weight:600}
.grid{stroke:var(--line);fill:none}
.level{stroke:var(--soft);stroke-width:1.5;fill:none}
.line{stroke:var(--c);stroke-width:2;fill:none;stroke-linejoin:round;stroke-linecap:round}
.dashed{stroke:var(--soft);stroke-dasharray:5 4;stroke-width:1.5}
.mark{fill:var(--c);stroke:var(--card);stroke-width:1}
rect{fill:var(--c)}
.s0{--c:var(--s0)}.s1{--c:var(--s1)}.s2{--c:var(--s2)}.s3{--c:var(--s3)}
.s4{--c:var(--s4)}.s5{--c:var(--s5)}.s6{--c:var(--s6)}.s7{--c:var(--s7)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;margin:12px 0 0;padding:0;font-size:13px}
.legend li{display:flex;align-items:center;gap:6px}
.legend svg{width:14px;height:14px;flex:none}
.card{margin-top:16px;overflow:hidden}
.scroll{overflow-x:auto;background:
linear-gradient(to right,var(--card) 50%,transparent) left/64px 100% no-repeat local,
linear-gradient(to left,var(--card) 50%,transparent) right/64px 100% no-repeat local,
linear-gradient(to right,var(--edge),transparent) left/24px 100% no-repeat scroll,
linear-gradient(to left,var(--edge),transparent) right/24px 100% no-repeat scroll}
.scroll:focus-visible{outline:2px solid var(--accent);outline-offset:-2px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
.title{margin:0;font-weight:600;font-size:15px;padding:14px 16px 4px}
th,td{padding:7px 16px;text-align:right;white-space:nowrap;font-weight:400}
thead th{color:var(--soft);font-size:13px;border-bottom:1px solid var(--line)}
tbody tr+tr>*{border-top:1px solid var(--line)}
.word{text-align:left}
.note{margin:8px 0 0;font-size:13px;color:var(--soft);max-width:90ch;overflow-wrap:anywhere;text-wrap:pretty}
.missing{margin:0;padding:16px 18px}
footer{margin-top:56px;padding-bottom:40px;font-size:13px;color:var(--soft)}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media(max-width:560px){header,main,footer{padding-left:16px;padding-right:16px}header{padding-top:24px}
section{margin-top:44px}th,td{padding:7px 12px}.title{padding:12px 12px 4px}figure{padding:14px 12px}
tbody th{position:sticky;left:0;background:var(--card)}}
"""
