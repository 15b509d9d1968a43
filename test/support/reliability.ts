/**
 * The matrix of docs/reliability.md, written from the names of the tests, and its catalogue of scenarios, written from
 * `scenarios.ts`: `node --import tsx test/support/reliability.ts` brings the page up to date, and a test holds it
 * against them.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { root } from '../../src/config.ts'
import { scenarios, type Proof } from './scenarios.ts'

/** Files whose tests break something, by what they break. A folder stands for all of its test files. */
const groups: Record<string, string[]> = {
  'A worker, its Python child, and what they leave': [
    'drain',
    'role',
    'child-faults',
    'overrun',
    'worker-death',
    'checkpoints',
    'queues',
    'lanes',
    'sharing',
  ].map((name) => `test/long/${name}.test.ts`),
  'Cascades: one fault, and what follows from it': ['test/long/cascades.test.ts'],
  'Commands to a device': ['test/long/commands.test.ts', 'test/long/device-memory.test.ts', 'test/crash/reservations.test.ts'],
  'What is done with models': [
    'test/long/model-verbs.test.ts',
    ...['model-convert', 'model-measure', 'model-turns'].map((name) => `test/long/${name}.test.ts`),
  ],
  'Processes that die at a named place': ['test/long/points.test.ts', 'test/long/fork.test.ts'],
  'The picture itself, with real weights': [
    'test/long/exactness.test.ts',
    'test/long/pictures.test.ts',
    'test/long/features.test.ts',
    'test/long/demo.test.ts',
    'test/long/previews.test.ts',
    'test/long/page-picture.test.ts',
    'test/long/lora-training.test.ts',
    'test/long/memory-profiles.test.ts',
    'test/long/prompts.test.ts',
    'test/long/postprocessing.test.ts',
    'test/long/upscale.test.ts',
    'test/e2e/demo.test.ts',
    'test/exact/samplers.test.ts',
  ],
  'One model in every layout': ['test/long/single-files.test.ts', 'test/long/packed-files.test.ts'],
  'Processes of `darkroom up`': ['test/long/up.test.ts', 'test/supervisor.test.ts'],
  'Processes that come back': ['test/long/restarts.test.ts', 'test/long/deploy.test.ts'],
  'Redis, and the line to it': [
    'farm-clock',
    'redis-server',
    'redis-full',
    'durability',
    'redis-outage',
    'redis-away',
    'clock',
    'sequence',
    'line',
  ].map((name) => `test/long/${name}.test.ts`),
  'Model folders and hashes': [
    'test/long/keeper-death.test.ts',
    'test/long/two-hosts.test.ts',
    'test/long/idle-hash.test.ts',
    'test/models/hostile.test.ts',
  ],
  'Full disks': ['test/long/full-disk.test.ts'],
  'Child sessions and signals': ['test/engine/children.test.ts'],
  'Steps that are undone': ['test/long/undo.test.ts'],
  Batches: ['test/long/batch-kills.test.ts', 'test/engine/items.test.ts', 'test/long/batch.test.ts'],
  'The fence: late attempts': ['test/engine/race.test.ts', 'test/engine/sweep.test.ts', 'test/engine/fence.test.ts'],
  'A poisonous session': ['test/engine/quarantine.test.ts', 'test/long/quarantine.test.ts'],
  'Pause, resume, cancel, retry': ['test/long/control.test.ts', 'test/crash/interrupts.test.ts'],
  'The command line, and hostile servers': ['test/long/cli.test.ts', 'test/long/model-cli.test.ts', 'test/long/hostile-servers.test.ts'],
  'Schedules, and clocks that are set': ['test/engine/schedules.test.ts'],
  'Webhooks, and receivers that are not well': ['test/crash/webhooks.test.ts', 'test/webhooks/webhooks.test.ts'],
  'Traces of what was killed': ['test/long/traces.test.ts'],
  'Everything at random': ['test/long/verifier.test.ts', 'test/long/linear.test.ts'],
  'Events, shards, bytes': [
    'test/long/events.test.ts',
    'test/long/shards.test.ts',
    'test/crash/cluster.test.ts',
    'test/engine/artifacts.test.ts',
    'test/long/retention.test.ts',
  ],
  'The set-up of Python': ['test/long/environment.test.ts', 'test/long/torch.test.ts'],
  'The Python child alone': ['test/long/child.test.ts'],
  'Content safety': ['test/long/safety.test.ts'],
  'Families of models': ['test/long/families.test.ts', 'test/long/flow-families.test.ts'],
}

const page = join(root, 'docs', 'reliability.md')
const parts = { matrix, catalogue }
type Part = keyof typeof parts
const marks = (part: Part): [string, string] => [`<!-- ${part}: written by test/support/reliability.ts -->`, `<!-- end of ${part} -->`]

