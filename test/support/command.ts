/** Commands as a user gives them: a process, what it printed, how it ended. */
import { spawn, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { root } from '../../src/config.ts'
import { builtFile } from './program-file.ts'

export interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

export interface Running {
  readonly process: ChildProcess
  readonly ended: Promise<Ended>
  /**
   * Resolves with the match when the output has it.
   * @throws Error with the whole output when it ends, or 180 s pass, before that.
   */
  until(pattern: RegExp): Promise<RegExpExecArray>
}

/** The command as a user has it. */
export const installed = join(root, 'bin', 'darkroom.mjs')

/** The same, which need not compile first; what it starts itself does. */
const quickest = (): string => builtFile('src/main.ts') ?? installed

/** Settings of the developer's own stay out; `env` is what the command gets besides the machine's. */
export function start(args: string[], env: Record<string, string> = {}, cwd: string = root, program: string = quickest()): Running {
  const { DARKROOM_HOME, DARKROOM_PYTHON, ...inherited } = process.env
  const clean = Object.fromEntries(Object.entries(inherited).filter(([name]) => name !== 'REDIS_URL' && !name.startsWith('DARKROOM_')))
  const kept = { ...(DARKROOM_HOME && { DARKROOM_HOME }), ...(DARKROOM_PYTHON && { DARKROOM_PYTHON }) }
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    // Without a reaper, also where process 1 is no init: what a test kills is the command itself.
    env: { ...clean, ...kept, darkroom_below_reaper: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [stdout, stderr] = ['', '']
  const watchers = new Set<() => void>()
  const hear = (): void => watchers.forEach((watcher) => watcher())
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
    hear()
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    hear()
  })
  const ended = new Promise<Ended>((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr })))
  return {
    process: child,
    ended,
    until: (pattern) =>
      new Promise((resolve, reject) => {
        const fail = (why: string): void => reject(new Error(`${why} before ${String(pattern)}\n${stdout}\n${stderr}`))
        const timer = setTimeout(() => fail('180 s passed'), 180_000)
        const look = (): void => {
          const match = pattern.exec(stdout) ?? pattern.exec(stderr)
          if (!match) return
          clearTimeout(timer)
          watchers.delete(look)
          resolve(match)
        }
        watchers.add(look)
        look()
        void ended.then(() => {
          clearTimeout(timer)
          fail('it ended')
        })
      }),
  }
}

export const run = (args: string[], env: Record<string, string> = {}): Promise<Ended> => start(args, env).ended
