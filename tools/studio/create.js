// Create: settings on one side, pictures on the other.
import {get, schema, pictureBlob} from './api.js';
import {h, fill, field, button, select, attempt, notice, freshId} from './dom.js';
import {pluginField, pluginList, pluginValue, written} from './form.js';
import {picturePicker} from './mask.js';
import {submit, watch, jobCard, picture, download, titleOf, isOver} from './jobs.js';
import {gridPanel} from './grid.js';

const store = 'brume-create';

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(store)) ?? {};
  } catch {
    return {};
  }
}

/// Settings that another page leaves for this one: a request to use again, and a picture to start from.
export const handed = {request: null, picture: null};

const fresh = () => ({model: '', prompt: '', negative: '', classes: [], sampler: null, spacing: null, steps: '', cfg: '', guidance: null, width: '', height: '',
  count: 4, seed: 0, randomSeed: false, strength: '', loras: []});

/// Lays the settings of a finished job over those of the form.
function adopt(state, request) {
  Object.assign(state, fresh(), {model: request.model ?? state.model, prompt: (request.prompts ?? []).join('\n'), negative: request.negatives?.[0] ?? '',
    classes: request.classes ?? [], count: request.count || 4, seed: request.seed ?? 0, steps: request.steps ?? '', cfg: request.cfg ?? '',
    width: request.width || '', height: request.height || '', strength: request.strength ?? ''});
  if (request.sampler) state.sampler = pluginValue(request.sampler);
  if (request.spacing) state.spacing = pluginValue(request.spacing);
  for (const lora of request.loras ?? []) {
    const colon = typeof lora === 'string' ? lora.lastIndexOf(':') : 0;
    state.loras.push(typeof lora === 'object' ? {file: lora.file, strength: lora.scale ?? 1} : colon > 0 ? {file: lora.slice(0, colon), strength: Number(lora.slice(colon + 1))} : {file: lora, strength: 1});
  }
  if (Array.isArray(request.guidance)) state.guidance = request.guidance.map((g) => pluginValue(g));
}

/// A number, or the text of one that JavaScript would round.
const seedOf = (seed) => (Number.isSafeInteger(Number(seed)) ? Number(seed) : String(seed).trim());

/// The request of the API for these settings.
export function requestOf(state, model, start) {
  const number = (text) => (text === '' || text === null ? undefined : Number(text));
  const request = {model: state.model, count: Number(state.count) || 1, seed: seedOf(state.seed), steps: number(state.steps), cfg: number(state.cfg),
    width: number(state.width), height: number(state.height), preview: 2};
  if (model?.text) {
    request.prompts = state.prompt.split('\n').map((p) => p.trim()).filter(Boolean);
    if (request.prompts.length === 0) request.prompts = [''];
    if (state.negative.trim()) request.negatives = [state.negative.trim()];
  } else if (state.classes.length) request.classes = [...state.classes];
  if (state.sampler) request.sampler = written(state.sampler);
  if (state.spacing) request.spacing = written(state.spacing);
  if (state.loras.length) request.loras = state.loras.map((l) => `${l.file}:${l.strength}`);
  if (state.guidance) request.guidance = state.guidance.map((g) => (Object.keys(g).length === 1 ? g.type : g));
  if (state.guidance) delete request.cfg;
  const given = start?.value();
  if (given) Object.assign(request, given, {strength: number(state.strength)});
  for (const key of Object.keys(request)) if (request[key] === undefined) delete request[key];
  return request;
}

const input = (state, key, changed, attributes = {}) => h('input', {value: state[key], oninput: (e) => { state[key] = e.target.value; changed(); }, ...attributes});

function contentFields(state, model, changed) {
  if (model?.text) {
    return [field('Prompt', h('textarea', {rows: 3, id: 'prompt', value: state.prompt, oninput: (e) => { state.prompt = e.target.value; changed(); }}), 'One per line.'),
      field('Negative prompt', input(state, 'negative', changed))];
  }
  const classes = model?.classes ?? [];
  if (classes.length === 0) return [];
  const picker = h('select', {id: 'classes', multiple: true, size: Math.min(7, classes.length), onchange: () => {
    state.classes = [...picker.selectedOptions].map((o) => o.value);
    changed();
  }}, classes.map((c) => h('option', {value: c, selected: state.classes.includes(c)}, c)));
  return [field('Classes', picker, 'Taken in turn; none: every class in turn. Hold Ctrl for several.')];
}

