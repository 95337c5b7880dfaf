// A picture to start from, with a mask painted on it: what is painted is generated, the rest is kept.
import {h, fill, field, button, notice} from './dom.js';

const readFile = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
  reader.readAsDataURL(file);
});

const loadImage = (url) => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => reject(new Error('the file is no picture that a browser can show'));
  image.src = url;
});

/// Returns {element, value(), set(url), clear()}. value(): {image, mask} as base64 PNG, mask only if something is painted; null if there is no
/// picture.
export function picturePicker(changed) {
  let picture = null, mask = null, painted = false, brush = 12, at = {x: 0, y: 0};
  const view = h('canvas', {class: 'paint', tabindex: 0, role: 'application',
    'aria-label': 'Mask: paint with the pointer; with the keyboard, arrows move the brush and space paints'});
  const input = h('input', {type: 'file', accept: 'image/png,image/jpeg', onchange: async () => {
    const file = input.files[0];
    if (!file) return;
    try {
      await set(await readFile(file));
    } catch (error) {
      notice(error.message, true);
    }
  }});

  function draw() {
    if (!picture) return;
    const context = view.getContext('2d');
    context.clearRect(0, 0, view.width, view.height);
    context.imageSmoothingEnabled = picture.width > 128;
    context.drawImage(picture, 0, 0, view.width, view.height);
    context.globalAlpha = 0.55;
    context.imageSmoothingEnabled = false;
    context.drawImage(mask, 0, 0, view.width, view.height);
    context.globalAlpha = 1;
    if (document.activeElement === view) {
      context.strokeStyle = '#fff';
      context.beginPath();
      context.arc(at.x * view.width, at.y * view.height, brushPixels() * view.width / mask.width, 0, 7);
      context.stroke();
    }
  }
  const brushPixels = () => Math.max(0.6, brush / 100 * mask.width);

  function paint(x, y) {
    const context = mask.getContext('2d');
    context.fillStyle = '#e0572a';
    context.beginPath();
    context.arc(x * mask.width, y * mask.height, brushPixels(), 0, 7);
    context.fill();
    painted = true;
    draw();
    changed();
  }
  const place = (e) => {
    const box = view.getBoundingClientRect();
    at = {x: (e.clientX - box.left) / box.width, y: (e.clientY - box.top) / box.height};
    return at;
  };
  view.addEventListener('pointerdown', (e) => { view.setPointerCapture(e.pointerId); const p = place(e); paint(p.x, p.y); });
  view.addEventListener('pointermove', (e) => { if (e.buttons & 1) { const p = place(e); paint(p.x, p.y); } });
  view.addEventListener('focus', draw);
  view.addEventListener('blur', draw);
  view.addEventListener('keydown', (e) => {
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
    if (!move && e.key !== ' ') return;
    e.preventDefault();
    if (move) at = {x: Math.min(1, Math.max(0, at.x + move[0] / 32)), y: Math.min(1, Math.max(0, at.y + move[1] / 32))};
    if (e.key === ' ') paint(at.x, at.y);
    else draw();
  });

  const all = (paintIt) => {
    const context = mask.getContext('2d');
    context.clearRect(0, 0, mask.width, mask.height);
    if (paintIt) {
      context.fillStyle = '#e0572a';
      context.fillRect(0, 0, mask.width, mask.height);
    }
    painted = paintIt;
    draw();
    changed();
  };
  const size = h('input', {type: 'range', min: 2, max: 40, value: brush, oninput: (e) => { brush = Number(e.target.value); draw(); }});
  const tools = h('div', {class: 'stack', hidden: true}, view, field('Brush', size),
    h('div', {class: 'row'}, button('Clear mask', () => all(false)), button('Mask all', () => all(true)), button('Remove picture', () => clear(), {class: 'quiet'})));
  const note = h('small', {}, 'Paint over what is to be made new; without a mask the whole picture changes.');
  const element = h('div', {class: 'stack'}, field('Start from a picture', input), tools, note);

  async function set(url) {
    picture = await loadImage(url);
    mask = h('canvas', {});
    mask.width = picture.width, mask.height = picture.height;
    const zoom = Math.max(1, Math.round(320 / picture.width));
    view.width = picture.width * zoom, view.height = picture.height * zoom;
    painted = false;
    tools.hidden = false;
    draw();
    changed();
  }
  function clear() {
    picture = mask = null;
    painted = false;
    input.value = '';
    tools.hidden = true;
    changed();
  }
  const bytes = (canvas) => canvas.toDataURL('image/png').split(',')[1];
  function value() {
    if (!picture) return null;
    const image = h('canvas', {});
    image.width = picture.width, image.height = picture.height;
    image.getContext('2d').drawImage(picture, 0, 0);
    if (!painted) return {image: bytes(image)};
    // White = to be made, black = kept.
    const flat = h('canvas', {}), context = (flat.width = mask.width, flat.height = mask.height, flat.getContext('2d'));
    context.drawImage(mask, 0, 0);
    context.globalCompositeOperation = 'source-in';
    context.fillStyle = '#fff';
    context.fillRect(0, 0, flat.width, flat.height);
    context.globalCompositeOperation = 'destination-over';
    context.fillStyle = '#000';
    context.fillRect(0, 0, flat.width, flat.height);
    return {image: bytes(image), mask: bytes(flat)};
  }
  return {element, value, set, clear};
}
