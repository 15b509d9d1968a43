/**
 * The Python child of a worker: spawned, greeted, watched, replaced.
 *
 * | state | entered | left |
 * | --- | --- | --- |
 * | starting | spawned | handshake done → ready; exit |
 * | ready | handshake done | exit, hang or broken protocol → waiting |
 * | waiting | the process is gone | back-off over (0.2 → 10 s; at once after exit 75) → starting |
 * | ended | `stop`, exit 64, or five starts in a row without a handshake | never |
 *
 * A call belongs to one process. When that process goes, the call's outcome rejects, once; it is never moved to the next process.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { DarkroomError, sessionError, workerError } from '../../errors.ts'
import type { Logger } from '../../log.ts'
import {
  decodeReply,
  encodeRequest,
  lineCap,
  protocolVersion,
  type Action,
  type CheckpointMade,
  type FileMade,
  type Hello,
  type Output,
  type Progress,
  type Ready,
  type ReplyData,
  type RequestData,
  type Vitals,
  type WorkAction,
} from './protocol.ts'
import { deviceError } from '../../domains/device/errors.ts'

export interface Stall {
  /** Without any frame for this long the process is suspected, for twice as long it is killed, ms. */
  heartbeatMs: number
  /** The device thread may take this long, or 20 of the request's recent calls, for one call, ms; ten times this until one has been measured. */
  stepMs: number
  /** The same while a model loads, ms. */
  loadMs: number
  /** From spawn to the end of the handshake, ms. */
  startMs: number
  /** From SIGTERM to SIGKILL, ms. */
  termMs: number
}

export const defaultStall: Stall = { heartbeatMs: 10_000, stepMs: 30_000, loadMs: 600_000, startMs: 120_000, termMs: 5_000 }

export interface ChildOptions {
  /** Program and its arguments; no shell. */
  command: string[]
  /** The child's whole environment: make it with `childEnvironment`. */
  env: Record<string, string>
  hello: Hello
  log: Logger
  stall?: Partial<Stall>
  /** A process shook hands: nothing is resident in it. */
  onReady?: (ready: Ready) => void
  /** A process is gone, for this reason; everything that was resident in it is gone too. */
  onGone?: (reason: DarkroomError) => void
  onVitals?: (vitals: Vitals) => void
  /** No further process will be started, though nobody asked for the end. */
  onEnded?: (reason: DarkroomError) => void
}

export type Outcome<A extends Action = Action> =
  | { type: 'result'; output: Output<A>; files: Record<string, FileMade>; stats: Record<string, unknown> }
  | { type: 'released'; checkpoint: CheckpointMade | null }

export interface Call<A extends Action = Action> {
  readonly requestId: string
  /** Settles exactly once. Rejects with a DarkroomError: the child's own, or `worker.child_died`, `worker.child_hung`, `worker.protocol`, `device.lost`. */
  readonly outcome: Promise<Outcome<A>>
  /** Asks it to end `released` after the denoise call that runs; work without checkpoints runs to its end. */
  pause(): void
  /** Asks it to end with `session.cancelled`. */
  cancel(): void
}

export interface Watch {
  progress?: (progress: Omit<Progress, 'type'>) => void
  checkpoint?: (checkpoint: CheckpointMade) => void
}

const passed = [
  'PATH',
  'LANG',
  'LC_ALL',
  'LC_CTYPE',
  'TZ',
  'TMPDIR',
  'LD_LIBRARY_PATH',
  'CUDA_HOME',
  'CUDA_VISIBLE_DEVICES',
  'CUDA_DEVICE_ORDER',
  'NVIDIA_VISIBLE_DEVICES',
  'NVIDIA_DRIVER_CAPABILITIES',
  'HIP_VISIBLE_DEVICES',
  'ROCR_VISIBLE_DEVICES',
  'SystemRoot',
]

/**
 * The environment a child gets: these variables and no other, so no key and no Redis address reaches it; offline; a home of its own.
 * @param home folder that is the child's HOME
 * @param pythonPath folder of the `darkroom` package
 */