function loraFields(state, known, changed) {
  const rows = h('div', {class: 'stack'});
  const draw = () => fill(rows, state.loras.map((lora, i) => h('div', {class: 'row'},
    field(`LoRA ${i + 1}`, select(known.includes(lora.file) ? known : [lora.file, ...known], lora.file, (e) => { lora.file = e.target.value; changed(); })),
    field('Strength', h('input', {type: 'number', step: 0.05, value: lora.strength, oninput: (e) => { lora.strength = Number(e.target.value); changed(); }})),
    button('Remove', () => { state.loras.splice(i, 1); draw(); changed(); }, {class: 'quiet', 'aria-label': `Remove LoRA ${i + 1}`}))));
  draw();
  if (known.length === 0 && state.loras.length === 0) return h('small', {}, 'The server has no LoRA files in its folders.');
  return h('div', {class: 'stack'}, rows, h('div', {}, button('Add LoRA', () => { state.loras.push({file: known[0], strength: 1}); draw(); changed(); })));
}

function samplingFields(state, shape, changed) {
  const own = {sampler: state.sampler ?? pluginValue(shape.sample?.sampler, 'ddim'), spacing: state.spacing ?? pluginValue(shape.sample?.spacing, 'trailing')};
  const keep = (key) => () => { state[key] = own[key]; changed(); };
  const guidance = h('div', {class: 'stack'});
  const drawGuidance = () => fill(guidance, state.guidance
    ? [pluginList(shape.schema, 'guidance', 'guidance', state.guidance, changed),
      button('As the model has it', () => { state.guidance = null; drawGuidance(); changed(); }, {class: 'quiet'})]
    : [button('Choose guidances', () => { state.guidance = (shape.sample?.guidance ?? ['cfg']).map((g) => pluginValue(g)); drawGuidance(); changed(); })]);
  drawGuidance();
  return [h('div', {class: 'pair'}, field('Steps', input(state, 'steps', changed, {type: 'number', min: 1, max: 1000, id: 'steps', placeholder: String(shape.sample?.steps ?? 'own')})),
    field('Guidance scale', input(state, 'cfg', changed, {type: 'number', min: 0, step: 0.1, id: 'cfg', placeholder: 'own'}))),
  pluginField(shape.schema, 'sampler', 'Sampler', own.sampler, keep('sampler')),
  pluginField(shape.schema, 'spacing', 'Spacing', own.spacing, keep('spacing')),
  h('details', {open: Boolean(state.guidance)}, h('summary', {}, 'Guidances'), guidance)];
}

function sizeFields(state, model, changed) {
  const seed = input(state, 'seed', changed, {type: 'number', min: 0, step: 1, id: 'seed'});
  const random = h('input', {type: 'checkbox', checked: state.randomSeed, onchange: (e) => { state.randomSeed = e.target.checked; changed(); }});
  return [h('div', {class: 'pair'}, field('Images', input(state, 'count', changed, {type: 'number', min: 1, max: 64, id: 'count'})), field('Seed', seed)),
    h('label', {class: 'check'}, random, 'A fresh seed each time'),
    h('div', {class: 'pair'}, field('Width', input(state, 'width', changed, {type: 'number', min: 1, placeholder: String(model?.image?.width ?? '')})),
      field('Height', input(state, 'height', changed, {type: 'number', min: 1, placeholder: String(model?.image?.height ?? '')})))];
}

/// What a finished picture offers.
function actionsOf(state, start, redraw) {
  return (job, k) => [
    button('Download', () => attempt(() => download(picture(job, k), `${job.id}-${k}.png`)), {class: 'quiet'}),
    button('Start from it', () => attempt(async () => {
      await start.set(URL.createObjectURL(await pictureBlob(picture(job, k))));
      notice('The next images start from this picture');
      redraw();
    }), {class: 'quiet'})];
}

