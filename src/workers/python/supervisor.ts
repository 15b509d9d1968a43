/**
 * The Python child of a worker: started, and started again when its process ends.
 *
 * | state | entered | left |
 * | --- | --- | --- |
 * | standby | made with `isStandby` | `begin` → starting |
 * | starting | spawned | handshake done → ready; exit |
 * | ready | handshake done | exit, hang or broken protocol → waiting |
 * | waiting | the process is gone | back-off over (0.2 → 10 s; at once after exit 75 or an overrun) → starting |
 * | ended | `stop`, exit 64, or five starts in a row without a handshake | never |
 *
 * A spare may wait beside it: a process whose imports are done and whose device is not open. It becomes the next
 * process, which then starts within a second or two.
 *
 * A call belongs to one process. When that process goes, the call's outcome rejects, once; it is never moved to the
 * next process.
 */
import { sessionError, workerError, type DarkroomError } from '../../errors.ts'
import { deferred } from '../../promises.ts'
import { notify, PendingCall, type Call, type CallListeners, type Outcome } from './call.ts'
import { PythonProcess, type ProcessEnd, type ProcessOptions } from './process.ts'
import type { Action, Heartbeat, Ready, RequestData, WorkAction } from './protocol.ts'
import { defaultStall, type Stall } from './stall.ts'

const maxStartsWithoutHandshake = 5
const backoffMs = { first: 200, longest: 10_000 }
/** The failures before a process that lived this long do not count any more. */
const healthyMs = 60_000
/** How long no spare is started after one ended by itself. */
const spareBackoffMs = 60_000
/** How long a spare that is not wanted any more may take to end by itself. */
const spareGraceMs = 1000

export interface ChildOptions extends Omit<ProcessOptions, 'isSpare'> {
  stall?: Partial<Stall>
  /** Whether it waits for `begin` with its first process; it may have a spare meanwhile. */
  isStandby?: boolean
  /** A process shook hands: nothing is resident in it. */
  onReady?: (ready: Ready) => void
  /** A process is gone, for this reason, and with it all that was resident in it. */
  onGone?: (reason: DarkroomError) => void
  /** No further process will be started, though `stop` was not called. */
  onEnded?: (reason: DarkroomError) => void
}

export class PythonChild {
  /** The work that was started last. */
  latest: Call | undefined
  readonly #options: ChildOptions
  readonly #stall: Stall
  #process: PythonProcess | undefined
  #spare: PythonProcess | undefined
  /** No spare is started before, by `performance.now()`. */
  #spareFrom = 0
  #ready = deferred<Ready>()
  /** Set when no further process will be started. */
  #ended: DarkroomError | undefined
  #lastRequest = 0
  #failures = 0
  #hasBegun = false
  #startsWithoutHandshake = 0
  #restart: NodeJS.Timeout | undefined
  /** Calls made while no process runs: they go to the next one. */
  #waiting = new Set<PendingCall>()
  #heartbeat: Heartbeat | undefined

  /** Spawns at once, or stands by. Never throws: a program that cannot be started shows in `ready()`. */
  constructor(options: ChildOptions) {
    this.#options = options
    this.#stall = { ...defaultStall, ...options.stall }
    if (!options.isStandby) this.begin()
  }

