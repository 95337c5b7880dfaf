// X/Y plots: any two settings against each other, an image per pair of values.
import {h, fill, field, button, select, attempt, notice} from './dom.js';
import {namesOf, pluginValue, written} from './form.js';
import {submit, watch, cancel, isOver, picture, progressText} from './jobs.js';
import {showPicture, pictureBlob} from './api.js';

const mostCells = 64;

const set = (key, read) => (request, text) => { request[key] = read(text); };
const number = (text) => {
  if (text.trim() === '' || !Number.isFinite(Number(text))) throw new Error(`'${text}' is no number`);
  return Number(text);
};

/// The settings that can vary: a name, an example, and how a value is laid over the request.
function axesOf() {
  return {
    'steps': ['5, 10, 20', set('steps', number)], 'guidance scale': ['1, 3, 7', set('cfg', number)], 'seed': ['0, 1, 2', set('seed', number)],
    'sampler': ['ddim, euler, dpmpp_2m', set('sampler', String)], 'spacing': ['trailing, karras', set('spacing', String)],
    'class': ['', (r, text) => { r.classes = [text]; }], 'prompt': ['', (r, text) => { r.prompts = [text]; }],
    'negative prompt': ['', (r, text) => { r.negatives = [text]; }], 'strength': ['0.3, 0.6, 0.9', set('strength', number)],
    'LoRA': ['file:0.5, file:1', (r, text) => { r.loras = [text]; }], 'width': ['16, 32', set('width', number)], 'height': ['16, 32', set('height', number)],
  };
}

/// Adds the parameters of the chosen sampler, such as "sampler.eta".
function addParameters(axes, schema, state, sample) {
  const name = state.sampler?.type ?? sample ?? 'ddim';
  const found = schema.definitions?.sampler?.anyOf?.find((a) => a.properties?.type?.const === name);
  for (const key of Object.keys(found?.properties ?? {})) {
    if (key === 'type' || key === 'include') continue;
    axes[`sampler.${key}`] = ['', (request, text) => {
      const value = text === 'true' ? true : text === 'false' ? false : Number.isFinite(Number(text)) ? Number(text) : text;
      request.sampler = written({...(state.sampler ?? {type: name}), [key]: value});
    }];
  }
}

/// Values between commas; commas in braces and quotes do not count.
export function valuesOf(text) {
  const all = [];
  let depth = 0, quoted = false, one = '';
  for (const c of text) {
    if (c === '"') quoted = !quoted;
    if (!quoted && '{['.includes(c)) ++depth;
    if (!quoted && '}]'.includes(c)) --depth;
    if (c === ',' && depth === 0 && !quoted) {
      all.push(one);
      one = '';
    } else one += c;
  }
  return [...all, one].map((v) => v.trim().replace(/^"(.*)"$/, '$1')).filter((v) => v !== '');
}

/// Draws the finished grid on one picture.
async function save(cells, xs, ys) {
  const blobs = await Promise.all(cells.map((row) => Promise.all(row.map((path) => (path ? pictureBlob(path).then(createImageBitmap) : null)))));
  const first = blobs.flat().find(Boolean);
  if (!first) throw new Error('no image of the grid is ready');
  const zoom = Math.max(1, Math.round(96 / first.width)), w = first.width * zoom, hh = first.height * zoom, side = 90, above = 26, gap = 4;
  const canvas = h('canvas', {});
  canvas.width = side + xs.length * (w + gap), canvas.height = above + ys.length * (hh + gap);
  const context = canvas.getContext('2d');
  context.fillStyle = '#fff';
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = '#222';
  context.font = '12px sans-serif';
  xs.forEach((x, j) => context.fillText(x, side + j * (w + gap), 17, w));
  ys.forEach((y, i) => context.fillText(y, 4, above + i * (hh + gap) + hh / 2, side - 8));
  context.imageSmoothingEnabled = false;
  blobs.forEach((row, i) => row.forEach((image, j) => image && context.drawImage(image, side + j * (w + gap), above + i * (hh + gap), w, hh)));
  const link = h('a', {href: canvas.toDataURL('image/png'), download: 'grid.png'});
  document.body.append(link);
  link.click();
  link.remove();
}

function tableOf(xName, yName, xs, ys) {
  const places = ys.map(() => xs.map(() => h('td', {class: 'cell'}, h('span', {class: 'faint'}, 'waiting'))));
  const table = h('table', {class: 'xy'}, h('caption', {}, `${xName} across, ${yName} down`),
    h('thead', {}, h('tr', {}, h('td', {}), xs.map((x) => h('th', {scope: 'col'}, x)))),
    h('tbody', {}, ys.map((y, i) => h('tr', {}, h('th', {scope: 'row'}, y), places[i]))));
  return {table, places};
}

