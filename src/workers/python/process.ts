/**
 * One process of the Python child, from spawn to exit: it shakes hands, carries calls, and is killed when it hangs or
 * breaks the protocol. Two clocks watch it: any frame within `heartbeatMs`, and progress of its device thread within
 * the limit of the step that runs.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { deviceError } from '../../domains/device/errors.ts'
import { workerError, type DarkroomError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import { errorOf, PendingCall } from './call.ts'
import { splitLines } from './lines.ts'
import { decodeReply, encodeRequest, lineCap, protocolVersion, type Hello, type Heartbeat, type Ready, type ReplyData } from './protocol.ts'
import { callLimit, overruns, type Stall } from './stall.ts'
import { schemaSha256 } from './wire.ts'

export interface ProcessOptions {
  /** Program and its arguments; no shell. */
  command: string[]
  /** The child's whole environment: make it with `childEnvironment`. Its HOME is also the folder that it starts in. */
  env: Record<string, string>
  hello: Hello
  log: Logger
  /** Whether it imports what it needs and then waits for `open` before it touches the device. */
  isSpare?: boolean
}

/**
 * Why a process is gone. `isFatal`: another one would end in the same way; `asksRecycling`: it ended to be replaced at
 * once.
 */
export interface ProcessEnd {
  reason: DarkroomError
  isFatal: boolean
  asksRecycling: boolean
}

export interface ProcessEvents {
  ready: (ready: Ready) => void
  heartbeat: (heartbeat: Heartbeat) => void
  gone: (end: ProcessEnd) => void
}

/** The exit codes by which the child says why it ends (python/darkroom/child.py). */
const exitCodes = { refusedHandshake: 64, lostDevice: 69, recycle: 75 }

export class PythonProcess {
  /** Whether it has shaken hands; stays true at its end. */
  wasReady = false
  readonly #process: ChildProcessWithoutNullStreams
  readonly #log: Logger
  readonly #stall: Stall
  readonly #events: ProcessEvents
  readonly #pending = new Map<string, PendingCall>()
  /** Calls that wait for the end of the handshake. */
  readonly #queued = new Set<PendingCall>()
  readonly #hello: { requestId: string; line: Buffer }
  #startedAt = performance.now()
  #openedAt: number | undefined
  #hasImported = false
  /** Aborted at its end. */
  readonly #over = new AbortController()
  readonly #clock: NodeJS.Timeout
  #lastFrameAt = performance.now()
  #isSuspected = false
  /** Why we are killing it; null while we are not. */
  #condemned: DarkroomError | null = null
  /** The last lines on stderr that were not log objects. */
  #lastLines: string[] = []

