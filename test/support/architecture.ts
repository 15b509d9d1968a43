/**
 * The rules of docs/architecture.md, read off the files. Each returns sentences that name the file and the rule it
 * breaks.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'

/** Most lines of a file of the product; a longer one is two concepts. */
const maxLines = 400
/** Files that may be longer, by path, with the reason. */
const longer: Record<string, string> = {}

/**
 * Files outside src/domains/values.ts that declare a field of the image request, by path: which ones, and why they are
 * other facts.
 */
const otherFields: Record<string, { fields: readonly string[]; why: string }> = {
  'src/workflows/built-in/image-form.ts': {
    fields: ['steps', 'guidance', 'seed', 'sampler', 'schedule'],
    why: 'the form that clients send: what may be left out, and the limits',
  },
  'src/workflows/built-in/picture-input.ts': {
    fields: ['strength', 'resize', 'picture', 'mask'],
    why: 'the same form: what it says of a picture',
  },
  'src/workflows/built-in/hires-input.ts': {
    fields: ['width', 'height', 'steps', 'strength', 'hires'],
    why: 'the same form: what it says of a second pass',
  },
  'src/workflows/built-in/detail-input.ts': {
    fields: ['mask', 'strength', 'detail'],
    why: 'the same form: what it says of regions',
  },
  'src/workflows/built-in/adapter-input.ts': { fields: ['adapters'], why: 'the same form: which adapters it names' },
  'src/workflows/built-in/embedding-input.ts': { fields: ['embeddings'], why: 'the same form: which embeddings its prompts name' },
  'src/workflows/built-in/control-input.ts': {
    fields: ['picture', 'resize', 'control'],
    why: 'the same form: what it says of ControlNets',
  },
  'src/workflows/built-in/image-preprocess.ts': {
    fields: ['picture', 'resize'],
    why: 'the form of a workflow that makes what a ControlNet is shown',
  },
  'src/workflows/built-in/lora-training.ts': {
    fields: ['model', 'steps', 'guidance'],
    why: 'the form of a workflow that learns, and what it draws on the way',
  },
  'src/workers/python/protocol.ts': {
    fields: ['control', 'adapters', 'embeddings', 'class'],
    why: 'how a reference to a model is told to Python, and the class of an error',
  },
  'src/api/problem.ts': { fields: ['detail', 'class'], why: 'what a problem says (RFC 9457), and the class of an error' },
  'src/api/queue/views.ts': { fields: ['class'], why: 'the hardware class of a line' },
  'src/domains/device/status.ts': { fields: ['stepCache'], why: 'families that have a step cache' },
  'src/artifacts/picture.ts': { fields: ['width', 'height'], why: 'what the decoder found; a leaf knows no domain' },
  'src/models/drawing.ts': {
    fields: ['width', 'height', 'steps', 'guidance', 'sampler'],
    why: 'what the manifest of a model recommends, as far as it does; a leaf knows no domain',
  },
  'src/api/devices/views.ts': { fields: ['model'], why: 'the name that the maker of a device gave it' },
  'src/api/sessions/views.ts': { fields: ['steps', 'class'], why: 'the steps of a session, and the class of its error' },
  'src/workers/python/stats.ts': { fields: ['stepCache'], why: 'what a step cache did' },
  'src/workflows/undo.ts': { fields: ['steps'], why: 'steps that undo others' },
  'src/api/workflows/views.ts': { fields: ['steps'], why: 'the steps of a state' },
}

const leaves = [
  'config',
  'errors',
  'outgoing',
  'keys',
  'redis',
  'log',
  'disk',
  'ticker',
  'bell',
  'backoff',
  'clock',
  'promises',
  'append-only-file',
  'api-keys',
  'audit',
  'data-folder',
  'held-file',
  'redis-data',
  'cards',
  'limits',
  'log-files',
  'trace',
]
const roots = ['main', 'supervisor', 'redis-server']

