// Trainings: started from a configuration that is checked while it is typed, watched, stopped and continued.
import {get, post, pathOf} from './api.js';
import {h, fill, field, select, button, attempt, settled, duration, short, notice} from './dom.js';

const rowsOf = new Map();

/// A training that runs, ran or stands still.
export function trainingRow(t, changed) {
  const isRunning = t.state === 'running' || t.state === 'stopping';
  const parts = [t.state];
  if (t.steps > 0) parts.push(`step ${t.step} of ${t.steps}`);
  if (isRunning && t.rate > 0) parts.push(`${short(t.rate, 3)} images/s`);
  if (isRunning && t.eta > 0) parts.push(`${duration(t.eta)} left`);
  let row = rowsOf.get(t.name);
  if (!row) {
    const act = (verb) => () => attempt(async () => { await post(`trainings/${pathOf(t.name)}/${verb}`); await changed(); });
    row = {text: h('span', {class: 'faint numbers', role: 'status'}), bar: h('progress', {'aria-label': `Progress of ${t.name}`, max: 1, value: 0}), log: h('pre', {tabindex: 0}),
      stop: button('Stop', act('stop')), resume: button('Resume', act('resume'))};
    row.details = h('details', {}, h('summary', {}, 'Output'), row.log);
    row.element = h('section', {class: 'panel stack training', 'aria-label': `Training ${t.name}`}, h('div', {class: 'spread'}, h('h3', {}, t.name), h('div', {class: 'row'}, row.text, row.stop, row.resume)),
      row.bar, row.details);
    rowsOf.set(t.name, row);
  }
  row.element.dataset.state = t.state;
  row.text.classList.toggle('bad', t.state === 'failed');
  if (row.text.textContent !== parts.join(' · ')) fill(row.text, parts.join(' · '));
  row.bar.value = t.steps > 0 ? t.step / t.steps : 0;
  row.bar.hidden = row.stop.hidden = !isRunning;
  row.resume.hidden = isRunning || t.state === 'done' || (t.state === 'failed' && !t.step);
  row.details.hidden = !t.log;
  if (row.log.textContent !== t.log) fill(row.log, t.log);
  if (t.state === 'failed') row.details.open = true;
  return row.element;
}

const lineStart = (text, line) => text.split('\n').slice(0, line - 1).reduce((sum, row) => sum + row.length + 1, 0);

/// Selects a place of the text: line and column from 1; line 0 is the text as a whole.
function goTo(text, {line, column}) {
  if (line === 0) return text.focus();
  const at = lineStart(text.value, line) + Math.max(0, column - 1);
  text.focus();
  text.setSelectionRange(at, at + 1);
  text.scrollTop = (line - 3) * parseFloat(getComputedStyle(text).lineHeight);
}

/// The editor of a configuration with what is wrong in it.
export async function trainingPanel(changed, signal) {
  const examples = (await get('examples', signal)).examples ?? [];
  const text = h('textarea', {id: 'yaml', rows: 22, spellcheck: 'false', class: 'mono code', wrap: 'off', 'aria-describedby': 'problems',
    value: examples.find((e) => e.name === 'quickstart')?.yaml ?? ''});
  const gutter = h('pre', {class: 'gutter', 'aria-hidden': 'true'}), name = h('input', {id: 'name', required: true, pattern: '[A-Za-z0-9_=,+\\-][A-Za-z0-9._=,+\\-]*', placeholder: 'my-run'});
  const problems = h('div', {id: 'problems', role: 'status', class: 'stack'}), start = h('button', {type: 'submit', class: 'primary', disabled: true}, 'Start training');
  let asked = 0;

  const row = (p, kind) => h('li', {}, button(p.line ? `${p.line}:${p.column}` : 'file', () => goTo(text, p), {class: 'quiet place', 'aria-label': `Go to line ${p.line}, column ${p.column}`}),
    h('span', {class: kind}, `${p.path ? `${p.path}: ` : ''}${p.message}`));
  function number(marked = new Set()) {
    const count = text.value.split('\n').length;
    fill(gutter, Array.from({length: count}, (_, i) => h('span', {class: marked.has(i + 1) ? 'marked' : ''}, `${i + 1}\n`)));
    gutter.scrollTop = text.scrollTop;
  }
  async function check() {
    const mine = ++asked;
    const answer = await post('check', {yaml: text.value}, signal).catch((error) => (error.name === 'AbortError' ? null : {problems: [{line: 0, column: 0, path: '', message: error.message}], warnings: []}));
    if (mine !== asked || !answer) return;
    number(new Set(answer.problems.map((p) => p.line)));
    const isFine = answer.problems.length === 0;
    start.disabled = !isFine;
    fill(problems, isFine ? h('p', {class: 'good'}, 'No mistakes') : h('ul', {class: 'problems'}, answer.problems.map((p) => row(p, 'bad'))),
      answer.warnings.length ? h('ul', {class: 'problems'}, answer.warnings.map((p) => row(p, 'faint'))) : null);
  }
  const soon = settled(check, 250);
  text.addEventListener('input', () => { number(); soon(); });
  text.addEventListener('scroll', () => { gutter.scrollTop = text.scrollTop; });
  const beginning = select([['', 'choose …'], ...examples.map((e) => [e.name, e.name])], '', (e) => {
    const found = examples.find((x) => x.name === e.target.value);
    if (found) text.value = found.yaml;
    number();
    check();
  });
  const form = h('form', {class: 'panel stack', hidden: true, 'aria-label': 'New training'}, h('div', {class: 'row'}, field('Name of the run', name), field('Begin with', beginning)),
    h('div', {class: 'field'}, h('label', {for: 'yaml'}, 'Configuration'), h('div', {class: 'editor'}, gutter, text)), problems, h('div', {}, start));
  form.addEventListener('submit', (e) => {
    e.preventDefault();
    attempt(async () => {
      await post('trainings', {name: name.value, yaml: text.value});
      notice(`The training ${name.value} has begun`);
      form.hidden = true;
      await changed();
    });
  });
  number();
  check();
  return form;
}
