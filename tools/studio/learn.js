// Learn: noise schedules, spacings and samplers, drawn from the plugins of the server as their parameters move.
import {post, schema} from './api.js';
import {h, fill, field, button, settled} from './dom.js';
import {chart, legend, lineClass} from './chart.js';
import {pluginField, inYaml, namesOf} from './form.js';

const most = 6;

/// A list of plugins to compare, each with its parameters; `list` is changed in place.
function chooser(shape, kind, label, list, changed) {
  const box = h('div', {class: 'stack'});
  const draw = () => fill(box, list.map((value, i) => h('div', {class: 'list-item'}, h('svg', {viewBox: '0 0 24 8', class: 'swatch', 'aria-hidden': 'true'}, h('line', {class: `line ${lineClass(i)}`, x1: 0, x2: 24, y1: 4, y2: 4})),
    pluginField(shape, kind, `${label} ${i + 1}`, value, changed),
    list.length > 1 ? button('Remove', () => { list.splice(i, 1); draw(); changed(); }, {class: 'quiet', 'aria-label': `Remove ${label} ${i + 1}`}) : null)),
  h('div', {}, button(`Add ${label}`, () => { list.push({type: namesOf(shape, kind).find((n) => !list.some((v) => v.type === n)) ?? list[0].type}); draw(); changed(); }, {disabled: list.length >= most})));
  draw();
  return box;
}

const refusals = (refused) => (refused.length ? h('ul', {class: 'problems'}, refused.map((r) => h('li', {class: 'bad'}, `${r.name}: ${r.why}`))) : null);

/// Asks for the numbers of a plot as often as options move; only the last answer is drawn.
function drawing(output, request, draw, signal) {
  let asked = 0;
  const run = async () => {
    const mine = ++asked;
    output.setAttribute('aria-busy', 'true');
    try {
      const answer = await post(...request(), signal);
      if (mine === asked) fill(output, refusals(answer.refused), draw(answer));
    } catch (error) {
      if (mine === asked && error.name !== 'AbortError') fill(output, h('p', {class: 'bad'}, error.message));
    }
    if (mine === asked) output.removeAttribute('aria-busy');
  };
  run();
  return settled(run, 120);
}

function schedulesView(shape, signal) {
  const list = [{type: 'linear'}, {type: 'cosine'}, {type: 'flow'}], output = h('div', {class: 'stack plots'});
  const draw = ({schedules}) => {
    const lines = (key) => schedules.map((s, number) => ({name: s.name, number, x: s.time, y: s[key].map((v) => v ?? NaN)}));
    return [legend(schedules.map((s) => s.name)), h('div', {class: 'charts'}, chart(lines('alpha'), {title: 'Signal rate α', x: 'training time'}),
      chart(lines('sigma'), {title: 'Noise-to-signal ratio σ', x: 'training time', logY: true}), chart(lines('log_snr'), {title: 'log-SNR = −2 log σ', x: 'training time'}),
      chart(lines('alpha_bar'), {title: 'ᾱ = 1 / (1 + σ²)', x: 'training time'}))];
  };
  const changed = drawing(output, () => ['plot/schedules', {schedules: list.map(inYaml)}], draw, signal);
  return [chooser(shape, 'noise_schedule', 'schedule', list, changed), output];
}

const stepsField = (value, max, set) => {
  const shown = h('output', {class: 'numbers'}, value);
  const box = field('Steps', h('input', {type: 'range', min: 1, max, value, oninput: (e) => { fill(shown, e.target.value); set(Number(e.target.value)); }}));
  box.querySelector('label').append(' ', shown);
  return box;
};

function spacingsView(shape, signal) {
  const list = [{type: 'karras'}, {type: 'trailing'}, {type: 'uniform_logsnr'}].filter((v) => namesOf(shape, 'spacing').includes(v.type));
  const noise = {type: 'scaled_linear'}, output = h('div', {class: 'stack plots'});
  let steps = 20;
  const draw = ({spacings}) => [legend(spacings.map((s) => s.name)), h('div', {class: 'charts'},
    chart(spacings.map((s, number) => ({name: s.name, number, markers: true, x: s.sigma.map((_, i) => i), y: s.sigma})), {title: 'σ of each step; 0 is left out', x: 'step', logY: true}),
    chart(spacings.map((s, number) => ({name: s.name, number, markers: true, x: s.sigma.map((_, i) => i), y: s.t.map((v) => v ?? NaN)})), {title: 'Training time of each step', x: 'step'}))];
  const changed = drawing(output, () => ['plot/spacings', {spacings: list.map(inYaml), noise: inYaml(noise), steps}], draw, signal);
  return [h('div', {class: 'stack'}, chooser(shape, 'spacing', 'spacing', list, changed), stepsField(steps, 60, (n) => { steps = n; changed(); }),
    pluginField(shape, 'noise_schedule', 'Noise schedule', noise, changed)), output];
}

