/**
 * System RAM as this process may use it: the machine's, or less where a cgroup above it has a limit. Every level
 * counts, not the innermost alone: a limit of an ancestor holds for all below it, and its use is that of all of them.
 * Sources: `Documentation/admin-guide/cgroup-v2.rst` and `cgroup-v1/memory.rst` of Linux, proc(5).
 */
import { readFileSync } from 'node:fs'
import { freemem, totalmem } from 'node:os'
import { join } from 'node:path'

export interface SystemRam {
  /** Bytes, of what leaves the least. */
  total: number
  used: number
  /** The smallest limit of a cgroup; null without any. */
  limit: number | null
  /** What leaves the least: `meminfo`, `node`, or a cgroup with its path. */
  source: string
}

/** The text of a file; undefined where there is none. */
export type ReadText = (path: string) => string | undefined

const readText: ReadText = (path) => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}

/** What binds this process most. */
export function systemRam(read: ReadText = readText): SystemRam {
  const levels = cgroupsOf(read).flatMap(({ path, version }) => levelOf(path, version, read) ?? [])
  const limits = levels.map(({ total }) => total)
  const machine = machineRam(read)
  const tightest = [machine, ...levels].reduce((least, each) => (each.total - each.used < least.total - least.used ? each : least))
  return { ...tightest, limit: limits.length > 0 ? Math.min(...limits) : null }
}

type Level = Omit<SystemRam, 'limit'>

function machineRam(read: ReadText): Level {
  const text = read('/proc/meminfo') ?? ''
  const kibibytes = (name: string): number | undefined => numberOf(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1])
  const [total, available] = [kibibytes('MemTotal'), kibibytes('MemAvailable')]
  if (total === undefined || available === undefined) return { total: totalmem(), used: totalmem() - freemem(), source: 'node' }
  return { total: total * 1024, used: Math.max(0, total - available) * 1024, source: 'meminfo' }
}

/** Folders of the memory cgroups of this process, the innermost first, as far as they are mounted. */
function cgroupsOf(read: ReadText): { path: string; version: 1 | 2 }[] {
  const own = (read('/proc/self/cgroup') ?? '').split('\n').flatMap((line): { version: 1 | 2; path: string }[] => {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
    if (path === undefined) return []
    if (controllers === '') return [{ version: 2, path }]
    return controllers?.split(',').includes('memory') ? [{ version: 1, path }] : []
  })
  return own.flatMap(({ version, path }) => {
    const mount = mountOf(version, read)
    if (!mount) return []
    // A container may see a part of the tree only: what is mounted is its `root`.
    const below = mount.root === '/' ? path : path === mount.root || path.startsWith(`${mount.root}/`) ? path.slice(mount.root.length) : '/'
    const parts = below.split('/').filter((part) => part !== '' && part !== '..')
    return parts
      .map((_, i) => ({ version, path: join(mount.point, ...parts.slice(0, parts.length - i)) }))
      .concat({ version, path: mount.point })
  })
}

/** Where the memory cgroups are mounted, by proc_pid_mountinfo(5). */
function mountOf(version: 1 | 2, read: ReadText): { root: string; point: string } | undefined {
  for (const line of (read('/proc/self/mountinfo') ?? '').split('\n')) {
    const [head = '', tail = ''] = line.split(' - ')
    const [, , , root = '/', point = ''] = head.split(' ')
    const [type, , options = ''] = tail.split(' ')
    if (version === 2 ? type === 'cgroup2' : type === 'cgroup' && options.split(',').includes('memory'))
      return { root, point: unescaped(point) }
  }
  return undefined
}

/** A space and its like in a path of mountinfo are octal. */
const unescaped = (path: string): string =>
  path.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))

/** Limit and use of one cgroup; undefined for one without a limit. */
function levelOf(path: string, version: 1 | 2, read: ReadText): Level | undefined {
  const number = (name: string): number | undefined => numberOf(read(join(path, name)))
  const [limits, usage, prefix] =
    version === 2
      ? [[number('memory.max'), number('memory.high')], number('memory.current'), '']
      : [[number('memory.limit_in_bytes')], number('memory.usage_in_bytes'), 'total_']
  const given = limits.filter((limit) => limit !== undefined)
  if (given.length === 0 || usage === undefined) return undefined
  const stat = read(join(path, 'memory.stat')) ?? ''
  // The page cache counts as used, and goes as soon as its place is needed.
  const cached = ['inactive_file', 'active_file'].reduce(
    (sum, name) => sum + (numberOf(new RegExp(`^${prefix}${name} (\\d+)$`, 'm').exec(stat)?.[1]) ?? 0),
    0,
  )
  return { total: Math.min(...given), used: Math.max(0, usage - cached), source: `cgroup ${path}` }
}

/** A whole number; undefined for `max`, for what is no number, and for the huge ones by which version 1 says "none". */
function numberOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+\s*$/.test(text)) return undefined
  const number = Number(text)
  return number < 2 ** 60 ? number : undefined
}
