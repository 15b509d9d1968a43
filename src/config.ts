import { availableParallelism } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { z } from 'zod'
import { dataFolder, expandUser, homeFolder, root } from '../host/home.mjs'
import { bytesIn } from './disk.ts'
import { configError } from './errors.ts'
import { limitNames, meaningOf, settingOf, usualOf, type Limits } from './limits.ts'

export { root }

const whole = (low: number, high: number) => z.coerce.number().int().min(low).max(high)
const positive = (high: number) => z.coerce.number().positive().max(high)
const size = z.string().regex(/^\d+(kb|mb|gb)?$/i, 'must be like 512mb or 4gb')
/** Null: Darkroom finds it. */
const sizeOrAuto = size.optional().transform((text) => (text === undefined ? null : bytesIn(text)))
const folders = z.string().transform((text) =>
  text
    .split(delimiter)
    .map((folder) => expandUser(folder.trim()))
    .filter(Boolean)
    .map((folder) => resolve(folder)),
)
const names = z.string().transform((text) =>
  text
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean),
)

const tracesOf = (endpoint: string, headers: readonly string[], nets: string[]): Config['traces'] => ({
  endpoint,
  headers: Object.fromEntries(headers.map((pair) => [pair.slice(0, pair.indexOf('=')).toLowerCase(), pair.slice(pair.indexOf('=') + 1)])),
  nets,
})

const networks = names.pipe(z.array(z.union([z.cidrv4(), z.cidrv6()], 'must be networks like 10.0.0.0/8')))

/** Settings of the limits, by their variables. */
const LimitSettings = Object.fromEntries(
  limitNames.map((name) => [settingOf(name), whole(0, 1_000_000_000).default(usualOf(name)).describe(meaningOf(name))]),
) as Record<ReturnType<typeof settingOf>, z.ZodDefault<z.ZodCoercedNumber>>

/**
 * Every setting, by the environment variable that sets it. The table in docs/operations.md is compared with it by a
 * test.
 */
