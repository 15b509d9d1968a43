/**
 * Values that know who has read them, and tell those when they are others. Nobody hears of it at once: whoever is to
 * run again does so once what changes them has come to its end, and only if what it read is really another by then.
 */
export interface ReadonlySignal<T> {
  readonly value: T
}
export interface Signal<T> {
  value: T
}

interface Source {
  readers: Set<Reader>
  /** Counts its values. */
  version: () => number
}

/** Who reads: what it has read, in which versions, and what is done when something of that may be another. */
export interface Reader {
  sources: Map<Source, number>
  stale: () => void
}

let current: Reader | undefined

/** What `work` reads is what the reader has read, in place of all before. */
export function readAs<T>(reader: Reader, work: () => T): T {
  const before = current
  forget(reader)
  current = reader
  try {
    return work()
  } finally {
    current = before
  }
}

/** It is told of nothing any more. */
export function forget(reader: Reader): void {
  for (const { readers } of reader.sources.keys()) readers.delete(reader)
  reader.sources.clear()
}

export const isStale = ({ sources }: Reader): boolean => [...sources].some(([{ version }, read]) => version() !== read)

function isRead(source: Source): void {
  if (!current) return
  source.readers.add(current)
  current.sources.set(source, source.version())
}

export function signal<T>(value: T): Signal<T> {
  let version = 0
  const source: Source = { readers: new Set(), version: () => version }
  return {
    get value() {
      isRead(source)
      return value
    },
    set value(next) {
      if (next === value) return
      value = next
      version++
      for (const reader of source.readers) reader.stale()
    },
  }
}

/** Computed when somebody reads it, and again only after what it is made of has changed. */
export function computed<T>(compute: () => T): ReadonlySignal<T> {
  let [value, version, isFresh]: [T | undefined, number, boolean] = [undefined, 0, false]
  const reader: Reader = {
    sources: new Map(),
    stale: () => {
      isFresh = false
      for (const each of source.readers) each.stale()
    },
  }
  const source: Source = {
    readers: new Set(),
    version: () => {
      if (!isFresh && (version === 0 || isStale(reader))) {
        const next = readAs(reader, compute)
        if (version === 0 || next !== value) version++
        value = next
      }
      isFresh = true
      return version
    },
  }
  return {
    get value() {
      source.version()
      isRead(source)
      return value as T
    },
  }
}

/** Those that are to run again: parents of the page before what is in them. */
const waiting = new Map<Reader, { depth: number; run: () => void }>()
/** What is done once nobody waits any more. */
const settled: (() => void)[] = []

/** Lets a reader run again soon. */
export function later(reader: Reader, run: () => void, depth = 0): void {
  if (waiting.size === 0) queueMicrotask(runWaiting)
  waiting.set(reader, { depth, run })
}

export const onceSettled = (act: () => void): unknown => settled.push(act)

export function runWaiting(): void {
  const due = [...waiting].toSorted(([, a], [, b]) => a.depth - b.depth)
  waiting.clear()
  for (const [reader, { run }] of due) if (isStale(reader)) tried(run)
  for (const act of settled.splice(0)) tried(act)
}

/** One that fails keeps no other from running. */
function tried(act: () => void): void {
  try {
    act()
  } catch (error) {
    reportError(error)
  }
}

/** Does something now, and again whenever something that it read is another. */
export function effect(work: () => void): void {
  const run = (): void => readAs(reader, work)
  const reader: Reader = { sources: new Map(), stale: () => later(reader, run) }
  run()
}