  /** Starts the first process of a child that stands by; its spare becomes that process. */
  begin(): void {
    if (this.#hasBegun || this.#ended) return
    this.#hasBegun = true
    this.#spawn()
  }

  /**
   * The handshake of the process that runs, or of the next one.
   * @throws DarkroomError `worker.start_failed` when there will be none.
   */
  ready(): Promise<Ready> {
    return this.#ready.promise
  }

  /** Process id while a process runs. */
  get pid(): number | null {
    return this.#process?.pid ?? null
  }

  /** The spare: its process id, and whether its imports are done. */
  get spare(): { pid: number | null; isWaiting: boolean } | undefined {
    return this.#spare && { pid: this.#spare.pid, isWaiting: this.#spare.isWaiting }
  }

  /**
   * Starts a spare, or lets it go; called again and again. None is started beside a process that starts, which its
   * imports would hold up.
   */
  keepSpare(isWanted: boolean): void {
    if (!isWanted) void this.#dropSpare()
    else if (!this.#spare && (this.isReady || !this.#hasBegun) && !this.#ended && performance.now() >= this.#spareFrom)
      this.#spare = this.#create(true)
  }

  /** Whether a process runs that has shaken hands: what is started now is served at once. */
  get isReady(): boolean {
    return this.#process?.isServing ?? false
  }

  /** The last heartbeat of the process that runs. */
  get heartbeat(): Heartbeat | undefined {
    return this.#process ? this.#heartbeat : undefined
  }

  /** Starts work. It is sent once a process is ready; the listeners are called until the outcome settles. */
  start<A extends WorkAction>(action: A, data: RequestData<A>, listeners: CallListeners = {}): Call<A> {
    const call = this.#call(action, data, listeners)
    this.latest = call
    return call
  }

  async ping(): Promise<Heartbeat> {
    const outcome = await this.#call('worker.ping', {}).outcome
    if (outcome.type !== 'result') throw workerError('protocol', 'a ping was released instead of answered')
    return outcome.output
  }

  /**
   * Ends the child: asks it to release what runs, and kills it when that takes longer than `graceMs`. Calls that are
   * open then reject. Resolves when the process is gone.
   */
  async stop(graceMs: number): Promise<void> {
    const reason = workerError('child_died', 'the Python child was stopped')
    const spare = this.#spare
    if (!this.#ended) this.#end(reason, reason)
    await Promise.all([this.#process?.stop(graceMs), spare?.stop(graceMs)])
  }

  async #dropSpare(): Promise<void> {
    const spare = this.#spare
    this.#spare = undefined
    await spare?.stop(spareGraceMs)
  }

  #call<A extends Action>(action: A, data: RequestData<A>, listeners: CallListeners = {}): Call<A> {
    const requestId = String(++this.#lastRequest)
    const call = new PendingCall(requestId, action, data, this.#options.log, listeners)
    if (!call.settled) {
      if (this.#ended) call.reject(unserved(this.#ended))
      else if (this.#process) this.#process.take(call)
      else this.#waiting.add(call)
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
      get isAccepted() {
        return call.accepted
      },
      outcome: call.outcome as Promise<Outcome<A>>,
      pause: () => control('worker.pause'),
      cancel: () => control('worker.cancel'),
    }
  }

  #spawn(): void {
    this.#heartbeat = undefined
    const spare = this.#spare
    this.#spare = undefined
    const child = spare && !spare.isEnding ? spare : this.#create(false)
    if (child === spare) spare.open(String(++this.#lastRequest))
    this.#process = child
    for (const call of this.#waiting) child.take(call)
    this.#waiting.clear()
  }

  #create(isSpare: boolean): PythonProcess {
    const requestId = String(++this.#lastRequest)
    const child = new PythonProcess(requestId, { ...this.#options, isSpare }, this.#stall, {
      ready: (ready) => {
        this.#startsWithoutHandshake = 0
        this.#ready.resolve(ready)
        this.#notify(() => this.#options.onReady?.(ready))
      },
      heartbeat: (heartbeat) => (this.#heartbeat = heartbeat),
      gone: (end) => this.#gone(child, end),
    })
    return child
  }

  #gone(child: PythonProcess, end: ProcessEnd): void {
    const { log } = this.#options
    if (this.#process !== child) {
      if (this.#spare !== child) return
      this.#spare = undefined
      this.#spareFrom = performance.now() + spareBackoffMs
      log.warn({ code: end.reason.code }, `the spare Python child is gone: ${end.reason.message}`)
      return
    }
    this.#process = undefined
    if (this.#ended) return
    this.#notify(() => this.#options.onGone?.(end.reason))
    if (child.wasReady) this.#ready = deferred<Ready>()
    else this.#startsWithoutHandshake += 1
    if (end.isFatal || this.#startsWithoutHandshake >= maxStartsWithoutHandshake) {
      const reason = end.isFatal
        ? end.reason
        : workerError('start_failed', `the Python child ended five times before it was ready: ${end.reason.message}`)
      this.#end(reason, unserved(reason))
      log.fatal({ code: reason.code }, reason.message)
      this.#notify(() => this.#options.onEnded?.(reason))
      return
    }
    if (child.wasReady && child.ageMs > healthyMs) this.#failures = 0
    const isAtOnce = child.wasReady && (end.asksRecycling || end.reason.code === 'worker.overran')
    const delayMs = isAtOnce ? 0 : Math.min(backoffMs.longest, backoffMs.first * 2 ** this.#failures++)
    log.warn({ code: end.reason.code, delayMs }, `${end.reason.message}; a new one starts`)
    this.#restart = setTimeout(() => this.#spawn(), delayMs)
  }

  /** Starts no process from now on. `rejection`: what waiting calls reject with. */
  #end(reason: DarkroomError, rejection: DarkroomError): void {
    this.#ended = reason
    clearTimeout(this.#restart)
    this.#ready.reject(reason)
    this.#ready = deferred<Ready>()
    this.#ready.reject(reason)
    for (const call of this.#waiting) call.reject(rejection)
    this.#waiting.clear()
    void this.#dropSpare()
  }

  #notify(listener: () => void): void {
    notify(this.#options.log, listener)
  }
}

/**
 * For a call that no process will serve. Transient whatever ended the child: another worker may well serve the step.
 */
const unserved = (ended: DarkroomError): DarkroomError =>
  workerError('child_died', `no Python child runs here any more: ${ended.message}`, { cause: ended })
