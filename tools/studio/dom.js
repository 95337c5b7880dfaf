// Elements of the page. Texts are set as text alone, never read as HTML.

const svgTags = new Set(['svg', 'path', 'line', 'polyline', 'circle', 'g', 'text', 'title', 'rect']);

/// Returns an element. Attributes: "on…" adds a listener, `class`, `dataset`, properties such as `value`, else attributes. Children: nodes,
/// texts, lists of them; null and false are left out.
export function h(tag, attributes = {}, ...children) {
  const element = svgTags.has(tag) ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'dataset') Object.assign(element.dataset, value);
    else if (['value', 'checked', 'disabled', 'selected', 'hidden'].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) add(element, child);
    else if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
  }
}

/// Replaces what an element holds.
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

let last = 0;
export const freshId = (word) => `${word}-${++last}`;

/// A label above its control, with a hint below.
export function field(label, control, hint = '') {
  const target = control.matches?.('input, select, textarea') ? control : control.querySelector('input, select, textarea');
  const id = target.id || (target.id = freshId('field'));
  const note = hint ? h('small', {id: id + '-hint'}, hint) : null;
  if (note) target.setAttribute('aria-describedby', note.id);
  return h('div', {class: 'field'}, h('label', {for: id}, label), control, note);
}

export const button = (text, onclick, attributes = {}) => h('button', {type: 'button', onclick, ...attributes}, text);

/// A select of texts, or of [value, text].
export function select(choices, value, onchange, attributes = {}) {
  const options = choices.map((c) => (Array.isArray(c) ? c : [c, c]));
  return h('select', {onchange, ...attributes}, options.map(([v, text]) => h('option', {value: v, selected: v === value}, text)));
}

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, '0');
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

/// A number with so many digits that it can be read.
export function short(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '';
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return String(value);
  return String(Number(value.toPrecision(digits)));
}

/// Calls `f` once nothing has called for it for so many milliseconds.
export function settled(f, milliseconds = 250) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...values), milliseconds);
  };
}

/// Says something for a while at the lower edge of the page; errors stay until they are put away.
export function notice(text, isError = false) {
  const row = h('div', {class: isError ? 'notice error' : 'notice'}, h('span', {}, text));
  row.append(button('×', () => row.remove(), {class: 'quiet', 'aria-label': 'Put away'}));
  document.getElementById('notices').append(row);
  if (!isError) setTimeout(() => row.remove(), 5000);
}

/// Runs work that may fail, and says why it did.
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    notice(error.message, true);
    return undefined;
  }
}
