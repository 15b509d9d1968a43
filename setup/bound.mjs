/** Programs that install: they end with us. */
import { spawn } from 'node:child_process'
import { closeSync, openSync, writeFileSync } from 'node:fs'

/**
 * The environment of a Python that installs: what would send packages elsewhere stays out, and unpacking happens beside
 * the target, because /tmp may be small. Such a Python is started with `-I`: whatever lies in the folder that set-up is
 * started in is not imported.
 * @param {string} temp
 * @returns {NodeJS.ProcessEnv}
 */
export function pythonEnvironment(temp) {
  const { PYTHONHOME: _home, PYTHONPATH: _path, PIP_TARGET: _target, PIP_PREFIX: _prefix, VIRTUAL_ENV: _venv, ...rest } = process.env
  return { ...rest, TMPDIR: temp, PIP_USER: '0', PYTHONSAFEPATH: '1' }
}

/**
 * Runs the program in a process group of its own, beside a watcher that reads a pipe of which only we hold the other
 * end, and that kills the group when the pipe closes.
 */
const watched = 'exec 3<&0 0</dev/null; (read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 & exec 3<&-; exec "$@"'

/**
 * Runs a program that writes where a later set-up will write too. It and all that it starts end with us, also when we
 * are killed by SIGKILL, so that the later one has the place for itself.
 * @param {string} command @param {string[]} args
 * @param {{ log?: string, cwd?: string, env?: NodeJS.ProcessEnv }} [options] `log`: a file to which its output is
 *   appended
 * @returns {Promise<{ ok: boolean, words: string }>} `words`: the end of its output
 */
export function runBound(command, args, { log, cwd, env } = {}) {
  const output = log === undefined ? undefined : openSync(log, 'a')
  return new Promise((settle) => {
    const child = spawn('/bin/sh', ['-c', watched, 'sh', command, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
      ...(cwd && { cwd }),
      ...(env && { env }),
    })
    let words = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk) => {
        words = (words + chunk).slice(-20_000)
        if (output !== undefined) writeFileSync(output, chunk)
      })
    }
    const end = (/** @type {boolean} */ ok) => {
      if (output !== undefined) closeSync(output)
      settle({ ok, words })
    }
    child.on('error', (error) => {
      words += error.message
      end(false)
    })
    child.on('close', (code) => end(code === 0))
  })
}