/** They take long, and break nothing. */
const unbroken = ['extending', 'table', 'judged-pictures', 'replay', 'edits', 'page-queue', 'preprocessors'].map(
  (name) => `test/long/${name}.test.ts`,
)

/** Test files of the folders that are there to break things: none of them may be left out. */
export const breaking = ['test/crash', 'test/long'].flatMap(testsIn).filter((file) => !unbroken.includes(file))

function testsIn(path: string): string[] {
  if (path.endsWith('.ts')) return [path]
  const names = readdirSync(join(root, path)).filter((name) => name.endsWith('.test.ts'))
  return names.toSorted().map((name) => `${path}/${name}`)
}

/**
 * A test by the `describe` that it stands in, if any, and by its own name; what a name is filled in with is left open.
 */
interface Named {
  subject: string
  name: string
}

/** The tests of a file in their order. */
function testsOf(file: string): Named[] {
  const text = readFileSync(join(root, file), 'utf8')
  const table = String.raw`(?:\.(?:each|for)\((?:[^()]|\([^()]*(?:\([^()]*\))*[^()]*\))*\))?`
  const pattern = new RegExp(
    String.raw`^(\s*)(describe|it|test)(?:\.\w+If\([^)]*\)|\.concurrent)?${table}\(\s*(['${'`'}])((?:\\.|(?!\3)[^\\])*)\3`,
    'gm',
  )
  const open: { depth: number; subject: string }[] = []
  return [...text.matchAll(pattern)].flatMap(([, space = '', kind, , words = '']) => {
    const depth = space.replaceAll('\n', '').length
    const name = words.replaceAll("\\'", "'").replaceAll(/\$\{\w+\}|%[sj]/g, '…')
    // A block has ended where something stands no deeper than it.
    while (open.length > 0 && depth <= (open.at(-1)?.depth ?? 0)) open.pop()
    if (kind === 'describe') open.push({ depth, subject: name })
    return kind === 'describe' ? [] : [{ subject: open.map(({ subject }) => subject).join(' '), name }]
  })
}

/** Files that the matrix shows. */
export const shown = Object.values(groups).flat().flatMap(testsIn)

export function matrix(): string {
  return Object.entries(groups)
    .map(([title, paths]) => {
      const rows = paths
        .flatMap(testsIn)
        .flatMap((file) =>
          testsOf(file).map(
            ({ subject, name }) => `| ${subject && `*${subject}* `}${name} | [${basename(file, '.test.ts')}](../${file}) |`,
          ),
        )
      return `### ${title}\n\n| what is done, and what happens then | proof |\n| --- | --- |\n${rows.join('\n')}\n`
    })
    .join('\n')
}

/** The test that a proof names. @throws Error when there is none, or more than one, whose name begins so */
function proven([file, begins]: Proof): string {
  const path = `test/${file}.test.ts`
  const found = testsOf(path).filter(({ name }) => name.startsWith(begins))
  if (found.length !== 1) throw new Error(`${found.length} tests of ${path} begin with ${JSON.stringify(begins)}; a scenario names one`)
  return `[${basename(file)}](../${path}): ${begins}`
}

export function catalogue(): string {
  const rows = scenarios.flatMap((each) =>
    'proofs' in each ? [`| ${each.name} | ${each.happens} | ${each.promised} | ${each.proofs.map(proven).join('; ')} |`] : [],
  )
  const open = scenarios.flatMap((each) =>
    'notCovered' in each ? [`| ${each.name} | ${each.happens} | ${each.promised} | ${each.notCovered} |`] : [],
  )
  const head = '| scenario | what happens | what is promised | proof |\n| --- | --- | --- | --- |'
  const rest = 'Not yet covered:\n\n| scenario | what happens | what is to be promised | why not yet |\n| --- | --- | --- | --- |'
  return [`${head}\n${rows.join('\n')}\n`, ...(open.length > 0 ? [`${rest}\n${open.join('\n')}\n`] : [])].join('\n')
}

/** What stands between the marks of a part on the page. */
export function written(part: Part): string {
  const text = readFileSync(page, 'utf8')
  const [opens, closes] = marks(part)
  return text.slice(text.indexOf(opens) + opens.length, text.indexOf(closes)).trim()
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const part of Object.keys(parts) as Part[]) {
    const text = readFileSync(page, 'utf8')
    const [opens, closes] = marks(part)
    const [before, after] = [text.slice(0, text.indexOf(opens) + opens.length), text.slice(text.indexOf(closes))]
    writeFileSync(page, `${before}\n\n${parts[part]()}\n${after}`)
  }
}
