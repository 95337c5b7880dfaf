// Drives the studio in Chromium as a person would, from an empty folder to the gallery.
//   node studio.mjs PROGRAM [--screenshots DIR] [--only WORD]
// Exit code 77: Chromium, Playwright or axe-core is not installed (tools/scripts/setup_studio.sh).
import {spawn, execFileSync} from 'node:child_process';
import {existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import assert from 'node:assert/strict';

const chromiumPath = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find(existsSync);
const axePath = new URL('node_modules/axe-core/axe.min.js', import.meta.url).pathname;
if (!chromiumPath || !existsSync(axePath)) {
  console.log('skipped: tools/scripts/setup_studio.sh installs Chromium, Playwright and axe-core');
  process.exit(77);
}
const {chromium} = await import('playwright-core');

const program = process.argv[2];
const option = (name) => { const at = process.argv.indexOf(name); return at > 0 ? process.argv[at + 1] : ''; };
const screenshots = option('--screenshots'), only = option('--only');
const work = mkdtempSync(join(tmpdir(), 'brume-studio-'));
const yaml = readFileSync(new URL('tiny.yaml', import.meta.url), 'utf8');

/// Starts the server in an empty folder. Returns its address and its process.
async function startServer() {
  const environment = {...process.env, OMP_NUM_THREADS: '1', OMP_WAIT_POLICY: 'passive'};
  const server = spawn(program, ['serve', '--port', '0', '--runs', join(work, 'runs')], {cwd: work, env: environment, stdio: ['ignore', 'pipe', 'inherit']});
  let text = '';
  const address = await new Promise((resolve, reject) => {
    server.stdout.on('data', (piece) => {
      text += piece;
      const found = /http:\/\/[\d.]+:\d+/.exec(text);
      if (found) resolve(found[0]);
    });
    server.on('exit', (code) => reject(new Error(`the server ended with ${code}: ${text}`)));
  });
  return {address, server};
}

const checks = [];
const check = (name, run) => checks.push({name, run});
const heading = (page, text) => page.getByRole('heading', {level: 1, name: text}).waitFor();

async function shot(page, name) {
  if (!screenshots) return;
  mkdirSync(screenshots, {recursive: true});
  const file = join(screenshots, name);
  await page.screenshot({path: file});
  assert.ok(statSync(file).size < 300_000, `${name} has ${statSync(file).size} bytes`);
}

/// Faults that axe-core calls serious or critical.
async function accessible(page, where) {
  await page.addScriptTag({path: axePath}).catch(() => {});
  const faults = await page.evaluate(async () => (await window.axe.run(document, {resultTypes: ['violations']})).violations
    .filter((v) => ['serious', 'critical'].includes(v.impact)).map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).slice(0, 3).join(', ')}`));
  assert.deepEqual(faults, [], where);
}

const scrolls = (page) => page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

async function open(page, name) {
  await page.getByRole('navigation').getByRole('link', {name}).click();
  await heading(page, name);
}

check('a training starts from a configuration that is checked while it is typed', async ({page}) => {
  await open(page, 'Runs');
  await page.getByRole('button', {name: 'New training'}).click();
  const editor = page.getByLabel('Configuration', {exact: true});
  await editor.fill(yaml.replace('sampler: ddim', 'sampler: ddmi'));
  const mistake = page.locator('#problems');
  await mistake.getByText("did you mean 'ddim'").waitFor();
  const line = yaml.split('\n').findIndex((row) => row.includes('sampler: ddim')) + 1;
  await mistake.getByRole('button', {name: `Go to line ${line}, column 12`}).click();
  assert.ok(await page.getByRole('button', {name: 'Start training'}).isDisabled());
  await shot(page, 'studio-check.png');
  await editor.fill(`plugins: [/tmp/other.so]\n${yaml}`);
  await mistake.getByText('libraries are loaded by the server alone').waitFor();
  await editor.fill(yaml);
  await mistake.getByText('No mistakes').waitFor();
  await page.getByLabel('Name of the run').fill('tiny');
  await page.getByRole('button', {name: 'Start training'}).click();
});

check('a training stops with a checkpoint and is continued to its end', async ({page}) => {
  const training = page.getByRole('region', {name: 'Training tiny'});
  await training.getByText(/step [1-9]\d* of/).waitFor({timeout: 180_000});
  await training.getByRole('button', {name: 'Stop'}).click();
  await training.getByText(/^stopped/).waitFor({timeout: 120_000});
  assert.ok(existsSync(join(work, 'runs/tiny/training.safetensors')));
  await training.getByRole('button', {name: 'Resume'}).click();
  await training.getByText(/^done/).waitFor({timeout: 300_000});
});

check('runs show curves, sample grids and how they differ', async ({page}) => {
  execFileSync(program, ['train', join(work, 'runs/.trainings/tiny.yaml'), '--out', join(work, 'runs/other'), '--set', 'train.steps=20', '--set', 'train.optimizer.lr=0.01'],
    {cwd: work, stdio: 'ignore', env: {...process.env, OMP_NUM_THREADS: '1'}});
  writeFileSync(join(work, 'runs/tiny/evaluate.json'), JSON.stringify({sets: [{name: 'cfg 2', steps: 10, fid: 31.25}]}));
  await page.reload();
  await heading(page, 'Runs');
  const curves = page.getByRole('region', {name: 'Curves'});
  await curves.getByRole('img', {name: /^loss: .*other.*tiny|^loss: .*tiny.*other/}).waitFor();
  await curves.getByLabel('Metric').selectOption('loss');
  await curves.getByLabel('Smoothing').fill('0.6');
  await curves.getByLabel('Logarithmic axis').check();
  const chart = curves.getByRole('img', {name: /^loss/});
  await chart.focus();
  await page.keyboard.press('ArrowLeft');
  assert.match(await curves.locator('.readout').innerText(), /tiny \d/);
  await page.getByRole('img', {name: /Samples of tiny at step/}).first().waitFor();
  await page.getByRole('region', {name: 'Differences'}).getByText('train.optimizer.lr').waitFor();
  await page.getByRole('region', {name: 'Evaluations'}).last().getByText('31.25').waitFor();
  await page.evaluate(() => window.scrollTo(0, 0));
  await shot(page, 'studio-runs.png');
});

check('schedules, spacings and samplers are drawn as their options move', async ({page}) => {
  await open(page, 'Learn');
  await page.getByRole('img', {name: /log-SNR.*cosine/}).waitFor();
  await page.getByLabel('schedule 3', {exact: true}).selectOption('sigmoid').catch(() => page.getByLabel('schedule 3', {exact: true}).selectOption('linear'));
  await page.getByRole('button', {name: 'Spacings'}).click();
  await page.getByRole('img', {name: /σ of each step/}).waitFor();
  await page.getByRole('button', {name: 'Samplers'}).click();
  await page.getByRole('img', {name: 'Paths of ddim from noise to data'}).waitFor();
  const before = await page.locator('.plane polyline').first().getAttribute('points');
  await page.getByLabel(/^Steps/).fill('5');
  await page.waitForFunction((points) => document.querySelector('.plane polyline')?.getAttribute('points') !== points, before);
  await page.getByText('sampler 1 parameters').click();
  await page.getByLabel('eta', {exact: true}).first().fill('1');
  await page.getByRole('img', {name: /Paths of .*eta.* from noise/}).waitFor();
  await page.evaluate(() => window.scrollTo(0, 0));
  await shot(page, 'studio-learn.png');
});

check('images are made, with a preview, and can be cancelled', async ({page}) => {
  await open(page, 'Create');
  await page.getByLabel('Classes').selectOption(['red circle', 'green square']);
  await page.getByLabel('Images').fill('4');
  await page.getByLabel('Seed', {exact: true}).fill('7');
  await page.getByLabel('Steps', {exact: true}).fill('10');
  await page.getByText('Sampler parameters').click();
  await page.getByLabel('eta', {exact: true}).fill('0.5');
  await page.getByRole('button', {name: 'Make images'}).click();
  await page.locator('.job[data-state="done"] .picture img').nth(3).waitFor({timeout: 180_000});
  await shot(page, 'studio-create.png');
  await page.getByLabel('Steps', {exact: true}).fill('1000');
  await page.getByLabel('Images').fill('16');
  await page.getByRole('button', {name: 'Make images'}).click();
  const running = page.locator('.job').first();
  await running.locator('.preview').waitFor({timeout: 180_000});
  await running.getByText(/left/).waitFor();
  await running.getByRole('button', {name: 'Cancel'}).click();
  await page.locator('.job[data-state="cancelled"]').waitFor({timeout: 120_000});
});

check('a picture and a mask painted in the page start an image', async ({page}) => {
  await page.getByLabel('Steps', {exact: true}).fill('8');
  await page.getByLabel('Images').fill('1');
  await page.locator('.job[data-state="done"]').first().getByRole('button', {name: 'Start from it'}).first().click();
  await page.getByText('Picture and mask').click();
  const paint = page.locator('canvas.paint');
  await paint.waitFor();
  await paint.focus();
  for (const key of ['ArrowRight', 'ArrowDown', 'ArrowDown', ' ']) await page.keyboard.press(key);
  const box = await paint.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + box.height * 0.7, {steps: 4});
  await page.mouse.up();
  await page.getByRole('button', {name: 'Make images'}).click();
  await page.locator('.job').first().locator('.picture img').waitFor({timeout: 180_000});
  await page.getByRole('button', {name: 'Remove picture'}).click();
});

check('two settings against each other make a grid', async ({page}) => {
  await page.getByText('X/Y plot', {exact: true}).click();
  await page.getByLabel('X axis').selectOption('sampler');
  await page.getByLabel('X values').fill('ddim, euler');
  await page.getByLabel('Y axis').selectOption('guidance scale');
  await page.getByLabel('Y values').fill('1, 4');
  await page.getByRole('button', {name: 'Make grid'}).click();
  await page.getByRole('img', {name: 'sampler euler, guidance scale 4'}).waitFor({timeout: 180_000});
  assert.equal(await page.locator('.xy .cell .bad').count(), 0);
  await page.evaluate(() => window.scrollTo(0, 0));
  await shot(page, 'studio-grid.png');
});

check('the gallery searches, compares, uses again, downloads and deletes', async ({page}) => {
  await open(page, 'Gallery');
  await page.locator('.tile').first().waitFor();
  const all = await page.locator('.tile').count();
  await page.getByLabel('Search').fill('eta seed:7 steps:10');
  await page.waitForFunction((n) => document.querySelectorAll('.tile').length < n, all);
  await shot(page, 'studio-gallery.png');
  const boxes = page.getByRole('checkbox');
  await boxes.nth(0).check();
  await boxes.nth(1).check();
  await page.getByRole('button', {name: 'Compare'}).click();
  await page.getByLabel('Where the second picture begins').fill('30');
  await page.getByRole('dialog').getByText('2 of 4').waitFor();
  await shot(page, 'studio-compare.png');
  await page.getByRole('button', {name: 'Close'}).click();
  await page.locator('.tile').first().click();
  const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('dialog').getByRole('button', {name: 'Download'}).click()]);
  assert.match(file.suggestedFilename(), /\.png$/);
  await page.getByRole('dialog').getByRole('button', {name: 'Use again'}).click();
  await heading(page, 'Create');
  assert.equal(await page.getByLabel('Seed', {exact: true}).inputValue(), '7');
  await open(page, 'Gallery');
  await page.locator('.tile').first().click();
  await page.getByRole('dialog').getByRole('button', {name: 'Delete'}).click();
  await page.waitForFunction((n) => document.querySelectorAll('.tile').length < n, all);
});

check('a job that runs is shown again after the page was left', async ({page}) => {
  await open(page, 'Create');
  await page.getByLabel('Steps', {exact: true}).fill('1000');
  await page.getByLabel('Images').fill('16');
  await page.getByRole('button', {name: 'Make images'}).click();
  await page.locator('.job[data-state="running"]').waitFor();
  await open(page, 'Gallery');
  await open(page, 'Create');
  await page.locator('.job').first().getByRole('button', {name: 'Cancel'}).click();
  await page.locator('.job[data-state="cancelled"]').waitFor({timeout: 120_000});
});

check('no serious fault of accessibility, in both colours, and no sideways scrolling at 360 px', async ({browser, address}) => {
  for (const colorScheme of ['light', 'dark']) {
    const context = await browser.newContext({viewport: {width: 360, height: 740}, colorScheme, bypassCSP: true});
    const page = await context.newPage();
    for (const name of ['create', 'gallery', 'runs', 'learn']) {
      await page.goto(`${address}/#${name}`);
      await page.locator('h1').waitFor();
      await page.waitForTimeout(700);
      await accessible(page, `${name}, ${colorScheme}`);
      assert.ok(!(await scrolls(page)), `${name} scrolls sideways at 360 px`);
      if (colorScheme === 'dark' && name === 'create') await shot(page, 'studio-phone.png');
    }
    await context.close();
  }
});