export function childEnvironment(home: string, pythonPath: string, from: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const kept = passed.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]]))
  return {
    ...(Object.fromEntries(kept) as Record<string, string>),
    HOME: home,
    HF_HOME: home,
    PYTHONPATH: pythonPath,
    PYTHONFAULTHANDLER: '1',
    PYTHONNOUSERSITE: '1',
    PYTHONUTF8: '1',
    HF_HUB_OFFLINE: '1',
    TRANSFORMERS_OFFLINE: '1',
    HF_HUB_DISABLE_TELEMETRY: '1',
    HF_HUB_DISABLE_PROGRESS_BARS: '1',
    DIFFUSERS_DISABLE_REMOTE_CODE: 'true',
    TOKENIZERS_PARALLELISM: 'false',
    // Read when CUDA starts; deterministic matrix products need it (PyTorch notes, "Reproducibility").
    CUBLAS_WORKSPACE_CONFIG: ':4096:8',
  }
}

export class PythonChild {
  readonly #options: ChildOptions
  readonly #stall: Stall
  #process: ChildRun | undefined
  #ready = deferred<Ready>()
  /** Set when no further process will be started. */
  #ended: DarkroomError | undefined
  #lastRequest = 0
  #failures = 0
  #startsWithoutHandshake = 0
  #restart: NodeJS.Timeout | undefined
  /** Calls made while no process runs: they go to the next one. */
  #waiting = new Set<PendingCall>()
  #vitals: Vitals | undefined

  /** Spawns at once. Never throws: a program that cannot be started shows in `ready()`. */
  constructor(options: ChildOptions) {
    this.#options = options
    this.#stall = { ...defaultStall, ...options.stall }
    this.#spawn()
  }

  /** The handshake of the process that runs, or of the next one. @throws DarkroomError `worker.start_failed` when there will be none. */
  ready(): Promise<Ready> {
    return this.#ready.promise
  }

  /** Process id while a process runs. */
  get pid(): number | null {
    return this.#process?.pid ?? null
  }

  /** Whether a process runs that has shaken hands: what is started now is served at once. */
  get isReady(): boolean {
    return this.#process?.isServing ?? false
  }

  /** The last heartbeat of the process that runs. */
  get vitals(): Vitals | undefined {
    return this.#process ? this.#vitals : undefined
  }

  /** Starts work. It is sent once a process is ready; the callbacks run until the outcome settles. */
  start<A extends WorkAction>(action: A, data: RequestData<A>, watch: Watch = {}): Call<A> {
    return this.#call(action, data, watch)
  }

  async ping(): Promise<Vitals> {
    const outcome = await this.#call('worker.ping', {}).outcome
    if (outcome.type !== 'result') throw workerError('protocol', 'a ping was released instead of answered')
    return outcome.output
  }

