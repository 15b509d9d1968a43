/** The command line: every command with its options, and what the exit status means (0 done, 1 failed, 2 used wrongly, 130 interrupted). */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import { root } from '../config.ts'
import { statuses, type ControlVerb } from '../workflows/session.ts'
import { explain } from './terminal.ts'

export interface Roles {
  api(): Promise<void>
  worker(): Promise<void>
}

/** Runs the command of `argv`; what goes wrong is told on stderr. Returns the exit status. */
export async function commandLine(roles: Roles, argv: string[]): Promise<number> {
  try {
    await program(roles).parseAsync(argv)
    return 0
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

const collect = (value: string, before: string[] = []): string[] => [...before, value]

/** Commands that are clients of the API load nothing of the engine. */
function program(roles: Roles): Command {
  const { version, description } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string; description: string }
  const darkroom = new Command('darkroom')
    .description(description)
    .version(version)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .addHelpText('after', '\nSettings are environment variables: see docs/operations.md. `darkroom doctor` says what is in use.')

  /** exitOverride is inherited by commands made with `command()`. */
  const client = (name: string, summary: string): Command =>
    darkroom
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
    .argument('<prompt...>', 'what to draw')
    .option('--negative <text>', 'what not to draw')
    .option('--model <name>', 'model; default: darkroom-tiny')
    .option('--size <WxH>', 'pixels, multiples of 8', size)
    .option('--steps <n>', 'denoise steps', whole(1, 200))
    .option('--guidance <x>', 'classifier-free guidance scale', decimal)
    .option('--seed <n>', 'seed of the first image', whole(0, 2 ** 32 - 1))
    .option('--sampler <name>', 'sampler, as in "DPM++ 2M Karras"')
    .option('--count <n>', 'how many images; image i has seed + i', whole(1, 64))
    .option('--out <path>', 'folder, or a file that ends in .png')
    .option('--priority <n>', '0 to 9', whole(0, 9))
    .option('--tag <tag>', 'tag; may be given several times', collect)
    .option('--detach', 'print the session id and do not wait')
    .action(async (words: string[], options) => (await import('./sessions.ts')).generate(words.join(' '), options))
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
    .option('--receipt', 'what happened on the way')
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
  client('signal', 'tell the workflow of a session something')
    .argument('<session>')
    .argument('<type>', 'as the workflow names it')
    .option('--data <json>', 'what to tell, as JSON', parsed)
    .action(async (id: string, type: string, options) => (await import('./sessions.ts')).signal(id, type, options))
  client('retry', 'make a new session from a failed or cancelled one')
    .argument('<session>')
    .action(async (id: string, options) => (await import('./sessions.ts')).retry(id, options))

  const keys = darkroom.command('keys').description('API keys: with the first one, every request needs one')
  keys
    .command('add')
    .description('make a key; it is shown once')
    .argument('<name>', 'whose or what it is')
    .addOption(
      new Option('--scope <scope...>', 'what it may do; default: submit read control').choices(['submit', 'read', 'control', 'operate']),
    )
    .option('--json', 'print one JSON document')
    .action(async (name: string, options) => (await import('./keys.ts')).addKey(name, options))
  keys
    .command('list')
    .description('list the keys, without their secrets')
    .option('--json', 'print one JSON document')
    .action(async (options) => (await import('./keys.ts')).listKeys(options))
  keys
    .command('revoke')
    .description('make a key worthless, at once')
    .argument('<id>', 'its id, from `keys list`')
    .action(async (id: string) => (await import('./keys.ts')).revokeKey(id))

  darkroom
    .command('doctor')
    .description('say what runs here, with what, and how to change it')
    .option('--json', 'print one JSON document')
    .action(async (options) => (await import('./doctor.ts')).doctor(options))
  darkroom
    .command('demo')
    .description('draw a picture on a farm of its own')
    .option('--kill', 'draw it twice, with the worker killed in the middle of the second')
    .option('--gpu', 'draw on the NVIDIA GPU')
    .action(async (options) => (await import('./demo.ts')).demo(options))
  return darkroom
}