const Environment = z.object({
  DARKROOM_HOME: z
    .string()
    .default(() => homeFolder())
    .transform((path) => resolve(path))
    .describe('folder of what set-up installs: Python environments, the Redis binary'),
  DARKROOM_DATA: z
    .string()
    .default(() => dataFolder())
    .transform((path) => resolve(path))
    .describe('data folder: Redis files, artifacts, logs; one `darkroom up` each'),
  DARKROOM_MODELS: folders
    .optional()
    .describe(
      'model folders, separated by `:` (`;` on Windows); a path may be an `extra_model_paths.yaml`; default: models/ of the repository and of the data folder',
    ),
  DARKROOM_WILDCARDS: z
    .string()
    .optional()
    .transform((path) => (path === undefined ? null : resolve(expandUser(path))))
    .describe('folder of wildcard files, which batches name as `__file__`; without it there are none'),
  DARKROOM_WORKFLOWS: z
    .string()
    .transform((path) => resolve(expandUser(path)))
    .optional()
    .describe('folder of modules with workflows of your own; the same on every API and worker; default: none'),
  DARKROOM_PICKLES: z
    .enum(['refuse', 'convert'])
    .default('refuse')
    .describe(
      'refuse: no pickle (`.ckpt`, `.pt`, `.pth`, `.bin`) is ever opened; convert: `model-convert` may make safetensors of one, in a closed-off process of its own (Linux)',
    ),
  DARKROOM_IDLE_HASH: size
    .default('64mb')
    .describe(
      'how much of models that no session has asked for is hashed a second while the host runs no step (512kb, 64mb); 0 hashes none',
    ),
  DARKROOM_HOST: z.string().default('127.0.0.1').describe('address the API binds; anything but loopback needs an API key'),
  DARKROOM_PORT: whole(0, 65_535).default(4780).describe('port of the API; 0 takes a free one'),
  DARKROOM_ALLOWED_HOSTS: names.default([]).describe('further Host names the browser guard accepts, separated by commas'),
  DARKROOM_ALLOWED_ORIGINS: names.default([]).describe('origins of pages that may call the API (CORS), separated by commas'),
  DARKROOM_BOARD_WRITE: z
    .enum(['0', '1'])
    .default('0')
    .transform((flag) => flag === '1')
    .describe('1 lets keys with scope `operate` change queues in Bull Board'),
  DARKROOM_WEBHOOK_HOSTS: names
    .default([])
    .describe('hosts that webhooks may go to, separated by commas: names, `*.example.org`, `*` for every one; empty turns webhooks off'),
  DARKROOM_WEBHOOK_NETS: networks
    .default([])
    .describe('private networks that webhooks may go to, separated by commas (10.0.0.0/8); without them addresses must be public'),
  DARKROOM_TRACES: z
    .url({ protocol: /^https?$/, message: 'must be an http or https URL' })
    .optional()
    .describe('collector of OpenTelemetry that is told the traces of ended sessions (http://127.0.0.1:4318); without it nobody is'),
  DARKROOM_TRACES_HEADERS: names
    .pipe(z.array(z.string().regex(/^[\w-]+=[^\r\n]+$/, 'must be pairs like authorization=Bearer abc')))
    .default([])
    .describe('headers for the collector, separated by commas: name=value'),
  DARKROOM_TRACES_NETS: networks
    .default(['127.0.0.0/8', '::1/128'])
    .describe('networks that the collector may be in, separated by commas; elsewhere it must be public and https'),
  DARKROOM_PICTURE_HOSTS: names
    .default([])
    .describe('hosts that pictures may be fetched from by their URL, as in DARKROOM_WEBHOOK_HOSTS; empty turns that off'),
  DARKROOM_PICTURE_NETS: networks
    .default([])
    .describe('private networks that pictures may be fetched from, separated by commas; without them addresses must be public'),
  REDIS_URL: z
    .string()
    .optional()
    .describe('a Redis of your own (redis://, rediss:// or unix:/path); default: a private one in the data folder'),
  DARKROOM_DURABILITY: z
    .enum(['standard', 'strict'])
    .default('standard')
    .describe('standard: the append-only file is synced every second; strict: before each answer'),
  DARKROOM_MAXMEMORY: size
    .default('0')
    .describe('maximum memory of the private Redis (512mb, 4gb); 0 is no limit; above 80 % of it submits are refused'),
  DARKROOM_MIN_FREE_DISK: size
    .default('256mb')
    .describe('free space of the data folder below which submits are refused (512mb, 4gb); 0 is no limit'),
  DARKROOM_KEY_MEMORY: size
    .default('16gb')
    .describe('maximum of all allocations that an API key holds at a time, in all of the farm (512mb, 4gb); 0 is no limit'),
  DARKROOM_MODEL_CACHE: sizeOrAuto.describe(
    'maximum of the model weights that a worker keeps in RAM (512mb, 4gb); 0 turns that off; default: half of what RAM is free',
  ),
  DARKROOM_MODEL_MEMORY: sizeOrAuto.describe(
    'maximum of the models that stay on a device (512mb, 4gb); default: what a GPU has free beside a picture',
  ),
  DARKROOM_SHARDS: whole(1, 64).default(1).describe('shards of the session store; may only grow'),
  DARKROOM_KEEP_S: whole(0, 10 * 365 * 86_400)
    .default(30 * 86_400)
    .describe('how long an ended session and its pictures are kept, seconds; 0 is for ever'),
  DARKROOM_KEEP_SESSIONS: whole(0, 100_000_000)
    .default(100_000)
    .describe('maximum number of ended sessions that are kept, in all shards together; 0 is no limit'),
  ...LimitSettings,
  DARKROOM_WORKERS: whole(0, 64).default(1).describe('workers that `darkroom up` starts'),
  DARKROOM_DEVICE: z
    .string()
    .regex(/^(cpu|cuda)(:\d+)?$|^cuda:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, 'must be cpu, cpu:N, cuda, cuda:N or cuda:UUID')
    .default('cpu')
    .describe('device a worker owns; with cuda each worker that `darkroom up` starts gets a GPU of its own'),
  DARKROOM_THREADS: whole(1, 256)
    .default(Math.min(4, availableParallelism()))
    .describe('CPU threads of the Python child; part of the hardware class'),
  DARKROOM_DEVICE_SLOTS: whole(1, 4)
    .default(1)
    .describe('maximum number of sessions of one model that a device draws at a time; it pays on a GPU, for families with a UNet'),
  DARKROOM_HOST_LANE: whole(1, 256).default(4).describe('CPU steps a worker runs at a time'),
  DARKROOM_STEPS_IN_A_ROW: whole(1, 1000)
    .default(10)
    .describe('lease chaining: how many steps of one session a worker runs in a row before other sessions get their turn; 1 turns it off'),
  DARKROOM_KEY_AT_ONCE: whole(0, 1_000_000)
    .default(0)
    .describe('maximum number of sessions of one API key that devices have at a time; others of it wait in line; 0 is no limit'),
  DARKROOM_KEY_DEVICE_S: whole(0, 100_000_000)
    .default(0)
    .describe(
      'maximum seconds that sessions of one API key have devices in a day (UTC); others of it wait in line until the next; 0 is no limit',
    ),
  DARKROOM_MODELS_IN_A_ROW: whole(0, 1000)
    .default(8)
    .describe('how many sessions in a row begin before one that waits longer, because a device has their model; 0: all in their order'),
  DARKROOM_AGEING_S: positive(30 * 86_400)
    .default(600)
    .describe('seconds of waiting for a device that raise a session’s priority by one, so that none waits for ever'),
  DARKROOM_PYTHON: z
    .string()
    .transform((program) => (program.includes('/') ? resolve(program) : program))
    .optional()
    .describe('Python interpreter of the child; default: the environment that set-up made'),
  DARKROOM_MAX_CELLS: whole(64, 2 ** 31)
    .optional()
    .describe(
      'largest picture that a worker draws, in latent cells (8 × 8 pixels in most models); default: 16384 on a CPU, 262144 on a GPU',
    ),
  DARKROOM_MAX_CELL_STEPS: whole(64, 2 ** 40)
    .optional()
    .describe('the same for latent cells times denoise steps; default: 200 steps of the largest picture'),
  DARKROOM_SPARE_MB: whole(0, 1_048_576)
    .default(4096)
    .describe(
      'free RAM, MiB, at which a worker starts a spare Python child, which replaces one that dies; it goes again below half of it; 0: none',
    ),
  DARKROOM_STANDBY: z
    .enum(['auto', 'always', 'never'])
    .default('auto')
    .describe(
      'whether `darkroom up` keeps a second process for each worker, which takes its place when it dies; auto: for workers on a GPU',
    ),
  DARKROOM_CHECKPOINT_S: z.coerce.number().min(0).max(3600).default(1).describe('seconds between checkpoints of a denoise step'),
  DARKROOM_CHECKPOINT_CALLS: whole(1, 10_000).optional().describe('calls between checkpoints, instead of seconds'),
  DARKROOM_PREVIEW_S: z
    .union([z.literal('0').transform(() => 0), z.coerce.number().min(1).max(3600)])
    .default(1)
    .describe('seconds between previews of a picture under way, at least 1; 0: no previews, and no drafts of paused pictures'),
  DARKROOM_CLASS_WAIT_S: positive(86_400)
    .default(60)
    .describe('how long an exact session waits for its hardware class before it begins again on another'),
  DARKROOM_DRAIN_S: positive(3600).default(30).describe("time limit for a worker's drain after SIGTERM, seconds"),
  DARKROOM_LOG: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'silent']).default('info').describe('log level'),
})