/// Paths in the plane over the density of the data.
function plane(sampler, answer, number) {
  const side = 300, reach = 3.05, at = ([x, y]) => [(x / reach + 1) / 2 * side, side - (y / reach + 1) / 2 * side];
  const blobs = answer.centres.map((c) => {
    const [cx, cy] = at(c), r = answer.spread / reach * side / 2;
    return [3, 2, 1].map((k) => h('circle', {class: `density k${k}`, cx, cy, r: r * k}));
  });
  const paths = sampler.paths.map((way) => {
    const points = way.map(at), [start, end] = [points[0], points.at(-1)];
    return h('g', {}, h('polyline', {class: `line ${lineClass(number)}`, points: points.map((p) => p.map((v) => v.toFixed(1)).join(',')).join(' ')}),
      points.map(([cx, cy]) => h('circle', {class: `step ${lineClass(number)}`, cx, cy, r: 1.7})), h('circle', {class: 'begin', cx: start[0], cy: start[1], r: 3}),
      h('circle', {class: 'end', cx: end[0], cy: end[1], r: 3.5}));
  });
  const ends = sampler.samples.map((p) => { const [cx, cy] = at(p); return h('circle', {class: 'sample', cx, cy, r: 1.3}); });
  return h('figure', {class: 'chart plane'}, h('h3', {}, sampler.name), h('svg', {viewBox: `0 0 ${side} ${side}`, role: 'img', 'aria-label': `Paths of ${sampler.name} from noise to data`}, blobs, ends, paths));
}

function samplersView(shape, signal) {
  const list = [{type: 'ddim'}, {type: 'heun'}, {type: 'euler_ancestral'}], noise = {type: 'scaled_linear'}, spacing = {type: 'karras'}, output = h('div', {class: 'stack plots'});
  let steps = 12, seed = 0, errors = true;
  const draw = (answer) => {
    const measured = answer.samplers.map((s, number) => ({...s, number})).filter((s) => s.calls?.length);
    return [h('p', {class: 'faint'}, 'Five equal Gaussians in the plane, whose denoiser is known exactly. Black: noise; coloured: steps, as x / √(1 + σ²); red: samples.'),
      h('div', {class: 'planes'}, answer.samplers.map((s, i) => plane(s, answer, i))),
      measured.length ? chart(measured.map((s) => ({name: s.name, number: s.number, markers: true, x: s.calls, y: s.error.map((v) => v ?? NaN)})),
        {title: 'Distance from the exact solution', x: 'network calls', logX: true, logY: true, width: 900, height: 330}) : null];
  };
  const changed = drawing(output, () => ['plot/samplers', {samplers: list.map(inYaml), noise: inYaml(noise), spacing: inYaml(spacing), steps, seed, errors}], draw, signal);
  const measure = h('input', {type: 'checkbox', checked: errors, onchange: (e) => { errors = e.target.checked; changed(); }});
  return [h('div', {class: 'stack'}, chooser(shape, 'sampler', 'sampler', list, changed), stepsField(steps, 60, (n) => { steps = n; changed(); }),
    field('Seed', h('input', {type: 'number', min: 0, value: seed, oninput: (e) => { seed = Number(e.target.value) || 0; changed(); }})),
    pluginField(shape, 'spacing', 'Spacing', spacing, changed), pluginField(shape, 'noise_schedule', 'Noise schedule', noise, changed), h('label', {class: 'check'}, measure, 'Measure the errors too')), output];
}

export async function learn(view, signal) {
  fill(view, h('p', {class: 'empty'}, 'Reading the plugins …'));
  const shape = await schema();
  if (signal.aborted) return;
  const views = {schedules: ['Noise schedules', schedulesView], spacings: ['Spacings', spacingsView], samplers: ['Samplers', samplersView]};
  const body = h('div', {class: 'columns learn'}), tabs = h('div', {class: 'row', role: 'group', 'aria-label': 'What is drawn'});
  const open = (name) => {
    for (const b of tabs.children) b.setAttribute('aria-pressed', String(b.dataset.name === name));
    const [options, output] = views[name][1](shape, signal);
    fill(body, h('div', {class: 'panel'}, options), output);
  };
  fill(tabs, Object.entries(views).map(([name, [text]]) => button(text, () => open(name), {dataset: {name}})));
  fill(view, h('div', {class: 'spread'}, h('h1', {}, 'Learn'), tabs), body);
  open('schedules');
}