/** What a room may import besides itself. */
const allowed: Record<string, string[]> = {
  leaves: ['leaves'],
  artifacts: ['leaves'],
  models: ['leaves', 'artifacts'],
  webhooks: ['leaves'],
  domains: ['leaves', 'artifacts', 'models'],
  farm: ['leaves', 'artifacts', 'models', 'domains'],
  workflows: ['leaves', 'models', 'domains'],
  engine: ['leaves', 'artifacts', 'models', 'webhooks', 'farm', 'domains', 'workflows'],
  workers: ['leaves', 'artifacts', 'models', 'farm', 'domains', 'workflows', 'engine'],
  api: ['leaves', 'artifacts', 'models', 'webhooks', 'farm', 'domains', 'workflows', 'engine'],
  client: ['leaves', 'webhooks', 'farm', 'domains', 'workflows', 'engine', 'api'],
  web: ['client'],
  cli: ['leaves', 'artifacts', 'webhooks', 'client', 'workflows', 'engine', 'farm', 'domains', 'models', 'api', 'roots'],
  roots: ['leaves', 'artifacts', 'models', 'webhooks', 'farm', 'domains', 'workflows', 'engine', 'workers', 'api', 'client', 'cli'],
}

/**
 * Each outside library has one door; what has none may not be imported. Node's own modules are free where no door is
 * named.
 */
const doors: Record<string, RegExp> = {
  zod: /^((api|domains|engine|farm|models|webhooks|workers|workflows)\/.+|artifacts\/picture|config|errors|audit|api-keys|client\/types|cli\/control)\.ts$/,
  bullmq: /^(engine\/dispatch|workers\/(runner|lanes|lane-watch))\.ts$/,
  xstate: /^(engine\/(transition|own-machine|replay|diagram)|workflows\/.+)\.ts$/,
  esbuild: /^workflows\/own\/bundle\.ts$/,
  ioredis: /^redis\.ts$/,
  hono: /^api\//,
  '@hono/': /^api\//,
  '@bull-board/': /^api\//,
  commander: /^(cli\/.+|main)\.ts$/,
  'cli-progress': /^cli\//,
  yazl: /^api\/items\/zip\.ts$/,
  'eventsource-parser': /^client\/stream\.ts$/,
  'fastest-levenshtein': /^(domains\/samplers|workflows\/(check|built-in\/family-limits)|models\/nearest)\.ts$/,
  'fast-png': /^domains\/postprocessing\//,
  sharp: /^artifacts\/libvips\.ts$/,
  re2js: /^domains\/postprocessing\/safety\/patterns\.ts$/,
  piscina: /^(domains\/postprocessing\/png|models\/(hash|judges))\.ts$/,
  pino: /^log\.ts$/,
  'rate-limiter-flexible': /^api\/request-rate\.ts$/,
  'ipaddr.js': /^outgoing\.ts$/,
  'prom-client': /^api\/metrics\/metrics\.ts$/,
  croner: /^engine\/schedule-rule\.ts$/,
  yaml: /^models\/extra-paths\.ts$/,
  'fs-native-extensions': /^held-file\.ts$/,
  ws: /^api\/live\//,
  preact: /^web\//,
  'node:child_process': /^(artifacts\/apart|workers\/python\/.+|supervisor|redis-server|redis-data)\.ts$/,
  // The client and the page run in a browser.
  'node:': /^(?!client\/|web\/)/,
}

interface Import {
  from: string
  to: string
  isType: boolean
}

const files = (folder: string, ...endings: string[]): string[] =>
  existsSync(folder)
    ? readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((file) => endings.some((ending) => file.endsWith(ending)) && !file.includes('__pycache__'))
        .toSorted()
    : []

function room(file: string): string {
  const [first = ''] = file.split('/')
  if (file.includes('/')) return first in allowed ? first : `unknown room (${file})`
  const name = basename(file, '.ts')
  if (leaves.includes(name)) return 'leaves'
  return roots.includes(name) ? 'roots' : `unknown room (${file})`
}

const withoutComments = (text: string): string => text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/^\s*\/\/.*$/gm, '')

function importsOf(src: string, file: string): Import[] {
  const text = withoutComments(readFileSync(join(src, file), 'utf8'))
  const pattern = /(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|import\('([^']+)'\)/g
  return [...text.matchAll(pattern)].map(([, isType, still, moving]) => ({
    from: file,
    to: still ?? moving ?? '',
    isType: Boolean(isType),
  }))
}

function checkLibrary(file: string, library: string): string[] {
  const door = Object.entries(doors).find(([name]) => library === name || library.startsWith(/[/:]$/.test(name) ? name : `${name}/`))?.[1]
  if (!door) return [`src/${file} imports ${library}, which has no door`]
  return door.test(file) ? [] : [`src/${file} imports ${library}, whose door is elsewhere`]
}

