/**
 * `device.readP99Ms`, `device.commandP50Ms`: what a worker says of its device, and what it is told to do with its
 * memory, while it draws: on the NVIDIA GPU of this machine, else on the CPU.
 */
import { existsSync } from 'node:fs'
import { productTimes } from '../src/engine/times.ts'
import { startFarm } from '../test/support/farm.ts'
import { figure, type Benchmark } from './figure.ts'
import { timed } from './http.ts'
import { median, quantile, rounded } from './statistics.ts'

const reads = 200
const commands = 50
const bytes = 1 << 20

interface Status {
  name: string
  running: unknown[]
  vitals: { utilization: number | null }
}

export const device: Benchmark = {
  figures: ['device.readP99Ms', 'device.commandP50Ms'],
  isLong: true,
  async measure(say) {
    const kind = existsSync('/proc/driver/nvidia/version') ? 'cuda' : 'cpu'
    await using farm = await startFarm({
      times: productTimes,
      real: true,
      settings: { DARKROOM_DEVICE: kind, DARKROOM_CHECKPOINT_CALLS: '20' },
    })
    const { url } = farm.client
    const { devices } = JSON.parse((await timed(`${url}/v1/devices`, 'GET', 200)).text) as { devices: { id: string; model: string }[] }
    const [own] = devices
    if (!own) throw new Error('void: there is no device')
    const pictures = await Promise.all([0, 1, 2, 3].map((seed) => farm.submit({ seed, steps: 200, width: 512, height: 512 })))
    await farm.untilCall(pictures[0] ?? '', 1, 120_000)

    const paths = [`/v1/devices/${own.id}/status`, '/v1/devices', `/v1/devices/${own.id}/memory`, '/v1/memory']
    const read: number[] = []
    const seen: Status[] = []
    for (let i = 0; i < reads; i++)
      for (const path of paths) {
        const { ms, text } = await timed(`${url}${path}`, 'GET', 200)
        read.push(ms)
        if (path.endsWith('/status')) seen.push(JSON.parse(text) as Status)
      }
    const told: number[] = []
    for (let i = 0; i < commands; i++) {
      const { ms, text } = await timed(`${url}/v1/memory/allocations`, 'POST', 200, { device: own.id, bytes }, { Prefer: 'wait=30' })
      told.push(ms)
      const { id } = JSON.parse(text) as { id: string }
      await timed(`${url}/v1/memory/allocations/${id}`, 'DELETE', 200, undefined, { Prefer: 'wait=30' })
    }
    const idle = seen.filter(({ running }) => running.length === 0).length
    if (idle > seen.length / 10) throw new Error(`void: nothing ran on the device in ${idle} of ${seen.length} reads`)
    for (const id of pictures) await farm.control(id, 'cancel')

    const busy = seen.flatMap(({ vitals }) => vitals.utilization ?? [])
    const share = busy.length === 0 ? 'utilization unknown' : `utilization ${rounded(median(busy))}`
    say(
      `${own.model} draws 512 × 512 (${share}); ${read.length} reads, median ${rounded(median(read))} ms; ${commands} allocations of 1 MiB, at most ${rounded(quantile(told, 1))} ms`,
    )
    return [
      figure('device.readP99Ms', quantile(read, 0.99), 'ms', { atMost: 10 }),
      figure('device.commandP50Ms', median(told), 'ms', { atMost: 25 }),
    ]
  },
}
