/** Starts `python/darkroom/convert.py`, which makes safetensors of one pickle, and watches over it. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { root } from '../../config.ts'
import type { StepProgress } from '../../domains/operation.ts'
import { DarkroomError } from '../../errors.ts'
import { targetsOf, whole, type Conversion } from '../../models/conversion.ts'
import type { Entry } from '../../models/entry.ts'
import { modelError } from '../../models/errors.ts'
import { childEnvironment } from './environment.ts'
import { splitLines } from './lines.ts'

export interface ConvertTools {
  /** Its HOME, and where it is started. */
  folder: string
  progress(progress: StepProgress): void
  signal: AbortSignal
}

/** @throws DarkroomError `model.pickle_refused`, `model.not_converted`, `model.exists`, `model.unusable` */
export type Convert = (entry: Entry, tools: ConvertTools) => Promise<Conversion>

/** How long one file may take, ms. */
const timeoutMs = 3_600_000
const lineBytes = 65_536
/** Names of entries that are no tensors. */
const maxSkipped = 20

const Line = z.union([
  z.strictObject({ stage: z.enum(['read', 'write']) }),
  z.strictObject({ tensors: z.int().min(0), bytes: z.int(), skipped: z.array(z.string()) }),
  z.strictObject({ code: z.enum(['pickle_refused', 'not_converted']), message: z.string() }),
])
type Line = z.infer<typeof Line>

/** @param isAllowed whether the operator of this worker has opted in; without, nothing is opened */
export const converter =
  (interpreter: string, isAllowed: boolean): Convert =>
  async (entry, tools) => {
    if (!isAllowed && entry.verdict.reason?.code === 'pickle')
      throw modelError('pickle_refused', `${entry.path} is a pickle: opening one can run code that it holds, so none is opened here`, {
        field: 'input.model',
      })
    const targets = await targetsOf(entry)
    const all: Conversion = { path: entry.path, bytes: 0, tensors: 0, skipped: [] }
    for (const { source, target } of targets) {
      const made = await whole(target, (part) => run(interpreter, source, part, tools))
      if (!entry.isFolder) all.path = target
      all.bytes += made.bytes
      all.tensors += made.tensors
      all.skipped = [...all.skipped, ...made.skipped].slice(0, maxSkipped)
    }
    return all
  }

async function run(
  interpreter: string,
  source: string,
  part: string,
  { folder, progress, signal }: ConvertTools,
): Promise<{ tensors: number; skipped: string[] }> {
  const child = spawn(interpreter, ['-P', '-m', 'darkroom.convert', source, part], {
    env: childEnvironment(folder, join(root, 'python')),
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    windowsHide: true,
  })
  const kill = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', kill)
  const timer = new AbortController()
  let isLate = false
  void delay(timeoutMs, undefined, { signal: timer.signal }).then(
    () => {
      isLate = true
      kill()
    },
    () => undefined,
  )
  let last: Line | undefined
  let words = ''
  child.stdout.on(
    'data',
    splitLines(
      lineBytes,
      (line) => {
        last = parsed(line)
        if (last && 'stage' in last) progress({ stage: last.stage, call: last.stage === 'read' ? 1 : 2, calls: 3 })
      },
      kill,
    ),
  )
  child.stderr.on('data', (bytes: Buffer) => (words = (words + bytes.toString('latin1')).slice(-2000)))
  try {
    if (signal.aborted) kill()
    const end = await new Promise<string>((resolve, reject) => {
      child.on('error', reject)
      child.on('close', (code, killedBy) => resolve(killedBy ?? `exit ${code}`))
    })
    signal.throwIfAborted()
    if (last && 'tensors' in last && end === 'exit 0') return { tensors: last.tensors, skipped: last.skipped }
    if (last && 'code' in last) throw modelError(last.code, `${source}: ${last.message}`, { field: 'input.model' })
    const why = isLate ? `it took longer than ${timeoutMs / 1000} s` : `its process ended with ${end}: ${lastLine(words)}`
    throw modelError('not_converted', `${source}: ${why}`, { field: 'input.model' })
  } catch (error) {
    if (error instanceof DarkroomError || signal.aborted) throw error
    throw modelError('not_converted', `${source}: ${interpreter} could not be started`, { cause: error })
  } finally {
    timer.abort()
    signal.removeEventListener('abort', kill)
  }
}

function parsed(line: Buffer): Line | undefined {
  try {
    return Line.parse(JSON.parse(line.toString('utf8')))
  } catch {
    return undefined
  }
}

/** What it said last, without what a terminal would act on. */
const lastLine = (words: string): string =>
  words
    .trim()
    .split('\n')
    .at(-1)
    ?.replaceAll(/[^\x20-\x7e]/g, '?')
    .slice(0, 300) ?? ''
