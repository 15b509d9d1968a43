/**
 * `npm test`: everything there is to check, quick parts first, none hiding another's failure. What failed stands at the
 * end once more; the last line is `N passed, N failed`. With arguments, only the tests that they choose.
 * `npm run check`: the parts that take seconds; `npm run test:exact`, `npm run test:crash`: tests that take minutes and
 * are not among the others; `npm run test:doors`: what public libraries, which it fetches, say of what Darkroom sends;
 * `npm run test:judged`: what 200 pictures of each feature show, with the figures.
 * `npm run test:cluster`: what concerns Redis, on three shards of a cluster of one node.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { constants, setPriority, tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { SetupFailure, lastLines } from './failure.mjs'
import { homeFolder, root } from '../host/home.mjs'
import { readyEnvironment } from '../host/places.mjs'
import { ensureNativeTests } from './native/build.mjs'
import { speaker } from './say.mjs'

/**
 * @typedef {{ passed: number, skipped: number, failures: string[] }} Count `failures`: what failed, a line or more each
 */

/**
 * @typedef {object} Part
 * @property {string} title
 * @property {string[]} command
 * @property {string} [cwd]
 * @property {() => Count} [count] reads the report of a part that writes one; any other part counts as one test
 */

const reports = mkdtempSync(join(tmpdir(), 'darkroom-suite-'))

/** @param {string} name @param {string[]} args @returns {string[]} */
const tool = (name, ...args) => [join(root, 'node_modules', '.bin', name), ...args]

/** @param {string} title @param {string[]} args @returns {Part} */
function vitest(title, ...args) {
  const report = join(reports, `${title}.json`)
  return {
    title,
    command: tool('vitest', 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...args),
    count() {
      const { numPassedTests, numPendingTests, testResults } = JSON.parse(readFileSync(report, 'utf8'))
      /** @type {string[]} */
      const failures = []
      for (const { name, status, message, assertionResults } of testResults) {
        const file = relative(root, name)
        const failed = assertionResults.filter((/** @type {{ status: string }} */ test) => test.status === 'failed')
        for (const { fullName, failureMessages } of failed) failures.push(`${file}  ${fullName}\n${firstLines(failureMessages[0])}`)
        // A file that could not even be read, or a hook of it that failed, has no test to blame.
        if (status === 'failed' && failed.length === 0) failures.push(`${file}\n${firstLines(message)}`)
      }
      return { passed: numPassedTests, skipped: numPendingTests, failures }
    },
  }
}

/**
 * @param {string} python
 * @param {string[]} args files, none: all that there are by their names; other arguments of pytest
 * @returns {Part}
 */
function pytest(python, ...args) {
  const report = join(reports, 'pytest.xml')
  return {
    title: 'pytest',
    command: [python, '-m', 'pytest', '--junitxml', report, ...args],
    cwd: join(root, 'python'),
    count() {
      const text = readFileSync(report, 'utf8')
      const cases = [...text.matchAll(/<testcase ([^>]*?)(?:\/>|>(.*?)<\/testcase>)/gs)].map(([, attributes = '', inside = '']) => ({
        name: `${plain(/classname="([^"]*)"/.exec(attributes)?.[1])}::${plain(/ name="([^"]*)"/.exec(attributes)?.[1])}`,
        problem: /<(?:failure|error)[^>]*message="([^"]*)"/.exec(inside)?.[1],
        skipped: inside.includes('<skipped'),
      }))
      const failed = cases.filter(({ problem }) => problem !== undefined)
      const skipped = cases.filter(({ skipped }) => skipped).length
      const failures = failed.map(({ name, problem }) => `${name}\n${firstLines(plain(problem))}`)
      return { passed: cases.length - failed.length - skipped, skipped, failures }
    },
  }
}

