// Line charts as SVG: round ticks, a light grid, a readout under the pointer or the arrow keys.
import {h, fill, short, freshId} from './dom.js';

const left = 56, right = 12, top = 10, bottom = 34;

export const lineClass = (number) => `c${number % 8} d${Math.floor(number / 8) % 3}`;

function linearTicks(lo, hi, about) {
  const rough = (hi - lo) / about, power = 10 ** Math.floor(Math.log10(rough)), share = rough / power;
  const step = (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10) * power;
  const all = [];
  for (let k = Math.ceil(lo / step - 1e-9); k * step <= hi + 1e-9 * step; ++k) all.push(k * step);
  return all;
}

function logTicks(lo, hi) {
  const decades = Math.log10(hi / lo), all = [];
  const factors = decades < 1.2 ? [1, 2, 3, 5, 7] : decades < 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.round(decades / 7));
  for (let p = Math.floor(Math.log10(lo)); p <= Math.ceil(Math.log10(hi)); ++p)
    if (p % every === 0) for (const m of factors) all.push(m * 10 ** p);
  return all.filter((v) => v >= lo && v <= hi);
}

/// Returns a scale: value to pixels.
function scaleOf(values, log, from, to) {
  const usable = values.filter((v) => Number.isFinite(v) && (!log || v > 0));
  if (usable.length === 0) return null;
  let lo = Math.min(...usable), hi = Math.max(...usable);
  if (log) [lo, hi] = [lo / 1.08, hi * 1.08];
  else {
    const room = hi > lo ? 0.04 * (hi - lo) : Math.max(1e-9, 0.1 * Math.abs(hi));
    [lo, hi] = [lo - room, hi + room];
  }
  const at = (v) => from + (log ? Math.log(v / lo) / Math.log(hi / lo) : (v - lo) / (hi - lo)) * (to - from);
  return {at, lo, hi, log, ticks: log ? logTicks(lo, hi) : linearTicks(lo, hi, Math.abs(to - from) / 70)};
}

function axes(x, y, width, height, name) {
  const parts = [];
  for (const v of y.ticks) {
    const at = y.at(v).toFixed(1);
    parts.push(h('line', {class: 'grid', x1: left, x2: width - right, y1: at, y2: at}));
    parts.push(h('text', {class: 'tick', x: left - 6, y: Number(at) + 4, 'text-anchor': 'end'}, short(v, 6)));
  }
  for (const v of x.ticks) parts.push(h('text', {class: 'tick', x: x.at(v).toFixed(1), y: height - bottom + 15, 'text-anchor': 'middle'}, short(v, 6)));
  parts.push(h('line', {class: 'axis', x1: left, x2: width - right, y1: height - bottom, y2: height - bottom}));
  parts.push(h('text', {class: 'tick', x: (left + width - right) / 2, y: height - 4, 'text-anchor': 'middle'}, name));
  return parts;
}

function drawn(line, x, y) {
  let points = [];
  const pieces = [];
  const every = Math.max(1, Math.floor(line.x.length / 1500));
  for (let i = 0; i < line.x.length; ++i) {
    const a = line.x[i], b = line.y[i];
    if (!Number.isFinite(a) || !Number.isFinite(b) || (x.log && a <= 0) || (y.log && b <= 0)) {
      if (points.length) pieces.push(points);
      points = [];
    } else if (i % every === 0 || i + 1 === line.x.length) points.push(`${x.at(a).toFixed(1)},${y.at(b).toFixed(1)}`);
  }
  if (points.length) pieces.push(points);
  const name = lineClass(line.number);
  return pieces.map((p) => {
    const dot = ([cx, cy]) => h('circle', {class: `dot ${name}`, cx, cy, r: 3});
    const dots = line.markers || p.length === 1 ? p.map((q) => dot(q.split(','))) : [];
    return [line.marksOnly ? null : h('polyline', {class: `line ${name}${line.faint ? ' under' : ''}`, points: p.join(' ')}), dots];
  });
}

