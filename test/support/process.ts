/**
 * A child process in a group of its own, which a test may kill, freeze and start again. Nothing it started may outlive
 * it.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { createInterface } from 'node:readline'
import { root } from '../../src/config.ts'
import { nodeArguments } from './program-file.ts'
import { started } from './started.ts'

export interface ProcessOptions {
  name: string
  /** Program file of this repository, by its path below the root. */
  entry: string
  args: string[]
  env: Record<string, string | undefined>
  /** Modules loaded before the program. */
  preload?: string[]
  /** Program and arguments that run it somewhere else, as `SmallDisks` has them. */
  inside?: readonly string[]
  /** Where its standard error goes. */
  log: string
  /** A file that it writes its standard error to itself, in place of `log`. */
  ownLog?: string | undefined
}

const apart = ['unshare', '--user', '--map-root-user', '--pid', '--fork', '--kill-child', '--mount-proc']

/** Why no process can have a PID namespace of its own on this machine; undefined when one can. */
export const noPidNamespaces: string | undefined =
  spawnSync(apart[0] ?? '', [...apart.slice(1), 'true']).status === 0 ? undefined : '`unshare` makes no PID namespace here'

const startMs = 120_000
const goneMs = 20_000

export class GroupProcess {
  readonly name: string
  /** What it said it is: an API its URL, a worker its id. */
  ready = ''
  /** Times it was started. */
  starts = 0
  /** Whether its next life is in a PID namespace of its own: there it is process 1, and sees none of the others. */
  isApart = false
  readonly #options: ProcessOptions
  #child: ChildProcess | undefined
  /** The process itself, where another one holds its namespace. */
  #inner: number | undefined
  #exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }> = Promise.resolve({ code: 0, signal: null })
  #said: ((message: Record<string, unknown>) => void)[] = []

  constructor(options: ProcessOptions) {
    this.name = options.name
    this.#options = options
  }

  get pid(): number {
    return this.#inner ?? this.#group
  }

  get #group(): number {
    return this.#child?.pid ?? 0
  }

  get isAlive(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  get exited(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    return this.#exited
  }

  /** Resolves when it has said that it is ready. @throws Error with the end of its log when it ends before that. */
  async start(): Promise<void> {
    const { entry, args, env, preload = [], inside = [], log, ownLog } = this.#options
    const isApart = this.isApart
    const [program = '', ...rest] = [...inside, ...(isApart ? apart : []), process.execPath, ...nodeArguments(entry, preload), ...args]
    const child = spawn(program, rest, {
      cwd: root,
      env,
      stdio: ['ignore', 'pipe', ownLog === undefined ? 'pipe' : openSync(ownLog, 'a')],
      detached: true,
    })
    this.#child = child
    this.#inner = undefined
    this.starts++
    if (child.pid !== undefined) child.once('exit', started(-child.pid))
    this.#exited = once(child, 'exit').then(([code, signal]) => ({ code: code as number | null, signal: signal as NodeJS.Signals | null }))
    child.stderr?.on('data', (text: Buffer) => appendFileSync(log, text))
    const ready = new Promise<string>((resolve) => {
      if (child.stdout)
        createInterface(child.stdout).on('line', (line) => {
          const message = JSON.parse(line) as Record<string, unknown>
          if (typeof message['ready'] === 'string') resolve(message['ready'])
          for (const listener of this.#said.splice(0)) listener(message)
        })
    })
    const late = delay(startMs, undefined, { ref: false })
    const first = await Promise.race([ready, this.#exited.then(() => undefined), late])
    if (first === undefined) throw new Error(`${this.name} did not become ready\n${this.lastWords()}`)
    this.ready = first
    if (isApart) this.#inner = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim().split(' ')[0])
  }

  /** The next thing it says on standard output. */
  async answer(signal: NodeJS.Signals): Promise<Record<string, unknown>> {
    const answer = new Promise<Record<string, unknown>>((resolve) => this.#said.push(resolve))
    this.signal(signal)
    return answer
  }

  /** Signals the process alone. */
  signal(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal)
  }

  /** Signals the process and everything it started. */
  signalGroup(signal: NodeJS.Signals): void {
    process.kill(-this.#group, signal)
  }

  /**
   * SIGKILL for the process alone, as the kernel would: what it started has to notice by itself. Resolves when all of
   * it is gone. One that has ended by itself just now, before its group has, needs none.
   */
  async kill(): Promise<void> {
    signalIfThere(this.pid, 'SIGKILL')
    await this.#exited
    await this.#groupGone()
  }

  /** SIGTERM. @throws Error when it does not end in order within `ms`, or leaves something running. */
  async stop(ms: number): Promise<void> {
    if (!this.isAlive) return
    this.signal('SIGCONT')
    this.signal('SIGTERM')
    const end = await Promise.race([this.#exited, delay(ms, undefined, { ref: false })])
    if (end?.code === 0) return this.#groupGone()
    this.signalGroup('SIGKILL')
    await this.#exited
    throw new Error(
      `${this.name} ${end ? `ended with ${end.signal ?? `code ${end.code}`}` : `did not end within ${ms} ms`} after SIGTERM\n${this.lastWords()}`,
    )
  }

  lastWords(lines = 15): string {
    return this.#lines().slice(-lines).join('\n') || '(it said nothing)'
  }

  /** What it wrote of something, such as of a request by its id. */
  wordsOf(text: string): string {
    return this.#lines()
      .filter((line) => line.includes(text))
      .join('\n')
  }

  #lines(): string[] {
    try {
      return readFileSync(this.#options.log, 'utf8').trimEnd().split('\n')
    } catch {
      return []
    }
  }

  async #groupGone(): Promise<void> {
    const until = Date.now() + goneMs
    while (groupLives(this.#group)) {
      if (Date.now() > until) {
        process.kill(-this.#group, 'SIGKILL')
        throw new Error(`${this.name} (pid ${this.pid}) left processes running`)
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
}

/** Signals a process; one that has gone meanwhile is no fault. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** Whether a process of the group runs; one that has ended and waits to be reaped does not. */
function groupLives(group: number): boolean {
  try {
    process.kill(-group, 0)
  } catch {
    return false
  }
  if (!existsSync('/proc/self/stat')) return true
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      const [state, , pgrp] = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ')
      return Number(pgrp) === group && state !== 'Z' && state !== 'X'
    } catch {
      return false
    }
  })
}
