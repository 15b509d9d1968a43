/**
 * `npm test`: everything there is to check, one part after another, none hiding another's failure; the last line is `N passed, N failed`.
 * `npm run check`: the parts that take seconds.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { homeFolder, root } from './home.mjs'
import { readyEnvironment } from './python.mjs'

/** @typedef {{ passed: number, failed: number, skipped: number }} Count */
/** @typedef {{ title: string, command: string[], cwd?: string, count?: (ok: boolean) => Count }} Part */

const bin = (/** @type {string} */ name) => join(root, 'node_modules', '.bin', name)
const reports = mkdtempSync(join(tmpdir(), 'darkroom-suite-'))

/** @param {string} title @param {string[]} args @returns {Part} */
const vitest = (title, args) => {
  const file = join(reports, `${title.replaceAll(/\W/g, '-')}.json`)
  return {
    title,
    command: [bin('vitest'), 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...args],
    count(ok) {
      try {
        const { numPassedTests, numFailedTests, numPendingTests, numFailedTestSuites } = JSON.parse(readFileSync(file, 'utf8'))
        // A file that could not even be read has no tests to count.
        const failed = Math.max(numFailedTests, Math.min(numFailedTestSuites, 1), ok ? 0 : 1)
        return { passed: numPassedTests, failed, skipped: numPendingTests }
      } catch {
        return { passed: 0, failed: 1, skipped: 0 }
      }
    },
  }
}

/** @param {string} python @returns {Part} */
const pytest = (python) => {
  const file = join(reports, 'pytest.xml')
  return {
    title: 'pytest',
    command: [python, '-m', 'pytest', '--junitxml', file],
    cwd: join(root, 'python'),
    count(ok) {
      try {
        const [head = ''] = /<testsuite [^>]*>/.exec(readFileSync(file, 'utf8')) ?? []
        const number = (/** @type {string} */ name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0)
        const failed = Math.max(number('failures') + number('errors'), ok ? 0 : 1)
        return { passed: number('tests') - number('failures') - number('errors') - number('skipped'), failed, skipped: number('skipped') }
      } catch {
        return { passed: 0, failed: 1, skipped: 0 }
      }
    },
  }
}

const format = { title: 'format', command: [bin('oxfmt'), '--check'] }
const lint = { title: 'lint', command: [bin('oxlint'), '--type-aware', '--deny-warnings'] }
const types = { title: 'types', command: [bin('tsc'), '-p', '.'] }

/** @param {string} name @param {string[]} args @returns {Part[]} */
function partsOf(name, args) {
  if (name === 'check') return [format, lint, types, vitest('unit tests', ['--project', 'unit'])]
  if (name === 'exact') return [vitest('exact', ['--project', 'exact', ...args])]
  const python = process.env['DARKROOM_PYTHON'] || (readyEnvironment({ home: homeFolder() })?.interpreter ?? 'python3')
  const ruff = { title: 'ruff', command: [python, '-m', 'ruff', 'check', '--no-cache', 'darkroom', 'tests'], cwd: join(root, 'python') }
  return [format, lint, types, ruff, pytest(python), vitest('vitest', ['--project', 'unit', '--project', 'system', ...args])]
}

/** @param {Part} part @returns {Promise<boolean>} */
function run({ command: [program = '', ...args], cwd = root }) {
  return new Promise((settle) => {
    const child = spawn(program, args, { cwd, stdio: 'inherit' })
    child.on('error', (error) => {
      process.stderr.write(`${program}: ${error.message}\n`)
      settle(false)
    })
    child.on('exit', (code) => settle(code === 0))
  })
}

const [name = 'test', ...args] = process.argv.slice(2)
const total = { passed: 0, failed: 0, skipped: 0 }
/** @type {string[]} */
const lines = []
for (const part of partsOf(name, args)) {
  process.stdout.write(`\n── ${part.title}\n`)
  const startedAt = performance.now()
  const ok = await run(part)
  const count = part.count?.(ok) ?? { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 }
  total.passed += count.passed
  total.failed += count.failed
  total.skipped += count.skipped
  const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : ''
  lines.push(
    `${count.failed === 0 ? '✓' : '✗'} ${part.title.padEnd(12)} ${count.passed} passed, ${count.failed} failed${skipped}  ${((performance.now() - startedAt) / 1000).toFixed(1)} s`,
  )
}
rmSync(reports, { recursive: true, force: true })
process.stdout.write(
  `\n${lines.join('\n')}\n\n${total.passed} passed, ${total.failed} failed${total.skipped > 0 ? `, ${total.skipped} skipped` : ''}\n`,
)
process.exitCode = total.failed === 0 ? 0 : 1
