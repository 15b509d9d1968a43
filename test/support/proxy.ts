/**
 * A bad line to Redis: a Unix socket that passes RESP on, command by command, and breaks where a rule says so.
 *
 * | fault | Redis | the client |
 * | --- | --- | --- |
 * | `cut` | has answered every command before, and never sees this one | loses its connection |
 * | `drop` | the same | hears nothing for a while, then loses its connection |
 * | `lose` | executes the command | loses its connection in place of the answer |
 * | a number | gets the command that many ms later, and what follows behind it | waits |
 *
 * It counts the faults that hit live work, for a run in which too few did shows nothing.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { scripts } from '../../src/redis.ts'

export interface Command {
  /** In capitals; EVALSHA of one of our own scripts is its name under `redis/`. */
  name: string
  /** It changes something when Redis executes it; inside a transaction only EXEC does. */
  isWrite: boolean
  /** Sessions that its arguments name; EXEC names those of its transaction. */
  sessions: string[]
  /** Somebody looks at a session: nothing of its life. */
  isLook: boolean
}

export type Fault = 'cut' | 'drop' | 'lose' | number
export type Rule = (command: Command) => Fault | undefined

export interface Injected {
  kind: 'cut' | 'drop' | 'lose' | 'delay'
  command: string
  sessions: string[]
}

/** How long a dropped command is waited for in vain, ms. */
const silenceMs = 300

const reads = new Set(
  'HELLO CLIENT INFO PING TIME CONFIG SCRIPT SELECT AUTH COMMAND GET MGET HGET HMGET HGETALL HVALS HLEN LRANGE LINDEX LLEN LPOS ZRANGE ZCARD ZSCORE ZREVRANGEBYSCORE ZRANGEBYSCORE ZSCAN SCARD SMEMBERS SISMEMBER EXISTS TYPE KEYS SUBSCRIBE UNSUBSCRIBE PSUBSCRIBE PUNSUBSCRIBE MULTI PUBLISH'.split(
    ' ',
  ),
)
const bySha = new Map([...scripts].map(([name, text]) => [createHash('sha1').update(text).digest('hex'), name]))
const sessionIds = /(?<![0-9a-z])\d{1,2}-[0-9a-hjkmnp-tv-z]{26}/g

const sessionsIn = (bytes: Buffer): string[] => bytes.toString('latin1').match(sessionIds) ?? []

export async function startProxy(redisUrl: string): Promise<FaultProxy> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-proxy-'))
  const proxy = new FaultProxy(redisUrl, folder)
  await proxy.listen()
  return proxy
}

export class FaultProxy {
  /** For `REDIS_URL`. */
  readonly url: string
  /** Decides for every command, in the order in which they come; undefined lets everything through. */
  rule: Rule | undefined
  /** What it has done, oldest first. */
  readonly injected: Injected[] = []
  readonly #folder: string
  readonly #server: Server
  readonly #upstream: string
  readonly #lines = new Set<Line>()