function checkDirection({ from: file, isType }: Import, target: string): string[] {
  const [own, other] = [room(file), room(target)]
  const told = `src/${file} imports src/${target}:`
  const problems: string[] = []
  if (other !== own && !allowed[own]?.includes(other)) problems.push(`${told} ${own} may not import ${other}`)
  if (own === 'domains' && other === 'domains' && isOtherDomain(file, target)) problems.push(`${told} domains never import one another`)
  if (own === 'workers' && other === 'engine' && !isType && target !== 'engine/attempt.ts')
    problems.push(`${told} workers ask the engine through attempt.ts only`)
  if (own === 'client' && other !== 'client' && !isType) problems.push(`${told} the client imports types only`)
  return problems
}

/** Rooms, directions, doors, circles. A type is an import like any other: who needs it cannot be read without it. */
export function checkImports(root: string): string[] {
  const src = join(root, 'src')
  const problems: string[] = []
  const graph = new Map<string, string[]>()
  for (const file of files(src, '.ts', '.tsx')) {
    if (room(file).startsWith('unknown')) problems.push(`src/${file} lies in no room: it is neither a known leaf nor a root`)
    const targets: string[] = []
    for (const found of importsOf(src, file)) {
      if (!found.to.startsWith('.')) {
        problems.push(...checkLibrary(file, found.to))
        continue
      }
      const target = relative(src, resolve(src, dirname(file), found.to))
      if (target.startsWith('..')) {
        if (!/^\.\.\/host\/[\w-]+\.mjs$/.test(target))
          problems.push(`src/${file} imports ${found.to}: outside src/ only host/ may be imported`)
        continue
      }
      targets.push(target)
      problems.push(...checkDirection(found, target))
    }
    graph.set(file, targets)
  }
  return [...problems, ...cycles(graph)]
}

function isOtherDomain(file: string, target: string): boolean {
  const [, own, ...below] = file.split('/')
  const [, other, ...theirs] = target.split('/')
  return below.length > 0 && theirs.length > 0 && own !== other
}