/** @param {string | undefined} xml */
const plain = (xml = '') =>
  xml
    .replaceAll(/&#(?:x([0-9a-f]+)|(\d+));/gi, (_, hex, decimal) => String.fromCodePoint(hex ? Number.parseInt(hex, 16) : Number(decimal)))
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&amp;', '&')

/** @param {string | undefined} text what a test says, without its stack */
const firstLines = (text = '') =>
  text
    .trim()
    .split('\n')
    .filter((line) => !/^\s*at /.test(line))
    .slice(0, 5)
    .map((line) => `    ${line}`)
    .join('\n')

/** Parts that take seconds, and those of them that read the sources beside the others. @returns {[Part[], Part[]]} */
function quickParts() {
  const format = { title: 'format', command: tool('oxfmt', '--check') }
  // Types too: it reads the sources once for both.
  const readers = [{ title: 'lint', command: tool('oxlint', '--type-aware', '--type-check', '--deny-warnings') }]
  const ruff = { title: 'ruff', command: [python(), '-m', 'ruff', 'check', '--no-cache', '.'], cwd: join(root, 'python') }
  const pyrefly = {
    title: 'pyrefly',
    command: [python(), '-m', 'pyrefly', 'check', '--python-interpreter-path', python()],
    cwd: join(root, 'python'),
  }
  return [[format, ruff, pyrefly, vitest('unit', '--project', 'unit')], readers]
}

const python = () => process.env['DARKROOM_PYTHON'] || (readyEnvironment({ home: homeFolder() })?.interpreter ?? 'python3')

/**
 * Chosen tests, or those of a suite of its own.
 * @param {string} name @param {string[]} args @returns {Part}
 */
function chosenPart(name, args) {
  if (name === 'crash') return vitest('vitest', '--project', 'long', ...args)
  if (name === 'doors') return vitest('doors', '--project', 'doors', ...args)
  const all = ['--project', 'unit', '--project', 'system', '--project', 'long']
  if (name !== 'cluster') return vitest('vitest', ...all, ...args)
  process.env['TEST_REDIS'] = 'cluster'
  if (args.length > 0) return vitest('cluster', ...all, ...args)
  const folders = ['test/engine', 'test/farm', 'test/crash', 'test/long', 'test/api']
  return vitest('cluster', ...all, ...folders, '--exclude', `test/long/{${withoutRedis.join()}}.test.ts`)
}

/** Of `test/long` what is about pictures, files, the child, programs, the page, or one Redis alone. */
const withoutRedis = `child cli demo device-memory edits environment exactness extending families farm-clock features flow-families
  hostile-servers idle-hash judged-pictures keeper-death lora-training memory-profiles model-*
  overrun packed-files page-* pictures postprocessing previews prompts redis-server safety single-files table
  torch two-hosts up upscale`.split(/\s+/)

/**
 * The suites of the native addon, which is built for them. Without a C++ compiler there are none, which
 * `NATIVE_SUITES=required` forbids.
 * @returns {Promise<{ parts: Part[], failures: string[], notes: string[] }>} `notes`: what was not run, and why
 */
async function nativeParts() {
  const isRequired = process.env['NATIVE_SUITES'] === 'required'
  try {
    const { isBuilt, notes } = await ensureNativeTests(homeFolder(), speaker())
    if (isBuilt) return { parts: [vitest('native', '--project', 'native')], failures: [], notes }
    return { parts: [], failures: isRequired ? notes : [], notes }
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error
    return { parts: [], failures: [`native\n${error.message}`], notes: [] }
  }
}

/** @type {Set<import('node:child_process').ChildProcess>} */
const running = new Set()
for (const signal of /** @type {const} */ (['SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => {
    for (const child of running) child.kill()
    process.exit(143)
  })
}

/**
 * Runs one part and shows what it says.
 * @param {Part} part
 * @param {boolean} isAside another part has the terminal: this one runs at low priority, in what the other leaves idle
 * @returns {Promise<{ ok: boolean, words: string }>} `words`: the end of what it said, kept where no report says it
 *   better; all of it where it ran aside and has shown nothing
 */
function run({ command: [program = '', ...args], cwd = root, count }, isAside) {
  return new Promise((settle) => {
    const child = spawn(program, args, { cwd, stdio: count && !isAside ? 'inherit' : ['ignore', 'pipe', 'pipe'] })
    running.add(child)
    if (isAside && child.pid !== undefined) setPriority(child.pid, constants.priority.PRIORITY_BELOW_NORMAL)
    let words = ''
    const hear = (/** @type {string} */ chunk) => {
      words = isAside ? words + chunk : (words + chunk).slice(-20_000)
      if (!isAside) process.stdout.write(chunk)
    }
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', hear)
    const end = (/** @type {boolean} */ ok) => {
      running.delete(child)
      settle({ ok, words })
    }
    child.on('error', (error) => {
      hear(`${program}: ${error.message}\n`)
      end(false)
    })
    child.on('close', (code) => end(code === 0))
  })
}

/**
 * @param {Part} part @param {boolean} isAside
 * @returns {Promise<{ count: Count, line: string, words: string }>} `line`: the part in the summary
 */
async function check(part, isAside) {
  const startedAt = performance.now()
  const { ok, words } = await run(part, isAside)
  const count = countOf(part, ok, words)
  const failed = count.failures.length
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
  const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : ''
  const mark = failed === 0 ? '✓' : '✗'
  const line = `${mark} ${part.title.padEnd(8)} ${seconds.padStart(6)} s  ${count.passed} passed, ${failed} failed${skipped}`
  return { count, line, words }
}

/** @param {Part} part @param {boolean} ok @param {string} words @returns {Count} */
function countOf(part, ok, words) {
  const own = (/** @type {string} */ why) => `${part.title}\n${why}`
  if (!part.count) return ok ? { passed: 1, skipped: 0, failures: [] } : { passed: 0, skipped: 0, failures: [own(lastLines(words, 40))] }
  try {
    const count = part.count()
    // Something that is no test's fault, such as an error after the last one.
    if (!ok && count.failures.length === 0) count.failures.push(own('    failed outside its tests; its output is above'))
    return count
  } catch {
    return { passed: 0, skipped: 0, failures: [own('    ended without a report; its output is above')] }
  }
}

/** When all that the tests need was there. */
let beganAt = performance.now()

const total = { passed: 0, skipped: 0, failed: 0 }
/** @type {string[]} */
const lines = []
/** @type {string[]} */
const failures = []

/**
 * Runs parts one after another, and others so beside them: what these said is shown when all have ended, and that one
 * has failed at once.
 * @param {Part[]} parts
 * @param {Part[]} [asides]
 */
async function perform(parts, asides = []) {
  const beside = inTurn(asides)
  const others = asides.length > 0 ? `, with ${asides.map(({ title }) => title).join(', ')} aside` : ''
  for (const part of parts) {
    process.stdout.write(`\n── ${part.title}${others}\n`)
    add(await check(part, false))
  }
  for (const [i, { words, ...done }] of (await beside).entries()) {
    process.stdout.write(`\n── ${asides[i]?.title}\n${words}`)
    add(done)
  }
}

/** @param {Part[]} parts */
async function inTurn(parts) {
  const done = []
  for (const part of parts) {
    const checked = await check(part, true)
    done.push(checked)
    if (checked.count.failures.length > 0) process.stdout.write(`\n${checked.line}, aside\n`)
  }
  return done
}

/** @param {{ count: Count, line: string }} done */
function add({ count, line }) {
  total.passed += count.passed
  total.skipped += count.skipped
  total.failed += count.failures.length
  failures.push(...count.failures)
  lines.push(line)
}

const [name = 'test', ...args] = process.argv.slice(2)
/** @type {string[]} */
const notes = []
if (name === 'check') await perform(...quickParts())
else if (name === 'test' && args.length === 0) {
  const native = await nativeParts()
  notes.push(...native.notes)
  failures.push(...native.failures)
  total.failed += native.failures.length
  beganAt = performance.now()
  const [quick, readers] = quickParts()
  // Neither row waits for the other: each has about one of two cores.
  await perform(
    [...quick, vitest('system', '--project', 'system')],
    [...readers, pytest(python(), '-m', 'not long and not judge'), ...native.parts],
  )
} else if (name === 'exact') {
  if (args.length === 0) await perform([pytest(python(), 'tests/every_pair.py')])
  await perform([vitest('vitest', '--project', 'exact', ...args)])
} else if (name === 'judged') {
  const count = ['--judged', '200']
  await perform([
    {
      title: 'judged',
      command: [python(), '-m', 'pytest', 'tests', '-q', '-s', '-m', 'judge', ...count, ...args],
      cwd: join(root, 'python'),
    },
  ])
} else if (name === 'crash' && args.length === 0)
  // Those that judge pictures are among the former, with more pictures.
  await perform([chosenPart(name, args), pytest(python(), '-m', 'long and not judge')])
else await perform([chosenPart(name, args)])
rmSync(reports, { recursive: true, force: true })
if (failures.length > 0) process.stdout.write(`\n── what failed\n${failures.map((failure) => `\n✗ ${failure}\n`).join('')}`)
const skipped = total.skipped > 0 ? `, ${total.skipped} skipped` : ''
const seconds = Math.round((performance.now() - beganAt) / 1000)
const whole = `${seconds} s after set-up\n${total.passed} passed, ${total.failed} failed${skipped}`
process.stdout.write(`\n${[...lines, ...notes].join('\n')}\n\n${whole}\n`)
process.exitCode = total.failed === 0 ? 0 : 1
