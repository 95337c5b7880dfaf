// Forms made from the JSON schema of configurations: what a plugin declares appears here, whoever wrote it.
import {h, field, fill, select, button} from './dom.js';

const alternatives = (schema, kind) => schema.definitions?.[kind]?.anyOf ?? [];

/// Returns the names of the plugins of a kind.
export function namesOf(schema, kind) {
  const all = new Set();
  for (const a of alternatives(schema, kind)) {
    for (const name of a.enum ?? []) all.add(name);
    const name = a.properties?.type?.const;
    if (name) all.add(name);
  }
  return [...all];
}

/// Returns what the schema says of a plugin: {properties, description}.
export function pluginOf(schema, kind, name) {
  const found = alternatives(schema, kind).find((a) => a.properties?.type?.const === name);
  if (!found) return {properties: {}, description: ''};
  const properties = {};
  for (const [key, p] of Object.entries(found.properties)) if (key !== 'type' && key !== 'include' && !p.deprecated) properties[key] = p;
  return {properties, description: found.properties.type.description ?? ''};
}

const typesOf = (p) => (Array.isArray(p.type) ? p.type : [p.type]);
const nestedKind = (p) => (p.$ref ?? p.allOf?.[0]?.$ref ?? '').replace('#/definitions/', '');

/// A control of one parameter; `set(value)` is called with undefined if it stands for the default.
function control(schema, name, p, value, set) {
  const types = typesOf(p), shown = value ?? p.default;
  if (p.enum) return select(p.enum.map(String), String(shown ?? p.enum[0]), (e) => set(e.target.value === String(p.default) ? undefined : e.target.value));
  if (types.includes('boolean')) {
    return h('input', {type: 'checkbox', checked: Boolean(shown), onchange: (e) => set(e.target.checked === p.default ? undefined : e.target.checked)});
  }
  if (types.includes('integer') || types.includes('number')) {
    const whole = types.includes('integer');
    const attributes = {type: 'number', step: whole ? 1 : 'any', value: shown ?? '', placeholder: types.includes('null') ? 'none' : ''};
    if (p.minimum !== undefined) attributes.min = p.minimum;
    if (p.exclusiveMinimum !== undefined) attributes.min = p.exclusiveMinimum;
    if (p.maximum !== undefined) attributes.max = p.maximum;
    return h('input', {...attributes, oninput: (e) => set(e.target.value === '' || Number(e.target.value) === p.default ? undefined : Number(e.target.value))});
  }
  if (types.includes('array') || p.anyOf) {
    const numbers = ['integer', 'number'].includes(p.items?.type);
    const read = (text) => text.split(',').map((t) => t.trim()).filter(Boolean).map((t) => (numbers ? Number(t) : t));
    return h('input', {value: (shown ?? []).join?.(', ') ?? '', placeholder: 'a, b', oninput: (e) => set(e.target.value.trim() ? read(e.target.value) : undefined)});
  }
  return h('input', {value: shown ?? '', oninput: (e) => set(e.target.value === (p.default ?? '') ? undefined : e.target.value)});
}

/// A form of the parameters of a plugin. `options` holds those that differ from their defaults, and is changed in place.
export function optionsForm(schema, kind, name, options, changed) {
  const {properties} = pluginOf(schema, kind, name);
  return Object.entries(properties).map(([key, p]) => {
    const set = (value) => {
      if (value === undefined) delete options[key];
      else options[key] = value;
      changed();
    };
    const kindBelow = nestedKind(p);
    if (kindBelow) {
      const below = options[key] ?? {type: typeof p.default === 'string' ? p.default : namesOf(schema, kindBelow)[0]};
      const sub = pluginField(schema, kindBelow, key, below, () => set(Object.keys(below).length === 1 && below.type === p.default ? undefined : below));
      return h('div', {class: 'nested'}, sub);
    }
    const c = control(schema, key, p, options[key], set);
    if (c.type === 'checkbox') return h('label', {class: 'check', title: p.description}, c, h('span', {}, key, ' ', h('small', {}, p.description ?? '')));
    return field(key, c, p.description);
  });
}

/// A picker of a plugin with the form of its parameters. `value`: {type, …}, changed in place.
export function pluginField(schema, kind, label, value, changed) {
  const form = h('div', {class: 'stack options'}), hint = h('small', {});
  const details = h('details', {class: 'parameters'}, h('summary', {}, `${label} parameters`), form);
  const draw = () => {
    const fields = optionsForm(schema, kind, value.type, value, changed);
    fill(form, fields);
    details.hidden = fields.length === 0;
    fill(hint, pluginOf(schema, kind, value.type).description);
  };
  const names = namesOf(schema, kind);
  if (!names.includes(value.type)) names.unshift(value.type);
  const picker = select(names, value.type, (e) => {
    for (const key of Object.keys(value)) delete value[key];
    value.type = e.target.value;
    draw();
    changed();
  });
  draw();
  const box = field(label, picker);
  box.append(hint, details);
  return box;
}

/// A list of plugins of a kind, such as the guidances. `list` is changed in place.
export function pluginList(schema, kind, label, list, changed) {
  const rows = h('div', {class: 'stack'});
  const draw = () => fill(rows, list.map((value, i) => h('div', {class: 'list-item'},
    pluginField(schema, kind, `${label} ${i + 1}`, value, changed),
    button('Remove', () => { list.splice(i, 1); draw(); changed(); }, {class: 'quiet', 'aria-label': `Remove ${label} ${i + 1}`}))));
  draw();
  const add = button(`Add ${label}`, () => { list.push({type: namesOf(schema, kind)[0]}); draw(); changed(); });
  return h('div', {class: 'stack'}, rows, h('div', {}, add));
}

/// A plugin as it is written in a configuration: its name, or YAML with what differs from the defaults.
export const written = (value) => (Object.keys(value).length === 1 ? value.type : JSON.stringify(value));

/// The same as YAML alone, for labels that people read: "{type: ddim, eta: 1}".
export const inYaml = (value) => (Object.keys(value).length === 1 ? value.type
  : `{${Object.entries(value).map(([key, v]) => `${key}: ${key === 'type' ? v : JSON.stringify(v)}`).join(', ')}}`);

/// Reads what a configuration has for a plugin: a name, or a map with `type`.
export function pluginValue(given, fallback) {
  if (!given) return {type: fallback};
  if (typeof given === 'object') return {...given};
  if (!given.startsWith('{')) return {type: given};
  try {
    return JSON.parse(given);
  } catch {
    return {type: /type:\s*([\w.]+)/.exec(given)?.[1] ?? fallback};
  }
}
