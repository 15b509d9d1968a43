/** The one door to Redis: connections, and the scripts under `redis/` as functions. */
import { readFileSync, readdirSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Redis, type ChainableCommander, type RedisOptions } from 'ioredis'
import { root } from './config.ts'
import { redisError } from './errors.ts'
import { keys } from './keys.ts'
import { within } from './promises.ts'

export type { ChainableCommander, Redis } from 'ioredis'
export type ScriptReply = [string, ...(string | number)[]]
type Argument = string | number

const folder = join(root, 'redis')
/** What scripts share, and no scripts by themselves. */
const shared = ['clock', 'prelude']
const withoutComments = (file: string): string => readFileSync(join(folder, file), 'utf8').replace(/^--.*\n/gm, '')
const clock = withoutComments('clock.lua')
const [preludeHead = '', ...preludeFunctions] = withoutComments('prelude.lua').split(/^(?=local function )/m)

/**
 * The prelude with those functions only that the text calls, directly or not: Redis creates every function anew at each
 * call of a script.
 */
function preludeFor(text: string): string {
  return preludeFunctions.reduceRight((kept, code) => {
    const [, name = ''] = /^local function (\w+)/.exec(code) ?? []
    return new RegExp(`\\b${name}\\(`).test(kept + text) ? code + kept : kept
  }, '')
}

/**
 * Stands in front of every script and unpacks its arguments. They come as one text, a line each, because every argument
 * costs the client time; or one by one after an empty one, when one of them contains a line break.
 */
const unpack = String.raw`local ARGV, packed = {}, ARGV
if packed[1] ~= '' then
  local text, from = packed[1], 1
  for i = 1, #packed[1] do
    local to = string.find(text, '\n', from, true)
    ARGV[i] = string.sub(text, from, (to or 0) - 1)
    if not to then break end
    from = to + 1
  end
else
  for i = 2, #packed do ARGV[i - 1] = packed[i] end
end
`

/** Name → text of every script, with what it shares with others in front. */
export const scripts: ReadonlyMap<string, string> = new Map(
  readdirSync(folder)
    .filter((file) => file.endsWith('.lua') && !shared.includes(file.slice(0, -4)))
    .map((file) => {
      const text = readFileSync(join(folder, file), 'utf8')
      const whole = /^-- Uses: prelude$/m.test(text) ? `${preludeHead}${preludeFor(text)}${text}` : text
      return [file.slice(0, -4), `${unpack}${/\bfarmTime\(/.test(whole) ? clock : ''}${whole}`]
    }),
)

export interface ConnectOptions {
  /**
   * `fail`: a command fails at once when there is no connection or it breaks, and after 3 s without an answer (the API,
   * whose callers wait). `wait`: a command waits for Redis to come back (workers, whose steps go on meanwhile).
   */
  patience: 'fail' | 'wait'
  onError?: (error: Error) => void
}

/** Between two new connections to a Redis that is a replica, ms: what the old one was asked is answered by neither. */
const failOverMs = 5000

/** After a fail-over the address leads to the new master, but new connections only. */
function afterFailOver(): (error: Error) => boolean {
  let last = -Infinity
  return ({ message }) => {
    const isDue = message.includes('READONLY') && performance.now() - last > failOverMs
    if (isDue) last = performance.now()
    return isDue
  }
}

/** `redis://…`, `rediss://…` or `unix:/path`. The caller closes it with `quit` or `disconnect`. */
export function connect(url: string, options: ConnectOptions): Redis {
  const shared: RedisOptions & { replyMapping?: 'legacy' } = {
    retryStrategy: (times) => Math.min(50 * times, 1000),
    maxRetriesPerRequest: null,
    reconnectOnError: afterFailOver(),
    ...(options.patience === 'fail' && {
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      // Commands that a broken connection leaves unanswered fail with it; otherwise only the time-out would end them.
      maxRetriesPerRequest: 0,
      commandTimeout: 3000,
    }),
  }
  const redis: Redis = url.startsWith('unix:') ? new Redis({ ...shared, path: url.slice('unix:'.length) }) : new Redis(url, shared)
  for (const [name, lua] of scripts) redis.defineCommand(name, { numberOfKeys: 1, lua })
  redis.on('error', (error: Error) => options.onError?.(error))
  redis.on('connect', () => corkWrites((redis as unknown as { stream: Socket }).stream))
  return redis
}

