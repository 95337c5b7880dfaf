#pragma once
// The style sheet of reports. Lines have the colours of Okabe & Ito, lighter on dark pages.

namespace brume::tools {

inline constexpr const char* report_style = R"(
:root { color-scheme: light dark; --page: #fff; --text: #222; --faint: #666; --rule: #ddd; --band: #f5f5f5;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b3579a; --c4: #b07c00; --c5: #3a9bd0; --c6: #6b5bc4; --c7: #555; }
@media (prefers-color-scheme: dark) { :root { --page: #161618; --text: #e6e6e6; --faint: #a0a0a0; --rule: #3a3a3e; --band: #222226;
  --c0: #58a9e0; --c1: #ff8a4a; --c2: #3fcf9f; --c3: #e090c8; --c4: #e8b840; --c5: #8fd0f5; --c6: #a99cf5; --c7: #b8b8b8; } }
body { margin: 2rem auto; max-width: 1240px; padding: 0 1.5rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.8rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 0.3rem 0.7rem; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; color: var(--faint); } .number { text-align: right; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--band); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(380px, 1fr)); gap: 1rem; }
figure { margin: 0; } svg { width: 100%; height: auto; }
.line { fill: none; stroke-width: 1.6; } .axis { stroke: var(--faint); } .grid { stroke: var(--rule); stroke-width: 0.7; }
.label { fill: var(--faint); font-size: 11px; } .title { fill: var(--text); font-size: 13px; font-weight: 600; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); } .c3 { stroke: var(--c3); }
.c4 { stroke: var(--c4); } .c5 { stroke: var(--c5); } .c6 { stroke: var(--c6); } .c7 { stroke: var(--c7); }
.d1 { stroke-dasharray: 6 3; } .d2 { stroke-dasharray: 2 3; } .dot { fill: var(--page); stroke-width: 1.6; stroke-dasharray: none; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; font-size: 13px; }
.legend svg { width: 24px; height: 8px; margin-right: 0.4rem; vertical-align: middle; }
.grids th, .grids td { vertical-align: top; border: 0; padding: 0.3rem; }
.grids img { width: 180px; image-rendering: pixelated; display: block; }
.grids tbody th { max-width: 180px; white-space: normal; overflow-wrap: anywhere; }
details { margin: 0.4rem 0; } summary { cursor: pointer; color: var(--faint); }
pre { background: var(--band); padding: 0.8rem; overflow-x: auto; font-size: 12px; } .note { color: var(--faint); }
)";

}  // namespace brume::tools
