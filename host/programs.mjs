/** Other programs: where they are, and what they say. */
import { spawn } from 'node:child_process'
import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** @param {string} path */
export function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** @param {string} name @returns {string[]} every program of that name on PATH, in order */
export const onPath = (name) =>
  (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .filter(isExecutable)

/** @returns {string | undefined} the C++ compiler that builds the native addon */
export const findCompiler = () => process.env['CXX'] || ['c++', 'g++', 'clang++'].flatMap(onPath)[0]

export const hasNvidiaDriver = () => existsSync('/proc/driver/nvidia/version') || onPath('nvidia-smi').length > 0

/**
 * Runs a program and collects what it says. Never throws: a program that cannot start has code -1.
 * @param {string} command @param {string[]} args @param {{ timeoutMs?: number, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ code: number, out: string, err: string }>}
 */
export function ask(command, args, { timeoutMs = 20_000, env } = {}) {
  return new Promise((settle) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      ...(env && { env }),
    })
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => (out += chunk))
    child.stderr.setEncoding('utf8').on('data', (chunk) => (err += chunk))
    child.on('error', (error) => settle({ code: -1, out, err: error.message }))
    child.on('close', (code) => settle({ code: code ?? -1, out, err }))
  })
}