/// The index of the x nearest to a value.
function nearest(xs, value) {
  let best = 0;
  for (let i = 1; i < xs.length; ++i) if (Math.abs(xs[i] - value) < Math.abs(xs[best] - value)) best = i;
  return best;
}

/// A crosshair that follows the pointer, or the arrow keys, and says the values there.
function addReadout(svg, readout, lines, x, width, height) {
  const cross = h('line', {class: 'cross', y1: top, y2: height - bottom, x1: 0, x2: 0, visibility: 'hidden'});
  svg.append(cross);
  const longest = lines.reduce((a, b) => (b.x.length > a.x.length ? b : a), lines[0]);
  let at = longest.x.length - 1;
  const say = (index) => {
    at = Math.max(0, Math.min(longest.x.length - 1, index));
    const value = longest.x[at], px = x.at(value);
    if (!Number.isFinite(px)) return;
    cross.setAttribute('x1', px), cross.setAttribute('x2', px), cross.setAttribute('visibility', 'visible');
    const values = lines.filter((l) => !l.faint).map((l) => `${l.name} ${short(l.y[nearest(l.x, value)]) || '–'}`);
    fill(readout, `${short(value, 6)}: ${values.slice(0, 6).join(' · ')}${values.length > 6 ? ' …' : ''}`);
  };
  svg.addEventListener('pointermove', (e) => {
    const box = svg.getBoundingClientRect(), px = ((e.clientX - box.left) / box.width) * width;
    let best = 0;
    for (let i = 1; i < longest.x.length; ++i) if (Math.abs(x.at(longest.x[i]) - px) < Math.abs(x.at(longest.x[best]) - px)) best = i;
    say(best);
  });
  svg.addEventListener('pointerleave', () => { cross.setAttribute('visibility', 'hidden'); fill(readout, ''); });
  svg.addEventListener('keydown', (e) => {
    const step = {ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9}[e.key];
    if (step === undefined) return;
    e.preventDefault();
    say(at + step);
  });
}

/// A chart. lines: [{name, number, x: [...], y: [...], markers, faint}]; options: title, x (name), logX, logY, height.
export function chart(lines, options = {}) {
  const width = options.width ?? 460, height = options.height ?? 250;
  const values = (axis) => lines.flatMap((l) => l[axis]);
  const x = scaleOf(values('x'), options.logX, left, width - right), y = scaleOf(values('y'), options.logY, height - bottom, top);
  const readout = h('figcaption', {class: 'readout numbers'});
  const heading = h('h3', {id: freshId('chart')}, options.title ?? '');
  if (!x || !y) return h('figure', {class: 'chart'}, heading, h('p', {class: 'empty'}, options.logY ? 'no values above 0' : 'no values yet'));
  const names = lines.filter((l) => !l.faint).map((l) => l.name).join(', ');
  const svg = h('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', tabindex: 0, 'aria-label': `${options.title ?? 'chart'}: ${names}`},
    axes(x, y, width, height, options.x ?? ''), lines.map((l) => h('g', {}, h('title', {}, l.name), drawn(l, x, y))));
  addReadout(svg, readout, lines, x, width, height);
  return h('figure', {class: 'chart'}, heading, svg, readout);
}

/// The names of lines with their colours.
export function legend(names) {
  return h('ul', {class: 'legend'}, names.map((name, i) => h('li', {},
    h('svg', {viewBox: '0 0 24 8', 'aria-hidden': 'true'}, h('line', {class: `line ${lineClass(i)}`, x1: 0, x2: 24, y1: 4, y2: 4})), name)));
}

/// The exponential mean of a line, without the bias of its start. `share` in [0, 1).
export function smoothed(values, share) {
  if (!(share > 0)) return values;
  let mean = 0, weight = 0;
  return values.map((v) => {
    if (!Number.isFinite(v)) return v;
    mean = share * mean + (1 - share) * v;
    weight = share * weight + (1 - share);
    return mean / weight;
  });
}
