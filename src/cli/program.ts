/**
 * The command line: every command with its options.
 *
 * | exit status | means |
 * | --- | --- |
 * | 0 | done; also when whoever read the output had gone before |
 * | 1 | refused or failed: stderr says why and what to do |
 * | 2 | used wrongly |
 * | 130 | interrupted: what was submitted goes on |
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { root } from '../config.ts'
import { maxSeed } from '../domains/values.ts'
import { statuses, type ControlVerb } from '../engine/session.ts'
import { kinds, knownFamilies } from '../models/verdict.ts'
import { parseSize } from './bars.ts'
import { explain, lostOutput } from './terminal.ts'

export interface Roles {
  api(): Promise<void>
  worker(): Promise<void>
}

/** Runs the command of `argv`, and prints errors on stderr. Returns the exit status. */
export async function commandLine(roles: Roles, argv: string[]): Promise<number> {
  try {
    await program(roles).parseAsync(argv)
    const lost = await lostOutput()
    return lost ? explain(lost) : 0
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    return explain(error)
  }
}

const whole =
  (low: number, high: number) =>
  (text: string): number => {
    const value = Number(text)
    if (!/^\d+$/.test(text) || value < low || value > high) throw new InvalidArgumentError(`must be a whole number from ${low} to ${high}`)
    return value
  }

const decimal = (text: string): number => {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError('must be a number')
  return Number(text)
}

const size = (text: string): { width: number; height: number } => {
  const [, width, height] = /^(\d+)[x×](\d+)$/.exec(text) ?? []
  if (!width || !height) throw new InvalidArgumentError('must be like 128x192')
  return { width: Number(width), height: Number(height) }
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    throw new InvalidArgumentError('must be JSON, as in \'{"by": "Ada"}\'')
  }
}

const bytes = (text: string): number => {
  const value = parseSize(text)
  if (value === undefined) throw new InvalidArgumentError('must be a size like 4096, 64MiB or 1.5GiB')
  return value
}

/** `steps=20`: the first `=` ends the name. */
const field = (text: string, before: ReadonlyMap<string, string> = new Map()): ReadonlyMap<string, string> => {
  const [, name, value = ''] = /^([^=\s]+)=(.*)$/s.exec(text) ?? []
  if (name === undefined) throw new InvalidArgumentError('must be like steps=20')
  if (before.has(name)) throw new InvalidArgumentError(`${name} stands twice`)
  return new Map([...before, [name, value]])
}

const collect = (value: string, before: string[] = []): string[] => [...before, value]

