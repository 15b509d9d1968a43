/**
 * How the devices were over the last day: once a minute one process of the farm keeps a sample of each. A day of one
 * device takes some 100 kB of Redis, and a device that has gone is forgotten after a day.
 */
import { z } from 'zod'
import { takeTurn } from '../clock.ts'
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import type { WorkerRecord } from './record.ts'

export const sampleS = 60
const keptS = 86_400
/** Samples of a device at most. */
export const keptSamples = keptS / sampleS

/** A sample as it is kept: figures in this order, null where nobody knows. */
const Kept = z.tuple([
  z.number().meta({ description: 'when its worker looked, ms since 1970' }),
  z.number().nullable().meta({ description: 'memory of the device that is used, bytes' }),
  z.number().nullable().meta({ description: 'RAM of its host that is used, bytes' }),
  z.number().nullable().meta({ description: 'utilization, per cent' }),
  z.number().nullable().meta({ description: 'temperature, °C' }),
  z.number().nullable().meta({ description: 'power, W' }),
])

export interface DeviceSample {
  /** Milliseconds since 1970 by its worker's clock. */
  at: number
  usedBytes: number | null
  ramUsedBytes: number | null
  utilization: number | null
  temperature: number | null
  power: number | null
}

/** Keeps a sample of each of these workers' devices, unless some process did so within the minute. */
export async function keepSamples(redis: Redis, workers: readonly WorkerRecord[]): Promise<void> {
  if (workers.length === 0 || !(await takeTurn(redis, keys.historyTurn(), sampleS * 1000 - 500))) return
  const writes = redis.pipeline()
  for (const { device, report } of workers) {
    const { figures, ram, vitals, sampledAt } = report
    const sample: z.infer<typeof Kept> = [sampledAt, figures.used, ram.used, vitals.utilization, vitals.temperature, vitals.power]
    const history = keys.deviceHistory(device.id)
    writes.rpush(history, JSON.stringify(sample)).ltrim(history, -keptSamples, -1).expire(history, keptS)
  }
  await translatedAll(writes)
}

/** The samples of a device, oldest first; a device that was away has none of that time. */
export async function readSamples(redis: Redis, device: string): Promise<DeviceSample[]> {
  const texts = await translated(redis.lrange(keys.deviceHistory(device), 0, -1))
  return texts.map((text) => {
    const [at, usedBytes, ramUsedBytes, utilization, temperature, power] = Kept.parse(JSON.parse(text))
    return { at, usedBytes, ramUsedBytes, utilization, temperature, power }
  })
}