  /**
   * Ends the child: asks it to release what runs, and kills it when that takes longer than `graceMs`. Calls that are open then reject.
   * Resolves when the process is gone.
   */
  async stop(graceMs: number): Promise<void> {
    const reason = workerError('child_died', 'the Python child was stopped')
    if (this.#ended === undefined) {
      this.#ended = reason
      clearTimeout(this.#restart)
      this.#ready.reject(reason)
      this.#ready = deferred<Ready>()
      this.#ready.reject(reason)
      for (const call of this.#waiting) call.reject(reason)
      this.#waiting.clear()
    }
    await this.#process?.stop(graceMs)
  }

  #call<A extends Action>(action: A, data: RequestData<A>, watch: Watch = {}): Call<A> {
    const requestId = String(++this.#lastRequest)
    const call = new PendingCall(requestId, action, watch, this.#options.log)
    try {
      call.line = encodeRequest(requestId, action, data)
      if (this.#ended) throw unserved(this.#ended)
      if (this.#process) this.#process.take(call)
      else this.#waiting.add(call)
    } catch (error) {
      call.reject(error as DarkroomError)
    }
    const control = (verb: 'worker.pause' | 'worker.cancel') => {
      if (call.settled) return
      if (call.sent) return this.#process?.control(String(++this.#lastRequest), verb, requestId)
      this.#waiting.delete(call)
      if (verb === 'worker.pause') call.resolve({ type: 'released', checkpoint: null })
      else call.reject(sessionError('cancelled', `request ${requestId} was cancelled before it was sent`))
    }
    return {
      requestId,
      outcome: call.outcome as Promise<Outcome<A>>,
      pause: () => control('worker.pause'),
      cancel: () => control('worker.cancel'),
    }
  }

  #spawn(): void {
    this.#vitals = undefined
    const requestId = String(++this.#lastRequest)
    const run = new ChildRun(requestId, this.#options, this.#stall, {
      ready: (ready) => {
        this.#startsWithoutHandshake = 0
        this.#ready.resolve(ready)
        this.#tell(() => this.#options.onReady?.(ready))
      },
      vitals: (vitals) => {
        this.#vitals = vitals
        this.#tell(() => this.#options.onVitals?.(vitals))
      },
      gone: (end) => this.#gone(run, end),
    })
    this.#process = run
    for (const call of this.#waiting) run.take(call)
    this.#waiting.clear()
  }

  #gone(run: ChildRun, end: { reason: DarkroomError; fatal: boolean; recycle: boolean }): void {
    if (this.#process === run) this.#process = undefined
    if (this.#ended) return
    const { log } = this.#options
    this.#tell(() => this.#options.onGone?.(end.reason))
    if (run.wasReady) this.#ready = deferred<Ready>()
    else this.#startsWithoutHandshake += 1
    const fatal = end.fatal || this.#startsWithoutHandshake >= 5
    if (fatal) {
      this.#ended = end.fatal
        ? end.reason
        : workerError('start_failed', `the Python child ended five times before it was ready: ${end.reason.message}`)
      const ended = this.#ended
      this.#ready.reject(ended)
      for (const call of this.#waiting) call.reject(unserved(ended))
      this.#waiting.clear()
      log.fatal({ code: ended.code }, ended.message)
      this.#tell(() => this.#options.onEnded?.(ended))
      return
    }
    // A process that worked for a minute has paid off the failures before it.
    if (run.wasReady && run.ageMs > 60_000) this.#failures = 0
    const delay = end.recycle && run.wasReady ? 0 : Math.min(10_000, 200 * 2 ** this.#failures++)
    log.warn({ code: end.reason.code, delayMs: delay }, `${end.reason.message}; a new one starts`)
    this.#restart = setTimeout(() => this.#spawn(), delay)
  }

  #tell(listener: () => void): void {
    try {
      listener()
    } catch (error) {
      this.#options.log.error({ err: error }, 'a listener of the Python child threw')
    }
  }
}

/** What a call hears that no process will serve: that is this worker's end, not the request's; another worker may well serve it. */
const unserved = (ended: DarkroomError): DarkroomError =>
  workerError('child_died', `no Python child runs here any more: ${ended.message}`, { cause: ended })

/** One call of one process. */
class PendingCall {
  readonly requestId: string
  readonly action: Action
  readonly outcome: Promise<Outcome>
  line: Buffer = Buffer.alloc(0)
  sent = false
  settled = false
  stage: string | undefined
  /** Milliseconds of its recent calls, as the child reckons them. */
  paceMs: number | undefined
  readonly #watch: Watch
  readonly #log: Logger
  readonly #settle: { resolve: (outcome: Outcome) => void; reject: (error: DarkroomError) => void }

  constructor(requestId: string, action: Action, watch: Watch, log: Logger) {
    this.requestId = requestId
    this.action = action
    this.#watch = watch
    this.#log = log
    const { promise, resolve, reject } = deferred<Outcome>()
    this.outcome = promise
    this.#settle = { resolve, reject }
  }

  /** Takes a frame of its own; true when it was the terminal one. */
  frame(data: ReplyData): boolean {
    switch (data.type) {
      case 'accepted':
        return false
      case 'progress': {
        const { type: _, ...progress } = data
        this.stage = progress.stage
        if (progress.rate) this.paceMs = 1000 / progress.rate
        this.#tell(() => this.#watch.progress?.(progress))
        return false
      }
      case 'checkpoint': {
        const { type: _, ...checkpoint } = data
        this.#tell(() => this.#watch.checkpoint?.(checkpoint))
        return false
      }
      case 'result':
        // decodeReply has checked the output against the action's own schema.
        this.resolve(data as Outcome)
        return true
      case 'released':
        this.resolve(data)
        return true
      case 'error': {
        const { type: _, ...wire } = data
        this.reject(DarkroomError.fromWire(wire as Parameters<typeof DarkroomError.fromWire>[0]))
        return true
      }
    }
  }

  resolve(outcome: Outcome): void {
    this.settled = true
    this.#settle.resolve(outcome)
  }

  reject(error: DarkroomError): void {
    this.settled = true
    this.#settle.reject(error)
  }

  #tell(listener: () => void): void {
    try {
      listener()
    } catch (error) {
      this.#log.error({ err: error, requestId: this.requestId }, 'a listener of a call threw')
    }
  }
}

interface RunEvents {
  ready: (ready: Ready) => void
  vitals: (vitals: Vitals) => void
  gone: (end: { reason: DarkroomError; fatal: boolean; recycle: boolean }) => void
}

/** One process, from spawn to exit. */
class ChildRun {
  wasReady = false
  get isServing(): boolean {
    return this.wasReady && this.#condemned === null && !this.#gone
  }
  readonly #child: ChildProcessWithoutNullStreams
  readonly #log: Logger
  readonly #stall: Stall
  readonly #events: RunEvents
  readonly #pending = new Map<string, PendingCall>()
  /** Calls that wait for the end of the handshake. */
  readonly #queued = new Set<PendingCall>()
  readonly #hello: { requestId: string; line: Buffer }
  readonly #born = performance.now()
  readonly #over = deferred<void>()
  readonly #clock: NodeJS.Timeout
  #lastFrame = performance.now()
  #suspected = false
  /** Why we are killing it; null while we are not. */
  #condemned: DarkroomError | null = null
  #gone = false
  /** Last words on stderr that were not log lines. */
  #lastWords: string[] = []

  constructor(requestId: string, options: ChildOptions, stall: Stall, events: RunEvents) {
    this.#events = events
    this.#stall = stall
    this.#hello = {
      requestId,
      line: encodeRequest(requestId, 'worker.hello', { ...options.hello, protocol: { min: protocolVersion, max: protocolVersion } }),
    }
    const [program = '', ...rest] = options.command
    this.#child = spawn(program, rest, { env: options.env, stdio: ['pipe', 'pipe', 'pipe'], windowsHide: true })
    this.#log = options.log.child({ child: this.#child.pid })
    this.#child.on('error', (error) => {
      // Spawning failed, so there will be no exit.
      if (this.#child.pid === undefined)
        this.#end(workerError('start_failed', `cannot start ${program}: ${error.message}`), { fatal: true })
    })
    this.#child.on('exit', (code, signal) => {
      clearInterval(this.#clock)
      const finish = () => {
        clearTimeout(late)
        this.#exit(code, signal)
      }
      // What it said last may still be in the pipe; a grandchild that holds the pipe open must not keep us.
      const late = setTimeout(finish, 1_000)
      if (this.#child.stdout.closed) finish()
      else this.#child.stdout.once('close', finish)
    })
    this.#child.stdin.on('error', (error) => this.#log.debug({ err: error }, 'the Python child no longer reads'))
    this.#child.stdout.on(
      'data',
      splitLines(
        lineCap,
        (line) => this.#line(line),
        () => this.#broken(`a line is longer than ${lineCap} bytes`),
      ),
    )
    this.#child.stderr.on(
      'data',
      splitLines(
        65_536,
        (line) => this.#words(line),
        () => undefined,
      ),
    )
    this.#clock = setInterval(() => this.#watch(), Math.max(10, Math.min(1_000, stall.heartbeatMs / 10, stall.stepMs / 10)))
    this.#send(this.#hello.line)
  }

  get pid(): number | null {
    return this.#child.pid ?? null
  }

  get ageMs(): number {
    return performance.now() - this.#born
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
    if (!this.#pending.has(target)) return
    const call = new PendingCall(requestId, action, {}, this.#log)
    call.line = encodeRequest(requestId, action, { target })
    this.take(call)
  }

  async stop(graceMs: number): Promise<void> {
    if (this.#gone) return
    const call = new PendingCall(`${this.#hello.requestId}-stop`, 'worker.shutdown', {}, this.#log)
    call.line = encodeRequest(call.requestId, 'worker.shutdown', {})
    if (this.wasReady) this.take(call)
    else this.#child.stdin.end()
    if (await this.#exitsWithin(graceMs)) return
    this.#child.stdin.end()
    this.#condemn(workerError('child_died', `the Python child did not end within ${graceMs} ms and was killed`), 'SIGTERM')
    await this.#over.promise
  }

  #exitsWithin(ms: number): Promise<boolean> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), ms)
      void this.#over.promise.then(() => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }

  #send(line: Buffer): void {
    if (this.#child.stdin.writable) this.#child.stdin.write(line)
  }

  #line(line: Buffer): void {
    // After the verdict nothing of it counts any more.
    if (this.#condemned || this.#gone) return
    this.#lastFrame = performance.now()
    this.#suspected = false
    let reply: ReturnType<typeof decodeReply>
    try {
      reply = decodeReply(line)
    } catch (error) {
      return this.#broken((error as DarkroomError).message)
    }
    if (reply.kind === 'greeting') return
    if (reply.kind === 'heartbeat') {
      this.#beat(reply.data)
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

  #handshake(data: ReplyData): void {
    if (data.type === 'error') {
      const { type: _, ...wire } = data
      this.#condemn(DarkroomError.fromWire(wire as Parameters<typeof DarkroomError.fromWire>[0]), 'SIGTERM')
    } else if (data.type === 'result') {
      this.wasReady = true
      this.#events.ready(data.output as Ready)
      for (const call of this.#queued) if (!call.settled) this.take(call)
      this.#queued.clear()
    }
  }

  #beat(vitals: Vitals): void {
    this.#events.vitals(vitals)
    const { busy } = vitals
    if (!busy) return
    const limit = this.#stepLimit(busy.action, this.#pending.get(busy.requestId))
    if (busy.advancedS * 1000 <= limit) return
    this.#condemn(
      workerError(
        'child_hung',
        `${busy.action} of request ${busy.requestId} has not moved for ${busy.advancedS} s at call ${busy.call ?? '-'}; the limit is ${limit / 1000} s`,
      ),
      'SIGTERM',
    )
  }

  /** By the request's own pace: another one's says nothing about a larger picture, or about a decode. */
  #stepLimit(action: string, call: PendingCall | undefined): number {
    const { stepMs, loadMs } = this.#stall
    if (action === 'model.ensure' || call?.stage === 'load') return Math.max(stepMs, loadMs)
    return call?.paceMs === undefined ? 10 * stepMs : Math.max(stepMs, 20 * call.paceMs)
  }

  #watch(): void {
    if (this.#condemned) return
    const silence = performance.now() - this.#lastFrame
    const { heartbeatMs, startMs } = this.#stall
    if (!this.wasReady && this.ageMs > startMs) {
      this.#condemn(workerError('child_hung', `the Python child was not ready within ${startMs} ms`), 'SIGTERM')
    } else if (this.wasReady && silence > 2 * heartbeatMs) {
      this.#condemn(workerError('child_hung', `the Python child has been silent for ${Math.round(silence)} ms`), 'SIGKILL')
    } else if (this.wasReady && silence > heartbeatMs && !this.#suspected) {
      this.#suspected = true
      this.#log.warn({ silenceMs: Math.round(silence) }, 'the Python child is silent')
    }
  }

  #broken(problem: string): void {
    this.#condemn(workerError('protocol', `the Python child broke the protocol: ${problem}`), 'SIGKILL')
  }

  /** Kills it. Calls reject when it is gone, so that nobody starts on a device that it still holds. */
  #condemn(reason: DarkroomError, signal: 'SIGTERM' | 'SIGKILL'): void {
    if (this.#gone || (this.#condemned && signal !== 'SIGKILL')) return
    this.#condemned ??= reason
    this.#log.error({ code: reason.code, signal }, reason.message)
    this.#child.kill(signal)
    const { termMs } = this.#stall
    const timers = [
      ...(signal === 'SIGKILL' ? [] : [setTimeout(() => this.#child.kill('SIGKILL'), termMs)]),
      // A process that outlives SIGKILL sits in a driver call: the device is not coming back to us.
      setTimeout(
        () => this.#end(deviceError('lost', `the Python child outlived SIGKILL: ${reason.message}`), { fatal: true }),
        2 * termMs + 5_000,
      ),
    ]
    void this.#over.promise.then(() => timers.forEach((timer) => clearTimeout(timer)))
  }

  #exit(code: number | null, signal: NodeJS.Signals | null): void {
    const how = code === null ? `was ended by ${signal}` : `exited with code ${code}`
    const words = this.#lastWords.length > 0 ? `: ${this.#lastWords.join(' | ')}` : ''
    const reason =
      this.#condemned ??
      (code === 64
        ? workerError('start_failed', `the Python child refused the handshake${words}`)
        : code === 69
          ? deviceError('lost', `the Python child lost its device${words}`)
          : workerError('child_died', `the Python child ${how}${words}`))
    this.#end(reason, { fatal: code === 64 || reason.code === 'worker.start_failed', recycle: code === 75 })
  }

  #end(reason: DarkroomError, { fatal = false, recycle = false }): void {
    if (this.#gone) return
    this.#gone = true
    clearInterval(this.#clock)
    for (const call of [...this.#pending.values(), ...this.#queued]) if (!call.settled) call.reject(reason)
    this.#pending.clear()
    this.#queued.clear()
    this.#events.gone({ reason, fatal, recycle })
    this.#over.resolve()
  }

  /** One line of stderr: a log object of the child, or raw words of something below it. */
  #words(line: Buffer): void {
    const text = line.toString('utf8').trimEnd()
    if (text === '') return
    const entry = parseLog(text)
    if (entry) {
      const { level, msg, ...more } = entry
      this.#log[level](more, msg)
      return
    }
    this.#lastWords = [...this.#lastWords.slice(-4), text.slice(0, 300)]
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

/**
 * Cuts a byte stream at 0x0A, never inside a character. A line over `cap` bytes (newline included) calls `tooLong` once and is dropped.
 */
export function splitLines(cap: number, onLine: (line: Buffer) => void, tooLong: () => void): (chunk: Buffer) => void {
  let parts: Buffer[] = []
  let length = 0
  let dropping = false
  return (chunk) => {
    let from = 0
    while (from < chunk.length) {
      const newline = chunk.indexOf(0x0a, from)
      const to = newline < 0 ? chunk.length : newline
      length += to - from
      if (!dropping && length >= cap) {
        dropping = true
        parts = []
        tooLong()
      }
      if (!dropping && to > from) parts.push(chunk.subarray(from, to))
      if (newline < 0) return
      if (!dropping) onLine(Buffer.concat(parts))
      parts = []
      length = 0
      dropping = false
      from = newline + 1
    }
  }
}

interface Deferred<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (error: Error) => void
}

/** A promise with its handles; a rejection that nobody awaits is nobody's problem. */
function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  promise.catch(() => undefined)
  return { promise, resolve, reject }
}
