// Requests to the server's /api/v1.

const base = '/api/v1';
let key = sessionStorage.getItem('brume-key') || '';

/// Thrown if the server refuses a request.
export class ApiError extends Error {
  constructor(message, status, problems = []) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

async function failure(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    const error = body.error ?? body;
    return new ApiError(error.message ?? String(error), response.status, error.problems ?? []);
  } catch {
    return new ApiError(text || `${response.status} ${response.statusText}`, response.status);
  }
}

function askKey() {
  key = window.prompt('This server needs an API key') || '';
  sessionStorage.setItem('brume-key', key);
  return key !== '';
}

async function send(method, path, body, signal) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response;
  try {
    response = await fetch(path.startsWith('/') ? path : `${base}/${path}`,
      {method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError('the server does not answer', 0);
  }
  if (response.status === 401 && askKey()) return send(method, path, body, signal);
  if (!response.ok) throw await failure(response);
  return response;
}

export const get = async (path, signal) => (await send('GET', path, undefined, signal)).json();
export const post = async (path, body = {}, signal) => (await send('POST', path, body, signal)).json();
export const remove = async (path) => { await send('DELETE', path); };

/// A name as one segment of a path.
export const pathOf = encodeURIComponent;

/// Sets the picture of an <img>: its address, or its bytes if a key is needed for them.
export async function showPicture(img, path) {
  const address = path.startsWith('/') || path.startsWith('data:') ? path : `${base}/${path}`;
  if (!key || address.startsWith('data:')) {
    img.src = address;
    return;
  }
  const blob = await (await send('GET', address)).blob();
  const url = URL.createObjectURL(blob);
  img.addEventListener('load', () => URL.revokeObjectURL(url), {once: true});
  img.src = url;
}

export const pictureBlob = async (path) => (await send('GET', path.startsWith('/') ? path : `${base}/${path}`)).blob();

/// Follows the events of a job: calls on(event, data) for each until the stream ends or `signal` aborts.
export async function follow(path, on, signal) {
  const response = await send('GET', path, undefined, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      let event = 'message', data = '';
      for (const line of block.split(/\r?\n/)) {
        if (line.startsWith('event:')) event = line.slice(6).trim();
        if (line.startsWith('data:')) data += line.slice(5).trim();
      }
      if (data) on(event, JSON.parse(data));
    }
  }
}

let known = null;
/// Returns the JSON schema of configurations; asked for once.
export const schema = () => (known ??= get('schema').catch((error) => { known = null; throw error; }));