check('texts are never read as HTML', async ({page, address}) => {
  mkdirSync(join(work, 'runs/<img src=x onerror=document.title=1>'), {recursive: true});
  writeFileSync(join(work, 'runs/<img src=x onerror=document.title=1>/metrics.jsonl'), '{"step":1,"loss":1}\n');
  await page.goto(`${address}/#runs`);
  await page.reload();
  await page.getByText('<img src=x', {exact: false}).first().waitFor();
  assert.match(await page.title(), /^Runs/);
  assert.equal(await page.locator('img[src="x"]').count(), 0);
});

const {address, server} = await startServer();
const browser = await chromium.launch({executablePath: chromiumPath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync']});
let failed = 0, passed = 0;
try {
  const context = await browser.newContext({viewport: {width: 1280, height: 860}, colorScheme: 'light', acceptDownloads: true});
  const page = await context.newPage(), complaints = [];
  page.setDefaultTimeout(60_000);
  page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
  page.on('pageerror', (error) => complaints.push(error.stack));
  await page.goto(address);
  await heading(page, 'Create');
  for (const {name, run} of checks) {
    if (only && !new RegExp(only).test(name)) continue;
    const begun = Date.now();
    try {
      await run({page, browser, address});
      assert.deepEqual(complaints, [], 'the console has errors');
      ++passed;
      console.log(`ok      ${name} (${((Date.now() - begun) / 1000).toFixed(1)} s)`);
    } catch (error) {
      ++failed;
      console.log(`FAILED  ${name}: ${error.stack}`);
      complaints.length = 0;
      if (screenshots) await page.screenshot({path: join(screenshots, `failed-${failed}.png`)}).catch(() => {});
    }
  }
} finally {
  await browser.close();
  server.removeAllListeners('exit');
  server.kill('SIGTERM');
  await new Promise((resolve) => server.on('exit', resolve));
  rmSync(work, {recursive: true, force: true});
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