  /**
   * Spawns at once; a program that cannot be started is `gone` soon.
   * @throws DarkroomError `worker.protocol` for a hello the protocol refuses
   */
  constructor(requestId: string, options: ProcessOptions, stall: Stall, events: ProcessEvents) {
    this.#events = events
    this.#stall = stall
    this.#hello = {
      requestId,
      line: encodeRequest(requestId, 'worker.hello', {
        ...options.hello,
        protocol: { min: protocolVersion, max: protocolVersion },
        schema: schemaSha256(),
        spare: options.isSpare ?? false,
      }),
    }
    if (!options.isSpare) this.#openedAt = this.#startedAt
    const [program = '', ...rest] = options.command
    const { env } = options
    this.#process = spawn(program, rest, { env, cwd: env['HOME'], stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true })
    this.#log = options.log.child({ child: this.#process.pid })
    this.#process.on('error', (error) => {
      // Spawning failed, so there will be no exit.
      if (this.#process.pid === undefined)
        this.#end({ reason: workerError('start_failed', `cannot start ${program}: ${error.message}`), isFatal: true })
    })
    this.#process.on('exit', (code, signal) => {
      clearInterval(this.#clock)
      const finish = () => {
        clearTimeout(late)
        this.#exit(code, signal)
      }
      // Its last lines may still be in the pipe; a grandchild that holds the pipe open must not keep us.
      const late = setTimeout(finish, 1_000)
      if (this.#process.stdout.closed) finish()
      else this.#process.stdout.once('close', finish)
    })
    this.#process.stdin.on('error', (error) => this.#log.debug({ err: error }, 'the Python child no longer reads'))
    this.#process.stdout.on(
      'data',
      splitLines(
        lineCap,
        (line) => this.#line(line),
        () => this.#broken(`a line is longer than ${lineCap} bytes`),
      ),
    )
    this.#process.stderr.on(
      'data',
      splitLines(
        65_536,
        (line) => this.#stderr(line),
        () => undefined,
      ),
    )
    this.#clock = setInterval(
      () => this.#watch(),
      Math.max(10, Math.min(1_000, stall.heartbeatMs / 10, stall.stepMs / 10, stall.overrunMs / 10)),
    )
    this.#send(this.#hello.line)
  }

  get pid(): number | null {
    return this.#process.pid ?? null
  }

  /** Whether it has shaken hands and is not about to end: a call that it takes now is sent at once. */
  get isServing(): boolean {
    return this.wasReady && this.#condemned === null && !this.#isGone
  }

  /** Whether it is a spare that has nothing left to do but to open its device. */
  get isWaiting(): boolean {
    return this.#hasImported && this.#openedAt === undefined && this.#condemned === null && !this.#isGone
  }

  /** Whether it is on its way out. */
  get isEnding(): boolean {
    return this.#condemned !== null || this.#isGone
  }

  /** Takes a spare into use: it opens the device, and shakes hands. */
  open(requestId: string): void {
    this.#openedAt = this.#startedAt = this.#lastFrameAt = performance.now()
    const call = new PendingCall(requestId, 'worker.open', {}, this.#log)
    call.outcome.catch(() => undefined)
    this.#pending.set(requestId, call)
    this.#send(call.line)
  }

  get #isGone(): boolean {
    return this.#over.signal.aborted
  }

  get ageMs(): number {
    return performance.now() - this.#startedAt
  }

  take(call: PendingCall): void {
    if (!this.wasReady) {
      this.#queued.add(call)
      return
    }
    call.sent = true
    this.#pending.set(call.requestId, call)
    this.#send(call.line)
  }

  control(requestId: string, action: 'worker.pause' | 'worker.cancel', target: string): void {
    const call = this.#pending.get(target)
    if (!call) return
    call.stoppingSince ??= performance.now()
    this.take(new PendingCall(requestId, action, { target }, this.#log))
  }

  /** Asks it to release what runs and to exit, and kills it after `graceMs`. Resolves when it is gone. */
  async stop(graceMs: number): Promise<void> {
    if (this.#isGone) return
    if (this.wasReady) this.take(new PendingCall(`${this.#hello.requestId}-stop`, 'worker.shutdown', {}, this.#log))
    else this.#process.stdin.end()
    if (!(await this.#outlives(graceMs))) return
    this.#process.stdin.end()
    const gone = once(this.#over.signal, 'abort')
    this.#condemn(workerError('child_died', `the Python child did not end within ${graceMs} ms and was killed`), 'SIGTERM')
    await gone
  }

  /** Waits so long, at most until its end; false when it has ended. */
  #outlives(ms: number): Promise<boolean> {
    return delay(ms, true, { signal: this.#over.signal }).catch(() => false)
  }

  #send(line: Buffer): void {
    if (this.#process.stdin.writable) this.#process.stdin.write(line)
  }

  #line(line: Buffer): void {
    // Frames of a process that is being killed do not count.
    if (this.#condemned || this.#isGone) return
    this.#lastFrameAt = performance.now()
    this.#isSuspected = false
    let reply: ReturnType<typeof decodeReply>
    try {
      reply = decodeReply(line)
    } catch (error) {
      return this.#broken((error as DarkroomError).message)
    }
    if (reply.kind === 'greeting') return this.#greeting(reply.data.schema)
    if (reply.kind === 'heartbeat') {
      this.#heartbeat(reply.data)
      return
    }
    if (reply.requestId === this.#hello.requestId && reply.action === 'worker.hello' && !this.wasReady) return this.#handshake(reply.data)
    const call = this.#pending.get(reply.requestId)
    if (call?.action !== reply.action) {
      this.#log.warn({ requestId: reply.requestId, action: reply.action, type: reply.data.type }, 'a frame for no open request was ignored')
      return
    }
    if (call.frame(reply.data)) this.#pending.delete(reply.requestId)
  }

  #greeting(schema: string): void {
    if (schema === schemaSha256()) return
    const problem = `the Python package has protocol schema ${schema.slice(0, 8)}, this node has ${schemaSha256().slice(0, 8)}`
    this.#condemn(workerError('start_failed', `${problem}: install one version of both, or write it anew with npm run format`), 'SIGTERM')
  }

  #handshake(data: ReplyData): void {
    if (data.type === 'progress') this.#hasImported = data.call !== undefined && data.call === data.calls
    else if (data.type === 'error') this.#condemn(errorOf(data), 'SIGTERM')
    else if (data.type === 'result') {
      this.wasReady = true
      this.#events.ready(data.output as Ready)
      for (const call of this.#queued) if (!call.settled) this.take(call)
      this.#queued.clear()
    }
  }

  #heartbeat(heartbeat: Heartbeat): void {
    this.#events.heartbeat(heartbeat)
    const { busy } = heartbeat
    if (!busy) return
    const limit = callLimit(this.#stall, busy.action, this.#pending.get(busy.requestId))
    if (busy.advancedS * 1000 <= limit) return
    this.#condemn(
      workerError(
        'child_hung',
        `${busy.action} of request ${busy.requestId} has not moved for ${busy.advancedS} s at call ${busy.call ?? '-'}; the limit is ${limit / 1000} s`,
      ),
      'SIGTERM',
    )
  }

  #watch(): void {
    if (this.#condemned) return
    const now = performance.now()
    const silence = now - this.#lastFrameAt
    const { heartbeatMs, startMs } = this.#stall
    const overran = [...this.#pending.values()].find((call) => overruns(this.#stall, call, now))
    if (!this.wasReady && !this.isWaiting && this.ageMs > startMs) {
      this.#condemn(workerError('child_hung', `the Python child was not ready within ${startMs} ms`), 'SIGTERM')
    } else if (!this.wasReady && this.#isAskedToOpen && silence > 2 * heartbeatMs) {
      this.#condemn(workerError('child_hung', `the spare Python child has been silent for ${Math.round(silence)} ms`), 'SIGKILL')
    } else if (overran) {
      const { action, requestId, stoppingSince = 0 } = overran
      const s = ((now - stoppingSince) / 1000).toFixed(1)
      // Its device thread is inside one call, which no signal but this one ends.
      this.#condemn(workerError('overran', `${action} of request ${requestId} went on for ${s} s after it was asked to stop`), 'SIGKILL')
    } else if (this.wasReady && silence > 2 * heartbeatMs) {
      this.#condemn(workerError('child_hung', `the Python child has been silent for ${Math.round(silence)} ms`), 'SIGKILL')
    } else if (this.wasReady && silence > heartbeatMs && !this.#isSuspected) {
      this.#isSuspected = true
      this.#log.warn({ silenceMs: Math.round(silence) }, 'the Python child is silent')
    }
  }

  /** Whether the spare has not even said that it heard `worker.open`. */
  get #isAskedToOpen(): boolean {
    return [...this.#pending.values()].some(({ action }) => action === 'worker.open')
  }

  #broken(problem: string): void {
    this.#condemn(workerError('protocol', `the Python child broke the protocol: ${problem}`), 'SIGKILL')
  }

  /**
   * Kills it. Its calls reject only when it is gone, so that no other process starts on a device that it still holds.
   */
  #condemn(reason: DarkroomError, signal: 'SIGTERM' | 'SIGKILL'): void {
    if (this.#isGone || (this.#condemned && signal !== 'SIGKILL')) return
    this.#condemned ??= reason
    this.#log.error({ code: reason.code, signal }, reason.message)
    this.#process.kill(signal)
    void this.#killUnlessGone(reason)
  }

  async #killUnlessGone({ message }: DarkroomError): Promise<void> {
    const { termMs } = this.#stall
    if (!(await this.#outlives(termMs))) return
    this.#process.kill('SIGKILL')
    // A process that outlives SIGKILL hangs in a driver call: this worker does not get the device back.
    if (await this.#outlives(termMs + 5_000))
      this.#end({ reason: deviceError('lost', `the Python child outlived SIGKILL: ${message}`), isFatal: true })
  }

  #exit(code: number | null, signal: NodeJS.Signals | null): void {
    const how = code === null ? `was ended by ${signal}` : `exited with code ${code}`
    const said = this.#lastLines.length > 0 ? `: ${this.#lastLines.join(' | ')}` : ''
    const reason =
      this.#condemned ??
      (code === exitCodes.refusedHandshake
        ? workerError('start_failed', `the Python child refused the handshake${said}`)
        : code === exitCodes.lostDevice
          ? deviceError('lost', `the Python child lost its device${said}`)
          : workerError('child_died', `the Python child ${how}${said}`))
    const isFatal = code === exitCodes.refusedHandshake || reason.code === 'worker.start_failed'
    this.#end({ reason, isFatal, asksRecycling: code === exitCodes.recycle })
  }

  #end({ reason, isFatal = false, asksRecycling = false }: Partial<ProcessEnd> & Pick<ProcessEnd, 'reason'>): void {
    if (this.#isGone) return
    this.#over.abort()
    clearInterval(this.#clock)
    for (const call of [...this.#pending.values(), ...this.#queued]) if (!call.settled) call.reject(reason)
    this.#pending.clear()
    this.#queued.clear()
    this.#events.gone({ reason, isFatal, asksRecycling })
  }

  /** One line of stderr: a log object of the child, or raw text of a library below it. */
  #stderr(line: Buffer): void {
    const text = line.toString('utf8').trimEnd()
    if (text === '') return
    const entry = parseLog(text)
    if (entry) {
      const { level, msg, ...more } = entry
      this.#log[level](more, msg)
      return
    }
    this.#lastLines = [...this.#lastLines.slice(-4), text.slice(0, 300)]
    this.#log.info({ stderr: text })
  }
}

const levels = ['debug', 'info', 'warn', 'error'] as const

function parseLog(text: string): ({ level: (typeof levels)[number]; msg: string } & Record<string, unknown>) | undefined {
  if (!text.startsWith('{')) return undefined
  try {
    const entry = JSON.parse(text) as Record<string, unknown>
    const level = levels.find((name) => name === entry['level'])
    return level && typeof entry['msg'] === 'string' ? { ...entry, level, msg: entry['msg'] } : undefined
  } catch {
    return undefined
  }
}
