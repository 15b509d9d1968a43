/**
 * The command line: every command with its options.
 *
 * | exit status | means |
 * | --- | --- |
 * | 0 | done; also when whoever read the output had gone before |
 * | 1 | refused or failed: stderr says why and what to do |
 * | 2 | used wrongly |
 * | 3 | `verify`: drawn again, and other bytes |
 * | 130 | interrupted: what was submitted goes on |
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError, Option } from 'commander'
import { root } from '../config.ts'
import { preprocessors } from '../domains/preprocessors.ts'
import { areas, controlModes, controlTasks, fills, maxSeed, promptSyntaxes, resizes } from '../domains/values.ts'
import { statuses, type ControlVerb } from '../engine/session.ts'
import { kinds, knownFamilies } from '../models/verdict.ts'
import { itemOrders } from '../workflows/orders.ts'
import { adapter, boxes, collect, decimal, field, parsed, policy, seeds, size, whole } from './arguments.ts'
import { addAutomation } from './automation.ts'
import { addMemoryCommands } from './memory-commands.ts'
import { addPolicyCommands } from './policy-commands.ts'
import { addQueueCommands } from './queue-commands.ts'
import { addPictureCommands, withPostprocessing } from './picture-commands.ts'
import { explain, lostOutput } from './terminal.ts'
import { addWorkflowCommands } from './workflow-commands.ts'

export interface Roles {
  api(): Promise<void>
  worker(options: { standby?: boolean }): Promise<void>
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
Exit status: 0 done, 1 refused or failed, 2 used wrongly, 3 not the same bytes (verify), 130 interrupted (what was submitted goes on).`,
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
    .addOption(new Option('--standby', 'stand by until `up` gives it its turn').hideHelp())
    .action((options) => roles.worker(options))

  withPostprocessing(client('generate', 'draw a picture and save it'))
    .argument('<prompt...>', 'description of the picture')
    .option('--negative <text>', 'negative prompt: keep this out of the picture')
    .option('--model <name>', 'model; default: darkroom-tiny')
    .option('--size <WxH>', 'pixels, multiples of 8', size)
    .option('--steps <n>', 'denoise steps', whole(1, 200))
    .option('--guidance <x>', 'classifier-free guidance scale', decimal)
    .option('--seed <n>', 'seed of the first image', whole(0, maxSeed))
    .option('--sampler <name>', 'sampler, as in "DPM++ 2M Karras"')
    .option('--schedule <name>', 'how its steps are spread, as in "SGM Uniform"')
    .addOption(new Option('--prompt-syntax <how>', 'how brackets are read; default: a1111').choices([...promptSyntaxes]))
    .option('--clip-skip <n>', 'layer of the text encoder that is heard, from the end', whole(1, 12))
    .option('--variation-strength <x>', 'how far the first noise lies towards that of another seed, 0 to 1', decimal)
    .option('--variation-seed <n>', 'that seed', whole(0, maxSeed))
    .option('--guidance-rescale <x>', 'how much guidance is kept from overexposing, 0 to 1', decimal)
    .option('--guidance-start <x>', 'share of the steps before guidance begins, 0 to 1', decimal)
    .option('--guidance-end <x>', 'share of them after which it ends', decimal)
    .option('--lora <name[:weight]>', 'change the model by a LoRA or its kin, as in pastel:0.8; may be given several times', adapter)
    .option('--embedding <name>', 'hear this word of the prompts as a textual inversion; may be given several times', collect)
    .option('--prompt-adapters', '<lora:name:0.8> and embedding:name in the prompt are no words')
    .option('--picture <file>', 'draw over this picture: a file, or the id of one')
    .option('--strength <x>', 'how much is drawn over it, 0 to 1; default: 0.75', decimal)
    .addOption(new Option('--resize <how>', 'how it comes to the size; default: crop').choices([...resizes]))
    .option('--mask <file>', 'draw only where this picture is white: a file or an id; or `alpha`, or `border`')
    .option('--invert-mask', 'draw only where it is black')
    .option('--grow-mask <n>', 'pixels to grow it by', whole(0, 512))
    .option('--blur-mask <n>', 'softness of its edge; default: 4', whole(0, 64))
    .addOption(new Option('--fill <what>', 'what lies under the noise of the mask; default: original').choices([...fills]))
    .addOption(new Option('--area <what>', 'masked: the masked region alone, at the size').choices([...areas]))
    .option('--padding <n>', 'pixels around such a region; default: 32', whole(0, 1024))
    .option('--hires [scale]', 'a second pass, so many times larger; default: 2', decimal)
    .option('--upscaler <how>', 'how it is enlarged: latent, lanczos …, or the name of an upscaler; default: latent')
    .option('--hires-steps <n>', 'steps that are drawn over it; default: those of the first pass', whole(1, 200))
    .option('--hires-strength <x>', 'how much is drawn over, 0 to 1; default: 0.6', decimal)
    .option('--detail <box>', 'draw a region again, at full size: 64x64+32+16 (pixels+left+top); may be given several times', boxes)
    .option('--detail-strength <x>', 'how much is drawn over it, 0 to 1; default: 0.5', decimal)
    .option('--detail-prompt <text>', 'what to draw there; default: the same')
    .option('--reference <file>', 'show it to a model that edits pictures: a file or an id; may be given several times', collect)
    .option('--control <file>', 'steer it by this picture: a file or an id; with the preprocessor pose OpenPose’s JSON of joints')
    .option('--control-model <name>', 'ControlNet that does so')
    .addOption(new Option('--preprocessor <name>', 'what is made of the picture before').choices([...preprocessors]))
    .option('--preprocessor-model <name>', 'network that sees depth or segment; default: the only one there is')
    .option('--control-weight <x>', '0 to 2; default: 1', decimal)
    .option('--control-start <x>', 'share of the steps after which it acts; default: 0', decimal)
    .option('--control-end <x>', 'share of the steps until which it acts; default: 1', decimal)
    .addOption(new Option('--control-mode <mode>', 'which counts more; default: balanced').choices([...controlModes]))
    .addOption(new Option('--control-task <task>', 'what a ControlNet that knows several is shown').choices([...controlTasks]))
    .option('--policy <name>', 'a policy that judges it too, besides those that apply anyway')
    .option('--redraws <n>', 'how often a blocked picture is drawn again, with another seed', whole(0, 8))
    .option('--count <n>', 'how many images; image i has seed + i', whole(1, 64))
    .option('--out <path>', 'folder, or a file with the ending of its format, as .png')
    .option('--priority <n>', '0 to 9', whole(0, 9))
    .option('--device <device>', 'draw on this device: its id, or cuda:0; default: your default device, else any')
    .option('--tag <tag>', 'tag; may be given several times', collect)
    .option('--detach', 'print the session id and do not wait')
    .option('--dry-run', 'submit nothing: say what would come of it, where and when it would run, and for how long')
    .action(async (words: string[], options) => (await import('./sessions.ts')).generate(words.join(' '), options))
  client('batch', 'draw many pictures: from a list, a grid, wildcards, seeds')
    .argument('[file]', 'a batch or a list of items as JSON, or a prompt a line; - reads them from stdin')
    .option('--workflow <name>', 'which each item is a session of; default: image-generation')
    .option('--set <field=value>', 'what all items have, as in prompt="a red circle"; may be given several times', field)
    .option('--grid <field=values>', 'values of a field, as in steps=10,20 or a JSON array; may be given several times', field)
    .option('--seeds <n>', 'so many seeds each, or those of 100-119', seeds)
    .addOption(new Option('--wildcards <how>', 'choices in prompts; default: each').choices(['off', 'each', 'all']))
    .option('--window <n>', 'how many are under way at a time; default: 16', whole(1, 128))
    .addOption(new Option('--order <order>', 'in which they begin; default: listed').choices([...itemOrders]))
    .option('--on-failure <policy>', 'continue, stop, or how many may fail; default: continue', policy)
    .option('--zip <file>', 'save the pictures as this ZIP')
    .option('--sheet <file>', 'save a contact sheet of them, a PNG')
    .option('--priority <n>', '0 to 9', whole(0, 9))
    .option('--device <device>', 'draw on this device: its id, or cuda:0; default: your default device, else any')
    .option('--tag <tag>', 'tag; may be given several times', collect)
    .option('--detach', 'print the session id and do not wait')
    .option('--dry-run', 'submit nothing: say what would come of it, where and when it would run, and for how long')
    .action(async (file: string | undefined, options) => (await import('./batch.ts')).batch(file, options))
  client('upscale', 'make a picture larger and save it')
    .argument('<file>', 'a PNG, JPEG, WebP or AVIF, or the id of a picture')
    .option('--upscaler <name>', 'lanczos, bicubic or nearest, or the name of an upscaler; default: lanczos')
    .option('--factor <x>', 'how many times larger; default: as the upscaler is made for, else 2', decimal)
    .option('--size <WxH>', 'pixels, in place of a factor', size)
    .option('--tile <n>', 'side of the tiles that an upscaler computes', whole(64, 1024))
    .option('--out <path>', 'folder, or a file that ends in .png')
    .option('--device <device>', 'on this device: its id, or cuda:0; default: your default device, else any')
    .option('--detach', 'print the session id and do not wait')
    .action(async (file: string, options) => (await import('./upscale.ts')).upscale(file, options))
  client('train', 'learn a LoRA from a folder of pictures, each beside a text that says what is to be seen')
    .argument('<folder>', 'pictures NAME.png, with texts NAME.txt')
    .requiredOption('--name <name>', 'name of the LoRA')
    .option('--model <name>', 'model that it is for; default: darkroom-tiny')
    .option('--size <WxH>', 'pixels that pictures are brought to; default: the model’s own', size)
    .option('--steps <n>', 'training steps; default: 500', whole(1, 100_000))
    .option('--rank <n>', 'of the difference that is learned; default: 8', whole(1, 256))
    .option('--alpha <x>', 'alpha / rank is how much of it is added; default: the rank', decimal)
    .option('--learning-rate <x>', 'default: 0.0001', decimal)
    .option('--batch <n>', 'pictures a step; default: 1', whole(1, 64))
    .option('--seed <n>', 'whatever is random follows from it', whole(0, maxSeed))
    .option('--sample <prompt>', 'what is drawn on the way; default: the first caption')
    .option('--out <path>', 'where the last sample is saved: a folder, or a file that ends in .png')
    .action(async (folder: string, options) => (await import('./train.ts')).train(folder, options))
  client('run', 'run a workflow by its name, and print its output')
    .argument('<workflow>', 'as GET /v1/workflows lists it')
    .argument('[field=value...]', 'its input: text, numbers or JSON, as the workflow has it', field, new Map())
    .option('--device <device>', 'run its steps on this device: its id, or cuda:0')
    .option('--dry-run', 'submit nothing: say what would come of it, where and when it would run, and for how long')
    .action(async (workflow: string, input: Map<string, string>, options) => (await import('./run.ts')).run(workflow, input, options))
  addPictureCommands(client)
  darkroom
    .command('request')
    .description('show the request of a picture, by the texts in its file: of Darkroom, A1111, ComfyUI or InvokeAI')
    .argument('<file>', 'a PNG, JPEG, WebP or AVIF')
    .option('--json', 'print one JSON document')
    .action(async (file: string, options) => (await import('./request.ts')).request(file, options))
  client('verify', 'draw a picture again from its own receipt, and compare the bytes')
    .argument('<file>', 'a picture that Darkroom made, and nobody has changed')
    .option('--device <device>', 'draw on this device: its id, or cuda:0; default: one of the same exactness key, else any')
    .action(async (file: string, options) => (await import('./verify.ts')).verify(file, options))
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
  addQueueCommands(client)
  client('change', 'give a session other tags, or another deadline')
    .argument('<session>')
    .option('--tag <tag>', 'tag; may be given several times, and replaces those before', collect)
    .option('--no-tags', 'no tags any more')
    .option('--deadline <seconds>', 'from now', whole(1, 30 * 86_400))
    .option('--no-deadline', 'no deadline any more')
    .action(async (id: string, options) => (await import('./sessions.ts')).change(id, options))
  client('signal', 'send a signal to a session')
    .argument('<session>')
    .argument('<type>', 'as the workflow names it')
    .option('--data <json>', 'data of the signal, as JSON', parsed)
    .action(async (id: string, type: string, options) => (await import('./sessions.ts')).signal(id, type, options))
  client('retry', 'make a new session from a failed or cancelled one; of a batch, from what has not succeeded')
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

  const finding = (command: Command): Command =>
    command
      .addOption(new Option('--kind <kind>', 'only these').choices([...kinds]))
      .addOption(new Option('--family <family>', 'only these').choices([...knownFamilies]))
      .addOption(new Option('--status <status>', 'only these').choices(['usable', 'unsupported', 'unknown', 'refused', 'broken']))
      .option('--tag <tag>', 'only those with this tag')
      .option('--limit <n>', 'how many', whole(1, 1_000_000))
      .action(async (words: string | undefined, options) => (await import('./models.ts')).list(words, options))
  const models = finding(
    client('models', 'list what lies in the model folders of all hosts, usable or not')
      .enablePositionalOptions()
      .argument('[words]', 'only those whose name, title, tags, notes or trigger words hold these'),
  )
  finding(client('list', 'the same', models).argument('[words]', 'only those that hold these'))
  finding(
    client('search', 'list those that hold some words', models).argument('<words>', 'as in name, title, tags, notes or trigger words'),
  )
  const ofModel = (name: string, summary: string): Command =>
    client(name, summary, models)
      .argument('<model>')
      .addOption(new Option('--kind <kind>', 'which of several models with that name').choices([...kinds]))
  const byModel = (name: 'inspect' | 'components' | 'validate' | 'hash' | 'status' | 'convert', summary: string): Command =>
    ofModel(name, summary).action(async (id: string, options) => (await import('./model-verbs.ts'))[name](id, options))
  ofModel('show', 'show a model').action(async (id: string, options) => (await import('./models.ts')).show(id, options))
  byModel('status', 'show where a model lies, where it is resident, and how fast it was')
  byModel('inspect', 'read the headers of a model anew')
  byModel('components', 'list the parts of a model')
  byModel('validate', 'read a model whole, and say by tensor what is wrong; exits 1 when something is')
  byModel('hash', 'compute the body hash of a model')
  byModel('convert', 'make safetensors of a pickle, where the operator allows it')
  const onDevice = (name: 'load' | 'unload', summary: string): Command =>
    ofModel(name, summary)
      .option('--device <device>', 'where: its id, or cuda:0; default: your default device, else any to load, the only one to unload')
      .action(async (id: string, options) => (await import('./model-verbs.ts'))[name](id, options))
  onDevice('load', 'load a model from disk to a device')
  onDevice('unload', 'unload a model from a device')
  const measuring = (name: 'benchmark' | 'optimize', summary: string): Command =>
    ofModel(name, summary)
      .option('--device <device>', 'on this device: its id, or cuda:0')
      .option('--size <WxH>', 'pixels of the picture, multiples of 8; default: the model’s own', size)
      .option('--calls <n>', 'denoise steps of the picture', whole(2, 50))
      .action(async (id: string, options) => (await import('./model-verbs.ts'))[name](id, options))
  measuring('benchmark', 'measure a model: its loads, its steps, its decode, its memory')
  measuring('optimize', 'warm a model up on a device')
  ofModel('annotate', 'say of a model a title, tags, notes, settings and a VAE that you like; what no option names stays')
    .option('--title <text>', 'title')
    .option('--tag <tag>', 'tag; may be given several times, and replaces those before', collect)
    .option('--notes <text>', 'notes')
    .option('--set <setting=value>', 'steps, guidance, sampler, width or height that requests leave out; may be given several times', field)
    .option('--vae <vae>', 'VAE that decodes in place of its own, by id or body hash; own: its own again')
    .option('--clear', 'say nothing of it any more')
    .action(async (id: string, options) => (await import('./model-verbs.ts')).annotate(id, options))
  const inRam = (name: 'cache' | 'evict', summary: string): Command =>
    ofModel(name, summary)
      .option('--device <device>', 'whose worker: its id, or cuda:0; default: your default device, else the only one')
      .action(async (id: string, options) => (await import('./models.ts'))[name](id, options))
  inRam('cache', 'read a model into the RAM of a worker')
  inRam('evict', 'let go of a model in the RAM of a worker')
  client('import-config', 'take configurations and vocabularies for single files from a diffusers folder', models)
    .argument('<folder>')
    .option('--name <name>', 'name of the set; default: that of the folder')
    .action(async (folder: string, options) => (await import('./models.ts')).importConfig(folder, options))
  client('rescan', 'look at the model folders again now', models).action(async (options) => (await import('./models.ts')).rescan(options))

  addWorkflowCommands(client)

  addMemoryCommands(client)
  addAutomation(client)
  addPolicyCommands(client)

  const keys = darkroom.command('keys').description('API keys: with the first one, every request needs one')
  keys
    .command('add')
    .description('make a key; it is shown once')
    .argument('<name>', 'a name to know it by')
    .addOption(
      new Option('--scope <scope...>', 'scopes; default: submit read control').choices(['submit', 'read', 'control', 'operate', 'metrics']),
    )
    .option('--weight <number>', 'its share of the devices beside that of the other keys that wait; default: 1', decimal)
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