/// Returns a request per pair of values, rows by `y`. `base()` makes a new request; an axis is {name, values}, two input elements.
function requestsOf(x, y, axes, base) {
  const xs = valuesOf(x.values.value), ys = valuesOf(y.values.value);
  if (xs.length === 0 || ys.length === 0) throw new Error('each axis needs values, with commas between them');
  if (xs.length * ys.length > mostCells) throw new Error(`${xs.length * ys.length} images are more than the ${mostCells} of a grid`);
  if (x.name.value === y.name.value) throw new Error('the two axes are the same setting');
  const requests = ys.map((b) => xs.map((a) => {
    const request = base();
    axes[x.name.value][1](request, a);
    axes[y.name.value][1](request, b);
    return request;
  }));
  return {xs, ys, requests};
}

/// The panel. `about()` returns {model, start, shape}; `requestOf` makes a request of the settings.
export function gridPanel(state, about, requestOf, results, signal) {
  const {model, shape} = about();
  const axes = axesOf();
  addParameters(axes, shape, state, pluginValue(model?.defaults?.sampler, 'ddim').type);
  if (model?.classes?.length) axes.class[0] = model.classes.slice(0, 3).join(', ');
  if (!model?.text) { delete axes.prompt; delete axes['negative prompt']; }
  axes.sampler[0] = namesOf(shape, 'sampler').filter((n) => ['ddim', 'euler', 'dpmpp_2m'].includes(n)).join(', ');
  const side = (label, standard) => {
    const values = h('input', {value: axes[standard][0]});
    const name = select(Object.keys(axes), standard, () => { values.value = axes[name.value][0]; });
    return {name, values, element: h('div', {class: 'stack'}, field(`${label} axis`, name), field(`${label} values`, values))};
  };
  const x = side('X', 'steps'), y = side('Y', 'guidance scale');

  async function run() {
    const {xs, ys, requests} = requestsOf(x, y, axes, () => ({...requestOf(state, about().model, about().start), count: 1, preview: 0}));
    const {table, places} = tableOf(x.name.value, y.name.value, xs, ys), cells = ys.map(() => xs.map(() => null)), open = new Set();
    let stopped = false;
    const stop = button('Cancel', () => { stopped = true; for (const id of open) attempt(() => cancel(id)); }, {class: 'quiet danger'});
    const card = h('article', {class: 'panel job', 'aria-label': 'X/Y plot', dataset: {state: 'running'}}, h('div', {class: 'spread'}, h('h3', {}, 'X/Y plot'),
      h('div', {class: 'row'}, button('Download grid', () => attempt(() => save(cells, xs, ys)), {class: 'quiet'}), stop)), h('div', {class: 'wide', tabindex: 0, role: 'region', 'aria-label': 'X/Y plot'}, table));
    results.querySelector('.empty')?.remove();
    results.prepend(card);
    const one = async (i, j) => {
      if (stopped || signal.aborted) return;
      try {
        const job = await submit(requests[i][j]);
        open.add(job.id);
        const ended = await watch(job.id, (now) => { if (!isOver(now)) fill(places[i][j], h('span', {class: 'faint numbers'}, progressText(now))); }, signal);
        open.delete(job.id);
        if (ended.state !== 'done') throw new Error(progressText(ended));
        const img = h('img', {alt: `${x.name.value} ${xs[j]}, ${y.name.value} ${ys[i]}`});
        await showPicture(img, cells[i][j] = picture(ended, 0));
        fill(places[i][j], img);
      } catch (error) {
        fill(places[i][j], h('span', {class: 'bad'}, error.message));
      }
    };
    // Two at a time: the queue stays short for others.
    const order = ys.flatMap((_, i) => xs.map((__, j) => [i, j]));
    await Promise.all([0, 1].map(async () => { while (order.length) await one(...order.shift()); }));
    card.dataset.state = 'done';
    stop.hidden = true;
    if (stopped) notice('The X/Y plot was cancelled');
  }
  return h('details', {class: 'panel'}, h('summary', {}, 'X/Y plot'), h('div', {class: 'stack'}, h('div', {class: 'pair'}, x.element, y.element),
    h('small', {}, 'One image per pair of values, with the settings above and their seed.'), h('div', {}, button('Make grid', () => attempt(run)))));
}
