/**
 * The matrix of docs/reliability.md, written from the names of the tests: `node --import tsx test/support/reliability.ts` brings the page up to
 * date, and a test holds it against them.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { root } from '../../src/config.ts'

/** Files whose tests break something, by what they break. A folder stands for all of its test files. */
const groups: Record<string, string[]> = {
  'A worker, its Python child, and what they leave': ['worker-death', 'role', 'child-faults', 'checkpoints', 'queues', 'lanes'].map(
    (name) => `test/crash/${name}.test.ts`,
  ),
  'Commands to a device': ['test/crash/commands.test.ts'],
  'Processes that die at a named place': ['test/crash/points.test.ts'],
  'The picture itself, with real weights': ['test/e2e/exactness.test.ts', 'test/e2e/demo.test.ts', 'test/exact/samplers.test.ts'],
  'Processes of `darkroom up`': ['test/e2e/up.test.ts'],
  'Processes that come back': ['test/crash/restarts.test.ts', 'test/crash/deploy.test.ts'],
  'Redis, and the line to it': ['test/crash/redis-outage.test.ts', 'test/faults'],
  'Child sessions and signals': ['test/workflows/children.test.ts'],
  'The fence: late attempts': ['test/workflows/race.test.ts', 'test/workflows/fence.test.ts'],
  'A poisonous session': ['test/workflows/quarantine.test.ts'],
  'Pause, resume, cancel, retry': ['test/crash/control.test.ts', 'test/crash/interrupts.test.ts'],
  'Everything at random': ['test/chaos'],
  'Events, shards, bytes': [
    'test/crash/events.test.ts',
    'test/crash/shards.test.ts',
    'test/crash/cluster.test.ts',
    'test/workflows/artifacts.test.ts',
    'test/workflows/retention.test.ts',
  ],
  'The Python child alone': ['test/workers/python.test.ts'],
}

const page = join(root, 'docs', 'reliability.md')
const [opens, closes] = ['<!-- matrix: written by test/support/reliability.ts -->', '<!-- end of matrix -->']

/** Test files of the folders that exist only to break things: none of them may be left out. */
export const breaking = ['test/crash', 'test/faults', 'test/chaos'].flatMap(testsIn)

function testsIn(path: string): string[] {
  if (path.endsWith('.ts')) return [path]
  const names = readdirSync(join(root, path)).filter((name) => name.endsWith('.test.ts'))
  return names.toSorted().map((name) => `${path}/${name}`)
}

/** Names of a file's tests in their order; what a name is filled in with is left open. */
function namesIn(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8')
  const pattern = /^\s*(?:it|test)(?:\.(?:each|for)\((?:[^()]|\([^()]*(?:\([^()]*\))*[^()]*\))*\))?\(\s*(['`])((?:\\.|(?!\1)[^\\])*)\1/gm
  return [...text.matchAll(pattern)].map(([, , name = '']) => name.replaceAll("\\'", "'").replaceAll(/\$\{\w+\}|%[sj]/g, '…'))
}

/** Files that the matrix shows. */
export const shown = Object.values(groups).flat().flatMap(testsIn)

export function matrix(): string {
  return Object.entries(groups)
    .map(([title, paths]) => {
      const rows = paths
        .flatMap(testsIn)
        .flatMap((file) => namesIn(file).map((name) => `| ${name} | [${basename(file, '.test.ts')}](../${file}) |`))
      return `### ${title}\n\n| what is done, and what happens then | proof |\n| --- | --- |\n${rows.join('\n')}\n`
    })
    .join('\n')
}

/** What stands between the marks on the page. */
export function written(): string {
  const text = readFileSync(page, 'utf8')
  return text.slice(text.indexOf(opens) + opens.length, text.indexOf(closes)).trim()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = readFileSync(page, 'utf8')
  const [before, after] = [text.slice(0, text.indexOf(opens) + opens.length), text.slice(text.indexOf(closes))]
  writeFileSync(page, `${before}\n\n${matrix()}\n${after}`)
}
