// A picture to start from, with a mask painted on it: what is painted is generated, the rest is kept.
import {h, field, button, notice} from './dom.js';

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

const colour = '#e0572a';
const bytes = (canvas) => canvas.toDataURL('image/png').split(',')[1];

function canvasOf(width, height) {
  const canvas = h('canvas', {});
  canvas.width = width, canvas.height = height;
  return canvas;
}

/// Returns the mask in two colours: white = to be made, black = kept.
function blackAndWhite(mask) {
  const flat = canvasOf(mask.width, mask.height), context = flat.getContext('2d');
  context.drawImage(mask, 0, 0);
  context.globalCompositeOperation = 'source-in';
  context.fillStyle = '#fff';
  context.fillRect(0, 0, flat.width, flat.height);
  context.globalCompositeOperation = 'destination-over';
  context.fillStyle = '#000';
  context.fillRect(0, 0, flat.width, flat.height);
  return flat;
}

/// A picture and its mask on a canvas, which the pointer or the keyboard paints. `changed` is called after each change.
class Painting {
  constructor(changed) {
    this.changed = changed;
    this.picture = this.mask = null;
    this.painted = false, this.brush = 12, this.at = {x: 0, y: 0};
    this.view = h('canvas', {class: 'paint', tabindex: 0, role: 'application',
      'aria-label': 'Mask: paint with the pointer; with the keyboard, arrows move the brush and space paints'});
    const paintAt = (e) => { this.place(e); this.paint(); };
    this.view.addEventListener('pointerdown', (e) => { this.view.setPointerCapture(e.pointerId); paintAt(e); });
    this.view.addEventListener('pointermove', (e) => { if (e.buttons & 1) paintAt(e); });
    this.view.addEventListener('focus', () => this.draw());
    this.view.addEventListener('blur', () => this.draw());
    this.view.addEventListener('keydown', (e) => this.press(e));
  }

  show(picture) {
    this.picture = picture;
    this.mask = canvasOf(picture.width, picture.height);
    const zoom = Math.max(1, Math.round(320 / picture.width));
    this.view.width = picture.width * zoom, this.view.height = picture.height * zoom;
    this.painted = false;
    this.draw();
    this.changed();
  }
  clear() {
    this.picture = this.mask = null;
    this.painted = false;
    this.changed();
  }
  /// Masks everything, or nothing.
  maskAll(everything) {
    const context = this.mask.getContext('2d');
    context.clearRect(0, 0, this.mask.width, this.mask.height);
    if (everything) {
      context.fillStyle = colour;
      context.fillRect(0, 0, this.mask.width, this.mask.height);
    }
    this.painted = everything;
    this.draw();
    this.changed();
  }
  value() {
    if (!this.picture) return null;
    const image = canvasOf(this.picture.width, this.picture.height);
    image.getContext('2d').drawImage(this.picture, 0, 0);
    return this.painted ? {image: bytes(image), mask: bytes(blackAndWhite(this.mask))} : {image: bytes(image)};
  }

  brushPixels() { return Math.max(0.6, this.brush / 100 * this.mask.width); }
  draw() {
    if (!this.picture) return;
    const {view, mask} = this, context = view.getContext('2d');
    context.clearRect(0, 0, view.width, view.height);
    context.imageSmoothingEnabled = this.picture.width > 128;
    context.drawImage(this.picture, 0, 0, view.width, view.height);
    context.globalAlpha = 0.55;
    context.imageSmoothingEnabled = false;
    context.drawImage(mask, 0, 0, view.width, view.height);
    context.globalAlpha = 1;
    if (document.activeElement === view) {
      context.strokeStyle = '#fff';
      context.beginPath();
      context.arc(this.at.x * view.width, this.at.y * view.height, this.brushPixels() * view.width / mask.width, 0, 7);
      context.stroke();
    }
  }
  /// Paints a disc where the brush is.
  paint() {
    const context = this.mask.getContext('2d');
    context.fillStyle = colour;
    context.beginPath();
    context.arc(this.at.x * this.mask.width, this.at.y * this.mask.height, this.brushPixels(), 0, 7);
    context.fill();
    this.painted = true;
    this.draw();
    this.changed();
  }
  /// Moves the brush to the pointer.
  place(e) {
    const box = this.view.getBoundingClientRect();
    this.at = {x: (e.clientX - box.left) / box.width, y: (e.clientY - box.top) / box.height};
  }
  press(e) {
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
    if (!move && e.key !== ' ') return;
    e.preventDefault();
    if (e.key === ' ') return this.paint();
    this.at = {x: Math.min(1, Math.max(0, this.at.x + move[0] / 32)), y: Math.min(1, Math.max(0, this.at.y + move[1] / 32))};
    this.draw();
  }
}

/// Returns {element, value(), set(url), clear()}. value(): {image, mask} as base64 PNG, mask only if something is painted; null if there is no
/// picture.
export function picturePicker(changed) {
  const painting = new Painting(changed);
  const input = h('input', {type: 'file', accept: 'image/png,image/jpeg', onchange: async () => {
    const file = input.files[0];
    if (!file) return;
    try {
      await set(await readFile(file));
    } catch (error) {
      notice(error.message, true);
    }
  }});
  const size = h('input', {type: 'range', min: 2, max: 40, value: painting.brush, oninput: (e) => { painting.brush = Number(e.target.value); painting.draw(); }});
  const tools = h('div', {class: 'stack', hidden: true}, painting.view, field('Brush', size), h('div', {class: 'row'},
    button('Clear mask', () => painting.maskAll(false)), button('Mask all', () => painting.maskAll(true)), button('Remove picture', () => clear(), {class: 'quiet'})));
  const note = h('small', {}, 'Paint over what is to be made new; without a mask the whole picture changes.');
  const element = h('div', {class: 'stack'}, field('Start from a picture', input), tools, note);

  async function set(url) {
    painting.show(await loadImage(url));
    tools.hidden = false;
  }
  function clear() {
    input.value = '';
    tools.hidden = true;
    painting.clear();
  }
  return {element, value: () => painting.value(), set, clear};
}
