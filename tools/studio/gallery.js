// Gallery: everything that was made, with its settings.
import {h, fill, field, button, attempt, settled, notice} from './dom.js';
import {showPicture} from './api.js';
import {list, forget, picture, pictureCount, titleOf, settingsOf, requestOf, download, isOver, progressText} from './jobs.js';
import {handed} from './create.js';

const key = (item) => `${item.job.id}/${item.k}`;

/// One item per picture; a job that ended without one is an item too.
function itemsOf(jobs) {
  return jobs.filter(isOver).flatMap((job) => {
    const count = pictureCount(job);
    return count ? Array.from({length: count}, (_, k) => ({job, k})) : [{job, k: null}];
  });
}

/// The settings of one picture: of lists that are taken in turn, what is its own.
function settingsAt({job, k}) {
  if (k === null) return settingsOf(job);
  const request = {...requestOf(job)};
  for (const list of ['prompts', 'negatives', 'classes']) if (request[list]?.length > 1) request[list] = [request[list][k % request[list].length]];
  return [...settingsOf({request}), ['picture', `${k + 1} of ${pictureCount(job)}`]];
}

/// A word is looked for anywhere; NAME:VALUE in that setting, numbers as a whole ("steps:10" is not 100).
function has(item, word) {
  const pairs = settingsOf(item.job).map(([name, value]) => [name.toLowerCase(), value.toLowerCase()]);
  const colon = word.indexOf(':'), name = word.slice(0, colon), wanted = word.slice(colon + 1);
  if (colon > 0 && wanted !== '') return pairs.some(([n, v]) => n === name && (Number.isFinite(Number(wanted)) ? v === wanted : v.includes(wanted)));
  return [item.job.id, item.job.state, titleOf(item.job), ...pairs.flat()].join(' ').toLowerCase().includes(word);
}
const matches = (item, query) => query.toLowerCase().split(/\s+/).filter(Boolean).every((word) => has(item, word));

function reuse(item) {
  handed.request = requestOf(item.job);
  location.hash = '#create';
}

/// Two pictures over each other, divided by a slider.
export function compare(a, b) {
  const layers = [a, b].map((item, i) => {
    const img = h('img', {alt: `${titleOf(item.job, item.k)}, seed ${requestOf(item.job).seed ?? 0}`, class: i ? 'over' : 'under'});
    attempt(() => showPicture(img, picture(item.job, item.k)));
    return img;
  });
  const line = h('div', {class: 'divider', 'aria-hidden': 'true'});
  const move = (share) => {
    layers[1].style.clipPath = `inset(0 0 0 ${share}%)`;
    line.style.left = `${share}%`;
  };
  const slider = h('input', {type: 'range', min: 0, max: 100, value: 50, 'aria-label': 'Where the second picture begins', oninput: (e) => move(Number(e.target.value))});
  move(50);
  const rows = differences(a, b);
  const dialog = h('dialog', {class: 'compare', 'aria-label': 'Compare two pictures'},
    h('div', {class: 'spread'}, h('h2', {}, 'Compare'), button('Close', () => dialog.close())),
    h('div', {class: 'compare-stage'}, layers, line), slider,
    h('div', {class: 'wide'}, rows.length ? h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, 'setting'), h('th', {}, 'left'), h('th', {}, 'right'))),
      h('tbody', {}, rows.map((r) => h('tr', {}, r.map((cell) => h('td', {}, cell)))))) : h('p', {class: 'faint'}, 'Both have the same settings.')));
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  slider.focus();
}

function differences(a, b) {
  const left = new Map(settingsAt(a)), right = new Map(settingsAt(b));
  return [...new Set([...left.keys(), ...right.keys()])].filter((name) => left.get(name) !== right.get(name)).map((name) => [name, left.get(name) ?? '–', right.get(name) ?? '–']);
}

