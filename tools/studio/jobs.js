// Jobs of the server: what is asked of it, and how each comes along.
import {get, post, remove, follow, showPicture, pictureBlob} from './api.js';
import {h, fill, button, duration, short, attempt} from './dom.js';

const over = new Set(['done', 'failed', 'cancelled', 'interrupted']);
export const isOver = (job) => over.has(job.state);

export const submit = (request) => post('jobs', request);

/// All jobs, the latest first.
export async function list() {
  const all = [];
  for (;;) {
    const page = (await get(`jobs?limit=100${all.length ? `&before=${all.at(-1).id}` : ''}`)).jobs;
    all.push(...page);
    if (page.length < 100) return all;
  }
}
export const cancel = (id) => post(`jobs/${id}/cancel`);
export const forget = (id) => remove(`jobs/${id}`);
export const picture = (job, k) => job.images?.[k]?.url ?? `jobs/${job.id}/images/${k}.png`;
export const pictureCount = (job) => (Array.isArray(job.images) ? job.images.length : job.images ?? 0);
export const requestOf = (job) => job.request ?? {};

/// What a job shows, in words; with `k`, what its image k shows: prompts and classes are taken in turn.
export function titleOf(job, k = null) {
  const r = requestOf(job), lists = [r.prompts ?? [], r.classes ?? []].filter((words) => words.length);
  const words = k === null ? lists.flat() : lists.map((list) => list[k % list.length]);
  return words.filter(Boolean).join(', ') || r.model || job.id;
}

/// Settings in words, for people and for the search.
export function settingsOf(job) {
  const r = requestOf(job), pairs = [];
  for (const [key, value] of Object.entries(r)) {
    if (value === null || value === '' || value === undefined) continue;
    if (key === 'image' || key === 'mask') pairs.push([key, 'given']);
    else pairs.push([key, Array.isArray(value) ? value.join(', ') : typeof value === 'object' ? JSON.stringify(value) : String(value)]);
  }
  return pairs;
}

/// Follows a job to its end: `on(job)` is called with each change, with `preview` (an address) if there is one. The job that has ended is
/// returned.
export async function watch(id, on, signal) {
  let latest = await get(`jobs/${id}`);
  on(latest);
  if (isOver(latest)) return latest;
  try {
    await follow(`jobs/${id}/events`, (event, data) => {
      if (event === 'preview') latest = {...latest, preview: data.url ?? (data.image ? `data:image/png;base64,${data.image}` : null)};
      else if (event === 'progress') latest = {...latest, ...data, state: data.state ?? 'running'};
      else latest = {...latest, ...data};
      on(latest);
    }, signal);
  } catch (error) {
    if (error.name === 'AbortError') return latest;
  }
  for (;;) {
    latest = {...latest, ...(await get(`jobs/${id}`, signal))};
    on(latest);
    if (isOver(latest)) return latest;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/// How far a job is: "step 12 of 50 · 8.1 steps/s · 0:05 left".
export function progressText(job) {
  if (job.state === 'queued') return job.position > 0 ? `waiting, number ${job.position} in the queue` : 'waiting';
  if (job.state === 'failed') return job.error?.message ?? job.error ?? 'failed';
  if (job.state === 'done') {
    const count = pictureCount(job), seed = requestOf(job).seed ?? 0;
    return `${count} ${count === 1 ? 'image' : 'images'} in ${short(job.seconds, 2)} s · seed ${seed}`;
  }
  if (job.state !== 'running') return job.state ?? '';
  const parts = [];
  if (job.total > 0) parts.push(`${job.done ?? 0} of ${job.total}`);
  if (job.rate > 0) parts.push(`${short(job.rate, 3)} image steps/s`);
  if (job.eta >= 0 && job.eta !== null) parts.push(`${duration(job.eta)} left`);
  return parts.join(' · ') || 'running';
}

/// Saves a picture as a file.
export async function download(path, name) {
  const url = URL.createObjectURL(await pictureBlob(path));
  const link = h('a', {href: url, download: name});
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/// A card that shows a job as it comes along. `actions(job, k)` returns what is offered for a finished picture.
export function jobCard(id, title, actions = () => []) {
  const pictures = h('div', {class: 'pictures'}), bar = h('progress', {max: 1, value: 0, 'aria-label': `Progress of ${title}`});
  const text = h('span', {class: 'faint numbers'}), stop = button('Cancel', () => attempt(() => cancel(id)), {class: 'quiet danger'});
  const card = h('article', {class: 'panel job', 'aria-label': title}, h('div', {class: 'spread'}, h('h3', {}, title), stop), pictures, bar, text);
  let shown = 0, preview = null;
  const update = (job) => {
    card.dataset.state = job.state;
    fill(text, progressText(job));
    text.classList.toggle('bad', job.state === 'failed');
    bar.hidden = stop.hidden = isOver(job);
    if (job.total > 0) bar.value = (job.done ?? 0) / job.total;
    if (job.preview && !isOver(job)) {
      if (!preview) pictures.append(preview = h('img', {class: 'preview', alt: 'Preview'}));
      if (preview.dataset.at !== job.preview) attempt(() => showPicture(preview, preview.dataset.at = job.preview));
    }
    const ready = isOver(job) ? pictureCount(job) : 0;
    if (ready > 0 || isOver(job)) preview?.remove();
    for (; shown < ready; ++shown) {
      const img = h('img', {alt: `${titleOf(job, shown)}, image ${shown + 1}`, title: titleOf(job, shown), loading: 'lazy'});
      attempt(() => showPicture(img, picture(job, img.dataset.k = shown)));
      pictures.append(h('figure', {class: 'picture'}, img, h('figcaption', {class: 'row'}, actions(job, shown))));
    }
  };
  return {card, update};
}