export interface Config {
  home: string
  data: string
  models: string[]
  /** Null: there are none. */
  wildcards: string | null
  /** Folder of workflows of one's own. */
  workflows: string | undefined
  pickles: 'refuse' | 'convert'
  /** Bytes a second. */
  idleHash: number
  host: string
  port: number
  allowedHosts: string[]
  allowedOrigins: string[]
  boardWrite: boolean
  webhookHosts: string[]
  webhookNets: string[]
  /** Where traces go; null: nowhere. */
  traces: { endpoint: string; headers: Record<string, string>; nets: string[] } | null
  pictureHosts: string[]
  pictureNets: string[]
  redisUrl: string | undefined
  durability: 'standard' | 'strict'
  maxmemory: string
  /** Bytes. */
  minFreeDisk: number
  /** Bytes; 0 is no limit. */
  keyMemory: number
  /** Bytes; null: by what there is. */
  modelCache: number | null
  modelMemory: number | null
  shards: number
  keepS: number
  keepSessions: number
  limits: Limits
  workers: number
  device: string
  threads: number
  deviceSlots: number
  hostLane: number
  stepsInARow: number
  ageingS: number
  keyAtOnce: number
  keyDeviceS: number
  modelsInARow: number
  python: string | undefined
  maxCells: number | undefined
  maxCellSteps: number | undefined
  spareMb: number
  standby: 'auto' | 'always' | 'never'
  checkpointS: number
  checkpointCalls: number | undefined
  previewS: number
  classWaitS: number
  drainS: number
  logLevel: string
}

