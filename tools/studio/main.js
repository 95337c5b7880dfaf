// The page: which of its four parts is shown, and in which colours.
import {h, fill, button} from './dom.js';
import {create} from './create.js';
import {gallery} from './gallery.js';
import {runs} from './runs.js';
import {learn} from './learn.js';

const pages = {create, gallery, runs, learn};
const view = document.getElementById('view');
let leaving = new AbortController();

async function show() {
  const asked = location.hash.slice(1);
  if (asked === 'view') return;
  const name = asked in pages ? asked : 'create';
  leaving.abort();
  leaving = new AbortController();
  const {signal} = leaving;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.dataset.page === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · brume studio`;
  const page = h('div', {});
  fill(view, page);
  try {
    await pages[name](page, signal);
  } catch (error) {
    if (error.name === 'AbortError' || signal.aborted) return;
    fill(page, h('div', {class: 'empty'}, h('p', {class: 'bad'}, error.message), button('Try again', show)));
  }
}

const themes = ['system', 'light', 'dark'], theme = document.getElementById('theme');
function setTheme(name) {
  if (name === 'system') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme.setAttribute('aria-label', `Colours: ${name === 'system' ? 'as the system' : name}`);
  theme.title = theme.getAttribute('aria-label');
  localStorage.setItem('brume-theme', name);
}
theme.addEventListener('click', () => setTheme(themes[(themes.indexOf(localStorage.getItem('brume-theme') ?? 'system') + 1) % 3]));
setTheme(themes.includes(localStorage.getItem('brume-theme')) ? localStorage.getItem('brume-theme') : 'system');

// The editor takes Ctrl+Enter and the form of Create too.
document.addEventListener('keydown', (e) => {
  if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) e.target.closest?.('form')?.requestSubmit();
});
window.addEventListener('hashchange', show);
show();
