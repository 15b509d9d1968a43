/**
 * The init that a container has not: process 1 inherits every orphan, and a Node, npm or shell in its place never reaps
 * them. There, the program runs again below a small Python that takes the orphans in their place
 * (PR_SET_CHILD_SUBREAPER, prctl(2)), and what stands above passes signals on and ends as the program does.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { basename } from 'node:path'
import { readyEnvironment } from './places.mjs'
import { homeFolder } from './home.mjs'
import { onPath } from './programs.mjs'

/** Passes every signal on that asks for an end. */
const passedOn = /** @type {const} */ (['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT'])

/** Set for the program below, which is not to do it once more. */
const mark = 'darkroom_below_reaper'

/** What stands as process 1 without being an init. */
const noInit = /^(node|nodejs|npm|npx|pnpm|yarn|bun|sh|bash|dash|ash|busybox|python[\d.]*|MainThread)$/

/** @returns {boolean} whether nobody reaps the orphans of this process */
function lacksInit() {
  if (process.platform !== 'linux' || process.env[mark] !== undefined) return false
  if (process.pid === 1) return true
  try {
    const [program = ''] = readFileSync('/proc/1/cmdline', 'utf8').split(/[\0 ]/)
    return noInit.test(basename(program).replace(/^-/, ''))
  } catch {
    return false
  }
}

/** Starts its arguments as a child, reaps whatever ends, and ends as the child does. */
const reaper = `
import ctypes, os, signal, sys
libc = ctypes.CDLL(None)
parent = os.getppid()
libc.prctl(36, 1, 0, 0, 0)
libc.prctl(1, signal.SIGTERM, 0, 0, 0)
child, early = None, []
def pass_on(number, _):
    early.append(number) if child is None else os.kill(child, number)
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(each, pass_on)
child = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:])
if os.getppid() != parent:
    early.append(signal.SIGTERM)
for number in early:
    os.kill(child, number)
while True:
    ended, status = os.wait()
    if ended == child:
        os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
`

/** @returns {string | undefined} any Python will do */
function python() {
  const own = process.env['DARKROOM_PYTHON']
  if (own) return own
  try {
    return (
      (readyEnvironment({ home: homeFolder() }) ?? readyEnvironment({ home: homeFolder(), gpu: true }))?.interpreter ?? onPath('python3')[0]
    )
  } catch {
    return onPath('python3')[0]
  }
}

/**
 * Where there is no init, runs this same program below a reaper and returns its exit status; undefined where the caller
 * is to go on itself.
 * @returns {Promise<number | undefined>}
 */
export async function runBelowReaper() {
  if (!lacksInit()) return undefined
  const interpreter = python()
  if (interpreter === undefined) {
    process.stderr.write(
      'Process 1 of this container is no init and there is no Python to take its place: processes that end stay as zombies. Start the container with an init (`docker run --init`).\n',
    )
    return undefined
  }
  const below = [interpreter, '-I', '-c', reaper, process.execPath, ...process.execArgv, ...process.argv.slice(1)]
  return follow(below[0] ?? '', below.slice(1), { ...process.env, [mark]: '1' })
}

/**
 * Runs a program in our place: signals that ask us to end are passed on to it, and when the process that started us
 * over a channel is gone, it is asked to end.
 * @param {string} command @param {string[]} args @param {NodeJS.ProcessEnv} env
 * @param {import('node:child_process').StdioOptions} [stdio]
 * @returns {Promise<number>} its exit status
 */
export function follow(command, args, env, stdio = 'inherit') {
  const child = spawn(command, args, { stdio, env })
  for (const signal of passedOn) process.on(signal, () => child.kill(signal))
  process.once('disconnect', () => child.kill('SIGTERM'))
  process.channel?.unref()
  return new Promise((settle, fail) => {
    child.on('error', fail)
    child.on('exit', (code, signal) => settle(code ?? 128 + (signal === null ? 0 : constants.signals[signal])))
  })
}
