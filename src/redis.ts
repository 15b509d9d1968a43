/** The one door to Redis: connections, and the scripts under `redis/` as functions. */
import { readFileSync, readdirSync } from 'node:fs'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { Redis, type ChainableCommander, type RedisOptions } from 'ioredis'
import { root } from './config.ts'
import { redisError } from './errors.ts'
import { keys } from './keys.ts'

export type { Redis } from 'ioredis'
export type ScriptReply = [string, ...(string | number)[]]
type Argument = string | number

const folder = join(root, 'redis')
const [preludeHead = '', ...preludeFunctions] = readFileSync(join(folder, 'prelude.lua'), 'utf8')
  .replace(/^--.*\n/gm, '')
  .split(/^(?=local function )/m)

/**
 * The prelude with those of its functions that the text calls, and that these call: Redis makes every function anew at
 * each call of a script.
 */
function preludeFor(text: string): string {
  return preludeFunctions.reduceRight((kept, code) => {
    const [, name = ''] = /^local function (\w+)/.exec(code) ?? []
    return new RegExp(`\\b${name}\\(`).test(kept + text) ? code + kept : kept
  }, '')
}

/**
 * In front of every script: its arguments come as one text, a line each, because the client pays for every argument it
 * sends. After an empty line they follow one by one: one of them has lines of its own.
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

/** Name → text of every script, what they use of the prelude in front of them. */
export const scripts: ReadonlyMap<string, string> = new Map(
  readdirSync(folder)
    .filter((file) => file.endsWith('.lua') && file !== 'prelude.lua')
    .map((file) => {
      const text = readFileSync(join(folder, file), 'utf8')
      return [file.slice(0, -4), `${unpack}${/^-- Uses: prelude$/m.test(text) ? `${preludeHead}${preludeFor(text)}${text}` : text}`]
    }),
)

export interface ConnectOptions {
  /**
   * `fail`: a command fails at once when there is no connection or it breaks, and after 3 s without an answer (API
   * and command line, where a client waits). `wait`: a command waits for Redis to come back (workers, where a step
   * continues meanwhile).
   */
  patience: 'fail' | 'wait'
  onError?: (error: Error) => void
}

/** `redis://…`, `rediss://…` or `unix:/path`. The caller closes it with `quit` or `disconnect`. */
export function connect(url: string, options: ConnectOptions): Redis {
  const shared: RedisOptions & { replyMapping?: 'legacy' } = {
    retryStrategy: (times) => Math.min(50 * times, 1000),
    maxRetriesPerRequest: null,
    ...(options.patience === 'fail' && {
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      // What the broken connection leaves unanswered fails with it; otherwise only the timeout would end it.
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

/** Commands that leave together at most; more would only make Redis wait for the first of them. */
const corked = 4

/** Sends what one tick writes in few packets: a system call for each command costs more than the command. */
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
    if (++held >= corked) release()
    return more
  }
}

/**
 * Waits until the connection can take commands.
 * @throws DarkroomError `redis.unavailable` after `timeoutMs`, with the address and the reason.
 */
export async function untilReady(redis: Redis, timeoutMs: number): Promise<void> {
  const until = performance.now() + timeoutMs
  if (redis.status !== 'ready') await untilConnected(redis, timeoutMs)
  // A node of a cluster takes no command of a key for its first two seconds.
  while (await isClusterDown(redis)) {
    if (performance.now() > until) throw redisError('unavailable', `the cluster of this Redis is still down after ${timeoutMs / 1000} s`)
    await new Promise((resolve) => setTimeout(resolve, 50))
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
  await new Promise<void>((resolve, reject) => {
    const failed = (error: Error): void => void (reason = `: ${error.message}`)
    const done = (): void => {
      clearTimeout(timer)
      redis.off('ready', ready).off('error', failed)
    }
    const timer = setTimeout(() => {
      done()
      const where = path === undefined ? `${host}:${port}` : `unix:${path}`
      const remedy = 'Start Redis there, or set REDIS_URL to where it is; `darkroom up` brings its own.'
      reject(redisError('unavailable', `Redis at ${where} did not answer within ${timeoutMs / 1000} s${reason}`, { remedy }))
    }, timeoutMs)
    const ready = (): void => {
      done()
      resolve()
    }
    redis.on('error', failed).once('ready', ready)
  })
}

/**
 * Runs a script over one key. Scripts answer with a word and its values.
 * @throws DarkroomError `redis.unavailable` when the connection failed: whether the script ran is then unknown;
 *   `redis.full` on OOM.
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

/** What ioredis threw, in our words; anything that is not a connection's fault stays as it is. */
export function asRedisError(error: unknown): unknown {
  const message = error instanceof Error ? error.message : String(error)
  // A script's own refusal is wrapped in words before Redis 7.
  if (/\bOOM command not allowed/.test(message)) return redisError('full', 'Redis has reached its maxmemory', { cause: error })
  if (
    /timed out|Connection is closed|enableOfflineQueue|ECONN|ENOENT|EPIPE|LOADING|CLUSTERDOWN|Reached the max retries|aborted due to connection close/.test(
      message,
    )
  ) {
    return redisError('unavailable', `Redis did not answer: ${message}`, { cause: error })
  }
  return error
}

/** A plain command through the same translation of errors. */
export async function ask<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    throw asRedisError(error)
  }
}

/**
 * The answers of a pipeline's commands, in their order.
 * @throws the first error among them, which `exec` alone would return as an answer.
 */
export async function askAll(pipeline: ChainableCommander): Promise<unknown[]> {
  const answers = (await ask(pipeline.exec())) ?? []
  return answers.map(([error, answer]) => {
    if (error) throw asRedisError(error)
    return answer
  })
}

/**
 * Refuses a Redis that could lose what was accepted.
 * @throws DarkroomError `redis.unsafe` for evictions, no append-only file, one that does not sync each write where
 *   `strict` is asked for, or a remote one without password and TLS.
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