function details(item, after) {
  const img = item.k === null ? null : h('img', {class: 'large', alt: titleOf(item.job, item.k)});
  if (img) attempt(() => showPicture(img, picture(item.job, item.k)));
  const dialog = h('dialog', {'aria-label': titleOf(item.job, item.k)},
    h('div', {class: 'spread'}, h('h2', {}, titleOf(item.job, item.k)), button('Close', () => dialog.close())),
    h('div', {class: 'details-columns'}, img, h('div', {class: 'stack'},
      item.job.state === 'done' ? null : h('p', {class: 'bad'}, progressText(item.job)),
      h('table', {}, h('tbody', {}, settingsAt(item).map(([name, value]) => h('tr', {}, h('th', {scope: 'row'}, name), h('td', {class: 'mono break'}, value))))),
      h('div', {class: 'row'},
        button('Use again', () => { dialog.close(); reuse(item); }, {class: 'primary'}),
        item.k === null ? null : button('Start from it', () => { handed.picture = picture(item.job, item.k); dialog.close(); reuse(item); }),
        item.k === null ? null : button('Download', () => attempt(() => download(picture(item.job, item.k), `${item.job.id}-${item.k}.png`))),
        button('Delete', () => attempt(async () => { await forget(item.job.id); dialog.close(); notice('Deleted'); after(); }), {class: 'danger'})))));
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

export async function gallery(view, signal) {
  fill(view, h('p', {class: 'empty'}, 'Reading what was made …'));
  let items = [];
  const chosen = new Map(), tiles = h('ul', {class: 'tiles'}), count = h('span', {class: 'faint', role: 'status'});
  const search = h('input', {type: 'search', id: 'search', placeholder: 'red circle  steps:20'});
  const both = button('Compare', () => compare(...chosen.values()), {disabled: true});
  const removeAll = button('Delete', () => attempt(async () => {
    for (const id of new Set([...chosen.values()].map((i) => i.job.id))) await forget(id);
    chosen.clear();
    await refresh();
  }), {disabled: true, class: 'danger'});

  function choose(item, on) {
    if (on) chosen.set(key(item), item);
    else chosen.delete(key(item));
    both.disabled = chosen.size !== 2 || [...chosen.values()].some((i) => i.k === null);
    removeAll.disabled = chosen.size === 0;
  }
  function tile(item) {
    const title = titleOf(item.job, item.k), name = `${title}, ${item.k === null ? item.job.state : `image ${item.k + 1}`}`;
    const open = button('', () => details(item, refresh), {class: 'tile', 'aria-label': `Open ${name}`});
    if (item.k === null) open.append(h('span', {class: 'faint'}, item.job.state));
    else {
      const img = h('img', {alt: '', loading: 'lazy'});
      attempt(() => showPicture(img, picture(item.job, item.k)));
      open.append(img);
    }
    const box = h('input', {type: 'checkbox', checked: chosen.has(key(item)), 'aria-label': `Choose ${name}`, onchange: (e) => choose(item, e.target.checked)});
    return h('li', {}, open, h('div', {class: 'tile-foot'}, box, h('span', {class: 'cut', title}, title)));
  }
  function draw() {
    const shown = items.filter((i) => matches(i, search.value));
    fill(tiles, shown.slice(0, 500).map(tile));
    fill(count, items.length === 0 ? '' : `${shown.length} of ${items.length}`);
    if (items.length === 0) fill(tiles, h('li', {class: 'empty'}, 'Nothing was made yet.'));
    else if (shown.length === 0) fill(tiles, h('li', {class: 'empty'}, 'Nothing matches.'));
  }
  async function refresh() {
    items = itemsOf(await list());
    for (const k of [...chosen.keys()]) if (!items.some((i) => key(i) === k)) chosen.delete(k);
    choose({job: {id: ''}, k: 0}, false);
    draw();
  }
  search.addEventListener('input', settled(draw, 120));
  await refresh();
  if (signal.aborted) return;
  fill(view, h('div', {class: 'spread'}, h('h1', {}, 'Gallery'), h('div', {class: 'row'}, count, both, removeAll)),
    h('div', {class: 'searching'}, field('Search', search, 'Words of prompts, classes and settings; all must occur.')), tiles);
}