/** So many commands leave together at most; more would only make Redis wait for the first of them. */
const maxCorked = 4

/**
 * Sends the commands of one tick in few packets, for each packet is a system call. Measured with 100 scripts at once:
 * 8.7 µs of the client's CPU a command, 9.5 µs without. ioredis' own `enableAutoPipelining` takes 13.9 µs, and ended
 * the benchmark of the engine with a TypeError thrown outside of any promise (6.0.0).
 */
function corkWrites(stream: Socket): void {
  const write = stream.write.bind(stream) as (...args: unknown[]) => boolean
  let held = 0
  const release = (): void => {
    if (held === 0) return
    held = 0
    stream.uncork()
  }
  stream.write = (...args: unknown[]): boolean => {
    if (held === 0) {
      stream.cork()
      process.nextTick(release)
    }
    const more = write(...args)
    if (++held >= maxCorked) release()
    return more
  }
}

/**
 * Waits until the connection can take commands.
 * @throws DarkroomError `redis.unavailable` after `timeoutMs`, with the address and what went wrong.
 */
export async function untilReady(redis: Redis, timeoutMs: number): Promise<void> {
  const until = performance.now() + timeoutMs
  if (redis.status !== 'ready') await untilConnected(redis, timeoutMs)
  // A node of a cluster takes no command of a key for its first two seconds.
  while (await isClusterDown(redis)) {
    if (performance.now() > until) throw redisError('unavailable', `the cluster of this Redis is still down after ${timeoutMs / 1000} s`)
    await delay(50)
  }
}

const isClusterDown = (redis: Redis): Promise<boolean> =>
  redis.exists(keys.storeId()).then(
    () => false,
    (error: Error) => error.message.includes('CLUSTERDOWN'),
  )

async function untilConnected(redis: Redis, timeoutMs: number): Promise<void> {
  const { path, host, port } = redis.options
  let reason = ''
  const failed = (error: Error): void => void (reason = `: ${error.message}`)
  redis.on('error', failed)
  const ready = new Promise<true>((resolve) => void redis.once('ready', () => resolve(true)))
  const isReady = await within(timeoutMs, ready, false)
  redis.off('error', failed)
  if (isReady) return
  const where = path === undefined ? `${host}:${port}` : `unix:${path}`
  const remedy = 'Start Redis there, or set REDIS_URL to where it is; `darkroom up` brings its own.'
  throw redisError('unavailable', `Redis at ${where} did not answer within ${timeoutMs / 1000} s${reason}`, { remedy })
}

/**
 * Runs a script over one key. Scripts answer with a word and its values.
 * @throws DarkroomError `redis.unavailable` when the connection failed: whether the script ran is then unknown;
 * `redis.full` on OOM.
 */
export async function runScript(redis: Redis, name: string, key: string, args: Argument[]): Promise<ScriptReply> {
  const command = (redis as unknown as Record<string, (...args: Argument[]) => Promise<ScriptReply>>)[name]
  if (!command) throw new Error(`there is no redis/${name}.lua`)
  try {
    return await command.call(redis, key, ...packed(args))
  } catch (error) {
    throw asRedisError(error)
  }
}

function packed(args: Argument[]): Argument[] {
  const text = args.join('\n')
  const hasLines = args.some((argument) => typeof argument === 'string' && argument.includes('\n'))
  return text === '' || hasLines ? ['', ...args] : [text]
}

/**
 * The words by which Redis refuses a command for now, with what to do about it. Nothing was written. Source: the
 * refusals of `processCommand` in Redis' `server.c`, and of `getNodeByQuery` in its `cluster.c`.
 */