/// The settings of a model. `all` is the answer of /models, `usable` its models that can be opened; `chosen` is called with a model's id.
function settingsOf(state, model, {all, usable, shape, start}, changed, chosen) {
  const described = {schema: shape, sample: model?.defaults};
  return [
    field('Model', select(usable.map((m) => [m.id, m.name ?? m.id]), state.model, (e) => chosen(e.target.value), {id: 'model'})),
    (all.models ?? []).filter((m) => m.error).map((m) => h('small', {class: 'bad'}, `${m.name ?? m.id}: ${m.error.message ?? m.error}`)),
    contentFields(state, model, changed), sizeFields(state, model, changed), samplingFields(state, described, changed),
    h('details', {}, h('summary', {}, 'Picture and mask'), h('div', {class: 'stack'}, start.element,
      field('Strength', input(state, 'strength', changed, {type: 'number', min: 0.01, max: 1, step: 0.05, placeholder: '0.6; 1 with a mask'}), 'Share of the steps that is run on the picture.'))),
    h('details', {open: state.loras.length > 0}, h('summary', {}, 'LoRAs'), loraFields(state, all.loras ?? [], changed)),
    h('div', {class: 'go'}, h('button', {type: 'submit', class: 'primary', disabled: !model}, 'Make images'))];
}

export async function create(view, signal) {
  fill(view, h('p', {class: 'empty'}, 'Opening the models …'));
  const [models, shape] = await Promise.all([get('models', signal), schema()]);
  const usable = (models.models ?? []).filter((m) => !m.error);
  const state = Object.assign(fresh(), remembered());
  if (handed.request) adopt(state, handed.request);
  handed.request = null;
  if (!usable.some((m) => m.id === state.model)) state.model = usable[0]?.id ?? '';
  const results = h('div', {class: 'stack', id: 'results'}, h('p', {class: 'empty'}, usable.length ? 'Images appear here.' : 'The server has no model yet: train one under Runs.'));
  const form = h('form', {class: 'stack settings', 'aria-label': 'Settings'});
  const changed = () => localStorage.setItem(store, JSON.stringify(state));
  const start = picturePicker(changed);
  if (handed.picture) attempt(async () => start.set(URL.createObjectURL(await pictureBlob(handed.picture)))).finally(() => { handed.picture = null; });
  const modelOf = () => usable.find((m) => m.id === state.model);

  /// Shows a job from now to its end.
  function show(job) {
    const {card, update} = jobCard(job.id, titleOf(job), actionsOf(state, start, () => form.scrollIntoView()));
    results.querySelector('.empty')?.remove();
    results.prepend(card);
    return watch(job.id, update, signal);
  }
  function draw() {
    const model = modelOf();
    fill(form, settingsOf(state, model, {all: models, usable, shape, start}, changed, (id) => {
      Object.assign(state, {model: id, classes: [], sampler: null, spacing: null, guidance: null});
      changed();
      draw();
    }));
    fill(sweep, gridPanel(state, () => ({model: modelOf(), start, shape}), requestOf, results, signal));
  }
  const sweep = h('div', {});
  form.addEventListener('submit', (e) => {
    e.preventDefault();
    if (state.randomSeed) {
      state.seed = Math.floor(Math.random() * 2 ** 32);
      form.querySelector('#seed').value = state.seed;
      changed();
    }
    attempt(async () => show(await submit(requestOf(state, modelOf(), start))));
  });
  draw();
  const headings = [freshId('heading')];
  fill(view, h('h1', {id: headings[0]}, 'Create'), h('div', {class: 'columns'}, h('div', {class: 'stack'}, h('div', {class: 'panel'}, form), sweep), results));
  // What was begun before the page was left goes on.
  for (const job of (await get('jobs?limit=50', signal).catch(() => ({jobs: []}))).jobs.filter((j) => !isOver(j)).reverse()) attempt(() => show(job));
}