/** Settings with their defaults and meanings, for docs/operations.md and its test. */
export const settings = Object.entries(Environment.shape).map(([name, schema]) => ({ name, meaning: schema.description ?? '' }))

/**
 * Reads the settings out of an environment.
 * @throws DarkroomError `config.invalid` with every problem found, not only the first; BadPlace when this user has no
 * folder that a default could lie in
 */
export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([name, value]) => name in Environment.shape && value !== ''))
  const unknown = Object.keys(env).filter(
    (name) => name.startsWith('DARKROOM_') && !(name in Environment.shape) && !['DARKROOM_URL', 'DARKROOM_KEY'].includes(name),
  )
  const parsed = Environment.safeParse(given)
  const problems = [
    ...unknown.map((name) => `${name}: there is no such setting`),
    ...(parsed.success ? [] : parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)),
  ]
  if (problems.length > 0 || !parsed.success) throw configError('invalid', problems.join('\n'), { details: { problems } })
  const e = parsed.data
  return {
    home: e.DARKROOM_HOME,
    data: e.DARKROOM_DATA,
    models: e.DARKROOM_MODELS ?? [join(root, 'models'), join(e.DARKROOM_DATA, 'models')],
    wildcards: e.DARKROOM_WILDCARDS,
    workflows: e.DARKROOM_WORKFLOWS,
    pickles: e.DARKROOM_PICKLES,
    idleHash: bytesIn(e.DARKROOM_IDLE_HASH),
    host: e.DARKROOM_HOST,
    port: e.DARKROOM_PORT,
    allowedHosts: e.DARKROOM_ALLOWED_HOSTS,
    allowedOrigins: e.DARKROOM_ALLOWED_ORIGINS,
    boardWrite: e.DARKROOM_BOARD_WRITE,
    webhookHosts: e.DARKROOM_WEBHOOK_HOSTS,
    webhookNets: e.DARKROOM_WEBHOOK_NETS,
    traces: e.DARKROOM_TRACES === undefined ? null : tracesOf(e.DARKROOM_TRACES, e.DARKROOM_TRACES_HEADERS, e.DARKROOM_TRACES_NETS),
    pictureHosts: e.DARKROOM_PICTURE_HOSTS,
    pictureNets: e.DARKROOM_PICTURE_NETS,
    redisUrl: e.REDIS_URL,
    durability: e.DARKROOM_DURABILITY,
    maxmemory: e.DARKROOM_MAXMEMORY,
    minFreeDisk: bytesIn(e.DARKROOM_MIN_FREE_DISK),
    keyMemory: bytesIn(e.DARKROOM_KEY_MEMORY),
    modelCache: e.DARKROOM_MODEL_CACHE,
    modelMemory: e.DARKROOM_MODEL_MEMORY,
    shards: e.DARKROOM_SHARDS,
    keepS: e.DARKROOM_KEEP_S,
    keepSessions: e.DARKROOM_KEEP_SESSIONS,
    limits: Object.fromEntries(limitNames.map((name) => [name, e[settingOf(name)] || Infinity])) as unknown as Limits,
    workers: e.DARKROOM_WORKERS,
    device: e.DARKROOM_DEVICE,
    threads: e.DARKROOM_THREADS,
    deviceSlots: e.DARKROOM_DEVICE_SLOTS,
    hostLane: e.DARKROOM_HOST_LANE,
    stepsInARow: e.DARKROOM_STEPS_IN_A_ROW,
    ageingS: e.DARKROOM_AGEING_S,
    keyAtOnce: e.DARKROOM_KEY_AT_ONCE,
    keyDeviceS: e.DARKROOM_KEY_DEVICE_S,
    modelsInARow: e.DARKROOM_MODELS_IN_A_ROW,
    python: e.DARKROOM_PYTHON,
    maxCells: e.DARKROOM_MAX_CELLS,
    maxCellSteps: e.DARKROOM_MAX_CELL_STEPS,
    spareMb: e.DARKROOM_SPARE_MB,
    standby: e.DARKROOM_STANDBY,
    checkpointS: e.DARKROOM_CHECKPOINT_S,
    checkpointCalls: e.DARKROOM_CHECKPOINT_CALLS,
    previewS: e.DARKROOM_PREVIEW_S,
    classWaitS: e.DARKROOM_CLASS_WAIT_S,
    drainS: e.DARKROOM_DRAIN_S,
    logLevel: e.DARKROOM_LOG,
  }
}
