/**
 * Set-up without the network: tiny wheels that this file makes, an index that serves them on loopback and can hold a
 * file back, and a process whose home, temp folder, working folder and PATH are the test's own.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { findPython } from '../../setup/python.mjs'
import { root } from '../../src/config.ts'

/** File name → path inside → text. */
export type Wheels = Record<string, Record<string, string>>

/** @param requires what its metadata asks for */
export function wheel(
  name: string,
  version: string,
  { requires = [] as string[], files = {} as Record<string, string>, tags = 'py3-none-any' } = {},
): Wheels {
  const info = `${name}-${version}.dist-info`
  const needs = requires.map((need) => `Requires-Dist: ${need}\n`).join('')
  const inside: Record<string, string> = {
    [`${name}/__init__.py`]: `version = "${version}"\n`,
    ...files,
    [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: ${name}\nVersion: ${version}\n${needs}`,
    [`${info}/WHEEL`]: `Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: ${tags}\n`,
  }
  inside[`${info}/RECORD`] = [...Object.keys(inside), `${info}/RECORD`].map((path) => `${path},,\n`).join('')
  return { [`${name}-${version}-${tags}.whl`]: inside }
}

/** The lock file of wheels in a folder, as pip reads it; those named in `gpuOnly` belong to the GPU build. */
export function lockOf(folder: string, gpuOnly: string[] = []): string {
  const pins = new Map<string, string[]>()
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.whl'))) {
    const [name = '', version = ''] = file.split('-')
    const sha256 = createHash('sha256')
      .update(readFileSync(join(folder, file)))
      .digest('hex')
    const pin = `${name}==${version}`
    pins.set(pin, [...(pins.get(pin) ?? []), `--hash=sha256:${sha256}`])
  }
  const lines = (isGpu: boolean): string =>
    [...pins]
      .filter(([pin]) => gpuOnly.includes(pin.split('==')[0] ?? '') === isGpu)
      .map(([pin, hashes]) => `${[pin, ...hashes].join(' \\\n    ')}\n`)
      .join('')
  return `# what the environment holds\n${lines(false)}\n# What the GPU build of torch needs besides, on Linux.\n${lines(true)}`
}

/** A build of torch, with its version file as PyTorch writes it. */
export const torch = (version: string, { cuda = null as string | null, requires = [] as string[] } = {}): Wheels =>
  wheel('torch', version, {
    requires,
    files: {
      'torch/version.py': `from typing import Optional\n__version__ = '${version}'\ncuda: Optional[str] = ${cuda ? `'${cuda}'` : 'None'}\n`,
    },
  })

const zip = `
import json, os, sys, zipfile
for name, files in json.load(sys.stdin).items():
    with zipfile.ZipFile(os.path.join(sys.argv[1], name), "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
`

export function writeWheels(python: string, folder: string, wheels: Wheels): void {
  mkdirSync(folder, { recursive: true })
  const { status, stderr } = spawnSync(python, ['-I', '-c', zip, folder], { input: JSON.stringify(wheels), encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
}

export interface Index extends AsyncDisposable {
  url: string
  /** Files that were asked for, in order. */
  readonly served: string[]
  /** Answers nothing to requests for files of this prefix; the promise ends with the first such request. */
  hold(prefix: string): Promise<void>
}

/** A PEP 503 index of the wheels in a folder. */
export async function startIndex(folder: string): Promise<Index> {
  const served: string[] = []
  const held = new Map<string, () => void>()
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? '')
    const [, kind, name = ''] = path.split('/')
    if (kind === 'files') {
      served.push(name)
      const hold = [...held].find(([prefix]) => name.startsWith(prefix))
      if (!hold) return void response.end(readFileSync(join(folder, name)))
      held.delete(hold[0])
      return hold[1]()
    }
    const files = readdirSync(folder).filter((file) => file.startsWith(`${name.replaceAll('-', '_')}-`))
    if (files.length === 0) return void response.writeHead(404).end()
    const links = files.map((file) => {
      const sha256 = createHash('sha256')
        .update(readFileSync(join(folder, file)))
        .digest('hex')
      return `<a href="/files/${encodeURIComponent(file)}#sha256=${sha256}">${file}</a>`
    })
    response.writeHead(200, { 'content-type': 'text/html' }).end(`<!DOCTYPE html><html><body>${links.join('')}</body></html>`)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/simple/`,
    served,
    hold: (prefix) => new Promise((resolve) => held.set(prefix, resolve)),
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

export interface Ended {
  code: number | null
  stdout: string
  stderr: string
}

export interface Running {
  process: ChildProcess
  ended: Promise<Ended>
}

let interpreter: Promise<string> | undefined

export class Sandbox implements Disposable {
  readonly folder = realpathSync(mkdtempSync(join(tmpdir(), 'darkroom-setup-')))
  /** With a space, as on many a Mac. */
  readonly home = join(this.folder, 'darkroom home')
  readonly bin = join(this.folder, 'bin')
  /** The real interpreter that runs as `python3` here. */
  readonly python: string

  private constructor(python: string) {
    this.python = python
    for (const name of ['bin', 'user', 'tmp', 'cwd']) mkdirSync(join(this.folder, name))
    this.program('python3', `exec "${python}" "$@"`)
    // Set-up is started wherever its user is; nothing that lies there may be imported.
    for (const module of ['json', 'zipfile', 'venv', 'pip', 'importlib', 'struct'])
      writeFileSync(join(this.folder, 'cwd', `${module}.py`), 'raise SystemExit("imported from the folder that set-up was started in")\n')
  }

  static async make(): Promise<Sandbox> {
    interpreter ??= findPython().then(({ command }) => {
      return spawnSync(command, ['-I', '-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).stdout.trim()
    })
    return new Sandbox(await interpreter)
  }

  /** Puts a shell script on PATH. @returns its path */
  program(name: string, script: string): string {
    const path = join(this.bin, name)
    writeFileSync(path, `#!/bin/sh\n${script}\n`)
    chmodSync(path, 0o755)
    return path
  }

  /** What a set-up sees; nothing of the machine's pip, npm or Redis. */
  env(more: Record<string, string> = {}): Record<string, string> {
    return {
      PATH: `${this.bin}:/usr/bin:/bin`,
      HOME: join(this.folder, 'user'),
      TMPDIR: join(this.folder, 'tmp'),
      DARKROOM_HOME: this.home,
      PIP_CONFIG_FILE: '/dev/null',
      ...more,
    }
  }

  /** A Node program of this repository, or of a copy by its whole path, in a working folder of its own. */
  start(script: string, args: string[], env: Record<string, string>, node: string[] = []): Running {
    const child = spawn(process.execPath, [...node, resolve(root, script), ...args], {
      cwd: join(this.folder, 'cwd'),
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
    return { process: child, ended: new Promise((resolve) => child.on('close', (code) => resolve({ code, stdout, stderr }))) }
  }

  /** Processes that have something of this sandbox on their command line. */
  processes(): string[] {
    if (!existsSync('/proc/self/cmdline')) return []
    return readdirSync('/proc').flatMap((pid) => {
      if (!/^\d+$/.test(pid) || Number(pid) === process.pid) return []
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        return line.includes(this.folder) ? [line] : []
      } catch {
        return []
      }
    })
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true })
  }
}
