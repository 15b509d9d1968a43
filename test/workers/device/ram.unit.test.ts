import { describe, expect, it } from 'vitest'
import { systemRam } from '../../../src/workers/device/ram.ts'

const GiB = 2 ** 30
const meminfo = 'MemTotal:       67108864 kB\nMemFree:         1000000 kB\nMemAvailable:   50331648 kB\n'
const v2 = '30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n'
const v1 = [
  '31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755',
  '32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu',
  '33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory',
].join('\n')

const ramOf = (files: Record<string, string>) => systemRam((path) => ({ '/proc/meminfo': meminfo, ...files })[path])
const cgroup2 = (path: string, files: Record<string, string | number>): Record<string, string> =>
  Object.fromEntries(Object.entries(files).map(([name, text]) => [`/sys/fs/cgroup${path}/${name}`, `${text}\n`]))
const cgroup1 = (path: string, files: Record<string, string | number>): Record<string, string> =>
  Object.fromEntries(Object.entries(files).map(([name, text]) => [`/sys/fs/cgroup/memory${path}/${name}`, `${text}\n`]))

describe('system RAM', () => {
  it('is the machine’s without cgroups, and with cgroups that have no limit', () => {
    const machine = { total: 64 * GiB, used: 16 * GiB, limit: null, source: 'meminfo' }
    expect(ramOf({})).toEqual(machine)
    const own = { '/proc/self/cgroup': '0::/a/b\n', '/proc/self/mountinfo': v2 }
    expect(ramOf({ ...own, ...cgroup2('/a/b', { 'memory.max': 'max', 'memory.high': 'max', 'memory.current': GiB }) })).toEqual(machine)
    const older = { '/proc/self/cgroup': '4:memory:/a\n1:cpu:/a\n0::/\n', '/proc/self/mountinfo': v1 }
    const none = { 'memory.limit_in_bytes': '9223372036854771712', 'memory.usage_in_bytes': GiB }
    expect(ramOf({ ...older, ...cgroup1('/a', none), ...cgroup1('', none) })).toEqual(machine)
  })

  it('is what the tightest of all cgroups above leaves, not the innermost (version 2)', () => {
    const own = { '/proc/self/cgroup': '0::/box/pod/container\n', '/proc/self/mountinfo': v2 }
    const roomy = cgroup2('/box/pod/container', { 'memory.max': 32 * GiB, 'memory.high': 'max', 'memory.current': GiB })
    expect(ramOf({ ...own, ...roomy })).toMatchObject({ total: 32 * GiB, used: GiB, limit: 32 * GiB })
    const above = cgroup2('/box', {
      'memory.max': 8 * GiB,
      'memory.current': 6 * GiB,
      'memory.stat': `inactive_file ${GiB}\nactive_file 0`,
    })
    expect(ramOf({ ...own, ...roomy, ...above })).toEqual({
      total: 8 * GiB,
      used: 5 * GiB,
      limit: 8 * GiB,
      source: 'cgroup /sys/fs/cgroup/box',
    })
    const between = cgroup2('/box/pod', { 'memory.max': 16 * GiB, 'memory.high': 4 * GiB, 'memory.current': 3 * GiB })
    expect(ramOf({ ...own, ...roomy, ...above, ...between })).toMatchObject({ total: 4 * GiB, used: 3 * GiB, limit: 4 * GiB })
  })

  it('counts what others use of an ancestor, and the page cache as free (version 1)', () => {
    const own = { '/proc/self/cgroup': '7:cpu,memory:/docker/one\n', '/proc/self/mountinfo': v1 }
    const inner = cgroup1('/docker/one', { 'memory.limit_in_bytes': 20 * GiB, 'memory.usage_in_bytes': GiB })
    const stat = `cache ${9 * GiB}\ninactive_file 7\ntotal_inactive_file ${GiB}\ntotal_active_file ${2 * GiB}`
    const outer = cgroup1('/docker', { 'memory.limit_in_bytes': 24 * GiB, 'memory.usage_in_bytes': 22 * GiB, 'memory.stat': stat })
    expect(ramOf({ ...own, ...inner, ...outer })).toEqual({
      total: 24 * GiB,
      used: 19 * GiB,
      limit: 20 * GiB,
      source: 'cgroup /sys/fs/cgroup/memory/docker',
    })
  })

  it('finds its cgroup where a container sees only a part of the tree, and in a namespace of its own', () => {
    const limit = { 'memory.max': 2 * GiB, 'memory.current': GiB }
    const part = '30 23 0:26 /docker/one /sys/fs/cgroup ro - cgroup2 cgroup2 rw'
    for (const path of ['/docker/one', '/docker/one/inner', '/elsewhere', '/'])
      expect(ramOf({ '/proc/self/cgroup': `0::${path}\n`, '/proc/self/mountinfo': part, ...cgroup2('', limit) })).toMatchObject({
        total: 2 * GiB,
        used: GiB,
      })
    const own = { '/proc/self/cgroup': '0::/../../x\n', '/proc/self/mountinfo': v2 }
    expect(ramOf({ ...own, ...cgroup2('', limit) })).toMatchObject({ total: 2 * GiB })
  })
})
