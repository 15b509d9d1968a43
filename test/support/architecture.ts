/** The rules of docs/architecture.md, read off the files. Each returns sentences that name the file and the rule it breaks. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, relative, resolve } from 'node:path'

const leaves = ['config', 'errors', 'keys', 'redis', 'log', 'ticker', 'within', 'append-only-file', 'api-keys']
const roots = ['main', 'supervisor', 'redis-server']

/** What a room may import besides itself. */
const allowed: Record<string, string[]> = {
  leaves: ['leaves'],
  artifacts: ['leaves'],
  models: ['leaves', 'artifacts'],
  domains: ['leaves', 'artifacts', 'models'],
  farm: ['leaves', 'artifacts', 'models', 'domains'],
  workflows: ['leaves', 'models', 'domains'],
  engine: ['leaves', 'artifacts', 'models', 'farm', 'domains', 'workflows'],
  workers: ['leaves', 'artifacts', 'models', 'farm', 'domains', 'workflows', 'engine'],
  api: ['leaves', 'artifacts', 'models', 'farm', 'domains', 'workflows', 'engine'],
  client: ['leaves', 'farm', 'domains', 'workflows', 'engine', 'api'],
  cli: ['leaves', 'artifacts', 'client', 'workflows', 'engine', 'farm', 'domains', 'models', 'api', 'roots'],
  roots: ['leaves', 'artifacts', 'models', 'farm', 'domains', 'workflows', 'engine', 'workers', 'api', 'client', 'cli'],
}

/** Each outside library has one door. */
const doors: Record<string, RegExp> = {
  bullmq: /^(engine\/dispatch|workers\/(runner|lanes|lane-watch))\.ts$/,
  xstate: /^(engine\/(transition|mermaid)|workflows\/.+)\.ts$/,
  ioredis: /^redis\.ts$/,
  hono: /^api\//,
  '@hono/': /^api\//,
  '@bull-board/': /^api\//,
  'node:child_process': /^(workers\/python\/.+|supervisor|redis-server)\.ts$/,
  commander: /^(cli\/.+|main)\.ts$/,
  'cli-progress': /^cli\//,
  'fast-png': /^domains\/postprocessing\//,
  pino: /^log\.ts$/,
}

interface Import {
  from: string
  to: string
  isType: boolean
}

const files = (folder: string, ending: string): string[] =>
  existsSync(folder)
    ? readdirSync(folder, { recursive: true, encoding: 'utf8' })
        .filter((file) => file.endsWith(ending) && !file.includes('__pycache__'))
        .toSorted()
    : []

function room(file: string): string {
  const [first = ''] = file.split('/')
  if (file.includes('/')) return first
  const name = basename(file, '.ts')
  if (leaves.includes(name)) return 'leaves'
  return roots.includes(name) ? 'roots' : `unknown room (${file})`
}

function importsOf(src: string, file: string): Import[] {
  const text = readFileSync(join(src, file), 'utf8').replaceAll(/\/\*[\s\S]*?\*\//g, '')
  const pattern = /(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|import\('([^']+)'\)/g
  return [...text.matchAll(pattern)].map(([, isType, still, moving]) => ({
    from: file,
    to: still ?? moving ?? '',
    isType: Boolean(isType),
  }))
}

export function checkImports(root: string): string[] {
  const src = join(root, 'src')
  const problems: string[] = []
  const graph = new Map<string, string[]>()
  for (const file of files(src, '.ts')) {
    const own = room(file)
    if (own.startsWith('unknown')) problems.push(`src/${file} lies in no room: it is neither a known leaf nor a root`)
    const targets: string[] = []
    for (const { to, isType } of importsOf(src, file)) {
      if (!to.startsWith('.')) {
        const [, door] =
          Object.entries(doors).find(([library]) => to === library || to.startsWith(library.endsWith('/') ? library : `${library}/`)) ?? []
        if (door && !door.test(file)) problems.push(`src/${file} imports ${to}, whose door is elsewhere`)
        continue
      }
      const target = relative(src, resolve(src, dirname(file), to))
      if (target.startsWith('..')) continue
      if (!isType) targets.push(target)
      const other = room(target)
      if (other !== own && !allowed[own]?.includes(other))
        problems.push(`src/${file} imports src/${target}: ${own} may not import ${other}`)
      if (own === 'domains' && other === 'domains' && isOtherDomain(file, target))
        problems.push(`src/${file} imports src/${target}: domains never import one another`)
      if (own === 'workers' && other === 'engine' && !isType && target !== 'engine/attempt.ts')
        problems.push(`src/${file} imports src/${target}: workers ask the engine through attempt.ts only`)
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
    if (path.includes(file)) {
      problems.push(`import cycle: ${[...path.slice(path.indexOf(file)), file].join(' → ')}`)
      return
    }
    if (done.has(file)) return
    for (const next of graph.get(file) ?? []) visit(next, [...path, file])
    done.add(file)
  }
  for (const file of graph.keys()) visit(file, [])
  return problems
}

/** Six domains, one shape: the same four files, and no drawers. */
export function checkShape(root: string): string[] {
  const problems: string[] = []
  const domains = join(root, 'src', 'domains')
  for (const entry of readdirSync(domains, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue
    if (!['device', 'memory', 'model', 'processing', 'inference', 'postprocessing'].includes(entry.name))
      problems.push(`src/domains/${entry.name} is none of the six domains`)
    for (const file of ['index.ts']) {
      if (!existsSync(join(domains, entry.name, file))) problems.push(`src/domains/${entry.name} has no ${file}`)
    }
  }
  for (const file of files(join(root, 'src'), '.ts')) {
    if (/(^|\/)(utils?|helpers?|common|shared|lib|base|misc)(\.ts$|\/)/.test(file))
      problems.push(`src/${file}: split by concept, not into a drawer`)
  }
  return problems
}

/** Every script has its contract at the head, and uses each argument it names. */
export function checkScripts(root: string): string[] {
  const problems: string[] = []
  for (const file of files(join(root, 'redis'), '.lua')) {
    if (file === 'prelude.lua') continue
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
  }
  const called =
    readFileSync(join(root, 'src', 'engine', 'store.ts'), 'utf8') +
    files(join(root, 'src', 'farm'), '.ts')
      .map((file) => readFileSync(join(root, 'src', 'farm', file), 'utf8'))
      .join('')
  for (const file of files(join(root, 'redis'), '.lua')) {
    const name = basename(file, '.lua')
    if (name !== 'prelude' && !called.includes(`'${name}'`)) problems.push(`redis/${file} is called by nobody`)
  }
  return problems
}

/** `inference.denoise` is `denoise` in python/darkroom/inference.py, for every step on the device. */
export function checkPythonMirror(root: string, gpuSteps: string[]): string[] {
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
  return files(join(root, 'src'), '.ts').flatMap((file) =>
    file !== 'keys.ts' && /[`'"]darkroom:/.test(readFileSync(join(root, 'src', file), 'utf8'))
      ? [`src/${file} spells a Redis key; they live in src/keys.ts`]
      : [],
  )
}