function cycles(graph: ReadonlyMap<string, string[]>): string[] {
  const problems: string[] = []
  const done = new Set<string>()
  const visit = (file: string, path: string[]): void => {
    const from = path.indexOf(file)
    if (from !== -1) {
      problems.push(`import cycle: ${[...path.slice(from), file].join(' → ')}`)
      return
    }
    if (done.has(file)) return
    for (const next of graph.get(file) ?? []) visit(next, [...path, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  return problems
}

/**
 * A domain is a folder with an index and one file a verb: `memory.copy` is src/domains/memory/copy.ts. Nothing is a
 * drawer.
 */
export function checkShape(root: string, steps: readonly string[]): string[] {
  const problems: string[] = []
  const domains = join(root, 'src', 'domains')
  const told = new Set(steps.map((step) => step.split('.')[0]))
  for (const entry of readdirSync(domains, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue
    const folder = `src/domains/${entry.name}`
    if (!told.has(entry.name)) problems.push(`${folder} has no operation in src/domains/index.ts`)
    if (!existsSync(join(root, folder, 'index.ts'))) problems.push(`${folder} has no index.ts`)
  }
  for (const step of steps) {
    const file = `src/domains/${step.replace('.', '/')}.ts`
    if (!existsSync(join(root, file))) problems.push(`${file} does not exist, but ${step} is an operation`)
  }
  for (const file of files(join(root, 'src'), '.ts', '.tsx')) {
    if (/(^|\/)(utils?|helpers?|common|shared|lib|base|misc)(\.ts$|\/)/.test(file))
      problems.push(`src/${file}: split by concept, not into a drawer`)
  }
  return problems
}

/** No file of the product is longer than one concept needs. */
export function checkLengths(root: string): string[] {
  const product = [
    ...files(join(root, 'src'), '.ts', '.tsx').map((file) => `src/${file}`),
    ...files(join(root, 'python/darkroom'), '.py').map((file) => `python/darkroom/${file}`),
  ]
  const lengths = product.map((file) => ({ file, lines: readFileSync(join(root, file), 'utf8').trimEnd().split('\n').length }))
  return [
    ...lengths
      .filter(({ file, lines }) => lines > maxLines && !(file in longer))
      .map(({ file, lines }) => `${file} has ${lines} lines: cut it by concept, ${maxLines} are the most`),
    ...Object.keys(longer)
      .filter((file) => !lengths.some((each) => each.file === file && each.lines > maxLines))
      .map((file) => `${file} may be longer than ${maxLines} lines, but is not: strike it off the list`),
  ]
}

/** What the pixels of an image depend on is declared in src/domains/values.ts; anywhere else it is taken from there. */
export function checkImageRequest(root: string): string[] {
  const values = readFileSync(join(root, 'src/domains/values.ts'), 'utf8')
  const body = /export const ImageRequest = z\.strictObject\(\{\n([\s\S]*?)\n\}\)/.exec(values)?.[1] ?? ''
  const fields = [...body.matchAll(/^ {2}(\w+):/gm)].map(([, name = '']) => name)
  if (fields.length === 0) return ['src/domains/values.ts declares no ImageRequest that this rule can read']
  const declared = new RegExp(`(?<![\\w.])(${fields.join('|')}):\\s*z\\s*\\.`, 'g')
  const gone = Object.keys(otherFields).filter((file) => !existsSync(join(root, file)))
  const again = files(join(root, 'src'), '.ts', '.tsx')
    .map((file) => `src/${file}`)
    .filter((file) => file !== 'src/domains/values.ts')
    .flatMap((file) => {
      const found = new Set([...withoutComments(readFileSync(join(root, file), 'utf8')).matchAll(declared)].map(([, name = '']) => name))
      return [...found]
        .filter((field) => !otherFields[file]?.fields.includes(field))
        .map((field) => `${file} declares ${field} again: take it from ImageRequest in src/domains/values.ts`)
    })
  return [...again, ...gone.map((file) => `${file} is gone: strike it off the list of other fields`)]
}

/** Every script has its contract at the head, and uses each argument it names. */
export function checkScripts(root: string): string[] {
  const problems: string[] = []
  const called = files(join(root, 'src'), '.ts', '.tsx')
    .map((file) => readFileSync(join(root, 'src', file), 'utf8'))
    .join('\n')
  for (const file of files(join(root, 'redis'), '.lua')) {
    if (file === 'prelude.lua' || file === 'clock.lua') continue
    const text = readFileSync(join(root, 'redis', file), 'utf8')
    const name = basename(file, '.lua')
    if (!text.startsWith(`-- ${name}: `)) problems.push(`redis/${file} does not begin with \`-- ${name}: \` and its purpose`)
    for (const part of ['KEYS[1]', 'Returns'])
      if (!new RegExp(`^-- .*${part.replace(/[[\]]/g, '\\$&')}`, 'm').test(text))
        problems.push(`redis/${file} does not say ${part} in its header`)
    const head = text.split('\n').filter((line) => line.startsWith('--'))
    const body = text
      .split('\n')
      .filter((line) => !line.startsWith('--'))
      .join('\n')
    const told = new Set([...head.join('\n').matchAll(/ARGV\[(\d+)\]/g)].map(([, n]) => Number(n)))
    for (const [, n] of body.matchAll(/ARGV\[(\d+)\]/g))
      if (!told.has(Number(n))) problems.push(`redis/${file} uses ARGV[${n}] without naming it in its header`)
    if (!called.includes(`'${name}'`)) problems.push(`redis/${file} is called nowhere`)
  }
  return problems
}

/** `inference.denoise` is `denoise` in python/darkroom/inference.py, for every step on the device. */
export function checkPythonMirror(root: string, gpuSteps: readonly string[]): string[] {
  return gpuSteps.flatMap((step) => {
    const [domain, verb] = step.split('.')
    const path = join(root, 'python', 'darkroom', `${domain}.py`)
    if (!existsSync(path)) return [`python/darkroom/${domain}.py does not exist, but ${step} runs there`]
    return new RegExp(`^def ${verb}\\(`, 'm').test(readFileSync(path, 'utf8'))
      ? []
      : [`python/darkroom/${domain}.py has no function ${verb} for ${step}`]
  })
}

/** No Redis key outside src/keys.ts and the scripts. */
export function checkKeys(root: string): string[] {
  return files(join(root, 'src'), '.ts', '.tsx').flatMap((file) =>
    file !== 'keys.ts' && /[`'"]darkroom:/.test(readFileSync(join(root, 'src', file), 'utf8'))
      ? [`src/${file} spells a Redis key; they live in src/keys.ts`]
      : [],
  )
}