  constructor(redisUrl: string, folder: string) {
    this.#folder = folder
    this.#upstream = redisUrl.slice('unix:'.length)
    this.url = `unix:${join(folder, 'line.sock')}`
    this.#server = createServer((client) => {
      const line = new Line(client, connect(this.#upstream), this)
      this.#lines.add(line)
      client.once('close', () => this.#lines.delete(line))
    })
  }

  async listen(): Promise<void> {
    this.#server.listen(this.url.slice('unix:'.length))
    await once(this.#server, 'listening')
  }

  /** Faults that hit a command of a session, of one kind or of all. */
  hits(kind?: Injected['kind']): number {
    return this.injected.filter((fault) => fault.sessions.length > 0 && (kind === undefined || fault.kind === kind)).length
  }

  /** @throws Error when fewer faults than asked hit live work: such a run shows nothing. */
  atLeast(asked: number, kind?: Injected['kind']): void {
    const hits = this.hits(kind)
    if (hits < asked) throw new Error(`void: ${hits} faults${kind ? ` (${kind})` : ''} hit live work, ${asked} were asked for`)
  }

  async close(): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const line of this.#lines) line.cut()
    await closed
    await rm(this.#folder, { recursive: true, force: true })
  }
}

interface Awaited {
  command: Command
  loses: boolean
}

/** One connection of a client, and the one to Redis that belongs to it. */
class Line {
  readonly #client: Socket
  readonly #redis: Socket
  readonly #proxy: FaultProxy
  #asked: Buffer = Buffer.alloc(0)
  #answered: Buffer = Buffer.alloc(0)
  /** Commands that Redis has not answered yet, oldest first. */
  #awaited: Awaited[] = []
  /** Sessions of the transaction that is open. */
  #transaction: Set<string> | undefined
  #working: Promise<void> = Promise.resolve()
  #wake: () => void = () => undefined
  #isCut = false

  constructor(client: Socket, redis: Socket, proxy: FaultProxy) {
    this.#client = client
    this.#redis = redis
    this.#proxy = proxy
    for (const socket of [client, redis]) {
      socket.on('error', () => undefined)
      socket.once('close', () => this.cut())
    }
    client.on('data', (bytes) => this.#hear(bytes))
    redis.on('data', (bytes) => this.#answer(bytes))
  }

  cut(): void {
    this.#isCut = true
    this.#client.destroy()
    this.#redis.destroy()
    this.#wake()
  }

  #hear(bytes: Buffer): void {
    this.#asked = Buffer.concat([this.#asked, bytes])
    let at = 0
    for (let end = messageEnd(this.#asked, at); end !== undefined; end = messageEnd(this.#asked, at)) {
      const raw = this.#asked.subarray(at, end)
      at = end
      this.#working = this.#working.then(() => this.#pass(raw))
    }
    this.#asked = this.#asked.subarray(at)
  }

  async #pass(raw: Buffer): Promise<void> {
    if (this.#isCut) return
    const command = this.#read(raw)
    const fault = this.#proxy.rule?.(command)
    if (fault === 'cut' || fault === 'drop') {
      await this.#untilAnswered()
      if (this.#isCut) return
      this.#note(fault, command, [])
      if (fault === 'drop') await delay(silenceMs)
      this.cut()
      return
    }
    if (typeof fault === 'number') {
      this.#note('delay', command, [])
      await delay(fault)
      if (this.#isCut) return
    }
    // In RESP 3 the answers to these are pushes, which belong to no command.
    if (!command.name.endsWith('SUBSCRIBE')) this.#awaited.push({ command, loses: fault === 'lose' })
    this.#redis.write(raw)
    // What follows must not be executed before it is known whether the line still stands.
    if (fault === 'lose') await this.#untilAnswered()
  }

  #read(raw: Buffer): Command {
    const parts = argumentsOf(raw)
    const text = (i: number): string => parts[i]?.toString('latin1') ?? ''
    const name = text(0).toUpperCase()
    const own = name === 'EVALSHA' ? bySha.get(text(1)) : name === 'EVAL' ? bySha.get(sha1(parts[1])) : undefined
    const sessions = new Set(parts.slice(1).flatMap(sessionsIn))
    const inside = this.#transaction
    if (name === 'MULTI') this.#transaction = new Set()
    if (name === 'EXEC' || name === 'DISCARD') this.#transaction = undefined
    if (name === 'EXEC') for (const id of inside ?? []) sessions.add(id)
    else if (inside) for (const id of sessions) inside.add(id)
    const isQueued = inside !== undefined && name !== 'EXEC'
    const isLook = /^(HGETALL .*:session|LRANGE .*:history):/.test(`${name} ${text(1)}`)
    return { name: own ?? name, isWrite: !reads.has(name) && !isQueued, sessions: [...sessions], isLook }
  }

  #untilAnswered(): Promise<void> {
    if (this.#awaited.length === 0 || this.#isCut) return Promise.resolve()
    return new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  #answer(bytes: Buffer): void {
    this.#answered = Buffer.concat([this.#answered, bytes])
    for (let end = messageEnd(this.#answered, 0); end !== undefined; end = messageEnd(this.#answered, 0)) {
      const raw = this.#answered.subarray(0, end)
      this.#answered = this.#answered.subarray(end)
      const isPush = raw[0] === 0x3e
      const awaited = isPush ? undefined : this.#awaited.shift()
      // An error says that nothing was executed: there is nothing to lose.
      if (awaited?.loses && raw[0] !== 0x2d) {
        this.#note('lose', awaited.command, sessionsIn(raw))
        this.cut()
        return
      }
      this.#client.write(raw)
    }
    if (this.#awaited.length === 0) this.#wake()
  }

  #note(kind: Injected['kind'], command: Command, further: string[]): void {
    this.#proxy.injected.push({ kind, command: command.name, sessions: [...new Set([...command.sessions, ...further])] })
  }
}

const sha1 = (text: Buffer | undefined): string =>
  createHash('sha1')
    .update(text ?? '')
    .digest('hex')

/** Where the RESP value that begins at `at` ends; undefined while it is not whole. */
export function messageEnd(bytes: Buffer, at: number): number | undefined {
  const line = bytes.indexOf('\r\n', at)
  if (line < 0) return undefined
  const size = (): number => Number(bytes.toString('latin1', at + 1, line))
  const start = line + 2
  switch (String.fromCharCode(bytes[at] ?? 0)) {
    case '$':
    case '=':
    case '!': {
      const end = size() < 0 ? start : start + size() + 2
      return end <= bytes.length ? end : undefined
    }
    case '*':
    case '~':
    case '>':
      return valuesEnd(bytes, start, size())
    case '%':
      return valuesEnd(bytes, start, 2 * size())
    default:
      return start
  }
}

function valuesEnd(bytes: Buffer, at: number, count: number): number | undefined {
  let end: number | undefined = at
  for (let i = 0; i < count && end !== undefined; i++) end = messageEnd(bytes, end)
  return end
}

/** The arguments of a command: an array of strings. */
function argumentsOf(raw: Buffer): Buffer[] {
  const found: Buffer[] = []
  for (let at = raw.indexOf('\r\n') + 2; at < raw.length;) {
    const line = raw.indexOf('\r\n', at)
    const size = Number(raw.toString('latin1', at + 1, line))
    found.push(raw.subarray(line + 2, line + 2 + size))
    at = line + 2 + size + 2
  }
  return found
}

// ---- rules ----

/** Mulberry32: small, and the same everywhere. */
export function chance(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

/**
 * Draws once for every command that `applies`: the same seed gives the same faults at the same places of the sequence.
 */
export function sometimes(draw: () => number, share: number, fault: Fault, applies: (command: Command) => boolean = () => true): Rule {
  return (command) => (applies(command) && draw() < share ? fault : undefined)
}

/** The first rule that has something to say. */
export const either =
  (...rules: Rule[]): Rule =>
  (command) => {
    for (const rule of rules) {
      const fault = rule(command)
      if (fault !== undefined) return fault
    }
    return undefined
  }

export interface Place {
  /** Among the commands that name one session, from 1. */
  at: number
  fault: Fault
}

/**
 * Breaks one session's life at each place: every session that is new takes the next place, and meets its fault there.
 */
export class Walk {
  /** Commands of each session so far. */
  readonly counts = new Map<string, number>()
  /** Command at which each place was met. */
  readonly met: { place: Place; command: string }[] = []
  #places: Place[]
  #taken = new Map<string, Place>()

  constructor(places: Place[]) {
    this.#places = [...places]
  }

  /** Places that no session has reached yet. */
  get left(): number {
    return this.#places.length + this.#taken.size
  }

  readonly rule: Rule = ({ name, sessions, isLook }) => {
    let fault: Fault | undefined
    for (const id of isLook ? [] : sessions) {
      const count = (this.counts.get(id) ?? 0) + 1
      this.counts.set(id, count)
      const next = count === 1 ? this.#places.shift() : undefined
      if (next) this.#taken.set(id, next)
      const place = this.#taken.get(id)
      if (place === undefined || place.at > count) continue
      this.#taken.delete(id)
      this.met.push({ place, command: name })
      fault ??= place.fault
    }
    return fault
  }

  /** The sessions so far have ended: what they did not reach is for the next ones. */
  again(): void {
    this.#places.push(...this.#taken.values())
    this.#taken.clear()
  }
}