const refusals: Readonly<Record<string, string>> = {
  MISCONF: 'Redis cannot write its append-only file: free space on its disk.',
  READONLY: 'This Redis is a replica now, after a fail-over for instance: wait until its address leads to the master again.',
  MASTERDOWN: 'This Redis is a replica without its master: wait until its address leads to a master again.',
  NOREPLICAS: 'Redis wants more replicas than it has now: start them, or lower min-replicas-to-write.',
  LOADING: 'Redis reads its append-only file: wait until it has.',
  BUSY: 'A script keeps Redis busy: wait until it has ended.',
  CLUSTERDOWN: 'The cluster of this Redis is down: wait until it is up again.',
  TRYAGAIN: 'The cluster of this Redis moves slots: wait until it has.',
  MOVED: 'Another node of the cluster has the slot now: wait until the address leads to it again.',
  ASK: 'The cluster of this Redis moves slots: wait until it has.',
}
const refusal = new RegExp(`\\b(${Object.keys(refusals).join('|')})\\b`)

/**
 * An error of ioredis as a DarkroomError when it is the connection's fault, a full Redis' or one's that takes no writes
 * now; any other stays as it is.
 */
export function asRedisError(error: unknown): unknown {
  const message = error instanceof Error ? error.message : String(error)
  // Before Redis 7 the refusal of a script's command has other words around it.
  if (/\bOOM command not allowed/.test(message)) return redisError('full', 'Redis has reached its maxmemory', { cause: error })
  const [word] = refusal.exec(message) ?? []
  if (word !== undefined) {
    const remedy = `${refusals[word]} Then send the same request again with the same Idempotency-Key.`
    return redisError('unavailable', `Redis refuses for now: ${message}`, { cause: error, remedy })
  }
  if (
    /timed out|Connection is closed|enableOfflineQueue|ECONN|ENOENT|EPIPE|Reached the max retries|aborted due to connection close/.test(
      message,
    )
  ) {
    return redisError('unavailable', `Redis did not answer: ${message}`, { cause: error })
  }
  return error
}

/** The answer to a plain command; what ioredis throws becomes an error of the product. */
export async function translated<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw asRedisError(error)
  }
}

/**
 * What a pipeline's commands answered, in their order.
 * @throws the first error among them, which `exec` alone would hand over as an answer.
 */
export async function translatedAll(pipeline: ChainableCommander): Promise<unknown[]> {
  const answers = (await translated(pipeline.exec())) ?? []
  return answers.map(([error, answer]) => {
    if (error) throw asRedisError(error)
    return answer
  })
}

/**
 * Refuses a Redis that could lose what was accepted.
 * @throws DarkroomError `redis.unsafe` for evictions, no append-only file, one that does not sync each write where
 * `strict` is asked for, or a remote one without password and TLS.
 */
export async function checkSafety(redis: Redis, url: string, durability: 'standard' | 'strict'): Promise<void> {
  const problems: string[] = []
  if (!url.startsWith('unix:')) {
    const { hostname, password, protocol } = new URL(url)
    const local = ['localhost', '127.0.0.1', '[::1]', '::1'].includes(hostname)
    if (!local && (!password || protocol !== 'rediss:')) problems.push(`${hostname} is not this machine: it needs rediss:// and a password`)
  }
  const setting = async (name: string): Promise<string | undefined> => {
    const reply = (await redis.config('GET', name).catch(() => undefined)) as string[] | Record<string, string> | undefined
    return Array.isArray(reply) ? reply[1] : reply?.[name]
  }
  const policy = await setting('maxmemory-policy')
  if (policy !== undefined && policy !== 'noeviction') problems.push(`maxmemory-policy is ${policy}, not noeviction`)
  const appendonly = await setting('appendonly')
  if (appendonly === 'no') problems.push('appendonly is no: a crash of Redis would lose accepted sessions')
  const fsync = durability === 'strict' ? await setting('appendfsync') : 'always'
  if (fsync !== 'always') problems.push(`DARKROOM_DURABILITY is strict, but appendfsync is ${fsync ?? 'not to be read'}, not always`)
  const version = /redis_version:([\d.]+)/.exec(await redis.info('server'))?.[1] ?? '0'
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major < 6 || (major === 6 && minor < 2)) problems.push(`it is version ${version}; 6.2 is the oldest that works`)
  if (problems.length > 0) throw redisError('unsafe', `this Redis is not safe to use: ${problems.join('; ')}`, { details: { problems } })
}
