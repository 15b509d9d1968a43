/**
 * Output of the commands: text on stdout, progress and errors on stderr. Here every text is made safe for a terminal.
 */
import { MultiBar, Presets, type SingleBar } from 'cli-progress'
import { BadPlace } from '../../host/own-folder.mjs'
import { Problem } from '../client/index.ts'
import { DarkroomError } from '../errors.ts'
import type { Progress } from '../engine/session.ts'
import { describeProgress, percent } from './progress.ts'

/**
 * Text in which nothing is left that a terminal acts on or that turns the order of letters: control characters of both
 * blocks, marks of direction, line separators and halves of surrogate pairs, each as JSON writes it. So JSON stays JSON
 * of the same value. Lines and tabs stay.
 */
export const safe = (text: string): string =>
  text.replaceAll(/[^\P{Cc}\n\t]|[\p{Bidi_Control}\u2028\u2029\p{Cs}]/gu, (character) => escaped(character))

/** The same on one line: a text of another must not look like a line of ours. */
export const inline = (text: string): string => safe(text).replaceAll(/[\n\t]/g, (character) => (character === '\n' ? '\\n' : '\\t'))

/** A copy in which every text is on one line. */
export const inlined = <T>(value: T): T =>
  JSON.parse(JSON.stringify(value), (_, each: unknown) => (typeof each === 'string' ? inline(each) : each)) as T

const escaped = (character: string): string => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`

// Whoever read the output has gone, as `head` does, or the terminal has: the work goes on without being told of.
let lost: Error | undefined
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE' && error.code !== 'EIO') lost = error
  })
}

/** Why some output could not be written, other than that nobody reads it: a full disk. */
export async function lostOutput(): Promise<Error | undefined> {
  await new Promise<void>((resolve) => void process.stdout.write('', () => resolve()))
  return lost
}

export const say = (text = ''): void => void process.stdout.write(`${safe(text)}\n`)
export const whisper = (text: string): void => void process.stderr.write(`${safe(text)}\n`)
export const sayJson = (value: unknown): void => say(JSON.stringify(value, null, 2))

/** Ends a command that has printed its error already. */
export class Exit extends Error {
  readonly code: number
  constructor(code: number) {
    super(`exit ${code}`)
    this.code = code
  }
}

/** Prints the error of a command and its remedy, once. Returns the exit status. */
export function explain(error: unknown): number {
  if (error instanceof Exit) return error.code
  if (error instanceof Problem) {
    const { detail, remedy, code, problems = [], requestId } = error.document
    // The detail of several is their list, on one line.
    const head = problems.length > 1 ? [`error: ${problems.length} fields are at fault`] : [`error: ${inline(detail)}`]
    const lines = problems.length > 1 ? problems.map(({ field, message }) => `  ${inline(field)}: ${inline(message)}`) : []
    whisper([...head, ...lines, inline(remedy), inline(`(${code}${requestId ? `, request ${requestId}` : ''})`)].filter(Boolean).join('\n'))
  } else if (error instanceof DarkroomError) whisper(`error: ${error.message}\n${error.remedy}\n(${error.code})`)
  else if (error instanceof BadPlace || isOfSystem(error)) whisper(`error: ${error.message}`)
  else whisper(error instanceof Error ? (error.stack ?? error.message) : String(error))
  return 1
}

/** A file, a folder or a connection refused what was asked: no defect of ours, so its place in the code is left out. */
const isOfSystem = (error: unknown): error is NodeJS.ErrnoException => error instanceof Error && 'syscall' in error

export interface ProgressView {
  show(progress: Progress): void
  /** It has succeeded. */
  done(): void
  /** A line of its own beside the progress. */
  note(text: string): void
  stop(): void
}

/** Progress of one session: a bar on a terminal, else a line at each stage and every few seconds within a long one. */
export function progressView(out: NodeJS.WriteStream = process.stderr): ProgressView {
  return out.isTTY ? new BarView(out) : new LineView(out)
}

/** For output that a program reads. */
export const silentView: ProgressView = { show: () => undefined, done: () => undefined, note: () => undefined, stop: () => undefined }

class BarView implements ProgressView {
  readonly #bars: MultiBar
  #bar: SingleBar | undefined
  #reached = 0

  constructor(out: NodeJS.WriteStream) {
    this.#bars = new MultiBar(
      { stream: out, format: '  {bar} {percent}  {text}', barsize: 30, hideCursor: true, clearOnComplete: false, gracefulExit: false },
      Presets.shades_classic,
    )
  }

  show(progress: Progress): void {
    // After a takeover the fraction falls to that of the checkpoint; the bar does not.
    this.#reached = Math.max(this.#reached, progress.fraction)
    this.#draw(describeProgress(progress))
  }

  done(): void {
    this.#reached = 1
    this.#draw('done')
  }

  #draw(text: string): void {
    const shown = { percent: percent(this.#reached), text: inline(text) }
    this.#bar ??= this.#bars.create(1, 0, shown)
    this.#bar.update(this.#reached, shown)
  }

  note(text: string): void {
    this.#bars.log(`${inline(text)}\n`)
  }

  stop(): void {
    this.#bars.stop()
  }
}

const lineMs = 5000

class LineView implements ProgressView {
  readonly #out: NodeJS.WriteStream
  #stage = ''
  #saidAt = 0
  #reached = 0

  constructor(out: NodeJS.WriteStream) {
    this.#out = out
  }

  show(progress: Progress): void {
    this.#reached = Math.max(this.#reached, progress.fraction)
    const { step, stage, image, call, calls, rate } = progress
    const now = Date.now()
    const place = `${step} ${stage} ${image} ${rate === undefined ? '' : 'measured'}`
    if (place === this.#stage && call !== calls && now - this.#saidAt < lineMs) return
    this.#stage = place
    this.#saidAt = now
    this.note(`${percent(this.#reached)}  ${describeProgress(progress)}`)
  }

  done(): void {
    this.note(`${percent(1)}  done`)
  }

  note(text: string): void {
    this.#out.write(`  ${inline(text)}\n`)
  }

  stop(): void {}
}

/** Lines of a name and a value each; what has no value is left out. Several values stand below one another. */
export const fields = (lines: readonly [string, string | readonly string[] | null | undefined][], width: number): string =>
  lines
    .flatMap(([name, value]) => [value ?? []].flat().map((each, i) => `${(i === 0 ? inline(name) : '').padEnd(width)}${inline(each)}`))
    .join('\n')

/** Columns as wide as their longest cell; the last is cut so that a line fits the terminal. */
export function table(head: string[], rows: string[][], width: number = process.stdout.columns ?? 0): string {
  const all = [head, ...rows.map((row) => row.map(inline))]
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)))
  return all
    .map((row) => row.map((cell, column) => (column === head.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  '))
    .map((line) => (width > 0 && line.length > width ? `${line.slice(0, width - 1)}…` : line).trimEnd())
    .join('\n')
}
