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

/// The page: a table of runs, and the curves, samples, evaluations and configurations of those that are chosen.
class Runs {
  #signal;
  #metrics = new Metrics();
  #chosen = new Set();
  #settings = {figure: 'main', smoothing: 0, log: false};
  #records = [];
  #gridCount = '';
  #rows = h('div', {class: 'stack'});
  #plots = h('div', {class: 'charts'});
  #names = h('div', {});
  #picker = h('div', {});
  #below = h('div', {class: 'stack'});
  #active = h('div', {class: 'stack'});
  constructor(signal) { this.#signal = signal; }

  /// Reads what has changed, and shows it.
  async update() {
    const grown = await this.#list();
    await this.#look();
    const counts = this.#records.filter((r) => this.#chosen.has(r.name)).map((r) => `${r.name}:${r.grids.length}:${r.state}`).join();
    if (grown || counts !== this.#gridCount) await this.#show();
    else if ((await Promise.all([...this.#chosen].map((n) => this.#metrics.update(n)))).some(Boolean)) this.#drawCurves();
    this.#gridCount = counts;
  }
  elements() {
    const smoothing = h('input', {type: 'range', min: 0, max: 0.98, step: 0.02, value: 0, id: 'smoothing', oninput: (e) => { this.#settings.smoothing = Number(e.target.value); this.#drawCurves(); }});
    const log = h('input', {type: 'checkbox', id: 'log', onchange: (e) => { this.#settings.log = e.target.checked; this.#drawCurves(); }});
    return h('div', {class: 'stack'}, this.#active, h('section', {class: 'panel', 'aria-label': 'All runs'}, this.#rows),
      section('Curves', h('div', {class: 'row'}, this.#picker, field('Smoothing', smoothing), h('label', {class: 'check'}, log, 'Logarithmic axis')), this.#names, this.#plots), this.#below);
  }

  #drawRuns(listed) {
    const choose = (r) => (e) => { if (e.target.checked) this.#chosen.add(r.name); else this.#chosen.delete(r.name); attempt(() => this.#show()); };
    fill(this.#rows, this.#records.length === 0 ? h('p', {class: 'empty'}, 'No runs yet. Start a training from its configuration.') : wide('Runs',
      tableOf(['', 'run', 'state', 'step', ...listed, 'loss'], this.#records.map((r) => [
        h('input', {type: 'checkbox', checked: this.#chosen.has(r.name), 'aria-label': `Show ${r.name}`, onchange: choose(r)}),
        r.name, h('span', {title: r.note}, r.state), `${r.step} / ${r.steps}`, ...listed.map((k) => h('code', {}, r.differs?.[k] ?? '')), r.figures.loss?.last ?? '']))));
  }
  #drawCurves() {
    const all = [...this.#chosen];
    fill(this.#names, legend(all));
    fill(this.#plots, curves(this.#metrics, all, this.#settings));
    const figures = this.#metrics.figures(all), options = [['main', 'losses and figures'], ['all', 'everything'], ...figures.map((f) => [f, f])];
    const key = options.map((o) => o[0]).join();
    if (this.#picker.dataset.key === key) return;
    this.#picker.dataset.key = key;
    fill(this.#picker, field('Metric', select(options, this.#settings.figure, (e) => { this.#settings.figure = e.target.value; this.#drawCurves(); }, {id: 'metric'})));
  }
  async #show() {
    const all = [...this.#chosen];
    if (all.length > most) notice(`${most} runs at once are shown`);
    for (const name of all.slice(most)) this.#chosen.delete(name);
    await Promise.all([...this.#chosen].map((n) => this.#metrics.update(n)));
    const detailed = await Promise.all([...this.#chosen].map((n) => get(`runs/${pathOf(n)}`, this.#signal)));
    this.#drawCurves();
    fill(this.#below, detailed.length === 0 ? null : [section('Samples', grids(detailed)), section('Evaluations', evaluations(detailed)), section('Configuration', differences(detailed))]);
  }
  /// Returns true if there are new runs, which are chosen: all, or of the first list the last three.
  async #list() {
    const answer = await get('runs', this.#signal);
    const before = new Set(this.#records.map((r) => r.name)), first = this.#records.length === 0;
    this.#records = answer.runs;
    const news = this.#records.filter((r) => !before.has(r.name));
    for (const r of first ? news.slice(-3) : news) this.#chosen.add(r.name);
    this.#drawRuns(answer.differing.slice(0, 4));
    return news.length > 0;
  }
  async #look() {
    const {trainings} = await get('trainings', this.#signal), changed = () => this.update();
    const stopped = this.#records.filter((r) => r.state === 'stopped' && !trainings.some((t) => t.name === r.name));
    fill(this.#active, trainings.map((t) => trainingRow(t, changed)),
      stopped.map((r) => trainingRow({name: r.name, state: 'stopped', step: r.step, steps: r.steps, log: ''}, changed)));
  }
}

export async function runs(view, signal) {
  fill(view, h('p', {class: 'empty'}, 'Reading the runs …'));
  const page = new Runs(signal);
  await page.update();
  if (signal.aborted) return;
  const panel = await trainingPanel(() => page.update(), signal);
  const open = () => { panel.hidden = !panel.hidden; if (!panel.hidden) panel.querySelector('textarea').focus(); };
  fill(view, h('div', {class: 'spread'}, h('h1', {}, 'Runs'), button('New training', open, {class: 'primary'})), panel, page.elements());
  const every = setInterval(() => { if (document.visibilityState === 'visible') page.update().catch(() => {}); }, 1500);
  signal.addEventListener('abort', () => clearInterval(every));
}
