// Runs: curves, sample grids, configurations and evaluations of trainings.
import {get, pathOf, showPicture} from './api.js';
import {h, fill, field, select, button, attempt, short, notice} from './dom.js';
import {chart, legend, smoothed} from './chart.js';
import {trainingPanel, trainingRow} from './training.js';

const machine = new Set(['images_per_second', 'data_share', 'memory_mb', 'seconds']);
const minor = (name) => machine.has(name) || name.startsWith('validation_loss_') || ['lr', 'grad_norm', 'ema_decay'].includes(name);
const most = 8;

const wide = (name, table) => h('div', {class: 'wide', tabindex: 0, role: 'region', 'aria-label': name}, table);
const tableOf = (columns, rows) => h('table', {}, h('thead', {}, h('tr', {}, columns.map((c) => h('th', {scope: 'col'}, c)))),
  h('tbody', {}, rows.map((row) => h('tr', {}, row.map((cell) => h('td', {class: typeof cell === 'number' ? 'number' : ''}, typeof cell === 'number' ? short(cell) : cell))))));

/// The metrics of runs, read again from where they ended.
class Metrics {
  #runs = new Map();
  async update(name) {
    const known = this.#runs.get(name) ?? {step: -1, figures: {}};
    const more = await get(`runs/${pathOf(name)}/metrics?after=${known.step}`);
    for (const [figure, columns] of Object.entries(more.figures)) {
      const kept = (known.figures[figure] ??= {step: [], value: []});
      kept.step.push(...columns.step);
      kept.value.push(...columns.value);
    }
    const grown = more.step > known.step;
    known.step = Math.max(known.step, more.step);
    this.#runs.set(name, known);
    return grown;
  }
  figures(names) {
    const all = new Set(names.flatMap((n) => Object.keys(this.#runs.get(n)?.figures ?? {})));
    return [...all].sort((a, b) => minor(a) - minor(b) || a.localeCompare(b));
  }
  line(name, figure) { return this.#runs.get(name)?.figures[figure]; }
}

function curves(metrics, names, settings) {
  const figures = metrics.figures(names).filter((f) => settings.figure === 'all' || (settings.figure === 'main' ? !minor(f) : f === settings.figure));
  return figures.map((figure) => {
    const lines = names.flatMap((name, number) => {
      const line = metrics.line(name, figure);
      if (!line) return [];
      const x = line.step, y = line.value.map((v) => v ?? NaN), soft = {name, number, x, y: smoothed(y, settings.smoothing)};
      return settings.smoothing > 0 ? [{...soft, y, faint: true}, soft] : [soft];
    });
    const tall = figures.length === 1;
    return chart(lines, {title: figure, x: 'step', logY: settings.log, width: tall ? 900 : 460, height: tall ? 380 : 250});
  });
}

/// Sample grids of runs by step, those of one step in one column.
function grids(records) {
  const steps = [...new Set(records.flatMap((r) => r.grids))].sort((a, b) => a - b);
  if (steps.length === 0) return h('p', {class: 'faint'}, 'No sample grids.');
  const shown = steps.length <= 6 ? steps : Array.from({length: 6}, (_, i) => steps[Math.round(i * (steps.length - 1) / 5)]);
  const cell = (record, step) => {
    if (!record.grids.includes(step)) return h('td', {});
    const img = h('img', {alt: `Samples of ${record.name} at step ${step}`, loading: 'lazy'});
    attempt(() => showPicture(img, `runs/${pathOf(record.name)}/grids/${step}.png`));
    return h('td', {}, img);
  };
  return wide('Sample grids', h('table', {class: 'grids'}, h('thead', {}, h('tr', {}, h('td', {}), shown.map((s) => h('th', {scope: 'col'}, `step ${s}`)))),
    h('tbody', {}, records.map((r) => h('tr', {}, h('th', {scope: 'row'}, r.name), shown.map((s) => cell(r, s)))))));
}

function evaluations(records) {
  const rows = records.flatMap((r) => r.evaluations.map((e) => ({run: r.name, ...e})));
  if (rows.length === 0) return h('p', {class: 'faint'}, 'No evaluations: brume evaluate --json writes them into a run.');
  const names = [...new Set(rows.flatMap((r) => Object.keys(r.figures)))].sort();
  return wide('Evaluations', tableOf(['run', 'file', 'set', 'sampler', 'steps', ...names],
    rows.map((r) => [r.run, r.file, r.set, r.sampler, r.steps || '', ...names.map((n) => r.figures[n] ?? '')])));
}

/// The keys in which runs differ, or all keys of one.
function differences(records) {
  const keys = [...new Set(records.flatMap((r) => Object.keys(r.configuration)))].sort();
  const differing = records.length === 1 ? [] : keys.filter((k) => new Set(records.map((r) => r.configuration[k])).size > 1);
  return [records.length > 1
    ? differing.length ? wide('Differences', tableOf(['key', ...records.map((r) => r.name)], differing.map((k) => [h('code', {}, k), ...records.map((r) => h('code', {}, r.configuration[k] ?? '–'))])))
      : h('p', {class: 'faint'}, 'The configurations are the same.')
    : null,
  records.map((r) => h('details', {}, h('summary', {}, `Configuration of ${r.name}`), h('pre', {tabindex: 0}, r.yaml)))];
}

const section = (title, ...content) => h('section', {class: 'panel stack', 'aria-label': title}, h('h2', {}, title), content);

export async function runs(view, signal) {
  fill(view, h('p', {class: 'empty'}, 'Reading the runs …'));
  const metrics = new Metrics(), chosen = new Set(), settings = {figure: 'main', smoothing: 0, log: false};
  let records = [], trainings = [], detailed = [];
  const rows = h('div', {class: 'stack'}), plots = h('div', {class: 'charts'}), names = h('div', {}), picker = h('div', {});
  const below = h('div', {class: 'stack'}), active = h('div', {class: 'stack'});

  function drawRuns(listed) {
    fill(rows, records.length === 0 ? h('p', {class: 'empty'}, 'No runs yet. Start a training from its configuration.') : wide('Runs',
      tableOf(['', 'run', 'state', 'step', ...listed, 'loss'], records.map((r) => [
        h('input', {type: 'checkbox', checked: chosen.has(r.name), 'aria-label': `Show ${r.name}`, onchange: (e) => { if (e.target.checked) chosen.add(r.name); else chosen.delete(r.name); attempt(show); }}),
        r.name, h('span', {title: r.note}, r.state), `${r.step} / ${r.steps}`, ...listed.map((k) => h('code', {}, r.differs?.[k] ?? '')), r.figures.loss?.last ?? '']))));
  }
  function drawCurves() {
    const all = [...chosen];
    fill(names, legend(all));
    fill(plots, curves(metrics, all, settings));
    const figures = metrics.figures(all), options = [['main', 'losses and figures'], ['all', 'everything'], ...figures.map((f) => [f, f])];
    const key = options.map((o) => o[0]).join();
    if (picker.dataset.key === key) return;
    picker.dataset.key = key;
    fill(picker, field('Metric', select(options, settings.figure, (e) => { settings.figure = e.target.value; drawCurves(); }, {id: 'metric'})));
  }
  async function show() {
    const all = [...chosen];
    if (all.length > most) notice(`${most} runs at once are shown`);
    for (const name of all.slice(most)) chosen.delete(name);
    await Promise.all([...chosen].map((n) => metrics.update(n)));
    detailed = await Promise.all([...chosen].map((n) => get(`runs/${pathOf(n)}`, signal)));
    drawCurves();
    fill(below, detailed.length === 0 ? null : [section('Samples', grids(detailed)), section('Evaluations', evaluations(detailed)), section('Configuration', differences(detailed))]);
  }
  async function list() {
    const answer = await get('runs', signal);
    const before = new Set(records.map((r) => r.name));
    const first = records.length === 0;
    records = answer.runs;
    const news = records.filter((r) => !before.has(r.name));
    if (first) news.slice(-3).forEach((r) => chosen.add(r.name));
    else news.forEach((r) => chosen.add(r.name));
    drawRuns(answer.differing.slice(0, 4));
    return news.length > 0;
  }
  async function look() {
    trainings = (await get('trainings', signal)).trainings;
    const stopped = records.filter((r) => r.state === 'stopped' && !trainings.some((t) => t.name === r.name));
    fill(active, trainings.map((t) => trainingRow(t, poke)), stopped.map((r) => trainingRow({name: r.name, state: 'stopped', step: r.step, steps: r.steps, log: ''}, poke)));
  }
  let gridCount = '';
  async function poke() {
    const grown = await list();
    await look();
    const counts = records.filter((r) => chosen.has(r.name)).map((r) => `${r.name}:${r.grids.length}:${r.state}`).join();
    if (grown || counts !== gridCount) await show();
    else if ((await Promise.all([...chosen].map((n) => metrics.update(n)))).some(Boolean)) drawCurves();
    gridCount = counts;
  }
  const smoothing = h('input', {type: 'range', min: 0, max: 0.98, step: 0.02, value: 0, id: 'smoothing', oninput: (e) => { settings.smoothing = Number(e.target.value); drawCurves(); }});
  const log = h('input', {type: 'checkbox', id: 'log', onchange: (e) => { settings.log = e.target.checked; drawCurves(); }});
  await poke();
  if (signal.aborted) return;
  fill(view, h('div', {class: 'spread'}, h('h1', {}, 'Runs'), button('New training', () => { panel.hidden = !panel.hidden; if (!panel.hidden) panel.querySelector('textarea').focus(); }, {class: 'primary'})));
  const panel = await trainingPanel(poke, signal);
  view.append(panel, h('div', {class: 'stack'}, active, h('section', {class: 'panel', 'aria-label': 'All runs'}, rows),
    section('Curves', h('div', {class: 'row'}, picker, field('Smoothing', smoothing), h('label', {class: 'check'}, log, 'Logarithmic axis')), names, plots), below));
  const every = setInterval(() => { if (document.visibilityState === 'visible') poke().catch(() => {}); }, 1500);
  signal.addEventListener('abort', () => clearInterval(every));
}