/** Commands that are clients of the API load nothing of the engine. */
function program(roles: Roles): Command {
  const { version, description } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string; description: string }
  const darkroom = new Command('darkroom')
    .description(description)
    .version(version)
    .exitOverride()
    // An option after a verb belongs to the verb, even where the command above it has the same option.
    .enablePositionalOptions()
    .configureHelp({ showGlobalOptions: true })
    .addHelpText(
      'after',
      `
Settings are environment variables: see docs/operations.md. \`darkroom doctor\` shows those in use.
Exit status: 0 done, 1 refused or failed, 2 used wrongly, 130 interrupted (what was submitted goes on).`,
    )

  /** exitOverride is inherited by commands made with `command()`. */
  const client = (name: string, summary: string, under: Command = darkroom): Command =>
    under
      .command(name)
      .description(summary)
      .option('--url <url>', 'address of the API; default: DARKROOM_URL, else the `darkroom up` of this data folder')
      .option('--json', 'print one JSON document')

  darkroom
    .command('up')
    .description('start Redis, the API and the workers, and keep them running')
    .option('--workers <n>', 'workers to start', whole(0, 64))
    .option('--port <n>', 'port of the API', whole(0, 65_535))
    .option('--gpu', 'workers draw on the NVIDIA GPU')
    .action(async (options) => (await import('./up.ts')).up(options))
  darkroom
    .command('api')
    .description('run one API on the Redis of REDIS_URL')
    .action(() => roles.api())
  darkroom
    .command('worker')
    .description('run one worker on the Redis of REDIS_URL')
    .action(() => roles.worker())

  client('generate', 'draw a picture and save it')
    .argument('<prompt...>', 'description of the picture')
    .option('--negative <text>', 'negative prompt: keep this out of the picture')
    .option('--model <name>', 'model; default: darkroom-tiny')
    .option('--size <WxH>', 'pixels, multiples of 8', size)
    .option('--steps <n>', 'denoise steps', whole(1, 200))
    .option('--guidance <x>', 'classifier-free guidance scale', decimal)
    .option('--seed <n>', 'seed of the first image', whole(0, maxSeed))
    .option('--sampler <name>', 'sampler, as in "DPM++ 2M Karras"')
    .option('--count <n>', 'how many images; image i has seed + i', whole(1, 64))
    .option('--out <path>', 'folder, or a file that ends in .png')
    .option('--priority <n>', '0 to 9', whole(0, 9))
    .option('--device <device>', 'draw on this device: its id, or cuda:0; default: your default device, else any')
    .option('--tag <tag>', 'tag; may be given several times', collect)
    .option('--detach', 'print the session id and do not wait')
    .action(async (words: string[], options) => (await import('./sessions.ts')).generate(words.join(' '), options))
  client('run', 'run a workflow by its name, and print its output')
    .argument('<workflow>', 'as GET /v1/workflows lists it')
    .argument('[field=value...]', 'its input: text, numbers or JSON, as the workflow has it', field, new Map())
    .option('--device <device>', 'run its steps on this device: its id, or cuda:0')
    .action(async (workflow: string, input: Map<string, string>, options) => (await import('./run.ts')).run(workflow, input, options))
  client('sessions', 'list sessions, newest first')
    .addOption(new Option('--status <status>', 'only these').choices([...statuses]))
    .option('--workflow <name>', 'only of this workflow')
    .option('--tag <tag>', 'only with this tag')
    .option('--parent <session>', 'only children of this session')
    .option('--limit <n>', 'how many', whole(1, 200))
    .option('--cursor <cursor>', 'go on after an earlier page')
    .action(async (options) => (await import('./sessions.ts')).list(options))
  client('show', 'show a session')
    .argument('<session>')
    .option('--receipt', 'show its steps, attempts and workers')
    .option('--follow', 'show its progress until it ends')
    .action(async (id: string, options) => (await import('./sessions.ts')).show(id, options))
  const controls: Record<ControlVerb, string> = {
    pause: 'pause a session: its device is free within one denoise call',
    resume: 'resume a paused session',
    cancel: 'cancel a session: it has ended when this returns',
  }
  for (const [verb, summary] of Object.entries(controls) as [ControlVerb, string][]) {
    client(verb, summary)
      .argument('<session>')
      .action(async (id: string, options) => (await import('./sessions.ts')).control(verb, id, options))
  }
  client('signal', 'send a signal to a session')
    .argument('<session>')
    .argument('<type>', 'as the workflow names it')
    .option('--data <json>', 'data of the signal, as JSON', parsed)
    .action(async (id: string, type: string, options) => (await import('./sessions.ts')).signal(id, type, options))
  client('retry', 'make a new session from a failed or cancelled one')
    .argument('<session>')
    .action(async (id: string, options) => (await import('./sessions.ts')).retry(id, options))

  const devices = client('devices', 'list devices, or show one; choose one with `generate --device ID`')
    .enablePositionalOptions()
    .argument('[device]', 'its id, or cuda:0')
    .action(async (id: string | undefined, options) => {
      const { list, show } = await import('./devices.ts')
      return id === undefined ? list(options) : show(id, options)
    })
  client('default', 'show your default device, or choose it', devices)
    .argument('[device]', 'its id, or cuda:0; `any` for no default')
    .action(async (id: string | undefined, options) => (await import('./devices.ts')).choose(id, options))
  client('refresh', 'have the worker of a device measure it now', devices)
    .argument('<device>')
    .action(async (id: string, options) => (await import('./devices.ts')).refresh(id, options))
  client('optimize', 'free caches, and unload models that no session uses', devices)
    .argument('<device>')
    .option('--keep-models', 'free caches only')
    .action(async (id: string, options) => (await import('./devices.ts')).optimize(id, options))
  client('events', 'list changes of devices: online, offline, busy, degraded, alerts', devices)
    .option('--device <id>', 'only of this device')
    .option('--limit <n>', 'how many', whole(1, 1000))
    .action(async (options) => (await import('./devices.ts')).events(options))

  const models = client('models', 'list what lies in the model folders of all hosts, usable or not')
    .enablePositionalOptions()
    .argument('[words]', 'only those whose name, title, tags or trigger words hold these')
    .addOption(new Option('--kind <kind>', 'only these').choices([...kinds]))
    .addOption(new Option('--family <family>', 'only these').choices([...knownFamilies]))
    .addOption(new Option('--status <status>', 'only these').choices(['usable', 'unsupported', 'unknown', 'refused', 'broken']))
    .option('--limit <n>', 'how many', whole(1, 1_000_000))
    .action(async (words: string | undefined, options) => (await import('./models.ts')).list(words, options))
  client('show', 'show a model', models)
    .argument('<model>')
    .action(async (id: string, options) => (await import('./models.ts')).show(id, options))
  client('rescan', 'look at the model folders again now', models).action(async (options) => (await import('./models.ts')).rescan(options))

  const memory = client('memory', 'show the memory of devices and hosts as bars')
    .enablePositionalOptions()
    .action(async (options) => (await import('./memory.ts')).show(options))
  const ofDevice = (name: string, summary: string): Command =>
    client(name, summary, memory).option('--device <device>', 'only of this device')
  ofDevice('allocations', 'list allocations').action(async (options) => (await import('./memory.ts')).allocations(options))
  ofDevice('analytics', 'show memory over time, and recommendations').action(async (options) =>
    (await import('./memory.ts')).analytics(options),
  )
  ofDevice('leaks', 'allocations that outlived their owners').action(async (options) => (await import('./memory.ts')).leaks(options))
  const making = (command: Command): Command =>
    command
      .option('--device <device>', 'where; default: your default device, else the only one')
      .addOption(new Option('--kind <kind>', 'default: device').choices(['device', 'upload', 'readback']))
      .addOption(new Option('--placement <placement>', 'default: automatic').choices(['automatic', 'committed', 'placed']))
      .option('--ttl <seconds>', 'time to live; default: 600', whole(1, 86_400))
  const ranging = (command: Command): Command =>
    command
      .option('--from-at <size>', 'offset in the source', bytes)
      .option('--at <size>', 'offset in the target', bytes)
      .option('--bytes <size>', 'how much; default: as much as there is', bytes)
  making(client('allocate', 'allocate memory; prints its id', memory).argument('<size>', 'as in 64MiB', bytes)).action(
    async (amount: number, options) => (await import('./memory.ts')).allocate(amount, options),
  )
  client('release', 'release allocations', memory)
    .argument('<allocation...>')
    .action(async (ids: string[], options) => (await import('./memory.ts')).release(ids, options))
  client('renew', 'renew the time to live of an allocation', memory)
    .argument('<allocation>')
    .option('--ttl <seconds>', 'default: 600', whole(1, 86_400))
    .action(async (id: string, options) => (await import('./memory.ts')).renew(id, options))
  ranging(client('copy', 'copy within one device', memory).argument('<from>').argument('<to>'))
    .option('--verify', 'compare checksums afterwards')
    .action(async (from: string, to: string, options) => (await import('./memory.ts')).copy(from, to, options))
  ranging(making(client('transfer', 'transfer to another device; prints the id of the allocation there', memory).argument('<from>')))
    .option('--to <allocation>', 'into this one, not a new one')
    .option('--no-verify', 'do not compare checksums')
    .action(async (from: string, options) => (await import('./memory.ts')).transfer(from, options))
  client('defragment', 'move placed allocations together', memory)
    .argument('<device>')
    .action(async (id: string, options) => (await import('./memory.ts')).defragment(id, options))

  const keys = darkroom.command('keys').description('API keys: with the first one, every request needs one')
  keys
    .command('add')
    .description('make a key; it is shown once')
    .argument('<name>', 'a name to know it by')
    .addOption(new Option('--scope <scope...>', 'scopes; default: submit read control').choices(['submit', 'read', 'control', 'operate']))
    .option('--json', 'print one JSON document')
    .action(async (name: string, options) => (await import('./keys.ts')).addKey(name, options))
  keys
    .command('list')
    .description('list the keys, without their secrets')
    .option('--json', 'print one JSON document')
    .action(async (options) => (await import('./keys.ts')).listKeys(options))
  keys
    .command('revoke')
    .description('revoke a key at once')
    .argument('<id>', 'its id, from `keys list`')
    .action(async (id: string) => (await import('./keys.ts')).revokeKey(id))
  keys
    .command('open')
    .description('open a farm whose keys are all revoked: every user of this machine may then do everything, without a key')
    .action(async () => (await import('./keys.ts')).openFarm())

  darkroom
    .command('doctor')
    .description('check this installation: versions, devices, models, the running farm')
    .option('--json', 'print one JSON document')
    .action(async (options) => (await import('./doctor.ts')).doctor(options))
  darkroom
    .command('repair')
    .description('cut the damaged end off the append-only file of the private Redis, and keep a copy')
    .action(async () => (await import('./repair.ts')).repair())
  darkroom
    .command('demo')
    .description('draw a picture on a farm of its own')
    .option('--kill', 'draw it twice, with the worker killed in the middle of the second')
    .option('--gpu', 'draw on the NVIDIA GPU')
    .action(async (options) => (await import('./demo.ts')).demo(options))
  return darkroom
}
