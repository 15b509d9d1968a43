/**
 * Crash points armed by files: `<folder>/<point>@<session>` makes the next process of the farm's dying kind that passes
 * the point with this session kill itself there, by SIGKILL. The file is renamed before that, so that exactly one
 * process dies of it.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { AtPoint, Point } from '../../src/engine/points.ts'

/** Kinds of processes that hold an engine. */
export type Kind = 'api' | 'worker'

/** Stands for a session that is not known yet. */
export const anySession = 'any'

/**
 * The hook of a process that dies at armed points. It leaves a file `passed.<point>` for every point that it passes.
 */
export function fatal(folder: string): AtPoint {
  const passed = new Set<Point>()
  return (point, sessionId) => {
    if (!passed.has(point)) writeFileSync(join(folder, `passed.${point}`), '')
    passed.add(point)
    for (const subject of [sessionId, anySession]) {
      const file = join(folder, `${point}@${subject}`)
      if (!existsSync(file)) continue
      try {
        renameSync(file, join(folder, `died.${point}@${subject}.${process.pid}`))
      } catch {
        continue // another process was faster
      }
      process.kill(process.pid, 'SIGKILL')
    }
  }
}

/** The test's side of it. */
export class ArmedPoints {
  readonly folder: string

  constructor(folder: string) {
    this.folder = folder
    mkdirSync(folder, { recursive: true })
  }

  arm(point: Point, sessionId: string): void {
    writeFileSync(join(this.folder, `${point}@${sessionId}`), '')
  }

  /** The process that died there; undefined as long as none has. */
  diedAt(point: Point, sessionId: string): number | undefined {
    const mark = `died.${point}@${sessionId}.`
    const file = readdirSync(this.folder).find((name) => name.startsWith(mark))
    return file === undefined ? undefined : Number(file.slice(mark.length))
  }

  /** Points that some process of the dying kind has passed. */
  passed(): string[] {
    return readdirSync(this.folder).flatMap((name) => (name.startsWith('passed.') ? [name.slice('passed.'.length)] : []))
  }
}
